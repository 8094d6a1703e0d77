"""From queries to scores, ranks and top-k, block by block; and FAISS for catalogues past a million items.

The score of item i for a query q is q . E_i plus what the query grants to i (`method.model.scores` is the plain form).
Nobody here holds the scores of all users with all items at once.
"""

import math
from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from dae4rec_core.arguments import whole
from dae4rec_core.method.model import PAD, Query

BLOCK = 16_384  # items scored at once: at 1,024 users, 64 MB
USERS = 1024  # users whose top-k is sought at once
TILE = 64  # a multiple of the widths in which processors take the columns of a product


def score_blocks(
    query: Query, items: Tensor, seen: Tensor | None = None, block: int = BLOCK
) -> Iterator[tuple[int, Tensor]]:
    """Scores of B queries with items (|V|, d), at most `block` items at a time; those of `seen` items are -inf.

    seen: (B, M) item indices, filled with PAD. Yields (index of the first item, scores (B, at most block)): each item
    once, in order. Equal items get equal scores, bit for bit, wherever they stand, and the same scores each time.
    """
    vectors, users = query.vectors, len(query.vectors)
    if users == 1:
        vectors = vectors.repeat(2, 1)  # the product of a single row rounds by an item's place
    count = math.ceil(len(items) / block)
    size = math.ceil(len(items) / count)
    for first in range(0, len(items), size):
        # products of different shapes may round differently, so the last block starts early enough to be a whole one;
        # so may the columns of an incomplete tile, so the block is filled up with zeros
        start = min(first, len(items) - size)
        whole = F.pad(items[start : start + size], (0, 0, 0, -size % TILE))
        scores = F.linear(vectors, whole)[:users, first - start : size]
        if query.items is not None and query.gains is not None:
            user, place = _inside(query.items, first, scores.shape[1])
            at = user, query.items[user, place] - first
            scores = scores.index_put(at, query.gains[user, place].to(scores), accumulate=True)
        if seen is not None and seen.numel():
            user, place = _inside(seen, first, scores.shape[1])
            scores[user, seen[user, place] - first] = -torch.inf
        yield first, scores


def _inside(items: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Where (row, column) items are in first .. first + count - 1; PAD never is."""
    user, place = ((items >= first) & (items < first + count)).nonzero(as_tuple=True)
    return user, place


def compare(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """How many of a row's scores (B, n) are above its own (B, 1), and how many equal it: (B,) integers each.

    n may be up to 2^24, where float32 stops counting. Raises ValueError if a score is not a number.
    """
    check_numbers(scores.amax())
    marks = torch.empty(scores.shape, device=scores.device)  # float: summing booleans takes several times as long
    better = torch.gt(scores, own, out=marks).sum(1)
    tied = torch.eq(scores, own, out=marks).sum(1)
    return better.long(), tied.long()


def check_numbers(scores: Tensor) -> None:
    """Raises ValueError if a score is not a number, or infinite; -inf marks an item that isn't to be ranked."""
    if not (scores < torch.inf).all():  # "not" also refuses NaN
        raise ValueError("Scores hold NaN or infinity, so no rank exists; check the checkpoint or train at a lower lr.")


def rank_by_blocks(
    query: Query, items: Tensor, target: Tensor, seen: Tensor | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """How many items score above each target and how many share its score, itself included: (B,) integers each.

    query: of B users; items: (|V|, d); target: (B,) item indices; seen: items that are not ranked, see `score_blocks`.
    Scores of at most USERS x block pairs exist at once; beyond one block, every score is computed twice: a target's own
    comes first. Raises ValueError if a score is not a number.
    """
    found = [
        _rank_few(query.of(rows), items, target[rows], None if seen is None else seen[rows], block)
        for rows in _few_users(len(target))
    ]
    better, tied = (torch.cat(part) for part in zip(*found, strict=True))
    return better, tied


def _few_users(users: int) -> list[slice]:
    return [slice(start, start + USERS) for start in range(0, users, USERS)]


def _rank_few(query: Query, items: Tensor, target: Tensor, seen: Tensor | None, block: int) -> tuple[Tensor, Tensor]:
    if len(items) <= block:
        [(_, scores)] = score_blocks(query, items, seen, block)
        return compare(scores, scores.gather(1, target.unsqueeze(1)))
    own = query.vectors.new_empty(len(target), 1)
    for first, scores in score_blocks(query, items, seen, block):
        here = ((target >= first) & (target < first + scores.shape[1])).nonzero().squeeze(1)
        own[here, 0] = scores[here, target[here] - first]
    better, tied = torch.zeros_like(target), torch.zeros_like(target)
    for _, scores in score_blocks(query, items, seen, block):
        above, equal = compare(scores, own)
        better += above
        tied += equal
    return better, tied


def top_items(
    query: Query, items: Tensor, k: int, seen: Tensor | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """The k items of the largest score for each query: (scores (B, k), item indices (B, k)), best first.

    items: (|V|, d); seen: items never to be returned, see `score_blocks`. Equal scores come in the order of their
    indices. Scores of at most USERS x block pairs exist at once. Raises ValueError if fewer than k items can be
    returned, if a seen one is not in the catalogue, or if a score is not a number.
    """
    check_seen(seen, k, len(items))
    best = [
        _top_of_few(query.of(rows), items, k, None if seen is None else seen[rows], block)
        for rows in _few_users(len(query.vectors))
    ]
    values, found = (torch.cat(part) for part in zip(*best, strict=True))
    return values, found


def _top_of_few(query: Query, items: Tensor, k: int, seen: Tensor | None, block: int) -> tuple[Tensor, Tensor]:
    """`top_items` for as many queries as can be scored at once."""
    vectors = query.vectors
    best, index = vectors.new_empty(len(vectors), 0), vectors.new_empty(len(vectors), 0, dtype=torch.long)
    for first, scores in score_blocks(query, items, seen, block):
        values, places = _top_of_block(scores, k)
        # items of earlier blocks stand before those of later ones, so a stable sort keeps equal scores by index
        best, order = torch.cat([best, values], 1).sort(dim=1, descending=True, stable=True)
        index = torch.cat([index, places + first], 1).gather(1, order)[:, :k]
        best = best[:, :k]
    check_numbers(best)
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


def without_seen(scores: Tensor, seen: Tensor | None) -> Tensor:
    """scores (B, |V|) with -inf for the items of seen (B, M), which is filled with PAD: they are never listed."""
    if seen is None or not seen.numel():
        return scores
    user, place = (seen != PAD).nonzero(as_tuple=True)
    scores = scores.clone()  # a scorer may give the same row to everybody
    scores[user, seen[user, place]] = -torch.inf
    return scores


def check_seen(seen: Tensor | None, k: int, n_items: int) -> int:
    """The most distinct seen items that one user has. seen: (B, M), filled with PAD.

    Raises ValueError if k items can't be left for everybody.
    """
    most = 0
    if seen is not None and seen.numel():
        user, place = (seen != PAD).nonzero(as_tuple=True)
        item = seen[user, place]
        outside = item[(item < 0) | (item >= n_items)]
        if len(outside):
            raise ValueError(f"Item index {outside[0]} can't be excluded; give indices from 0 to {n_items - 1}.")
        if len(item):
            most = int((torch.unique(user * n_items + item) // n_items).bincount().max())
    if most == n_items:
        raise ValueError(
            f"Somebody's list leaves out all {n_items} items, so nothing is left to recommend; list seen items too "
            "(exclude_seen=False) or exclude fewer."
        )
    if not 1 <= k <= n_items - most:
        raise ValueError(f"k is {k}, but only {n_items - most} items can be recommended here; give a k from 1 to that.")
    return most


class ItemIndex:
    """Approximate top-k by inner product for catalogues past a million items, with FAISS (the extra `faiss`).

    An IVF index: k-means cuts the catalogue into cells, by default 4 sqrt(|V|) of them, and a search looks only into
    the `probes` cells whose centres have the largest inner product with the query; `probes` = `cells` is exact. It
    lives off clusters, so measure `recall` on your own vectors: embeddings without any structure are found badly. The
    index is a copy of items (|V|, d): build it anew when they change. FAISS uses as many threads as torch.
    Raises ImportError with one sentence where FAISS is missing, ValueError for impossible cells or probes.
    """

    def __init__(self, items: Tensor, cells: int | None = None, probes: int = 32):
        faiss = _faiss()
        cells = min(round(4 * math.sqrt(len(items))), len(items)) if cells is None else whole("cells", cells, least=1)
        if cells > len(items):
            raise ValueError(f"cells is {cells}; give at most {len(items)}, one for each item.")
        probes = whole("probes", probes, least=1)
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

    def search(self, query: Query, k: int, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `top_items` returns, approximately.

        Raises ValueError as `top_items` does, for a query with gains (an index knows inner products only), and if the
        probed cells hold fewer than k items for some query.
        """
        if query.items is not None:
            raise ValueError(
                "An index knows inner products only, and this model adds to some scores (returns or neighbours); "
                "leave the index out."
            )
        _faiss()
        vectors, n_items = query.vectors, self.ivf.ntotal
        check_numbers(vectors)
        most = check_seen(seen, k, n_items)
        values, found = map(torch.from_numpy, self.ivf.search(vectors.detach().float().cpu().numpy(), k + most))
        gone = found < 0
        if seen is not None and seen.numel():
            user = torch.arange(len(found)).unsqueeze(1) * (n_items + 1) + 1  # PAD and item -1 stay apart from items
            gone |= torch.isin(user + found, (user + seen.cpu()).flatten())
        values, order = values.masked_fill(gone, -torch.inf).sort(dim=1, descending=True, stable=True)
        if (gone.shape[1] - gone.sum(1) < k).any():
            raise ValueError(f"The probed cells of the index hold fewer than k = {k} items for a user; raise probes.")
        found = found.gather(1, order)
        return values[:, :k].to(vectors.device), found[:, :k].to(vectors.device)


def _faiss() -> ModuleType:
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
