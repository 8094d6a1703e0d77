"""Ranks and metrics over the full catalogue: the one judge of every method.

Ties are settled by their expectation over a random order: a model that scores every item the same gets exactly chance
(HR@k = k / |V|), where counting only strictly better items would give it 100%.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.data.dataset import Examples
from dae4rec_core.method.model import Query
from dae4rec_core.retrieval import compare, rank_by_blocks, without_seen

METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20", "MRR")


@dataclass(frozen=True)
class QueryScorer:
    """A method that scores by inner product: from histories (B, L) to queries, and the items' vectors (|V|, d)."""

    query: Callable[[Tensor], Query]
    items: Tensor


# what is judged: the same, or a function from histories (B, L) to the scores of all items (B, |V|)
Scorer = QueryScorer | Callable[[Tensor], Tensor]


def hit_rate(better: Tensor, tied: Tensor, k: int) -> Tensor:
    """HR@k of each user: the chance that the target is among the first k when ties are broken at random. (B,)"""
    return (k - better).clamp(min=0).minimum(tied).double() / tied


def ndcg(better: Tensor, tied: Tensor, k: int) -> Tensor:
    """NDCG@k of each user with one relevant item, 1/log2(rank + 1) if rank <= k, expected over ties. (B,)"""
    rank = torch.arange(1, k + 1, dtype=torch.float64, device=better.device)
    return _expected(1 / torch.log2(rank + 1), better, tied)


def mrr(better: Tensor, tied: Tensor, n_items: int) -> Tensor:
    """Reciprocal rank of each user over the full catalogue, expected over ties. (B,)"""
    rank = torch.arange(1, n_items + 1, dtype=torch.float64, device=better.device)
    return _expected(1 / rank, better, tied)


def _expected(gain: Tensor, better: Tensor, tied: Tensor) -> Tensor:
    """Mean of gain[rank - 1] over the ranks better+1 .. better+tied; ranks past the end gain 0."""
    total = torch.cat([gain.new_zeros(1), gain.cumsum(0)])
    last = len(gain)
    return (total[(better + tied).clamp(max=last)] - total[better.clamp(max=last)]) / tied


def metrics_of_ranks(better: Tensor, tied: Tensor, n_items: int) -> pd.DataFrame:
    """METRICS of each user from what `ranks` counts: better, tied (B,) integers."""
    columns = {}
    for k in (10, 20):
        columns[f"HR@{k}"] = hit_rate(better, tied, k)
        columns[f"NDCG@{k}"] = ndcg(better, tied, k)
    columns["MRR"] = mrr(better, tied, n_items)
    return pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})


def rank_of(scores: Tensor, target: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How many items score above each target, and how many share its score (the target included).

    scores: (B, |V|), finite; target: (B,) item indices; seen: (B, M) items that are not ranked, filled with PAD.
    Returns (better, tied), each (B,) integers. Raises ValueError if a score is not a number.
    """
    scores = without_seen(scores, seen)
    return compare(scores, scores.gather(1, target.unsqueeze(1)))


def ranks(scorer: Scorer, examples: Examples, batch_size: int = 1024) -> tuple[Tensor, Tensor, int]:
    """`rank_of` for every example, seen items left out where the examples say so.

    Returns better and tied, (N,) integers on the CPU, and |V|. A QueryScorer is ranked block by block, so that
    batch_size x |V| scores are never held.
    """
    better, tied, n_items = [], [], 0
    for start in range(0, len(examples), batch_size):
        batch = examples.select(slice(start, start + batch_size))
        if isinstance(scorer, QueryScorer):
            device, n_items = scorer.items.device, len(scorer.items)
            query = scorer.query(batch.history)
            found = rank_by_blocks(query, scorer.items, batch.target.to(device), batch.seen.to(device))
        else:
            scores = scorer(batch.history)
            n_items = scores.shape[1]
            found = rank_of(scores, batch.target.to(scores.device), batch.seen.to(scores.device))
        better.append(found[0].cpu())
        tied.append(found[1].cpu())
    return torch.cat(better), torch.cat(tied), n_items


def user_metrics(scorer: Scorer, examples: Examples, batch_size: int = 1024) -> pd.DataFrame:
    """METRICS for every example, one row each."""
    return metrics_of_ranks(*ranks(scorer, examples, batch_size))


def evaluate(scorer: Scorer, examples: Examples, batch_size: int = 1024) -> dict[str, float]:
    """Mean of METRICS over all examples, every one counted."""
    return mean_metrics(*ranks(scorer, examples, batch_size))


def mean_metrics(better: Tensor, tied: Tensor, n_items: int) -> dict[str, float]:
    """The mean of `metrics_of_ranks` over users."""
    means = metrics_of_ranks(better, tied, n_items).mean()
    return {name: float(means[name]) for name in METRICS}
