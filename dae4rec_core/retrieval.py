"""Inner products of a few vectors with a large catalogue, block by block: top-k, ranks, and FAISS beyond a million.

The score of item i for a query q is q . E_i. Nobody here holds the scores of all users with all items at once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dae4rec_core.data import PAD

BLOCK = 16_384  # items scored at once: at 1,024 users, 64 MB
USERS = 1024  # users whose top-k is sought at once
TILE = 64  # a multiple of the widths in which processors take the columns of a product


@dataclass(frozen=True)
class EmbeddingScorer:
    """A scorer by inner product, which can also be ranked block by block, without its (B, |V|) scores.

    queries: a function from histories (B, L) to vectors (B, d); items: (|V|, d). Called with histories, it gives the
    full scores (B, |V|), as any scorer does. bonus: from histories to a few items (B, M), filled with PAD, and what
    their scores gain (B, M).
    """

    queries: Callable[[Tensor], Tensor]
    items: Tensor
    bonus: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, history: Tensor) -> Tensor:
        scores = F.linear(self.queries(history), self.items)
        return scores if self.bonus is None else add_bonus(scores, *self.bonus(history))


def add_bonus(scores: Tensor, items: Tensor, bonus: Tensor) -> Tensor:
    """Scores (B, |V|) with bonus (B, M) added to items (B, M); an item named twice gains twice.

    Where items is PAD, bonus must be 0.
    """
    return scores.scatter_add(1, items.clamp(min=0).to(scores.device), bonus.to(scores))


def score_blocks(queries: Tensor, items: Tensor, block: int = BLOCK) -> Iterator[tuple[int, Tensor]]:
    """Scores of queries (B, d) with items (|V|, d), at most `block` items at a time.

    Yields (index of the first item, scores (B, at most block)): each item once, in order. Equal items get equal scores,
    bit for bit, wherever they stand, and the same scores each time.
    """
    users = len(queries)
    if users == 1:
        queries = queries.repeat(2, 1)  # the product of a single row rounds by an item's place
    count = math.ceil(len(items) / block)
    size = math.ceil(len(items) / count)
    for first in range(0, len(items), size):
        # products of different shapes may round differently, so the last block starts early enough to be a whole one;
        # so may the columns of an incomplete tile, so the block is filled up with zeros
        start = min(first, len(items) - size)
        whole = F.pad(items[start : start + size], (0, 0, 0, -size % TILE))
        yield first, F.linear(queries, whole)[:users, first - start : size]


def compare(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """How many of a row's scores (B, n) are above its own (B, 1), and how many equal it: (B,) integers each.

    n may be up to 2^24, where float32 stops counting. Raises ValueError if a score is not a number.
    """
    _check_numbers(scores.amax())
    marks = torch.empty(scores.shape, device=scores.device)  # float: summing booleans takes several times as long
    better = torch.gt(scores, own, out=marks).sum(1)
    tied = torch.eq(scores, own, out=marks).sum(1)
    return better.long(), tied.long()


def _check_numbers(scores: Tensor) -> None:
    if scores.isnan().any():
        raise ValueError("Scores hold NaN, so no rank exists; check the checkpoint or lower the learning rate.")


def rank_by_blocks(queries: Tensor, items: Tensor, target: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """`ranking.rank_of` for inner products, with the scores of at most B x block pairs at once.

    queries: (B, d); items: (|V|, d); target: (B,) item indices. Returns (better, tied), each (B,) integers, the target
    counted among the tied. Beyond one block, every score is computed twice: a target's own score comes first.
    Raises ValueError if a score is not a number.
    """
    if len(items) <= block:
        [(_, scores)] = score_blocks(queries, items, block)
        return compare(scores, scores.gather(1, target.unsqueeze(1)))
    own = torch.empty(len(queries), 1, dtype=queries.dtype, device=queries.device)
    for first, scores in score_blocks(queries, items, block):
        here = ((target >= first) & (target < first + scores.shape[1])).nonzero().squeeze(1)
        own[here, 0] = scores[here, target[here] - first]
    better, tied = torch.zeros_like(target), torch.zeros_like(target)
    for _, scores in score_blocks(queries, items, block):
        above, equal = compare(scores, own)
        better += above
        tied += equal
    return better, tied


def top_items(
    queries: Tensor, items: Tensor, k: int, exclude: Tensor | list | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """The k items of the largest inner product with each query: (scores (B, k), item indices (B, k)), best first.

    queries: (B, d); items: (|V|, d); exclude: items never to be returned, a list of indices a query or a tensor (B, L)
    filled with PAD. Equal scores come in the order of their indices. Scores of at most USERS x block pairs exist at
    once. Raises ValueError if fewer than k items can be returned, if an excluded one is not in the catalogue, or if a
    score is not a number.
    """
    user, banned = _distinct_pairs(exclude, len(queries), len(items), queries.device)
    _check_k(k, user, len(items))
    values, found = [], []
    for start in range(0, len(queries), USERS):
        few = queries[start : start + USERS]
        mine = (user >= start) & (user < start + USERS)
        best = _top_of_few(few, items, k, user[mine] - start, banned[mine], block)
        values.append(best[0])
        found.append(best[1])
    return torch.cat(values), torch.cat(found)


def top_scores(scores: Tensor, k: int, exclude: Tensor | list | None = None) -> tuple[Tensor, Tensor]:
    """`top_items` for scores (B, |V|) that are at hand."""
    user, banned = _distinct_pairs(exclude, *scores.shape, scores.device)
    _check_k(k, user, scores.shape[1])
    scores = scores.clone()
    scores[user, banned] = -torch.inf
    values, places = _top_of_block(scores, k)
    _check_numbers(values)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)


def _top_of_few(queries: Tensor, items: Tensor, k: int, user: Tensor, banned: Tensor, block: int):
    """`top_items` for as many queries as can be scored at once, without the pairs (user, banned)."""
    best = torch.empty(len(queries), 0, dtype=queries.dtype, device=queries.device)
    index = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for first, scores in score_blocks(queries, items, block):
        here = (banned >= first) & (banned < first + scores.shape[1])
        scores[user[here], banned[here] - first] = -torch.inf
        values, places = _top_of_block(scores, k)
        # items of earlier blocks stand before those of later ones, so a stable sort keeps equal scores by index
        best, order = torch.cat([best, values], 1).sort(dim=1, descending=True, stable=True)
        index = torch.cat([index, places + first], 1).gather(1, order)[:, :k]
        best = best[:, :k]
    _check_numbers(best)
    return best, index


def _top_of_block(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The min(k, n) largest of each row of (B, n), of equal ones the first, in the order of their places."""
    k = min(k, scores.shape[1])
    values, places = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    # topk takes any of those that share the k-th score
    crowded = values[:, k - 1] == values[:, -1] if values.shape[1] > k else torch.zeros(0, dtype=torch.bool)
    values, places = values[:, :k], places[:, :k]
    if crowded.any():
        ordered = scores[crowded].sort(dim=1, descending=True, stable=True)
        values[crowded], places[crowded] = ordered.values[:, :k], ordered.indices[:, :k]
    places, order = places.sort(1)
    return values.gather(1, order), places


def _distinct_pairs(exclude, users: int, n_items: int, device) -> tuple[Tensor, Tensor]:
    """`exclude` as the distinct pairs (user, item): two long tensors, sorted by user."""
    if exclude is None:
        exclude = torch.empty(users, 0, dtype=torch.long)
    elif not isinstance(exclude, Tensor):
        rows = [torch.as_tensor(items, dtype=torch.long) for items in exclude]
        exclude = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    exclude = exclude.to(device)
    user, place = (exclude != PAD).nonzero(as_tuple=True)
    item = exclude[user, place]
    outside = item[(item < 0) | (item >= n_items)]
    if len(outside):
        raise ValueError(f"Item index {outside[0]} can't be excluded; give indices from 0 to {n_items - 1}.")
    pair = torch.unique(user * n_items + item)
    return pair // n_items, pair % n_items


def _check_k(k: int, user: Tensor, n_items: int) -> None:
    """Raises ValueError if some user (one entry of `user` for each excluded item) has fewer than k items left."""
    room = n_items - int(user.bincount().max()) if len(user) else n_items
    if not 1 <= k <= room:
        raise ValueError(f"k is {k}, but only {room} items can be recommended here; give a k from 1 to that.")


class ItemIndex:
    """Approximate top-k by inner product for catalogues past a million items, with FAISS (the extra `faiss`).

    An IVF index: k-means cuts the catalogue into cells, by default 4 sqrt(|V|) of them, and a search looks only into
    the `probes` cells whose centres have the largest inner product with the query; `probes` = `cells` is exact. It
    lives off clusters, so measure `recall` on your own vectors: embeddings without any structure are found badly. The
    index is a copy of items (|V|, d): build it anew when they change. FAISS uses as many threads as torch.
    Raises ImportError with one sentence where FAISS is missing.
    """

    def __init__(self, items: Tensor, cells: int | None = None, probes: int = 32):
        faiss = _faiss()
        cells = min(round(4 * math.sqrt(len(items))), len(items)) if cells is None else cells
        vectors = items.detach().float().cpu().numpy()
        self.ivf = faiss.index_factory(items.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
        self.ivf.cp.min_points_per_centroid = 1  # no warning for small catalogues
        self.ivf.cp.max_points_per_centroid = 64  # k-means on a sample, to be built in seconds
        self.ivf.train(vectors)
        self.ivf.add(vectors)
        self.ivf.nprobe = probes

    @property
    def shape(self) -> tuple[int, int]:
        """(|V|, d) of the items inside."""
        return self.ivf.ntotal, self.ivf.d

    @property
    def megabytes(self) -> float:
        """Size of the index, its copy of the items included."""
        return _faiss().serialize_index(self.ivf).nbytes / 1e6

    def search(self, queries: Tensor, k: int, exclude: Tensor | list | None = None) -> tuple[Tensor, Tensor]:
        """What `top_items` returns, approximately. queries: (B, d); exclude: as there.

        Raises ValueError as `top_items` does, and if the probed cells hold fewer than k items for some query.
        """
        _faiss()
        _check_numbers(queries)
        n_items = self.ivf.ntotal
        user, banned = _distinct_pairs(exclude, len(queries), n_items, "cpu")
        _check_k(k, user, n_items)
        most = int(user.bincount().max()) if len(user) else 0
        values, found = map(torch.from_numpy, self.ivf.search(queries.detach().float().cpu().numpy(), k + most))
        pair = torch.arange(len(queries)).unsqueeze(1) * n_items + found
        gone = (found < 0) | torch.isin(pair, user * n_items + banned)
        values, order = values.masked_fill(gone, -torch.inf).sort(dim=1, descending=True, stable=True)
        if (gone.shape[1] - gone.sum(1) < k).any():
            raise ValueError(f"The probed cells of the index hold fewer than k = {k} items for a user; raise probes.")
        found = found.gather(1, order)
        return values[:, :k].to(queries.device), found[:, :k].to(queries.device)


def _faiss():
    """The module, with its number of threads set to torch's."""
    try:
        import faiss
    except ImportError:
        raise ImportError(
            'An ItemIndex needs FAISS, which is not installed; run pip install -e ".[faiss]", or go without an index.'
        ) from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def recall(found: Tensor, exact: Tensor) -> float:
    """The share of the exact items that were found, mean over queries. found, exact: (B, k) item indices."""
    return (exact.unsqueeze(2) == found.unsqueeze(1)).any(2).double().mean().item()
