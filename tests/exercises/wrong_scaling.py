"""Wrong answers to the exercises of 07."""

import torch


def without_the_inner_derivative(x, y):
    return 2 * (torch.sigmoid(x) - torch.sigmoid(y))


def without_the_two(x, y):
    s = torch.sigmoid(x)
    return (s - torch.sigmoid(y)) * s * (1 - s)


def derivative_at_the_target(x, y):
    s, r = torch.sigmoid(x), torch.sigmoid(y)
    return 2 * (s - r) * r * (1 - r)


def summed_up(x, y):
    s = torch.sigmoid(x)
    return (2 * (s - torch.sigmoid(y)) * s * (1 - s)).sum()


def all_tiles_once(n, size):
    starts = range(0, n, size)
    return [(a, b, 1) for a in starts for b in starts]


def upper_tiles_once(n, size):
    starts = range(0, n, size)
    return [(a, b, 1) for a in starts for b in starts if a <= b]


def diagonal_left_out(n, size):
    starts = range(0, n, size)
    return [(a, b, 2) for a in starts for b in starts if a < b]


def diagonal_twice(n, size):
    starts = range(0, n, size)
    return [(a, b, 2) for a in starts for b in starts if a <= b]


def last_tile_lost(n, size):
    starts = range(0, n - size + 1, size)
    return [(a, b, 1 if a == b else 2) for a in starts for b in starts if a <= b]


def the_sum_itself(f, rows, columns):
    return f.sum()


def not_scaled(f, rows, columns):
    return f[rows][:, columns].sum()


def scaled_by_one_side(f, rows, columns):
    return f[rows][:, columns].sum() * len(f) / len(rows)


def scaled_as_if_square(f, rows, columns):
    return f[rows][:, columns].sum() * (len(f) / len(rows)) ** 2


def mean_of_the_square(f, rows, columns):
    return f[rows][:, columns].mean()


WRONG = {
    "check_tile_gradient": (without_the_inner_derivative, without_the_two, derivative_at_the_target, summed_up),
    "check_upper_tiles": (all_tiles_once, upper_tiles_once, diagonal_left_out, diagonal_twice, last_tile_lost),
    "check_estimate": (the_sum_itself, not_scaled, scaled_by_one_side, scaled_as_if_square, mean_of_the_square),
}
