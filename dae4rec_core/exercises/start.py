"""Checkers of 00: chance and recency."""

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_chance_hit_rate", "check_recency_list"]


@checker
def check_chance_hit_rate(chance_hit_rate: Answer) -> None:
    assert abs(chance_hit_rate(600, 10) - 10 / 600) < 1e-12, "ten of 600 places are ten chances in 600."
    assert abs(chance_hit_rate(600, 1) - 1 / 600) < 1e-12, "one place of 600 is one chance in 600."
    assert chance_hit_rate(5, 10) == 1, "a list longer than the catalogue always holds the answer."


@checker
def check_recency_list(recency_list: Answer) -> None:
    assert list(recency_list([1, 2, 3], 2)) == [3, 2], "the two newest of 1, 2, 3 are 3, 2."
    assert list(recency_list([1, 2, 1], 5)) == [1, 2], "an item that occurs twice is listed once, where it is newest."
    assert list(recency_list([], 3)) == [], "an empty history gives an empty list."
