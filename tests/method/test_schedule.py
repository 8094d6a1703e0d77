"""Noise schedules, loss weights and the forward process, against diffusers, numpy and definitions.

diffusers works in float32, so its alpha_bar is trusted to 1e-5; formulas in float64 to 1e-12.
"""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from dae4rec_core.method.schedule import (
    add_noise,
    alpha_bar_from_betas,
    betas_of,
    loss_weights,
    make_alpha_bar,
)

SCHEDULES = ["linear", "cosine", "exponential"]


def diffusers_scheduler(name: str, timesteps: int) -> DDPMScheduler:
    """The DDPM scheduler of diffusers that should have the same betas as ours."""
    if name == "linear":
        scale = 1000 / timesteps  # as noisy at the end as the 1,000 steps of Ho et al.
        return DDPMScheduler(timesteps, beta_schedule="linear", beta_start=1e-4 * scale, beta_end=0.02 * scale)
    return DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2")


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [25, 200, 1000])
def test_alpha_bar_equals_diffusers(name, timesteps):
    alpha_bar = make_alpha_bar(name, timesteps)
    theirs = diffusers_scheduler(name, timesteps)
    assert alpha_bar.dtype == torch.float64 and alpha_bar.shape == (timesteps + 1,)
    assert alpha_bar[0] == 1
    torch.testing.assert_close(betas_of(alpha_bar).float(), theirs.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=0, atol=1e-5)


@pytest.mark.parametrize("timesteps", [5, 50, 200])
def test_exponential_equals_the_formula_in_numpy(timesteps):
    """1 - beta_t = exp(-b_min/T - (b_max - b_min)/2 * x_t/T^2), b 0.1 to 10, x 1 to 2T+1."""
    log_alpha = [
        -0.1 / timesteps - 0.5 * 9.9 * (1 + i * (2 * timesteps) / (timesteps - 1)) / timesteps**2
        for i in range(timesteps)
    ]
    expected = np.concatenate([[1.0], np.exp(np.cumsum(log_alpha))])
    np.testing.assert_allclose(make_alpha_bar("exponential", timesteps), expected, rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("timesteps", [1, 2, 3, 10, 200])
def test_alpha_bar_falls_strictly_and_stays_positive(name, timesteps):
    alpha_bar = make_alpha_bar(name, timesteps)
    assert torch.isfinite(alpha_bar).all() and (alpha_bar > 0).all()
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_step_is_nearly_pure_noise(name):
    """Sampling starts from N(0, I), so at most 1% of the variance of e^T may be signal."""
    assert make_alpha_bar(name, 200)[-1] < 0.01
    assert make_alpha_bar(name, 1)[-1] < 0.01


def test_betas_and_alpha_bar_undo_each_other():
    betas = torch.tensor([0.1, 0.5, 0.25], dtype=torch.float64)
    alpha_bar = alpha_bar_from_betas(betas)
    torch.testing.assert_close(alpha_bar, torch.tensor([1, 0.9, 0.45, 0.3375], dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(betas_of(alpha_bar), betas, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_add_noise_equals_diffusers(name):
    """Our t counts 1..T, theirs 0..T-1."""
    timesteps = 100
    generator = torch.Generator().manual_seed(0)
    e0, noise = torch.randn(2, 64, 8, generator=generator)
    t = torch.randint(1, timesteps + 1, (64,), generator=generator)
    theirs = diffusers_scheduler(name, timesteps).add_noise(e0, noise, t - 1)
    ours = add_noise(e0, t, noise, make_alpha_bar(name, timesteps))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_add_noise_at_step_zero_returns_the_clean_embedding():
    e0, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    same = add_noise(e0, torch.zeros(5, dtype=torch.long), noise, make_alpha_bar("linear", 10))
    assert torch.equal(same, e0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_jump_has_the_distribution_of_the_single_steps(name):
    """Eq. 1 iterated t times and Eq. 2 in one jump: mean and variance agree to 5 standard errors.

    n = 100,000 draws: standard error std/sqrt(n) for a mean, var*sqrt(2/n) for a variance.
    """
    n, timesteps, start = 100_000, 20, 1.5
    alpha_bar = make_alpha_bar(name, timesteps)
    generator = torch.Generator().manual_seed(1)
    e = torch.full((n,), start, dtype=torch.float64)
    for t, beta in enumerate(betas_of(alpha_bar).tolist(), start=1):
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        e = math.sqrt(1 - beta) * e + math.sqrt(beta) * noise
        if t in (1, 5, 20):
            jump = add_noise(
                torch.full((n, 1), start, dtype=torch.float64),
                torch.full((n,), t),
                torch.randn(n, 1, generator=generator, dtype=torch.float64),
                alpha_bar,
            )[:, 0]
            mean, var = start * alpha_bar[t].sqrt().item(), 1 - alpha_bar[t].item()
            for sample in (e, jump):
                assert abs(sample.mean().item() - mean) < 5 * math.sqrt(var / n)
                assert abs(sample.var().item() - var) < 5 * var * math.sqrt(2 / n)


def test_uniform_lambda_is_one_for_every_step():
    weights = loss_weights("uniform", make_alpha_bar("linear", 7))
    assert weights.tolist() == [0.0] + [1.0] * 7


@pytest.mark.parametrize("name", SCHEDULES)
def test_min_snr_equals_its_definition(name):
    """min(SNR, 5) with SNR = signal variance over noise variance, by a loop over t."""
    alpha_bar = make_alpha_bar(name, 50)
    weights = loss_weights("min_snr", alpha_bar)
    for t in range(1, 51):
        a = float(alpha_bar[t])
        assert weights[t].item() == pytest.approx(min(a / (1 - a), 5.0), rel=1e-12)
    assert weights[1] == 5 and weights[50] < 1  # both branches of the minimum are met


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_papers_lambda_is_the_scaled_inverse_posterior_variance(name):
    """lambda_t = alpha_bar_{t-1} / (2 beta~_t), beta~_t by diffusers (float32: relative 1e-3)."""
    alpha_bar = make_alpha_bar(name, 50)
    theirs = DDPMScheduler(50, trained_betas=betas_of(alpha_bar).tolist(), variance_type="fixed_small")
    weights = loss_weights("paper", alpha_bar)
    assert weights.shape == (51,) and weights[0] == 0 and torch.isfinite(weights).all()
    for t in range(2, 51):
        expected = alpha_bar[t - 1].item() / (2 * theirs._get_variance(t - 1).item())
        assert weights[t].item() == pytest.approx(expected, rel=1e-3)
    assert weights[1] == weights[2]


def test_the_papers_lambda_with_a_single_step_is_one():
    assert loss_weights("paper", make_alpha_bar("linear", 1)).tolist() == [0.0, 1.0]


def test_loss_weights_leave_alpha_bar_as_it_was():
    alpha_bar = make_alpha_bar("linear", 10)
    before = alpha_bar.clone()
    for kind in ("uniform", "paper", "min_snr"):
        loss_weights(kind, alpha_bar)
    assert torch.equal(alpha_bar, before)


def test_bad_names_and_sizes_are_named_in_the_error():
    with pytest.raises(ValueError, match="T.*is 0"):
        make_alpha_bar("linear", 0)
    with pytest.raises(ValueError, match="'sigmoid'.*linear, cosine or exponential"):
        make_alpha_bar("sigmoid", 10)
    with pytest.raises(ValueError, match="'snr'.*uniform, paper or min_snr"):
        loss_weights("snr", make_alpha_bar("linear", 10))
