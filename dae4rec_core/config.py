"""One configuration object, nested by stage; the presets; and the one place that knows the devices and their memory.

Fields that the paper leaves open are marked "our choice". None means "chosen for you", as the field's help says.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

REPEATS = ("keep", "drop_consecutive", "first_visits")
SPLITS = ("leave_last_out", "global_time")
SCHEDULES = ("linear", "cosine", "exponential")
LAMBDAS = ("uniform", "paper", "min_snr")
AGGREGATIONS = ("sum", "last")
AIME_TARGETS = ("gae", "graph")
GEOMETRIES = ("free", "sphere")
DENOISERS = ("mlp", "posterior")
COMPENSATORS = ("each S", "shared")
SIMILARITIES = ("graph", "counts")
PRECISIONS = ("float32", "tf32", "bfloat16")


def option(
    default: Any,
    help: str,
    flat: str | None = None,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A field with its default, one line of explanation, and what it may hold.

    flat: its name on the command line, where that isn't its own. least, above, below, most: bounds of a number; with no
    `most` it is what PyTorch can hold, see LARGEST.
    """
    bounds = {"least": least, "above": above, "below": below, "most": most}
    facts = {"help": help, "flat": flat, "choices": choices, **bounds}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class DataConfig:
    """What of the data is used. All our choice: the paper only names its three data sets."""

    k_core: int = option(5, "users and items with fewer interactions are dropped, repeatedly", least=1)
    repeats: str = option("keep", "keep | drop_consecutive | first_visits", choices=REPEATS)
    split: str = option("leave_last_out", "leave_last_out | global_time", choices=SPLITS)
    max_len: int = option(20, "the newest items of a history that the model sees", least=1, most=10**6)


@dataclass(frozen=True)
class ModelConfig:
    """E, the attention condition (Eq. 4), the denoiser f and the compensator c."""

    dim: int = option(128, "d: item embeddings E, condition h and Z* share it (Section 3.3)", least=1, most=10**6)
    hidden: int = option(256, "width of the hidden layers of f, c and the graph auto-encoder", least=1, most=10**6)
    depth: int = option(2, "hidden layers of f and of c", least=1, most=100)
    aggregation: str = option("sum", "'sum' of the attention outputs, or the 'last' one only", choices=AGGREGATIONS)
    positions: bool = option(True, "learned positions in the attention")
    layer_norm: bool = option(True, "a LayerNorm on h")
    shortcut: bool = option(True, "a linear map of h added to the answers of f and c")
    dropout: float = option(0.1, "share of units dropped in training", least=0, below=1)
    init_std: float = option(0.1, "of E; N(0, 1) would saturate the sigmoid of Eq. 10", above=0, most=1e3)


@dataclass(frozen=True)
class GAEConfig:
    """The graph auto-encoder, Eq. 7-9."""

    steps: int = option(4000, "gradient steps of pretraining", flat="gae_steps", least=1, most=10**8)
    lr: float = option(0.01, "learning rate of the graph auto-encoder", flat="gae_lr", above=0)
    pos_weight: float | None = option(
        None, "weight of the edges in Eq. 9: 1 = the paper, none = zeros / ones (Kipf)", above=0
    )
    pairs: int | None = option(
        2**20, "item pairs that a step of Eq. 9 looks at, drawn without bias; none = all", flat="gae_pairs", least=1
    )


@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process and the loss, Eq. 1-5, 10, 11."""

    timesteps: int = option(200, "T", least=1, most=10**6)
    schedule: str = option("linear", "linear | cosine | exponential", choices=SCHEDULES)
    lambda_t: str = option("uniform", "weights of Eq. 5: uniform | paper | min_snr", choices=LAMBDAS)
    # L_AIME is a sum over j and a mean over i: delta only means something with that
    delta: float = option(10.0, "weight of L_AIME beside L_Diff", least=0)
    aime_target: str = option("gae", "'gae': Z*; 'graph': the adjacency (the paper's -C_ground)", choices=AIME_TARGETS)
    aime_pairs: int | None = option(2**17, "item pairs that a step of Eq. 10 looks at; none = all", least=1)


@dataclass(frozen=True)
class SamplingConfig:
    """Skip-step sampling, Eq. 12-16."""

    steps: int | None = option(10, "S; none = T // 2, the paper's setting in Table 1", least=1)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. All our choice."""

    lr: float = option(1e-3, "learning rate of everything but E", above=0)
    lr_embedding: float = option(3e-3, "learning rate of E", above=0)
    batch_size: int = option(512, "next-item examples in a step", least=1, most=10**9)
    epochs: int = option(20, "passes over the training examples, at most", least=0, most=10**6)
    patience: int = option(3, "epochs in a row without a better validation NDCG@10 that end training", least=1)
    compensator_epochs: int = option(10, "passes over the sampled e^{tau_1}; 0 = no compensator", least=0, most=10**6)
    seed: int = option(0, "of every random number", least=0)
    pair_tile: int | None = option(None, "edge of the pair losses' tiles; none = 1024 on a CPU, 8192 on a GPU", least=1)
    pair_precision: str = option("float32", "of their products: float32 | tf32 (CUDA) | bfloat16", choices=PRECISIONS)


@dataclass(frozen=True)
class BeyondConfig:
    """What is not in the paper, see notebook 08; the defaults leave all of it out."""

    geometry: str = option("free", "of e^0: 'free' = E; 'sphere' = sqrt(d) E / |E|, cosines", choices=GEOMETRIES)
    rank_weight: float = option(0.0, "gamma: weight of a cross-entropy over the catalogue, on f(x_T, T, h)", least=0)
    temperature: float = option(0.1, "what cosines are divided by, on the sphere", least=1e-3)
    returns: bool = option(False, "add a learned number to the scores of the user's own items")
    neighbours: float = option(
        0.0, "weight of log(1 + how often an item stood within ten places of the newest three)", least=0, most=1e6
    )
    unconditional: float = option(0.0, "share of training examples that don't see h (DreamRec)", least=0, below=1)
    guidance: float = option(0.0, "w of (1 + w) f(e, t, h) - w f(e, t, nothing) (DreamRec)", least=0, most=100)
    similarity: str = option(
        "graph", "Z* from: 'graph' = Eq. 9; 'counts' = how often each step was taken", choices=SIMILARITIES
    )
    denoiser: str = option("mlp", "f: 'mlp', or 'posterior', a mean over the catalogue", choices=DENOISERS)
    compensator: str = option("each S", "'each S': Eq. 16; 'shared': f(0, T, h) + r(h) for all S", choices=COMPENSATORS)


@dataclass(frozen=True)
class Config:
    """Every number that decides a run, by stage; the defaults are the preset `reference`.

    `replace`, `flat` and the command line use one flat list of names, for example `config.replace(delta=0.0)`.
    Raises ValueError (one sentence: which field, what it holds, how to mend it) for impossible values.
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    gae: GAEConfig = GAEConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig = SamplingConfig()
    train: TrainConfig = TrainConfig()
    beyond: BeyondConfig = BeyondConfig()

    def __post_init__(self) -> None:
        values = self.flat()
        for name, (_, item) in FIELDS.items():
            _check(name, values[name], item.metadata)
        if self.model.dim % 2:
            raise ValueError(
                f"Config.dim is {self.model.dim}; give an even number, for the sines and cosines of the time."
            )
        if self.sampling_steps > self.diffusion.timesteps:
            raise ValueError(
                f"Config.steps (S) is {self.sampling_steps}, more than Config.timesteps (T) = "
                f"{self.diffusion.timesteps}; give an S of at most T."
            )
        if self.beyond.guidance and not self.beyond.unconditional:
            raise ValueError(
                f"Config.guidance is {self.beyond.guidance}, but the model never learns to do without h; "
                "give Config.unconditional a share such as 0.1."
            )
        if self.beyond.similarity == "counts" and self.diffusion.aime_target == "graph":
            raise ValueError(
                "Config.similarity is 'counts', which decides Z*, but Config.aime_target 'graph' does without Z*; "
                "give one of the two its default."
            )
        if self.beyond.denoiser == "posterior":
            self._check_posterior()
        if self.beyond.returns and not self.beyond.rank_weight:
            raise ValueError(
                "Config.returns adds learned numbers to scores, but only the ranking term can teach them; "
                "give Config.rank_weight a value above 0, such as 100."
            )

    def _check_posterior(self) -> None:
        """What the posterior's formula and training rest on."""
        if self.beyond.geometry != "sphere" or not self.beyond.rank_weight:
            raise ValueError(
                "Config.denoiser 'posterior' needs items of one length and a ranking term; "
                "give Config.geometry 'sphere' and Config.rank_weight a value above 0, such as 1."
            )
        if self.diffusion.lambda_t != "uniform":
            raise ValueError(
                "Config.lambda_t weighs Eq. 5, which Config.denoiser 'posterior' does without; leave it at 'uniform'."
            )
        if self.beyond.unconditional:
            raise ValueError("Config.unconditional has no meaning for Config.denoiser 'posterior'; leave it at 0.")
        if self.train.compensator_epochs:
            raise ValueError(
                "Config.denoiser 'posterior' ranks by p(v | h), where no last step is left to compensate; "
                "give Config.compensator_epochs 0."
            )

    @property
    def sampling_steps(self) -> int:
        """S, with none read as T // 2 (at least 1)."""
        return self.sampling.steps or max(1, self.diffusion.timesteps // 2)

    def flat(self) -> dict[str, Any]:
        """All values by their flat names."""
        return {name: getattr(getattr(self, stage), item.name) for name, (stage, item) in FIELDS.items()}

    def replace(self, **changes: Any) -> "Config":
        """The same with some values changed, by their flat names. Raises ValueError for a name that is none."""
        unknown = sorted(set(changes) - set(FIELDS))
        if unknown:
            raise ValueError(f"Config has no field {', '.join(unknown)}; its fields are {', '.join(sorted(FIELDS))}.")
        stages: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            stage, item = FIELDS[name]
            stages.setdefault(stage, {})[item.name] = value
        return dataclasses.replace(
            self, **{stage: dataclasses.replace(getattr(self, stage), **values) for stage, values in stages.items()}
        )

    def furthest(self, *names: str) -> str | None:
        """Of some fields the one that is the largest multiple of its default; None where none is above its own."""
        values, defaults = self.flat(), Config().flat()
        name = max(names, key=lambda name: values[name] / defaults[name])
        return name if values[name] > defaults[name] else None

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By stage, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, dict[str, Any]]) -> "Config":
        """The reverse of `to_dict`. Raises ValueError when it holds a stage or field that doesn't exist."""
        names = {(stage, item.name): name for name, (stage, item) in FIELDS.items()}
        stages = {stage: part for stage, part in values.items() if isinstance(part, dict)}  # format 1 had none
        given = {(stage, name): value for stage, part in stages.items() for name, value in part.items()}
        unknown = {f"{stage}.{name}" for stage, name in set(given) - set(names)} | (set(values) - set(stages))
        if unknown:
            raise ValueError(f"Config has no field {', '.join(sorted(unknown))}; it may come from another version.")
        return cls().replace(**{names[place]: value for place, value in given.items()})


def _fields() -> dict[str, tuple[str, dataclasses.Field]]:
    """(stage, field) by flat name, in the order of the stages."""
    found: dict[str, tuple[str, dataclasses.Field]] = {}
    for stage in dataclasses.fields(Config):
        for item in dataclasses.fields(typing.get_type_hints(Config)[stage.name]):
            found[item.metadata["flat"] or item.name] = (stage.name, item)
    return found


FIELDS = _fields()


def kind_of(item: dataclasses.Field) -> tuple[type, bool]:
    """A field's type, and whether it may be None."""
    if isinstance(item.type, types.UnionType):
        return next(kind for kind in typing.get_args(item.type) if kind is not types.NoneType), True
    assert isinstance(item.type, type)
    return item.type, False


LARGEST = {int: 2**63 - 1, float: 3.4e38}  # of int64 and of float32
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def _check(name: str, value: Any, facts: typing.Mapping[str, Any]) -> None:
    kind, optional = kind_of(FIELDS[name][1])
    if value is None and optional:
        return
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool) or value == math.inf:
        raise ValueError(f"Config.{name} is {value!r}; give {WORDS[kind]}{' or None' if optional else ''}.")
    if facts["choices"] is not None and value not in facts["choices"]:
        raise ValueError(f"Config.{name} is {value!r}; choose one of {', '.join(facts['choices'])}.")
    bounds = {
        "least": ("at least", lambda limit: value >= limit),
        "above": ("a number above", lambda limit: value > limit),
        "below": ("a number below", lambda limit: value < limit),
        "most": ("at most", lambda limit: value <= limit),
    }
    largest = LARGEST.get(int if isinstance(value, int) else kind)
    limits = {**facts, "most": largest if facts["most"] is None else facts["most"]}
    for bound, (words, holds) in bounds.items():
        if limits[bound] is not None and not holds(limits[bound]):  # "not" also refuses NaN
            raise ValueError(f"Config.{name} is {value}; give {words} {limits[bound]}.")


# What `reference` does that the paper doesn't print, each with its reason. A test holds this list complete.
DEPARTURES = {
    "positions": "Eq. 4 doesn't see the order of a history; it gains nothing on the town (03), little elsewhere (06)",
    "layer_norm": "Eq. 4 sums the outputs, so h grows with the history: 15 long after 5 items, 45 after 20 (03)",
    "shortcut": "h reaches the answer by a linear path from the first step; on two real sets it earned nothing (06)",
    "dropout": "the paper names no regularisation; we use a little",
    "pos_weight": "on a sparse graph Eq. 9 as printed needs 1,000 steps for what a weighted one learns in 100 (02)",
    "gae_pairs": "a sample of the item pairs, without bias, so that a step's cost doesn't grow with the catalogue",
    "aime_pairs": "the same for Eq. 10",
    "timesteps": "T = 200 for T = 1000: a fifth of the time for the full chain, at the same final noise",
    "lambda_t": "the printed weights are infinite at t = 1 and span orders of magnitude (notebook 03)",
    "steps": "S = 10 for T / 2: with the compensator as good a list in a sixth of the time (notebooks 04, 05)",
}

# letter: what the paper prints and nothing else. What it leaves open (sizes, learning rates, delta, how L_AIME is
# normalised, lambda_1) is as in reference; the printed lambda_t is larger, so the same delta weighs less beside it.
# reference: the default, what notebooks 00 to 06 use. improved: ours, notebook 08. posterior: ours, whose draws are a
# distribution, notebook 09. dreamrec: the recipe of Yang et al. (2023) in our modules, its settings chosen by
# `python -m results search`.
PRESETS = {
    "letter": Config().replace(
        positions=False,
        layer_norm=False,
        shortcut=False,
        dropout=0.0,
        pos_weight=1.0,
        gae_pairs=None,
        aime_pairs=None,
        timesteps=1000,
        lambda_t="paper",
        steps=None,
    ),
    "reference": Config(),
    "improved": Config().replace(
        geometry="sphere",
        rank_weight=100.0,
        returns=True,
        neighbours=1.0,
        delta=0.0,
        max_len=50,
        dropout=0.3,
        lr=2e-3,
    ),
    "posterior": Config().replace(
        geometry="sphere",
        denoiser="posterior",
        rank_weight=1.0,
        returns=True,
        neighbours=1.0,
        delta=0.0,
        max_len=50,
        dropout=0.3,
        lr=2e-3,
        compensator_epochs=0,
    ),
    "dreamrec": Config().replace(
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


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """CUDA when there is one, else the CPU; a name other than "auto" is obeyed.

    Apple's MPS is not offered: it lacks the sparse CSR products of the graph. Raises ValueError when the device is not
    there.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cuda", "cpu") or (name.startswith("cuda") and not torch.cuda.is_available()):
        there = "auto, cuda or cpu" if torch.cuda.is_available() else "auto or cpu"
        raise ValueError(f"Device {name!r} is not available here; choose {there}.")
    return torch.device(name)


def free_bytes(device: torch.device) -> int:
    """How much memory is free there now, of the card or of the machine."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
