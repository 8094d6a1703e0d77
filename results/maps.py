"""Where which method wins (notebook 10): the table of `experiments.maps`, from runs that are there.

A row for each data set and filter, its means over seeds: knobs of a town, measured properties, HR@10 on test of each
method (the best counting is chosen on validation), the leads, and for real sets the leads that towns alone predict.
What was predicted of PREDICTED sets before anything was run on them is kept in results/prediction.csv.
"""

from pathlib import Path

import pandas as pd

from dae4rec_core.data.properties import properties
from dae4rec_core.experiments.maps import COUNTING, KNOBS, LEADS, TABLE, Lookup, leads, towns_of, winner
from results import grid, tables
from results.plan import PREDICTED

PREDICTION = grid.FOLDER / "prediction.csv"
STUDIES = ("towns", "main", "prediction")
NAMED = (*KNOBS, "seed")  # in the order of a town's name
METHODS = ("DAE4Rec", "DAE4Rec improved", "SASRec", "DAE4Rec, counts", "DAE4Rec, letter")


def write(folder: Path) -> None:
    """Write TABLE from the runs that are there. folder: where the real data sets are, whose properties are measured."""
    runs = tables.gather()
    runs = runs[runs["study"].isin(STUDIES)]
    counted = runs[runs["method"] == "baselines"].set_index(["data", "filter"]).index
    runs = runs[runs.set_index(["data", "filter"]).index.isin(counted)]  # the leads are over counting
    rows = [
        row_of(str(data), str(name), found, folder)
        for (data, name), found in runs.groupby(["data", "filter"], sort=False)
    ]
    known = {(row["data"], row["filter"]) for row in rows}
    rows += [start_of(*which, folder) for which in PREDICTED if which not in known]
    table = pd.DataFrame(rows)
    others = table[table["again"].isna()]
    lookup = Lookup(towns_of(table))
    for name, guesses in lookup.predict(others).items():
        table.loc[others.index, f"predicted {name}"] = guesses
    table.loc[others.index, "to the nearest town"] = lookup.distance(others)
    table.to_csv(TABLE, index=False, float_format="%.4g", encoding="utf-8")
    asked = table[table["data"].isin([data for data, _ in PREDICTED]) & table["winner"].isna()]
    if len(asked):  # nothing was run on it yet: from then on the file stays as it is
        asked = asked[["data", "filter", *(f"predicted {name}" for name in LEADS), "to the nearest town"]]
        asked.assign(towns=len(lookup.towns)).to_csv(PREDICTION, index=False, float_format="%.4g", encoding="utf-8")


def row_of(data: str, name: str, runs: pd.DataFrame, folder: Path) -> dict:
    """Means over the seeds of one data set under one filter, each method under the newest rules it was run with."""
    reached = {COUNTING: best_counting(runs)} | {
        method: newest["HR@10"].mean()
        for method in METHODS
        if len(newest := grid.newest(shown(runs[runs["method"] == method])))
    }
    rules = {
        int(grid.newest(runs[runs["method"] == method])["rules"].iloc[0]) for method in reached if method in METHODS
    }
    facts = {"rules": " and ".join(map(str, sorted(rules))), "seeds": runs["seed"].nunique()}
    return start_of(data, name, folder) | reached | leads(reached) | {"winner": winner(reached)} | facts


def start_of(data: str, name: str, folder: Path) -> dict:
    """What is known of a data set before anything is trained on it."""
    knobs = {NAMED[n]: knob.split("=")[1] for n, knob in enumerate(data.split()[1:])}
    found = properties(*grid.load(data, name, folder))
    return {"data": data, "filter": name} | {key: float(knobs[key]) if knobs else None for key in NAMED} | found


def shown(runs: pd.DataFrame) -> pd.DataFrame:
    """The test rows that stand for a method: S = 10 with a compensator for ours, the only one for a peer."""
    variant = runs["variant"].fillna("")
    return runs[(runs["part"] == "test") & variant.isin([tables.FULL, ""])]


def best_counting(runs: pd.DataFrame) -> float:
    """HR@10 on test of the rule of counting that is best on validation."""
    rows = grid.newest(runs[runs["method"] == "baselines"])
    before = rows[rows["part"] == "validation"].groupby("variant")["HR@10"].mean()
    return rows[(rows["part"] == "test") & (rows["variant"] == before.idxmax())]["HR@10"].mean()
