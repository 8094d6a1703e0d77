"""The three islands: a world in the plane that notebooks 03 to 05 build in the open and then share.

A point lives near one of three centres. Its "history" h says which one (a one-hot vector), or nothing at all (zeros):
the next point is known up to a small spread, or only up to three islands. Everything that the catalogue of a data set
makes hard to see can be drawn here: e^0, h, f, the chain, the compensator.
"""

import torch
from torch import Tensor, nn

from dae4rec_core.method.losses import diffusion_loss
from dae4rec_core.method.model import time_embedding
from dae4rec_core.method.schedule import add_noise, make_alpha_bar

CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
SPREAD = 0.15  # standard deviation around a centre, in both directions
TIMESTEPS = 50
ALPHA_BAR = make_alpha_bar("linear", TIMESTEPS)


def draw_points(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points e^0 (size, 2) and the islands 0..2 that they are on (size,), each equally likely."""
    island = torch.randint(0, 3, (size,), generator=generator)
    return CENTRES[island] + SPREAD * torch.randn(size, 2, generator=generator), island


def history_of(island: Tensor, hidden: Tensor | bool = False) -> Tensor:
    """h (B, 3) of islands (B,): one-hot, or zeros where `hidden`."""
    one_hot = nn.functional.one_hot(island, 3).float()
    return one_hot * ~torch.as_tensor(hidden).expand(len(island)).unsqueeze(1)


def best_answer(e_t: Tensor, t: int) -> Tensor:
    """E[e^0 | e^t] with nothing known, the answer of least squared error: e^t (B, 2), one t for all -> (B, 2).

    Given its island, e^t is Gaussian around sqrt(abar_t) centre with variance v = abar_t spread^2 + 1 - abar_t. Bayes'
    rule gives each island's probability; on an island, the best guess moves from the centre towards e^t.
    """
    level = ALPHA_BAR[t].item()
    variance = level * SPREAD**2 + 1 - level
    away = e_t.unsqueeze(1) - level**0.5 * CENTRES  # (B, 3, 2)
    chance = (-away.square().sum(2) / (2 * variance)).softmax(1)  # of each island (B, 3)
    guess = CENTRES + level**0.5 * SPREAD**2 / variance * away  # on each island (B, 3, 2)
    return (chance.unsqueeze(2) * guess).sum(1)


class IslandDenoiser(nn.Module):
    """f(e^t, t, h) on the plane: an MLP on the concatenation that predicts e^0, as Eq. 5 has it."""

    def __init__(self, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 16 + 3, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 2)
        )

    def forward(self, e_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """e_t: (B, 2); t: (B,) or (1,) steps in 1..T; h: (B, 3). Returns the predicted e^0 (B, 2)."""
        time = time_embedding(t, 16).expand(len(e_t), -1)  # (B, 16)
        return self.layers(torch.cat([e_t, time, h], dim=1))


def train_islands(steps: int = 2000, batch: int = 512, seed: int = 0) -> IslandDenoiser:
    """A denoiser trained on L_Diff (Eq. 5, uniform weights) with Adam; half of the batch doesn't see its history.

    It takes a few seconds on one core.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    f, weight = IslandDenoiser(), torch.ones(batch)
    optimizer = torch.optim.Adam(f.parameters(), lr=2e-3)
    for _ in range(steps):
        e_0, island = draw_points(batch, generator)
        h = history_of(island, torch.rand(batch, generator=generator) < 0.5)
        t = torch.randint(1, TIMESTEPS + 1, (batch,), generator=generator)
        e_t = add_noise(e_0, t, torch.randn(batch, 2, generator=generator), ALPHA_BAR)
        loss = diffusion_loss(e_0, f(e_t, t, h), weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return f.eval()
