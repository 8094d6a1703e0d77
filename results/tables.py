"""From the cached runs to what is committed: runs.csv, ranks.parquet, better_than.csv, and the README's table."""

import numpy as np
import pandas as pd
import torch

from dae4rec_core.evaluation import paired_bootstrap
from dae4rec_core.ranking import METRICS, metrics_of_ranks
from results import grid
from results.plan import units

BETTER = grid.FOLDER / "better_than.csv"
TABLE = grid.FOLDER / "table.md"
README = grid.FOLDER.parent / "README.md"
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
    """All figures of the finished units, in the plan's order, to RUNS, and the ranks of the main table to RANKS.

    What the cache holds replaces what is committed. Raises FileNotFoundError when there is nothing at all.
    """
    found = [
        pd.read_csv(grid.CACHE / f"{unit.key}.csv", keep_default_na=False, na_values=[""])
        if unit.cached
        else unit.recorded()
        for unit in units()
    ]
    if all(rows.empty for rows in found):
        raise FileNotFoundError(f"There are no finished runs in {grid.CACHE}; start with `python -m results run`.")
    table = pd.concat([rows for rows in found if len(rows)], ignore_index=True)
    ranks = pd.concat([ranks_of(unit) for unit in units() if unit.study == "main"], ignore_index=True)
    table.to_csv(grid.RUNS, index=False, float_format="%.5g")
    ranks.to_parquet(grid.RANKS, index=False, compression="zstd")
    grid.committed.cache_clear()
    searches = sorted(grid.CACHE.glob("search-*.csv"))
    if searches:
        new = pd.concat(map(pd.read_csv, searches))
        old = pd.read_csv(grid.FOLDER / "search.csv")
        kept = pd.concat([old[~old["method"].isin(new["method"])], new])
        kept.to_csv(grid.FOLDER / "search.csv", index=False, float_format="%.4f")
    return grid.committed(grid.RUNS)  # rounded as it stands in the file


def ranks_of(unit: grid.Unit) -> pd.DataFrame:
    """(data, filter, method, variant, seed, better, tied) of every test answer of a unit, users in their order."""
    if not unit.cached:
        ranks = grid.committed(grid.RANKS)
        return ranks[unit.rows_in(ranks)]
    arrays = np.load(grid.CACHE / f"{unit.key}.npz")
    facts = {"data": unit.data, "filter": unit.filter, "method": unit.method}
    tables = [
        pd.DataFrame(
            facts
            | {"variant": name.split("|")[0], "seed": unit.seed}
            | {kind: arrays[name.replace("better", kind)] for kind in ("better", "tied")}
        )
        for name in arrays
        if name.endswith("|test|better")
    ]
    return pd.concat(tables)


def per_user(ranks: pd.DataFrame, n_items: int) -> pd.DataFrame | None:
    """Metrics of every test answer, the mean over the seeds that are there; None when there are none."""
    tables = [
        metrics_of_ranks(*(torch.tensor(rows[kind].to_numpy()).long() for kind in ("better", "tied")), n_items)
        for _, rows in ranks.groupby("seed")
    ]
    return sum(tables) / len(tables) if tables else None


def better_than(runs: pd.DataFrame) -> pd.DataFrame:
    """`paired_bootstrap` of both our configurations with every peer, and of one with the other, to better_than.csv."""
    ranks = dict(list(grid.committed(grid.RANKS).groupby(["data", "filter", "method", "variant"])))
    items = dict(zip(zip(runs["data"], runs["filter"], strict=True), runs["items"], strict=True))
    rows = []
    for (data, filter), n_items in items.items():

        def values(method: str, variant: str, where=(data, filter), n_items=n_items) -> pd.DataFrame | None:
            found = ranks.get((*where, method, variant))
            return None if found is None else per_user(found, n_items)

        for method, variant in OURS:
            ours = values(method, variant)
            rivals = PEERS if method == "DAE4Rec" else (*PEERS, OURS[0])
            for rival, rival_variant in rivals:
                theirs = values(rival, rival_variant)
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


def write_text(runs: pd.DataFrame) -> None:
    """`as_text` to table.md, and into the README between its two marks."""
    text = as_text(runs)
    TABLE.write_text(text)
    mark, end = "<!-- results/table.md -->\n", "<!-- end -->"
    before, rest = README.read_text().split(mark)
    README.write_text(before + mark + text + end + rest.split(end, 1)[1])


def _percent(values: pd.Series) -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"
