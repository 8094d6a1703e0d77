"""The graph auto-encoder (Eq. 7, 8) and its pretraining, against PyTorch Geometric and scikit-learn."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch_geometric.nn import GAE as GeometricGAE
from torch_geometric.nn import GCNConv

from dae4rec_core.config import Config
from dae4rec_core.method.gae import GAE, balanced_pos_weight, pretrain_gae, propagate, similarity
from dae4rec_core.method.graph import ItemGraph, adjacency, normalized_adjacency, transition_graph
from dae4rec_core.method.losses import gae_loss
from dae4rec_core.streams import weights_from


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(n: int, share: float, seed: int = 0) -> ItemGraph:
    """A random graph made by networkx."""
    edges = nx.gnp_random_graph(n, share, seed=seed).edges
    return ItemGraph(n, np.array(sorted(tuple(sorted(edge)) for edge in edges)).reshape(-1, 2))


GRAPH = random_graph(12, 0.25)


# ---- the encoder, Eq. 7 and 8 ------------------------------------------------------------------


def test_forward_equals_two_gcn_layers_of_pytorch_geometric():
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
    ours = gae(normalized_adjacency(GRAPH))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.abs().max() > 0.01
    ours.square().sum().backward()
    w0 = gae.w0.grad
    theirs.square().sum().backward()
    torch.testing.assert_close(w0, first.lin.weight.grad.T, rtol=1e-4, atol=1e-6)


def test_the_first_weights_are_normal_with_deviations_1_and_a_tenth():
    """Kolmogorov and Smirnov's distance, at most 1.95 / sqrt(n): one in a thousand normal draws lies further off."""
    torch.manual_seed(0)
    gae = GAE(200, 100, 80)
    for weights, deviation in ((gae.w0, 1.0), (gae.w1, 0.1)):
        draws = weights.detach().flatten().numpy()
        assert stats.kstest(draws, "norm", (0, deviation)).statistic < 1.95 / math.sqrt(len(draws))


def test_similarity_equals_the_inner_product_decoder():
    z = torch.randn(12, 4, generator=generator(0))
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    theirs = GeometricGAE(torch.nn.Identity()).decode(z, pairs).reshape(12, 12)
    torch.testing.assert_close(similarity(z), theirs, rtol=1e-5, atol=1e-6)
    rows = torch.tensor([7, 0])
    torch.testing.assert_close(similarity(z, rows), theirs[rows], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_round_of_averaging_by_gradcheck():
    a_norm = normalized_adjacency(GRAPH).double()
    x = torch.randn(GRAPH.n_items, 3, generator=generator(4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(a_norm, x), x)


# ---- pretraining -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse_graph():
    return random_graph(300, 0.01)


def trained(graph, pos_weight, steps=150, pairs=None, callbacks=(), seed=1):
    changes = {"dim": 16, "hidden": 32, "gae_steps": steps, "pos_weight": pos_weight, "gae_pairs": pairs, "seed": seed}
    return pretrain_gae(graph, Config().replace(**changes), callbacks=callbacks)


def edge_similarity(z, graph):
    return similarity(z)[graph.edges[:, 0], graph.edges[:, 1]].mean().item()


def edge_auc(z, graph):
    """Area under the ROC curve of z_i . z_j over all pairs i < j, edges against the rest."""
    rows, columns = np.triu_indices(graph.n_items, 1)
    labels = adjacency(graph).to_dense().numpy()[rows, columns]
    return roc_auc_score(labels, (z @ z.T).numpy()[rows, columns])


def test_the_plain_loss_hardly_leaves_log_2_and_the_balanced_one_learns_the_edges(sparse_graph):
    """Eq. 9 to the letter stays within 2% of log 2 a pair; pos_weight parts edges from the rest.

    Seen here: 99.7% of log 2; edges' mean similarity 0.55 and 0.96; AUC 0.91 and 0.999.
    """
    collapsed, balanced = trained(sparse_graph, 1.0), trained(sparse_graph, None)
    per_pair = gae_loss(collapsed, adjacency(sparse_graph)).item() / 300
    assert 0.98 * math.log(2) < per_pair < math.log(2)
    assert similarity(collapsed).mean().item() == pytest.approx(0.5, abs=0.01)
    assert edge_similarity(balanced, sparse_graph) > 0.8
    gap = edge_similarity(balanced, sparse_graph) - edge_similarity(collapsed, sparse_graph)
    assert gap > 0.15
    assert collapsed.norm(dim=1).mean() < 0.6 * balanced.norm(dim=1).mean()
    assert edge_auc(balanced, sparse_graph) > 0.99


def test_a_graph_that_joins_everything_keeps_a_weight():
    everything = transition_graph([[0, 1, 2, 0]], 3)
    assert 0 < balanced_pos_weight(everything) == pytest.approx(1 / 9)


def test_pretraining_on_random_pairs_learns_as_well(sparse_graph):
    z = trained(sparse_graph, None, pairs=60 * 60)
    assert edge_auc(z, sparse_graph) > 0.95
    assert z.shape == (300, 16) and not z.requires_grad


@pytest.mark.parametrize("pos_weight", [1.0, None])
def test_pretraining_is_adam_on_the_dense_loss(pos_weight):
    """Twenty steps by PyTorch's own loss over the whole matrix, from the same first weights (1e-3: Adam divides)."""
    with weights_from(1, "W_0"):
        gae = GAE(GRAPH.n_items, 32, 16)
    a, a_norm = adjacency(GRAPH).to_dense(), normalized_adjacency(GRAPH).to_dense()
    weight = (a == 0).sum() / a.sum() if pos_weight is None else torch.tensor(pos_weight)
    optimizer = torch.optim.Adam(gae.parameters(), lr=Config().gae.lr)

    def encode():
        return a_norm @ (a_norm @ gae.w0).relu() @ gae.w1

    for _ in range(20):
        optimizer.zero_grad()
        z = encode()
        each = F.binary_cross_entropy_with_logits(z @ z.T, a, pos_weight=weight, reduction="none")
        (each.sum() / len(z)).backward()
        optimizer.step()
    torch.testing.assert_close(trained(GRAPH, pos_weight, steps=20), encode().detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps, reports", [(5, 5), (150, 150), (200, 100), (250, 125), (251, 126)])
def test_pretraining_reports_about_a_hundred_times_and_always_its_last_step(steps, reports):
    events = []
    z = trained(GRAPH, None, steps, callbacks=[events.append])
    assert len(events) == reports and events[-1].step == events[-1].total == steps
    assert {event.stage for event in events} == {"gae"}
    found = gae_loss(z, adjacency(GRAPH), balanced_pos_weight(GRAPH)).item() / GRAPH.n_items  # one step later
    assert events[-1].metrics["loss per pair"] == pytest.approx(found, rel=0.2)


def test_pretraining_repeats_exactly_with_the_same_seed():
    first, second, other = (trained(GRAPH, None, steps=5, pairs=36, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
