"""Checkers of 02: the normalised adjacency and the loss of a constant answer."""

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_laziest_answer", "check_normalize"]


@checker
def check_normalize(normalize: Answer) -> None:
    alone = normalize(torch.eye(3))
    assert torch.allclose(alone, torch.eye(3)), "items without neighbours have degree 1, so nothing changes for them."
    pair = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    found = normalize(pair)
    assert torch.allclose(found, found.T), "the result is symmetric: divide by the roots of both degrees."
    assert abs(found[0, 1].item() - 1 / 6**0.5) < 1e-6, "an edge between degrees 2 and 3 becomes 1 / sqrt(2 * 3)."
    largest = torch.linalg.eigvalsh(found)[-1].item()
    assert abs(largest - 1) < 1e-5, "the largest eigenvalue of the normalised matrix is 1."


@checker
def check_laziest_answer(laziest_answer: Answer) -> None:
    for share, weight in ((0.01, 1.0), (0.2, 3.0), (0.05, 19.0)):
        p = torch.linspace(0.0005, 0.9995, 1999, dtype=torch.float64)
        loss = -(weight * share * p.log() + (1 - share) * (1 - p).log())
        best = p[loss.argmin()].item()
        assert abs(laziest_answer(share, weight) - best) < 1e-3, (
            f"for s = {share} and w = {weight:g} the smallest loss lies at p = {best:.3f}."
        )
