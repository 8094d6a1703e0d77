"""Lists that hold the next item as often as promised (notebook 09): results/conformal.csv.

Calibrated on validation answers, counted on test answers, by group of history length. Three seeds of each trained
method; ours by the softmax that its lists come from, SASRec by its own.
"""

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Examples
from dae4rec_core.experiments.clouds import Bench, of_unseen
from dae4rec_core.experiments.conformal import conformal_rows
from dae4rec_core.experiments.solvers import law_given_history
from dae4rec_core.method.model import PAD
from results import grid
from results.clouds import OURS, SETS, bench_of, probabilities_of

USERS = 2_000
TABLE = grid.FOLDER / "conformal.csv"
GROUPS = (10, 25)  # visits that the model sees: up to 10 is group 0, up to 25 group 1, more group 2


def write(folder: Path) -> None:
    """Measure what TABLE lacks, the town first. folder: where the real data sets are."""
    for where in SETS:
        units = [(*where, "no training", 0)]
        units += [(*where, name, seed) for seed in grid.SEEDS for name in (*OURS, "SASRec")]
        grid.fill((TABLE,), ("data", "filter", "unit", "seed"), units, partial(measure, folder=folder))


def measure(data: str, name: str, method: str, seed: int, folder: Path) -> list[list[dict]]:
    """The rows of one method and seed."""
    bench = bench_of(data, name, folder, USERS)
    groups = [length_groups(part) for part in (bench.validation, bench.test)]
    targets = bench.validation.target, bench.test.target
    found = methods(data, name, method, seed, folder, bench)
    return [
        [
            {"method": called} | row
            for called, p in found.items()
            for row in conformal_rows(*zip(p, targets, groups, strict=True))
        ]
    ]


def length_groups(examples: Examples) -> np.ndarray:
    """The number of each history's group: (N,)."""
    return np.searchsorted(GROUPS, (examples.history != PAD).sum(1).numpy())


def methods(
    data: str, name: str, method: str, seed: int, folder: Path, bench: Bench
) -> dict[str, tuple[Tensor, Tensor]]:
    """p(v | history) on validation and on test, (N, |V|) each, by what it is called."""
    found = probabilities_of(data, name, method, seed, folder, bench, USERS)
    if method == "no training" and bench.law is not None:
        dataset, split = grid.load(data, name, folder)
        config = Config().replace(**grid.data_settings(name), max_len=50)
        place = grid.place_of(data, folder)
        before = law_given_history(place, dataset, split, bench.validation, config, "validation")
        assert before is not None
        found["the law"] = before, bench.law
    return {
        called: (of_unseen(before, bench.validation), of_unseen(after, bench.test))
        for called, (before, after) in found.items()
    }
