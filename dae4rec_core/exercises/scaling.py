"""Checkers of 07: the tiles of a symmetric matrix, a tile's gradient, and the scale of a random sample."""

import itertools

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_upper_tiles", "check_tile_gradient", "check_estimate"]


@checker
def check_upper_tiles(upper_tiles: Answer) -> None:
    for n, size in ((6, 2), (7, 3), (4, 10)):
        counted = torch.zeros(n, n)
        for row, column, weight in upper_tiles(n, size):
            assert row <= column, f"tile ({row}, {column}) lies below the diagonal; its mirror image counts for it."
            counted[row : row + size, column : column + size] += weight
        for i, j in itertools.combinations_with_replacement(range(n), 2):
            if i == j:
                assert counted[i, i] == 1, (
                    f"{n} items in tiles of {size}: the pair ({i}, {i}) counts {counted[i, i]:g} times, not once."
                )
            else:
                both = counted[i, j] + counted[j, i]
                assert both == 2, (
                    f"{n} items in tiles of {size}: the pairs ({i}, {j}) and ({j}, {i}) count {both:g} times "
                    "together, not twice."
                )


@checker
def check_tile_gradient(tile_gradient: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    found = torch.as_tensor(tile_gradient(x, y))
    assert found.shape == x.shape, "a tile's gradient has the tile's shape."
    x = x.requires_grad_()
    [expected] = torch.autograd.grad((torch.sigmoid(x) - torch.sigmoid(y)).square().sum(), x)
    assert torch.allclose(found, expected), (
        f"autograd has {expected[0, 0]:.4f} at the first place, you have {found[0, 0]:.4f}."
    )


@checker
def check_estimate(estimate: Answer) -> None:
    f = torch.arange(16.0).reshape(4, 4) ** 2
    draws = [(r, c) for r in itertools.combinations(range(4), 2) for c in itertools.combinations(range(4), 3)]
    mean = sum(float(estimate(f, torch.tensor(r), torch.tensor(c))) for r, c in draws) / len(draws)
    assert abs(mean - f.sum()) < 1e-3, (
        f"over all draws of 2 rows and 3 columns the mean is {mean:.0f}, the sum {f.sum():.0f}."
    )
