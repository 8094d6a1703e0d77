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
    top_k,
    user_metrics,
)

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
        ranks = np.array([
            1 + sorted(range(6), key=lambda i: (-int(scores[i]), order[i])).index(target)
            for order in orders
        ])
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


def test_top_k(one_sentence):
    scores = torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]])
    values, items = top_k(scores, 2)
    assert items.tolist() == [[1, 2], [0, 1]]
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.5], [3.0, 2.0]]))
    assert top_k(scores, 3)[1].shape == (2, 3)
    one_sentence(lambda: top_k(scores, 4), "k is 4", "3 items", "from 1")
    one_sentence(lambda: top_k(scores, 0), "k is 0", "from 1")
    one_sentence(lambda: top_k(scores, -1), "k is -1", "from 1")
