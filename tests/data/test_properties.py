"""The properties of a data set, against counting by hand."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import encode, leave_last_out, prepare
from dae4rec_core.data.properties import asymmetry, negative_share, properties


def data_of(sequences):
    """Sequences with two more items behind each, which leave-last-out takes away again."""
    rows = [(f"u{u}", f"i{i}", t) for u, s in enumerate(sequences) for t, i in enumerate([*s, 0, 1])]
    dataset = encode(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    return dataset, leave_last_out(dataset)


def test_properties_by_hand():
    sequences = [[0, 1, 0, 2], [2, 2, 3], [1, 3, 1, 0, 1]]
    found = properties(*data_of(sequences))
    met = sum(item in s[:n] for s in sequences for n, item in enumerate(s))
    steps = [pair for s in sequences for pair in pairwise(s)]
    joined = {frozenset(pair) for pair in steps if pair[0] != pair[1]}
    assert found["returns"] == pytest.approx(met / (12 - 3))
    assert found["self-transitions"] == pytest.approx(1 / len(steps))
    assert found["density"] == pytest.approx(len(joined) / 6)
    assert found["history length"] == pytest.approx(12 / 3)
    assert found["interactions per item"] == pytest.approx(12 / 4)


def test_negative_eigenvalues_of_what_alternates_and_of_what_stays():
    blocks = np.kron(np.eye(2), np.ones((5, 5)))
    stays, alternates = sparse.csr_matrix(blocks), sparse.csr_matrix(1 - blocks)
    assert negative_share(stays, largest=2) == 0.0  # eigenvalues 1 and 1, of two groups without their diagonal
    assert negative_share(alternates, largest=2) == 0.5  # 1 and -1
    assert negative_share(sparse.csr_matrix((3, 3))) == 0.0  # nobody took a step


@pytest.mark.parametrize("there, back", [(5, 5), (3, 9), (10, 11)])
def test_eigenvalues_that_are_zero_but_for_rounding_are_not_negative(there, back):
    """Everybody goes from one group to the other and back: eigenvalues 1, -1 and else 0."""
    n = there + back
    counts = np.zeros((n, n))
    counts[:there, there:], counts[there:, :there] = 1, 1
    assert negative_share(sparse.csr_matrix(counts)) == pytest.approx(1 / n)


def test_the_sparse_solver_agrees_with_the_dense_one():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.05, (150, 150)).astype(float))
    both = (counts + counts.T).toarray()
    np.fill_diagonal(both, 0)
    scale = both.sum(1) ** -0.5
    values = np.linalg.eigvalsh(scale[:, None] * both * scale)
    largest = values[np.argsort(-np.abs(values))][:40]
    assert negative_share(counts, 40) == pytest.approx((largest < 0).mean())


def test_asymmetry_is_one_for_a_one_way_street_and_zero_by_chance():
    assert asymmetry(sparse.csr_matrix([[0, 7.0], [0, 0]])) == pytest.approx(1)
    assert asymmetry(sparse.csr_matrix([[0, 1.0], [0, 5.0]])) == 0  # one step says nothing; an item to itself neither
    rng = np.random.default_rng(0)
    there = np.triu(rng.poisson(6, (80, 80)), 1)
    one_way = rng.binomial(there, 0.5)
    fair = sparse.csr_matrix((one_way + (there - one_way).T).astype(float))
    assert abs(asymmetry(fair)) < 0.03
    n = np.arange(1, 9)
    by_hand = [sum(abs(2 * b - m) * stats.binom.pmf(b, m, 0.5) for b in range(m + 1)) for m in n]
    for m, expected in zip(n, by_hand, strict=True):
        if m > 1:
            even = sparse.csr_matrix([[0, m - m // 2], [m // 2, 0]]).astype(float)
            gap = m - 2 * (m // 2)
            assert asymmetry(even) == pytest.approx((gap - expected) / (m - expected))


def test_the_town_has_the_properties_that_its_law_gives_it():
    found = properties(*prepare("data/town", Config()))
    assert 0.5 < found["negative eigenvalues"] < 0.7  # the category changes at every step
    assert 0.2 < found["returns"] < 0.4
