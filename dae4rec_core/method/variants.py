"""Which model a configuration asks for."""

from dae4rec_core.config import BeyondConfig, Config
from dae4rec_core.method.beyond import BeyondDAE4Rec
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.method.posterior import PosteriorDAE4Rec


def make_model(n_items: int, config: Config) -> DAE4Rec:
    """The paper's model, or one of ours where the configuration's part `beyond` differs from its defaults."""
    if config.beyond == BeyondConfig():
        return DAE4Rec(n_items, config)
    return (PosteriorDAE4Rec if config.beyond.denoiser == "posterior" else BeyondDAE4Rec)(n_items, config)
