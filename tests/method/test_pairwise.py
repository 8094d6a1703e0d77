"""The tiled pair losses against the dense ones in float64, and their estimates against the theory of sampling."""

import functools
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from dae4rec_core.method import pairwise
from dae4rec_core.method.graph import ItemGraph, adjacency, normalized_adjacency, spmm, with_values
from dae4rec_core.method.losses import aime_loss, gae_loss
from dae4rec_core.method.pairwise import count_loss, reconstruction_loss, similarity_loss

N, DIM = 101, 6  # a prime: no tile divides it
RNG = np.random.default_rng(0)
EDGES = np.unique(np.sort(RNG.integers(0, N, (400, 2)), axis=1), axis=0)
GRAPH = ItemGraph(N, EDGES[EDGES[:, 0] != EDGES[:, 1]])
A = adjacency(GRAPH)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def items(seed: int, dtype=torch.float64, n: int = N, dim: int = DIM) -> torch.Tensor:
    return torch.randn(n, dim, generator=generator(seed), dtype=dtype)


def weighted(a: torch.Tensor) -> torch.Tensor:
    """A with a symmetric positive weight on each of its ones: sparse CSR, float64."""
    dense = a.to_dense().double() * (1 + torch.arange(len(a)).remainder(5)).double()
    dense = dense * dense.T
    return with_values(a, dense[a.to_dense() == 1])


def dense_count_loss(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """By PyTorch: w_ij -log s + -log(1 - s), the same logits asked for 1 with weight w and for 0 with weight 1."""
    logits, w = x @ x.T, weights.to_dense().to(x.dtype)
    each = torch.nn.functional.binary_cross_entropy_with_logits
    ones, zeros = (each(logits, torch.full_like(w, label), reduction="none") for label in (1.0, 0.0))
    return (w * ones + zeros).sum() / len(x)


def pairs_of(a: torch.Tensor, z_star: torch.Tensor) -> dict:
    """name: (tiled, dense) for a catalogue."""
    weights = weighted(a)
    return {
        "counts": (
            lambda x, **k: count_loss(x, weights.to(x.dtype), **k),
            lambda x: dense_count_loss(x, weights),
        ),
        "Eq. 9": (
            lambda x, **k: reconstruction_loss(x, a, 7.3, **k),
            lambda x: gae_loss(x, a, 7.3),
        ),
        "Eq. 10": (
            lambda x, **k: similarity_loss(x, z_star.to(x.dtype), **k),
            lambda x: aime_loss(x, torch.sigmoid(z_star @ z_star.T).to(x.dtype)),
        ),
        "Eq. 10 on A": (
            lambda x, **k: similarity_loss(x, a, **k),
            lambda x: aime_loss(x, a.to_dense().to(x.dtype)),
        ),
    }


Z_STAR = items(9)
PAIRS = pairs_of(A, Z_STAR)
FEW = 7  # so few that every draw of rows and columns can be listed
FEW_PAIRS = pairs_of(adjacency(ItemGraph(FEW, np.array([[0, 3], [1, 2], [2, 6]]))), items(9, n=FEW))


def value_and_gradient(loss, x):
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("tile", [1, 7, 50, 101, 4000, None])
@pytest.mark.parametrize("name", PAIRS)
def test_tiles_equal_the_dense_loss_and_gradient(name, tile):
    """float64, any tile size, dividing or not (1e-12 relative)."""
    tiled, dense = PAIRS[name]
    value, gradient = value_and_gradient(lambda x: tiled(x, tile=tile), items(1))
    expected, expected_gradient = value_and_gradient(dense, items(1))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FEW_PAIRS)
def test_the_tiled_gradient_is_the_derivative(name):
    """Finite differences in float64, through a function of the loss."""
    tiled, _ = FEW_PAIRS[name]
    assert torch.autograd.gradcheck(lambda x: tiled(x, tile=5) ** 2 * 0.01, 0.3 * items(2, n=FEW).requires_grad_())


def test_the_count_loss_is_least_at_the_similarities_that_the_weights_ask_for():
    """s = w / (1 + w), the closed form: with w = exp(z_i . z_j) its gradient is 0 at z, and any way from z leads up."""
    z, step = 0.5 * items(3, n=FEW), 0.05 * items(4, n=FEW)
    weights = (z @ z.T).exp().to_sparse_csr()
    value, gradient = value_and_gradient(lambda x: count_loss(x, weights), z)
    torch.testing.assert_close(gradient, torch.zeros_like(z), rtol=0, atol=1e-10)
    assert all(count_loss(z + sign * step, weights) > value for sign in (-1, 1))
    assert value_and_gradient(lambda x: count_loss(x, weights), z + step)[1].norm() > 0.01


@pytest.mark.parametrize("n, size", [(1, 1), (7, 2), (9, 3), (10, 4), (5, 5), (3, 8)])
def test_upper_tiles_count_every_pair_once(n, size):
    """With its weight, and its mirror image where that is computed too, every pair counts once."""
    weights = torch.zeros(n, n)
    for rows, columns, weight in pairwise.upper_tiles(n, size):
        weights[rows, columns] += weight
    assert torch.equal((weights + weights.T) / 2, torch.ones(n, n))
    assert weights.count_nonzero() < n * n or size >= n  # not all of them


@pytest.mark.slow
def test_float32_at_two_thousand_items_is_within_a_hundred_thousandth_of_dense_float64():
    """The issue's target, value and gradient (relative norm below 1e-5), for logits from tiny to saturated."""
    n, dim = 2_000, 64
    edges = np.unique(np.sort(RNG.integers(0, n, (9_000, 2)), axis=1), axis=0)
    a = adjacency(ItemGraph(n, edges[edges[:, 0] != edges[:, 1]]))
    z_star = items(3, n=n, dim=dim) * 0.3
    for scale in (0.01, 0.2, 1.0):
        x = scale * items(4, n=n, dim=dim)
        for tiled, dense in (
            (lambda x: reconstruction_loss(x, a, 200.0), lambda x: gae_loss(x, a, 200.0)),
            (lambda x: similarity_loss(x, z_star.to(x.dtype)), lambda x: aime_loss(x, (z_star @ z_star.T).sigmoid())),
        ):
            value, gradient = value_and_gradient(tiled, x.float())
            expected, expected_gradient = value_and_gradient(dense, x)
            assert abs(value.item() / expected.item() - 1) < 1e-5
            assert (gradient - expected_gradient).norm() < 1e-5 * expected_gradient.norm()


def test_logits_far_out_neither_overflow_nor_lose_the_loss():
    """Logits of +-10,000: softplus is the logit itself, or 0."""
    z = torch.tensor([[100.0, 0.0], [-100.0, 0.0], [0.0, 1e-3]])
    a = adjacency(ItemGraph(3, np.array([[0, 1]])))
    value, gradient = value_and_gradient(lambda x: reconstruction_loss(x, a, 2.0), z)
    assert value.item() == pytest.approx(gae_loss(z.double(), a, 2.0).item(), rel=1e-6)
    assert value.item() > 10_000 and gradient.isfinite().all()


def test_no_matrix_is_ever_held():
    """The largest tensor of a step is a tile, the embeddings or the edges, not |V| x |V|."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.layout == torch.strided:
                self.size = max(self.size, out.numel())
            return out

    for tiled, _ in PAIRS.values():
        with Largest() as largest:
            value_and_gradient(lambda x: tiled(x, tile=20), items(5))
        assert N * DIM <= largest.size <= A.values().numel() < 0.1 * N**2


# ---- the estimate ------------------------------------------------------------------------------


def pair_values(x):
    """What the tiles sum for Eq. 10, by pair: (|V|, |V|) float64."""
    return (torch.sigmoid(x @ x.T) - torch.sigmoid(Z_STAR @ Z_STAR.T)).square()


def test_the_estimate_is_unbiased_and_has_the_variance_of_two_way_sampling():
    """1,500 draws of 20 rows and 20 columns without replacement.

    With row effects r_i, column effects c_j and interactions e_ij around the mean of f (each with its own sample
    variance S^2), the mean over m rows and m columns has variance (1 - m/n)/m (S_r^2 + S_c^2) + ((1 - m/n)/m)^2 S_e^2:
    Cochran's finite population formula, in both directions. Mean within 5 standard errors; variance within 18%, about
    five standard errors of an empirical variance.
    """
    m, draws, x = 20, 1_500, items(6)
    f = pair_values(x)
    rows, columns = f.mean(1), f.mean(0)
    rest = f - rows[:, None] - columns[None] + f.mean()
    share = (1 - m / N) / m
    variance = share * (rows.var() + columns.var()) + share**2 * rest.square().sum() / (N - 1) ** 2
    draw = generator(0)
    estimates = torch.stack([similarity_loss(x, Z_STAR, m * m, draw) for _ in range(draws)]) / N  # mean over pairs
    assert estimates.mean().item() == pytest.approx(f.mean().item(), abs=5 * (variance / draws).sqrt().item())
    assert estimates.var().item() == pytest.approx(variance.item(), rel=0.18)


@pytest.mark.parametrize("name", FEW_PAIRS)
def test_the_estimate_and_its_gradient_are_unbiased(name, monkeypatch):
    """Their means over all draws of 2 rows and 2 columns of 7, 21 x 21 of them, are the loss and its gradient."""
    tiled, dense = FEW_PAIRS[name]
    two = [torch.tensor(pair) for pair in itertools.combinations(range(FEW), 2)]
    draws = itertools.product(two, two)
    script = itertools.chain.from_iterable(draws)
    monkeypatch.setattr(pairwise.torch, "randperm", lambda n, generator: next(script))
    found = [value_and_gradient(lambda x: tiled(x, budget=4), items(7, n=FEW)) for _ in range(len(two) ** 2)]
    assert next(script, None) is None
    values, gradients = (torch.stack(part) for part in zip(*found, strict=True))
    value, gradient = value_and_gradient(dense, items(7, n=FEW))
    assert values.std() > 0.01 * value
    torch.testing.assert_close(values.mean(), value, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients.mean(0), gradient, rtol=1e-9, atol=1e-10)


def test_a_budget_decides_how_many_pairs_are_computed(monkeypatch):
    seen = []

    def counting(x, y):
        seen.append(x.numel())
        return pairwise.difference_tile(x, y)

    half = N * (N + 1) // 2
    for budget, side in ((1, 1), (3, 1), (4, 2), (100, 10), (101, 10), (2_500, 50), (half - 1, 71)):
        seen.clear()
        pairwise.pair_sum(items(8), counting, Z_STAR, budget=budget, generator=generator(0))
        assert sum(seen) == side**2 <= budget
    whole = pair_values(items(8)).sum()
    for budget in (None, half, half + 1, 10**9):  # exact: half of the tiles
        seen.clear()
        found = pairwise.pair_sum(items(8), counting, Z_STAR, budget=budget, tile=10)
        assert sum(seen) < 0.6 * N**2
        torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("tile", [1, 7, 20])
@pytest.mark.parametrize("name", PAIRS)
def test_the_estimate_is_the_same_by_any_tiles(name, tile):
    """The same rows and columns in one tile of 20 x 20 and in many: equal value and gradient (1e-12 relative)."""
    one, many = (
        value_and_gradient(lambda x: PAIRS[name][0](x, budget=400, generator=generator(2), tile=size), items(1))
        for size in (None, tile)
    )
    torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("m, size", [(1, 8), (9, 20), (10, 20), (10, 3), (12, 4)])
def test_processes_share_the_tiles_of_an_estimate(m, size, processes, monkeypatch):
    """Every pair counts once; where a tile is as wide as the square, a process has one strip, an even share at most."""
    monkeypatch.setattr(pairwise, "world", lambda: (0, processes))
    tiles = pairwise._grid_tiles(m, size)
    counts = torch.zeros(m, m)
    for rows, columns, weight in tiles:
        assert counts[rows, columns].numel() > 0
        counts[rows, columns] += weight
    assert torch.equal(counts, torch.ones(m, m))
    if size >= m:  # one strip each
        assert len(tiles) <= processes and all(rows.stop - rows.start <= math.ceil(m / processes) for rows, *_ in tiles)
    assert all(max(t.stop - t.start for t in tile[:2]) <= size for tile in tiles)


def test_the_same_generator_gives_the_same_estimate():
    first, second, third = (similarity_loss(items(8), Z_STAR, 400, generator(s)) for s in (3, 3, 4))
    assert first == second != third


# ---- precision, compilation, errors ------------------------------------------------------------


def test_bfloat16_products_stay_within_their_stated_error():
    """At 500 items, d = 64: the loss within 0.3%, the gradient within 2% (relative norm)."""
    x, z_star = 0.2 * items(1, torch.float32, 500, 64), 0.3 * items(2, torch.float32, 500, 64)
    value, gradient = value_and_gradient(lambda e: similarity_loss(e, z_star, precision="bfloat16"), x)
    expected, expected_gradient = value_and_gradient(lambda e: similarity_loss(e, z_star), x)
    assert 0 < abs(value / expected - 1) < 3e-3
    assert 1e-4 < (gradient - expected_gradient).norm() / expected_gradient.norm() < 2e-2


@pytest.mark.parametrize("before", [False, True])
def test_tf32_is_allowed_for_the_tiles_alone(before, request):
    settings = torch.backends.cuda.matmul
    request.addfinalizer(functools.partial(setattr, settings, "allow_tf32", settings.allow_tf32))
    settings.allow_tf32 = before
    seen = []

    def watching(x, y):
        seen.append(settings.allow_tf32)
        return pairwise.softplus_tile(x)

    for precision, allowed in (("tf32", True), ("float32", False)):
        seen.clear()
        pairwise.pair_sum(items(1, torch.float32), watching, precision=precision)
        assert seen == [allowed] and settings.allow_tf32 == before


def test_the_fused_tile_equals_the_plain_one_or_falls_back(monkeypatch):
    """A compiler that fails leaves the plain tile and one warning; the next call doesn't try again."""
    calls = []

    def no_compiler(function, **options):
        def broken(*tensors):
            calls.append(function)
            raise RuntimeError("no C compiler found\nlong story")

        return broken

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(pairwise, "_fused", {})
    x, y = items(1)[:5] @ items(1).T, items(2)[:5] @ items(2).T
    with pytest.warns(UserWarning, match=r"can't be compiled \(no C compiler found\)"):
        value, slope = pairwise._compiled(pairwise.difference_tile)(x.clone(), y.clone())
    expected = pairwise.difference_tile(x.clone(), y.clone())
    assert value == expected[0] and torch.equal(slope, expected[1])
    assert pairwise._compiled(pairwise.difference_tile) is pairwise.difference_tile
    assert len(calls) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("tf32", 2e-3), ("bfloat16", 2e-2)])
def test_cuda_equals_the_cpu(precision, tolerance):
    x, z_star = 0.2 * items(1, torch.float32, 3_000, 64), 0.3 * items(2, torch.float32, 3_000, 64)
    value, gradient = value_and_gradient(
        lambda e: similarity_loss(e, z_star.cuda(), tile=1024, precision=precision), x.cuda()
    )
    expected, expected_gradient = value_and_gradient(lambda e: similarity_loss(e, z_star), x)
    assert abs(value.cpu() / expected - 1) < tolerance
    assert (gradient.cpu() - expected_gradient).norm() < tolerance * expected_gradient.norm()


def test_a_tile_beyond_memory_is_refused(one_sentence, monkeypatch):
    class Memory:
        available = 2**20

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    x = items(1, torch.float32, 5_000, 2)
    one_sentence(lambda: similarity_loss(x, x, tile=5_000), "5000 x 5000", "0.6 GiB", "smaller pair_tile")
    one_sentence(lambda: reconstruction_loss(items(1), A, precision="half"), "'half'", "float32, tf32, bfloat16")


@pytest.mark.slow
def test_memory_of_a_large_exact_step():
    """16,000 items, d = 64, in its own process: less than 100 MB above the embeddings, where the matrix has 1 GB."""
    script = (
        "import resource, torch\n"
        "from dae4rec_core.method.pairwise import similarity_loss\n"
        "torch.set_num_threads(1)\n"
        "z, y = torch.randn(16_000, 64).requires_grad_(), torch.randn(16_000, 64)\n"
        "similarity_loss(z[:2000], y[:2000]).backward()\n"  # warms up
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "similarity_loss(z, y).backward()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 100


def test_spmm_equals_dense_products():
    x = items(3, torch.float32)
    a = normalized_adjacency(GRAPH)
    torch.testing.assert_close(spmm(a, x), a.to_dense() @ x, rtol=1e-5, atol=1e-6)
