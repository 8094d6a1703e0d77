"""Graph auto-encoder (Eq. 7-9): two GCN layers over the item graph, an inner-product decoder, pretrained and frozen."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.events import Event, report
from dae4rec_core.graph import ItemGraph, adjacency, normalized_adjacency
from dae4rec_core.losses import draw_rows, gae_loss


class GAE(nn.Module):
    """Z = A~ ReLU(A~ W_0) W_1 (Eq. 7). There are no node features, so W_0 (|V| x hidden) is itself a table."""

    def __init__(self, n_items: int, hidden: int, dim: int):
        super().__init__()
        self.w0 = nn.Parameter(torch.empty(n_items, hidden))
        self.w1 = nn.Parameter(torch.empty(hidden, dim))
        nn.init.normal_(self.w0)  # averaging over neighbours shrinks it; a small start wastes hundreds of steps
        nn.init.normal_(self.w1, std=0.1)

    def encode(self, a_norm: Tensor) -> Tensor:
        """a_norm: (|V|, |V|) sparse D^-1/2 A D^-1/2. Returns Z (|V|, d)."""
        hidden = torch.relu(torch.sparse.mm(a_norm, self.w0))  # (|V|, hidden)
        return torch.sparse.mm(a_norm, hidden @ self.w1)


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

    Each step draws config.pair_rows rows of the pair matrix. Reports stage "gae" with the loss per pair.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    gae = GAE(graph.n_items, config.hidden, config.dim).to(device)
    a, a_norm = adjacency(graph).to(device), normalized_adjacency(graph).to(device)
    pos_weight = config.pos_weight or balanced_pos_weight(graph)
    optimizer = torch.optim.Adam(gae.parameters(), lr=config.gae_lr)
    for step in range(1, config.gae_steps + 1):
        rows = draw_rows(graph.n_items, config.pair_rows, generator, device)
        loss = gae_loss(gae.encode(a_norm), a, rows, pos_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
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
