"""Draws of e^0 as a distribution over items: how likely is each item, according to many chains for one history.

A draw is a point among the items' vectors, not an item. It stands for the items near it:

    p(v | e^0) = softmax_v( (s_v - |e_v|^2 / 2) / w^2 ),   s_v the score of item v for this draw

s_v comes from `model.assignment`. For the paper's model s_v = e^0 . e_v, so this is a Gaussian kernel of width w around
the draw; w = 0 is its nearest item. On the sphere all |e_v| are 1, and for the MLP without neighbours w = 1 is the
softmax that the ranking term trains. p(v | history) is the mean over draws.
"""

import math
import numbers

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dae4rec_core.method.model import DAE4Rec, scores

CELLS = 2**22  # scores held at once: 16 MB
NARROW, WIDE = 1e-9, 1e9  # below, the softmax has no second item left and would overflow; above, all items are alike


def check_width(width: float) -> None:
    """Raises ValueError for a width that is no number from 0 to WIDE."""
    if isinstance(width, bool) or not isinstance(width, numbers.Real) or not 0 <= width <= WIDE:  # "not" refuses NaN
        raise ValueError(f"width is {width!r}; give 0 (the nearest item) or a number above 0, up to {WIDE:g}.")


@torch.no_grad()
def probabilities(model: DAE4Rec, history: Tensor, e_0: Tensor, width: float) -> Tensor:
    """p(v | history) of the formula above, the mean over draws e_0 (B, N, d): (B, |V|) in float64, rows sum to 1.

    width: w in the unit of the items' vectors; 0 counts the nearest item of each draw, and so does one below NARROW.
    Raises ValueError for a width that is no number from 0 to WIDE.
    """
    check_width(width)
    items, history = model.item_vectors(), history.to(model.device)
    half = items.square().sum(1) / 2  # (|V|,)
    h = model.condition(history)  # (B, d)
    found = torch.zeros(len(history), len(items), dtype=torch.float64, device=items.device)
    for user in range(len(history)):
        for part in e_0[user].split(max(1, CELLS // len(items))):
            one = history[user].expand(len(part), -1), h[user].expand(len(part), -1)
            logits = scores(model.assignment(part, *one), items) - half  # (N, |V|)
            if width < NARROW:
                found[user] += torch.bincount(logits.argmax(1), minlength=len(items))
            else:
                found[user] += (logits / width**2).softmax(1).sum(0, dtype=torch.float64)
    return found / e_0.shape[1]


def fit_width(
    model: DAE4Rec, history: Tensor, e_0: Tensor, target: Tensor, low: float = 0.02, high: float = 10.0
) -> float:
    """The width in low..high at which validation answers (B,) are likeliest: minimises -mean log p(target | history).

    history: (B, L); e_0: (B, N, d), see `Recommender.draw`. scipy's bounded search, to 2% of the width.
    """
    rows = torch.arange(len(target))

    def loss(log_width: float) -> float:
        p = probabilities(model, history, e_0, math.exp(log_width))
        return -p[rows, target.to(p.device)].clamp(min=1e-12).log().mean().item()

    bounds = (math.log(low), math.log(high))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02}).x)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """1/2 sum_v |p_v - q_v| of each row, from 0 (equal) to 1 (nothing in common): (B, |V|) twice -> (B,)."""
    return (p - q).abs().sum(1) / 2


def entropy(p: Tensor) -> Tensor:
    """-sum_v p_v log2 p_v of each row, in bits: (B, |V|) -> (B,)."""
    return torch.special.entr(p).sum(1) / math.log(2)
