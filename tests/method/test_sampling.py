"""Both samplers against diffusers' DDPM and DDIM, closed forms, and hand-written chains.

Against diffusers' DDPM (float32) the tolerance is 1e-5, in float64 it is 1e-9 or tighter.
Noise is made known by seeding: a sampler draws one `torch.randn` of e's shape at each noisy step.
"""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from dae4rec_core.method.sampling import (
    choose_tau,
    choose_tau_by_snr,
    coefficients,
    log_snr,
    markov_chain,
    posterior_std,
    skip_step,
)
from dae4rec_core.method.schedule import add_noise, betas_of, make_alpha_bar

SCHEDULES = ["linear", "cosine", "exponential"]
TIMESTEPS, BATCH, DIM = 60, 6, 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nonlinear(e, t, h):
    """A bounded denoiser that uses all of its arguments."""
    return torch.tanh(0.7 * e + h) + 0.3 * torch.sin(t / 7.0).unsqueeze(-1) * torch.cos(e)


def start(dtype=torch.float32):
    x_T, h = torch.randn(2, BATCH, DIM, generator=generator(3)).to(dtype)
    return x_T, h


def ddim(alpha_bar):
    """diffusers' DDIM, coefficients raised to float64: in float32 its rounding reaches 1e-5."""
    scheduler = DDIMScheduler(
        len(alpha_bar) - 1,
        trained_betas=betas_of(alpha_bar).tolist(),
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), alpha_bar[1:], rtol=0, atol=1e-6)
    scheduler.alphas_cumprod = alpha_bar[1:]
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


# ---- tau ---------------------------------------------------------------------------------------


def test_tau_has_s_strictly_increasing_steps_and_ends_at_t():
    """Every (T, S) with T up to 60, and a few long chains."""
    pairs = [(T, S) for T in range(1, 61) for S in range(1, T + 1)]
    pairs += [(1000, S) for S in (1, 2, 3, 7, 333, 501, 999, 1000)]
    for T, S in pairs:
        tau = choose_tau(T, S)
        assert len(tau) == S and tau[-1] == T and tau[0] >= 1
        assert all(a < b for a, b in zip(tau, tau[1:], strict=False))
        assert all(isinstance(t, int) for t in tau)
        assert max(abs(t - i * T / S) for i, t in enumerate(tau, 1)) <= 0.5  # even to half a step


def test_tau_by_hand():
    assert choose_tau(10, 1) == [10]
    assert choose_tau(10, 4) == [3, 5, 8, 10]  # 2.5, 5, 7.5, 10: halves up
    assert choose_tau(5, 5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("steps", [0, -3, 11])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(ValueError, match=rf"S is {steps}.*T = 10.*from 1 to 10"):
        choose_tau(10, steps)


# ---- Eq. 12 and 13 -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("t, s", [(40, 39), (60, 20), (2, 1)])
def test_eq_12_keeps_the_marginal_for_any_rho(share, t, s):
    """e^t from Eq. 2, then one jump of Eq. 12: e^s must be N(sqrt(abar_s) e^0, 1 - abar_s).

    rho = share of its largest value. n = 200,000 draws; mean and variance within 5 standard
    errors, std/sqrt(n) and var*sqrt(2/n).
    """
    n, e0 = 200_000, 1.7
    alpha_bar = make_alpha_bar("linear", TIMESTEPS)
    now, target = alpha_bar[t].item(), alpha_bar[s].item()
    rho = share * math.sqrt(1 - target)
    kappa, xi = coefficients(now, target, rho)
    draw = generator(t + s)
    first, second = torch.randn(2, n, generator=draw, dtype=torch.float64)
    e_t = math.sqrt(now) * e0 + math.sqrt(1 - now) * first
    e_s = kappa * e_t + xi * e0 + rho * second
    var = 1 - target
    assert abs(e_s.mean().item() - math.sqrt(target) * e0) < 5 * math.sqrt(var / n)
    assert abs(e_s.var().item() - var) < 5 * var * math.sqrt(2 / n)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_skip_step_with_a_perfect_denoiser_keeps_every_marginal(eta):
    """f returns the true e^0: e^{tau_i} along the whole chain is distributed as in Eq. 2.

    n = 50,000 draws of one number; 5 standard errors, std/sqrt(n) and var*sqrt(2/n).
    """
    n = 50_000
    e0 = torch.full((n, 1), -1.3, dtype=torch.float64)
    alpha_bar = make_alpha_bar("cosine", TIMESTEPS)
    draw = generator(11)
    noise = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    x_T = add_noise(e0, torch.full((n,), TIMESTEPS), noise, alpha_bar)
    seen = []

    def check(i, t, e, prediction):
        mean, var = -1.3 * alpha_bar[t].sqrt().item(), 1 - alpha_bar[t].item()
        assert abs(e.mean().item() - mean) < 5 * math.sqrt(var / n)
        assert abs(e.var().item() - var) < 5 * var * math.sqrt(2 / n)
        seen.append(t)

    skip_step(lambda e, t, h: e0, x_T, e0, alpha_bar, choose_tau(TIMESTEPS, 7), eta, draw, on_step=check)
    assert seen == choose_tau(TIMESTEPS, 7)[::-1]


def test_markov_chain_with_a_perfect_denoiser_keeps_every_marginal_and_ends_at_e0():
    """As above for Eq. 3; the last step lands on e^0 exactly (1e-12), because beta~_1 = 0."""
    n = 50_000
    e0 = torch.full((n, 1), 0.9, dtype=torch.float64)
    alpha_bar = make_alpha_bar("linear", TIMESTEPS)
    draw = generator(12)
    noise = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    x_T = add_noise(e0, torch.full((n,), TIMESTEPS), noise, alpha_bar)

    def check(i, t, e, prediction):
        mean, var = 0.9 * alpha_bar[t].sqrt().item(), 1 - alpha_bar[t].item()
        assert abs(e.mean().item() - mean) < 5 * math.sqrt(var / n)
        assert abs(e.var().item() - var) < 5 * var * math.sqrt(2 / n)

    end = markov_chain(lambda e, t, h: e0, x_T, e0, alpha_bar, draw, on_step=check)
    torch.testing.assert_close(end, e0, rtol=0, atol=1e-12)


def test_posterior_std_is_the_square_root_of_beta_tilde():
    """beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t) (Ho et al. 2020, Eq. 7), to 1e-12."""
    alpha_bar = make_alpha_bar("linear", TIMESTEPS)
    for t, beta in enumerate(betas_of(alpha_bar).tolist(), start=1):
        now, before = alpha_bar[t].item(), alpha_bar[t - 1].item()
        expected = math.sqrt(beta * (1 - before) / (1 - now))
        assert posterior_std(now, before) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_rho_with_no_real_kappa_is_refused():
    assert coefficients(0.2, 0.75, 0.5)[0] == 0  # rho^2 = 1 - alpha_bar_s exactly: still allowed
    with pytest.raises(ValueError, match=r"rho = 0\.51 is too large.*0\.25"):
        coefficients(0.2, 0.75, 0.51)
    x_T, h = start()
    alpha_bar = make_alpha_bar("linear", TIMESTEPS)
    with pytest.raises(ValueError, match="too large"):
        skip_step(nonlinear, x_T, h, alpha_bar, [30, 60], eta=50.0)


# ---- Eq. 3, the Markov chain -------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_eq_3_is_the_ddpm_posterior_mean(name):
    """A step from t in float64 minus its known noise, against Ho et al. 2020, Eq. 7 (1e-12)."""
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    betas = betas_of(alpha_bar)
    for t in (1, 2, 3, 17, 59, 60):
        steps = []
        end = markov_chain(
            nonlinear,
            x_T,
            h,
            alpha_bar[: t + 1],
            generator(t),
            on_step=lambda i, t, e, prediction: steps.append(e),
        )
        now, before, beta = alpha_bar[t].item(), alpha_bar[t - 1].item(), betas[t - 1].item()
        f = nonlinear(x_T, torch.tensor([t]), h)
        mean = math.sqrt(before) * beta / (1 - now) * f
        mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x_T
        if t == 1:
            torch.testing.assert_close(end, mean, rtol=0, atol=1e-12)
            continue
        noise = torch.randn(BATCH, DIM, generator=generator(t)).double()
        mean_ours = steps[1] - math.sqrt(beta * (1 - before) / (1 - now)) * noise
        torch.testing.assert_close(mean_ours, mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_markov_chain_equals_diffusers_ddpm(name):
    """The full loop with the same seed: both draw one randn a step, none at the last."""
    x_T, h = start()
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    ours = markov_chain(nonlinear, x_T, h, alpha_bar, generator(5))
    scheduler = DDPMScheduler(
        TIMESTEPS,
        trained_betas=betas_of(alpha_bar).tolist(),
        prediction_type="sample",
        clip_sample=False,
        variance_type="fixed_small",
    )
    draw, e = generator(5), x_T
    for t in scheduler.timesteps:  # T - 1 .. 0
        prediction = nonlinear(e, t.reshape(1) + 1, h)
        e = scheduler.step(prediction, t, e, generator=draw).prev_sample
    torch.testing.assert_close(ours, e, rtol=0, atol=1e-5)


def test_markov_chain_calls_on_step_once_for_every_t():
    x_T, h = start()
    calls = []
    alpha_bar = make_alpha_bar("linear", 9)
    markov_chain(nonlinear, x_T, h, alpha_bar, generator(0), lambda *call: calls.append(call))
    assert [(i, t) for i, t, _, _ in calls] == [(t - 1, t) for t in range(9, 0, -1)]
    assert torch.equal(calls[0][2], x_T)
    for _, t, e, prediction in calls:
        assert torch.equal(prediction, nonlinear(e, torch.tensor([t]), h))


# ---- Eq. 15, skip-step -------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 30, 60])
@pytest.mark.parametrize("name", SCHEDULES)
def test_skip_step_equals_diffusers_ddim(name, steps, eta):
    """All S divide T = 60, where "trailing" spacing visits the same steps; e^{tau_1} too (1e-9).

    With eta = 1 the noise is drawn here from the same seed and handed to diffusers.
    """
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    tau = choose_tau(TIMESTEPS, steps)
    e_tau1, e0 = skip_step(nonlinear, x_T, h, alpha_bar, tau, eta, generator(8))
    scheduler = ddim(alpha_bar)
    scheduler.set_timesteps(steps)
    assert (scheduler.timesteps + 1).tolist() == tau[::-1]
    draw, e = generator(8), x_T
    for t in scheduler.timesteps:
        before = e
        noise = torch.zeros(())
        if t + 1 != tau[0]:
            noise = torch.randn(BATCH, DIM, generator=draw).double()
        prediction = nonlinear(e, t.reshape(1) + 1, h)
        e = scheduler.step(prediction, t, e, eta=eta, variance_noise=noise).prev_sample
    torch.testing.assert_close(e_tau1, before, rtol=0, atol=1e-9)
    torch.testing.assert_close(e0, e, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_all_steps_is_the_full_deterministic_chain(name):
    """S = T against the paper's Eq. 14 with rho = 0 written out in float64 (1e-10)."""
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    e_tau1, e0 = skip_step(nonlinear, x_T, h, alpha_bar, choose_tau(TIMESTEPS, TIMESTEPS))
    e = x_T
    for t in range(TIMESTEPS, 0, -1):
        last = e
        f = nonlinear(e, torch.tensor([t]), h)
        noise = (e - alpha_bar[t].sqrt() * f) / (1 - alpha_bar[t]).sqrt()
        e = alpha_bar[t - 1].sqrt() * f + (1 - alpha_bar[t - 1]).sqrt() * noise
    torch.testing.assert_close(e_tau1, last, rtol=0, atol=1e-10)
    torch.testing.assert_close(e0, e, rtol=0, atol=1e-10)


def test_all_steps_with_eta_1_is_the_markov_chain():
    """The two samplers meet: rho_t^2 = beta~_t and S = T, same noises, float64 (1e-10)."""
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar("cosine", TIMESTEPS)
    tau = choose_tau(TIMESTEPS, TIMESTEPS)
    _, e0 = skip_step(nonlinear, x_T, h, alpha_bar, tau, 1.0, generator(2))
    chain = markov_chain(nonlinear, x_T, h, alpha_bar, generator(2))
    torch.testing.assert_close(e0, chain, rtol=0, atol=1e-10)


def test_one_step_is_one_call_of_the_denoiser():
    x_T, h = start()
    e_tau1, e0 = skip_step(nonlinear, x_T, h, make_alpha_bar("linear", TIMESTEPS), [TIMESTEPS])
    assert torch.equal(e_tau1, x_T)
    assert torch.equal(e0, nonlinear(x_T, torch.tensor([TIMESTEPS]), h))


@pytest.mark.parametrize("steps", [1, 4, 7, 60])
def test_skip_step_calls_on_step_once_for_every_tau(steps):
    x_T, h = start()
    tau, calls = choose_tau(TIMESTEPS, steps), []
    e_tau1, e0 = skip_step(
        nonlinear,
        x_T,
        h,
        make_alpha_bar("linear", TIMESTEPS),
        tau,
        on_step=lambda *call: calls.append(call),
    )
    assert [(i, t) for i, t, _, _ in calls] == list(enumerate(tau))[::-1]
    assert torch.equal(calls[-1][2], e_tau1) and torch.equal(calls[-1][3], e0)


def test_the_first_noise_is_left_as_it_was():
    x_T, h = start()
    before = x_T.clone()
    alpha_bar = make_alpha_bar("linear", 10)
    skip_step(nonlinear, x_T, h, alpha_bar, [2, 7, 10], eta=1.0, generator=generator(0))
    markov_chain(nonlinear, x_T, h, alpha_bar, generator(0))
    assert torch.equal(x_T, before)


# ---- the linear denoiser: every step is affine, so the chain has a closed form -------------------


def linear_case():
    """f(e, t, h) = e A + h B + c with fixed float64 matrices."""
    draw = generator(21)
    A, B = 0.4 * torch.randn(2, DIM, DIM, generator=draw, dtype=torch.float64)
    c = torch.randn(DIM, generator=draw, dtype=torch.float64)
    return A, B, c, lambda e, t, h: e @ A + h @ B + c


def then(chain, step):
    """The affine map x -> x P + h Q + r followed by another one."""
    (P, Q, r), (P2, Q2, r2) = chain, step
    return P @ P2, Q @ P2 + Q2, r @ P2 + r2


IDENTITY = torch.eye(DIM, dtype=torch.float64)
NOTHING = (IDENTITY, torch.zeros(DIM, DIM, dtype=torch.float64), torch.zeros(DIM).double())


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 60])
@pytest.mark.parametrize("name", SCHEDULES)
def test_skip_step_with_a_linear_denoiser_equals_its_closed_form(name, steps):
    """x_0 = x_T P + h Q + r, P, Q, r by multiplying the steps' maps first (1e-10)."""
    A, B, c, f = linear_case()
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    tau = choose_tau(TIMESTEPS, steps)
    chain = NOTHING
    for t, s in zip(tau[::-1], tau[-2::-1] + [0], strict=False):
        noise = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt()  # what is left of the noise
        signal = alpha_bar[s].sqrt() - alpha_bar[t].sqrt() * noise
        chain = then(chain, (noise * IDENTITY + signal * A, signal * B, signal * c))
    P, Q, r = chain
    _, e0 = skip_step(f, x_T, h, alpha_bar, tau)
    torch.testing.assert_close(e0, x_T @ P + h @ Q + r, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_markov_chain_with_a_linear_denoiser_equals_its_closed_form(name):
    """x_0 = x_T P + h Q + r + sum_t noise_t R_t, the noises known from the seed (1e-10)."""
    A, B, c, f = linear_case()
    x_T, h = start(torch.float64)
    alpha_bar = make_alpha_bar(name, TIMESTEPS)
    betas = betas_of(alpha_bar)
    maps = []
    for t in range(TIMESTEPS, 0, -1):
        now, before, beta = alpha_bar[t], alpha_bar[t - 1], betas[t - 1]
        to_f = before.sqrt() * beta / (1 - now)
        to_e = (1 - beta).sqrt() * (1 - before) / (1 - now)
        maps.append((to_e * IDENTITY + to_f * A, to_f * B, to_f * c))
    chain = NOTHING
    for step in maps:
        chain = then(chain, step)
    P, Q, r = chain
    expected = x_T @ P + h @ Q + r
    draw, noises = generator(9), []
    for t in range(TIMESTEPS, 1, -1):
        std = (betas[t - 1] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt()
        noises.append(std * torch.randn(BATCH, DIM, generator=draw).double())
    after = IDENTITY  # the product of the maps that follow a step
    for step in range(TIMESTEPS - 2, -1, -1):
        after = maps[step + 1][0] @ after
        expected = expected + noises[step] @ after
    ours = markov_chain(f, x_T, h, alpha_bar, generator(9))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


# ---- further: tau even in log-SNR, second order ----------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tau_by_snr_has_s_strictly_increasing_steps_from_1_to_t(schedule):
    for T in (1, 2, 7, 30, 60):
        alpha_bar = make_alpha_bar(schedule, T)
        for S in range(1, T + 1):
            tau = choose_tau_by_snr(alpha_bar, S)
            assert len(tau) == S and tau[-1] == T and tau[0] >= 1 and (S == 1 or tau[0] == 1)
            assert all(a < b for a, b in zip(tau, tau[1:], strict=False))
        assert choose_tau_by_snr(alpha_bar, T) == list(range(1, T + 1))
        with pytest.raises(ValueError, match=f"from 1 to {T}"):
            choose_tau_by_snr(alpha_bar, T + 1)


def test_tau_by_snr_is_as_even_as_whole_steps_allow():
    """At T = 200 and S = 8 no two wanted values share a step: each tau is the nearest one, by brute force."""
    alpha_bar = make_alpha_bar("linear", 200)
    snr = [log_snr(float(a)) for a in alpha_bar[1:]]
    for place, t in enumerate(choose_tau_by_snr(alpha_bar, 8)[::-1]):
        wanted = snr[-1] + (snr[0] - snr[-1]) * place / 7
        assert abs(snr[t - 1] - wanted) == min(abs(value - wanted) for value in snr)


@pytest.mark.parametrize("choose", [choose_tau, lambda T, S: choose_tau_by_snr(make_alpha_bar("linear", T), S)])
@pytest.mark.parametrize("steps", [3, 8, 20])
def test_second_order_equals_diffusers_multistep_solver(choose, steps):
    """e^{tau_1} against DPM-Solver++(2M), midpoint, for a nonlinear f; diffusers works in float32."""
    alpha_bar, (x_T, h) = make_alpha_bar("linear", TIMESTEPS), start(torch.float64)
    tau = choose(TIMESTEPS, steps)
    theirs = DPMSolverMultistepScheduler(
        TIMESTEPS,
        trained_betas=betas_of(alpha_bar).tolist(),
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(timesteps=[t - 1 for t in tau[::-1]])
    e = x_T
    for t, number in zip(tau[:0:-1], theirs.timesteps, strict=False):
        e = theirs.step(nonlinear(e, torch.full((1,), t), h), number, e).prev_sample
    ours, last = skip_step(nonlinear, x_T, h, alpha_bar, tau, order=2)
    torch.testing.assert_close(ours, e.double(), rtol=1e-4, atol=1e-5)
    assert torch.equal(last, nonlinear(ours, torch.full((1,), tau[0]), h))
    first, _ = skip_step(nonlinear, x_T, h, alpha_bar, tau)
    assert (first - ours).abs().max() > 1e-3  # the orders differ by more than the tolerance


def test_orders_on_a_gaussian_whose_chain_is_known():
    """e^0 ~ N(m, v): f is linear, and the exact chain is e^t = sqrt(abar) m + sqrt(abar v + 1 - abar) z. Twice the
    steps halve the error of the first order and quarter that of the second."""
    m, v, T = 0.7, 0.09, 4096
    alpha_bar = make_alpha_bar("cosine", T)

    def f(e, t, h):
        a = alpha_bar[t].unsqueeze(-1)
        return m + a.sqrt() * v / (a * v + 1 - a) * (e - a.sqrt() * m)

    z = torch.randn(50, 1, generator=generator(5), dtype=torch.float64)

    def exact(t):
        a = alpha_bar[t]
        return a.sqrt() * m + (a * v + 1 - a).sqrt() * z

    def error(steps, order):
        tau = choose_tau(T, steps)
        tau = [t for t in tau if T // 4 <= t <= T * 3 // 4]  # away from both ends, where log-SNR runs off
        found, _ = skip_step(f, exact(tau[-1]), None, alpha_bar, tau, order=order)
        return (found - exact(tau[0])).abs().max().item()

    for order, factor in ((1, 2), (2, 4)):
        assert error(64, order) / error(128, order) == pytest.approx(factor, rel=0.15)
    assert error(64, 2) < error(64, 1) / 5


def test_an_order_that_is_none(one_sentence):
    x_T, h = start()
    for options in ({"order": 3}, {"order": 2, "eta": 1.0}):
        one_sentence(
            lambda options=options: skip_step(nonlinear, x_T, h, make_alpha_bar("linear", 10), [5, 10], **options),
            "order",
        )
