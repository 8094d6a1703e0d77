"""Plausible wrong answers to the exercises of 04."""

import torch

from dae4rec_core.method.sampling import choose_tau


def negative_kappa(alpha_bar_t, alpha_bar_s, rho):
    kappa = -(((1 - alpha_bar_s - rho**2) / (1 - alpha_bar_t)) ** 0.5)
    return kappa, alpha_bar_s**0.5 - kappa * alpha_bar_t**0.5


def rho_not_squared(alpha_bar_t, alpha_bar_s, rho):
    kappa = (abs(1 - alpha_bar_s - rho) / (1 - alpha_bar_t)) ** 0.5
    return kappa, alpha_bar_s**0.5 - kappa * alpha_bar_t**0.5


def rho_forgotten(alpha_bar_t, alpha_bar_s, rho):
    kappa = ((1 - alpha_bar_s) / (1 - alpha_bar_t)) ** 0.5
    return kappa, alpha_bar_s**0.5 - kappa * alpha_bar_t**0.5


def xi_without_kappa(alpha_bar_t, alpha_bar_s, rho):
    kappa = ((1 - alpha_bar_s - rho**2) / (1 - alpha_bar_t)) ** 0.5
    return kappa, alpha_bar_s**0.5


def deterministic_share(belief, implied, alpha_bar_s, rho, noise):
    return alpha_bar_s**0.5 * belief + (1 - alpha_bar_s) ** 0.5 * implied + rho * noise


def no_fresh_noise(belief, implied, alpha_bar_s, rho, noise):
    return alpha_bar_s**0.5 * belief + (1 - alpha_bar_s - rho**2) ** 0.5 * implied


def belief_unscaled(belief, implied, alpha_bar_s, rho, noise):
    return belief + (1 - alpha_bar_s - rho**2) ** 0.5 * implied + rho * noise


def noise_in_place_of_the_implied(belief, implied, alpha_bar_s, rho, noise):
    return alpha_bar_s**0.5 * belief + (1 - alpha_bar_s) ** 0.5 * noise


def even_in_t(alpha_bar, S):
    return choose_tau(len(alpha_bar) - 1, S)


def nearest_to(scale, S):
    """The t nearest to S even values of a scale."""
    wanted = torch.linspace(float(scale[0]), float(scale[-1]), S, dtype=scale.dtype)
    found = [int((scale - value).abs().argmin()) + 1 for value in wanted]
    return [len(scale)] if S == 1 else found


def repeats(alpha_bar, S):
    return nearest_to(torch.log(alpha_bar[1:] / (1 - alpha_bar[1:])), S)


def even_in_snr(alpha_bar, S):
    return sorted(set(nearest_to(alpha_bar[1:] / (1 - alpha_bar[1:]), S)))


def even_in_alpha_bar(alpha_bar, S):
    T, tau = len(alpha_bar) - 1, []
    for left, t in zip(range(S, 0, -1), nearest_to(alpha_bar[1:], S)[::-1], strict=True):
        tau.append(max(left, min(t, tau[-1] - 1 if tau else T)))
    return tau[::-1]


def falling(alpha_bar, S):
    return choose_tau(len(alpha_bar) - 1, S)[::-1]


def slope(sigma, alpha_bar, tau, first, last):
    """The chain's factor, with or without the jumps before the last answer and that answer."""

    def a(t):
        return sigma**2 * alpha_bar[t] ** 0.5 / (sigma**2 * alpha_bar[t] + 1 - alpha_bar[t])

    found = a(tau[0]) if last else 1.0
    for t, s in zip(tau[1:], tau[:-1], strict=True) if first else ():
        kappa = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])) ** 0.5
        found = found * (kappa + a(t) * (alpha_bar[s] ** 0.5 - kappa * alpha_bar[t] ** 0.5))
    return found


def without_the_last_answer(sigma, alpha_bar, tau):
    return slope(sigma, alpha_bar, tau, first=True, last=False)


def only_the_last_answer(sigma, alpha_bar, tau):
    return slope(sigma, alpha_bar, tau, first=False, last=True)


def what_it_should_be(sigma, alpha_bar, tau):
    return sigma


WRONG = {
    "check_kappa_xi": (negative_kappa, rho_not_squared, rho_forgotten, xi_without_kappa),
    "check_jump": (deterministic_share, no_fresh_noise, belief_unscaled, noise_in_place_of_the_implied),
    "check_even_in_log_snr": (even_in_t, repeats, even_in_snr, even_in_alpha_bar, falling),
    "check_spread": (without_the_last_answer, only_the_last_answer, what_it_should_be),
}
