"""Checkers of 04: the coefficients of Eq. 13, one jump, tau even in log-SNR, the spread of a linear chain."""

import math

import numpy as np
import torch
from torch import Tensor

from dae4rec_core.exercises.checker import Answer, checker
from dae4rec_core.method.sampling import choose_tau, coefficients, skip_step
from dae4rec_core.method.schedule import make_alpha_bar

__all__ = ["check_even_in_log_snr", "check_jump", "check_kappa_xi", "check_spread"]


def some_jumps() -> list[tuple[float, float, float]]:
    """(alpha_bar_t, alpha_bar_s, rho), rho from 0 to almost its largest value."""
    draw = np.random.default_rng(4)
    found = [(0.1, 1.0, 0.0)]
    for share in (0.0, 0.0, 0.3, 0.7, 0.95):
        now, before = sorted(draw.uniform(0.02, 0.98, 2).tolist())
        found.append((now, before, share * math.sqrt(1 - before)))
    return found


@checker
def check_kappa_xi(kappa_xi: Answer) -> None:
    for now, before, rho in some_jumps():
        kappa, xi = kappa_xi(now, before, rho)
        assert kappa >= 0, "kappa must not be negative: the jump keeps a part of e^t, it doesn't turn it around."
        assert abs(kappa * now**0.5 + xi - before**0.5) < 1e-9, (
            "the mean must be kept: kappa sqrt(abar_t) + xi = sqrt(abar_s)."
        )
        assert abs(kappa**2 * (1 - now) + rho**2 - (1 - before)) < 1e-9, (
            "the variance must be kept: kappa^2 (1 - abar_t) + rho^2 = 1 - abar_s."
        )


@checker
def check_jump(jump: Answer) -> None:
    for now, before, rho in some_jumps():
        draw = torch.Generator().manual_seed(0)
        belief, implied, noise = torch.randn(3, 5, 2, generator=draw, dtype=torch.float64)
        e = now**0.5 * belief + (1 - now) ** 0.5 * implied  # Eq. 2
        kappa, xi = coefficients(now, before, rho)
        found = torch.as_tensor(jump(belief, implied, before, rho, noise))
        assert found.shape == e.shape, "return a point for each point, of the shape of the belief."
        still = torch.as_tensor(jump(belief, implied, before, rho, 0 * noise))
        assert torch.allclose(found - still, rho * noise), "noise counts rho, and nothing else does."
        assert torch.allclose(still, kappa * e + xi * belief), (
            f"at abar_s = {before:.2f} and rho = {rho:.2f} it isn't the jump of Eq. 13, kappa e^t + xi belief."
        )


@checker
def check_even_in_log_snr(even_in_log_snr: Answer) -> None:
    for schedule, T in (("linear", 50), ("cosine", 40), ("exponential", 30), ("linear", 200)):
        alpha_bar = make_alpha_bar(schedule, T)
        level = alpha_bar[1:].numpy()
        snr = np.log(level / (1 - level))
        for S in (1, 2, 3, 4, 6, 9, T - 1, T):
            tau = [int(t) for t in even_in_log_snr(alpha_bar, S)]
            assert len(tau) == S, f"with S = {S} there must be {S} steps, not {len(tau)}."
            assert tau[-1] == T, "the last step, tau_S, must be T: the chain starts from pure noise."
            assert all(a < b for a, b in zip([0, *tau], tau, strict=False)), (
                f"steps must grow and none may come twice; with S = {S} of {T} that isn't so."
            )
            nearest = [int(abs(snr - value).argmin()) + 1 for value in np.linspace(snr[0], snr[-1], S)]
            if S > 1 and len(set(nearest)) == S:  # nothing had to move
                assert tau == nearest, f"S = {S} of {T} ({schedule}): even in log-SNR are {nearest}, not {tau}."


@checker
def check_spread(spread: Answer) -> None:
    for sigma, schedule, T in ((2.0, "linear", 50), (0.5, "cosine", 40), (3.0, "exponential", 30)):
        alpha_bar = make_alpha_bar(schedule, T)

        def ideal(e: Tensor, t: Tensor, h: Tensor, sigma: float = sigma, levels: Tensor = alpha_bar) -> Tensor:
            level = levels[t]
            return sigma**2 * level.sqrt() / (sigma**2 * level + 1 - level) * e

        for S in (1, 2, 5, T):
            tau = choose_tau(T, S)
            ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
            answers = skip_step(ideal, ends, ends, alpha_bar, tau)[1]
            expected = (answers[1] - answers[0]).item()
            found = float(spread(sigma, alpha_bar, tau))
            assert abs(found - expected) < 1e-6 * abs(expected) + 1e-12, (
                f"sigma = {sigma}, S = {S} of {T}: first noises that are 1 apart give answers {expected:.3g} apart, "
                f"not {found:.3g}."
            )
