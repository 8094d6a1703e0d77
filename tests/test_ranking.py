"""Metrics against torchmetrics, chance, and brute force over tie orders (float64, to 1e-12)."""

import itertools
import math

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from dae4rec_core.data import Examples
from dae4rec_core.ranking import (
    METRICS,
    evaluate,
    hit_rate,
    metric_table,
    mrr,
    ndcg,
    rank_of,
    user_metrics,
)
from dae4rec_core.retrieval import BLOCK, EmbeddingScorer

USERS, ITEMS = 57, 83


@pytest.fixture(scope="module")
def scored():
    """Random scores without a tie, and targets."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randperm(USERS * ITEMS, generator=generator).float().reshape(USERS, ITEMS)
    assert len(scores.unique()) == scores.numel()
    return scores, torch.randint(ITEMS, (USERS,), generator=generator)


def test_metrics_equal_torchmetrics(scored):
    scores, target = scored
    relevant = torch.zeros(USERS, ITEMS, dtype=torch.bool)
    relevant[torch.arange(USERS), target] = True
    index = torch.arange(USERS).repeat_interleave(ITEMS)
    oracle = {"MRR": RetrievalMRR()}
    for k in (10, 20):
        oracle |= {f"HR@{k}": RetrievalHitRate(top_k=k)}
        oracle |= {f"NDCG@{k}": RetrievalNormalizedDCG(top_k=k)}
    ours = metric_table(scores, target).mean()
    assert set(ours.index) == set(oracle) == set(METRICS)
    for name, metric in oracle.items():
        theirs = float(metric(scores.flatten(), relevant.flatten(), indexes=index))
        assert 0 < theirs < 1
        assert ours[name] == pytest.approx(theirs, abs=1e-6)  # torchmetrics works in float32


def test_constant_model_scores_exactly_chance():
    better, tied = rank_of(torch.zeros(4, ITEMS), torch.tensor([0, 1, 40, ITEMS - 1]))
    for k in (1, 10, ITEMS):
        chance = torch.full((4,), k / ITEMS, dtype=torch.float64)
        torch.testing.assert_close(hit_rate(better, tied, k), chance, rtol=0, atol=1e-12)
    gain = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / ITEMS
    assert ndcg(better, tied, 10).tolist() == pytest.approx([gain] * 4, abs=1e-12)
    gain = sum(1 / rank for rank in range(1, ITEMS + 1)) / ITEMS
    assert mrr(better, tied, ITEMS).tolist() == pytest.approx([gain] * 4, abs=1e-12)


def test_ties_equal_the_mean_over_all_tie_orders():
    """Each of the 720 orders of six items breaks the ties once: exact up to rounding, 1e-12."""
    generator = torch.Generator().manual_seed(1)
    orders = list(itertools.permutations(range(6)))
    for _ in range(12):
        scores = torch.randint(3, (6,), generator=generator)
        target = int(torch.randint(6, (1,), generator=generator))
        ranks = np.array(
            [1 + sorted(range(6), key=lambda i: (-int(scores[i]), order[i])).index(target) for order in orders]
        )
        better, tied = rank_of(scores.unsqueeze(0).float(), torch.tensor([target]))
        for k in (1, 2, 3, 5):
            inside = ranks <= k
            assert float(hit_rate(better, tied, k)) == pytest.approx(inside.mean(), abs=1e-12)
            gain = (inside / np.log2(ranks + 1)).mean()
            assert float(ndcg(better, tied, k)) == pytest.approx(gain, abs=1e-12)
        assert float(mrr(better, tied, 6)) == pytest.approx((1 / ranks).mean(), abs=1e-12)


def test_nan_raises(scored, one_sentence):
    scores, target = scored
    broken = scores.clone()
    broken[3, 5] = math.nan
    one_sentence(lambda: metric_table(broken, target), "NaN", "check the checkpoint")


def test_evaluate_counts_every_user_once(scored):
    scores, target = scored
    examples = Examples(torch.arange(USERS).unsqueeze(1), target, torch.arange(USERS))

    def scorer(history):
        return scores[history[:, 0]]

    whole = evaluate(scorer, examples, batch_size=USERS)
    assert USERS % 10 != 0
    assert evaluate(scorer, examples, batch_size=10) == whole
    assert len(user_metrics(scorer, examples, 10)) == USERS
    # the answers are kept out of the last, smaller batch's neighbours: a perfect model has 1.0
    perfect = torch.nn.functional.one_hot(target, ITEMS).float()
    assert set(evaluate(lambda h: perfect[h[:, 0]], examples, 10).values()) == {1.0}


@pytest.mark.parametrize("batch_size", [57, 10, 28])  # the last leaves a single user over
def test_an_embedding_scorer_is_ranked_by_blocks_to_the_same_metrics(batch_size):
    generator = torch.Generator().manual_seed(2)
    items = torch.randn(2 * BLOCK + 7, 16, generator=generator)
    queries = torch.randn(USERS, 16, generator=generator)
    target = (queries @ items.T).topk(30).indices[torch.arange(USERS), torch.arange(USERS) % 30]
    examples = Examples(torch.arange(USERS).unsqueeze(1), target, torch.arange(USERS))
    scorer = EmbeddingScorer(lambda history: queries[history[:, 0]], items)
    by_blocks = user_metrics(scorer, examples, batch_size)
    whole = user_metrics(lambda history: scorer(history), examples, USERS)
    assert by_blocks.equals(whole)
    assert by_blocks["MRR"].tolist() == pytest.approx([1 / (1 + n % 30) for n in range(USERS)])


def test_a_collapsed_model_ranked_by_blocks_scores_exactly_chance():
    items = torch.full((2 * BLOCK + 1, 16), 0.3)
    examples = Examples(torch.zeros(5, 1, dtype=torch.long), torch.tensor([0, 7, BLOCK, 2 * BLOCK, 1]), torch.arange(5))
    scorer = EmbeddingScorer(lambda history: torch.linspace(-1, 1, 16).expand(len(history), 16), items)
    for batch_size in (5, 2):
        found = evaluate(scorer, examples, batch_size)
        assert found["HR@10"] == pytest.approx(10 / len(items), abs=1e-12)
        assert found["HR@20"] == pytest.approx(20 / len(items), abs=1e-12)


def test_nan_queries_raise_by_blocks_too(one_sentence):
    examples = Examples(torch.zeros(3, 1, dtype=torch.long), torch.tensor([0, 1, 2]), torch.arange(3))
    scorer = EmbeddingScorer(lambda history: torch.full((len(history), 4), math.nan), torch.ones(9, 4))
    one_sentence(lambda: evaluate(scorer, examples), "NaN", "check the checkpoint")
