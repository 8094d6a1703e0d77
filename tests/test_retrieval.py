"""Top-k and ranks by blocks against float64 brute force, the dense scores, torch.topk, and FAISS."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.retrieval import clustered, retrieval_table
from dae4rec_core.method.model import PAD, Query, scores
from dae4rec_core.ranking import rank_of
from dae4rec_core.retrieval import USERS, ItemIndex, rank_by_blocks, recall, score_blocks, top_items

BLOCKS = [2, 7, 64, 100, 211, 212, 500]  # dividing 211 items or not, one item left over, larger than the catalogue


@pytest.fixture(scope="module")
def items():
    """211 item vectors of small whole numbers: with such queries every score is exact, and many are equal."""
    return torch.randint(-2, 3, (211, 12), generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture(scope="module", params=["inner products alone", "with gains"])
def query(request):
    """23 queries; the gains are whole numbers too, some for one item twice, some for nobody (PAD, 0)."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randint(-2, 3, (23, 12), generator=generator).float()
    if request.param == "inner products alone":
        return Query(vectors)
    gaining = torch.randint(211, (23, 40), generator=generator)
    gaining[:, 1] = gaining[:, 0]
    gains = torch.randint(-3, 4, (23, 40), generator=generator).float()
    gaining[:, 5], gains[:, 5] = PAD, 0
    gaining[4], gains[4] = PAD, 0
    return Query(vectors, gaining, gains)


def brute_force(query, items, seen=()):
    """All scores in numpy and float64, -inf for the seen items."""
    table = query.vectors.double().numpy() @ items.double().numpy().T
    if query.items is not None:
        for user in range(len(table)):
            for item, gain in zip(query.items[user].tolist(), query.gains[user].tolist(), strict=True):
                if item != PAD:
                    table[user, item] += gain
    for user, gone in enumerate(seen):
        table[user, list(gone)] = -np.inf
    return table


def first(table, k):
    """The first k by (score downwards, index): scores and indices."""
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, 1), order


def padded(lists):
    """Lists of item indices as a tensor (B, M) with PAD on the left."""
    width = max(map(len, lists))
    rows = [[PAD] * (width - len(row)) + [int(item) for item in row] for row in lists]
    return torch.tensor(rows, dtype=torch.long)


# scores


@pytest.mark.parametrize("block", BLOCKS)
def test_the_blocks_are_the_dense_scores_each_item_once(query, items, block):
    parts = list(score_blocks(query, items, block=block))
    assert [start for start, _ in parts] == np.cumsum([0, *(part.shape[1] for _, part in parts)])[:-1].tolist()
    assert max(part.shape[1] for _, part in parts) <= block
    found = torch.cat([part for _, part in parts], 1)
    assert torch.equal(found, scores(query, items))
    assert found.tolist() == brute_force(query, items).tolist()


# top-k


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("k", [1, 10, 90, 211])  # below and above the size of a block, and everything
def test_top_items_equal_brute_force_ties_by_index(query, items, block, k):
    values, found = top_items(query, items, k, block=block)
    expected, order = first(brute_force(query, items), k)
    assert found.tolist() == order.tolist()
    assert values.tolist() == expected.tolist()


def test_top_items_equal_topk_of_the_full_scores():
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(USERS + 5, 16, generator=generator)  # more users than are scored at once
    items = torch.randn(999, 16, generator=generator)
    values, found = top_items(Query(queries), items, 20, block=128)
    best = (queries @ items.T).topk(20)
    assert torch.equal(found, best.indices)
    torch.testing.assert_close(values, best.values)


def test_gains_and_exclusion_hold_beyond_the_first_users():
    users = USERS + 3
    vectors, items = torch.ones(users, 2), torch.arange(10.0).repeat(2, 1).T.contiguous()
    seen, gaining, gains = torch.full((users, 1), PAD), torch.full((users, 1), PAD), torch.zeros(users, 1)
    seen[USERS + 1] = 9
    gaining[USERS + 2], gains[USERS + 2] = 3, 50
    found = top_items(Query(vectors, gaining, gains), items, 1, seen)[1].squeeze(1)
    assert found.tolist() == [9] * (USERS + 1) + [8, 3]


@pytest.mark.parametrize("block", BLOCKS)
def test_excluded_items_never_come_back(query, items, block):
    _, order = first(brute_force(query, items), 211)
    # of each user the best items in turn, one of them twice, and for one user nothing
    seen = [[*order[user, :user], *order[user, :1]] if user else [] for user in range(23)]
    values, found = top_items(query, items, 12, padded(seen), block)
    expected, order = first(brute_force(query, items, seen), 12)
    assert found.tolist() == order.tolist()
    assert values.tolist() == expected.tolist()


def test_exactly_k_left_is_enough(query, items):
    seen = torch.arange(206).repeat(23, 1)
    for block in BLOCKS:
        found = top_items(query, items, 5, seen, block)[1]
        assert found.sort(1).values.tolist() == [[206, 207, 208, 209, 210]] * 23


@pytest.mark.parametrize("users", [1, 2, 5])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_collapsed_catalogue_comes_in_the_order_of_its_indices(users, block):
    vectors = torch.randn(users, 64, generator=torch.Generator().manual_seed(3))
    values, found = top_items(Query(vectors), torch.linspace(-1, 1, 64).repeat(211, 1), 9, block=block)
    assert found.tolist() == [list(range(9))] * users
    assert (values == values[:, :1]).all()


def test_bad_k_and_exclusion(items, one_sentence):
    query, index = Query(items[:23]), ItemIndex(items, cells=2, probes=2)
    seen = padded([[]] * 22 + [[3, 3, 4]])
    searches = (
        lambda k, seen=None: top_items(query, items, k, seen),
        lambda k, seen=None: index.search(query, k, seen),
    )
    for search in searches:
        one_sentence(lambda: search(212), "k is 212", "211 items", "from 1")
        one_sentence(lambda: search(0), "k is 0", "from 1")
        one_sentence(lambda: search(-1), "k is -1", "from 1")
        assert search(209, seen)[1].shape == (23, 209)
        one_sentence(lambda: search(210, seen), "k is 210", "only 209 items")
        one_sentence(lambda: search(1, padded([[]] * 22 + [[211]])), "211", "from 0 to 210")


def test_nan_has_no_order(items, one_sentence):
    vectors = items[:23].clone()
    vectors[4, 2] = math.nan
    query = Query(vectors)
    one_sentence(lambda: top_items(query, items, 3, block=64), "NaN", "check the checkpoint")
    one_sentence(lambda: ItemIndex(items, cells=2).search(query, 3), "NaN", "check the checkpoint")
    target = torch.zeros(23, dtype=torch.long)
    one_sentence(lambda: rank_by_blocks(query, items, target, block=64), "NaN", "check the checkpoint")


# ranks


@pytest.mark.parametrize("block", BLOCKS)
def test_ranks_by_blocks_equal_brute_force(query, items, block):
    for shift in range(0, 211, 23):  # every item is somebody's target
        target = (torch.arange(23) + shift) % 211
        seen = [[(n + 1) % 211, (n + 90) % 211, (n + 1) % 211, n][: n % 5] for n in target.tolist()]
        better, tied = rank_by_blocks(query, items, target, padded(seen), block)
        table = brute_force(query, items, seen)
        own = table[np.arange(23), target.numpy()][:, None]
        assert better.tolist() == (table > own).sum(1).tolist()
        assert tied.tolist() == (table == own).sum(1).tolist()
        dense = rank_of(scores(query, items), target, padded(seen))
        assert better.tolist() == dense[0].tolist() and tied.tolist() == dense[1].tolist()
        assert tied.max() > 1  # there are ties


@pytest.mark.parametrize("users", [1, 2, 3, 57])
@pytest.mark.parametrize("dim", [16, 17, 64, 100])
def test_equal_items_tie_wherever_they_stand(users, dim):
    """211 items, 70 of each of three kinds and one more: products of other shapes would round some differently."""
    generator = torch.Generator().manual_seed(dim)
    vectors, kinds = torch.randn(users, dim, generator=generator), torch.randn(3, dim, generator=generator)
    items, target = kinds[torch.arange(211) % 3], torch.randint(211, (users,), generator=generator)
    count = torch.tensor([71, 70, 70])
    exact = vectors.double() @ kinds.double().T
    own = exact.gather(1, (target % 3).unsqueeze(1))
    for block in BLOCKS:
        better, tied = rank_by_blocks(Query(vectors), items, target, block=block)
        assert tied.tolist() == count[target % 3].tolist()
        assert better.tolist() == ((exact > own) * count).sum(1).tolist()
        full = torch.cat([part for _, part in score_blocks(Query(vectors), items, block=block)], 1)
        assert torch.equal(full[:, 3:], full[:, :-3])


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_counts_are_exact_in_other_types(kind):
    items, target = torch.ones(5000, 4, dtype=kind), torch.tensor([0, 999, 4999])
    better, tied = rank_by_blocks(Query(torch.ones(3, 4, dtype=kind)), items, target, block=999)
    assert better.tolist() == [0, 0, 0] and tied.tolist() == [5000] * 3


# memory


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


def test_users_times_items_are_never_held():
    users, n_items, block = 100, 2000, 256
    vectors, items = torch.randn(users, 8), torch.randn(n_items, 8)
    target = torch.randint(n_items, (users,))
    seen = ((target + 1) % n_items).unsqueeze(1)
    query = Query(vectors, seen, torch.ones(users, 1))
    with Largest() as full:
        rank_of(scores(query, items), target)
    assert full.elements == users * n_items
    for call in (
        lambda: rank_by_blocks(query, items, target, seen, block),
        lambda: top_items(query, items, 10, seen, block),
        lambda: top_items(query, items.clone().fill_(1), 10, seen, block),
    ):
        with Largest() as held:
            call()
        assert users * 200 < held.elements <= users * block
    with Largest() as held:
        top_items(Query(torch.randn(2 * USERS, 8)), items, 10, block=block)
    assert held.elements <= USERS * block


# FAISS


def test_recall_counts_the_exact_items_found():
    exact = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(exact.flip(1), exact) == 1
    assert recall(torch.tensor([[4, 9, 1, 0], [0, 1, 2, 3]]), exact) == 0.25


def test_an_exhaustive_index_is_exact():
    items, vectors = clustered(3000, 24, 40)
    query = Query(vectors)
    exact = top_items(query, items, 15)
    for index in (ItemIndex(items, cells=1), ItemIndex(items, cells=20, probes=20)):
        assert index.shape == (3000, 24)
        values, found = index.search(query, 15)
        assert torch.equal(found, exact[1])
        torch.testing.assert_close(values, exact[0])
        seen = exact[1][:, ::2].clone()
        seen[:5, 2] = PAD  # the fifth item of the first five users may come back
        values, found = index.search(query, 7, seen)
        assert torch.equal(found[5:], exact[1][5:, 1::2])
        assert torch.equal(found[:5], exact[1][:5, [1, 3, 4, 5, 7, 9, 11]])
        assert torch.equal(found, top_items(query, items, 7, seen)[1])


def test_equal_items_of_an_index_keep_its_order_when_seen_ones_go():
    """60 equal items, more than a sort that isn't stable leaves alone."""
    index, query = ItemIndex(torch.ones(200, 4), cells=1), Query(torch.ones(3, 4))
    order = index.search(query, 60)[1]
    assert torch.equal(index.search(query, 30, order[:, ::2])[1], order[:, 1::2])


@pytest.mark.parametrize(
    "wrong",
    [{"cells": 0}, {"cells": 201}, {"cells": True}, {"cells": 4.0}, {"probes": 0}, {"probes": 1.5}, {"probes": "3"}],
)
def test_an_index_refuses_what_it_cannot_have(one_sentence, wrong):
    [(name, value)] = wrong.items()
    one_sentence(lambda: ItemIndex(torch.ones(200, 4), **wrong), f"{name} is {value!r}", "give")


def test_an_index_refuses_gains(one_sentence):
    items, vectors = clustered(400, 8, 5)
    query = Query(vectors, torch.zeros(5, 1, dtype=torch.long), torch.ones(5, 1))
    one_sentence(lambda: ItemIndex(items, cells=2).search(query, 3), "inner products only", "leave the index out")


def test_recall_on_clustered_items_rises_with_the_probes():
    table = retrieval_table(20_000, 32, 200, 10, probes=(4, 8, 32, 566))  # 566 = 4 sqrt(20,000): all cells
    found = table["recall"].tolist()
    assert found[0] == 1 and found[1:] == sorted(found[1:])
    assert found[1] < found[3] and found[3] > 0.95 and found[4] == 1
    assert (table["users_per_s"] > 0).all()
    assert table["index_MB"].iloc[1] == pytest.approx(20_000 * 32 * 4 / 1e6, rel=0.2)


def test_too_few_items_in_the_probed_cells(one_sentence):
    items, vectors = clustered(2000, 8, 5)
    index = ItemIndex(items, cells=200, probes=1)
    one_sentence(lambda: index.search(Query(vectors), 500), "k = 500", "raise probes")


def test_faiss_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError) as caught:
        ItemIndex(torch.randn(9, 4))
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "pip install" in text and "[faiss]" in text


def test_faiss_and_torch_share_a_process():
    """Both bring an OpenMP runtime: they take turns, on several threads, without a crash or a changed result."""
    faiss = pytest.importorskip("faiss")
    items, vectors = clustered(2000, 16, 50)
    query = Query(vectors)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        index = ItemIndex(items, cells=8, probes=8)
        for _ in range(5):
            assert torch.equal(index.search(query, 5)[1], top_items(query, items, 5)[1])
        assert faiss.omp_get_max_threads() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
