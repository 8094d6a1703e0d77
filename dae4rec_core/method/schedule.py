"""Noise schedules and loss weights: betas, alpha_bar, lambda_t (Eq. 1-3, 5).

Symbols: `alpha_bar[t]` is the paper's \\bar{alpha}_t = prod_{s<=t} (1 - beta_s). The DDIM paper writes
plain alpha for it. Index 0 is clean data: alpha_bar[0] = 1, so t runs 1..T as in the paper.
"""

import math

import torch
from torch import Tensor

MIN_SNR_GAMMA = 5.0  # Hang et al. 2023, their default


def make_alpha_bar(name: str, timesteps: int) -> Tensor:
    """alpha_bar of a schedule, float64 on the CPU, shape (T + 1,), alpha_bar[0] = 1.

    linear       beta from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020), scaled by 1000/T so that the end is as noisy
    cosine       alpha_bar_t = f(t)/f(0), f = cos^2((t/T + 0.008)/1.008 * pi/2), beta <= 0.999 (Nichol & Dhariwal 2021)
    exponential  1 - beta_t = exp(-0.1/T - (10 - 0.1)/2 * x_t/T^2), x_t from 1 to 2T + 1 (DreamRec, Yang et al. 2024)

    Raises ValueError for an unknown name or T < 1.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps (T) is {timesteps}; give at least 1.")
    if name == "linear":
        scale = 1000 / timesteps
        betas = torch.linspace(1e-4 * scale, 0.02 * scale, timesteps, dtype=torch.float64)
        betas[-1] = 0.02 * scale  # also where T = 1, of which linspace gives the first end
    elif name == "cosine":
        t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = 1 - f[1:] / f[:-1]
    elif name == "exponential":
        x = torch.linspace(1, 2 * timesteps + 1, timesteps, dtype=torch.float64)
        betas = 1 - torch.exp(-0.1 / timesteps - 0.5 * (10 - 0.1) * x / timesteps**2)
    else:
        raise ValueError(f"Schedule {name!r} is unknown; choose linear, cosine or exponential.")
    return alpha_bar_from_betas(betas.clamp(max=0.999))


def alpha_bar_from_betas(betas: Tensor) -> Tensor:
    """alpha_bar_t = prod_{s<=t} (1 - beta_s) with alpha_bar_0 = 1 put in front: (T,) -> (T + 1,)."""
    one = torch.ones(1, dtype=betas.dtype)
    return torch.cat([one, torch.cumprod(1 - betas, dim=0)])


def betas_of(alpha_bar: Tensor) -> Tensor:
    """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, t = 1..T: (T + 1,) -> (T,)."""
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


def loss_weights(kind: str, alpha_bar: Tensor) -> Tensor:
    """lambda_t of Eq. 5 for t = 1..T, with a leading 0 so that it is indexed by t: shape (T + 1,).

    uniform  1
    paper    alpha_bar_{t-1} (1 - alpha_bar_t) / (2 beta_t (1 - alpha_bar_{t-1})), infinite at t = 1;
             our choice: lambda_1 is set to lambda_2
    min_snr  min(SNR_t, 5), SNR_t = alpha_bar_t / (1 - alpha_bar_t): Hang et al. 2023 for a model that predicts e^0

    Raises ValueError for an unknown kind.
    """
    now, before = alpha_bar[1:], alpha_bar[:-1]
    if kind == "uniform":
        weights = torch.ones_like(now)
    elif kind == "paper":
        weights = before * (1 - now) / (2 * betas_of(alpha_bar) * (1 - before))
        if len(weights) > 1:
            weights[0] = weights[1]
        else:
            weights[0] = 1.0  # T = 1 leaves no lambda_2 to borrow
    elif kind == "min_snr":
        weights = (now / (1 - now)).clamp(max=MIN_SNR_GAMMA)
    else:
        raise ValueError(f"lambda_t {kind!r} is unknown; choose uniform, paper or min_snr.")
    return torch.cat([torch.zeros(1, dtype=alpha_bar.dtype), weights])


def add_noise(e0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Forward process in one jump, Eq. 2: e^t = sqrt(alpha_bar_t) e^0 + sqrt(1 - alpha_bar_t) eps.

    e0, noise: (B, d); t: (B,) integers in 0..T; alpha_bar: (T + 1,) on any device. Returns (B, d) in e0's dtype.
    """
    level = alpha_bar.to(t.device)[t].unsqueeze(-1)  # (B, 1)
    return level.sqrt().to(e0.dtype) * e0 + (1 - level).sqrt().to(e0.dtype) * noise
