"""Checkers of 09: shares of draws, the best f over a catalogue, conformal sets, how near a few draws can come."""

import math

import numpy as np
import torch
from scipy.stats import binom, multivariate_normal

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_nearest_shares", "check_best_f", "check_conformal_set", "check_expected_distance"]


@checker
def check_nearest_shares(nearest_shares: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for n_items, draws, d in ((4, 10, 2), (3, 7, 5), (6, 1, 3)):
        # of different lengths: then the largest inner product is often not the nearest item
        items = torch.randn(n_items, d, generator=generator) * (1 + torch.arange(n_items)).unsqueeze(1)
        points = 2 * torch.randn(draws, d, generator=generator)
        found = torch.as_tensor(nearest_shares(points.clone(), items.clone())).double()
        assert found.shape == (n_items,), (
            f"{n_items} items need {n_items} shares, yours have the shape {tuple(found.shape)}."
        )
        counts = [0] * n_items
        for point in points.tolist():
            counts[min(range(n_items), key=lambda v: math.dist(point, items[v].tolist()))] += 1
        expected = [count / draws for count in counts]
        assert np.allclose(found, expected, atol=1e-6), (
            f"of {draws} draws, these shares have each item as their nearest: {[round(s, 2) for s in expected]}; "
            f"you have {[round(s, 2) for s in found.tolist()]}."
        )


@checker
def check_best_f(best_f: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for n_items, d, alpha_bar in ((3, 2, 0.5), (5, 3, 0.05), (4, 2, 0.9)):
        items = torch.randn(n_items, d, generator=generator, dtype=torch.float64)
        p = torch.rand(n_items, generator=generator, dtype=torch.float64).softmax(0)
        e_t = torch.randn(d, generator=generator, dtype=torch.float64)
        found = torch.as_tensor(best_f(e_t.clone(), p.clone(), items.clone(), alpha_bar)).double()
        assert found.shape == (d,), f"the answer is a vector of {d} numbers, yours has the shape {tuple(found.shape)}."
        density = [
            multivariate_normal.pdf(e_t.numpy(), alpha_bar**0.5 * item.numpy(), (1 - alpha_bar) * np.eye(d))
            for item in items
        ]
        weight = p.numpy() * np.array(density)
        expected = weight / weight.sum() @ items.numpy()
        assert np.allclose(found, expected, atol=1e-6), (
            f"with abar_t = {alpha_bar:g} the mean of e^0, given e^t, starts with {expected[0]:.4f}; yours starts with "
            f"{found[0]:.4f}."
        )


@checker
def check_conformal_set(conformal_set: Answer) -> None:
    rng = np.random.default_rng(0)
    for n, level in ((10, 0.8), (20, 0.9), (98, 0.5), (4, 0.9)):
        true, p = rng.permutation(1000)[:n] / 1000, rng.permutation(1000)[:12] / 1000 + 0.0005
        found = np.asarray(conformal_set(true.copy(), p.copy(), level))
        assert found.shape == (12,) and found.dtype == bool, "the answer is an array of 12 True or False."
        held = sum(1 for value in true if value <= 0.5)
        # an item stays where more than a share 1 - level of all n + 1 is as strange as itself, itself included
        expected = np.array([(1 + sum(q <= v for q in true)) / (n + 1) > 1 - level for v in p])
        assert (found == expected).all(), (
            f"with {n} validation answers ({held} of them with a p of at most 0.5) and the level {level:g}, "
            f"{expected.sum()} of the 12 items belong into the set; yours has {found.sum()}"
            f"{', but not the same ones' if found.sum() == expected.sum() else ''}."
        )


@checker
def check_expected_distance(expected_distance: Answer) -> None:
    for p, n in (([0.5, 0.5], 1), ([0.5, 0.5], 10), ([0.7, 0.2, 0.1], 25), ([0.01] * 100, 300)):
        counts = np.arange(n + 1)
        expected = sum((binom.pmf(counts, n, q) * np.abs(counts / n - q)).sum() for q in p) / 2
        found = float(expected_distance(torch.tensor(p, dtype=torch.float64), n))
        assert abs(found - expected) < 0.01, (
            f"{n} draws from {len(p)} items, the first with p = {p[0]:g}, are {expected:.3f} away on average; "
            f"you have {found:.3f}."
        )
