"""From the cached runs to the tidy files that are committed: runs.csv, better_than.csv, search.csv."""

import numpy as np
import pandas as pd
import torch

from dae4rec_core.evaluation import paired_bootstrap
from dae4rec_core.ranking import METRICS, metrics_of_ranks
from results import grid
from results.plan import units

RUNS = grid.FOLDER / "runs.csv"
BETTER = grid.FOLDER / "better_than.csv"
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


def better_than(runs: pd.DataFrame) -> pd.DataFrame:
    """`paired_bootstrap` of both our configurations with every peer, and of one with the other, to better_than.csv."""
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
                            **paired_bootstrap(ours[metric], theirs[metric]),
                        }
                    )
    table = pd.DataFrame(rows)
    table.to_csv(BETTER, index=False, float_format="%.4g")
    return table


def as_text(runs: pd.DataFrame) -> str:
    """The main table as Markdown: HR@10 / NDCG@10 in percent on test, mean over seeds, ± their standard deviation."""
    test = runs[(runs["study"] == "main") & (runs["part"] == "test")]
    sets = list(dict.fromkeys(zip(test["data"], test["filter"], strict=True)))
    lines = [
        "| HR@10 / NDCG@10 | " + " | ".join(f"{data}, {filter}" for data, filter in sets) + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    for method, variant in (*PEERS, ("DAE4Rec", f"S={grid.S}"), *OURS):
        rows = test[(test["method"] == method) & (test["variant"].fillna("") == variant)]
        name = variant if method == "baselines" else method
        name += ", no compensator" if variant == f"S={grid.S}" else ""
        cells = []
        for data, filter in sets:
            here = rows[(rows["data"] == data) & (rows["filter"] == filter)]
            cells.append(" / ".join(_percent(here[metric]) for metric in METRICS[:2]) if len(here) else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(values: pd.Series) -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"
