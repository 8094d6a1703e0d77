"""Checkers of 00: chance, recency, and how far chance moves a hit rate."""

import math
import random

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_chance_hit_rate", "check_recency_list", "check_standard_error"]


@checker
def check_chance_hit_rate(chance_hit_rate: Answer) -> None:
    for n_items, k in ((600, 10), (600, 1), (7, 3), (12, 12), (5, 10)):
        # the answer stands at each of the places equally often, and the first k of them are hits
        expected = sum(place < k for place in range(n_items)) / n_items
        found = float(chance_hit_rate(n_items, k))
        assert abs(found - expected) < 1e-12, (
            f"of the {n_items} places where the answer may stand, {expected * n_items:.0f} are among the first {k}: "
            f"{expected:.4f}, you have {found:.4f}."
        )


@checker
def check_recency_list(recency_list: Answer) -> None:
    draw = random.Random(0)
    histories = [[], [1, 2, 3], [1, 2, 1], [4, 4, 4], *(draw.choices(range(6), k=n) for n in (5, 9, 14))]
    for history in histories:
        for k in (1, 2, 5, 20):
            expected: list[int] = []
            for item in history[::-1]:
                if item not in expected and len(expected) < k:
                    expected.append(item)
            found = list(recency_list(list(history), k))
            assert found == expected, f"the newest {k} different items of {history} are {expected}, you have {found}."


@checker
def check_standard_error(standard_error: Answer) -> None:
    for hit_rate, users in ((0.5, 1), (0.216, 12), (0.9, 25), (0.02, 40), (0.0, 8)):
        # every number of hits with its probability: the spread of the hit rate by its definition
        hits = range(users + 1)
        chance = [math.comb(users, n) * hit_rate**n * (1 - hit_rate) ** (users - n) for n in hits]
        expected = math.sqrt(sum(p * (n / users - hit_rate) ** 2 for n, p in zip(hits, chance, strict=True)))
        found = float(standard_error(hit_rate, users))
        assert abs(found - expected) < 1e-9, (
            f"{users} users who hit with probability {hit_rate:g}: the hit rate's standard deviation is "
            f"{expected:.4f}, you have {found:.4f}."
        )
