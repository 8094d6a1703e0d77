"""Checkers of 05: the best single guess, a compensator that learns, and how much of an answer is noise."""

import torch
from torch import Tensor

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_best_guess", "check_learn_compensator", "check_noise_share"]


@checker
def check_best_guess(best_guess: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for n, d in ((3, 2), (5, 1), (40, 7), (1, 4)):
        answers = torch.randn(n, d, generator=draw, dtype=torch.float64) * 3 + 1
        chances = torch.rand(n, generator=draw, dtype=torch.float64) ** 2 + 0.01
        chances = chances / chances.sum()
        given = answers.clone(), chances.clone()
        guess = torch.as_tensor(best_guess(*given))
        assert torch.equal(given[0], answers) and torch.equal(given[1], chances), (
            "leave answers and chances as they are."
        )
        assert guess.shape == (d,), f"one best guess is a point of shape {(d,)}; yours has shape {tuple(guess.shape)}."
        # least squares: the one g with the smallest sum of chances * |answers - g|^2
        weight = chances.sqrt().unsqueeze(1)
        best = torch.linalg.lstsq(weight, weight * answers).solution[0]
        costs = [(chances * (answers - point).square().sum(1)).sum().item() for point in (guess.double(), best)]
        assert torch.allclose(guess.double(), best, atol=1e-6), (
            f"among {n} answers with unequal chances your guess costs {costs[0]:.3f}, the best one {costs[1]:.3f}."
        )


def two_ends(size: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^{tau_1} is a draw that knows nothing: e^0 is at one end in 3 of 4 cases, else at the other; h says where."""
    h = torch.eye(4)[torch.randint(4, (size,), generator=draw)]
    middle = h @ torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])
    ends = torch.where(torch.rand(2, size, 1, generator=draw) < 0.75, 1.0, -3.0)  # of e^0 and of e^{tau_1}; mean 0
    return middle + ends[1], h, middle + ends[0], middle


def a_hint(size: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^{tau_1} does tell of e^0 here: its sizes, and h gives their signs; a little noise comes on top."""
    e_tau1 = torch.randn(size, 2, generator=draw)
    h = torch.eye(4)[torch.randint(4, (size,), generator=draw)]
    known = e_tau1.abs() * (h @ torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    return e_tau1, h, known + 0.1 * torch.randn(size, 2, generator=draw), known


@checker
def check_learn_compensator(learn_compensator: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for world, what in (
        (two_ends, "where e_tau1 is a draw that knows nothing of e_0"),
        (a_hint, "where e_tau1 tells of e_0 and h how to read it"),
    ):
        e_tau1, h, e_0, _ = world(4000, draw)
        torch.manual_seed(0)
        c = learn_compensator(e_tau1.clone(), h.clone(), e_0.clone())
        assert callable(c), "return the trained network, so that c(e_tau1, h) can be asked."
        e_tau1, h, e_0, mean = world(2000, draw)
        with torch.no_grad():
            answer = torch.as_tensor(c(e_tau1, h))
        assert answer.shape == e_0.shape, (
            f"c answers with e^0, shape {tuple(e_0.shape)}; yours has {tuple(answer.shape)}."
        )
        off = (answer - mean).square().sum(1).mean() / (mean - mean.mean(0)).square().sum(1).mean()
        assert off < 0.05, (
            f"on new examples, {what}, c should come near E[e_0 | e_tau1, h]: within 0.05 of that mean's variance; "
            f"yours is {off:.2f} of it away."
        )


@checker
def check_noise_share(noise_share: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for K, N, d, spread in ((2, 3, 1, 1.0), (16, 50, 4, 0.2), (3, 2, 5, 3.0), (4, 30, 2, 0.0)):
        users = torch.randn(N, d, generator=draw, dtype=torch.float64) + 5
        answers = users + spread * torch.randn(K, N, d, generator=draw, dtype=torch.float64)
        given = answers.clone()
        found = torch.as_tensor(noise_share(given)).double()
        assert torch.equal(given, answers), "leave answers as they are."
        assert found.shape == (), f"the share is one number; yours has shape {tuple(found.shape)}."
        # a variance is half of the mean squared distance of two of its points, each with itself included
        within = torch.stack([torch.cdist(user, user).square().mean() for user in answers.transpose(0, 1)]).mean() / 2
        everything = answers.reshape(K * N, d)
        expected = (within / (torch.cdist(everything, everything).square().mean() / 2)).item()
        assert abs(found.item() - expected) < 1e-6, (
            f"for {N} users with {K} first noises each the share is {expected:.3f}; you have {found.item():.3f}."
        )
