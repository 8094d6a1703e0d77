"""The model in the page equals the model in torch: every number on the way, for every kind of model that it reads."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dae4rec_core import checkpoint, cloud
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import held_out, prepare
from dae4rec_core.data.town import load_town_law, slot_of
from dae4rec_core.method.beyond import SharedCompensator
from dae4rec_core.method.model import scores
from dae4rec_core.method.sampling import choose_tau, choose_tau_by_snr, skip_step
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit
from dae4rec_core.views.page import law_parameters

NODE = shutil.which("node")
ROOT = Path(__file__).parents[2]
MODEL = ROOT / "dae4rec_core/views/page/model.js"
TOWN = ROOT / "data/artifacts/town"
HOURS = slot_of(3600 * np.arange(24))  # the slot of each hour
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def ask(weights: Path, folder: Path, **questions) -> dict:
    """What the page's model answers."""
    file = folder / "questions.json"
    file.write_text(json.dumps(questions))
    command = [NODE, str(Path(__file__).with_name("parity.mjs")), str(MODEL), str(weights), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def exported(recommender: Recommender, folder: Path, steps=()) -> tuple[Path, Recommender]:
    """The file for the page, and torch's model with the same rounded weights."""
    folder.mkdir(exist_ok=True)
    size = checkpoint.export(recommender, folder / checkpoint.FILE, steps)
    assert size == (folder / checkpoint.FILE).stat().st_size
    return folder / checkpoint.FILE, checkpoint.load(folder, "cpu")


def questions_of(recommender: Recommender, histories: list[list[int]], ways: list[dict]) -> list[dict]:
    rng, d = np.random.default_rng(0), recommender.model.config.model.dim
    return [
        {"history": history, "xT": rng.normal(size=d).astype(np.float32).tolist()}
        | {"noise": rng.normal(size=(way["S"], d)).astype(np.float32).tolist()}
        | way
        for history, way in zip(histories, ways * (len(histories) // len(ways)), strict=True)
    ]


@torch.no_grad()
def by_torch(recommender: Recommender, question: dict, monkeypatch) -> dict:
    """The same numbers from dae4rec_core."""
    model, points, beliefs = recommender.model, [], []
    longest = model.config.data.max_len
    history = torch.tensor([question["history"][-longest:]])
    h, x_T = model.condition(history), torch.tensor([question["xT"]])
    S, noise = question["S"], iter(question["noise"])
    T, by_t = model.config.diffusion.timesteps, question["spacing"] == "t"
    tau = choose_tau(T, S) if by_t else choose_tau_by_snr(model.alpha_bar, S)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.tensor([next(noise)]))

    def keep(i, t, e, belief):
        points.append(e[0])
        beliefs.append(belief[0])

    f = model.predictor(h, history)
    e_1, e_0 = skip_step(f, x_T, h, model.alpha_bar, tau, question["eta"], None, keep, question["order"])
    monkeypatch.undo()
    plain = e_0
    if question["compensator"] == "shared":
        e_0 = recommender.shared(SharedCompensator.start(model, h), h)
    elif question["compensator"] is not None:
        e_0 = recommender.compensators[question["compensator"]](e_1, h)
    found = scores(model.query(e_0, history, h), model.item_vectors())[0]
    nearest = cloud.probabilities(model, history, plain[None], width=0)[0].argmax()
    return {
        "h": h[0], "tau": tau, "points": torch.stack(points), "beliefs": torch.stack(beliefs), "e0": e_0[0],
        "scores": found, "nearest": int(nearest),
    }  # fmt: skip


def compare(mine: dict, theirs: dict) -> None:
    """1e-5 of the size of what is compared; the same ten items, up to scores that are equal to that precision."""
    for name in ("h", "points", "beliefs", "e0", "scores"):
        expected = np.asarray(theirs[name], dtype=float)
        np.testing.assert_allclose(mine[name], expected, atol=1e-5 * max(1.0, np.abs(expected).max()), err_msg=name)
    assert mine["tau"] == theirs["tau"] and mine["nearest"] == theirs["nearest"]
    expected = np.asarray(theirs["scores"], dtype=float)
    best = np.sort(expected)[::-1][:10]
    np.testing.assert_allclose(expected[mine["top"]], best, atol=1e-5 * max(1.0, np.abs(expected).max()))
    assert len(set(mine["top"])) == min(10, len(expected))


PLAIN = {"spacing": "t", "order": 1, "eta": 0.0, "compensator": None}
WAYS = [
    PLAIN | {"S": 1},
    PLAIN | {"S": 10},
    PLAIN | {"S": 10, "compensator": 10},
    PLAIN | {"S": 10, "spacing": "log-SNR"},
    PLAIN | {"S": 10, "spacing": "log-SNR", "order": 2},
    PLAIN | {"S": 5, "eta": 0.5},
    PLAIN | {"S": 200},
    PLAIN | {"S": 1, "compensator": 1},
]


def test_the_towns_model_on_two_hundred_histories(tmp_path, monkeypatch):
    weights, recommender = exported(checkpoint.load(TOWN / "checkpoint", "cpu"), tmp_path / "x", (1, 10))
    dataset, split = prepare(ROOT / "data/town", Config())
    examples = held_out(dataset, split, "test", recommender.model.config, limit=200)
    histories = [[item for item in row if item >= 0] for row in examples.history.tolist()]
    asked = questions_of(recommender, histories, WAYS)
    found = ask(weights, tmp_path, asked=asked)
    for mine, question in zip(found["answers"], asked, strict=True):
        compare(mine, by_torch(recommender, question, monkeypatch))


def test_the_model_whose_draws_are_a_distribution(tmp_path, monkeypatch):
    weights, recommender = exported(checkpoint.load(TOWN / "posterior", "cpu"), tmp_path / "x")
    histories = [[5, 77, 5], [300, 12, 599, 42, 8], [7], [1, 2, 3, 2, 1, 2]]
    asked = questions_of(recommender, histories, [PLAIN | {"S": S} for S in (1, 2, 10, 50)])
    found = ask(weights, tmp_path, asked=asked)
    for mine, question in zip(found["answers"], asked, strict=True):
        compare(mine, by_torch(recommender, question, monkeypatch))


@pytest.mark.parametrize(
    "preset, changes",
    [
        ("reference", {"aggregation": "last", "layer_norm": False, "shortcut": False, "depth": 3}),
        ("letter", {"steps": 5}),
        ("improved", {}),
        ("dreamrec", {"guidance": 1.5}),
        ("reference", {"compensator": "shared", "schedule": "exponential"}),
    ],
)
def test_every_switch_of_the_configuration(preset, changes, ring, tiny, tmp_path, monkeypatch):
    small = {name: tiny.flat()[name] for name in ("k_core", "max_len", "dim", "hidden", "gae_steps", "epochs")}
    small |= {"timesteps": 20, "steps": 5, "compensator_epochs": 1, "gae_pairs": None, "aime_pairs": None}
    trained = fit(*ring, PRESETS[preset].replace(**small | changes), "cpu")
    weights, recommender = exported(trained, tmp_path / "x")
    name = "shared" if recommender.shared else 5 if recommender.compensators else None
    ways = [PLAIN | {"S": 5}, PLAIN | {"S": 5, "compensator": name}, PLAIN | {"S": 20, "eta": 1.0}]
    histories = [[3, 4, 5], [9, 1, 2, 3, 4, 5, 6, 9], [0]]  # one is longer than the model sees
    asked = questions_of(recommender, histories, ways)
    found = ask(weights, tmp_path, asked=asked)
    for mine, question in zip(found["answers"], asked, strict=True):
        compare(mine, by_torch(recommender, question, monkeypatch))


def test_shares_of_draws_are_those_of_the_module(tmp_path):
    weights, recommender = exported(checkpoint.load(TOWN / "checkpoint", "cpu"), tmp_path / "x")
    history = torch.tensor([[5, 77, 300]])
    draws = recommender.draw(history, 40, 10, generator=torch.Generator().manual_seed(0))
    law = torch.rand(1, 600, generator=torch.Generator().manual_seed(1)).double().softmax(1)
    asked = {"history": [5, 77, 300], "draws": draws[0].tolist(), "law": law[0].tolist()}
    answered = ask(weights, tmp_path, asked=[], shares=asked)
    found, n = answered["shares"], np.arange(41)
    mean = sum((binom.pmf(n, 40, p) * abs(n / 40 - p)).sum() for p in law[0].tolist()) / 2
    assert answered["floor"] == pytest.approx(mean)  # how far 40 draws of the law itself are from it
    expected = cloud.probabilities(recommender.model, history, draws, width=0)
    np.testing.assert_allclose(found["p"], expected[0])
    assert found["entropy"] == pytest.approx(cloud.entropy(expected).item())
    assert found["far"] == pytest.approx(cloud.total_variation(expected, law).item())


def test_the_law_of_the_town_is_the_modules(tmp_path):
    weights, _ = exported(checkpoint.load(TOWN / "checkpoint", "cpu"), tmp_path / "x")
    law = load_town_law(ROOT / "data/town")
    rng = np.random.default_rng(0)
    histories = [(rng.integers(0, law.n_venues, n), rng.integers(0, 4, n)) for n in (1, 2, 3, 7, 20)]
    histories.append((np.array([5, 5, 5, 9]), np.array([0, 1, 2, 3])))
    moments = [
        (items, np.array([np.flatnonzero(HOURS == slot)[0] * 3600 for slot in slots])) for items, slots in histories
    ]
    expected = law.next_given_history(moments)
    asked = [{"items": items.tolist(), "slots": slots.tolist()} for items, slots in histories]
    found = ask(weights, tmp_path, asked=[], laws={"parameters": law_parameters(law), "asked": asked})["laws"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(np.sum(found, axis=1), 1)


def test_only_a_compensator_that_is_there_is_exported(trained, tmp_path, one_sentence):
    one_sentence(lambda: checkpoint.export(trained, tmp_path / "x.safetensors", (3,)), "S = 3", "5")
    full = tmp_path / "full"
    checkpoint.save(trained, full)
    size = checkpoint.export(trained, tmp_path / "x.safetensors")
    assert size < 0.6 * (full / checkpoint.FILE).stat().st_size


@pytest.mark.skipif(not (ROOT / "docs/node_modules/typescript").is_dir(), reason="npm has not been run in docs/")
@pytest.mark.parametrize(
    "command",
    [["tsc", "-p", "docs"], ["eslint", "--max-warnings", "0", "-c", "docs/eslint.config.mjs", str(MODEL.parent)]],
)
def test_the_pages_javascript_has_types_and_no_lint(command):
    done = subprocess.run(
        [ROOT / "docs/node_modules/.bin" / command[0], *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_stays_small():
    """What another project would take along: the model, without its explorers."""
    assert len(MODEL.read_text(encoding="utf-8").splitlines()) < 600
