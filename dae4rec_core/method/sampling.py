"""Samplers: the Markov chain (Eq. 3) and skip-step sampling along tau (Eq. 12-15).

Both take a denoiser f(e^t, t, h) -> predicted e^0, the first noise x_T and, where the chain is random, a
torch.Generator. `on_step(i, t, e_t, prediction)` is called before each step, so that a figure can follow the chain.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]
LastStep = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, int, Tensor, Tensor], None]


def choose_tau(timesteps: int, steps: int) -> list[int]:
    """The subsequence tau_1 < ... < tau_S of 1..T: tau_i = round(i T / S), halves up (our choice: even, ends at T).

    No value repeats, since S <= T keeps neighbours at least 1 apart. S = T gives every step, S = 1 gives [T].
    Raises ValueError for S < 1 or S > T.
    """
    _check_steps(timesteps, steps)
    return [(2 * i * timesteps + steps) // (2 * steps) for i in range(1, steps + 1)]


def choose_tau_by_snr(alpha_bar: Tensor, steps: int) -> list[int]:
    """tau_1 < ... < tau_S of 1..T, even in log-SNR from tau_S = T down to tau_1 = 1 (S = 1 gives [T]).

    The nearest t to each of S even values of log(alpha_bar / (1 - alpha_bar)); where two would be the same, the earlier
    one moves down by a step. alpha_bar: (T + 1,). Raises ValueError for S < 1 or S > T.
    """
    timesteps = len(alpha_bar) - 1
    _check_steps(timesteps, steps)
    snr = torch.log(alpha_bar[1:]) - torch.log1p(-alpha_bar[1:])  # of t = 1..T, falling
    wanted = torch.linspace(float(snr[-1]), float(snr[0]), steps, dtype=snr.dtype)  # of tau_S .. tau_1
    tau, room = [], timesteps
    for left, value in zip(range(steps, 0, -1), wanted, strict=True):
        nearest = int((snr - value).abs().argmin()) + 1
        room = max(left, min(nearest, room))  # at least one step for each of those that are left
        tau.append(room)
        room -= 1
    return tau[::-1]


def _check_steps(timesteps: int, steps: int) -> None:
    if not 1 <= steps <= timesteps:
        raise ValueError(f"S is {steps}, but the chain has T = {timesteps} steps; give an S from 1 to {timesteps}.")


def coefficients(alpha_bar_t: float, alpha_bar_s: float, rho: float = 0.0) -> tuple[float, float]:
    """kappa and xi of Eq. 13 for a jump from t to s < t: e^s = kappa e^t + xi e^0 + rho eps.

    kappa = sqrt((1 - abar_s - rho^2) / (1 - abar_t)),  xi = sqrt(abar_s) - sqrt(abar_t) kappa.
    Raises ValueError when rho^2 exceeds 1 - abar_s, where no real kappa exists.
    """
    room = 1 - alpha_bar_s - rho**2
    if room < -1e-12:
        raise ValueError(f"rho = {rho:.4g} is too large: rho^2 may be at most 1 - alpha_bar = {1 - alpha_bar_s:.4g}.")
    kappa = (max(room, 0.0) / (1 - alpha_bar_t)) ** 0.5
    return kappa, alpha_bar_s**0.5 - alpha_bar_t**0.5 * kappa


def posterior_std(alpha_bar_t: float, alpha_bar_s: float) -> float:
    """The rho at which Eq. 12 is the Markov posterior: sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))."""
    return ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)) ** 0.5


def log_snr(alpha_bar_t: float) -> float:
    """log(alpha_bar_t / (1 - alpha_bar_t))."""
    return math.log(alpha_bar_t) - math.log1p(-alpha_bar_t)


def skip_step(
    denoiser: Predictor,
    x_T: Tensor,
    h: Tensor,
    alpha_bar: Tensor,
    tau: list[int],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    order: int = 1,
    last: LastStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Skip-step sampling, Eq. 15 (the paper's q(e^{tau_{i-1}} | e^{tau_{i-1}}, e^0) should be given e^{tau_i}).

    x_T: (B, d) first noise, taken as e^{tau_S}; h: (B, d); alpha_bar: (T + 1,) float64; tau: increasing steps.
    eta: rho = eta * posterior_std at every jump; 0 is the paper's deterministic chain, 1 the Markov posterior's width.
    order: 1 is Eq. 15; 2 is DPM-Solver++(2M) of Lu et al. 2022, which draws the line through the last two answers of f
    and takes its value in the middle of the jump, in log-SNR (beyond the paper, for eta = 0).
    last: takes the last step from (e^{tau_1}, h) in place of the denoiser, which is then not asked: c_phi of Eq. 16.
    Returns (e^{tau_1}, f(e^{tau_1}, tau_1, h)), or (e^{tau_1}, last(e^{tau_1}, h)).
    Raises ValueError for another order, or order 2 with eta > 0.
    """

    def predict(i: int, e: Tensor) -> Tensor:
        prediction = denoiser(e, torch.full((1,), tau[i], device=e.device), h)
        if on_step is not None:
            on_step(i, tau[i], e, prediction)
        return prediction

    if order not in (1, 2) or (order == 2 and eta > 0):
        raise ValueError(f"order is {order} with eta = {eta:g}; give order 1, or order 2 with eta = 0.")
    e, before, jump_before = x_T, None, 0.0
    for i in range(len(tau) - 1, 0, -1):
        prediction = predict(i, e)
        now, target = alpha_bar[tau[i]].item(), alpha_bar[tau[i - 1]].item()
        rho = eta * posterior_std(now, target)
        kappa, xi = coefficients(now, target, rho)
        jump, middle = log_snr(target) - log_snr(now), prediction
        if order == 2 and before is not None:
            middle = prediction + jump / (2 * jump_before) * (prediction - before)
        e, before, jump_before = kappa * e + xi * middle, prediction, jump
        if rho > 0:
            e = e + rho * torch.randn(e.shape, generator=generator).to(e)
    return e, predict(0, e) if last is None else last(e, h)


def markov_chain(
    denoiser: Predictor,
    x_T: Tensor,
    h: Tensor,
    alpha_bar: Tensor,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The full reverse chain of Eq. 3, T steps (the paper's benchmark -BM). Returns e^0 (B, d).

    mu = sqrt(abar_{t-1}) f + sqrt(alpha_t) (1 - abar_{t-1}) / sqrt(1 - abar_t) eps, where eps is the noise that e^t
    and f imply, (e^t - sqrt(abar_t) f) / sqrt(1 - abar_t); then noise of variance beta~_t is added, none at t = 1.
    """
    e = x_T
    for t in range(len(alpha_bar) - 1, 0, -1):
        prediction = denoiser(e, torch.full((1,), t, device=e.device), h)
        if on_step is not None:
            on_step(t - 1, t, e, prediction)
        now, before = alpha_bar[t].item(), alpha_bar[t - 1].item()
        eps = (e - now**0.5 * prediction) / (1 - now) ** 0.5
        e = before**0.5 * prediction + (now / before) ** 0.5 * (1 - before) / (1 - now) ** 0.5 * eps
        if t > 1:
            e = e + posterior_std(now, before) * torch.randn(e.shape, generator=generator).to(e)
    return e
