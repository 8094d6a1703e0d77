"""The toy of 03 to 05: what its denoiser must know, and where its chains must end."""

import pytest
import torch

from dae4rec_core.experiments.islands import (
    ALPHA_BAR,
    CENTRES,
    SPREAD,
    TIMESTEPS,
    best_answer,
    draw_points,
    history_of,
    train_islands,
)
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.method.schedule import add_noise

N = 1000


@pytest.fixture(scope="module")
def f():
    return train_islands()


def answers(f, h, S):
    """N answers of a chain of S jumps from one noise, (N, 2)."""
    x_T = torch.randn(N, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return skip_step(f, x_T, h, ALPHA_BAR, choose_tau(TIMESTEPS, S))[1]


def island_of(points):
    """The island 0..2 that each point is on, -1 for the sea."""
    distance, nearest = torch.cdist(points, CENTRES).min(1)
    return torch.where(distance < 3 * SPREAD, nearest, -1)


def by_brute_force(e_t, t):
    """E[e^0 | e^t] with nothing known, by a sum over a fine grid of all e^0: (B, 2) float64 -> (B, 2)."""
    line = torch.arange(-3, 3, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)  # (G, 2)
    prior = torch.exp(-torch.cdist(grid, CENTRES.double()).square() / (2 * SPREAD**2)).sum(1)
    away = torch.cdist(e_t, ALPHA_BAR[t].sqrt() * grid).square() / (2 * (1 - ALPHA_BAR[t]))
    weight = prior * torch.exp(-away + away.min(1, keepdim=True).values)  # (B, G)
    return weight @ grid / weight.sum(1, keepdim=True)


def test_points_lie_on_the_islands_and_histories_say_which_or_nothing():
    points, island = draw_points(3000, torch.Generator().manual_seed(0))
    assert points.shape == (3000, 2) and (torch.bincount(island) > 900).all()
    for n in range(3):
        assert torch.allclose(points[island == n].mean(0), CENTRES[n], atol=0.02)
        assert torch.allclose(points[island == n].std(0), torch.full((2,), SPREAD), atol=0.01)
    h = history_of(torch.tensor([2, 0]), torch.tensor([False, True]))
    assert h.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert history_of(torch.tensor([1])).tolist() == [[0, 1, 0]]


def test_the_same_seed_gives_the_same_denoiser_and_another_seed_another():
    one, same, other = (train_islands(steps=3, seed=seed).layers[0].weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("t", [50, 30, 20, 10, 5])
def test_what_it_predicts_is_the_mean_of_what_is_possible(f, t):
    e_0, island = draw_points(300, torch.Generator().manual_seed(t))
    steps = torch.full((300,), t)
    e_t = add_noise(e_0, steps, torch.randn(300, 2, generator=torch.Generator().manual_seed(2)), ALPHA_BAR)
    with torch.no_grad():
        found = f(e_t, steps, history_of(island, True))
    expected = by_brute_force(e_t.double(), t)
    torch.testing.assert_close(best_answer(e_t.double(), t), expected, atol=2e-3, rtol=0)  # the grid has its ends
    missed = (found - expected).square().sum(1).mean()
    assert missed < 0.12  # the islands are 4 apart in squared length from the middle


def test_one_step_ends_in_the_middle(f):
    found = answers(f, torch.zeros(N, 3), S=1)
    assert (found.norm(dim=1) < 0.8).float().mean() > 0.99
    assert (island_of(found) >= 0).float().mean() < 0.01


def test_all_steps_end_on_the_islands_evenly(f):
    island = island_of(answers(f, torch.zeros(N, 3), S=TIMESTEPS))
    assert (island >= 0).float().mean() > 0.93
    assert all(0.25 < (island == n).float().mean() < 0.42 for n in range(3))


@pytest.mark.parametrize("S", [1, 10, TIMESTEPS])
def test_a_history_leads_to_its_island(f, S):
    _, island = draw_points(N, torch.Generator().manual_seed(3))
    assert (island_of(answers(f, history_of(island), S)) == island).float().mean() > 0.98
