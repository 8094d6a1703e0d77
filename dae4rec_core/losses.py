"""The losses: graph reconstruction (Eq. 9), diffusion (Eq. 5) and AIME (Eq. 10).

Eq. 9 and 10 run over all |V| x |V| pairs of items. Both are written as a mean over rows i of a sum over columns j, so a
random subset of rows gives an unbiased estimate of value and gradient at a fraction of the cost; `rows` picks them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_rows(n_items: int, count: int, generator: torch.Generator, device) -> Tensor:
    """`count` distinct item indices, uniformly; all of them when count is 0 or reaches |V|. (m,)"""
    if count == 0 or count >= n_items:
        return torch.arange(n_items, device=device)
    return torch.randperm(n_items, generator=generator)[:count].to(device)


def sparse_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Dense copy of some rows of a coalesced sparse COO matrix: (m,) -> (m, |V|)."""
    return matrix.index_select(0, rows).to_dense()


def gae_loss(z: Tensor, adjacency: Tensor, rows: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Reconstruction loss of Eq. 9 on logits x_ij = z_i . z_j, exact over `rows` and all columns.

    -1/|V| sum_i sum_j [ w A_ij log s(x_ij) + (1 - A_ij) log(1 - s(x_ij)) ]

    z: (|V|, d). adjacency: (|V|, |V|) sparse, ones on the diagonal. pos_weight: w; 1 is the paper, zeros over
    ones is Kipf's cure for the collapse. Divide by |V| to read it per pair: log 2 means nothing was learned.
    """
    logits = z[rows] @ z.T  # (m, |V|)
    labels = sparse_rows(adjacency, rows)
    weight = torch.as_tensor(pos_weight, dtype=z.dtype, device=z.device)
    return F.binary_cross_entropy_with_logits(logits, labels.to(z.dtype), pos_weight=weight, reduction="sum") / len(
        rows
    )


def aime_loss(e: Tensor, target_rows: Tensor, rows: Tensor) -> Tensor:
    """Eq. 10, ||sigma(E'E) - S*||^2, normalised as a sum over columns and a mean over rows (our choice).

    e: (|V|, d) item embeddings. target_rows: (m, |V|) the rows of S* = sigma(Z*'Z*), or of A for -C_ground.
    rows: (m,) their indices.
    """
    return (torch.sigmoid(e[rows] @ e.T) - target_rows).square().sum() / len(rows)


def diffusion_loss(e0: Tensor, prediction: Tensor, weight: Tensor) -> Tensor:
    """Eq. 5: mean over the batch of lambda_t ||e^0 - f(e^t, t, h)||^2, a sum over the d dimensions.

    e0, prediction: (B, d). weight: (B,) lambda_t of each example.
    """
    return (weight * (e0 - prediction).square().sum(-1)).mean()
