"""From the cached runs to what is committed: runs.csv, ranks.parquet, better_than.csv, and the README's table.

Rows of older rules stay until the same run is made under grid.RULES, and are marked wherever they are shown.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch

from dae4rec_core.experiments.evaluation import paired_bootstrap
from dae4rec_core.ranking import METRICS, metrics_of_ranks
from results import grid
from results.plan import units

BETTER = grid.FOLDER / "better_than.csv"
TABLE = grid.FOLDER / "table.md"
README = grid.ROOT / "README.md"
OLD = "°"  # stands behind what was made under older rules
FULL = f"S={grid.S} + compensator"
# who is compared with whom: (method, variant) against all of these
OURS = (("DAE4Rec", FULL), ("DAE4Rec improved", FULL))
RIVALS = (
    *(("baselines", name) for name in grid.NO_TRAINING),
    ("item-kNN", ""),
    ("GRU4Rec", ""),
    ("SASRec", ""),
    ("eSASRec", ""),
    ("DreamRec's recipe", "Markov chain"),
)
FORMS = (("DAE4Rec, letter", FULL), ("DAE4Rec, counts", FULL), ("DAE4Rec", f"S={grid.S}"))  # shown, not compared


def gather() -> pd.DataFrame:
    """All metrics of the finished units, in the plan's order, to RUNS, and the ranks of the main table to RANKS.

    What the cache holds replaces what is committed. Raises FileNotFoundError when there is nothing at all.
    """
    found = [rows_of(unit) for unit in units()]
    if all(rows.empty for rows in found):
        raise FileNotFoundError(f"There are no finished runs in {grid.CACHE}; start with `python -m results run`.")
    table = pd.concat([rows for rows in found if len(rows)], ignore_index=True)
    ranked = [ranks_of(unit) for unit in units() if unit.study == "main"]
    table.to_csv(grid.RUNS, index=False, float_format="%.5g", encoding="utf-8")
    if ranked:
        ranks = pd.concat(ranked, ignore_index=True)
        ranks.to_parquet(grid.RANKS, index=False, compression="zstd")
    grid.committed.cache_clear()
    return grid.committed(grid.RUNS)  # rounded as it stands in the file


def rows_of(unit: grid.Unit) -> pd.DataFrame:
    """A unit's rows from the cache, else from RUNS: those made with its settings, else those of older rules."""
    if unit.cached:
        return grid.read_csv(grid.CACHE / f"{unit.key}.csv")
    recorded, runs = unit.recorded(), grid.committed(grid.RUNS)
    return recorded if len(recorded) else runs[unit.rows_in(runs, "study") & (runs["rules"] < grid.RULES)]


def ranks_of(unit: grid.Unit) -> pd.DataFrame:
    """A row for every test answer of a unit, users in their order, with the columns of RANKS."""
    if not unit.cached:
        ranks = grid.committed(grid.RANKS)
        return ranks[unit.rows_in(ranks)]
    tables = []
    with np.load(grid.CACHE / f"{unit.key}.npz") as arrays:
        for name in arrays.files:
            variant, part, kind = name.split("|")
            if part == "test" and kind == "better":
                facts: dict[str, Any] = {"data": unit.data, "filter": unit.filter, "method": unit.method}
                facts |= {"variant": variant, "seed": unit.seed, "better": arrays[name]}
                facts |= {"tied": arrays[f"{variant}|{part}|tied"], "rules": grid.RULES}
                tables.append(pd.DataFrame(facts))
    return pd.concat(tables)


def per_user(ranks: pd.DataFrame, n_items: int) -> dict[str, np.ndarray]:
    """Of each metric the values of every test answer under every seed that is there: (seeds, users)."""
    tables = []
    for _, rows in ranks.groupby("seed"):
        better, tied = (torch.tensor(rows[kind].to_numpy()).long() for kind in ("better", "tied"))
        tables.append(metrics_of_ranks(better, tied, n_items))
    return {metric: np.stack([table[metric] for table in tables]) for metric in METRICS}


def better_than(runs: pd.DataFrame) -> pd.DataFrame:
    """`paired_bootstrap` of both our configurations with every rival, and of one with the other, to better_than.csv."""
    items = {where: int(here["items"].iloc[0]) for where, here in runs.groupby(["data", "filter"], sort=False)}
    users, rules = {}, {}  # by (data, filter, method, variant)
    for key, ranks in grid.committed(grid.RANKS).groupby(["data", "filter", "method", "variant"]):
        ranks = grid.newest(ranks)
        users[key], rules[key] = per_user(ranks, items[key[:2]]), int(ranks["rules"].iloc[0])
    rows = []
    for where in items:
        for ours in OURS:
            for rival in RIVALS if ours == OURS[0] else (*RIVALS, OURS[0]):
                one, other = (*where, *ours), (*where, *rival)
                if one not in users or other not in users:
                    continue
                for metric in METRICS[:2]:
                    rows.append(
                        {
                            "data": where[0],
                            "filter": where[1],
                            "method": ours[0],
                            "rival": rival[1] if rival[0] == "baselines" else rival[0],
                            "metric": metric,
                            **paired_bootstrap(users[one][metric], users[other][metric]),
                            "rules": min(rules[one], rules[other]),
                        }
                    )
    table = pd.DataFrame(rows)
    table.to_csv(BETTER, index=False, float_format="%.4g", encoding="utf-8")
    return table


def as_text(runs: pd.DataFrame) -> str:
    """The main table as Markdown: HR@10 / NDCG@10 in percent on test, mean over seeds, ± their standard deviation.

    Cells that were made under older rules carry the mark OLD, which a last line explains.
    """
    test = runs[(runs["study"] == "main") & (runs["part"] == "test")]
    sets = list(dict.fromkeys(zip(test["data"], test["filter"], strict=True)))
    lines = [
        "| HR@10 / NDCG@10 | " + " | ".join(f"{data}, {filter}" for data, filter in sets) + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    for method, variant in (*RIVALS, *FORMS, *OURS):
        rows = test[(test["method"] == method) & (test["variant"].fillna("") == variant)]
        if rows.empty:
            continue
        name = variant if method == "baselines" else method
        name += ", no compensator" if variant == f"S={grid.S}" else ""
        cells = []
        for data, filter in sets:
            here = grid.newest(rows[(rows["data"] == data) & (rows["filter"] == filter)])
            mark = f" {OLD}" if (here["rules"] < grid.RULES).any() else ""
            cells.append(" / ".join(_percent(here[metric]) for metric in METRICS[:2]) + mark if len(here) else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if any(OLD in line for line in lines):
        lines += ["", f"{OLD} made under older rules, see results/README.md."]
    return "\n".join(lines) + "\n"


def write_text(runs: pd.DataFrame) -> None:
    """`as_text` to table.md, and into the README between its two marks."""
    text = as_text(runs)
    TABLE.write_text(text, encoding="utf-8")
    mark, end = "<!-- results/table.md -->\n", "<!-- end -->"
    before, rest = README.read_text(encoding="utf-8").split(mark)
    README.write_text(before + mark + text + end + rest.split(end, 1)[1], encoding="utf-8")


def _percent(values: pd.Series) -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"
