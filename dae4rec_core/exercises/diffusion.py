"""Checkers of 03: the forward jump of Eq. 2 and the lazy minimum of Eq. 5."""

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_jump_to", "check_lazy_loss"]


@checker
def check_jump_to(jump_to: Answer) -> None:
    e0, noise = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0]])
    assert torch.allclose(jump_to(e0, noise, 1.0), e0), "at alpha_bar = 1 nothing is spoiled: e^t = e^0."
    assert torch.allclose(jump_to(e0, noise, 0.0), noise), "at alpha_bar = 0 only noise is left."
    expected = torch.tensor([[0.6 * 1.0 + 0.8 * 0.5, 0.6 * -2.0 + 0.8 * 4.0]])
    assert torch.allclose(jump_to(e0, noise, 0.36), expected), (
        "at alpha_bar = 0.36 the signal counts sqrt(0.36) = 0.6 and the noise sqrt(0.64) = 0.8."
    )


@checker
def check_lazy_loss(lazy_loss: Answer) -> None:
    e = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert abs(float(lazy_loss(e)) - 13.0) < 1e-6, "rows of length 5 and 1 cost (25 + 1) / 2 = 13."
    assert float(lazy_loss(0 * e)) == 0, "embeddings at the origin cost nothing."
