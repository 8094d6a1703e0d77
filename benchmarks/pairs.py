"""Eq. 9 and Eq. 10 over all pairs: the dense reference, the tiles, the bare products and the sampled estimate."""

from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor

from benchmarks.measure import in_own_process, peak_mib, seconds, slope
from dae4rec_core.config import choose_device
from dae4rec_core.method.graph import ItemGraph, adjacency
from dae4rec_core.method.losses import aime_loss, gae_loss
from dae4rec_core.method.pairwise import (
    reconstruction_loss,
    similarity_loss,
    upper_tiles,
)

Loss = Callable[[], Tensor]

SIZES = (2_000, 8_000, 33_278)
DIM, DEGREE, WEIGHT, BUDGET = 64, 18, 500.0, 2**20  # about 18 neighbours an item, as in Table 2's data
FLOAT64_MATRICES, FLOAT32_MATRICES = 6, 6  # |V| x |V| matrices that the dense loss and its gradient hold at once


def inputs(n: int, dtype: torch.dtype = torch.float32, dim: int = DIM) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, a target and a random graph of n items, the same at every call."""
    generator, device = torch.Generator().manual_seed(0), choose_device()
    x = 0.2 * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    y = 0.3 * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    edges = torch.randint(n, (n * DEGREE // 2, 2), generator=generator).sort(1).values.unique(dim=0)
    a = adjacency(ItemGraph(n, edges[edges[:, 0] != edges[:, 1]].numpy()))
    return x.to(device, dtype).requires_grad_(), y.to(device, dtype), a.to(device)


def losses(
    n: int, how: str, dtype: torch.dtype = torch.float32, precision: str = "float32", dim: int = DIM
) -> tuple[Tensor, dict[str, Loss]]:
    """(x, {equation: a call that returns its loss}) for how = "dense", "tiled" or "sampled"."""
    x, y, a = inputs(n, dtype, dim)
    if how == "dense":
        return x, {"Eq. 9": lambda: gae_loss(x, a, WEIGHT), "Eq. 10": lambda: aime_loss(x, torch.sigmoid(y @ y.T))}
    draw = torch.Generator().manual_seed(0)
    options = {"budget": BUDGET, "generator": draw} if how == "sampled" else {"precision": precision}
    return x, {
        "Eq. 9": lambda: reconstruction_loss(x, a, WEIGHT, **options),
        "Eq. 10": lambda: similarity_loss(x, y, **options),
    }


def value_and_gradient(x: Tensor, call: Loss) -> tuple[float, Tensor]:
    x.grad = None
    value = call()
    value.backward()
    assert x.grad is not None
    return value.item(), x.grad


def step(n: int, how: str, equation: str, precision: str = "float32", dim: int = DIM) -> dict:
    """Time and peak memory above the inputs of one loss with its gradient."""
    x, calls = losses(n, how, precision=precision, dim=dim)
    small, warm = losses(500, how, precision=precision, dim=dim)
    value_and_gradient(small, warm[equation])
    memory = peak_mib(lambda: value_and_gradient(x, calls[equation]))
    return {"seconds": seconds(lambda: value_and_gradient(x, calls[equation])), "MiB": memory}


def bare_products(n: int, equation: str) -> dict:
    """The matrix products of the tiles and nothing else: logits, the target's for Eq. 10, and both gradients."""
    x, y, _ = inputs(n)
    x = x.detach()
    tiles = upper_tiles(n, 8192 if x.is_cuda else 1024)

    def products():
        for rows, columns, _ in tiles:
            logits = x[rows] @ x[columns].T
            if equation == "Eq. 10":
                y[rows] @ y[columns].T
            logits @ x[columns]
            logits.T @ x[rows]

    return {"seconds": seconds(products)}


def errors(n: int, equation: str, precision: str = "float32") -> dict:
    """Relative error of the tiled loss and gradient against float64: dense if it fits, else tiled."""
    fits = FLOAT64_MATRICES * 8 * n * n < 0.7 * psutil.virtual_memory().available
    x64, oracle = losses(n, "dense" if fits else "tiled", torch.float64)
    value64, gradient64 = value_and_gradient(x64, oracle[equation])
    x, calls = losses(n, "tiled", precision=precision)
    value, gradient = value_and_gradient(x, calls[equation])
    return {
        "oracle": "dense float64" if fits else "tiled float64",
        "loss": abs(value / value64 - 1),
        "gradient": ((gradient - gradient64).norm() / gradient64.norm()).item(),
    }


def spread(n: int, equation: str, draws: int = 20) -> dict:
    """Relative standard deviation of the sampled loss, and the relative distance of its gradient from the exact one."""
    x, calls = losses(n, "tiled")
    value, gradient = value_and_gradient(x, calls[equation])
    x, calls = losses(n, "sampled")
    found = [value_and_gradient(x, calls[equation]) for _ in range(draws)]
    values = torch.tensor([v for v, _ in found], dtype=torch.float64)
    away = [((g - gradient).norm() / gradient.norm()).item() for _, g in found]
    return {"loss": values.std().item() / value, "gradient": sum(away) / draws}


def table(sizes: Sequence[int] = SIZES) -> list[dict]:
    """Rows: what, setting, figure, unit."""
    rows: list[dict] = []
    for equation in ("Eq. 9", "Eq. 10"):
        times = []
        for n in sizes:
            add = _adder(rows, f"{equation}, {n:,} items")
            tiled = in_own_process(step, n, "tiled", equation)
            times.append(tiled["seconds"])
            add("tiled, exact", tiled["seconds"], "s")
            add("tiled, exact: memory above the inputs", tiled["MiB"], "MiB")
            bare = in_own_process(bare_products, n, equation)["seconds"]
            add("tiled / bare matrix products", tiled["seconds"] / bare, "x")
            if FLOAT32_MATRICES * 4 * n * n < 0.7 * psutil.virtual_memory().available:
                dense = in_own_process(step, n, "dense", equation)
                add("dense", dense["seconds"], "s")
                add("dense: memory above the inputs", dense["MiB"], "MiB")
                add("dense / tiled, time", dense["seconds"] / tiled["seconds"], "x")
                last_dense = n, dense
            else:
                scale = (n / last_dense[0]) ** 2
                add(f"dense, extrapolated from {last_dense[0]:,}", last_dense[1]["seconds"] * scale, "s")
                add(f"dense: memory, extrapolated from {last_dense[0]:,}", last_dense[1]["MiB"] * scale, "MiB")
                add("dense / tiled, time, extrapolated", last_dense[1]["seconds"] * scale / tiled["seconds"], "x")
            error = in_own_process(errors, n, equation)
            add(f"error of the loss against {error['oracle']}", error["loss"], "relative")
            add(f"error of the gradient against {error['oracle']}", error["gradient"], "relative")
            for precision in ("bfloat16", *(["tf32"] if torch.cuda.is_available() else [])):
                error = in_own_process(errors, n, equation, precision)
                add(f"error of the gradient, {precision} products", error["gradient"], "relative")
                add(
                    f"tiled, {precision} products",
                    in_own_process(step, n, "tiled", equation, precision)["seconds"],
                    "s",
                )
            sampled = in_own_process(step, n, "sampled", equation)
            add(f"sampled step, {BUDGET:,} pairs", sampled["seconds"], "s")
            if 2 * BUDGET < n * n:
                noise = in_own_process(spread, n, equation)
                add("sampled loss: standard deviation", noise["loss"], "relative")
                add("sampled gradient: distance from the exact one", noise["gradient"], "relative")
        _adder(rows, equation)("growth of the exact step with |V|", slope(sizes, times), "exponent")
        dims = (32, 64, 128, 256)
        by_dim = [in_own_process(step, sizes[1], "tiled", equation, "float32", d)["seconds"] for d in dims]
        _adder(rows, equation)(f"growth of the exact step with d, {sizes[1]:,} items", slope(dims, by_dim), "exponent")
    return rows


def _adder(rows: list[dict], setting: str) -> Callable[[str, float, str], None]:
    return lambda what, figure, unit: rows.append(
        {"part": "pairs", "setting": setting, "what": what, "figure": figure, "unit": unit}
    )
