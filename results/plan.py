"""The list of all runs, the most telling ones first, so that an unfinished evening still has a whole table."""

from itertools import product
from typing import Any

from dae4rec_core.config import DEPARTURES, PRESETS
from results.grid import BY_TIME, FILTERS, REAL, SEEDS, S, Unit, town_name
from results.peers import KNN_SETTINGS, PEER_SETTINGS
from results.search import METHODS, SETS, chosen

DATA = ("town", *REAL)
# online_retail has one invoice a sequence, where nothing is listed twice: both filters keep the same lines
FILTERS_OF = {name: ("first visits",) if name == "online_retail" else tuple(FILTERS) for name in DATA}
ABLATED = SETS  # of Table 3, Figures 3 and 4 and notebook 08
LONG = ("foursquare_us", "first visits")  # of Figure 4 too, since the paper says that longer sequences need less delta
DELTAS = (0.01, 0.1, 1.0, 100.0, 1000.0)  # 0 and the default come with Table 3
STEPS = (1, 2, 5, 10, 20, 50, 100, 200)  # of T = 1000, as in Figure 3

# notebook 08: the improved configuration, as it stands in the main table, with one piece taken out or put back
PIECES: dict[str, dict[str, Any]] = {
    "without ranking term": {"rank_weight": 0.0, "returns": False},  # nothing else teaches the returns
    "without sphere": {"geometry": "free"},
    "without returns": {"returns": False},
    "without neighbours": {"neighbours": 0.0},
    "without positions": {"positions": False},
    "with AIME": {"delta": 10.0},
}

# what diffusion adds to it and to the reference, notebook 08. Adam's steps don't change with the scale of the loss, so
# a ranking term of 10^8 leaves nothing of L_Diff
CONTROLS: dict[str, dict[str, Any]] = {
    "L_Diff = 0": {"preset": "improved", "changes": {"rank_weight": 1e8}},
    "cross-entropy alone": {"preset": "improved", "network": "cross-entropy alone"},
    "SASRec, returns and neighbours": {"changes": chosen("SASRec") | {"gains": True}},
    "regression alone": {"preset": "reference", "network": "regression alone"},
}
# from the letter to the reference and back, one departure at a time. `steps` is measured on both ends themselves: how
# many steps are taken is no matter of training
DEPARTING = tuple(name for name in DEPARTURES if name != "steps")
ENDS: dict[str, tuple[int, ...]] = {"letter": (S, 500), "reference": (S, 100)}  # S = 10, and S = T / 2
# why E collapses here at delta = 0
COLLAPSE: dict[str, dict[str, Any]] = {
    "-C, E starts at N(0, 1)": {"preset": "reference", "changes": {"delta": 0.0, "init_std": 1.0}},
    "-C, E learns slowly": {"preset": "reference", "changes": {"delta": 0.0, "lr_embedding": 1e-4}},
    "-C, answers held": {"preset": "reference", "changes": {"delta": 0.0}, "network": "answers held"},
    "-C, on the sphere": {"preset": "reference", "changes": {"delta": 0.0, "geometry": "sphere"}},
    "-C of the letter": {"preset": "letter", "changes": {"delta": 0.0}},
}

# notebook 10: towns in which people stay with a kind of place or change it, return or don't, and are few or many
AGAIN, RETURNS, USERS = (0.2, 1.0, 6.0, 40.0), (0.0, 0.25, 0.5), (600, 2400)
TOWN_SEEDS = (0, 1)  # of the town and of the training
SPLIT_BY_TIME = (("town", "raw"), ("gowalla", "first visits"))  # sets whose timestamps are moments
# a set that none of this was looked at with, to try the map's prediction on: committed before it was run
PREDICTED = (("foursquare_nyc", "raw"),)

# a run of seconds, which a test repeats from nothing
TINY = Unit("tiny", "town", "first visits", "DAE4Rec", 0, "reference", {"dim": 32, "gae_steps": 100, "epochs": 1})


def units() -> list[Unit]:
    """All runs in order."""
    sets = [(data, name) for data in DATA for name in FILTERS_OF[data]]
    found = [TINY]
    for seed in SEEDS:
        for data, name in sets:
            if seed == 0:
                found += [Unit("main", data, name, "baselines", 0)]
                found += [Unit("main", data, name, "item-kNN", 0, changes=KNN_SETTINGS[name])]
            found += [searched(data, name, method, seed) for method in METHODS]
        for data, name in ABLATED:
            found += [
                Unit("table 3", data, name, "-C", seed, "reference", {"delta": 0.0}),
                Unit("table 3", data, name, "-C_ground", seed, "reference", {"aime_target": "graph"}),
            ]
            found += [Unit("beyond", data, name, piece, seed, "improved", change) for piece, change in PIECES.items()]
            found += [Unit("beyond", data, name, "mean of samples", seed, "reference", samples=16)]
            found += deltas(data, name, seed)
            found += [Unit("controls", data, name, control, seed, **what) for control, what in CONTROLS.items()]
            found += [Unit("collapse", data, name, change, seed, **what) for change, what in COLLAPSE.items()]
            found += departures(data, name, seed)
            long = {"timesteps": 1000}
            found += [Unit("figure 3", data, name, "T = 1000", seed, "reference", long, STEPS, markov=True)]
        if seed in TOWN_SEEDS:
            for again, returns, users in product(AGAIN, RETURNS, USERS):
                town = town_name(again, returns, users, seed)
                found += compared("towns", town, "raw", seed)
                found += [Unit("towns", town, "raw", "item-kNN", seed, changes=KNN_SETTINGS["raw"])]
        for data, name in SPLIT_BY_TIME:
            found += compared("by time", data, name + BY_TIME, seed)
        for data, name in PREDICTED:
            found += compared("prediction", data, name, seed)
    found += [unit for seed in SEEDS for unit in deltas(*LONG, seed)]
    # what one, ten and all steps are worth without positions (notebooks 03 and 04)
    unseen, all_steps = {"positions": False}, (1, S, 200)
    found += [Unit("positions", "town", "raw", "without positions", s, "reference", unseen, all_steps) for s in SEEDS]
    # the mistake of notebook 01: Z* from a graph with the steps to the answers in it, and the rest as it is
    for seed in SEEDS:
        for where in (("town", "raw"), ("town", "first visits"), *ABLATED, LONG):
            found += [Unit("leak", *where, "leaking graph", seed, "reference", known="test")]
        for where in ABLATED:
            found += [Unit("leak", *where, "validation steps", seed, "reference", known="validation")]
    # the search saw first visits alone, so SASRec with its settings of before on the columns that it didn't see
    for seed in SEEDS:
        for data, name in sets:
            if name == "raw" or data == "online_retail":
                earlier = PEER_SETTINGS["SASRec"]
                found += [Unit("earlier settings", data, name, "SASRec, earlier settings", seed, changes=earlier)]
    # RecTools' defaults, but SASRec's max_len, to which it pads every sequence; the slowest, hence two sets, and last
    as_long = {"max_len": chosen("SASRec")["max_len"]}
    found += [Unit("main", *where, "eSASRec", seed, changes=as_long) for seed in SEEDS for where in ABLATED]
    return found


def searched(data: str, name: str, method: str, seed: int) -> Unit:
    """A run of the main table with the settings that the search chose."""
    chain = method == "DreamRec's recipe"  # which has no skips
    steps = () if chain else (S,)
    return Unit("main", data, name, method, seed, METHODS[method].preset, chosen(method), steps, markov=chain)


def deltas(data: str, name: str, seed: int) -> list[Unit]:
    """Figure 4: the reference with other values of delta."""
    return [Unit("figure 4", data, name, f"delta {d:g}", seed, "reference", {"delta": d}) for d in DELTAS]


def departures(data: str, name: str, seed: int) -> list[Unit]:
    """The letter and the reference, and each with one of DEPARTURES taken from the other."""
    found = [Unit("departures", data, name, end, seed, end, steps=steps) for end, steps in ENDS.items()]
    for end, other, sign in (("letter", "reference", "+"), ("reference", "letter", "-")):
        values = PRESETS[other].flat()
        found += [
            Unit("departures", data, name, f"{end} {sign} {field}", seed, end, {field: values[field]})
            for field in DEPARTING
        ]
    return found


def compared(study: str, data: str, name: str, seed: int) -> list[Unit]:
    """The methods that the maps, their prediction and the split by time compare, as they stand in the main table.

    The prediction was registered with SASRec's earlier settings, so it keeps them.
    """
    settings = PEER_SETTINGS["SASRec"] if study == "prediction" else chosen("SASRec")
    sasrec = Unit(study, data, name, "SASRec", seed, changes=settings)
    return [
        Unit(study, data, name, "baselines", seed),
        Unit(study, data, name, "DAE4Rec", seed, "reference"),
        Unit(study, data, name, "DAE4Rec improved", seed, "improved"),
        sasrec,
        Unit(study, data, name, "DAE4Rec, counts", seed, "reference", {"similarity": "counts"}),
        Unit(study, data, name, "DAE4Rec, letter", seed, "letter"),
    ]
