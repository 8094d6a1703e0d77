"""The compensator c_phi of Eq. 16: it replaces the last step of skip-step sampling."""

import torch
from torch import Tensor, nn


class Compensator(nn.Module):
    """c(e^{tau_1}, h): an MLP on the concatenation, predicting e^0. One is trained for each S, because e^{tau_1}
    depends on S."""

    def __init__(self, dim: int, hidden: int, dropout: float, depth: int = 2):
        super().__init__()
        deeper = [layer for _ in range(depth - 1) for layer in (nn.Linear(hidden, hidden), nn.GELU())]
        self.net = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.GELU(), nn.Dropout(dropout), *deeper, nn.Linear(hidden, dim)
        )
        self.shortcut = nn.Linear(dim, dim)

    def forward(self, e_tau1: Tensor, h: Tensor) -> Tensor:
        """e_tau1, h: (B, d). Returns the corrected e^0 (B, d)."""
        return self.shortcut(h) + self.net(torch.cat([e_tau1, h], dim=-1))


def compensator_loss(e0: Tensor, prediction: Tensor) -> Tensor:
    """Eq. 16: mean over the batch of ||e^0 - c(e^{tau_1}, h)||^2, a sum over the d dimensions."""
    return (e0 - prediction).square().sum(-1).mean()
