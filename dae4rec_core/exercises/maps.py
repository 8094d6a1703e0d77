"""Checkers of 10: returns, the lookup of the map, the knob that matters most."""

import itertools
import math

import numpy as np
import pandas as pd

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_share_of_returns", "check_look_up", "check_strongest_knob"]


@checker
def check_share_of_returns(share_of_returns: Answer) -> None:
    for walks, expected in (
        ([[0, 1, 0, 2], [2, 2, 3], [1, 3, 1, 0, 1]], 4 / 9),
        ([[5, 5, 5, 5]], 1.0),
        ([[0, 1], [1, 0], [0]], 0.0),  # each of them is new to the person
        ([[3], [1, 2, 1]], 0.5),
    ):
        found = float(share_of_returns([list(walk) for walk in walks]))
        assert abs(found - expected) < 1e-9, f"for {walks} the share is {expected:.3f}, yours is {found:.3f}."


@checker
def check_look_up(look_up: Answer) -> None:
    rng = np.random.default_rng(0)
    for n, k in ((5, 2), (8, 3), (3, 1)):
        towns, leads, here = rng.random((n, k)) * [1, 100, 0.01][:k], rng.normal(size=n), rng.random(k)
        spread = [math.sqrt(sum((x - sum(column) / n) ** 2 for x in column) / n) for column in towns.T.tolist()]
        far = [math.dist(town / spread, here / spread) for town in towns]
        one, two = sorted(range(n), key=far.__getitem__)[:2]
        expected = (leads[one] / far[one] + leads[two] / far[two]) / (1 / far[one] + 1 / far[two])
        found = float(look_up(towns.copy(), leads.copy(), here.copy()))
        assert abs(found - expected) < 1e-6, (
            f"of {n} towns with {k} properties the nearest are {far[one]:.2f} and {far[two]:.2f} standard deviations "
            f"away, with leads of {leads[one]:.2f} and {leads[two]:.2f}; the answer is {expected:.3f}, yours is "
            f"{found:.3f}."
        )
        again = float(look_up(towns.copy(), leads.copy(), towns[one].copy()))
        assert abs(again - leads[one]) < 1e-6, "a data set that lies on a town has that town's lead."


@checker
def check_strongest_knob(strongest_knob: Answer) -> None:
    values = {"again": (0.2, 1.0, 6.0), "returns knob": (0.0, 0.5), "users": (600.0, 2400.0)}
    towns = pd.DataFrame(itertools.product(*values.values()), columns=list(values))
    knobs = towns.rank(method="dense")
    cases = {  # of the second and third, a single knob or a wide spread around a small effect would mislead
        "again": knobs["again"] + 0.5 * knobs["users"],
        "returns knob": -2 * knobs["returns knob"] + 0.5 * knobs["again"],
        "users": knobs["users"] + 1.5 * (knobs["again"] == 2) * (knobs["returns knob"] - 1.5),
    }
    for expected, lead in cases.items():
        found = strongest_knob(towns.assign(lead=lead), "lead")
        assert found in values, f"the answer is one of {', '.join(values)}; yours is {found!r}."
        means = {knob: lead.groupby(towns[knob]).mean() for knob in values}
        widest = {knob: f"{mean.max() - mean.min():.2f}" for knob, mean in means.items()}
        assert found == expected, f"the means over a knob's positions differ by at most {widest}; you have {found!r}."
