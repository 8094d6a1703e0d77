"""Checkers of 05: the mean as the best guess, and the share of accuracy that a small S keeps."""

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_best_guess", "check_kept_share"]


@checker
def check_best_guess(best_guess: Answer) -> None:
    answers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 9.0]])
    guess = torch.as_tensor(best_guess(answers))
    assert guess.shape == (2,), "three answers in the plane have one best guess, a point of 2 numbers."

    def cost(point: torch.Tensor) -> torch.Tensor:
        return (answers - point).square().sum(1).mean()

    for step in torch.cat([torch.eye(2), -torch.eye(2)]) * 0.05:
        assert cost(guess) < cost(guess + step), f"a small step of {step.tolist()} makes the error smaller still."


@checker
def check_kept_share(kept_share: Answer) -> None:
    found = kept_share({1: 20.0, 10: 24.0, 100: 25.0})
    assert set(found) == {1, 10, 100}, "return one share for every S."
    assert abs(found[100] - 1) < 1e-9, "the best S keeps all of it: 1."
    assert abs(found[10] - 0.96) < 1e-9, "24 of 25 is 0.96."
