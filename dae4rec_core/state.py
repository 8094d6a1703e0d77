"""Which epoch is kept, and what a stopped run needs to go on as if it had never stopped."""

import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Examples
from dae4rec_core.distributed import world
from dae4rec_core.method.graph import ItemGraph


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

    def restore(self, module: nn.Module) -> None:
        """Put the best epoch's weights back; nothing where no epoch was looked at."""
        if self.best:
            module.load_state_dict(self.best)
        module.eval()


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


class RunState:
    """The diffusion stage of a run in one file: weights, best weights, optimizer, epoch, and whose run it is.

    folder: where it is kept, None to keep nothing. A file that is there is read at once.
    Raises ValueError when it belongs to another configuration, to other data or to another Z*.
    """

    def __init__(
        self,
        folder: str | Path | None,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        stopping: EarlyStopping,
        config: Config,
        train: Examples,
        z_star: Tensor | None = None,
    ):
        self.file = None if folder is None else Path(folder) / "state.safetensors"
        self.model, self.optimizer, self.stopping, self.config = model, optimizer, stopping, config
        self.data = checksum(torch.column_stack([train.history, train.target]))
        self.z_star = None if z_star is None else checksum(z_star)
        if self.file is not None and self.file.is_file():
            self._load(self.file)

    def save(self) -> None:
        """Write the file anew; of several processes the first one does."""
        if self.file is None or world()[0] > 0:
            return
        stopping = self.stopping
        tensors = {f"model.{name}": value for name, value in weights_of(self.model).items()}
        tensors |= {f"best.{name}": value.clone() for name, value in stopping.best.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value.detach().cpu().clone() for name, value in values.items()}
        facts = {
            "epoch": stopping.epoch,
            "stale": stopping.stale,
            "best_value": stopping.best_value,
            "config": self.config.to_dict(),
            "data": self.data,
            "z_star": self.z_star,
        }
        write(tensors, self.file, {"facts": json.dumps(facts)})

    def _load(self, file: Path) -> None:
        with safe_open(file, "pt") as opened:
            facts = json.loads(opened.metadata()["facts"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        mine = self.config.train  # what follows the diffusion stage, or changes no number, may differ
        free = {
            "epochs": mine.epochs,
            "compensator_epochs": mine.compensator_epochs,
            "pair_tile": mine.pair_tile,
            "compensator": self.config.beyond.compensator,
        }
        try:
            saved = Config.from_dict(facts["config"]).replace(**free)
        except ValueError:  # of another version, with other fields
            saved = None
        if saved != self.config:
            raise ValueError(
                f"The run saved in {file.parent} used another configuration; give its own, or another state folder."
            )
        if (facts["data"], facts["z_star"]) != (self.data, self.z_star):
            raise ValueError(
                f"The run saved in {file.parent} was trained on other data or another Z*; give its own, or another "
                "state folder."
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        stopping = self.stopping
        stopping.epoch, stopping.stale, stopping.best_value = facts["epoch"], facts["stale"], facts["best_value"]
        stopping.best = part("best.")
        self.model.load_state_dict(part("model."))
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in part("adam.").items():
            number, key = name.split(".")
            adam.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": adam})


def checksum(tensor: Tensor) -> int:
    """Of its bytes."""
    return zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes())


def write(tensors: dict[str, Tensor], file: Path, header: dict[str, str] | None = None) -> None:
    """A safetensors file, put in place by one rename: a run that is killed here loses nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")  # other processes may write the same Z*
    save_file(tensors, new, metadata=header)
    new.replace(file)


def z_star_file(folder: str | Path, graph: ItemGraph, config: Config) -> Path:
    """Where Z* is kept: a name that changes with the graph and with everything that decides the pretraining."""
    decides = [config.to_dict()["gae"], config.model.dim, config.model.hidden, config.train.seed]
    decides += [config.train.pair_precision, graph.n_items]
    key = zlib.crc32(graph.edges.tobytes(), zlib.crc32(json.dumps(decides).encode()))
    if config.beyond.similarity == "counts" and graph.counts is not None:
        key = zlib.crc32(graph.counts.data.tobytes(), zlib.crc32(graph.counts.indices.tobytes(), key))
    return Path(folder) / f"z_star-{key:08x}.safetensors"


def load_z_star(file: Path) -> Tensor | None:
    """What was kept there, or None."""
    return load_file(file)["z_star"] if file.is_file() else None


def save_z_star(z_star: Tensor, file: Path) -> None:
    """Of several processes the first one writes."""
    if world()[0] == 0:
        write({"z_star": z_star.detach().cpu().contiguous()}, file)
