"""When does the method work? Leads of one method over another, and whether properties of the data predict them.

A lead is log2 of the ratio of two HR@10: 0 is a tie, 1 twice as good, -1 half as good. The towns of the map differ in
knobs alone, so a lead that follows a property there is caused by it; a prediction for another data set is a bet that
nothing else matters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

COUNTING = "best counting"
# name: whose lead, over whom
LEADS: dict[str, tuple[str, str]] = {
    "improved over counting": ("DAE4Rec improved", COUNTING),
    "DAE4Rec over counting": ("DAE4Rec", COUNTING),
    "SASRec over counting": ("SASRec", COUNTING),
    "improved over SASRec": ("DAE4Rec improved", "SASRec"),
    "DAE4Rec over SASRec": ("DAE4Rec", "SASRec"),
    "counts over DAE4Rec": ("DAE4Rec, counts", "DAE4Rec"),
    "letter over DAE4Rec": ("DAE4Rec, letter", "DAE4Rec"),
}
KNOBS = ("again", "returns knob", "users")  # what makes a town of the map; its seeds are one place on it
# what the knobs of the towns move, so that a lead on the towns can be said to follow it
CAUSES = ("returns", "negative eigenvalues", "interactions per item")
NEAR = 2  # towns that a prediction looks at
TABLE = Path(__file__).with_name("maps.csv")


def measured() -> pd.DataFrame:
    """The map as `python -m results maps` wrote it: a row for each data set and filter, see results/README.md."""
    return pd.read_csv(TABLE, keep_default_na=False, na_values=[""], encoding="utf-8")


def towns_of(table: pd.DataFrame) -> pd.DataFrame:
    """The towns whose runs are all there."""
    return table[table["again"].notna()].dropna(subset=list(LEADS))


def leads(reached: Mapping[str, float]) -> dict[str, float]:
    """The LEADS that can be had from the HR@10 of methods by name."""
    return {
        name: float(np.log2(reached[one] / reached[other]))
        for name, (one, other) in LEADS.items()
        if one in reached and other in reached
    }


def winner(reached: Mapping[str, float]) -> str:
    """The method with the largest HR@10; of equal ones the first."""
    return max(reached, key=reached.__getitem__)


class Lookup:
    """Leads of data sets by their place on the map: the mean of the NEAR nearest towns, the nearer the more.

    A place has a coordinate for each of CAUSES, in standard deviations of the towns; interactions per item count by
    their logarithm, since they vary over factors. towns: a row for each seed of a town, with KNOBS, CAUSES and LEADS.
    A town is the mean of its seeds: two seeds of one would be each other's nearest, and both lookups of NEAR.
    """

    def __init__(self, towns: pd.DataFrame):
        self.towns = towns.groupby(list(KNOBS), as_index=False)[[*CAUSES, *LEADS]].mean()
        self.scale = StandardScaler().fit(_places(self.towns))
        self.nearest = KNeighborsRegressor(NEAR, weights="distance").fit(
            self.places(self.towns), self.towns[list(LEADS)]
        )

    def places(self, sets: pd.DataFrame) -> np.ndarray:
        """Coordinates on the map: (sets, CAUSES)."""
        return self.scale.transform(_places(sets))

    def predict(self, sets: pd.DataFrame) -> pd.DataFrame:
        """All LEADS of data sets with CAUSES: (sets, LEADS)."""
        return pd.DataFrame(self.nearest.predict(self.places(sets)), sets.index, list(LEADS))

    def distance(self, sets: pd.DataFrame) -> np.ndarray:
        """How far the nearest town is, in standard deviations of the towns: (sets,)."""
        return self.nearest.kneighbors(self.places(sets), 1)[0].ravel()

    def neighbours(self, sets: pd.DataFrame) -> list[pd.DataFrame]:
        """The NEAR towns of each data set, the nearest first."""
        return [self.towns.iloc[rows] for rows in self.nearest.kneighbors(self.places(sets))[1]]


def _places(sets: pd.DataFrame) -> np.ndarray:
    return sets[list(CAUSES)].assign(**{CAUSES[2]: np.log(sets[CAUSES[2]])}).to_numpy()


def errors_on_towns(towns: pd.DataFrame, groups: Sequence) -> pd.DataFrame:
    """Mean absolute error of each lead on towns that are left out of the map, by looking up and by the others' mean.

    groups: (towns,); towns of one group are left out together.
    """
    looked_up, means = (pd.DataFrame(index=towns.index, columns=list(LEADS), dtype=float) for _ in range(2))
    for rest, left in LeaveOneGroupOut().split(towns, groups=groups):
        known, asked = towns.iloc[rest], towns.iloc[left]
        looked_up.loc[asked.index] = Lookup(known).predict(asked)
        means.loc[asked.index] = known[list(LEADS)].mean().to_numpy()
    found = {"looked up": looked_up, "mean of the others": means}
    return pd.DataFrame({name: (towns[list(LEADS)] - guess).abs().mean() for name, guess in found.items()})
