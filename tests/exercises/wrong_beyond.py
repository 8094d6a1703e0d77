"""Wrong answers to the exercises of 08."""

import torch
import torch.nn.functional as F


def inner_products(e0, items, temperature):
    return e0 @ items.T / temperature


def only_users_on_the_sphere(e0, items, temperature):
    return F.normalize(e0, dim=1) @ items.T / temperature


def lengths_of_columns(e0, items, temperature):
    return F.normalize(e0, dim=0) @ F.normalize(items, dim=0).T / temperature


def times_temperature(e0, items, temperature):
    return F.normalize(e0, dim=1) @ F.normalize(items, dim=1).T * temperature


def items_by_users(e0, items, temperature):
    return F.normalize(items, dim=1) @ F.normalize(e0, dim=1).T / temperature


def oldest_first(counts, history):
    return torch.log1p(sum(counts[v] / k for k, v in enumerate(history[:3], 1)))


def whole_history(counts, history):
    return torch.log1p(sum(counts[v] / k for k, v in enumerate(reversed(history), 1)))


def all_count_full(counts, history):
    return torch.log1p(sum(counts[v].float() for v in history[-3:]))


def logarithm_before_the_sum(counts, history):
    return sum(torch.log1p(counts[v].float()) / k for k, v in enumerate(reversed(history[-3:]), 1))


def whether_only(counts, history):
    return torch.log1p(sum((counts[v] > 0) / k for k, v in enumerate(reversed(history[-3:]), 1)))


def the_mean(items, odds):
    return odds @ items


def logits_without_a_constant(items, odds):
    return torch.linalg.lstsq(items, odds.log().unsqueeze(1)).solution[:, 0]


def scores_are_the_odds(items, odds):
    return torch.linalg.lstsq(items, odds.unsqueeze(1)).solution[:, 0]


def likeliest_item(items, odds):
    return items[odds.argmax()]


def a_few_steps(items, odds):
    """Gradient descent, stopped too early."""
    e = torch.zeros(2, requires_grad=True)
    for _ in range(10):
        [slope] = torch.autograd.grad(F.cross_entropy(items @ e, odds), e)
        e = (e - 0.1 * slope).detach().requires_grad_()
    return e


def answer_without_spread(width, bias, samples):
    return width / samples + bias


def mean_without_spread(width, bias, samples):
    return width + bias


def bias_falls_too(width, bias, samples):
    return width + (width + bias) / samples


def root_of_samples(width, bias, samples):
    return width + width / samples**0.5 + bias


WRONG = {
    "check_cosine_scores": (
        inner_products,
        only_users_on_the_sphere,
        lengths_of_columns,
        times_temperature,
        items_by_users,
    ),
    "check_neighbour_gains": (
        oldest_first,
        whole_history,
        all_count_full,
        logarithm_before_the_sum,
        whether_only,
    ),
    "check_best_for_ranking": (
        the_mean,
        logits_without_a_constant,
        scores_are_the_odds,
        likeliest_item,
        a_few_steps,
    ),
    "check_error_of_the_mean": (answer_without_spread, mean_without_spread, bias_falls_too, root_of_samples),
}
