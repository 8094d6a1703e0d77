"""Eq. 9 and Eq. 10 at any size: sums over all |V| x |V| pairs of items, tile by tile, with exact gradients.

Both losses are a sum over every pair of a smooth function of the logit x_ij = z_i . z_j, plus a correction on the few
pairs that are edges (A_ij = 1):

    Eq. 9   sum_ij softplus(x_ij)                + sum_edges [ w softplus(-x_ij) - softplus(x_ij) ]
    Eq. 10  sum_ij (sigma(x_ij) - sigma(y_ij))^2                     y_ij = z*_i . z*_j
            sum_ij sigma(x_ij)^2                 + sum_edges [ 1 - 2 sigma(x_ij) ]      against A (-C_ground)
    counts  sum_ij softplus(x_ij)                + sum_edges w_ij softplus(-x_ij)       ours, see `beyond`

Autograd would keep every tile until the backward pass, which is the whole matrix again. `_TileSum` therefore works out
each tile's gradient while the tile is at hand and keeps only their sum, (|V|, d). The matrix is symmetric, so tiles
below the diagonal are never computed. The edges' logits are a sampled dense-dense product, so they too take memory for
the edges alone.

With a budget, the sum over all pairs is estimated from a random square of rows and columns, drawn without replacement:
unbiased, at a cost that no longer grows with |V|. The correction stays exact: it costs little, and it holds the large
weights, which would make the estimate noisy.

In a run of several processes the tiles are shared among them, and every process receives the same loss and gradient.
`losses.py` holds the same two losses in one line each; they are the reference.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dae4rec_core.config import PRECISIONS, free_bytes
from dae4rec_core.distributed import sum_over_processes, world
from dae4rec_core.method.graph import spmm, with_values

# a tile's logits, and the target's or None -> (sum of the loss, derivative by the logits); may overwrite its arguments
TileLoss = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
# the edges' logits -> (loss of each edge, derivative of each)
EdgeLoss = Callable[[Tensor], tuple[Tensor, Tensor]]


def reconstruction_loss(
    z: Tensor,
    adjacency: Tensor,
    pos_weight: float = 1.0,
    budget: int | None = None,
    generator: torch.Generator | None = None,
    tile: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """Eq. 9, -1/|V| sum_ij [ w A_ij log s(x_ij) + (1 - A_ij) log(1 - s(x_ij)) ]: `losses.gae_loss` without the matrix.

    z: (|V|, d). adjacency: (|V|, |V|) sparse CSR of ones. pos_weight: w. The other arguments: see `pair_sum`.
    Returns a scalar in z's dtype.
    """

    def edges(x: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(x)
        return pos_weight * F.softplus(-x) - F.softplus(x), pos_weight * (s - 1) - s

    return pair_sum(z, softplus_tile, None, adjacency, edges, budget, generator, tile, precision) / len(z)


def count_loss(
    z: Tensor,
    weights: Tensor,
    budget: int | None = None,
    generator: torch.Generator | None = None,
    tile: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """-1/|V| sum_ij [ w_ij log s(x_ij) + log(1 - s(x_ij)) ], which is least at s(x_ij) = w_ij / (1 + w_ij).

    z: (|V|, d). weights: (|V|, |V|) sparse CSR, symmetric, its values w_ij > 0. The other arguments: see `pair_sum`.
    Returns a scalar in z's dtype.
    """
    w = weights.values()

    def edges(x: Tensor) -> tuple[Tensor, Tensor]:
        return w * F.softplus(-x), -w * torch.sigmoid(-x)

    return pair_sum(z, softplus_tile, None, weights, edges, budget, generator, tile, precision) / len(z)


def similarity_loss(
    e: Tensor,
    target: Tensor,
    budget: int | None = None,
    generator: torch.Generator | None = None,
    tile: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """Eq. 10, 1/|V| ||sigma(E'E) - S*||^2: `losses.aime_loss` without the matrix.

    e: (|V|, d). target: Z* (|V|, d*), so that S* = sigma(Z*'Z*); or A as sparse CSR, the paper's -C_ground.
    The other arguments: see `pair_sum`. Returns a scalar in e's dtype.
    """
    if target.layout == torch.sparse_csr:
        return pair_sum(e, square_tile, None, target, _square_edges, budget, generator, tile, precision) / len(e)
    return pair_sum(e, difference_tile, target, None, None, budget, generator, tile, precision) / len(e)


def softplus_tile(x: Tensor, _: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """sum softplus(x), and sigma(x)."""
    return F.softplus(x).sum(), x.sigmoid_()


def difference_tile(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """sum (s - r)^2 with s = sigma(x), r = sigma(y), and 2 (s - r) s (1 - s)."""
    assert y is not None
    s, gap = x.sigmoid_(), y.sigmoid_()
    torch.sub(s, gap, out=gap)
    return gap.square().sum(), torch.addcmul(s, s, s, value=-1).mul_(gap).mul_(2)


def square_tile(x: Tensor, _: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """sum s^2 with s = sigma(x), and 2 s^2 (1 - s)."""
    s = x.sigmoid_()
    square = s * s
    return square.sum(), torch.addcmul(square, square, s, value=-1).mul_(2)


def _square_edges(x: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(x)
    return 1 - 2 * s, -2 * s * (1 - s)


def pair_sum(
    z: Tensor,
    tile_loss: TileLoss,
    target: Tensor | None = None,
    adjacency: Tensor | None = None,
    edge_loss: EdgeLoss | None = None,
    budget: int | None = None,
    generator: torch.Generator | None = None,
    tile: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """Sum of tile_loss over all |V| x |V| pairs, plus edge_loss over the entries of A, which is symmetric.

    z: (|V|, d); target: (|V|, d*) whose tiles tile_loss receives beside those of z; adjacency: sparse CSR, of which
        only the pattern is read.
    budget: pairs to look at; None, or as many as half the matrix holds, means exact. A smaller one draws sqrt(budget)
        rows and as many columns by `generator` (on the CPU); the estimate is unbiased.
    tile: edge length of a tile; None chooses 1024 on a CPU and 8192 on a GPU.
    precision: of z's tile products, "float32", "tf32" (CUDA) or "bfloat16"; sums are float32 at least.
    Raises ValueError for an unknown precision, or a tile that does not fit into memory.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Pair precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}.")
    n = len(z)
    edges = 0.0 if adjacency is None else _EdgeSum.apply(z, adjacency, edge_loss)
    if budget is None or budget >= n * (n + 1) // 2:
        tiles = upper_tiles(n, _tile_size(tile, n, z))
        return edges + _TileSum.apply(z, z, target, target, tile_loss, tiles, precision)

    m = max(1, int(budget**0.5))
    rows, columns = (torch.randperm(n, generator=generator)[:m].to(z.device) for _ in range(2))
    targets = (None, None) if target is None else (target[rows], target[columns])
    left, right = z.index_select(0, rows), z.index_select(0, columns)  # its gradient is quicker than that of z[rows]
    tiles = _grid_tiles(m, _tile_size(tile, m, z))
    return edges + (n / m) ** 2 * _TileSum.apply(left, right, *targets, tile_loss, tiles, precision)


def _tile_size(tile: int | None, n: int, z: Tensor) -> int:
    """The tile's edge length, never more than the matrix holds; checked against free memory."""
    # a GPU needs much work at once, a core wants a tile near its cache
    size = min(tile or (8192 if z.is_cuda else 1024), n)
    needed = 6 * size**2 * z.element_size()  # logits, the target's, their sigmoids and derivative
    free = free_bytes(z.device)
    if needed > free:
        raise ValueError(
            f"A tile of {size} x {size} pairs needs about {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are "
            "free; give a smaller pair_tile (none chooses one)."
        )
    return size


Tile = tuple[slice, slice, int]  # rows, columns, how often the tile counts


def upper_tiles(n: int, size: int) -> list[Tile]:
    """Tiles on and above the diagonal; those above it count twice, for their mirror image."""
    starts = range(0, n, size)
    return [(slice(a, a + size), slice(b, b + size), 1 if a == b else 2) for a in starts for b in starts if a <= b]


def _grid_tiles(m: int, size: int) -> list[Tile]:
    """All tiles of an m x m square, in strips of rows no higher than a process's even share of them."""
    height = min(size, -(-m // world()[1]))
    return [(slice(a, a + height), slice(b, b + size), 1) for a in range(0, m, height) for b in range(0, m, size)]


class _TileSum(torch.autograd.Function):
    """Sum over tiles of tile_loss(left[rows] @ right[columns].T), its gradient by left and right made on the way."""

    @staticmethod
    def forward(ctx, left, right, target_left, target_right, tile_loss, tiles, precision):
        rank, count = world()
        loss = _compiled(tile_loss) if left.is_cuda else tile_loss
        low = torch.bfloat16 if precision == "bfloat16" else left.dtype
        a, b = left.detach().to(low), right.detach().to(low)
        total = torch.zeros((), dtype=torch.float64, device=left.device)
        grad_left, grad_right = torch.zeros_like(left), torch.zeros_like(right)
        with _matmul_precision(precision):
            for rows, columns, weight in tiles[rank::count]:
                x = (a[rows] @ b[columns].T).to(left.dtype)
                y = None if target_left is None else target_left[rows] @ target_right[columns].T
                value, slope = loss(x, y)
                slope = slope.to(low)
                total += weight * value
                grad_left[rows].add_(slope @ b[columns], alpha=weight)
                grad_right[columns].add_(slope.T @ a[rows], alpha=weight)
        sum_over_processes(total, grad_left, grad_right)
        ctx.save_for_backward(grad_left, grad_right)
        return total.to(left.dtype)

    @staticmethod
    def backward(ctx, grad):
        grad_left, grad_right = ctx.saved_tensors
        return grad * grad_left, grad * grad_right, None, None, None, None, None


class _EdgeSum(torch.autograd.Function):
    """Sum over the edges of A (each counted in both directions, loops once) of edge_loss(z_i . z_j)."""

    @staticmethod
    def forward(ctx, z, adjacency, edge_loss):
        z = z.detach()
        pattern = adjacency.to(z.dtype)
        loss, slope = edge_loss(torch.sparse.sampled_addmm(pattern, z, z.T, beta=0).values())
        ctx.save_for_backward(2 * spmm(with_values(adjacency, slope), z))  # A and the slopes are symmetric
        return loss.sum(dtype=torch.float64).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


@contextlib.contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """Allow tf32 in CUDA's matrix products for a while."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


_fused: dict[TileLoss, TileLoss] = {}


def _compiled(tile_loss: TileLoss) -> TileLoss:
    """tile_loss as one fused kernel by torch.compile; as it is where the compiler can't run."""
    if tile_loss not in _fused:
        compiled = torch.compile(tile_loss, dynamic=True)

        def fused(x, y):
            try:
                return compiled(x, y)
            except Exception as error:  # no C compiler, no Triton: many kinds
                if torch.cuda.is_available() and isinstance(error, torch.OutOfMemoryError):
                    raise
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
                warnings.warn(f"The fused tile loss can't be compiled ({why}); the plain one is used.", stacklevel=2)
                _fused[tile_loss] = tile_loss
                return tile_loss(x, y)

        _fused[tile_loss] = fused
    return _fused[tile_loss]
