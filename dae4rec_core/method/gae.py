"""Graph auto-encoder (Eq. 7-9): two GCN layers over the item graph, an inner-product decoder, pretrained and frozen."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.events import KEEPS_NOTHING, Callback, Event, Keeper, report
from dae4rec_core.method.graph import ItemGraph, adjacency, normalized_adjacency, spmm
from dae4rec_core.method.pairwise import reconstruction_loss
from dae4rec_core.streams import stream, weights_from


class GAE(nn.Module):
    """Z = A~ ReLU(A~ W_0) W_1 (Eq. 7). There are no node features, so W_0 (|V| x hidden) is itself a table."""

    def __init__(self, n_items: int, hidden: int, dim: int):
        super().__init__()
        self.w0 = nn.Parameter(torch.empty(n_items, hidden))
        self.w1 = nn.Parameter(torch.empty(hidden, dim))
        nn.init.normal_(self.w0)  # averaging over neighbours shrinks it; a small start wastes hundreds of steps
        nn.init.normal_(self.w1, std=0.1)

    def forward(self, a_norm: Tensor) -> Tensor:
        """a_norm: (|V|, |V|), A~ as sparse CSR. Returns Z (|V|, d)."""
        hidden = torch.relu(propagate(a_norm, self.w0))  # (|V|, hidden)
        return propagate(a_norm, hidden @ self.w1)  # (|V|, d)


def propagate(a_norm: Tensor, x: Tensor) -> Tensor:
    """A~ X, one round of averaging over neighbours."""
    return _Propagate.apply(a_norm, x)


class _Propagate(torch.autograd.Function):
    """The gradient of A~ X for a symmetric A~ is A~ G; autograd's own would transpose A~ at every step."""

    @staticmethod
    def forward(ctx: Any, a_norm: Tensor, x: Tensor) -> Tensor:
        ctx.a_norm = a_norm
        return spmm(a_norm, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, spmm(ctx.a_norm, grad)


def similarity(z: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
    """S = sigma(Z'Z) of Eq. 8, or some of its rows. The text says cosine; the formula is the inner product."""
    return torch.sigmoid(z[rows] @ z.T)


def balanced_pos_weight(graph: ItemGraph) -> float:
    """Zeros of A over its ones: the weight that makes edges and non-edges count the same (Kipf & Welling 2016).

    A graph that joins everything counts as one with a single zero, so that the edges keep a weight.
    """
    ones = 2 * len(graph.edges) + graph.n_items
    return max(graph.n_items**2 - ones, 1) / ones


def pretrain_gae(
    graph: ItemGraph,
    config: Config,
    device: torch.device | str = "cpu",
    callbacks: Sequence[Callback] = (),
    keeper: Keeper = KEEPS_NOTHING,
) -> Tensor:
    """Train the auto-encoder on Eq. 9 with Adam and return the frozen Z* (|V|, d).

    A step looks at all pairs or at config.gae.pairs of them, see `pairwise.pair_sum`. Reports stage "gae" with the
    loss per pair about a hundred times, since reading a loss makes a GPU wait.
    """
    settings, seed = config.gae, config.train.seed
    with weights_from(seed, "W_0"):
        gae = GAE(graph.n_items, config.model.hidden, config.model.dim).to(device)
    pairs = stream(seed, "gae pairs")
    a, a_norm = adjacency(graph).to(device), normalized_adjacency(graph).to(device)
    pos_weight = balanced_pos_weight(graph) if settings.pos_weight is None else settings.pos_weight
    tiles = config.train.pair_tile, config.train.pair_precision
    optimizer = torch.optim.Adam(gae.parameters(), lr=settings.lr, fused=True)
    every = max(1, settings.steps // 100)
    done = keeper.resume({"gae": gae, "adam": optimizer, "pairs": pairs})
    for step in range(done + 1, settings.steps + 1):
        loss = reconstruction_loss(gae(a_norm), a, pos_weight, settings.pairs, pairs, *tiles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        keeper.save(step)
        if step % every == 0 or step == settings.steps:
            report(callbacks, Event("gae", step, settings.steps, {"loss per pair": loss.item() / graph.n_items}))
    with torch.no_grad():
        return gae(a_norm)
