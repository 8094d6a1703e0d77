"""Graph auto-encoder (Eq. 7-9): two GCN layers over the item graph, an inner-product decoder, pretrained and frozen."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.events import Event, report
from dae4rec_core.graph import ItemGraph, adjacency, normalized_adjacency, spmm
from dae4rec_core.pairwise import reconstruction_loss


class _Propagate(torch.autograd.Function):
    """A~ X for a symmetric sparse A~, whose gradient is A~ G; autograd's own would transpose A~ at every step."""

    @staticmethod
    def forward(ctx, a_norm, x):
        ctx.a_norm = a_norm
        return spmm(a_norm, x)

    @staticmethod
    def backward(ctx, grad):
        return None, spmm(ctx.a_norm, grad)


class GAE(nn.Module):
    """Z = A~ ReLU(A~ W_0) W_1 (Eq. 7). There are no node features, so W_0 (|V| x hidden) is itself a table."""

    def __init__(self, n_items: int, hidden: int, dim: int):
        super().__init__()
        self.w0 = nn.Parameter(torch.empty(n_items, hidden))
        self.w1 = nn.Parameter(torch.empty(hidden, dim))
        nn.init.normal_(self.w0)  # averaging over neighbours shrinks it; a small start wastes hundreds of steps
        nn.init.normal_(self.w1, std=0.1)

    def encode(self, a_norm: Tensor) -> Tensor:
        """a_norm: (|V|, |V|) sparse CSR D^-1/2 A D^-1/2. Returns Z (|V|, d)."""
        hidden = torch.relu(_Propagate.apply(a_norm, self.w0))  # (|V|, hidden)
        return _Propagate.apply(a_norm, hidden @ self.w1)


def similarity(z: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
    """S = sigma(Z'Z) of Eq. 8, or some of its rows. The text says cosine; the formula is the inner product."""
    return torch.sigmoid(z[rows] @ z.T)


def balanced_pos_weight(graph: ItemGraph) -> float:
    """Zeros of A over its ones: the weight that makes edges and non-edges count the same (Kipf & Welling 2016)."""
    ones = 2 * len(graph.edges) + graph.n_items
    return (graph.n_items**2 - ones) / ones


def pretrain_gae(
    graph: ItemGraph, config: Config, device="cpu", callbacks: list[Callable[[Event], None]] = ()
) -> Tensor:
    """Train the auto-encoder on Eq. 9 with Adam and return the frozen Z* (|V|, d).

    A step looks at all pairs or at config.gae_pairs of them, see `pairwise.pair_sum`. Reports stage "gae" with the
    loss per pair about a hundred times, since reading a loss makes a GPU wait.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    gae = GAE(graph.n_items, config.hidden, config.dim).to(device)
    a, a_norm = adjacency(graph).to(device), normalized_adjacency(graph).to(device)
    pos_weight = config.pos_weight or balanced_pos_weight(graph)
    optimizer = torch.optim.Adam(gae.parameters(), lr=config.gae_lr, fused=True)
    every = max(1, config.gae_steps // 100)
    for step in range(1, config.gae_steps + 1):
        z = gae.encode(a_norm)
        loss = reconstruction_loss(
            z, a, pos_weight, config.gae_pairs, generator, config.pair_tile, config.pair_precision
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % every == 0 or step == config.gae_steps:
            report(callbacks, Event("gae", step, config.gae_steps, {"loss per pair": loss.item() / graph.n_items}))
    with torch.no_grad():
        return gae.encode(a_norm)


def edge_auc(z: Tensor, graph: ItemGraph, generator: torch.Generator, samples: int = 20_000) -> float:
    """Chance that a random edge scores above a random non-edge by z_i . z_j: 0.5 is blind, 1 is perfect.

    Edges and non-edges are drawn with replacement (pairs that happen to be edges are left out of the non-edges);
    the standard error is below 0.5 / sqrt(samples).
    """
    edges = torch.as_tensor(graph.edges)
    positive = edges[torch.randint(len(edges), (samples,), generator=generator)]
    negative = torch.randint(graph.n_items, (samples, 2), generator=generator)
    key = negative.sort(1).values @ torch.tensor([graph.n_items, 1])
    known = torch.isin(key, edges @ torch.tensor([graph.n_items, 1])) | (negative[:, 0] == negative[:, 1])
    negative = negative[~known]
    z = z.detach().cpu()
    above = (z[positive[:, 0]] * z[positive[:, 1]]).sum(1)
    below = (z[negative[:, 0]] * z[negative[:, 1]]).sum(1).sort().values
    wins = torch.searchsorted(below, above, right=False) + torch.searchsorted(below, above, right=True)
    return float(wins.double().mean() / (2 * len(below)))
