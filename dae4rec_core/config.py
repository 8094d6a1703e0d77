"""One configuration object, read at the top and passed down; and the one place that chooses a device."""

import dataclasses
from dataclasses import dataclass

import torch

REPEATS = ("keep", "drop_consecutive", "first_visits")
SPLITS = ("leave_last_out", "global_time")
SCHEDULES = ("linear", "cosine", "exponential")
LAMBDAS = ("uniform", "paper", "min_snr")
AGGREGATIONS = ("sum", "last")
AIME_TARGETS = ("gae", "graph")
GEOMETRIES = ("free", "sphere")
PRECISIONS = ("float32", "tf32", "bfloat16")
RETIRED = ("pair_rows",)  # stands in older checkpoints and decided nothing but how they were trained


def option(default, help: str):
    """A field with a default and one line of explanation, which `--help` shows."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Config:
    """Every number that decides a run. "Our choice" marks what the paper leaves open.

    Raises ValueError (one sentence: which field, what it holds, how to mend it) for impossible values.
    """

    # data: all our choice, the paper only names its three data sets
    k_core: int = option(5, "users and items with fewer interactions are dropped, repeatedly")
    repeats: str = option("keep", "keep | drop_consecutive | first_visits")
    split: str = option("leave_last_out", "leave_last_out | global_time")
    max_len: int = option(20, "the newest items of a history that the model sees")

    # model: sizes are our choice
    dim: int = option(128, "d: item embeddings E, condition h and Z* share it (Section 3.3)")
    hidden: int = option(256, "width of the denoiser's and the compensator's hidden layers")
    depth: int = option(2, "hidden layers of both")
    positions: bool = option(True, "our choice: Eq. 4 is blind to order without them (False = to the letter)")
    aggregation: str = option("sum", "'sum' of the attention outputs (Section 3.2) or the 'last' one only")
    dropout: float = option(0.1, "share of units dropped in training")
    init_std: float = option(0.1, "of E; N(0, 1) would saturate the sigmoid of Eq. 10")

    # graph auto-encoder, Eq. 7-9
    gae_steps: int = option(4000, "gradient steps of pretraining")
    gae_lr: float = option(0.01, "learning rate of the graph auto-encoder")
    pos_weight: float = option(0.0, "weight of the edges in Eq. 9: 1 = to the letter, 0 = zeros / ones (Kipf)")

    # diffusion, Eq. 1-5
    timesteps: int = option(200, "T")
    schedule: str = option("linear", "linear | cosine | exponential")
    lambda_t: str = option("uniform", "uniform | paper | min_snr")

    # AIME, Eq. 10-11. L_AIME is a sum over j and a mean over i: delta only means something with that
    delta: float = option(10.0, "weight of L_AIME beside L_Diff")
    aime_target: str = option("gae", "'gae': Z*; 'graph': the adjacency itself (the paper's -C_ground)")

    # beyond the paper, see notebook 08; the defaults leave all of it out
    geometry: str = option("free", "of e^0: 'free' = E, the paper; 'sphere' = sqrt(d) E / |E|, scores are cosines")
    rank_weight: float = option(0.0, "gamma: weight of a cross-entropy over the catalogue, on f(x_T, T, h)")
    temperature: float = option(0.1, "what cosines are divided by, on the sphere")
    returns: bool = option(False, "add a learned number to the scores of the user's own items")
    neighbours: float = option(0.0, "weight of log(1 + transition counts) of the newest three items in the scores")

    # classifier-free guidance, the recipe of DreamRec; the paper has none
    unconditional: float = option(0.0, "share of training examples whose h is hidden")
    guidance: float = option(0.0, "w of (1 + w) f(e, t, h) - w f(e, t, nothing)")

    # optimisation: our choice
    gae_pairs: int = option(2**20, "item pairs that a step of Eq. 9 looks at, drawn without bias; 0 = all of them")
    aime_pairs: int = option(2**17, "the same for Eq. 10, where the noise hurts less: see notebook 07")
    pair_tile: int = option(0, "edge length of their tiles; 0 = 1024 on a CPU, 8192 on a GPU")
    pair_precision: str = option("float32", "of their products: float32 | tf32 (CUDA) | bfloat16")
    lr: float = option(1e-3, "learning rate of everything but E")
    lr_embedding: float = option(3e-3, "learning rate of E")
    batch_size: int = option(512, "next-item examples in a step")
    epochs: int = option(20, "passes over the training examples, at most")
    patience: int = option(3, "epochs without a better validation NDCG@10 that training puts up with")
    compensator_epochs: int = option(10, "passes over the sampled e^{tau_1} when the compensator is trained")
    seed: int = option(0, "of every random number")

    # sampling, Eq. 12-16
    steps: int = option(0, "S; 0 means T // 2, the paper's setting in Table 1")

    def __post_init__(self):
        for name, allowed in (
            ("repeats", REPEATS),
            ("split", SPLITS),
            ("schedule", SCHEDULES),
            ("lambda_t", LAMBDAS),
            ("aggregation", AGGREGATIONS),
            ("aime_target", AIME_TARGETS),
            ("geometry", GEOMETRIES),
            ("pair_precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Config.{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")
        for name in ("k_core", "max_len", "dim", "hidden", "depth", "gae_steps", "timesteps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Config.{name} is {getattr(self, name)}; give at least 1.")
        not_negative = (
            "delta",
            "pos_weight",
            "gae_pairs",
            "aime_pairs",
            "pair_tile",
            "rank_weight",
            "neighbours",
            "guidance",
        )
        for name in (*not_negative, "epochs", "patience", "compensator_epochs", "steps"):
            if not getattr(self, name) >= 0:  # also refuses NaN
                raise ValueError(f"Config.{name} is {getattr(self, name)}; give 0 or more.")
        if self.dim % 2:
            raise ValueError(f"Config.dim is {self.dim}; give an even number, for the sines and cosines of the time.")
        for name in ("lr", "lr_embedding", "gae_lr", "init_std", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Config.{name} is {getattr(self, name)}; give a number above 0.")
        for name in ("dropout", "unconditional"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Config.{name} is {getattr(self, name)}; give a share from 0 up to below 1.")
        if self.guidance and not self.unconditional:
            raise ValueError(
                f"Config.guidance is {self.guidance}, but the model never learns to do without h; "
                "give Config.unconditional a share such as 0.1."
            )
        if self.steps > self.timesteps:
            raise ValueError(
                f"Config.steps (S) is {self.steps}, more than Config.timesteps (T) = {self.timesteps}; "
                "give an S of at most T."
            )

    @property
    def sampling_steps(self) -> int:
        """S, with 0 read as T // 2 (at least 1)."""
        return self.steps or max(1, self.timesteps // 2)

    def replace(self, **changes) -> "Config":
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Config":
        """The reverse of `to_dict`. Raises ValueError when a name is not a field."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in values.items() if name not in RETIRED}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"Config has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}.")
        return cls(**values)


# Named configurations. "paper" is the default and what the notebooks train. "tuned" is as faithful, its sizes chosen by
# `python -m results search`, as those of the next two. "improved" goes beyond the paper (notebook 08). "dreamrec" is
# the recipe of Yang et al. (2023) in our modules.
PRESETS = {
    "paper": Config(),
    "tuned": Config(dim=256, dropout=0.3, gae_steps=2000, gae_pairs=2**19),
    "improved": Config(
        geometry="sphere",
        rank_weight=100.0,
        returns=True,
        neighbours=1.0,
        delta=0.0,
        max_len=50,
        dropout=0.3,
        lr=2e-3,
    ),
    "dreamrec": Config(
        delta=0.0,
        unconditional=0.1,
        guidance=2.0,
        init_std=1.0,
        dim=256,
        dropout=0.0,
        positions=False,
        aggregation="last",
        timesteps=50,
        schedule="cosine",
        lambda_t="min_snr",
        batch_size=1024,
        lr=1.2e-3,
        lr_embedding=6e-4,
    ),
}


def choose_device(name: str = "auto") -> torch.device:
    """CUDA when there is one, else the CPU; a name other than "auto" is obeyed.

    Apple's MPS is not offered: it lacks the sparse CSR products of the graph. Raises ValueError when the device is not
    there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cuda", "cpu") or (name.startswith("cuda") and not torch.cuda.is_available()):
        there = "auto, cuda or cpu" if torch.cuda.is_available() else "auto or cpu"
        raise ValueError(f"Device {name!r} is not available here; choose {there}.")
    return torch.device(name)
