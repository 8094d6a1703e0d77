"""The item transition graph (Eq. 6), how often each step was taken, and A~ (Eq. 7)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import torch
from scipy import sparse
from torch import Tensor


@dataclass(frozen=True)
class ItemGraph:
    """Undirected graph over items; each edge counted once, no self-loops stored (A's diagonal is set to 1 later).

    n_items: |V|. edges: (|E|, 2) integers, i < j, unique, sorted. counts: (|V|, |V|) symmetric, how often each step was
    taken, where that is known; the paper's graph forgets it, `beyond` doesn't.
    """

    n_items: int
    edges: np.ndarray
    counts: sparse.csr_matrix | None = field(default=None, repr=False)

    def to_networkx(self) -> nx.Graph:
        graph: nx.Graph = nx.Graph()
        graph.add_nodes_from(range(self.n_items))
        graph.add_edges_from(self.edges.tolist())
        return graph


def transition_graph(sequences: Sequence, n_items: int) -> ItemGraph:
    """Eq. 6: an edge between any two items adjacent in any sequence, duplicates once.

    sequences: lists or arrays of item indices in 0..n_items-1. An item followed by itself adds nothing, because the
    diagonal of A is 1 anyway.
    """
    pairs = steps_of(sequences, 1)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    counts = transition_counts(sequences, n_items, symmetric=True)
    return ItemGraph(n_items, np.unique(pairs, axis=0).reshape(-1, 2), counts)


def transition_counts(sequences: Sequence, n_items: int, window: int = 1, symmetric: bool = False) -> sparse.csr_matrix:
    """How often b came at most `window` steps after a, each time weighted by 1 / distance: (|V|, |V|), float64.

    window = 1 counts what Eq. 6 forgets: how often each step was taken. symmetric: adds the other direction, as the
    paper's graph has none.
    """
    counts = sparse.csr_matrix((n_items, n_items))
    for distance in range(1, window + 1):
        pairs = steps_of(sequences, distance)
        weight = np.full(len(pairs), 1 / distance)
        counts = counts + sparse.csr_matrix((weight, (pairs[:, 0], pairs[:, 1])), shape=counts.shape)
    return (counts + counts.T).tocsr() if symmetric else counts.tocsr()


def steps_of(sequences: Sequence, distance: int) -> np.ndarray:
    """All pairs (item, item `distance` places later), in order: (N, 2)."""
    if not len(sequences):
        return np.empty((0, 2), dtype=np.int64)
    items = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences])
    owner = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
    together = owner[distance:] == owner[:-distance]
    return np.stack([items[:-distance][together], items[distance:][together]], axis=1)


def adjacency(graph: ItemGraph) -> Tensor:
    """A with ones on its diagonal (the paper's convention below Eq. 6): sparse CSR, (|V|, |V|), float32."""
    e = torch.as_tensor(graph.edges, dtype=torch.long)
    loops = torch.arange(graph.n_items)
    index = torch.cat([e.T, e.T.flip(0), torch.stack([loops, loops])], dim=1)  # (2, 2|E| + |V|)
    a = torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), (graph.n_items,) * 2, check_invariants=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return a.coalesce().to_sparse_csr()


def csr_tensor(matrix: sparse.csr_matrix) -> Tensor:
    """A SciPy matrix as a torch one: sparse CSR, float32."""
    rows, columns = torch.from_numpy(matrix.indptr).long(), torch.from_numpy(matrix.indices).long()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            rows, columns, torch.from_numpy(matrix.data).float(), matrix.shape, check_invariants=True
        )


def normalized_adjacency(graph: ItemGraph) -> Tensor:
    """A~ = D^-1/2 A D^-1/2 with D_ii = sum_j A_ij (Eq. 7): sparse CSR, (|V|, |V|), float32."""
    a = adjacency(graph)
    degree = a.crow_indices().diff()  # A holds ones only
    scale = degree.float().rsqrt()
    return with_values(a, scale.repeat_interleave(degree) * scale[a.col_indices()])


def with_values(matrix: Tensor, values: Tensor) -> Tensor:
    """A CSR matrix with the same pattern and other values."""
    return torch.sparse_csr_tensor(
        matrix.crow_indices(), matrix.col_indices(), values, matrix.shape, check_invariants=False
    )


def spmm(matrix: Tensor, dense: Tensor) -> Tensor:
    """Sparse CSR (n, n) times dense (n, d), without a gradient by the matrix."""
    # the form with "sum" has a native kernel on every CPU; plain @ needs MKL there
    return matrix @ dense if dense.is_cuda else torch.sparse.mm(matrix, dense, "sum")
