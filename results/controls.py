"""Networks that take one thing away, to see what it was worth. Notebook 08 tells what they showed."""

import torch
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.method.beyond import BeyondDAE4Rec
from dae4rec_core.method.model import DAE4Rec, Denoiser, StepNoise
from dae4rec_core.method.sampling import Predictor


class LinearAnswer(Denoiser):
    """W h + b in the place of f: no noise, no steps."""

    def __init__(self, dim: int):
        nn.Module.__init__(self)
        self.answer = nn.Linear(dim, dim)

    def forward(self, e_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """Only h (B, d) is looked at. Returns (B, d)."""
        return self.answer(h)

    def given(self, h: Tensor, timesteps: int) -> Predictor:
        """The same for a sampler, whose chain ends in it at every S."""
        answer = self.answer(h)
        return lambda e_t, t, _: answer


class CrossEntropyAlone(BeyondDAE4Rec):
    """The improved model without diffusion: the same encoder, W h + b in the place of f, and the ranking term alone."""

    def __init__(self, n_items: int, config: Config):
        super().__init__(n_items, config)
        self.denoiser = LinearAnswer(config.model.dim)

    def diffusion_term(self, e_0: Tensor, noise: StepNoise, h: Tensor, history: Tensor, target: Tensor) -> Tensor:
        """None: 0."""
        return h.new_zeros(())


class BlindDenoiser(Denoiser):
    """f that sees h alone, with as many weights: zeros stand in the place of e^t and of t."""

    def forward(self, e_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """Only h (B, d) is looked at. Returns (B, d)."""
        return super().forward(torch.zeros_like(h), torch.zeros(1, dtype=torch.long, device=h.device), h)

    def given(self, h: Tensor, timesteps: int) -> Predictor:
        """The same for a sampler, whose chain ends in it at every S."""
        answer = self(h, h, h)
        return lambda e_t, t, _: answer


class RegressionAlone(DAE4Rec):
    """The paper's model without diffusion: L_Diff is the squared error of an answer that never sees noise."""

    def __init__(self, n_items: int, config: Config):
        super().__init__(n_items, config)
        sizes = config.model
        self.denoiser = BlindDenoiser(sizes.dim, sizes.hidden, sizes.depth, sizes.dropout, sizes.shortcut)


class HeldAnswers(DAE4Rec):
    """The paper's model with answers that L_Diff can't move: E learns only as the histories' embedding."""

    def clean(self, items: Tensor) -> Tensor:
        """e^0 = Enc(v) without a gradient: (B,) -> (B, d)."""
        return super().clean(items).detach()


NETWORKS = {
    "cross-entropy alone": CrossEntropyAlone,
    "regression alone": RegressionAlone,
    "answers held": HeldAnswers,
}
