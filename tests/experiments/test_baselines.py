"""Each baseline against dictionaries and loops, on a hand-made data set and on the ring."""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.data.dataset import encode, leave_last_out, make_examples
from dae4rec_core.experiments.baselines import Popularity, Recency, SequentialRules, baselines
from dae4rec_core.method.model import PAD

SEQUENCES = {"u": "abcabd", "v": "bcbbad", "w": "aacde", "x": "e"}


@pytest.fixture(scope="module", params=["by hand", "ring"])
def case(request, ring):
    """(dataset, split, training sequences as lists, test histories)."""
    if request.param == "ring":
        dataset, split = ring
    else:
        rows = [(u, i, time) for u, items in SEQUENCES.items() for time, i in enumerate(items)]
        dataset = encode(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
        split = leave_last_out(dataset)
    training = [s.tolist() for s in split.training_sequences(dataset)]
    return dataset, split, training, make_examples(dataset, split.test, 5).history


def shares(dataset, training) -> list[float]:
    """Training counts over (largest count + 1)."""
    counts = Counter(item for sequence in training for item in sequence)
    return [counts[item] / (max(counts.values()) + 1) for item in range(dataset.n_items)]


def test_training_sequences_of_the_hand_made_data_are_as_meant():
    rows = [(u, i, time) for u, items in SEQUENCES.items() for time, i in enumerate(items)]
    dataset = encode(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    found = leave_last_out(dataset).training_sequences(dataset)
    assert ["".join(dataset.item_ids[s]) for s in found] == ["abca", "bcbb", "aac", "e"]


def test_popularity(case):
    dataset, split, training, history = case
    scores = Popularity(dataset, split)(history)
    assert scores.shape == (len(history), dataset.n_items)
    np.testing.assert_allclose(scores, [shares(dataset, training)] * len(history), rtol=1e-12)


def test_recency(case):
    dataset, split, training, history = case
    scores = Recency(dataset, split)(history)
    popular = shares(dataset, training)
    for row, found in zip(history.tolist(), scores.tolist(), strict=True):
        newest_first = list(dict.fromkeys(item for item in reversed(row) if item != PAD))
        rest = set(range(dataset.n_items)) - set(newest_first)
        order = sorted(range(dataset.n_items), key=lambda i: -found[i])
        assert order[: len(newest_first)] == newest_first
        assert {i: found[i] for i in rest} == pytest.approx({i: popular[i] for i in rest})


@pytest.mark.parametrize("window, symmetric", [(1, False), (1, True), (3, False), (10, False)])
def test_sequential_rules(case, window, symmetric):
    """The weights, by fractions; popularity decides between equal ones and nowhere else."""
    dataset, split, training, history = case
    rules = defaultdict(Fraction)
    for sequence in training:
        for i, a in enumerate(sequence):
            for j in range(i + 1, min(i + window, len(sequence) - 1) + 1):
                rules[a, sequence[j]] += Fraction(1, j - i)
                if symmetric:
                    rules[sequence[j], a] += Fraction(1, j - i)
    popular = shares(dataset, training)
    scores = SequentialRules(dataset, split, window, symmetric)(history)
    for row, found in zip(history.tolist(), scores.tolist(), strict=True):
        meant = [(rules[row[-1], item], popular[item]) for item in range(dataset.n_items)]
        np.testing.assert_allclose(found, [float(weight) for weight, _ in meant], atol=0.5)
        order = sorted(range(dataset.n_items), key=lambda item: meant[item], reverse=True)
        for one, next_one in pairwise(order):
            if meant[one] == meant[next_one]:
                assert found[one] == pytest.approx(found[next_one], abs=1e-12)
            else:
                assert found[one] > found[next_one] + 1e-9


def test_a_hand_calculated_rule():
    rows = [("u", item, time) for time, item in enumerate("abcxx")]
    dataset = encode(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    split = leave_last_out(dataset)  # trains on a b c
    asked = torch.tensor([[PAD, 0]])
    # each of a, b, c was seen once, a popularity of 1/2; sums of 1 and 1/2 differ by 1/2 at least, and popularity
    # can give a half of that
    scores = SequentialRules(dataset, split, window=2)(asked)[0].tolist()
    assert scores == pytest.approx([1 / 8, 1 + 1 / 8, 1 / 2 + 1 / 8, 0])


def test_all_of_them_have_a_name(ring):
    dataset, split = ring
    history = make_examples(dataset, split.test, 5).history
    found = baselines(dataset, split)
    assert list(found) == [
        "popularity",
        "recency",
        "first-order transitions",
        "symmetric transitions",
        "sequential rules",
    ]
    tables = [scorer(history).numpy() for scorer in found.values()]
    assert all(table.shape == (len(history), 30) for table in tables)
    assert len({table.round(9).tobytes() for table in tables}) == 5
