"""The item graph, the graph auto-encoder and the pair losses, against PyTorch Geometric and loops.

Float32 comparisons allow a relative 1e-5, float64 ones 1e-10.
"""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.nn import GAE as GeometricGAE
from torch_geometric.nn import GCNConv

from dae4rec_core.config import Config
from dae4rec_core.gae import GAE, balanced_pos_weight, edge_auc, pretrain_gae, similarity
from dae4rec_core.graph import ItemGraph, adjacency, normalized_adjacency, transition_graph
from dae4rec_core.losses import aime_loss, gae_loss


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(n: int, share: float, seed: int = 0) -> ItemGraph:
    """A random graph made by networkx."""
    edges = nx.gnp_random_graph(n, share, seed=seed).edges
    return ItemGraph(n, np.array(sorted(tuple(sorted(edge)) for edge in edges)).reshape(-1, 2))


def dense(graph: ItemGraph) -> np.ndarray:
    """A with ones on its diagonal, by networkx and numpy (float64)."""
    return nx.to_numpy_array(graph.to_networkx(), nodelist=range(graph.n_items)) + np.eye(graph.n_items)


GRAPH = random_graph(12, 0.25)  # item pairs by the dozen: small enough for loops


# ---- the graph, Eq. 6 --------------------------------------------------------------------------


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
    assert graph.edges.shape == (0, 2)
    assert torch.equal(adjacency(graph).to_dense(), torch.eye(3))
    assert torch.equal(normalized_adjacency(graph).to_dense(), torch.eye(3))


def test_transition_graph_equals_a_set_of_pairs():
    """Random sequences against a Python set."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 15, size=rng.integers(0, 9)) for _ in range(30)]
    expected = {tuple(sorted((int(a), int(b)))) for s in sequences for a, b in zip(s, s[1:], strict=False) if a != b}
    assert [tuple(e) for e in transition_graph(sequences, 15).edges.tolist()] == sorted(expected)


def test_to_networkx_keeps_items_without_edges():
    graph = transition_graph([[0, 1]], 4).to_networkx()
    assert sorted(graph.nodes) == [0, 1, 2, 3] and sorted(graph.edges) == [(0, 1)]


def test_adjacency_and_its_normalisation_equal_networkx_and_numpy():
    """D^-1/2 A D^-1/2 with D the row sums of A, the diagonal included (1e-6, float32)."""
    a = dense(GRAPH)
    np.testing.assert_array_equal(adjacency(GRAPH).to_dense(), a)
    scale = np.diag(a.sum(1) ** -0.5)
    np.testing.assert_allclose(normalized_adjacency(GRAPH).to_dense(), scale @ a @ scale, rtol=1e-6, atol=1e-7)


# ---- the encoder, Eq. 7 and 8 ------------------------------------------------------------------


def test_encode_equals_two_gcn_layers_of_pytorch_geometric():
    """Same weights, node features = identity, self-loops added by them (1e-5)."""
    torch.manual_seed(0)
    gae = GAE(GRAPH.n_items, 7, 5)
    first = GCNConv(GRAPH.n_items, 7, bias=False, add_self_loops=True)
    second = GCNConv(7, 5, bias=False, add_self_loops=True)
    with torch.no_grad():
        first.lin.weight.copy_(gae.w0.T)
        second.lin.weight.copy_(gae.w1.T)
    edges = torch.as_tensor(GRAPH.edges.T)
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    theirs = second(first(torch.eye(GRAPH.n_items), edges).relu(), edges)
    ours = gae.encode(normalized_adjacency(GRAPH))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.abs().max() > 0.01
    ours.square().sum().backward()
    w0 = gae.w0.grad
    theirs.square().sum().backward()
    torch.testing.assert_close(w0, first.lin.weight.grad.T, rtol=1e-4, atol=1e-6)


def test_similarity_equals_the_inner_product_decoder():
    z = torch.randn(12, 4, generator=generator(0))
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    theirs = GeometricGAE(torch.nn.Identity()).decode(z, pairs).reshape(12, 12)
    torch.testing.assert_close(similarity(z), theirs, rtol=1e-5, atol=1e-6)
    rows = torch.tensor([7, 0])
    torch.testing.assert_close(similarity(z, rows), theirs[rows], rtol=1e-5, atol=1e-6)


# ---- the losses, Eq. 9 and 10 ------------------------------------------------------------------


def test_balanced_gae_loss_equals_pytorch_geometrics_recon_loss():
    """Theirs is mean(-log s) over ones + mean(-log(1-s)) over zeros.

    With w = zeros/ones ours is sum over both / |V| = zeros/|V| times theirs (relative 1e-5).
    """
    z = 0.5 * torch.randn(GRAPH.n_items, 4, generator=generator(1))
    a = torch.as_tensor(dense(GRAPH))
    ones, zeros = a.nonzero().T, (1 - a).nonzero().T
    weight = balanced_pos_weight(GRAPH)
    assert weight == pytest.approx(zeros.shape[1] / ones.shape[1], rel=1e-12)
    theirs = GeometricGAE(torch.nn.Identity()).recon_loss(z, ones, zeros)
    ours = gae_loss(z, adjacency(GRAPH), weight)
    expected = theirs * zeros.shape[1] / GRAPH.n_items
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_gae_loss_equals_eq_9_by_loops(weight):
    """-1/|V| sum_i sum_j [w A log s + (1 - A) log(1 - s)], plain Python floats (1e-10)."""
    z = torch.randn(GRAPH.n_items, 3, generator=generator(2), dtype=torch.float64)
    a, n, total = dense(GRAPH), GRAPH.n_items, 0.0
    for i in range(n):
        for j in range(n):
            s = 1 / (1 + math.exp(-sum(float(x) * float(y) for x, y in zip(z[i], z[j], strict=False))))
            total -= weight * a[i, j] * math.log(s) + (1 - a[i, j]) * math.log(1 - s)
    ours = gae_loss(z, adjacency(GRAPH), weight)
    assert ours.item() == pytest.approx(total / n, rel=1e-10)


def test_aime_loss_equals_eq_10_by_loops():
    """Sum over columns and mean over rows of the squared difference (1e-10)."""
    n = GRAPH.n_items
    e, z = torch.randn(2, n, 3, generator=generator(3), dtype=torch.float64)

    def sigma(x, i, j):
        return 1 / (1 + math.exp(-sum(float(a) * float(b) for a, b in zip(x[i], x[j], strict=False))))

    total = sum((sigma(e, i, j) - sigma(z, i, j)) ** 2 for i in range(n) for j in range(n))
    assert aime_loss(e, similarity(z)).item() == pytest.approx(total / n, rel=1e-10)
    assert aime_loss(z, similarity(z)) == 0


def test_gradients_of_both_losses_by_gradcheck():
    z_star = torch.randn(12, 3, generator=generator(6), dtype=torch.float64)
    x = torch.randn(12, 3, generator=generator(7), dtype=torch.float64, requires_grad=True)
    a, target = adjacency(GRAPH), similarity(z_star)
    assert torch.autograd.gradcheck(lambda z: gae_loss(z, a, 2.5), x)
    assert torch.autograd.gradcheck(lambda e: aime_loss(e, target), x)


# ---- pretraining -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse_graph():
    return random_graph(300, 0.01)


def trained(graph, pos_weight, steps=150, budget=0, callbacks=()):
    config = Config(dim=16, hidden=32, pos_weight=pos_weight, gae_steps=steps, gae_pairs=budget, seed=1)
    return pretrain_gae(graph, config, callbacks=callbacks)


def edge_similarity(z, graph):
    return similarity(z)[graph.edges[:, 0], graph.edges[:, 1]].mean().item()


def test_the_plain_loss_hardly_leaves_log_2_and_the_balanced_one_learns_the_edges(sparse_graph):
    """Eq. 9 to the letter stays within 2% of log 2 a pair; pos_weight parts edges from the rest.

    Seen here: 99.7% of log 2; edges' mean similarity 0.55 and 0.96; AUC 0.91 and 0.999.
    """
    collapsed, balanced = trained(sparse_graph, 1.0), trained(sparse_graph, 0.0)
    per_pair = gae_loss(collapsed, adjacency(sparse_graph)).item() / 300
    assert 0.98 * math.log(2) < per_pair < math.log(2)
    assert similarity(collapsed).mean().item() == pytest.approx(0.5, abs=0.01)
    assert edge_similarity(balanced, sparse_graph) > 0.8
    gap = edge_similarity(balanced, sparse_graph) - edge_similarity(collapsed, sparse_graph)
    assert gap > 0.15
    assert collapsed.norm(dim=1).mean() < 0.6 * balanced.norm(dim=1).mean()
    assert edge_auc(balanced, sparse_graph, generator(0)) > 0.8


def test_pretraining_on_random_pairs_learns_as_well_and_reports_its_steps(sparse_graph):
    events = []
    z = trained(sparse_graph, 0.0, budget=60 * 60, callbacks=[events.append])
    assert edge_auc(z, sparse_graph, generator(0)) > 0.8
    assert z.shape == (300, 16) and not z.requires_grad
    assert len(events) == 150


def test_pretraining_repeats_exactly_with_the_same_seed():
    first, second = (trained(GRAPH, 0.0, steps=5, budget=36) for _ in range(2))
    assert torch.equal(first, second)


# ---- edge AUC ----------------------------------------------------------------------------------


def brute_force_auc(z, graph):
    """Share of (edge, non-edge) pairs in which the edge scores higher, ties a half."""
    z, a = z.double().numpy(), dense(graph)
    scores, upper = z @ z.T, np.triu(np.ones_like(a), 1).astype(bool)
    above, below = scores[upper & (a == 1)], scores[upper & (a == 0)]
    difference = above[:, None] - below[None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_edge_auc_equals_brute_force_over_all_pairs(seed):
    """20,000 draws: within 5 standard errors, each at most 0.5/sqrt(20,000) for either side."""
    graph = random_graph(40, 0.1, seed)
    z = torch.randn(40, 4, generator=generator(seed))
    z = z + 0.5 * torch.as_tensor(dense(graph), dtype=torch.float32) @ z  # edges pull together
    expected = brute_force_auc(z, graph)
    assert 0.55 < expected < 0.99
    error = math.sqrt(2) * 0.5 / math.sqrt(20_000 * 0.8)  # about 10% of non-edges are dropped
    assert abs(edge_auc(z, graph, generator(seed)) - expected) < 5 * error


def test_edge_auc_counts_ties_as_a_half():
    """A collapsed Z must look blind, not perfect."""
    assert edge_auc(torch.zeros(12, 4), GRAPH, generator(0)) == 0.5
