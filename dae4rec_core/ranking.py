"""Ranks and metrics over the full catalogue.

Ties are settled by their expectation over a random order: a model that scores every item the same gets exactly chance
(HR@k = k / |V|), where counting only strictly better items would give it 100%.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.data import PAD, Examples
from dae4rec_core.retrieval import EmbeddingScorer, compare, rank_by_blocks

# history (B, L) -> scores (B, |V|)
Scorer = Callable[[Tensor], Tensor]
METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20", "MRR")


def rank_of(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """How many items score above each target, and how many share its score (the target included).

    scores: (B, |V|), finite; target: (B,) item indices. Returns (better, tied), each (B,) integers.
    Raises ValueError if a score is not a number.
    """
    return compare(scores, scores.gather(1, target.unsqueeze(1)))


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


def metric_table(scores: Tensor, target: Tensor) -> pd.DataFrame:
    """METRICS of each row, expected over ties. scores: (B, |V|); target: (B,)."""
    return metrics_of_ranks(*rank_of(scores, target), scores.shape[1])


def metrics_of_ranks(better: Tensor, tied: Tensor, n_items: int) -> pd.DataFrame:
    """METRICS of each user from what `rank_of` counts: better, tied (B,) integers."""
    columns = {}
    for k in (10, 20):
        columns[f"HR@{k}"] = hit_rate(better, tied, k)
        columns[f"NDCG@{k}"] = ndcg(better, tied, k)
    columns["MRR"] = mrr(better, tied, n_items)
    return pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})


def user_ranks(
    scorer: Scorer, examples: Examples, seen: Tensor | None = None, batch_size: int = 1024
) -> tuple[Tensor, Tensor, int]:
    """`rank_of` for every example: better and tied, (N,) integers on the CPU, and |V|.

    seen: (N, M) items that are not ranked for a user, filled with PAD; none by default. Leaving out what the user has
    seen is only right where no answer can be among it. Without it, an EmbeddingScorer is ranked block by block, so that
    batch_size x |V| scores are never held.
    """
    better, tied = [], []
    for number, batch in enumerate(examples.batches(batch_size)):
        banned = seen[number * batch_size :][: len(batch.target)] if seen is not None else torch.empty(0, 0)
        if isinstance(scorer, EmbeddingScorer) and scorer.bonus is None and not banned.numel():
            queries = scorer.queries(batch.history)
            ranks = rank_by_blocks(queries, scorer.items, batch.target.to(queries.device))
            n_items = len(scorer.items)
        else:
            scores = scorer(batch.history)
            if banned.numel():
                user, place = (banned != PAD).nonzero(as_tuple=True)
                scores = scores.clone()  # a scorer may give the same row to everybody
                scores[user.to(scores.device), banned[user, place].to(scores.device)] = -torch.inf
            ranks = rank_of(scores, batch.target.to(scores.device))
            n_items = scores.shape[1]
        better.append(ranks[0].cpu())
        tied.append(ranks[1].cpu())
    return torch.cat(better), torch.cat(tied), n_items


def user_metrics(scorer: Scorer, examples: Examples, batch_size: int = 1024) -> pd.DataFrame:
    """METRICS for every example, one row each, ranking the full catalogue with no seen-item filter."""
    return metrics_of_ranks(*user_ranks(scorer, examples, None, batch_size))


def evaluate(scorer: Scorer, examples: Examples, batch_size: int = 1024) -> dict[str, float]:
    """Mean of METRICS over all examples, every one counted."""
    means = user_metrics(scorer, examples, batch_size).mean()
    return {name: float(means[name]) for name in METRICS}
