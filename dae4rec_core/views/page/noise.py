"""The noise explorer, which runs in the page (noise.js), and its still picture."""

import torch
from torch import Tensor

from dae4rec_core.config import SCHEDULES
from dae4rec_core.experiments.islands import CENTRES
from dae4rec_core.method.schedule import add_noise, make_alpha_bar
from dae4rec_core.views.page.steps import digits
from dae4rec_core.views.page.widget import NoiseWidget, line
from dae4rec_core.views.plots import COLOURS, panels, png
from dae4rec_core.views.widgets import Explorer, View

ASKED = (5, 10, 20, 35)  # t of the question
SHOWN = (0, 10, 20, 50)  # t of the still picture


def noise_explorer(points: Tensor, island: Tensor, noise: Tensor, timesteps: int, schedule: str, t: int) -> Explorer:
    """What step t of which schedule leaves of points on the islands (Eq. 2).

    points, noise: e^0 and epsilon (n, 2). island: of each (n,). schedule, t: what is shown first.
    """
    levels = {name: make_alpha_bar(name, timesteps) for name in SCHEDULES}
    rights = {t: right(points, island, noise, levels[schedule], t) for t in range(timesteps + 1)}
    asked = [t for t in ASKED if t <= timesteps]
    nearest = min(asked, key=lambda t: abs(rights[t] - 2 / 3))
    about = {
        "points": digits(points, 3),
        "noise": digits(noise, 3),
        "of": island.tolist(),
        "centres": digits(CENTRES),
        "colours": COLOURS[:3],
        "levels": {name: digits(alpha_bar) for name, alpha_bar in levels.items()},
        "schedule": schedule,
        "t": t,
        "question": {
            "question": f"Up to which t of the {schedule} schedule can you name the island of two points in three?",
            "answers": [f"t = {t}" for t in asked],
            "right": asked.index(nearest),
            "then": ", ".join(f"t = {t}: {rights[t]:.0%}" for t in asked)
            + ". Blind guessing would be right for one in three.",
        },
    }
    return Explorer(
        NoiseWidget(about=line(about)), still(points, island, noise, levels[schedule]), "the noise explorer"
    )


def right(points: Tensor, island: Tensor, noise: Tensor, alpha_bar: Tensor, t: int) -> float:
    """The share of points at step t whose nearest centre, shrunk as they were, is their own."""
    spoiled = add_noise(points, torch.full((len(points),), t), noise, alpha_bar)
    nearest = torch.cdist(spoiled, alpha_bar[t].sqrt().float() * CENTRES).argmin(1)
    return (nearest == island).float().mean().item()


def still(points: Tensor, island: Tensor, noise: Tensor, alpha_bar: Tensor) -> View:
    """The points at SHOWN."""
    shown = [t for t in SHOWN if t < len(alpha_bar)]
    figure, axes = panels(len(shown), width=2.6, height=2.9)
    said = []
    for axis, t in zip(axes, shown, strict=True):
        spoiled = add_noise(points, torch.full((len(points),), t), noise, alpha_bar)
        axis.scatter(*spoiled.T, c=[COLOURS[n] for n in island.tolist()], s=4, alpha=0.5, linewidths=0)
        share = right(points, island, noise, alpha_bar, t)
        axis.set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"t = {t}: {share:.0%} named right", fontsize=10)
        said.append(f"at t = {t} {share:.0%} are nearest to their own island")
    return View(png(figure), f"{len(points)} points of three islands that dissolve into one cloud: {', '.join(said)}.")
