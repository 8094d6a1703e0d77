"""Checkers of 04: the coefficients of Eq. 13 and one step with a linear denoiser."""

import torch
from torch import Tensor

from dae4rec_core.exercises.checker import Answer, checker
from dae4rec_core.method.sampling import skip_step

__all__ = ["check_kappa_xi", "check_slope"]


@checker
def check_kappa_xi(kappa_xi: Answer) -> None:
    for now, before, rho in ((0.3, 0.8, 0.0), (0.5, 0.9, 0.2), (0.1, 1.0, 0.0)):
        kappa, xi = kappa_xi(now, before, rho)
        assert abs(kappa * now**0.5 + xi - before**0.5) < 1e-9, (
            "the mean must be kept: kappa sqrt(abar_t) + xi = sqrt(abar_s)."
        )
        assert abs(kappa**2 * (1 - now) + rho**2 - (1 - before)) < 1e-9, (
            "the variance must be kept: kappa^2 (1 - abar_t) + rho^2 = 1 - abar_s."
        )


@checker
def check_slope(slope: Answer) -> None:
    chain = torch.tensor([1.0, 0.8, 0.3], dtype=torch.float64)  # alpha_bar at t = 0, 1, 2
    no_h = torch.zeros(1, 1)
    for a in (0.0, 0.5, 1.3):

        def linear(e: Tensor, t: Tensor, h: Tensor, a: float = a) -> Tensor:
            return a * e + 0.7

        ends = [skip_step(linear, torch.full((1, 1), x).double(), no_h, chain, [1, 2])[0].item() for x in (0.0, 1.0)]
        expected = ends[1] - ends[0]
        assert abs(slope(a, 0.3, 0.8) - expected) < 1e-9, (
            f"with a = {a} the sampler maps 0 and 1 to points {expected:.4f} apart."
        )
