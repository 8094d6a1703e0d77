"""Checkers of 01: the edges of Eq. 6 and the leave-last-out split."""

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_edge_set", "check_split_user"]


@checker
def check_edge_set(edge_set: Answer) -> None:
    assert set(edge_set([[0, 1, 2]])) == {(0, 1), (1, 2)}, "0, 1, 2 should give the edges (0, 1) and (1, 2)."
    assert set(edge_set([[2, 1], [1, 2]])) == {(1, 2)}, "an edge has no direction: 2, 1 and 1, 2 are the same one."
    assert set(edge_set([[3, 3]])) == set(), "an item after itself is no edge."
    assert set(edge_set([[0], []])) == set(), "sequences of one or no item have no edges."


@checker
def check_split_user(split_user: Answer) -> None:
    training, validation, test = split_user([5, 3, 8, 1])
    assert list(training) == [5, 3], "the training part of 5, 3, 8, 1 is 5, 3."
    assert (validation, test) == (8, 1), "the last item is the test answer, the one before it the validation answer."
    training, validation, test = split_user([5, 3])
    assert list(training) == [5, 3], "a user with two items is training only."
    assert validation is None and test is None, "a user with two items has no answers: None and None."
