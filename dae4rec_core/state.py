"""Which epoch is kept, and what a stopped run needs to go on as if it had never stopped."""

import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Examples
from dae4rec_core.distributed import gather, world
from dae4rec_core.events import KEEPS_NOTHING, Keeper
from dae4rec_core.method.graph import ItemGraph
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.outputs import replacing

SETTINGS, DATA = "another configuration", "other data"
SECONDS = 60.0  # between two writings of a stage: what a kill can lose
# may change between the diffusion stage's calls
FREE = ("epochs", "compensator_epochs", "compensator", "steps", "pair_tile")


class EarlyStopping:
    """Keeps the weights of the epoch with the best value; `stop` is true after `patience` epochs without a better one.

    The one rule for our models and for their peers (`results/peers.py`).
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.epoch, self.stale, self.best_value = 0, 0, -1.0
        self.best: dict[str, Tensor] = {}

    @property
    def stop(self) -> bool:
        return self.stale >= self.patience

    def keep(self, epoch: int, value: float, module: nn.Module) -> None:
        """Look at an epoch's value, such as validation NDCG@10."""
        self.epoch, self.stale = epoch, self.stale + 1
        if value > self.best_value:
            self.best_value, self.stale, self.best = value, 0, weights_of(module)

    def state_dict(self) -> dict[str, Tensor]:
        """As tensors, what `Stage` keeps."""
        numbers = torch.tensor([self.epoch, self.stale, self.best_value], dtype=torch.float64)
        return {"numbers": numbers} | {f"best.{name}": value for name, value in self.best.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.best = {name.removeprefix("best."): value for name, value in tensors.items() if name != "numbers"}
        epoch, stale, self.best_value = tensors["numbers"].tolist()
        self.epoch, self.stale = int(epoch), int(stale)

    def restore(self, module: nn.Module) -> None:
        """Put the best epoch's weights back; nothing where no epoch was looked at."""
        if self.best:
            module.load_state_dict(self.best)
        module.eval()


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


class Stage(Keeper):
    """A stage of a run in one file: the tensors of its parts, the steps done, and whose run it is.

    Reading raises ValueError when the file is damaged or belongs to another run; writing when the place is full.
    """

    def __init__(self, file: Path, run: Mapping[str, Any]):
        self.file, self.run = file, run  # run: what is to be equal, by the words that say that it is not

    def resume(self, parts: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> int:
        self.parts, self.own, self.written = parts, own or {}, time.monotonic()
        if not self.file.exists():
            return 0
        facts, tensors = read(self.file)
        theirs = facts.get("run", {})
        for what, mine in self.run.items():
            if what == SETTINGS:
                same_settings(theirs.get(what, {}), mine, self.file)
            else:
                same(what, theirs, mine, self.file)
        same_processes(facts, self.file)
        mine = {f"{name}@{world()[0]}": part for name, part in self.own.items()}
        for name, part in {**parts, **mine}.items():
            start = f"{name}/"
            put_back(part, {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)})
        return facts["step"]

    def save(self, step: int, now: bool = False) -> None:
        # of several processes the first one's clock decides, and the first one writes
        if not (now or gather(time.monotonic() - self.written > SECONDS)[0]):
            return
        own = gather({name: tensors_of(part) for name, part in self.own.items()})
        parts = {name: tensors_of(part) for name, part in self.parts.items()}
        parts |= {f"{name}@{rank}": found for rank, theirs in enumerate(own) for name, found in theirs.items()}
        if world()[0] == 0:
            tensors = {f"{name}/{key}": value for name, found in parts.items() for key, value in found.items()}
            write(tensors, self.file, {"run": self.run, "step": step, "processes": world()[1]})
        self.written = time.monotonic()


def diffusion_stage(
    folder: str | Path | None,
    model: DAE4Rec,
    train: Examples,
    validation: Examples,
    graph: ItemGraph,
    z_star: Tensor | None,
) -> Keeper:
    """What keeps the diffusion stage in a folder, state.safetensors; without one it keeps nothing."""
    if folder is None:
        return KEEPS_NOTHING
    run = {
        SETTINGS: settings_of(model.config),
        "another network": None if type(model).__module__.startswith("dae4rec_core.method") else type(model).__name__,
        DATA: data_of(train, validation, graph),
        "another Z*": None if z_star is None else checksum(z_star),
    }
    return Stage(Path(folder) / "state.safetensors", run)


def check_state(
    folder: str | Path | None, config: Config, train: Examples, validation: Examples, graph: ItemGraph
) -> None:
    """Raises ValueError, before any work, when the diffusion stage that a folder keeps has other settings or data."""
    file = None if folder is None else Path(folder) / "state.safetensors"
    if file is not None and file.exists():
        theirs = read(file)[0].get("run", {})
        same_settings(theirs.get(SETTINGS, {}), settings_of(config), file)
        same(DATA, theirs, data_of(train, validation, graph), file)


def data_of(train: Examples, validation: Examples, graph: ItemGraph) -> int:
    """A checksum of all data that the diffusion stage reads."""
    parts = [*tensors_in(train), *tensors_in(validation), torch.from_numpy(graph.edges)]
    return checksum({"items": graph.n_items}, *parts)


def same(what: str, theirs: Mapping[str, Any], mine: Any, file: Path) -> None:
    """Raises ValueError when a saved run used another of something."""
    if theirs.get(what) != mine:
        raise ValueError(f"The run saved in {file.parent} used {what}; give its own, or write somewhere else.")


def settings_of(config: Config) -> dict[str, Any]:
    """Those that a run can't change on its way."""
    return {name: value for name, value in config.flat().items() if name not in FREE}


def same_settings(theirs: Mapping[str, Any], mine: Mapping[str, Any], file: Path) -> None:
    """Raises ValueError that names a setting which differs."""
    other = [name for name in mine if name not in theirs or theirs[name] != mine[name]]
    if other:
        name = other[0]
        raise ValueError(
            f"The run saved in {file.parent} used another configuration: {name} is {theirs.get(name, 'unknown')} there "
            f"and {mine[name]} here; give its own, or write somewhere else."
        )


def same_processes(facts: Mapping[str, Any], file: Path) -> None:
    """Raises ValueError when another number of processes wrote the file: their sums differ in the last bits."""
    mine = world()[1]
    number = facts.get("processes", mine)  # an older version wrote none
    if number != mine:
        raise ValueError(
            f"The run saved in {file.parent} was made by {number} processes, and this one has {mine}; start "
            f"{number}, or write somewhere else."
        )


def tensors_of(part: Any) -> dict[str, Tensor]:
    """What a part of a stage holds, on the CPU: a tensor, a random stream, an optimizer, or what has a state_dict."""
    if isinstance(part, torch.optim.Optimizer):
        states = part.state_dict()["state"].items()
        found = {f"{number}.{name}": value for number, values in states for name, value in values.items()}
    elif isinstance(part, torch.Generator):
        found = {"": part.get_state()}
    else:
        found = {"": part} if isinstance(part, Tensor) else part.state_dict()
    return {name: value.detach().cpu().clone() for name, value in found.items()}  # two of them may share memory


@torch.no_grad()
def put_back(part: Any, tensors: dict[str, Tensor]) -> None:
    """The other direction of `tensors_of`."""
    if isinstance(part, torch.optim.Optimizer):
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".")
            states.setdefault(int(number), {})[name] = value
        part.load_state_dict({**part.state_dict(), "state": states})
    elif isinstance(part, torch.Generator):
        part.set_state(tensors[""])
    elif isinstance(part, Tensor):
        part.copy_(tensors[""])
    else:
        part.load_state_dict(tensors)


def checksum(*parts: Tensor | Mapping[str, Any]) -> int:
    """Of tensors, their kinds and shapes, and of JSON values."""
    found = 0
    for part in parts:
        if isinstance(part, Tensor):
            found = zlib.crc32(f"{part.dtype}{tuple(part.shape)}".encode(), found)
            found = zlib.crc32(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, found)
        else:
            found = zlib.crc32(json.dumps(part).encode(), found)
    return found


def write(tensors: dict[str, Tensor], file: Path, facts: Mapping[str, Any]) -> None:
    """A safetensors file with JSON values, and a digest of it all, in its header; put in place by one rename."""
    digest = checksum(facts, {"names": sorted(tensors)}, *(tensors[name] for name in sorted(tensors)))
    with replacing(file) as new:
        save_file(tensors, new, metadata={"facts": json.dumps(facts), "digest": str(digest)})


def read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write` wrote. Raises ValueError when a bit of it has changed."""
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        facts = json.loads(header.get("facts", "{}"))
        digest = checksum(facts, {"names": sorted(tensors)}, *(tensors[name] for name in sorted(tensors)))
        if header.get("digest", str(digest)) != str(digest):  # an older version wrote none
            raise ValueError("its digest differs")
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}); remove it, and that stage is done again.") from None
    return facts, tensors


def z_star_file(folder: str | Path, graph: ItemGraph, config: Config) -> Path:
    """Where Z* is kept: a name that changes with the graph and with everything that decides the pretraining."""
    decides = [config.to_dict()["gae"], config.model.dim, config.model.hidden, config.train.seed]
    decides += [config.train.pair_precision, graph.n_items]
    key = zlib.crc32(graph.edges.tobytes(), zlib.crc32(json.dumps(decides).encode()))
    if config.beyond.similarity == "counts" and graph.counts is not None:
        key = zlib.crc32(graph.counts.data.tobytes(), zlib.crc32(graph.counts.indices.tobytes(), key))
    return Path(folder) / f"z_star-{key:08x}.safetensors"


def compensator_file(
    folder: str | Path, model: DAE4Rec, train: Examples, validation: Examples, steps: int | None
) -> Path:
    """Where a compensator for S = steps, or a shared one, is kept: a name that changes with all that decides it."""
    settings = {name: value for name, value in model.config.flat().items() if name not in ("epochs", "pair_tile")}
    weights = model.state_dict().values()
    key = checksum(settings, {"S": steps}, *weights, *tensors_in(train), *tensors_in(validation))
    return Path(folder) / f"compensator-{key:08x}.safetensors"


def tensors_in(examples: Examples) -> list[Tensor]:
    """What a model sees of them."""
    return [examples.history, examples.target, examples.seen]


def begun(file: Path | None, part: str = "begun") -> Keeper:
    """What keeps a stage on its way to `file`, a finished result."""
    return KEEPS_NOTHING if file is None else Stage(file.with_name(f"{file.stem}-{part}.safetensors"), {})


def load_finished(file: Path | None) -> dict[str, Tensor] | None:
    """The finished result that was kept there, or None."""
    if file is None or not file.exists():
        return None
    facts, tensors = read(file)
    same_processes(facts, file)
    return tensors


def save_finished(tensors: dict[str, Tensor], file: Path | None) -> None:
    """Keep a result; what led to it goes. Of several processes the first one writes."""
    if file is None or world()[0] > 0:
        return
    write(tensors, file, {"processes": world()[1]})
    for stage in file.parent.glob(f"{file.stem}-*.safetensors"):
        stage.unlink()
