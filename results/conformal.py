"""Lists that hold the next item as often as promised (notebook 09): results/conformal.csv.

Calibrated on validation answers, counted on test answers, by group of history length. Three seeds of each trained
method; ours by the softmax that its lists come from, SASRec by its own.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Examples
from dae4rec_core.experiments.clouds import Bench, counting, make_bench, softmax_of, without_seen
from dae4rec_core.experiments.conformal import conformal_rows
from dae4rec_core.experiments.solvers import law_given_history
from dae4rec_core.method.model import PAD
from results import grid
from results.clouds import OURS, SETS, trained
from results.plan import PEER_SETTINGS

USERS = 2_000
TABLE = grid.FOLDER / "conformal.csv"
GROUPS = (10, 25)  # visits that the model sees: up to 10 is group 0, up to 25 group 1, more group 2


def write(folder: Path) -> None:
    """Measure what the cache lacks and write TABLE. folder: where the real data sets are."""
    units = [(*where, "no training", 0) for where in SETS]
    units += [(*where, name, seed) for where in SETS for seed in grid.SEEDS for name in (*OURS, "SASRec")]
    table = pd.concat([cached(*unit, folder) for unit in units]).assign(rules=grid.RULES)
    table.to_csv(TABLE, index=False, float_format="%.4g", encoding="utf-8")


def cached(data: str, name: str, method: str, seed: int, folder: Path) -> pd.DataFrame:
    """The rows of one method and seed, from the cache or measured now."""
    file = grid.CACHE / "-".join(["conformal", data, name, method, f"{seed}.csv"]).replace(" ", "_")
    if not file.is_file():
        grid.CACHE.mkdir(parents=True, exist_ok=True)
        bench = bench_of(data, name, folder)
        groups = [length_groups(part) for part in (bench.validation, bench.test)]
        targets = bench.validation.target, bench.test.target
        rows = [
            {"data": data, "filter": name, "method": called, "seed": seed} | row
            for called, p in methods(data, name, method, seed, folder, bench).items()
            for row in conformal_rows(*zip(p, targets, groups, strict=True))
        ]
        pd.DataFrame(rows).to_csv(file, index=False, float_format="%.6g", encoding="utf-8")
    return grid.read_csv(file)


@lru_cache(maxsize=2)
def bench_of(data: str, name: str, folder: Path) -> Bench:
    dataset, split = grid.load(data, name, folder)
    config = Config().replace(**grid.data_settings(name), max_len=50)
    return make_bench(grid.place_of(data, folder), dataset, split, config, USERS)


def length_groups(examples: Examples) -> np.ndarray:
    """The number of each history's group: (N,)."""
    return np.searchsorted(GROUPS, (examples.history != PAD).sum(1).numpy())


def methods(
    data: str, name: str, method: str, seed: int, folder: Path, bench: Bench
) -> dict[str, tuple[Tensor, Tensor]]:
    """p(v | history) on validation and on test, (N, |V|) each, by what it is called."""
    dataset, split = grid.load(data, name, folder)
    parts = {"validation": bench.validation, "test": bench.test}
    found: dict[str, tuple[Tensor, ...]] = {}
    if method == "no training":
        found = {counted: tuple(map(p_of, parts.values())) for counted, p_of in counting(dataset, split).items()}
        if bench.law is not None:
            config = Config().replace(**grid.data_settings(name), max_len=50)
            place = grid.place_of(data, folder)
            before = law_given_history(place, dataset, split, bench.validation, config, "validation")
            assert before is not None
            found["the law"] = before, bench.law
    elif method == "SASRec":
        unit = grid.Unit("clouds", data, name, method, seed, changes=PEER_SETTINGS["SASRec"])
        scored = grid.run_peer(unit, dataset, split, None, list(parts), limit=USERS, scores=True)
        found = {method: tuple(torch.from_numpy(scored[f"{part}_scores"]).double().softmax(1) for part in parts)}
    else:
        found = {method: tuple(map(softmax_of(trained(data, name, seed, OURS[method], {}, folder)), parts.values()))}
    return {
        called: (without_seen(before, bench.validation), without_seen(after, bench.test))
        for called, (before, after) in found.items()
    }
