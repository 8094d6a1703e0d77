"""Ranks and metrics against torchmetrics, chance, sorting, and brute force over tie orders (float64, to 1e-12)."""

import itertools
import math

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from dae4rec_core.data.dataset import Examples, held_out
from dae4rec_core.experiments.baselines import baselines
from dae4rec_core.method.model import PAD, Query, scores
from dae4rec_core.ranking import (
    METRICS,
    QueryScorer,
    evaluate,
    hit_rate,
    metrics_of_ranks,
    mrr,
    ndcg,
    rank_of,
    ranks,
    user_metrics,
)
from dae4rec_core.retrieval import BLOCK

USERS, ITEMS = 57, 83


@pytest.fixture(scope="module")
def scored():
    """Random scores without a tie, and targets."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randperm(USERS * ITEMS, generator=generator).float().reshape(USERS, ITEMS)
    assert len(table.unique()) == table.numel()
    return table, torch.randint(ITEMS, (USERS,), generator=generator)


@pytest.fixture(scope="module")
def seen(scored):
    """Up to six items of each user that are not ranked, some of them twice, PAD between them; never the target."""
    _, target = scored
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(ITEMS, (USERS, 6), generator=generator)
    items[:, 1] = items[:, 0]
    items[torch.rand(USERS, 6, generator=generator) < 0.3] = PAD
    items[items == target.unsqueeze(1)] = PAD
    assert ((items == PAD).all(1).sum() < USERS) and (items == PAD).any()
    return items


def numbered(target, seen=None):
    """Examples whose history is the row's number, so that a scorer can look a table up."""
    rows = torch.arange(len(target))
    return Examples(rows.unsqueeze(1), target, rows, *([] if seen is None else [seen]))


@pytest.mark.parametrize("leave_out", [False, True])
def test_metrics_equal_torchmetrics(scored, seen, leave_out):
    table, target = scored
    relevant = torch.zeros(USERS, ITEMS, dtype=torch.bool)
    relevant[torch.arange(USERS), target] = True
    ranked = torch.ones(USERS, ITEMS, dtype=torch.bool)
    for user, row in enumerate(seen.tolist() if leave_out else []):
        ranked[user, [item for item in row if item != PAD]] = False
    index = torch.arange(USERS).unsqueeze(1).expand(-1, ITEMS)
    oracle = {"MRR": RetrievalMRR()}
    for k in (10, 20):
        oracle |= {f"HR@{k}": RetrievalHitRate(top_k=k)}
        oracle |= {f"NDCG@{k}": RetrievalNormalizedDCG(top_k=k)}
    ours = evaluate(lambda history: table[history[:, 0]], numbered(target, seen if leave_out else None))
    assert set(ours) == set(oracle) == set(METRICS)
    for name, metric in oracle.items():
        theirs = float(metric(table[ranked], relevant[ranked], indexes=index[ranked]))
        assert 0 < theirs < 1
        assert ours[name] == pytest.approx(theirs, abs=1e-6)  # torchmetrics works in float32


def test_ranks_equal_sorting_without_the_seen_items(scored, seen):
    table, target = scored
    before = table.clone()
    better, tied = rank_of(table, target, seen)
    assert torch.equal(table, before)  # the scores belong to the caller
    assert tied.tolist() == [1] * USERS
    for user in range(USERS):
        left = sorted(set(range(ITEMS)) - set(seen[user].tolist()), key=lambda item: -table[user, item])
        assert better[user] == left.index(int(target[user]))
    assert (better < rank_of(table, target)[0]).any()


def test_a_row_that_all_users_share_is_not_spoilt_by_one_users_seen_items():
    shared = torch.arange(5.0).expand(2, -1)
    better, _ = rank_of(shared, torch.tensor([2, 2]), torch.tensor([[4], [PAD]]))
    assert better.tolist() == [1, 2]


@pytest.mark.parametrize("left_out", [0, 7])
def test_constant_model_scores_exactly_chance_among_the_items_that_are_ranked(left_out):
    target, n = torch.tensor([7, 8, 40, ITEMS - 1]), ITEMS - left_out
    better, tied = rank_of(torch.zeros(4, ITEMS), target, torch.arange(left_out).expand(4, -1))
    for k in (1, 10, n):
        chance = torch.full((4,), k / n, dtype=torch.float64)
        torch.testing.assert_close(hit_rate(better, tied, k), chance, rtol=0, atol=1e-12)
    gain = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / n
    assert ndcg(better, tied, 10).tolist() == pytest.approx([gain] * 4, abs=1e-12)
    gain = sum(1 / rank for rank in range(1, n + 1)) / n
    assert mrr(better, tied, ITEMS).tolist() == pytest.approx([gain] * 4, abs=1e-12)


def test_ties_equal_the_mean_over_all_tie_orders():
    """Each of the 720 orders of six items breaks the ties once: exact up to rounding, 1e-12."""
    generator = torch.Generator().manual_seed(1)
    orders = list(itertools.permutations(range(6)))
    for _ in range(12):
        row = torch.randint(3, (6,), generator=generator)
        target = int(torch.randint(6, (1,), generator=generator))
        places = np.array(
            [1 + sorted(range(6), key=lambda i: (-int(row[i]), order[i])).index(target) for order in orders]
        )
        better, tied = rank_of(row.unsqueeze(0).float(), torch.tensor([target]))
        for k in (1, 2, 3, 5):
            inside = places <= k
            assert float(hit_rate(better, tied, k)) == pytest.approx(inside.mean(), abs=1e-12)
            gain = (inside / np.log2(places + 1)).mean()
            assert float(ndcg(better, tied, k)) == pytest.approx(gain, abs=1e-12)
        assert float(mrr(better, tied, 6)) == pytest.approx((1 / places).mean(), abs=1e-12)


def test_nan_raises(scored, one_sentence):
    table, target = scored
    broken = table.clone()
    broken[3, 5] = math.nan
    one_sentence(lambda: rank_of(broken, target), "NaN", "check the checkpoint")
    scorer = QueryScorer(lambda history: Query(torch.full((len(history), 4), math.nan)), torch.ones(9, 4))
    one_sentence(lambda: evaluate(scorer, numbered(torch.tensor([0, 1, 2]))), "NaN", "check the checkpoint")


def test_evaluate_counts_every_user_once(scored, seen):
    table, target = scored
    examples = numbered(target, seen)

    def scorer(history):
        return table[history[:, 0]]

    whole = evaluate(scorer, examples, batch_size=USERS)
    assert USERS % 10 != 0
    assert evaluate(scorer, examples, batch_size=10) == whole
    by_user = user_metrics(scorer, examples, 10)
    assert len(by_user) == USERS and by_user.mean().to_dict() == pytest.approx(whole, abs=1e-12)
    better, tied, n_items = ranks(scorer, examples, 10)
    assert n_items == ITEMS and metrics_of_ranks(better, tied, ITEMS).equals(by_user)
    # a perfect model has 1.0 in each batch, the last and smaller one included
    perfect = torch.nn.functional.one_hot(target, ITEMS).float()
    assert set(evaluate(lambda h: perfect[h[:, 0]], examples, 10).values()) == {1.0}


def test_all_methods_are_ranked_among_the_same_items(first_visits, ours):
    """On first visits no baseline gains or loses by a user's own items, however it scores them."""
    dataset, split = first_visits
    examples = held_out(dataset, split, "test", ours)
    own = [set(dataset.sequence(user)[:-1].tolist()) for user in examples.user.tolist()]
    assert not any(target in items for target, items in zip(examples.target.tolist(), own, strict=True))
    for scorer in baselines(dataset, split).values():
        better, tied, n_items = ranks(scorer, examples)
        table = scorer(examples.history).tolist()
        for row, target, items, above, equal in zip(table, examples.target, own, better, tied, strict=True):
            left = [value for item, value in enumerate(row) if item not in items]
            assert above == sum(value > row[target] for value in left)
            assert equal == left.count(row[target])
        assert n_items == dataset.n_items


# by blocks


@pytest.fixture(scope="module")
def large():
    """A catalogue of more than two blocks, queries whose few items gain something, seen items, and targets."""
    generator = torch.Generator().manual_seed(2)
    items = torch.randn(2 * BLOCK + 7, 16, generator=generator)
    vectors = torch.randn(USERS, 16, generator=generator)
    best = (vectors @ items.T).topk(30).indices
    target = best[torch.arange(USERS), torch.arange(USERS) % 30]
    gaining = torch.randint(len(items), (USERS, 9), generator=generator)
    gaining[:, 0] = target
    gains = torch.randn(USERS, 9, generator=generator)
    gaining[:, 8], gains[:, 8] = PAD, 0
    seen = torch.where(best[:, :5] == target.unsqueeze(1), PAD, best[:, :5])
    return items, Query(vectors, gaining, gains), seen, target


@pytest.mark.parametrize("batch_size", [57, 10, 28])  # the last leaves a single user over
def test_a_query_scorer_is_ranked_by_blocks_to_the_metrics_of_the_dense_scores(large, batch_size):
    items, query, seen, target = large
    examples = numbered(target, seen)

    def of(history):
        return Query(*(part[history[:, 0]] for part in query))

    by_blocks = user_metrics(QueryScorer(of, items), examples, batch_size)
    whole = user_metrics(lambda history: scores(of(history), items), examples, USERS)
    assert by_blocks.equals(whole)
    bare = QueryScorer(lambda history: Query(of(history).vectors), items)
    assert not user_metrics(bare, examples, batch_size).equals(whole)
    found = user_metrics(bare, numbered(target), batch_size)
    assert found["MRR"].tolist() == pytest.approx([1 / (1 + n % 30) for n in range(USERS)])


def test_a_collapsed_model_ranked_by_blocks_scores_exactly_chance():
    items = torch.full((2 * BLOCK + 1, 16), 0.3)
    examples = numbered(torch.tensor([0, 7, BLOCK, 2 * BLOCK, 1]))
    scorer = QueryScorer(lambda history: Query(torch.linspace(-1, 1, 16).expand(len(history), 16)), items)
    for batch_size in (5, 2):
        found = evaluate(scorer, examples, batch_size)
        assert found["HR@10"] == pytest.approx(10 / len(items), abs=1e-12)
        assert found["HR@20"] == pytest.approx(20 / len(items), abs=1e-12)
