"""The command line, called as a function: what it prints, what it writes, how it refuses."""

import argparse
import json

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dae4rec_core.__main__ import add_config_options, build_parser, config_of, main
from dae4rec_core.config import Config
from dae4rec_core.ranking import METRICS
from dae4rec_core.sources import SOURCES


def saved_epoch(out) -> int:
    with safe_open(out / "state" / "state.safetensors", "pt") as file:
        return json.loads(file.metadata()["facts"])["epoch"]


COMMANDS = ["run", "fit", "evaluate", "recommend", "sweep", "artifacts", "town"]
TINY = (
    "--device cpu --k-core 2 --max-len 5 --dim 16 --hidden 32 --gae-steps 10 --timesteps 10 "
    "--epochs 2 --batch-size 64 --compensator-epochs 1 --gae-pairs 0 --aime-pairs 0"
).split()


@pytest.fixture(scope="module")
def place(tmp_path_factory, ring_frame):
    """A folder with ring.csv and a checkpoint that the command line made from it."""
    folder = tmp_path_factory.mktemp("cli")
    ring_frame.to_csv(folder / "ring.csv", index=False)
    assert main(["fit", "--data", f"{folder}/ring.csv", "--out", f"{folder}/model", *TINY]) == 0
    return folder


@pytest.fixture
def refuses(capfd):
    """Run a command that must fail with status 2 and one line on stderr holding all words."""

    def check(arguments, *words):
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith("dae4rec: ") and err.endswith(".\n")
        assert err.count("\n") == 1
        assert [word for word in words if str(word) not in err] == [], err

    return check


# commands


def test_town_then_run(tmp_path, capfd):
    town, out = str(tmp_path / "village"), str(tmp_path / "out")
    assert main(["town", "--venues", "100", "--users", "150", "--seed", "1", "--out", town]) == 0
    assert town in capfd.readouterr().out
    assert main(["run", "--data", town, "--out", out, *TINY]) == 0
    text = capfd.readouterr().out
    assert text.startswith("village: ")
    for name in ("popularity", "recency", "sequential rules", "DAE4Rec S=5 ", "the law, given"):
        assert name in text
    assert "DAE4Rec S=5 + compensator" in text and all(name in text for name in METRICS)
    assert text.count("really next: ") == text.count("  user ") == 10
    assert json.loads((tmp_path / "out" / "recommender.json").read_text())["facts"] == {"data": "village"}


def test_run_without_names_or_law_shows_item_ids(place, tmp_path, capfd):
    assert main(["run", "--data", f"{place}/ring.csv", "--out", f"{tmp_path}/out", *TINY]) == 0
    text = capfd.readouterr().out
    assert "the law" not in text
    assert text.startswith("ring: ")
    assert "60 users, 30 items" in text and "user u00, after i" in text


def test_fit_twice_resumes(tmp_path, place, capfd):
    data, out = f"{place}/ring.csv", tmp_path / "model"
    shorter = [*TINY, "--epochs", "1"]
    assert main(["fit", "--data", data, "--out", str(out), *shorter]) == 0
    assert saved_epoch(out) == 1
    assert main(["fit", "--data", data, "--out", str(out), *TINY]) == 0
    assert saved_epoch(out) == 2
    assert "Checkpoint written" in capfd.readouterr().out
    ours, other = (load_file(f / "weights.safetensors") for f in (out, place / "model"))
    assert set(ours) == set(other)
    assert all(torch.equal(ours[name], other[name]) for name in ours)


def test_evaluate(place, capfd):
    arguments = ["evaluate", "--checkpoint", f"{place}/model", "--data", f"{place}/ring.csv"]
    assert main(arguments) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == "method HR@10 NDCG@10 HR@20 NDCG@20 MRR"
    # counted by hand from the ring: popularity has the answer among its first 10 for 26 of 60
    assert "popularity 43.33 16.54 79.67 25.56 11.90" in lines
    assert len(lines) == 1 + 5 + 2
    assert main([*arguments, "-S", "1", "10", "--markov"]) == 0
    text = capfd.readouterr().out
    for name in ("S=1", "S=1 + compensator", "S=10", "S=10 + compensator", "S=markov"):
        assert f"DAE4Rec {name} " in text
    again = main([*arguments, "-S", "1", "10", "--markov"])
    assert again == 0 and capfd.readouterr().out == text


def test_recommend(place, capfd, ring):
    dataset, _ = ring
    base = ["recommend", "--checkpoint", f"{place}/model", "-k", "4"]

    def lines(*more):
        assert main([*base, *more]) == 0
        return capfd.readouterr().out.splitlines()

    one = lines("--history", "i03", "i04", "i05")
    assert one[0].split() == ["item_id", "score"] and len(one) == 5
    assert one == lines("--history", "i03", "i04", "i05")
    assert one != lines("--history", "i03", "i04", "i05", "--seed", "1")
    assert one != lines("--history", "i03", "i04", "i05", "--no-compensator")
    assert one != lines("--history", "i03", "i04", "i05", "--no-compensator", "-S", "2")
    known = lines("--user", "u07", "--data", f"{place}/ring.csv")
    history = dataset.item_ids[dataset.sequence(dataset.user_index("u07"))]
    assert known == lines("--history", *history)


def test_sweep(place, tmp_path, capfd):
    out = tmp_path / "deep" / "sweep.csv"
    assert (
        main(
            [
                "sweep",
                "--data",
                f"{place}/ring.csv",
                "--out",
                str(out),
                *TINY,
                "--deltas",
                "0",
                "2.5",
                "-S",
                "1",
                "3",
                "--seeds",
                "0",
                "1",
                "--markov",
                "--parts",
                "validation",
                "test",
            ]
        )
        == 0
    )
    table = pd.read_csv(out)
    ours = table[table["method"] == "DAE4Rec"]
    # 2 parts x 2 deltas x 2 seeds x (2 S x with and without + the Markov chain)
    assert len(ours) == 2 * 2 * 2 * 5
    assert not ours.duplicated(["part", "delta", "seed", "S", "compensator"]).any()
    assert set(ours["delta"]) == {0, 2.5} and set(ours["S"]) == {"1", "3", "markov"}
    assert len(table) - len(ours) == 2 * 5 and set(table["data"]) == {"ring"}
    assert ours[list(METRICS)].notna().all(axis=None)
    printed = capfd.readouterr().out
    chosen = ours.query("part == 'test' and delta == 2.5 and S == '3' and compensator == True")
    assert f"{chosen['NDCG@10'].mean():.4f}" in printed
    assert f"{chosen['NDCG@10'].std():.4f}" in printed


# help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    sub = next(
        action.choices[name] for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert sub.description in text
    for action in sub._actions:
        assert action.help and action.option_strings
        assert [option for option in action.option_strings if option not in text] == []
        assert "".join((action.help % vars(action)).split()) in "".join(text.split())


def test_help_of_data_names_every_source_and_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main(["data", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert [word for word in [*SOURCES, "--file", "--out", "--table2", "data/NAME"] if word not in text] == []
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "\n    data " in capsys.readouterr().out


def test_top_level_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert [name for name in COMMANDS if f"\n    {name}" not in text] == []
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2 and "required: COMMAND" in capsys.readouterr().err


def test_every_field_of_the_configuration_is_an_option():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    assert config_of(parser.parse_args([])) == Config()
    changed = config_of(
        parser.parse_args(
            [
                "--delta",
                "0.5",
                "--positions",
                "false",
                "--schedule",
                "cosine",
                "--k-core",
                "3",
                "--pos-weight",
                "1",
                "--steps",
                "7",
            ]
        )
    )
    assert changed == Config(delta=0.5, positions=False, schedule="cosine", k_core=3, pos_weight=1.0, steps=7)


# bad input


def test_bad_data(tmp_path, place, refuses):
    bad = tmp_path / "bad.csv"
    refuses(["fit", "--data", tmp_path / "no.csv", "--out", tmp_path], "no.csv", "check the path")
    refuses(["run", "--data", tmp_path, "--out", tmp_path / "o"], tmp_path, "interactions.csv")
    for text, word in (
        ("", "is empty"),
        ("user,item_id,timestamp\nu,a,1\n", "no column user_id"),
        ("user_id,item_id,timestamp\nu,a,soon\n", "'soon'"),
        ("user_id,item_id,timestamp\nu,a,1\nv,a,2\n", "three interactions"),
    ):
        bad.write_text(text)
        refuses(["sweep", "--data", bad, "--out", tmp_path / "o.csv", "--k-core", "1"], "bad", word)
    assert not (tmp_path / "o").exists()
    refuses(["fit", "--data", f"{place}/ring.csv", "--k-core", "999"], "999-core", "lower k_core")


@pytest.mark.parametrize(
    "more, words",
    [
        (["--delta", "-1"], ["Config.delta", "-1.0", "0 or more"]),
        (["--timesteps", "10", "--steps", "11"], ["(S) is 11", "(T) = 10", "at most T"]),
        (["--steps", "-1"], ["Config.steps", "0 or more"]),
        (["--split", "random"], ["Config.split", "'random'", "global_time"]),
        (["--device", "abacus"], ["'abacus'", "choose auto"]),
    ],
)
def test_bad_configuration(place, tmp_path, capfd, more, words):
    command = ["fit", "--data", f"{place}/ring.csv", "--out", str(tmp_path), *TINY, *more]
    assert main(command) == 2
    err = capfd.readouterr().err
    assert err.startswith("dae4rec: ") and err.count("\n") == 1
    assert [word for word in words if word not in err] == [], err


def test_bad_recommend(place, tmp_path, refuses):
    base = ["recommend", "--checkpoint", place / "model"]
    data = ["--data", place / "ring.csv"]
    refuses(base, "--history", "--user")
    refuses([*base, *data, "--user", "u07", "--history", "i01"], "--history", "--user")
    refuses([*base, *data, "--user", "nobody"], "'nobody'", "ring", "'u00'")
    refuses([*base, "--history", "i01", "casino"], "'casino'", "place 2")
    refuses([*base, "--history", "i01", "-k", "31"], "k is 31", "30 items")
    refuses([*base, "--history", "i01", "-k", "0"], "k is 0")
    refuses([*base, "--history", "i01", "-S", "0"], "S is 0", "from 1 to 10")
    refuses([*base, "--history", "i01", "-S", "11"], "S is 11", "T = 10")
    refuses([*base, "--history", "i01", "-S", "3"], "S = 3", "compensate=False")
    refuses(["recommend", "--checkpoint", tmp_path, "--history", "i01"], "no checkpoint", tmp_path)


def test_bad_evaluate(place, tmp_path, ring_frame, refuses):
    data = ["--data", place / "ring.csv"]
    base = ["evaluate", "--checkpoint", place / "model"]
    refuses([*base, *data, "-S", "0"], "S is 0", "from 1 to 10")
    refuses([*base, *data, "-S", "11"], "S is 11", "T = 10")
    fewer = ring_frame[ring_frame["item_id"] != "i07"]
    fewer.to_csv(tmp_path / "fewer.csv", index=False)
    refuses([*base, "--data", tmp_path / "fewer.csv"], "different catalogues", "fewer.csv", "give")
    tensors = load_file(place / "model" / "weights.safetensors")
    tensors["model.embedding.weight"][0, 0] = torch.nan
    (tmp_path / "recommender.json").write_text((place / "model" / "recommender.json").read_text())
    save_file(tensors, tmp_path / "weights.safetensors")
    refuses(["evaluate", "--checkpoint", tmp_path, *data], "NaN", "model.embedding.weight")


def test_fit_into_a_folder_of_another_run(place, ring_frame, tmp_path, refuses, capfd):
    out = tmp_path / "model"
    assert main(["fit", "--data", f"{place}/ring.csv", "--out", str(out), *TINY]) == 0
    ring_frame[ring_frame["item_id"] != "i07"].to_csv(tmp_path / "fewer.csv", index=False)
    for data, more in (("ring.csv", ["--delta", "3"]), ("fewer.csv", [])):
        folder = place if data == "ring.csv" else tmp_path
        capfd.readouterr()
        assert main(["fit", "--data", f"{folder}/{data}", "--out", str(out), *TINY, *more]) == 2
        last = capfd.readouterr().err.splitlines()[-1]
        assert last.startswith("dae4rec: The run saved in") and str(out) in last
