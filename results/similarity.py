"""What Eq. 10 draws E towards: the paper's S* and others, on validation (notebook 02).

Writes results/similarity.csv (part, S, compensator, HR@10, NDCG@10, data, filter, similarity, seed, rules). KEPT are
in the module, as config.beyond.similarity; they are measured on three data sets, and on test. What lost to them lives
here, measured on validation of the town at S = 1 ("only apart" on gowalla too). All share the loss (Eq. 10) and the
rest of the reference.
"""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from dae4rec_core import training
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import held_out, training_graph
from dae4rec_core.method.gae import GAE, balanced_pos_weight
from dae4rec_core.method.graph import ItemGraph, adjacency, csr_tensor, normalized_adjacency
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.method.pairwise import TileLoss, count_loss, pair_sum, reconstruction_loss
from dae4rec_core.ranking import evaluate
from dae4rec_core.streams import stream, weights_from
from results import grid

KEPT = ("graph", "counts")
SETS = (("town", "raw"), ("gowalla", "first visits"), ("retailrocket", "first visits"))
TABLE = grid.FOLDER / "similarity.csv"


def write(folder: Path) -> pd.DataFrame:
    """Measure what the cache lacks, one run after the other, and write TABLE. folder: where the real data sets are."""
    units = [(data, name, kind, seed) for seed in grid.SEEDS for data, name in SETS for kind in KEPT]
    units += [("town", "raw", kind, seed) for seed in grid.SEEDS for kind in LOST]
    units += [("gowalla", "first visits", "only apart", seed) for seed in grid.SEEDS]
    table = pd.concat([cached(*unit, folder) for unit in units]).assign(rules=grid.RULES)
    table.to_csv(TABLE, index=False, float_format="%.5g", encoding="utf-8")
    return table


def cached(data: str, name: str, kind: str, seed: int, folder: Path) -> pd.DataFrame:
    """The rows of one run, from the cache or measured now."""
    file = grid.CACHE / "-".join(["similarity", data, name, kind, f"{seed}.csv"]).replace(" ", "_")
    if not file.is_file():
        grid.CACHE.mkdir(parents=True, exist_ok=True)
        rows = pd.DataFrame(measure(data, name, kind, seed, folder))
        rows = rows.assign(data=data, filter=name, similarity=kind, seed=seed)
        rows.to_csv(file, index=False, float_format="%.5g", encoding="utf-8")
    return pd.read_csv(file)


def measure(data: str, name: str, kind: str, seed: int, folder: Path) -> list[dict]:
    """One run: rows of part, S, compensator and metrics."""
    dataset, split = grid.load(data, name, folder)
    unit = grid.Unit("similarity", data, name, kind, seed, "reference", {"similarity": kind} if kind in KEPT else {})
    config = grid.config_of(unit, dataset, split)
    parts: tuple[str, ...]
    readings: tuple[tuple[int, bool], ...]
    if kind in KEPT:
        recommender = training.fit(dataset, split, config, z_star=grid.z_star_of(dataset, split, config))
        parts, readings = ("validation", "test"), ((1, False), (grid.S, False), (grid.S, True))
    else:
        config = config.replace(compensator_epochs=0)
        z_star = LOST[kind](training_graph(dataset, split), config)
        if kind == "two sides":
            with patch.object(training, "l_aime_of", two_sided_aime):
                recommender = training.fit(dataset, split, config, z_star=z_star, network=TwoSides)
        else:
            recommender = training.fit(dataset, split, config, z_star=z_star)
        parts, readings = ("validation",), ((1, False),)
    rows = []
    for part in parts:
        examples = held_out(dataset, split, part, config)
        for s, compensate in readings:
            metrics = evaluate(recommender.scorer(s, compensate), examples)
            chosen = {metric: metrics[metric] for metric in ("HR@10", "NDCG@10")}
            rows.append({"part": part, "S": s, "compensator": compensate, **chosen})
    return rows


# what lost: each makes Z* (|V|, d) from the graph; two sides make (2, |V|, d)


def learn(module: nn.Module, loss_of: Callable[[], Tensor], config: Config) -> None:
    """Adam, as in `pretrain_gae`."""
    optimizer = torch.optim.Adam(module.parameters(), lr=config.gae.lr, fused=True)
    for _ in range(config.gae.steps):
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def gae_of(graph: ItemGraph, config: Config, dim: int) -> GAE:
    with weights_from(config.train.seed, "W_0"):
        return GAE(graph.n_items, config.model.hidden, dim)


def counts_of(graph: ItemGraph) -> sparse.csr_matrix:
    assert graph.counts is not None
    return graph.counts


def averaged_counts(graph: ItemGraph, config: Config, counts: sparse.csr_matrix | None = None) -> Tensor:
    """The loss of `pretrain_counts`, with the averaging of Eq. 7."""
    gae, a_norm = gae_of(graph, config, config.model.dim), normalized_adjacency(graph)
    counts = counts_of(graph) if counts is None else counts
    weights, pairs = csr_tensor(counts * (graph.n_items**2 / counts.sum())), stream(config.train.seed, "gae pairs")
    learn(gae, lambda: count_loss(gae(a_norm), weights, config.gae.pairs, pairs), config)
    return gae(a_norm).detach()


def shared_neighbours(graph: ItemGraph, config: Config) -> Tensor:
    """The same on C D^-1 C: how often two items follow the same ones. It has no negative eigenvalues."""
    counts = counts_of(graph)
    per_item = 1 / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    return averaged_counts(graph, config, (counts @ sparse.diags(per_item) @ counts).tocsr())


def over_chance(graph: ItemGraph, config: Config) -> Tensor:
    """The same against c_i c_j / sum c in place of all pairs alike: S = c_ij / (c_ij + c_i c_j / sum c), PMI."""
    counts, gae, a_norm = counts_of(graph), gae_of(graph, config, config.model.dim), normalized_adjacency(graph)
    weights, pairs = csr_tensor(counts), stream(config.train.seed, "gae pairs")
    root = torch.from_numpy(np.asarray(counts.sum(1)) / counts.sum() ** 0.5).float()  # (|V|, 1)
    w = weights.values()

    def tile(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        assert y is not None
        return (y * F.softplus(x)).sum(), y * x.sigmoid()

    def edges(x: Tensor) -> tuple[Tensor, Tensor]:
        return w * F.softplus(-x), -w * torch.sigmoid(-x)

    chance: TileLoss = tile
    total = float(counts.sum())
    learn(gae, lambda: pair_sum(gae(a_norm), chance, root, weights, edges, config.gae.pairs, pairs) / total, config)
    return gae(a_norm).detach()


def free_edges(graph: ItemGraph, config: Config) -> Tensor:
    """Balanced Eq. 9 without the averaging of Eq. 7."""
    z, a, weight = nn.Embedding(graph.n_items, config.model.dim), adjacency(graph), balanced_pos_weight(graph)
    with weights_from(config.train.seed, "W_0"):
        nn.init.normal_(z.weight, std=0.1)
    pairs = stream(config.train.seed, "gae pairs")
    learn(z, lambda: reconstruction_loss(z.weight, a, weight, config.gae.pairs, pairs), config)
    return z.weight.detach()


def only_apart(graph: ItemGraph, config: Config) -> Tensor:
    """Random vectors, about as long as those of `pretrain_counts`: each item like itself, all pairs else one half."""
    with weights_from(config.train.seed, "W_0"):
        return 3 * F.normalize(torch.randn(graph.n_items, config.model.dim), dim=1)


def two_sides(graph: ItemGraph, config: Config) -> Tensor:
    """Eq. 7 with two outputs U and V, balanced Eq. 9 on U V', dense: (2, |V|, d)."""
    gae, a_norm, a = gae_of(graph, config, 2 * config.model.dim), normalized_adjacency(graph), adjacency(graph)
    labels, weight = a.to_dense(), torch.tensor(balanced_pos_weight(graph))

    def loss() -> Tensor:
        u, v = gae(a_norm).chunk(2, 1)
        return F.binary_cross_entropy_with_logits(u @ v.T, labels, pos_weight=weight, reduction="sum") / len(u)

    learn(gae, loss, config)
    return torch.stack(gae(a_norm).detach().chunk(2, 1))


LOST = {
    "counts, averaged": averaged_counts,
    "shared neighbours, averaged": shared_neighbours,
    "counts over chance, averaged": over_chance,
    "edges, free": free_edges,
    "only apart": only_apart,
    "two sides": two_sides,
}


class TwoSides(DAE4Rec):
    """Two vectors an item: E, the first |V| rows of the table, is read in histories; F, the others, is answered."""

    def __init__(self, n_items: int, config: Config):
        super().__init__(2 * n_items, config)

    @property
    def n_items(self) -> int:
        return self.embedding.num_embeddings // 2

    def clean(self, items: Tensor) -> Tensor:
        return self.embedding(items + self.n_items)

    def item_vectors(self) -> Tensor:
        return self.embedding.weight[self.n_items :]


def two_sided_aime(model: TwoSides, target: Tensor, pairs: torch.Generator) -> Tensor:
    """||sigma(E F') - sigma(U V')||^2 / |V|, estimated from a random square, as in `pairwise`."""
    assert model.config.diffusion.aime_pairs is not None
    n, m = model.n_items, int(model.config.diffusion.aime_pairs**0.5)
    rows, columns = (torch.randperm(n, generator=pairs)[:m] for _ in range(2))
    e, f = model.embedding(rows), model.embedding(columns + n)
    gap = torch.sigmoid(e @ f.T) - torch.sigmoid(target[0, rows] @ target[1, columns].T)
    return (n / m) ** 2 * gap.square().sum() / n
