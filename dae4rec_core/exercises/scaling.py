"""Checkers of 07: a tile's gradient, the tiles of a symmetric matrix, and the scale of a random sample."""

import itertools

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_tile_gradient", "check_upper_tiles", "check_estimate"]


@checker
def check_tile_gradient(tile_gradient: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, scale in (((3, 4), 1.0), ((1, 5), 0.1), ((6, 2), 4.0)):
        x, y = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        found = torch.as_tensor(tile_gradient(x, y))
        assert found.shape == x.shape, (
            f"the gradient of a {shape} tile has the tile's shape, yours {tuple(found.shape)}."
        )
        leaf = x.clone().requires_grad_()
        [expected] = torch.autograd.grad((torch.sigmoid(leaf) - torch.sigmoid(y)).square().sum(), leaf)
        assert torch.allclose(found, expected), (
            f"autograd has {expected[0, 0]:.4f} at the first place, you have {found[0, 0]:.4f}."
        )


@checker
def check_upper_tiles(upper_tiles: Answer) -> None:
    for n, size in ((6, 2), (7, 3), (4, 10), (1, 1), (9, 4), (10, 5)):
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
def check_estimate(estimate: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for n, m, k in ((4, 2, 3), (5, 1, 4), (3, 3, 3)):
        f = torch.rand(n, n, generator=generator, dtype=torch.float64)
        total = 0.0
        draws = list(itertools.product(itertools.combinations(range(n), m), itertools.combinations(range(n), k)))
        for r, c in draws:
            rows, columns = torch.tensor(r), torch.tensor(c)
            found = float(estimate(f.clone(), rows, columns))
            elsewhere = f + 1
            elsewhere[rows[:, None], columns] = f[rows[:, None], columns]
            assert float(estimate(elsewhere, rows, columns)) == found, (
                "the pairs outside the drawn square have been changed and your estimate with them; use the square only."
            )
            total += found
        mean = total / len(draws)
        assert abs(mean - float(f.sum())) < 1e-9 * n * n, (
            f"over all draws of {m} rows and {k} columns of {n} the mean is {mean:.3f}, the sum {f.sum():.3f}."
        )
