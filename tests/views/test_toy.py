"""The toy that trains in the page takes the steps of torch's autograd and Adam, and does what the page says of it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dae4rec_core.method.losses import aime_loss, diffusion_loss
from dae4rec_core.views.page import HERE, collapse

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
PLACES, T, DELTA = 12, 10, 0.7


@pytest.fixture(scope="module")
def batches() -> list[list[dict]]:
    rng = np.random.default_rng(0)
    return [
        [
            {"u": int(u), "v": int(v), "t": int(t), "noise": rng.normal(size=2).tolist()}
            for u, v, t in rng.integers((0, 0, 1), (PLACES, PLACES, T + 1), (8, 3))
        ]
        for _ in range(20)
    ]


@pytest.fixture(scope="module")
def answered(batches, tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("toy") / "questions.json"
    runs = [{"delta": delta, "seed": seed, "steps": 1500} for delta in (0, 0.1, 1, 10) for seed in (0, 1, 2)]
    file.write_text(json.dumps({"delta": DELTA, "batches": batches, "runs": runs}))
    command = [NODE, str(Path(__file__).with_name("toy.mjs")), str(HERE / "toy.js"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_steps_are_those_of_autograd_and_adam(answered, batches):
    start = torch.tensor(answered["start"], dtype=torch.float64)
    E = start[: 2 * PLACES].view(PLACES, 2).clone().requires_grad_()
    W = start[2 * PLACES : 2 * PLACES + 4].view(2, 2).clone().requires_grad_()
    a = start[2 * PLACES + 4 :].clone().requires_grad_()
    goal = torch.tensor(answered["goal"], dtype=torch.float64)
    alpha_bar = torch.tensor(answered["alphaBar"], dtype=torch.float64)
    optimizer = torch.optim.Adam([E, W, a], lr=0.02)
    for batch, told in zip(batches, answered["losses"], strict=True):
        u, v, t = (torch.tensor([example[key] for example in batch]) for key in "uvt")
        noise = torch.tensor([example["noise"] for example in batch], dtype=torch.float64)
        level = alpha_bar[t].unsqueeze(1)
        spoiled = level.sqrt() * E[v] + (1 - level).sqrt() * noise
        prediction = a[t - 1].unsqueeze(1) * spoiled + E[u] @ W.T
        l_diff, l_aime = diffusion_loss(E[v], prediction, torch.ones(len(u))), aime_loss(E, goal)
        assert (told["diffusion"], told["aime"]) == pytest.approx((l_diff.item(), l_aime.item()), rel=1e-9)
        optimizer.zero_grad()
        (l_diff + DELTA * l_aime).backward()
        optimizer.step()
    found = torch.cat([E.flatten(), W.flatten(), a]).detach()
    torch.testing.assert_close(torch.tensor(answered["weights"], dtype=torch.float64), found, rtol=1e-8, atol=1e-10)


def test_it_goes_where_the_page_says(answered):
    """At delta 0 and 0.1 the embeddings fall together, on every start; at 1 and 10 they hold, and lists are right."""
    assert collapse.QUESTION["answers"][collapse.QUESTION["right"]] == "δ = 1"
    for run in answered["ends"][:6]:
        assert run["after"] < 0.25 * run["before"] and run["right"] < 0.6
    for run in answered["ends"][6:]:
        assert run["after"] > 1 and run["right"] > 0.95


def test_its_people_stay_in_their_district(answered):
    u, v, t = np.array(answered["examples"]).T
    assert (u != v).all() and set(t) == set(range(1, T + 1)) and set(u) == set(v) == set(range(PLACES))
    # 0.9 plus what a draw from all brings, without u itself: 0.9 * 3/4 and 0.1 * 3/12 against 0.1 * 8/12
    expected = (0.9 * 3 / 4 + 0.1 * 3 / 12) / (0.9 * 3 / 4 + 0.1 * 11 / 12)
    assert (u // 4 == v // 4).mean() == pytest.approx(expected, abs=0.02)
