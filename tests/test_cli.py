"""The command line, called as a function: what it prints, what it writes, how it refuses."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dae4rec_core import checkpoint
from dae4rec_core.__main__ import add_config_options, build_parser, check_replaceable, config_of, main
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import prepare
from dae4rec_core.data.sources import SOURCES
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.outputs import reserved
from dae4rec_core.ranking import METRICS
from dae4rec_core.recommender import Recommender

COMMANDS = ["run", "fit", "evaluate", "recommend", "sweep", "artifacts", "town"]
TINY = (
    "--device cpu --k-core 2 --max-len 5 --dim 16 --hidden 32 --gae-steps 10 --timesteps 10 --steps 5 "
    "--epochs 2 --batch-size 64 --compensator-epochs 1 --gae-pairs none --aime-pairs none"
).split()
SWEEP = [word for n, word in enumerate(TINY) if "--steps" not in (word, TINY[n - 1])]  # it has -S


def header_of(folder) -> dict:
    with safe_open(folder / checkpoint.FILE, "pt") as file:
        return json.loads(file.metadata()["recommender"])


def saved_epoch(out) -> int:
    with safe_open(out / "state" / "state.safetensors", "pt") as file:
        return int(file.get_tensor("stopping/numbers")[0])


def lines_of(text: str) -> list[str]:
    """Lines with single blanks."""
    return [" ".join(line.split()) for line in text.splitlines()]


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
    assert text.startswith("village: ") and "seen items included" in text
    for name in ("popularity", "recency", "sequential rules", "DAE4Rec S=5 ", "the law, given"):
        assert name in text
    assert "DAE4Rec S=5 + compensator" in text and all(name in text for name in METRICS)
    assert text.count("really next: ") == text.count("  user ") == 10
    assert header_of(tmp_path / "out")["facts"]["data"] == "village"


def test_ids_and_names_send_no_codes_to_the_terminal(place, tmp_path, capfd):
    """They are shown written out: by run, by recommend, and in what is said of a wrong one."""
    frame = pd.read_csv(place / "ring.csv").replace(
        {"item_id": {"i05": "i05\x1b[2J"}, "user_id": {"u00": "u00\x9b31m"}}
    )
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    out = f"{tmp_path}/model"
    assert main(["run", "--data", str(tmp_path), "--out", out, *TINY]) == 0
    assert main(["recommend", "--checkpoint", out, "--history", "i03", "-k", "30"]) == 0
    assert main(["recommend", "--checkpoint", out, "--history", "\x1b]0;title\x07"]) == 2
    printed, said = capfd.readouterr()
    assert r"i05\x1b[2J" in printed and r"user u00\x9b31m" in printed and r"\x1b]0;title\x07" in said
    assert not set("\x1b\x9b\x07") & set(printed)
    assert "\x1b]" not in said and "\x07" not in said  # a progress bar may move the cursor


def test_run_without_names_or_law_shows_item_ids(place, tmp_path, capfd):
    assert main(["run", "--data", f"{place}/ring.csv", "--out", f"{tmp_path}/out", *TINY]) == 0
    text = capfd.readouterr().out
    assert "the law" not in text
    assert text.startswith("ring: ")
    assert "60 users, 30 items" in text and "user u00, after i" in text
    assert "\nOf 719 interactions were left out: 0 repeats, 0 by the k-core" in text


def test_run_marks_the_answer_and_not_its_namesakes(ring_frame, tmp_path, capfd):
    """All items share two names, so that a label says nothing about which item it is."""
    ring_frame.to_csv(tmp_path / "interactions.csv", index=False)
    ids = sorted(ring_frame["item_id"].unique())
    names = ["The Inn" if n % 2 else "The Mill" for n in range(len(ids))]
    pd.DataFrame({"item_id": ids, "name": names}).to_csv(tmp_path / "items.csv", index=False)
    more = ["--delta", "0", "--rank-weight", "1", "--lr", "0.01"]
    assert main(["run", "--data", str(tmp_path), "--out", f"{tmp_path}/out", *TINY, *more]) == 0
    found = [text.splitlines() for text in capfd.readouterr().out.split("\n  user ")[1:]]
    recommender = checkpoint.load(tmp_path / "out", "cpu")
    dataset, _ = prepare(tmp_path, recommender.model.config)
    expected = []
    for user in range(0, 60, 6):
        history, answer = dataset.sequence(user)[:-1], dataset.sequence(user)[-1]
        best = recommender.recommend(dataset.item_ids[history], 5)["item_id"].tolist()
        labels = [names[ids.index(item)] for item in best]
        marks = ["->" if item == dataset.item_ids[answer] else "  " for item in best]
        expected.append([f"    {mark} {label}" for mark, label in zip(marks, labels, strict=True)])
    assert [lines[1:6] for lines in found] == expected
    marks = [line for lines in expected for line in lines if "->" in line]
    assert 0 < len(marks) < 10  # some answers were found, some weren't


def test_run_on_first_visits_leaves_the_seen_items_out(place, tmp_path, capfd):
    arguments = ["--data", f"{place}/ring.csv", "--out", f"{tmp_path}/out", *TINY, "--repeats", "first_visits"]
    assert main(["run", *arguments]) == 0
    text = capfd.readouterr().out
    assert "seen items left out" in text and "seen items included" not in text
    dataset, _ = prepare(place / "ring.csv", Config().replace(k_core=2, repeats="first_visits"))
    lists = [part.splitlines()[1:6] for part in text.split("\n  user ")[1:]]
    assert len(lists) == 10
    for user, shown in zip(range(0, dataset.n_users, 6), lists, strict=True):
        history = set(dataset.item_ids[dataset.sequence(user)[:-1]])
        assert not history & {line.split()[-1] for line in shown}
    # so does the command that recommends
    item = dataset.item_ids[dataset.sequence(0)[0]]
    assert main(["recommend", "--checkpoint", f"{tmp_path}/out", "--history", item, "-k", "29"]) == 0
    assert item not in capfd.readouterr().out.split()


@pytest.mark.parametrize("preset", ["letter", "reference", "improved", "dreamrec"])
def test_every_preset_trains_and_recommends(place, tmp_path, capfd, preset):
    """TINY's sizes hold; what makes the preset comes from it."""
    out = tmp_path / "model"
    assert main(["fit", "--preset", preset, "--data", f"{place}/ring.csv", "--out", str(out), *TINY]) == 0
    assert main(["recommend", "--checkpoint", str(out), "--history", "i03", "i04", "-k", "3"]) == 0
    assert len(lines_of(capfd.readouterr().out)[-4:]) == 4
    sizes = {
        "k_core": 2,
        "max_len": 5,
        "dim": 16,
        "hidden": 32,
        "gae_steps": 10,
        "timesteps": 10,
        "steps": 5,
        "epochs": 2,
        "batch_size": 64,
        "compensator_epochs": 1,
        "gae_pairs": None,
        "aime_pairs": None,
    }
    assert checkpoint.load(out, "cpu").model.config == PRESETS[preset].replace(**sizes)


def test_an_unknown_preset(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--preset", "paper"])
    shown = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and [name for name in ("letter", "reference", "improved", "dreamrec", "paper") if name not in shown] == []
    )


def test_fit_twice_resumes(tmp_path, place, capfd):
    data, out = f"{place}/ring.csv", tmp_path / "model"
    shorter = [*TINY, "--epochs", "1"]
    assert main(["fit", "--data", data, "--out", str(out), *shorter]) == 0
    assert saved_epoch(out) == 1
    assert "gae: 100%" in capfd.readouterr().err
    assert main(["fit", "--data", data, "--out", str(out), *TINY]) == 0
    assert saved_epoch(out) == 2
    shown = capfd.readouterr()
    assert "Checkpoint written" in shown.out
    assert "diffusion: 100%" in shown.err and "gae" not in shown.err
    ours, other = (load_file(f / checkpoint.FILE) for f in (out, place / "model"))
    assert set(ours) == set(other)
    assert all(torch.equal(ours[name], other[name]) for name in ours)


def test_evaluate_measures_and_trains_nothing(place, capfd):
    arguments = ["evaluate", "--checkpoint", f"{place}/model", "--data", f"{place}/ring.csv"]
    assert main(arguments) == 0
    shown = capfd.readouterr()
    lines = [line for line in lines_of(shown.out) if line]
    header = "method HR@10 NDCG@10 HR@20 NDCG@20 MRR"
    lines, earlier = lines[lines.index("test") :], lines[: lines.index("test")]
    assert lines[:2] == ["test", header] and earlier[:2] == ["validation", header]
    # counted by hand from the ring: popularity has the answer among its first 10 for 26 of 60
    assert "popularity 43.33 16.54 79.67 25.56 11.90" in lines
    assert len(lines) == len(earlier) == 2 + 5 + 2 and "compensator" not in shown.err
    assert main([*arguments, "-S", "1", "5", "10", "--markov"]) == 0
    text = capfd.readouterr().out
    methods = [line.rsplit(maxsplit=5)[0] for line in lines_of(text) if line.startswith("DAE4Rec")]
    assert methods == 2 * [f"DAE4Rec S={s}" for s in ("1", "5", "5 + compensator", "10", "markov")]
    last = text.splitlines()[-1]
    assert last.startswith("No compensator was trained for S = 1, 10:") and last.endswith(".")
    assert main([*arguments, "-S", "1", "5", "10", "--markov"]) == 0
    assert capfd.readouterr().out == text


def test_evaluate_without_any_compensator(place, tmp_path, capfd):
    data, out = f"{place}/ring.csv", str(tmp_path / "model")
    assert main(["fit", "--data", data, "--out", out, *TINY, "--compensator-epochs", "0"]) == 0
    capfd.readouterr()
    assert main(["evaluate", "--checkpoint", out, "--data", data]) == 0
    text = capfd.readouterr().out
    assert "DAE4Rec S=5 " in text and "+ compensator" not in text
    assert "No compensator was trained for S = 5:" in text
    other = str(tmp_path / "run")
    assert main(["run", "--data", data, "--out", other, *TINY, "--compensator-epochs", "0"]) == 0
    assert capfd.readouterr().out.count("really next: ") == 10


def test_one_compensator_for_every_s(place, tmp_path, capfd):
    data, out = f"{place}/ring.csv", str(tmp_path / "model")
    for command, place in (("fit", out), ("run", str(tmp_path / "run"))):
        assert main([command, "--data", data, "--out", place, *TINY, "--compensator", "shared"]) == 0
    assert "DAE4Rec S=5 + compensator" in capfd.readouterr().out
    assert main(["evaluate", "--checkpoint", out, "--data", data, "-S", "1", "10"]) == 0
    text = capfd.readouterr().out
    measured = dict(line.rsplit(maxsplit=5)[::5] for line in lines_of(text) if line.startswith("DAE4Rec"))
    assert list(measured) == ["DAE4Rec S=1", "DAE4Rec S=1 + compensator", "DAE4Rec S=10", "DAE4Rec S=10 + compensator"]
    assert "No compensator" not in text
    assert main(["export", "--checkpoint", out, "--out", str(tmp_path / "x.safetensors"), "-S", "7"]) == 0  # for any S
    capfd.readouterr()
    base = ["recommend", "--checkpoint", out, "--history", "i03", "i04"]
    lists = []
    for more in (["-S", "1"], ["-S", "10", "--seed", "3"], []):
        assert main([*base, *more]) == 0
        lists.append(capfd.readouterr().out)
    assert lists[0] == lists[1] == lists[2]


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
    drawn = lines("--history", "i03", "i04", "i05", "--draws", "40")
    shares = checkpoint.load(f"{place}/model").distribution(["i03", "i04", "i05"], draws=40)
    first = [[item, f"{share:.3f}"] for item, share in shares[shares > 0][:4].items()]
    assert first and [line.split() for line in drawn[1 : 1 + len(first)]] == first
    known = lines("--user", "u07", "--data", f"{place}/ring.csv")
    history = dataset.item_ids[dataset.sequence(dataset.user_index("u07"))]
    assert known == lines("--history", *history) == lines("--history", *history, "--data", f"{place}/ring.csv")
    assert one == lines("--history=i03", "--history=i04", "--history=i05")  # as ids have to be that begin with a dash
    left = lines("--history", "i03", "i04", "i05", "--exclude", one[1].split()[0])
    assert left[1:4] == one[2:5]


def test_recommended_items_are_shown_with_their_names(place, tmp_path, ring, capfd):
    dataset, _ = ring
    (tmp_path / "interactions.csv").write_bytes((place / "ring.csv").read_bytes())
    pd.DataFrame({"item_id": dataset.item_ids, "name": [f"Inn {item}\x1b" for item in dataset.item_ids]}).to_csv(
        tmp_path / "items.csv", index=False
    )
    base = ["recommend", "--checkpoint", f"{place}/model", "-k", "3", "--data", str(tmp_path)]
    for asked in (["--user", "u07"], ["--history", "i03", "i04"]):
        assert main([*base, *asked]) == 0
        header, *rows = capfd.readouterr().out.splitlines()
        assert header.split() == ["item_id", "score", "name"] and len(rows) == 3
        for row in rows:
            item, _, name = row.split(maxsplit=2)
            assert name == f"Inn {item}\\x1b"


def test_data_that_has_grown(place, tmp_path, ring_frame, capfd, refuses):
    """A user who met new items gets a list, where that is asked for."""
    new = pd.DataFrame([(f"u{n:02d}", "new", 10**6) for n in range(7, 12)], columns=["user_id", "item_id", "timestamp"])
    pd.concat([ring_frame, new]).to_csv(tmp_path / "grown.csv", index=False)
    asked = ["recommend", "--checkpoint", f"{place}/model", "--user", "u07", "-k", "3", "--data"]
    refuses([*asked, tmp_path / "grown.csv"], "different catalogues", "--skip-unknown")
    assert main([*asked, f"{tmp_path}/grown.csv", "--skip-unknown"]) == 0
    grown = capfd.readouterr().out
    assert main([*asked, f"{place}/ring.csv"]) == 0
    assert grown == capfd.readouterr().out


def test_the_town_is_missed_by_its_option(place, tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    for asked in (["diagnose"], ["evaluate", "--checkpoint", place / "model"]):
        refuses(asked, "Give --data FILE", "data/town")
    refuses(["recommend", "--checkpoint", place / "model", "--user", "u07"], "Give --data FILE")


def test_run_by_time_shows_answers_of_the_test(tmp_path, ring_frame, capfd):
    """Who is listed has a test answer, and nothing later stands in their history."""
    ring_frame.to_csv(tmp_path / "ring.csv", index=False)
    by_time = ["--split", "global_time"]
    assert main(["run", "--data", f"{tmp_path}/ring.csv", "--out", f"{tmp_path}/o", *TINY, *by_time]) == 0
    out = capfd.readouterr().out
    config = config_of(build_parser().parse_args(["fit", *TINY, *by_time]))
    dataset, split = prepare(tmp_path / "ring.csv", config)
    owner = np.searchsorted(dataset.offsets, split.test, side="right") - 1
    answers = {
        (dataset.user_ids[u], dataset.item_ids[dataset.items[p]]) for u, p in zip(owner, split.test, strict=True)
    }
    shown = re.findall(r"  user (\w+), after .*?really next: (\w+)", out, re.DOTALL)
    assert shown and set(shown) <= answers


def test_ids_that_begin_with_a_dash(tmp_path, ring, place, capfd):
    """They are taken as they are, in histories and among what is left out."""
    recommender = checkpoint.load(f"{place}/model")
    recommender.item_ids = np.array([f"-{item}" for item in recommender.item_ids], dtype=object)
    checkpoint.save(recommender, tmp_path / "dashed")
    base = ["recommend", "--checkpoint", f"{tmp_path}/dashed", "-k", "2", "--history=-i03", "--history=-i04"]
    assert main([*base]) == 0
    first, second = (line.split()[0] for line in capfd.readouterr().out.splitlines()[1:])
    assert main([*base, f"--exclude={first}"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[0] == second


def test_export(place, tmp_path, capfd):
    out = tmp_path / "model.safetensors"
    assert main(["export", "--checkpoint", f"{place}/model", "--out", str(out)]) == 0
    assert capfd.readouterr().out == f"{out}: {out.stat().st_size / 1024:,.0f} KiB\n"
    with safe_open(out, "pt") as file:
        names = set(file.keys())
    assert (
        "alpha_bar" in names and "z_star" not in names and {n.split(".")[1] for n in names if n[:3] == "com"} == {"5"}
    )
    assert main(["export", "--checkpoint", f"{place}/model", "--out", str(out), "-S", "4"]) == 2
    assert "S = 4" in capfd.readouterr().err


def test_a_large_catalogues_files_are_known_as_ours(tmp_path, tiny):
    """The mark that allows to replace a file stands before the ids, however many there are."""
    config = tiny.replace(dim=2, hidden=2)
    items = [f"an-item-with-a-long-id-{n:06d}" for n in range(100_000)]
    checkpoint.save(Recommender(DAE4Rec(len(items), config), items), tmp_path)
    assert (tmp_path / checkpoint.FILE).stat().st_size > 2**21
    check_replaceable(tmp_path / checkpoint.FILE, b'"recommender"', "checkpoint")
    checkpoint.export(checkpoint.load(tmp_path), tmp_path / "model.safetensors")
    check_replaceable(tmp_path / "model.safetensors", b'"recommender"', "exported model")


@pytest.mark.slow
def test_sweep(place, tmp_path, capfd):
    out = tmp_path / "deep" / "sweep.csv"
    twice = "--deltas 0 2.5 0 -S 1 3 3 --seeds 0 1 1 --markov --parts validation test".split()  # no more trainings
    assert main(["sweep", "--data", f"{place}/ring.csv", "--out", str(out), *SWEEP, *twice]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["sweep.csv"]
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
    few = "--deltas 0 -S 1 --seeds 0 --parts validation".split()
    assert main(["sweep", "--data", f"{place}/ring.csv", "--out", str(out), *SWEEP, *few]) == 0
    assert set(pd.read_csv(out)["part"]) == {"validation"}
    printed = capfd.readouterr().out
    assert "\nvalidation\n" in printed and "\ntest\n" not in printed and "DAE4Rec" in printed


@pytest.mark.parametrize("one, several", [("delta", "--deltas"), ("seed", "--seeds"), ("steps", "-S")])
def test_a_sweep_takes_no_single_value_of_what_it_goes_through(place, tmp_path, refuses, one, several):
    asked = ["sweep", "--data", f"{place}/ring.csv", "--out", tmp_path / "o.csv", *SWEEP, f"--{one}", "1"]
    refuses(asked, f"give {several} in place of --{one}")


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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fit --epochs 1.5", "--epochs is '1.5'; give a whole number"),
        ("fit --delta x", "--delta is 'x'; give a number"),
        ("sweep --deltas 0,1", "--deltas is '0,1'; give a number, several with blanks between them"),
        ("fit --positions maybe", "'maybe' is neither true nor false"),
        ("evaluate", "required: --checkpoint"),
        ("fitt", "invalid choice: 'fitt'"),
    ],
)
def test_an_option_that_can_not_be_read_is_one_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and said.startswith("dae4rec: ")
    assert sentence in said and said.endswith("--help.\n")


def test_every_field_of_the_configuration_is_an_option():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    assert config_of(parser.parse_args([])) == Config()
    for preset, config in PRESETS.items():
        assert config_of(parser.parse_args(["--preset", preset])) == config
    # every value of one preset, given as text on top of another
    for config in PRESETS.values():
        given = [text for name, value in config.flat().items() for text in (f"--{name.replace('_', '-')}", str(value))]
        assert config_of(parser.parse_args(["--preset", "dreamrec", *given])) == config


@pytest.mark.parametrize(
    "option", [["--dim", "wide"], ["--dim", "none"], ["--positions", "1"], ["--aime-pairs", "all"]]
)
def test_text_that_is_no_value_of_an_option(option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *option])
    assert stop.value.code == 2 and option[0] in capsys.readouterr().err


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
        (["--delta", "-1"], ["Config.delta", "-1.0", "at least 0"]),
        (["--timesteps", "10", "--steps", "11"], ["(S) is 11", "at most T"]),
        (["--steps", "0"], ["Config.steps", "at least 1"]),
        (["--returns", "true"], ["Config.returns", "Config.rank_weight"]),
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
    tensors = load_file(place / "model" / checkpoint.FILE)
    tensors["model.embedding.weight"][0, 0] = torch.nan
    metadata = {"recommender": json.dumps(header_of(place / "model"))}
    save_file(tensors, tmp_path / checkpoint.FILE, metadata)
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


# what ends a command early


def command(*arguments, **options) -> subprocess.Popen:
    """A command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-m", "dae4rec_core", *map(str, arguments)], text=True, **pipes)


def told(process: subprocess.Popen) -> list[str]:
    """Its lines on stderr that aren't a progress bar, when it has ended."""
    lines = process.communicate(timeout=120)[1].splitlines()
    return [line for line in lines if line and "it/s" not in line and "s/it" not in line]


def test_ctrl_c_during_the_imports_leaves_no_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    asked = [sys.executable, "-m", "dae4rec_core", "diagnose"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of the background ignores it
    found = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=50, check=False)
    signal.signal(signal.SIGINT, before)
    assert found.returncode == -signal.SIGINT and found.stderr == ""


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_one_sentence_and_the_state_goes_on(place, tmp_path):
    data, long = ["--data", place / "ring.csv", "--out", tmp_path / "m", *TINY], ["--epochs", "9999", "--patience"]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests in the background ignore it, and a child too
    process = command("fit", *data, *long, "9999")
    signal.signal(signal.SIGINT, before)
    while not (tmp_path / "m" / "state" / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    lines = told(process)
    assert process.returncode == 130 and lines[-1].startswith("dae4rec: Stopped; ") and "Traceback" not in str(lines)
    assert saved_epoch(tmp_path / "m") > 0
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".new", ".lock")] == []


@pytest.mark.slow
def test_a_closed_pipe_is_one_sentence(place):
    read, write = os.pipe()
    os.close(read)
    process = command("evaluate", "--checkpoint", place / "model", "--data", place / "ring.csv", stdout=write)
    os.close(write)
    [line] = told(process)
    assert process.returncode == 141 and line.startswith("dae4rec: Nobody reads the output")


@pytest.mark.slow
def test_a_locale_without_utf_8(ring_frame, tmp_path):
    data = tmp_path / "caf\u00e9" / "r\u00efng.csv"
    data.parent.mkdir()
    ring_frame.replace("i03", "\u00e9clair").to_csv(data, index=False, encoding="utf-8")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    process = command("fit", "--data", data, "--out", tmp_path / "m", *TINY, env=env)
    assert told(process) == [] and process.returncode == 0
    assert header_of(tmp_path / "m")["facts"]["data"] == "r\u00efng"
    assert "\u00e9clair" in checkpoint.load(tmp_path / "m", "cpu").item_ids
    process = command("recommend", "--checkpoint", tmp_path / "m", "--history", "i04", "-k", "30", env=env)
    assert "\\xe9clair" in process.communicate(timeout=120)[0] and process.returncode == 0


def test_an_out_that_cant_be_written_is_found_before_the_work(place, tmp_path, capfd):
    (tmp_path / "file").touch()
    for name, out in (("fit", "file"), ("run", "file/deep"), ("sweep", "."), ("artifacts", "file")):
        more = {"artifacts": [], "sweep": SWEEP}.get(name, TINY)
        assert main([name, "--data", f"{place}/ring.csv", "--out", str(tmp_path / out), *more]) == 2
        *bars, last = capfd.readouterr().err.splitlines()
        assert bars == [] and last.startswith(f"dae4rec: {tmp_path}") and last.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_runs_into_one_folder(place, tmp_path, capfd):
    arguments = ["fit", "--data", f"{place}/ring.csv", "--out", f"{tmp_path}/m", *TINY]
    with reserved(tmp_path / "m"):
        assert main(arguments) == 2
        assert "Another run is writing" in capfd.readouterr().err
    assert not (tmp_path / "m").exists()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".lock").touch()  # left by a process that was killed
    assert main(arguments) == 0 and not (tmp_path / "m" / ".lock").exists()


@pytest.mark.parametrize("name", ["sweep", "export", "town", "run", "fit", "data"])
def test_nothing_of_the_users_is_replaced(place, ring_frame, tmp_path, refuses, name):
    mine = tmp_path / "mine" / "interactions.csv"
    mine.parent.mkdir()
    ring_frame.to_csv(mine, index=False)
    before = mine.read_bytes()
    shutil.copytree(place / "model", tmp_path / "fitted")
    model = (tmp_path / "fitted" / checkpoint.FILE).read_bytes()
    notes, words = tmp_path / "notes" / "items.csv", tmp_path / "words" / checkpoint.FILE
    for path in (notes, words):
        path.parent.mkdir()
        path.write_text("mine")
    asked = {
        "sweep": [["sweep", "--data", f"{place}/ring.csv", "--out", mine, *SWEEP]],
        "export": [
            ["export", "--checkpoint", tmp_path / "fitted", "--out", out]
            for out in (mine, tmp_path / "fitted" / checkpoint.FILE)
        ],
        "town": [["town", "--venues", "100", "--users", "30", "--out", out] for out in (mine.parent, notes.parent)],
        "run": [
            ["run", "--data", f"{place}/ring.csv", "--out", out, *TINY] for out in (tmp_path / "fitted", words.parent)
        ],
        "fit": [["fit", "--data", f"{place}/ring.csv", "--out", words.parent, *TINY]],
        "data": [["data", "gowalla", "--file", mine, "--out", out] for out in (mine.parent, notes.parent)],
    }
    for arguments in asked[name]:
        refuses(arguments, "give another --out")
    assert notes.read_text() == words.read_text() == "mine" and len([*notes.parent.iterdir()]) == 1
    assert mine.read_bytes() == before and [path.name for path in mine.parent.iterdir()] == ["interactions.csv"]
    assert (tmp_path / "fitted" / checkpoint.FILE).read_bytes() == model


def test_what_is_ours_may_be_replaced(place, tmp_path):
    """A town's folder and an exported file are written again."""
    for _ in range(2):
        assert main(["town", "--venues", "100", "--users", "30", "--out", str(tmp_path / "town")]) == 0
        assert main(["export", "--checkpoint", f"{place}/model", "--out", str(tmp_path / "x.safetensors")]) == 0


def test_answers_that_were_learned_are_no_test(place, ring_frame, tmp_path, refuses):
    """A file that lacks each user's last rows has answers that the model knows."""
    last = ring_frame.groupby("user_id").cumcount(ascending=False)
    ring_frame[last > 0].to_csv(tmp_path / "cut.csv", index=False)
    refuses(["evaluate", "--checkpoint", place / "model", "--data", tmp_path / "cut.csv"], "has learned from other")
    other = ring_frame.assign(item_id=ring_frame["item_id"] + "x")
    other.to_csv(tmp_path / "other.csv", index=False)
    user = str(ring_frame["user_id"].iloc[0])
    asked = ["recommend", "--checkpoint", place / "model", "--data", tmp_path / "other.csv", "--user", user]
    refuses(asked, "different catalogues", "--data")


def test_a_state_of_another_run_is_refused_before_the_pretraining(place, tmp_path, capfd):
    shutil.copytree(place / "model", tmp_path / "model")
    asked = ["fit", "--data", f"{place}/ring.csv", "--out", str(tmp_path / "model"), *TINY, "--dim", "8"]
    assert main(asked) == 2
    shown = capfd.readouterr()
    assert "gae" not in shown.err and "dim is 16 there and 8 here" in shown.err
    lines = (place / "ring.csv").read_text().splitlines()
    (tmp_path / "less.csv").write_text("\n".join(lines[:-40]))
    assert main(["fit", "--data", f"{tmp_path}/less.csv", "--out", str(tmp_path / "model"), *TINY]) == 2
    shown = capfd.readouterr()
    assert "gae" not in shown.err and "used other data; give its own, or write somewhere else." in shown.err


def test_run_lists_as_many_as_there_are(tmp_path, capfd):
    """Users who have seen nearly everything get what is left, and who has seen everything gets no list."""
    rows = [(f"u{u}", f"i{(u + n) % 7}", n) for u in range(30) for n in range(7 if u % 2 else 6)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(tmp_path / "few.csv", index=False)
    arguments = ["run", "--data", f"{tmp_path}/few.csv", "--out", f"{tmp_path}/o", *TINY, "--repeats", "first_visits"]
    assert main(arguments) == 0
    assert capfd.readouterr().out.count("really next: ") == 10


def test_others_may_read_a_checkpoint(place):
    beside = place / "umask"
    beside.touch()
    assert (place / "model" / checkpoint.FILE).stat().st_mode == beside.stat().st_mode
    assert (place / "model" / "state" / "state.safetensors").stat().st_mode == beside.stat().st_mode


def test_a_checkpoint_is_named_by_its_folder(place, refuses):
    refuses(["recommend", "--checkpoint", place / "model" / checkpoint.FILE, "--history", "i1"], "give the folder")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_without_an_output_the_work_is_done(place, tmp_path, closed):
    """As under cron or in a daemon."""
    command = (
        f"{sys.executable} -m dae4rec_core fit --data {place}/ring.csv --out {tmp_path}/m {' '.join(TINY)} {closed}"
    )
    assert subprocess.run(["sh", "-c", command], check=False, stdin=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "m" / checkpoint.FILE).is_file()
