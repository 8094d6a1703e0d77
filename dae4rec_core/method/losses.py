"""The losses as the paper prints them: graph reconstruction (Eq. 9), diffusion (Eq. 5), AIME (Eq. 10), both (Eq. 11).

Eq. 9 and 10 run over all |V| x |V| pairs of items and hold several matrices of that size here: they are for reading,
for toys, and for checking `pairwise.py`, which training uses.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gae_loss(z: Tensor, adjacency: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Reconstruction loss of Eq. 9 on logits x_ij = z_i . z_j.

    -1/|V| sum_i sum_j [ w A_ij log s(x_ij) + (1 - A_ij) log(1 - s(x_ij)) ]

    z: (|V|, d). adjacency: (|V|, |V|), dense or sparse, ones on the diagonal. pos_weight: w; 1 is the paper, zeros over
    ones makes both sides count the same (Kipf & Welling 2016). Divide by |V| to read it per pair. On a sparse graph it
    stays near log 2 for w = 1, however well the edges are ranked (notebook 02).
    """
    labels = adjacency.to_dense().to(z.dtype)
    weight = z.new_tensor(pos_weight)
    return F.binary_cross_entropy_with_logits(z @ z.T, labels, pos_weight=weight, reduction="sum") / len(z)


def aime_loss(e: Tensor, target: Tensor) -> Tensor:
    """Eq. 10, ||sigma(E'E) - S*||^2, normalised as a sum over columns and a mean over rows (our choice).

    e: (|V|, d) item embeddings. target: (|V|, |V|), S* = sigma(Z*'Z*), or A for -C_ground.
    """
    return (torch.sigmoid(e @ e.T) - target).square().sum() / len(e)


def total_loss(l_diff: Tensor, l_aime: Tensor, delta: float) -> Tensor:
    """Eq. 11: L = L_Diff + delta L_AIME. A scalar."""
    return l_diff + delta * l_aime


def diffusion_loss(e0: Tensor, prediction: Tensor, weight: Tensor) -> Tensor:
    """Eq. 5: mean over the batch of lambda_t ||e^0 - f(e^t, t, h)||^2, a sum over the d dimensions.

    e0, prediction: (B, d). weight: (B,) lambda_t of each example.
    """
    return (weight * (e0 - prediction).square().sum(-1)).mean()
