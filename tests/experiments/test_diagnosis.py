"""The diagnosis of a data set: its figures by hand, its sentences, and that it can be read by machines."""

import json

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.__main__ import main
from dae4rec_core.config import Config
from dae4rec_core.data.town import make_town
from dae4rec_core.experiments.diagnosis import diagnose


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
    kind = items.set_index("item_id")["category"]
    # training is all but a user's last two; the ten doubled rows belong to the first users
    doubled = pd.concat([frame, frame.head(10)]).sort_values(["user_id", "timestamp"], kind="stable")
    same, steps = 0, 0
    for _, visits in doubled.groupby("user_id"):
        kinds = kind[visits["item_id"]].to_numpy()[:-2]
        same, steps = same + (kinds[1:] == kinds[:-1]).sum(), steps + len(kinds) - 1
    assert findings["same category"].value == pytest.approx(same / steps)
    last = doubled.groupby("user_id")["item_id"].agg(lambda visits: visits.iloc[-1] == visits.iloc[-2])
    assert findings["answer repeats the last item"].value == pytest.approx(last.mean())


def test_every_finding_is_one_sentence(findings):
    for finding in findings.values():
        if finding.sentence:
            assert not finding.sentence[0].islower() and finding.sentence.endswith(".")
            assert "\n" not in finding.sentence and "nan" not in finding.sentence
    best = findings["best counting"].value
    reached = {name.removeprefix("HR@10 of "): f.value for name, f in findings.items() if name.startswith("HR@10 of ")}
    assert reached[best] == max(reached.values())
    assert findings["seconds of reference"].value > 0


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
