"""The compensator c_phi of Eq. 16: it replaces the last step of skip-step sampling."""

import torch
from torch import Tensor, nn

from dae4rec_core.config import ModelConfig
from dae4rec_core.method.model import mlp_after_first


class Compensator(nn.Module):
    """c(e^{tau_1}, h): an MLP on the concatenation that predicts e^0.

    Our choice, a switch: a linear `shortcut` from h is added to the answer, as in the denoiser.
    """

    def __init__(self, sizes: ModelConfig):
        super().__init__()
        self.first = nn.Linear(2 * sizes.dim, sizes.hidden)
        self.rest = mlp_after_first(sizes.hidden, sizes.dim, sizes.depth, sizes.dropout)
        self.shortcut = nn.Linear(sizes.dim, sizes.dim) if sizes.shortcut else None

    def forward(self, e_tau1: Tensor, h: Tensor) -> Tensor:
        """e_tau1, h: (B, d). Returns the corrected e^0 (B, d)."""
        answer = self.rest(self.first(torch.cat([e_tau1, h], dim=-1)))
        return answer if self.shortcut is None else answer + self.shortcut(h)


def compensator_loss(e_0: Tensor, prediction: Tensor) -> Tensor:
    """Eq. 16: mean over the batch of ||e^0 - c(e^{tau_1}, h)||^2, a sum over the d dimensions."""
    return (e_0 - prediction).square().sum(-1).mean()
