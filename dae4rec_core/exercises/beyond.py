"""Checkers of 08: scores on the sphere, what neighbours add, the ranking term's answer, the mean of several samples."""

import itertools
import math

import torch
import torch.nn.functional as F

from dae4rec_core.exercises.checker import Answer, checker

__all__ = [
    "check_cosine_scores",
    "check_neighbour_gains",
    "check_best_for_ranking",
    "check_error_of_the_mean",
]


@checker
def check_cosine_scores(cosine_scores: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for users, n_items, d, temperature in ((3, 5, 4, 0.1), (1, 8, 2, 1.0), (4, 4, 6, 0.5)):
        e0, items = (3 * torch.randn(n, d, generator=generator) for n in (users, n_items))
        found = torch.as_tensor(cosine_scores(e0, items, temperature))
        assert found.shape == (users, n_items), (
            f"{users} users and {n_items} items need a ({users}, {n_items}) table, yours is {tuple(found.shape)}."
        )
        expected = F.cosine_similarity(e0.unsqueeze(1), items.unsqueeze(0), dim=-1) / temperature
        assert torch.allclose(found, expected, atol=1e-5), (
            f"the first cosine over {temperature:g} is {expected[0, 0]:.3f}, you have {found[0, 0]:.3f}."
        )


@checker
def check_neighbour_gains(neighbour_gains: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for history in ([2], [0, 1], [4, 3, 2], [1, 1, 0, 5, 2], [5, 0, 5, 5]):
        counts = torch.randint(0, 5, (6, 6), generator=generator)
        counts = counts + counts.T
        found = torch.as_tensor(neighbour_gains(counts.clone(), list(history)))
        assert found.shape == (6,), f"six items gain six numbers, you have the shape {tuple(found.shape)}."
        for item in range(6):
            near = sum(float(counts[v, item]) / k for k, v in enumerate(history[::-1][:3], 1))
            assert abs(float(found[item]) - math.log(1 + near)) < 1e-5, (
                f"after the history {history} the weighted counts of item {item} are {near:.2f}, so it gains "
                f"{math.log(1 + near):.3f}; you have {float(found[item]):.3f}."
            )


@checker
def check_best_for_ranking(best_for_ranking: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    worlds = [(torch.tensor([[1.0, 0.0], [0.9, 0.4], [-1.0, 0.0]]), torch.tensor([0.5, 0.1, 0.4]))]
    for _ in range(3):
        noise, odds = torch.randn(3, 2, generator=generator), torch.rand(3, generator=generator) + 0.2
        worlds.append((corners + 0.1 * noise, odds / odds.sum()))
    for items, odds in worlds:
        found = torch.as_tensor(best_for_ranking(items.clone(), odds.clone())).detach()
        assert found.shape == (2,), f"the answer is one vector in the plane, yours has the shape {tuple(found.shape)}."
        reached = (items @ found).softmax(0)
        # three scores up to a constant are two numbers, as many as the vector has: the odds can be met exactly
        assert torch.allclose(reached, odds, atol=0.01), (
            f"the softmax of your scores is {[round(p, 2) for p in reached.tolist()]}, and the cross-entropy is "
            f"least where it is {[round(p, 2) for p in odds.tolist()]}."
        )


@checker
def check_error_of_the_mean(error_of_the_mean: Answer) -> None:
    for width, bias, samples in ((1.0, 0.0, 1), (2.0, 0.0, 6), (1.0, 0.5, 4), (0.3, 2.0, 3), (0.0, 1.0, 2)):
        # answer and draws are the mean plus or minus the same length, so that all cases can be counted
        cases = list(itertools.product((-(width**0.5), width**0.5), repeat=samples + 1))
        errors = [(case[0] - bias**0.5 - sum(case[1:]) / samples) ** 2 for case in cases]
        expected = sum(errors) / len(cases)
        found = float(error_of_the_mean(width, bias, samples))
        assert abs(found - expected) < 1e-6, (
            f"spread {width:g}, squared bias {bias:g}, {samples} samples: the error is {expected:g}, not {found:g}."
        )
