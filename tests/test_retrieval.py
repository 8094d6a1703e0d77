"""Top-k and ranks by blocks against float64 brute force, torch.topk on the full scores, and FAISS."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.retrieval import clustered, retrieval_table
from dae4rec_core.data import PAD
from dae4rec_core.ranking import rank_of
from dae4rec_core.retrieval import USERS, ItemIndex, rank_by_blocks, recall, score_blocks, top_items

BLOCKS = [2, 7, 64, 100, 211, 212, 500]  # dividing 211 items or not, one item left over, larger than the catalogue


@pytest.fixture(scope="module")
def vectors():
    """Queries (23, 12) and items (211, 12) of small whole numbers: every score is exact, and many are equal."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(-2, 3, (23, 12), generator=generator).float()
    return queries, torch.randint(-2, 3, (211, 12), generator=generator).float()


def brute_force(queries, items, k, exclude=None):
    """The first k by (score downwards, index), in numpy and float64."""
    scores = queries.double().numpy() @ items.double().numpy().T
    for row, gone in zip(scores, exclude or [[]] * len(queries), strict=True):
        row[list(gone)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


# top-k


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("k", [1, 10, 90, 211])  # below and above the size of a block, and everything
def test_top_items_equal_brute_force_ties_by_index(vectors, block, k):
    values, found = top_items(*vectors, k, block=block)
    expected, order = brute_force(*vectors, k)
    assert found.tolist() == order.tolist()
    assert values.tolist() == expected.tolist()


def test_top_items_equal_topk_of_the_full_scores():
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(USERS + 5, 16, generator=generator)  # more users than are scored at once
    items = torch.randn(999, 16, generator=generator)
    values, found = top_items(queries, items, 20, block=128)
    best = (queries @ items.T).topk(20)
    assert torch.equal(found, best.indices)
    torch.testing.assert_close(values, best.values)


@pytest.mark.parametrize("block", BLOCKS)
def test_excluded_items_never_come_back(vectors, block):
    queries, items = vectors
    _, order = brute_force(queries, items, 211)
    # of each user the best items in turn, one of them twice, and for one user nothing
    exclude = [[*order[user, :user], *order[user, :1]] if user else [] for user in range(23)]
    padded = torch.full((23, 30), PAD)
    for row, gone in zip(padded, exclude, strict=True):
        row[30 - len(gone) :] = torch.tensor(gone)
    expected, order = brute_force(queries, items, 12, exclude)
    for given in (exclude, padded):
        values, found = top_items(queries, items, 12, given, block)
        assert found.tolist() == order.tolist()
        assert values.tolist() == expected.tolist()


def test_exclusion_holds_beyond_the_first_users():
    queries, items = torch.ones(USERS + 3, 2), torch.arange(10.0).repeat(2, 1).T.contiguous()
    exclude = torch.full((USERS + 3, 1), PAD)
    exclude[USERS + 1] = 9
    found = top_items(queries, items, 1, exclude)[1].squeeze(1)
    assert found.tolist() == [9] * (USERS + 1) + [8] + [9]


def test_exactly_k_left_is_enough(vectors):
    queries, items = vectors
    exclude = torch.arange(206).repeat(23, 1)
    for block in BLOCKS:
        found = top_items(queries, items, 5, exclude, block)[1]
        assert found.sort(1).values.tolist() == [[206, 207, 208, 209, 210]] * 23


@pytest.mark.parametrize("users", [1, 2, 5])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_collapsed_catalogue_comes_in_the_order_of_its_indices(users, block):
    queries = torch.randn(users, 64, generator=torch.Generator().manual_seed(3))
    items = torch.linspace(-1, 1, 64).repeat(211, 1)
    values, found = top_items(queries, items, 9, block=block)
    assert found.tolist() == [list(range(9))] * users
    assert (values == values[:, :1]).all()


def test_bad_k_and_exclusion(vectors, one_sentence):
    queries, items = vectors
    index = ItemIndex(items, cells=2, probes=2)
    seen = [[]] * 22 + [[3, 3, 4]]
    for search in (lambda k, e=None: top_items(queries, items, k, e), lambda k, e=None: index.search(queries, k, e)):
        one_sentence(lambda: search(212), "k is 212", "211 items", "from 1")
        one_sentence(lambda: search(0), "k is 0", "from 1")
        one_sentence(lambda: search(-1), "k is -1", "from 1")
        assert search(209, seen)[1].shape == (23, 209)
        one_sentence(lambda: search(210, seen), "k is 210", "only 209 items")
        one_sentence(lambda: search(1, [[]] * 22 + [[211]]), "211", "from 0 to 210")


def test_nan_has_no_order(vectors, one_sentence):
    queries, items = vectors[0].clone(), vectors[1]
    queries[4, 2] = math.nan
    one_sentence(lambda: top_items(queries, items, 3, block=64), "NaN", "check the checkpoint")
    one_sentence(lambda: ItemIndex(items, cells=2).search(queries, 3), "NaN", "check the checkpoint")
    one_sentence(lambda: rank_by_blocks(queries, items, torch.zeros(23, dtype=torch.long), 64), "NaN")


# ranks


@pytest.mark.parametrize("block", BLOCKS)
def test_ranks_by_blocks_equal_the_ranks_of_full_scores(vectors, block):
    queries, items = vectors
    for shift in range(0, 211, 23):  # every item is somebody's target
        target = (torch.arange(23) + shift) % 211
        found = rank_by_blocks(queries, items, target, block)
        for ours, theirs in zip(found, rank_of(queries @ items.T, target), strict=True):
            assert torch.equal(ours, theirs)
        assert found[1].max() > 1  # there are ties


@pytest.mark.parametrize("users", [1, 2, 3, 57])
@pytest.mark.parametrize("dim", [16, 17, 64, 100])
def test_equal_items_tie_wherever_they_stand(users, dim):
    """211 items, 70 of each of three kinds and one more: products of other shapes would round some differently."""
    generator = torch.Generator().manual_seed(dim)
    queries, kinds = torch.randn(users, dim, generator=generator), torch.randn(3, dim, generator=generator)
    items, target = kinds[torch.arange(211) % 3], torch.randint(211, (users,), generator=generator)
    count = torch.tensor([71, 70, 70])
    scores = queries.double() @ kinds.double().T
    own = scores.gather(1, (target % 3).unsqueeze(1))
    for block in BLOCKS:
        better, tied = rank_by_blocks(queries, items, target, block)
        assert tied.tolist() == count[target % 3].tolist()
        assert better.tolist() == ((scores > own) * count).sum(1).tolist()
        full = torch.cat([scores for _, scores in score_blocks(queries, items, block)], 1)
        assert torch.equal(full[:, 3:], full[:, :-3])


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_counts_are_exact_in_other_types(kind):
    items = torch.ones(5000, 4, dtype=kind)
    better, tied = rank_by_blocks(torch.ones(3, 4, dtype=kind), items, torch.tensor([0, 999, 4999]), 999)
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
    users, n_items, block = 300, 5000, 256
    queries, items = torch.randn(users, 8), torch.randn(n_items, 8)
    target = torch.randint(n_items, (users,))
    with Largest() as full:
        rank_of(queries @ items.T, target)
    assert full.elements == users * n_items
    for call in (
        lambda: rank_by_blocks(queries, items, target, block),
        lambda: top_items(queries, items, 10, target.unsqueeze(1), block),
        lambda: top_items(queries, items.clone().fill_(1), 10, target.unsqueeze(1), block),
    ):
        with Largest() as seen:
            call()
        assert users * 200 < seen.elements <= users * block
    many = torch.randn(3 * USERS, 8)
    with Largest() as seen:
        top_items(many, items, 10, block=block)
    assert seen.elements <= USERS * block


# FAISS


def test_recall_counts_the_exact_items_found():
    exact = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(exact.flip(1), exact) == 1
    assert recall(torch.tensor([[4, 9, 1, 0], [0, 1, 2, 3]]), exact) == 0.25


def test_an_exhaustive_index_is_exact():
    items, queries = clustered(3000, 24, 40)
    exact = top_items(queries, items, 15)
    for index in (ItemIndex(items, cells=1), ItemIndex(items, cells=20, probes=20)):
        assert index.shape == (3000, 24)
        values, found = index.search(queries, 15)
        assert torch.equal(found, exact[1])
        torch.testing.assert_close(values, exact[0])
        exclude = exact[1][:, ::2]
        values, found = index.search(queries, 7, exclude)
        assert torch.equal(found, exact[1][:, 1::2])
        assert torch.equal(found, top_items(queries, items, 7, exclude)[1])
        assert index.search(queries, 7, exclude.tolist())[1].tolist() == found.tolist()


def test_recall_on_clustered_items_rises_with_the_probes():
    table = retrieval_table(20_000, 32, 200, 10, probes=(4, 8, 32, 566))  # 566 = 4 sqrt(20,000): all cells
    figures = table["recall"].tolist()
    assert figures[0] == 1 and figures[1:] == sorted(figures[1:])
    assert figures[1] < figures[3] and figures[3] > 0.95 and figures[4] == 1
    assert (table["users_per_s"] > 0).all()
    assert table["index_MB"].iloc[1] == pytest.approx(20_000 * 32 * 4 / 1e6, rel=0.2)


def test_too_few_items_in_the_probed_cells(one_sentence):
    items, queries = clustered(2000, 8, 5)
    index = ItemIndex(items, cells=200, probes=1)
    one_sentence(lambda: index.search(queries, 500), "k = 500", "raise probes")


def test_faiss_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError) as caught:
        ItemIndex(torch.randn(9, 4))
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "pip install" in text and "[faiss]" in text


def test_faiss_and_torch_share_a_process():
    """Both bring an OpenMP runtime: they take turns, on several threads, without a crash or a changed result."""
    faiss = pytest.importorskip("faiss")
    items, queries = clustered(2000, 16, 50)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        index = ItemIndex(items, cells=8, probes=8)
        for _ in range(5):
            assert torch.equal(index.search(queries, 5)[1], top_items(queries, items, 5)[1])
        assert faiss.omp_get_max_threads() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
