"""Wrong answers to the exercises of 09."""

import numpy as np
import torch


def by_inner_product(draws, items):
    return torch.bincount((draws @ items.T).argmax(1), minlength=len(items)) / len(draws)


def counts_not_shares(draws, items):
    return torch.bincount(torch.cdist(draws, items).argmin(1), minlength=len(items))


def items_are_counted(draws, items):
    return torch.bincount(torch.cdist(items, draws).argmin(1), minlength=len(items))[: len(items)] / len(items)


def the_farthest(draws, items):
    return torch.bincount(torch.cdist(draws, items).argmax(1), minlength=len(items)) / len(draws)


def prior_alone(e_t, p, items, alpha_bar):
    return p @ items


def evidence_alone(e_t, p, items, alpha_bar):
    squared = (e_t - alpha_bar**0.5 * items).square().sum(1)
    return (-squared / (2 * (1 - alpha_bar))).softmax(0) @ items


def without_the_noise_level(e_t, p, items, alpha_bar):
    squared = (e_t - alpha_bar**0.5 * items).square().sum(1)
    return (p.log() - squared / 2).softmax(0) @ items


def items_not_scaled(e_t, p, items, alpha_bar):
    squared = (e_t - items).square().sum(1)
    return (p.log() - squared / (2 * (1 - alpha_bar))).softmax(0) @ items


def likeliest_item(e_t, p, items, alpha_bar):
    squared = (e_t - alpha_bar**0.5 * items).square().sum(1)
    return items[(p.log() - squared / (2 * (1 - alpha_bar))).argmax()]


def as_if_p_were_right(true, p, level):
    order = np.argsort(-p)
    mass = np.cumsum(p[order]) - p[order]
    held = np.zeros(len(p), dtype=bool)
    held[order[mass < level]] = True
    return held


def above_the_level(true, p, level):
    return p >= level


def wrong_end(true, p, level):
    return p >= np.quantile(true, level)


def one_too_few(true, p, level):
    return p > np.sort(true)[int((1 - level) * len(true))]


def all_items(true, p, level):
    return np.full(len(p), True)


def without_the_half(p, n):
    return np.mean([np.abs(np.random.default_rng(s).multinomial(n, p) / n - p.numpy()).sum() for s in range(300)])


def always_the_root(p, n):
    return 1 / n**0.5


def of_two_samples(p, n):
    rng = np.random.default_rng(0)
    return np.mean([np.abs(rng.multinomial(n, p) / n - rng.multinomial(n, p) / n).sum() / 2 for _ in range(1000)])


def squared(p, n):
    return float((p * (1 - p)).sum() / n)


WRONG = {
    "check_nearest_shares": (by_inner_product, counts_not_shares, items_are_counted, the_farthest),
    "check_best_f": (prior_alone, evidence_alone, without_the_noise_level, items_not_scaled, likeliest_item),
    "check_conformal_set": (as_if_p_were_right, above_the_level, wrong_end, one_too_few, all_items),
    "check_expected_distance": (without_the_half, always_the_root, of_two_samples, squared),
}
