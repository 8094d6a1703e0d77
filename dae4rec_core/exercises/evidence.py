"""Checkers of 06: what NDCG may gain between two cut-offs, a paired interval, and the best of many readings."""

import itertools
import math

import numpy as np
import torch
from scipy import stats

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_gain_bounds", "check_paired_interval", "check_gain_of_best"]


@checker
def check_gain_bounds(gain_bounds: Answer) -> None:
    for k, m, users in ((10, 20, 1), (5, 10, 4), (1, 3, 7), (20, 50, 3)):
        for hits in range(users + 1):
            # all answers of these users at one rank: what NDCG@m has more than NDCG@k, brought about in every way
            gains = [hits / math.log2(rank + 1) / users for rank in range(k + 1, m + 1)]
            least, most = (float(bound) for bound in gain_bounds(hits / users, k, m))
            for name, found, expected, rank in (("least", least, min(gains), m), ("most", most, max(gains), k + 1)):
                assert abs(found - expected) < 1e-9, (
                    f"with {hits} of {users} answers at rank {rank}, NDCG@{m} is {expected:.4f} above NDCG@{k}: "
                    f"that is the {name} they can add, and you have {found:.4f}."
                )


@checker
def check_paired_interval(paired_interval: Answer) -> None:
    for seed, (users, ahead) in enumerate(((400, 0.1), (900, 0.0), (250, -0.3))):
        draw = np.random.default_rng(seed)
        taste = draw.normal(size=users)  # what makes a user easy or hard for both methods
        ours, theirs = (3 * taste + draw.exponential(size=users) + gain for gain in (ahead, 0.0))
        generator = torch.Generator().manual_seed(seed)
        given = paired_interval(torch.from_numpy(ours), torch.from_numpy(theirs), generator)
        assert len(given) == 3, "return three numbers: the difference and the two ends of its interval."
        difference, low, high = (float(value) for value in given)
        expected = (ours - theirs).mean()
        assert abs(difference - expected) < 1e-6, (
            f"ours is ahead by {expected:.4f} on average, you have {difference:.4f}."
        )
        oracle = stats.bootstrap((ours - theirs,), np.mean, n_resamples=5000, method="percentile", rng=draw)
        ends = oracle.confidence_interval
        assert max(abs(low - ends.low), abs(high - ends.high)) < 0.07 * (ends.high - ends.low), (
            f"for {users} users scipy's bootstrap has {ends.low:.3f} to {ends.high:.3f}, "
            f"you have {low:.3f} to {high:.3f}."
        )
    same = torch.rand(50, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    _, low, high = paired_interval(same + 0.25, same, torch.Generator().manual_seed(0))
    assert max(abs(float(low) - 0.25), abs(float(high) - 0.25)) < 1e-6, (
        "when every user gains 0.25, each resample does too, and the interval is that one point."
    )


@checker
def check_gain_of_best(gain_of_best: Answer) -> None:
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    for seed, (readings, noise) in enumerate(itertools.product((1, 2, 10, 200), (0.5, 2.0))):
        # the largest of n standard normals lies below x with probability Phi(x)^n, and its mean is the integral
        below = torch.special.ndtr(x) ** readings
        expected = noise * float(torch.trapezoid((x > 0).double() - below, x))
        found = float(gain_of_best(readings, noise, torch.Generator().manual_seed(seed)))
        assert abs(found - expected) < 0.05 * noise, (
            f"the best of {readings} readings with a standard error of {noise:g} is {expected:.2f} too high "
            f"on average, you have {found:.2f}."
        )
