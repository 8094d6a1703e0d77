"""The diagnosis of a data set: its figures by hand, its sentences, and that it can be read by machines."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.__main__ import main
from dae4rec_core.config import Config
from dae4rec_core.data.town import make_town
from dae4rec_core.experiments.diagnosis import DENSE, FEW, LATE, OFTEN, STRONG, advice, as_loaded, diagnose, on_the_map

RESULTS = Path(__file__).parents[2] / "results"
RULES = ["popularity", "recency", "first-order transitions", "symmetric transitions", "sequential rules"]
CALM = {  # data that ask for nothing special
    "best counting": "recency",
    "HR@10 of recency": 0.2,
    "returns": 0.05,
    "density": 0.01,
    "training after the test": 0.02,
    "training examples": 5_000,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small town as a file, with ten rows doubled."""
    frame, items, _ = make_town(100, 150, seed=1)
    folder = tmp_path_factory.mktemp("small town")
    pd.concat([frame, frame.head(10)]).to_csv(folder / "interactions.csv", index=False)
    items.to_csv(folder / "items.csv", index=False)
    return folder, frame, items


@pytest.fixture(scope="module")
def findings(data):
    found = diagnose(data[0], Config().replace(dim=16, hidden=16, gae_steps=10, k_core=1), "cpu")
    return {finding.name: finding for finding in found}


def test_figures_by_hand(data, findings):
    _, frame, items = data
    assert findings["rows"].value == len(frame) + 10
    assert findings["duplicates"].value == pytest.approx(10 / (len(frame) + 10))
    assert findings["kept"].value == 1.0
    assert findings["training examples"].value == len(frame) + 10 - 3 * 150
    kind = items.set_index("item_id")["category"]
    # training is all but a user's last two; the ten doubled rows belong to the first users
    doubled = pd.concat([frame, frame.head(10)]).sort_values(["user_id", "timestamp"], kind="stable")
    same, steps = 0, 0
    for _, visits in doubled.groupby("user_id"):
        places = visits["item_id"].to_numpy()[:-2]
        moved, kinds = places[1:] != places[:-1], kind[places].to_numpy()
        same, steps = same + (kinds[1:] == kinds[:-1])[moved].sum(), steps + moved.sum()
    assert findings["same category"].value == pytest.approx(same / steps)
    assert "same name" not in findings  # of 100 venues each has a name of its own, which makes no groups
    last = doubled.groupby("user_id")["item_id"].agg(lambda visits: visits.iloc[-1] == visits.iloc[-2])
    assert findings["answer repeats the last item"].value == pytest.approx(last.mean())


def test_no_more_than_everything_is_promised():
    """A town's factor times what counting reaches here can pass 100%; then the sentence says so."""
    facts = {"returns": 0.3, "negative eigenvalues": 0.5, "interactions per item": 40.0, "best counting": "recency"}
    low, high = (on_the_map(facts | {"HR@10 of recency": value})[1] for value in (0.3, 0.99))
    assert low.value == high.value > 1 / 0.99
    assert "100%" not in low.sentence and "counting reaches 99.0%, and no list more than 100%" in high.sentence


def test_every_finding_is_one_sentence(findings):
    for finding in findings.values():
        if finding.sentence:
            assert not finding.sentence[0].islower() and finding.sentence.endswith(".")
            assert "\n" not in finding.sentence and "nan" not in finding.sentence
    best = findings["best counting"].value
    reached = {name.removeprefix("HR@10 of "): f.value for name, f in findings.items() if name.startswith("HR@10 of ")}
    assert reached[best] == max(reached.values())
    assert findings["seconds of reference"].value > 0
    assert 0.1 < findings["memory in GiB"].value < 100


@pytest.mark.parametrize(
    "times, said",
    [(1, ""), (10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds"), (None, "dates, YYYYMMDD")],
)
def test_the_unit_of_the_timestamps(tmp_path, times, said):
    """Ninety days from 2023-11-14 on, three apart, written in each unit."""
    days = pd.date_range("2023-11-14", periods=31, freq="3D")
    stamps = [int(d.timestamp()) * times if times else int(d.strftime("%Y%m%d")) for d in days]
    rows = [(f"u{u}", f"i{n % 7}", stamp) for u in range(9) for n, stamp in enumerate(stamps)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    found = {finding.name: finding for finding in as_loaded(frame)}["median gap in days"]
    assert found.value == pytest.approx(3) and "It spans 90 days" in found.sentence
    assert said in found.sentence and ("read as" in found.sentence) == bool(said)


def test_columns_of_visits_are_no_kinds_of_items(tmp_path):
    """A device that each user keeps, and lists of tags, say nothing of an item; its colour does."""
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{rng.integers(20):02d}", t, f"d{u % 2}", ["tag"]) for u in range(40) for t in range(8)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "device", "tags"])
    frame["colour"] = frame["item_id"].str[-1].map(lambda digit: "red" if digit in "024" else "blue")
    frame.to_parquet(tmp_path / "visits.parquet", index=False)
    config = Config().replace(dim=8, hidden=8, gae_steps=5, k_core=1)
    names = {finding.name for finding in diagnose(tmp_path / "visits.parquet", config, "cpu")}
    assert "same colour" in names and not {"same device", "same tags"} & names


def test_positions_are_told_from_moments(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{rng.integers(9)}", t) for u in range(30) for t in range(6)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(tmp_path / "visits.csv", index=False)
    config = Config().replace(dim=8, hidden=8, gae_steps=5, k_core=1)
    found = {f.name: f for f in diagnose(tmp_path / "visits.csv", config, "cpu")}
    assert found["timestamps"].value == "positions" and "median gap in days" not in found


def test_the_command_prints_sentences_or_json(data, capsys):
    options = ["diagnose", "--data", str(data[0]), "--k-core", "1", "--dim", "16", "--device", "cpu"]
    assert main(options) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) > 12 and all(line.endswith(".") for line in lines)
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name", "value", "sentence"} == set(found[0])
    assert main(["diagnose", "--data", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


def advised(changes=(), **config):
    """Findings by name for calm data with some facts changed."""
    found = advice(CALM | dict(changes), Config().replace(**config))
    return {finding.name: finding for finding in found}


def test_calm_data_ask_for_improved_alone():
    found = advised()
    assert set(found) == {"preset", "similarity"} and found["preset"].value == "improved"
    assert "5.0%" in found["preset"].sentence and "ranking term" in found["preset"].sentence
    assert found["similarity"].value == "graph" and "1.00%" in found["similarity"].sentence


@pytest.mark.parametrize(
    ("fact", "threshold", "name", "number"),
    [
        ("HR@10 of recency", STRONG, "strong counting", "recency reaches 30.0%"),
        ("returns", OFTEN, "repeats", "10.0%"),
        ("training after the test", LATE, "split", "10.0%"),
    ],
)
def test_a_number_at_its_threshold_changes_the_advice(fact, threshold, name, number):
    found = advised({fact: threshold})
    assert set(found) == {"preset", "similarity", name} and number in found[name].sentence
    assert set(advised({fact: threshold - 0.001})) == {"preset", "similarity"}


def test_few_examples_are_said():
    assert "999 next items" in advised({"training examples": FEW - 1})["few examples"].sentence
    assert "few examples" not in advised({"training examples": FEW})


def test_a_dense_graph_asks_for_counts():
    found = advised({"density": DENSE})["similarity"]
    assert found.value == "counts" and "5.0%" in found.sentence and "--similarity counts" in found.sentence


def test_returns_are_a_reason_for_improved():
    assert "10.0% of the next items to learn from are returns here" in advised({"returns": OFTEN})["preset"].sentence


def test_what_is_already_so_is_not_advised():
    often, late = {"returns": 0.5}, {"training after the test": 0.5}
    assert "repeats" in advised(often) and "repeats" not in advised(often, repeats="drop_consecutive")
    assert "split" in advised(late) and "split" not in advised(late, split="global_time")
    assert "split" not in advised(late | {"timestamps": "positions"})


def test_the_advice_says_what_the_results_hold():
    runs = pd.read_csv(RESULTS / "runs.csv")
    test = runs[runs["study"].isin(["main", "prediction"]) & (runs["part"] == "test") & (runs["data"] != "town")]
    rules = test[test["variant"].isin(RULES)].groupby(["data", "filter"])["HR@10"].max()
    ours = test[(test["method"] == "DAE4Rec improved") & (test["variant"] == "S=10 + compensator")]
    ahead = ours.groupby(["data", "filter"])["HR@10"].mean()[rules.index] / rules - 1
    strong = 100 * ahead[rules >= STRONG]
    assert len(strong) >= 3
    said = advised({"HR@10 of recency": STRONG})["strong counting"].sentence
    assert f"ahead of that rule by {strong.min():.0f}% to {strong.max():.0f}%" in said
    tried = pd.read_csv(RESULTS / "similarity.csv")
    tried = tried[(tried["part"] == "validation") & (tried["S"].astype(str) == "1")]
    means = (100 * tried.groupby(["data", "similarity"])["HR@10"].mean()).unstack()
    assert means.loc["town", ["graph", "counts"]].round(1).tolist() == [23.7, 29.3]
    assert abs(means.loc["gowalla", "counts"] - means.loc["gowalla", "graph"]) < 0.5


BAD = {
    "empty": ("", [], ["is empty", "needs a header"]),
    "only a header": ("user_id,item_id,timestamp\n", [], ["no rows", "add interactions"]),
    "one user": (
        "user_id,item_id,timestamp\n" + "".join(f"ada,i{n % 3},{n}\n" for n in range(30)),
        ["--k-core", "1"],
        ["one user only (ada)", "add those of others"],
    ),
    "nothing after the k-core": (
        "user_id,item_id,timestamp\n" + "".join(f"u{n // 4},i{n},{n}\n" for n in range(40)),
        [],
        ["5-core filter", "lower k_core"],
    ),
    "no step in training": (
        "user_id,item_id,timestamp\n" + "".join(f"u{n // 3},i{n % 3},{n}\n" for n in range(30)),
        ["--k-core", "1"],
        ["users: 10, items: 3", "give longer histories"],
    ),
    "one item": (
        "user_id,item_id,timestamp\n" + "".join(f"u{n // 6},i0,{n}\n" for n in range(60)),
        [],
        ["users: 10, items: 1", "lower k_core"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_ends_in_one_sentence(what, tmp_path, capsys):
    text, options, words = BAD[what]
    path = tmp_path / "visits.csv"
    path.write_text(text)
    assert main(["diagnose", "--data", str(path), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith(".\n") and str(path) in err
    assert all(word in err for word in words), err


def test_an_attribute_that_no_step_knows_is_left_out(tmp_path):
    rows = [
        (f"u{u}", f"i{(u + t) % 9}", t, {0: "cafe", 4: "park"}.get((u + t) % 9)) for u in range(30) for t in range(6)
    ]
    columns = ["user_id", "item_id", "timestamp", "kind"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "visits.csv", index=False)
    found = diagnose(tmp_path / "visits.csv", Config().replace(dim=8, hidden=8, gae_steps=5), "cpu")
    assert "same kind" not in {finding.name for finding in found}
