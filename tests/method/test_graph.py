"""The item graph, its counts and A~ (Eq. 6, 7), against networkx, numpy and loops."""

import networkx as nx
import numpy as np
import pytest
import torch

from dae4rec_core.method.graph import (
    ItemGraph,
    adjacency,
    normalized_adjacency,
    spmm,
    transition_counts,
    transition_graph,
    with_values,
)

EDGES = nx.gnp_random_graph(12, 0.25, seed=0).edges
GRAPH = ItemGraph(12, np.array(sorted(tuple(sorted(edge)) for edge in EDGES)))


def dense(graph: ItemGraph) -> np.ndarray:
    """A with ones on its diagonal, by networkx and numpy (float64)."""
    return nx.to_numpy_array(graph.to_networkx(), nodelist=range(graph.n_items)) + np.eye(graph.n_items)


# ---- Eq. 6 -------------------------------------------------------------------------------------


def test_transition_graph_by_hand():
    """Duplicates, reversed pairs and self-transitions count once or not at all; no edge skips."""
    sequences = [
        [0, 1, 2],  # 0-1, 1-2, but not 0-2
        np.array([2, 1]),  # the reverse of 1-2
        [0, 1, 0, 1],  # 0-1 again
        [3, 3, 3],  # itself: nothing
        [4],  # alone: nothing
        [],
        [5, 5, 2],  # 5-5 nothing, 2-5
    ]
    graph = transition_graph(sequences, 7)
    assert graph.n_items == 7
    assert graph.edges.tolist() == [[0, 1], [1, 2], [2, 5]]


@pytest.mark.parametrize("sequences", [[], [[0], [1]], [[2, 2]]])
def test_a_graph_without_transitions_has_only_its_diagonal(sequences):
    graph = transition_graph(sequences, 3)
    assert graph.edges.shape == (0, 2) and graph.edges.dtype == np.int64
    assert torch.equal(adjacency(graph).to_dense(), torch.eye(3))
    assert torch.equal(normalized_adjacency(graph).to_dense(), torch.eye(3))


def test_transition_graph_equals_a_set_of_pairs():
    """Random sequences against a Python set."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 15, size=rng.integers(0, 9)) for _ in range(30)]
    expected = {tuple(sorted((int(a), int(b)))) for s in sequences for a, b in zip(s, s[1:], strict=False) if a != b}
    graph = transition_graph(sequences, 15)
    assert [tuple(e) for e in graph.edges.tolist()] == sorted(expected)
    steps = [(int(a), int(b)) for s in sequences for a, b in zip(s, s[1:], strict=False)]
    counts = [[steps.count((a, b)) + steps.count((b, a)) for b in range(15)] for a in range(15)]
    assert graph.counts.toarray().tolist() == counts  # the diagonal too: each step from an item to itself twice


def test_to_networkx_keeps_items_without_edges():
    graph = transition_graph([[0, 1]], 4).to_networkx()
    assert sorted(graph.nodes) == [0, 1, 2, 3] and sorted(graph.edges) == [(0, 1)]


def test_adjacency_and_its_normalisation_equal_networkx_and_numpy():
    """D^-1/2 A D^-1/2 with D the row sums of A, the diagonal included (1e-6, float32)."""
    a = dense(GRAPH)
    np.testing.assert_array_equal(adjacency(GRAPH).to_dense(), a)
    scale = np.diag(a.sum(1) ** -0.5)
    np.testing.assert_allclose(normalized_adjacency(GRAPH).to_dense(), scale @ a @ scale, rtol=1e-6, atol=1e-7)


def test_sparse_products_equal_dense_ones():
    x = torch.randn(GRAPH.n_items, 5, generator=torch.Generator().manual_seed(3))
    a = normalized_adjacency(GRAPH)
    torch.testing.assert_close(spmm(a, x), a.to_dense() @ x, rtol=1e-5, atol=1e-6)
    doubled = with_values(a, 2 * a.values())
    torch.testing.assert_close(spmm(doubled, x), 2 * a.to_dense() @ x, rtol=1e-5, atol=1e-6)


# ---- what Eq. 6 forgets ------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("window", [1, 2, 7, 50])
def test_transition_counts_equal_loops_over_all_pairs(window, symmetric):
    """Every pair of places at most `window` apart counts 1 / distance, itself included; both ways if symmetric."""
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, 9, size=rng.integers(0, 12)) for _ in range(25)]
    expected = np.zeros((9, 9))
    for sequence in sequences:
        for i, earlier in enumerate(sequence):
            for j, later in enumerate(sequence):
                if 0 < j - i <= window:
                    expected[earlier, later] += 1 / (j - i)
                    if symmetric:
                        expected[later, earlier] += 1 / (j - i)
    counts = transition_counts(sequences, 9, window, symmetric)
    assert counts.dtype == np.float64 and counts.format == "csr"
    np.testing.assert_allclose(counts.toarray(), expected, rtol=1e-12)


def test_transition_counts_by_hand():
    counts = transition_counts([[0, 1, 0, 1], [2, 2], [3], []], 4)
    assert counts.toarray().tolist() == [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert transition_counts([[0, 1, 2]], 3, window=2).toarray().tolist() == [[0, 1, 0.5], [0, 0, 1], [0, 0, 0]]
    assert transition_counts([], 3, window=5, symmetric=True).nnz == 0


def test_the_graphs_edges_are_the_counted_steps():
    rng = np.random.default_rng(2)
    sequences = [rng.integers(0, 20, size=8) for _ in range(10)]
    counted = transition_counts(sequences, 20, symmetric=True).toarray() > 0
    np.fill_diagonal(counted, True)
    np.testing.assert_array_equal(adjacency(transition_graph(sequences, 20)).to_dense().bool(), counted)
