"""The item-item transition graph of the training part (Eq. 6)."""

import warnings
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dae4rec_core.data import PAD, Dataset, Split


@dataclass(frozen=True)
class ItemGraph:
    """Undirected graph over items; each edge counted once, no self-loops stored (A's diagonal is set to 1 later).

    n_items: |V|. edges: (|E|, 2) integers, i < j, unique, sorted.
    """

    n_items: int
    edges: np.ndarray

    def to_networkx(self) -> nx.Graph:
        graph = nx.Graph()
        graph.add_nodes_from(range(self.n_items))
        graph.add_edges_from(self.edges.tolist())
        return graph


def transition_graph(sequences: list, n_items: int) -> ItemGraph:
    """Eq. 6: an edge between any two items adjacent in any sequence, duplicates once.

    sequences: lists or arrays of item indices in 0..n_items-1. An item followed by itself adds nothing, because the
    diagonal of A is 1 anyway.
    """
    pairs = [np.stack([np.asarray(s)[:-1], np.asarray(s)[1:]], axis=1) for s in sequences if len(s) > 1]
    pairs = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return ItemGraph(n_items, np.unique(pairs, axis=0).reshape(-1, 2))


def training_graph(dataset: Dataset, split: Split) -> ItemGraph:
    """The transition graph of the training interactions only: validation and test transitions would leak the answer."""
    return transition_graph(split.training_sequences(dataset), dataset.n_items)


def neighbours(counts: sparse.csr_matrix, history: Tensor) -> tuple[Tensor, Tensor]:
    """Items next to the newest three of each history, and log(1 + c): beyond the paper, which forgets how often.

    c = sum_k counts[v_k] / k over the newest three items v_1, v_2, v_3. counts: (|V|, |V|); history: (B, L), PAD on the
    left. Returns items and weights, two (B, M), filled with PAD and 0.
    """
    total = sparse.csr_matrix((len(history), counts.shape[1]))
    for k in range(1, min(3, history.shape[1]) + 1):
        items = history[:, -k].numpy()
        total = total + sparse.diags((items >= 0) / k) @ counts[items.clip(min=0)]
    total = total.tocsr()
    total.eliminate_zeros()
    filled = np.arange(max(1, int(np.diff(total.indptr).max()))) < np.diff(total.indptr)[:, None]  # (B, M)
    items, weights = np.full(filled.shape, PAD), np.zeros(filled.shape, dtype=np.float32)
    items[filled], weights[filled] = total.indices, np.log1p(total.data)
    return torch.from_numpy(items), torch.from_numpy(weights)


def adjacency(graph: ItemGraph) -> Tensor:
    """A with ones on its diagonal (the paper's convention below Eq. 6): sparse CSR, (|V|, |V|), float32."""
    e = torch.as_tensor(graph.edges, dtype=torch.long)
    loops = torch.arange(graph.n_items)
    index = torch.cat([e.T, e.T.flip(0), torch.stack([loops, loops])], dim=1)  # (2, 2|E| + |V|)
    a = torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), (graph.n_items,) * 2, check_invariants=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return a.coalesce().to_sparse_csr()


def normalized_adjacency(graph: ItemGraph) -> Tensor:
    """D^-1/2 A D^-1/2 with D_ii = sum_j A_ij (Eq. 7): sparse CSR, (|V|, |V|), float32."""
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
