"""Checkers of 02: the normalised adjacency, Eq. 9 from a list of edges, the laziest answer, the saddle at Z = 0."""

import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_curvature", "check_laziest_answer", "check_loss_from_edges", "check_normalize"]


def toys() -> list[nx.Graph]:
    """Small graphs: a path, a star, no edge at all, all edges, and three at random."""
    random = [nx.gnp_random_graph(n, share, seed=n) for n, share in ((6, 0.5), (7, 0.3), (9, 0.6))]
    return [nx.path_graph(4), nx.star_graph(4), nx.empty_graph(3), nx.complete_graph(4), *random]


def matrix(graph: nx.Graph, diagonal: float = 1.0) -> np.ndarray:
    """A, (|V|, |V|) float64."""
    return nx.to_numpy_array(graph) + diagonal * np.eye(len(graph))


def number(value: object) -> float:
    """A learner's answer as a float, where it is one number."""
    assert isinstance(value, int | float | np.generic) or (isinstance(value, Tensor) and value.numel() == 1), (
        "return one number."
    )
    return float(value)


@checker
def check_normalize(normalize: Answer) -> None:
    for graph in toys():
        a = matrix(graph)
        found = normalize(torch.from_numpy(a).float())
        assert isinstance(found, Tensor) and found.shape == a.shape, "return a torch tensor of the shape of A."
        roots = np.diag(a.sum(1) ** -0.5)
        expected = roots @ a @ roots
        i, j = np.unravel_index(np.abs(found.numpy() - expected).argmax(), a.shape)
        assert abs(found[i, j].item() - expected[i, j]) < 1e-5, (
            f"with A = {a.astype(int).tolist()} the entry ({i}, {j}) becomes {expected[i, j]:.4f}, "
            f"you have {found[i, j]:.4f}."
        )


@checker
def check_loss_from_edges(loss_from_edges: Answer) -> None:
    for seed, graph in enumerate(toys()):
        edges = torch.tensor(sorted(sorted(edge) for edge in graph.edges), dtype=torch.long).reshape(-1, 2)
        a = torch.from_numpy(matrix(graph))
        for weight, scale in ((1.0, 1.0), (7.5, 0.3), (3.0, 30.0)):
            z = scale * torch.randn(len(a), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            pos_weight = torch.tensor(weight, dtype=torch.float64)
            expected = F.binary_cross_entropy_with_logits(z @ z.T, a, pos_weight=pos_weight, reduction="sum") / len(a)
            found = number(loss_from_edges(z, edges, weight))
            assert abs(found - expected.item()) < 1e-6 * max(1.0, expected.item()), (
                f"with {len(a)} items, the edges {edges.tolist()} and w = {weight:g}, Eq. 9 is {expected:.4f} for some "
                f"random Z, you have {found:.4f}."
            )


@checker
def check_laziest_answer(laziest_answer: Answer) -> None:
    p = torch.linspace(0.0005, 0.9995, 1999, dtype=torch.float64)
    for share, weight in ((0.01, 1.0), (0.2, 3.0), (0.05, 19.0), (0.6, 0.5), (0.9, 2.0)):
        loss = -(weight * share * p.log() + (1 - share) * (1 - p).log())
        best = p[loss.argmin()].item()
        found = number(laziest_answer(share, weight))
        assert abs(found - best) < 1e-3, (
            f"for s = {share} and w = {weight:g} the smallest loss lies at p = {best:.3f}, you have {found:.3f}."
        )


@checker
def check_curvature(curvature: Answer) -> None:
    for graph in toys():
        for diagonal in (1.0, 0.0):
            a = torch.from_numpy(matrix(graph, diagonal))
            for weight in (0.1, 1.0, 20.0):
                # one number an item: PyTorch's second derivatives of |V| times Eq. 9 at Z = 0
                def loss(z: Tensor, a: Tensor = a, w: float = weight) -> Tensor:
                    pos_weight = torch.tensor(w, dtype=torch.float64)
                    x = torch.outer(z, z)
                    return F.binary_cross_entropy_with_logits(x, a, pos_weight=pos_weight, reduction="sum")

                hessian = torch.autograd.functional.hessian(loss, torch.zeros(len(a), dtype=torch.float64))
                expected = np.linalg.eigvalsh(hessian.numpy()).min()
                found = number(curvature(a.clone(), weight))
                assert abs(found - expected) < 1e-4 * max(1.0, abs(expected)), (
                    f"with A = {a.int().tolist()} and w = {weight:g} the smallest second derivative is "
                    f"{expected:.3f}, you have {found:.3f}."
                )
