"""The losses as printed (Eq. 5, 9, 10), against PyTorch Geometric, numbers by hand, and loops in float64."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.nn import GAE as GeometricGAE

from dae4rec_core.method.gae import balanced_pos_weight, similarity
from dae4rec_core.method.graph import ItemGraph, adjacency
from dae4rec_core.method.losses import aime_loss, diffusion_loss, gae_loss

EDGES = nx.gnp_random_graph(12, 0.25, seed=0).edges  # item pairs by the dozen: small enough for loops
GRAPH = ItemGraph(12, np.array(sorted(tuple(sorted(edge)) for edge in EDGES)))
A = adjacency(GRAPH).to_dense().double().numpy()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- Eq. 9 and 10 ------------------------------------------------------------------------------


def test_balanced_gae_loss_equals_pytorch_geometrics_recon_loss():
    """Theirs is mean(-log s) over ones + mean(-log(1-s)) over zeros.

    With w = zeros/ones ours is sum over both / |V| = zeros/|V| times theirs (relative 1e-5).
    """
    z = 0.5 * torch.randn(GRAPH.n_items, 4, generator=generator(1))
    a = torch.as_tensor(A)
    ones, zeros = a.nonzero().T, (1 - a).nonzero().T
    weight = balanced_pos_weight(GRAPH)
    assert weight == pytest.approx(zeros.shape[1] / ones.shape[1], rel=1e-12)
    theirs = GeometricGAE(torch.nn.Identity()).recon_loss(z, ones, zeros)
    ours = gae_loss(z, adjacency(GRAPH), weight)
    expected = theirs * zeros.shape[1] / GRAPH.n_items
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weight", [1.0, 4.1])
def test_gae_loss_equals_eq_9_by_loops(weight):
    """-1/|V| sum_i sum_j [w A log s + (1 - A) log(1 - s)], plain Python floats (1e-10)."""
    z = torch.randn(GRAPH.n_items, 3, generator=generator(2), dtype=torch.float64)
    a, n, total = A, GRAPH.n_items, 0.0
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
    to_a = sum((sigma(e, i, j) - A[i, j]) ** 2 for i in range(n) for j in range(n))  # the paper's -C_ground
    assert aime_loss(e, torch.as_tensor(A)).item() == pytest.approx(to_a / n, rel=1e-10)


def test_gradients_of_the_pair_losses_by_gradcheck():
    z_star = torch.randn(12, 3, generator=generator(6), dtype=torch.float64)
    x = torch.randn(12, 3, generator=generator(7), dtype=torch.float64, requires_grad=True)
    a, target = adjacency(GRAPH), similarity(z_star)
    assert torch.autograd.gradcheck(lambda z: gae_loss(z, a, 2.5), x)
    assert torch.autograd.gradcheck(lambda e: aime_loss(e, target), x)


# ---- Eq. 5 -------------------------------------------------------------------------------------


def test_diffusion_loss_by_hand():
    """Example 1: 1 + 4 = 5, weight 2. Example 2: 9 + 0 = 9, weight 0.5. Mean (10 + 4.5) / 2."""
    e0 = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    prediction = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert diffusion_loss(e0, prediction, torch.tensor([2.0, 0.5])).item() == 7.25


def test_gradients_of_the_diffusion_loss_by_gradcheck():
    e0, prediction = torch.randn(2, 4, 3, generator=generator(9), dtype=torch.float64)
    weight = torch.tensor([0.0, 1.0, 2.5, 5.0], dtype=torch.float64)
    inputs = e0.requires_grad_(), prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: diffusion_loss(a, b, weight), inputs)
