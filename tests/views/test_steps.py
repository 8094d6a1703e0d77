"""What the S explorer shows beside the model, against brute force; the browser tests move it."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.data.dataset import held_out
from dae4rec_core.streams import stream
from dae4rec_core.views import page
from dae4rec_core.views.page import steps
from dae4rec_core.views.page.widget import StepsWidget


@pytest.fixture(scope="module")
def errors() -> pd.DataFrame:
    """What `experiments.solvers` gives where no law is known."""
    ways = [(S, spacing, order) for S in (1, 5) for spacing, order in (("t", 1), ("log-SNR", 1), ("log-SNR", 2))]
    rows = [
        ("DAE4Rec", seed, *way, 0.3 / way[0] + seed + 2 * (way[1] == "t") + 4 * way[2], 0.5, 0.2)
        for seed in (0, 1)
        for way in ways
    ]
    rows.append(("the law", 0, 1, "t", 1, 99.0, 0.5, 0.2))  # no line of the model
    return pd.DataFrame(rows, columns=["method", "seed", "S", "spacing", "order", "distance", "same", "HR@10"])


@pytest.fixture
def about(ring, trained, sweep_of_steps, errors, tmp_path):
    people = {"one": str(ring[0].user_ids[7]), "another": str(ring[0].user_ids[3])}
    return json.loads(steps.steps_explorer(trained, *ring, sweep_of_steps[0], errors, people, tmp_path).widget.about)


def test_people_come_with_what_the_model_saw_and_where_they_went(ring, trained, about):
    tests = held_out(*ring, "test", trained.model.config)
    for found, user in zip(about["people"], (7, 3), strict=True):
        row = int(torch.nonzero(tests.user == user))
        history = [item for item in tests.history[row].tolist() if item >= 0]
        assert found["items"][-len(history) :] == history
        assert found["items"] == ring[0].sequence(user)[:-1].tolist()
        assert found["next"] == int(tests.target[row]) and found["name"].startswith(str(ring[0].user_ids[user]))
    assert "xy" not in about and "law" not in about  # nobody knows them for the ring


def test_the_first_noise_is_the_recommenders_own(ring, trained, about):
    """So the list of noise 0 is the list that `recommend` gives."""
    x_T = torch.tensor([about["xT"]])
    torch.testing.assert_close(x_T, torch.randn(x_T.shape, generator=stream(0, "sampling")), atol=1e-6, rtol=0)
    person = about["people"][0]
    tests = held_out(*ring, "test", trained.model.config)
    history = tests.history[int(torch.nonzero(tests.user == 7))][None]
    [S] = trained.compensators
    order = (trained.generate(history, S, False, x_T=x_T) @ trained.model.embedding.weight.T)[0].argsort(
        descending=True
    )
    ids = ring[0].item_ids
    listed = trained.recommend(ids[person["items"]].tolist(), 5, S, False)["item_id"].tolist()
    assert listed == ids[order[:5].tolist()].tolist()


def test_the_plane_holds_the_share_that_it_says(trained, about):
    e = trained.model.embedding.weight.detach().double().numpy()
    values, vectors = np.linalg.eigh(np.cov(e.T))
    assert about["plane"]["held"] == pytest.approx(values[-2:].sum() / values.sum())
    directions = np.array(about["plane"]["directions"])
    for column, vector in zip(directions.T, vectors.T[:-3:-1], strict=True):
        assert abs(column @ vector) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(about["plane"]["mean"], e.mean(0), atol=1e-6)


def test_curves_are_means_over_seeds(sweep_of_steps, errors, about):
    table = sweep_of_steps[0]
    rates, far = about["curves"]
    assert "law" not in "".join(curve["title"] for curve in about["curves"])
    for line, compensator in zip(rates["lines"], ("False", "True"), strict=True):
        for S, value in line["points"]:
            same = (table["part"] == "test") & (table["S"].astype(str) == str(S))
            same &= (table["method"] == "DAE4Rec") & (table["compensator"].astype(str) == compensator)
            assert value == pytest.approx(100 * table.loc[same, "HR@10"].mean(), abs=1e-3)
    # 0.3 / S, half of the two seeds, and what marks each way
    for line, base in zip(far["lines"], (6, 4, 8), strict=True):
        np.testing.assert_allclose(line["points"], [[1, base + 0.8], [5, base + 0.56]])
    assert [[S for S, _ in line["points"]] for line in rates["lines"]] == [[1, 10]] * 2


def test_the_question_has_the_answer_of_the_sweep(about):
    asked = about["question"]
    told = {f"S = {S}": float(value) for S, value in re.findall(r"S = (\d+): ([\d.]+)%", asked["then"])}
    assert list(told) == asked["answers"] and len(told) >= 2
    assert told[asked["answers"][asked["right"]]] == max(told.values())


def test_the_still_says_the_ranks(ring, trained, one_sentence):
    user = str(ring[0].user_ids[7])
    view = steps.still(trained, *ring, user)
    tests = held_out(*ring, "test", trained.model.config)
    row = int(torch.nonzero(tests.user == 7))
    x_T = torch.randn(1, trained.model.config.model.dim, generator=stream(0, "sampling"))
    shown = re.findall(r"at S = (\d+) the true next item is at rank (\d+)", view.alt)
    assert [int(S) for S, _ in shown] == [S for S in (1, 10, 200) if S <= trained.model.config.diffusion.timesteps]
    for S, rank in shown:
        e_0 = trained.generate(tests.history[row][None], int(S), False, x_T=x_T)
        scores = (e_0 @ trained.model.embedding.weight.T)[0]
        assert int(rank) == 1 + sum(bool(score > scores[tests.target[row]]) for score in scores)
    one_sentence(lambda: steps.still(trained, *ring, "nobody"), "nobody")


def test_the_still_of_many_says_how_wide_the_ends_lie(ring, trained, monkeypatch):
    monkeypatch.setattr(steps, "SHOWN", (1, 5))  # a compensator was trained for 5
    user, model = str(ring[0].user_ids[7]), trained.model
    view = steps.still_of_many(trained, *ring, user)
    shown = re.findall(r"([\d.]+) at S = (\d+) (without|with)", view.alt)
    assert [(S, how) for _, S, how in shown] == [("1", "without"), ("5", "without"), ("5", "with")]
    tests = held_out(*ring, "test", model.config)
    history = tests.history[int(torch.nonzero(tests.user == 7))][None]
    _, _, main = torch.linalg.svd((e := model.embedding.weight.detach().double()) - e.mean(0))
    noises = torch.randn(200, model.config.model.dim, generator=stream(0, "sampling"))
    for wide, S, how in shown:
        ends = torch.cat([trained.generate(history, int(S), how == "with", x_T=x_T[None]) for x_T in noises])
        inside = (ends.detach().double() @ main[:2].T).numpy()
        assert abs(float(wide) - inside.var(0).sum() ** 0.5) < 0.01


def test_one_explorer_for_data_without_a_map_or_a_law(ring, trained, sweep_of_steps, errors, tmp_path):
    people = {"one": str(ring[0].user_ids[7])}
    asked = {"question": "?", "answers": ["a"], "right": 0, "then": "."}
    other = steps.steps_explorer(trained, *ring, sweep_of_steps[0], errors, people, tmp_path, many=True, asked=asked)
    assert json.loads(other.widget.about)["many"] and json.loads(other.widget.about)["question"] == asked
    assert "200 first noises" in other.still.alt
    explorer = steps.steps_explorer(trained, *ring, sweep_of_steps[0], errors, people, tmp_path)
    assert isinstance(explorer.widget, StepsWidget) and explorer.still.png and explorer.text == "the S explorer"
    assert len(explorer.widget.weights) == len(page.exported(trained))
    assert "import " not in re.sub(r"\{import\(.*?\)", "", page.script(page.STEPS))  # one classic script
