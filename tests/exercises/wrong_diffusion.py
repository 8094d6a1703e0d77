"""Plausible wrong answers to the checkers of 03."""

import torch


def jump_without_roots(e0, noise, alpha_bar_t):
    return alpha_bar_t * e0 + (1 - alpha_bar_t) * noise


def jump_with_the_variance_of_the_noise(e0, noise, alpha_bar_t):
    return alpha_bar_t**0.5 * e0 + (1 - alpha_bar_t) * noise


def jump_the_other_way(e0, noise, alpha_bar_t):
    return (1 - alpha_bar_t) ** 0.5 * e0 + alpha_bar_t**0.5 * noise


def jump_in_place(e0, noise, alpha_bar_t):
    return e0.mul_(alpha_bar_t**0.5).add_((1 - alpha_bar_t) ** 0.5 * noise)


def attend(e, real, w_q, w_k, w_v, scale=True, columns=True, rows=True, dim=2, mean=False):
    scores = (e @ w_q) @ (e @ w_k).transpose(1, 2) / (e.shape[2] ** 0.5 if scale else 1)
    if columns:
        scores = scores.masked_fill(~real.unsqueeze(1), -1e9)
    outputs = scores.softmax(dim) @ (e @ w_v) * (real.unsqueeze(2) if rows else 1)
    return outputs.mean(1) if mean else outputs.sum(1)


def condition_without_scale(*given):
    return attend(*given, scale=False)


def condition_that_attends_to_filled_places(*given):
    return attend(*given, columns=False)


def condition_that_sums_filled_places(*given):
    return attend(*given, rows=False)


def condition_with_a_softmax_over_those_who_ask(*given):
    return attend(*given, dim=1)


def condition_with_a_mean(*given):
    return attend(*given, mean=True)


def condition_of_the_newest_item(e, real, w_q, w_k, w_v):
    scores = (e @ w_q) @ (e @ w_k).transpose(1, 2) / e.shape[2] ** 0.5
    return (scores.masked_fill(~real.unsqueeze(1), -torch.inf).softmax(2) @ (e @ w_v))[:, -1]


def step(f, e_0, h, alpha_bar, weights, generator, first=1, end=0, level_of=lambda level: level, one_t=False):
    size = 1 if one_t else len(e_0)
    t = torch.randint(first, len(alpha_bar) + end, (size,), generator=generator).expand(len(e_0))
    level = level_of(alpha_bar[t]).unsqueeze(1)
    e_t = level.sqrt() * e_0 + (1 - level).sqrt() * torch.randn(e_0.shape, generator=generator, dtype=e_0.dtype)
    return weights[t] * (e_0 - f(e_t, t, h)).square().sum(1)


def step_from_zero(*given):
    return step(*given, first=0, end=-1).mean()


def step_that_never_sees_the_last_level(*given):
    return step(*given, end=-1).mean()


def step_with_one_t_for_all(*given):
    return step(*given, one_t=True).mean()


def step_with_alpha_in_place_of_its_root(*given):
    return step(*given, level_of=lambda level: level**2).mean()


def step_without_weights(f, e_0, h, alpha_bar, weights, generator):
    return step(f, e_0, h, alpha_bar, torch.ones_like(weights), generator).mean()


def step_with_a_mean_over_dimensions(f, e_0, h, alpha_bar, weights, generator):
    return step(f, e_0, h, alpha_bar, weights, generator).mean() / e_0.shape[1]


def step_with_a_sum_over_the_batch(*given):
    return step(*given).sum()


def step_with_fresh_numbers_each_time(f, e_0, h, alpha_bar, weights, generator):
    return step(f, e_0, h, alpha_bar, weights, torch.Generator().manual_seed(torch.seed())).mean()


def step_without_gradient(*given):
    return step(*given).mean().detach()


def step_with_the_same_noise_in_every_dimension(f, e_0, h, alpha_bar, weights, generator):
    t = torch.randint(1, len(alpha_bar), (len(e_0),), generator=generator)
    level = alpha_bar[t].unsqueeze(1)
    e_t = level.sqrt() * e_0 + (1 - level).sqrt() * torch.randn(len(e_0), 1, generator=generator)
    return (weights[t] * (e_0 - f(e_t, t, h)).square().sum(1)).mean()


def shares_of_the_weights(errors, weights):
    return weights / weights.sum()


def shares_of_the_errors(errors, weights):
    return errors / errors.sum()


def shares_without_a_whole(errors, weights):
    return weights * errors


def shares_as_softmax(errors, weights):
    return (weights * errors).softmax(0)


WRONG = {
    "check_jump_to": (
        jump_without_roots,
        jump_with_the_variance_of_the_noise,
        jump_the_other_way,
        jump_in_place,
    ),
    "check_condition": (
        condition_without_scale,
        condition_that_attends_to_filled_places,
        condition_that_sums_filled_places,
        condition_with_a_softmax_over_those_who_ask,
        condition_with_a_mean,
        condition_of_the_newest_item,
    ),
    "check_diffusion_step": (
        step_from_zero,
        step_that_never_sees_the_last_level,
        step_with_one_t_for_all,
        step_with_alpha_in_place_of_its_root,
        step_without_weights,
        step_with_a_mean_over_dimensions,
        step_with_a_sum_over_the_batch,
        step_with_fresh_numbers_each_time,
        step_without_gradient,
        step_with_the_same_noise_in_every_dimension,
    ),
    "check_loss_shares": (
        shares_of_the_weights,
        shares_of_the_errors,
        shares_without_a_whole,
        shares_as_softmax,
    ),
}
