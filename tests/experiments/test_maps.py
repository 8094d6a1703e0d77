"""Leads and the lookup of the map, against brute force; the table that ships, against its own columns."""

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.experiments import maps


@pytest.fixture
def towns():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.random(12) for name in maps.CAUSES})
    table = table.assign(**dict(zip(maps.KNOBS, (range(12), 0.0, 600), strict=True)))
    table["interactions per item"] = 10 * 2 ** (4 * table["interactions per item"])
    for name in maps.LEADS:
        table[name] = table["returns"] - 2 * table["negative eigenvalues"] + rng.normal(0, 0.01, 12)
    return table


def test_a_lead_of_one_is_twice_as_good():
    found = maps.leads({"DAE4Rec": 0.4, "best counting": 0.2, "SASRec": 0.8})
    assert found == pytest.approx(
        {"DAE4Rec over counting": 1.0, "SASRec over counting": 2.0, "DAE4Rec over SASRec": -1.0}
    )
    assert maps.winner({"a": 0.1, "b": 0.3, "c": 0.2}) == "b"


def test_a_lookup_is_the_mean_of_the_two_nearest_towns_the_nearer_the_more(towns):
    asked = pd.DataFrame([{"returns": 0.5, "negative eigenvalues": 0.4, "interactions per item": 40.0}])
    plain = towns[list(maps.CAUSES)].copy()
    both = pd.concat([plain, asked])
    both["interactions per item"] = np.log(both["interactions per item"])
    scaled = (both - both[:-1].mean()) / both[:-1].std(ddof=0)
    far = np.sqrt(((scaled[:-1] - scaled.iloc[-1]) ** 2).sum(1))
    two = far.nsmallest(2)
    lookup = maps.Lookup(towns)
    assert lookup.distance(asked) == pytest.approx([two.iloc[0]])
    assert lookup.neighbours(asked)[0].index.tolist() == two.index.tolist()
    for name in maps.LEADS:
        expected = np.average(towns.loc[two.index, name], weights=1 / two)
        assert lookup.predict(asked)[name].iloc[0] == pytest.approx(expected)


def test_a_town_of_the_map_is_found_as_it_was_measured(towns):
    pd.testing.assert_frame_equal(maps.Lookup(towns).predict(towns), towns[list(maps.LEADS)])


def test_errors_leave_out_a_town_with_its_seeds(towns):
    twice = pd.concat([towns, towns], ignore_index=True)
    groups = [*range(12), *range(12)]
    found = maps.errors_on_towns(twice, groups)
    name = "DAE4Rec over SASRec"
    means = [abs(towns[name][n] - towns[name].drop(n).mean()) for n in range(12)]
    assert found.loc[name, "mean of the others"] == pytest.approx(np.mean(means))
    seen = maps.errors_on_towns(twice, list(range(24)))  # the twin is on the map: no error at all
    assert seen.loc[name, "looked up"] < 1e-9 < found.loc[name, "looked up"]


def test_the_table_that_ships_says_what_its_columns_say():
    table = maps.measured()
    known = maps.towns_of(table)
    assert len(known) >= 12 and not known[list(maps.CAUSES)].isna().any().any()
    for name, (one, other) in maps.LEADS.items():
        np.testing.assert_allclose(known[name], np.log2(known[one] / known[other]), atol=0.01)
    methods = ["best counting", *{one for one, _ in maps.LEADS.values()}]
    assert (known["winner"] == known[methods].idxmax(axis=1)).all()
    others = table[table["again"].isna()]
    np.testing.assert_allclose(maps.Lookup(known).distance(others), others["to the nearest town"], rtol=0.02)
