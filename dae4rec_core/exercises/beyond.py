"""Checkers of 08: scores on the sphere, and the mean of several samples."""

import torch
import torch.nn.functional as F

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_cosine_scores", "check_error_of_the_mean"]


@checker
def check_cosine_scores(cosine_scores: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    e0, items = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    found = torch.as_tensor(cosine_scores(e0, items, 0.1))
    assert found.shape == (3, 5), f"3 users and 5 items need a (3, 5) table, yours is {tuple(found.shape)}."
    expected = F.cosine_similarity(e0.unsqueeze(1), items.unsqueeze(0), dim=-1) / 0.1
    assert torch.allclose(found, expected, atol=1e-5), (
        f"the first cosine over 0.1 is {expected[0, 0]:.3f}, you have {found[0, 0]:.3f}."
    )


@checker
def check_error_of_the_mean(error_of_the_mean: Answer) -> None:
    for width, bias, samples in ((1.0, 0.0, 1), (2.0, 0.0, 16), (1.0, 0.5, 4)):
        expected = width + width / samples + bias
        found = float(error_of_the_mean(width, bias, samples))
        assert abs(found - expected) < 1e-6, (
            f"spread {width:g}, squared bias {bias:g}, {samples} samples: the error is {expected:g}, not {found:g}."
        )
