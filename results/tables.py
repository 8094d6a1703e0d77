"""From the cached runs to the tidy files that are committed: runs.csv, better_than.csv, search.csv."""

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap

from dae4rec_core.ranking import METRICS, metrics_of_ranks
from results import grid
from results.plan import units

RUNS = grid.FOLDER / "runs.csv"
BETTER = grid.FOLDER / "better_than.csv"
RESAMPLES = 5_000
FULL = f"S={grid.S} + compensator"
# who is compared with whom: (method, variant) against all of these
OURS = (("DAE4Rec", FULL), ("DAE4Rec improved", FULL))
PEERS = (
    *(("baselines", name) for name in grid.NO_TRAINING),
    ("item-kNN", ""),
    ("GRU4Rec", ""),
    ("SASRec", ""),
    ("DreamRec's recipe", "Markov chain"),
)


def gather() -> pd.DataFrame:
    """All figures of the finished units, in the plan's order, to runs.csv."""
    found = [pd.read_csv(grid.CACHE / f"{unit.key}.csv") for unit in units() if unit.done]
    if not found:
        raise FileNotFoundError(f"There are no finished runs in {grid.CACHE}; start with `python -m results run`.")
    table = pd.concat(found, ignore_index=True)
    table.to_csv(RUNS, index=False, float_format="%.5g")
    searches = sorted(grid.CACHE.glob("search-*.csv"))
    if searches:
        pd.concat(map(pd.read_csv, searches)).to_csv(grid.FOLDER / "search.csv", index=False, float_format="%.4f")
    return table


def per_user(data: str, filter: str, method: str, variant: str, n_items: int) -> pd.DataFrame | None:
    """Metrics of every test answer, the mean over the seeds that are there; None when there are none."""
    tables = []
    for unit in units():
        if (unit.study, unit.data, unit.filter, unit.method) == ("main", data, filter, method) and unit.done:
            ranks = np.load(grid.CACHE / f"{unit.key}.npz")
            better, tied = (torch.from_numpy(ranks[f"{variant}|test|{kind}"]).long() for kind in ("better", "tied"))
            tables.append(metrics_of_ranks(better, tied, n_items))
    return sum(tables) / len(tables) if tables else None


def compare(ours: pd.Series, theirs: pd.Series, seed: int = 0) -> dict[str, float]:
    """Paired bootstrap over users of mean(ours - theirs): difference, 95% interval, one-sided p for "not better".

    p counts the resamples in which ours is not ahead, (count + 1) / (resamples + 1); it speaks of these users, not of
    other seeds, whose spread stands in runs.csv.
    """
    difference = (ours - theirs).to_numpy()
    if not difference.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    found = bootstrap(
        (difference,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 2**22 // len(difference)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    behind = int((found.bootstrap_distribution <= 0).sum())
    return {
        "difference": float(difference.mean()),
        "low": float(found.confidence_interval.low),
        "high": float(found.confidence_interval.high),
        "p": (behind + 1) / (RESAMPLES + 1),
    }


def better_than(runs: pd.DataFrame) -> pd.DataFrame:
    """`compare` of both our configurations with every peer, and of improved with faithful, to better_than.csv."""
    items = dict(zip(zip(runs["data"], runs["filter"], strict=True), runs["items"], strict=True))
    rows = []
    for (data, filter), n_items in items.items():
        for method, variant in OURS:
            ours = per_user(data, filter, method, variant, n_items)
            rivals = PEERS if method == "DAE4Rec" else (*PEERS, OURS[0])
            for rival, rival_variant in rivals:
                theirs = per_user(data, filter, rival, rival_variant, n_items)
                if ours is None or theirs is None:
                    continue
                for metric in METRICS[:2]:
                    rows.append(
                        {
                            "data": data,
                            "filter": filter,
                            "method": method,
                            "rival": rival_variant if rival == "baselines" else rival,
                            "metric": metric,
                            **compare(ours[metric], theirs[metric]),
                        }
                    )
    table = pd.DataFrame(rows)
    table.to_csv(BETTER, index=False, float_format="%.4g")
    return table
