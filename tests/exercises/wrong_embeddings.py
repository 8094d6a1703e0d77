"""Wrong answers to the exercises of 02."""

import torch
import torch.nn.functional as F


def rows_only(A):
    """D^-1 A: the rows sum to 1."""
    return A / A.sum(1, keepdim=True)


def both_degrees_without_roots(A):
    degree = A.sum(1)
    return A / (degree[:, None] * degree[None, :])


def loops_counted_twice(A):
    degree = A.sum(1) + 1
    return A / (degree[:, None] * degree[None, :]).sqrt()


def loss(Z, edges, w, directions=2, loops=True, everywhere=True):
    x = Z @ Z.T
    at = x[edges[:, 0], edges[:, 1]].repeat(directions)
    if loops:
        at = torch.cat([at, x.diagonal()])
    rest = F.softplus(x).sum() - (F.softplus(at).sum() if everywhere else 0)
    return (rest + w * F.softplus(-at).sum()) / len(Z)


def one_direction(Z, edges, w):
    return loss(Z, edges, w, directions=1)


def without_the_diagonal(Z, edges, w):
    return loss(Z, edges, w, loops=False)


def edges_also_as_zeros(Z, edges, w):
    return loss(Z, edges, w, everywhere=False)


def weight_forgotten(Z, edges, w):
    return loss(Z, edges, 1.0)


def per_pair(Z, edges, w):
    return loss(Z, edges, w) / len(Z)


def overflowing(Z, edges, w):
    """log(1 + exp(x)) is infinite from x = 710 on."""
    x = Z @ Z.T
    at = torch.cat([x[edges[:, 0], edges[:, 1]].repeat(2), x.diagonal()])
    return (x.exp().log1p().sum() - at.exp().log1p().sum() + w * at.neg().exp().log1p().sum()) / len(Z)


def share_of_ones(s, w):
    return s


def always_one_half(s, w):
    return 0.5


def weight_on_the_zeros(s, w):
    return s / (s + w * (1 - s))


def largest(A, w):
    return torch.linalg.eigvalsh(1 - (1 + w) * A)[-1].item()


def zeros_forgotten(A, w):
    return torch.linalg.eigvalsh(-w * A)[0].item()


def printed_loss_only(A, w):
    return torch.linalg.eigvalsh(1 - 2 * A)[0].item()


def half(A, w):
    """The derivative by the logits, not by Z."""
    return torch.linalg.eigvalsh(1 - (1 + w) * A)[0].item() / 2


WRONG = {
    "check_normalize": (rows_only, both_degrees_without_roots, loops_counted_twice),
    "check_loss_from_edges": (
        one_direction,
        without_the_diagonal,
        edges_also_as_zeros,
        weight_forgotten,
        per_pair,
        overflowing,
    ),
    "check_laziest_answer": (share_of_ones, always_one_half, weight_on_the_zeros),
    "check_curvature": (largest, zeros_forgotten, printed_loss_only, half),
}
