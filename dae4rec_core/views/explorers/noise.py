"""The forward process of Eq. 2 on points in the plane, with sliders for the schedule and t."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dae4rec_core.config import SCHEDULES
from dae4rec_core.method.schedule import add_noise, make_alpha_bar
from dae4rec_core.views import plots
from dae4rec_core.views.plots import CHAIN, COLOURS, LINES, scatter_groups
from dae4rec_core.views.stage import mosaic
from dae4rec_core.views.widgets import Explorer, Live, View, chooser, counter, frames, player


class NoiseExplorer:
    """The forward process of Eq. 2 on points (n, 2): what step t of which schedule leaves of them."""

    def __init__(self, points: Tensor, groups: np.ndarray, names: list[str], timesteps: int, seed: int = 0):
        self.points, self.groups, self.names = points, groups, names
        self.noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(seed))
        self.levels = {name: make_alpha_bar(name, timesteps) for name in SCHEDULES}

    def view(self, schedule: str, t: int) -> View:
        """Raises ValueError for an unknown schedule or a t outside 0..T."""
        if schedule not in self.levels:
            raise ValueError(f"Schedule {schedule!r} is unknown; choose {', '.join(SCHEDULES)}.")
        last = len(self.levels[schedule]) - 1
        if not 0 <= t <= last:
            raise ValueError(f"t is {t}, but the chain has steps 0 to {last}; choose one of them.")
        steps = torch.full((len(self.points),), t)
        cloud = add_noise(self.points, steps, self.noise, self.levels[schedule]).numpy()
        figure = noise_figure(cloud, self.groups, self.names, t, schedule, self.levels)
        share = float(self.levels[schedule][t])
        return View(
            plots.png(figure, 1),
            f"The points at t = {t} of the {schedule} schedule: alpha_bar is {share:.2f}.",
        )

    def frames(self, steps: list[int], start: int, schedule: str = "cosine") -> Explorer:
        inner = {
            name: frames("t", {f"{t}": self.view(name, t) for t in steps}, f"{start}", play=True) for name in SCHEDULES
        }
        return frames("schedule", inner, schedule)

    def live(self, start: int, schedule: str = "cosine") -> Explorer:
        last = len(self.levels[schedule]) - 1
        names, names_slider = chooser("schedule", list(SCHEDULES), schedule)
        t, t_slider = counter("t", start, 0, last)
        shown = [[names, names_slider], [t, t_slider, player("t", t_slider, "value", 0, last)]]
        return Live(self.view, {"schedule": names, "t": t}, shown).explorer(f"live slider t: 0 to {last}")


def noise_figure(
    cloud: np.ndarray, groups: np.ndarray, names: list[str], t: int, schedule: str, levels: dict[str, Tensor]
) -> Figure:
    """The forward process at step t: the noised points (n, 2), and how much signal each schedule leaves.

    levels: alpha_bar (T + 1,) of each schedule by name; `schedule` is the one drawn boldly.
    """
    figure, axes = mosaic("ab", width=8.4, height=3.9, left=0.05, right=0.98, bottom=0.13, top=0.92)
    points, curves = axes["a"], axes["b"]
    scatter_groups(points, cloud, groups, names, size=7, legend=False)
    share = float(levels[schedule][t])
    points.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", title=f"t = {t}: alpha_bar = {share:.2f}")
    for n, (name, alpha_bar) in enumerate(levels.items()):
        chosen = name == schedule
        curves.plot(alpha_bar, LINES[n], color=COLOURS[n], linewidth=2.5 if chosen else 1, label=name)
    curves.plot(t, share, "o", color=CHAIN, markersize=8)
    curves.set(xlabel="t", ylabel="alpha_bar", title=f"{schedule} schedule")
    curves.legend(fontsize=8, frameon=False)
    return figure
