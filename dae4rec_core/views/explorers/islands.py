"""The three islands: many chains at once, with sliders for S and rho, without and with a history."""

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from torch import Tensor

from dae4rec_core.experiments.islands import ALPHA_BAR, CENTRES, SPREAD, TIMESTEPS, IslandDenoiser, history_of
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.views.plots import CHAIN, GREY, WITHOUT
from dae4rec_core.views.stage import Stage, mosaic
from dae4rec_core.views.widgets import Explorer, Live, View, chooser, counter, frames

WIDTHS = {"0": 0.0, "half": 0.5, "posterior": 1.0}  # rho, in widths of the posterior
DRAWN, LINES = 60, 12  # chains in the picture, and how many of them have lines where chains are random: more hide all


class IslandExplorer:
    """Skip-step sampling on the islands, from the same 1,000 first noises at every S and rho; DRAWN of them are shown.

    Left, nothing is known (h = 0); right, the history says the first island.
    """

    def __init__(self, f: IslandDenoiser, seed: int = 0):
        self.f, self.seed = f, seed
        self.x_T = torch.randn(1000, 2, generator=torch.Generator().manual_seed(seed))
        self.stage = IslandStage()

    @torch.no_grad()
    def chains(self, S: int, rho: str, known: bool) -> Tensor:
        """Where every chain was: (S + 1, 1000, 2), from x_T to the answer."""
        h = history_of(torch.zeros(len(self.x_T), dtype=torch.long), hidden=not known)
        path: list[Tensor] = []
        noise = torch.Generator().manual_seed(self.seed + 1)
        _, answer = skip_step(
            self.f,
            self.x_T,
            h,
            ALPHA_BAR,
            choose_tau(TIMESTEPS, S),
            WIDTHS[rho],
            noise,
            on_step=lambda i, t, e_t, prediction: path.append(e_t),
        )
        return torch.stack([*path, answer])

    def view(self, S: int | str, rho: str) -> View:
        """Raises ValueError for an S outside 1..T or a rho that is none of WIDTHS."""
        if rho not in WIDTHS:
            raise ValueError(f"rho is {rho!r}; choose {', '.join(WIDTHS)}.")
        artists: list[Artist] = []
        said = []
        for axis, known, name in (("a", False, "nothing known"), ("b", True, "history: island 1")):
            chains = self.chains(int(S), rho, known)
            share = f"{on_island(chains[-1]).double().mean():.0%}"
            lines = DRAWN if rho == "0" else LINES
            artists += self.stage.chains(axis, chains[:, :DRAWN].numpy(), lines, f"{name}: {share} on an island")
            said.append(f"{name}, {share}")
        words = f"{DRAWN} chains of S = {S} steps, rho = {rho}. Answers on an island: {'; '.join(said)}."
        return View(self.stage.png(artists), words)

    def frames(self, steps: list[int], start: int) -> Explorer:
        inner = {rho: frames("S", {f"{S}": self.view(S, rho) for S in steps}, f"{start}", play=True) for rho in WIDTHS}
        return frames("rho", inner, "0")

    def live(self, start: int) -> Explorer:
        rho, rho_slider = chooser("rho", list(WIDTHS), "0")
        S, S_slider = counter("S", start, 1, TIMESTEPS)
        return Live(self.view, {"S": S, "rho": rho}, [[rho, rho_slider], [S, S_slider]]).explorer(
            f"live slider S: 1 to {TIMESTEPS}"
        )


def on_island(points: Tensor) -> Tensor:
    """Which of points (n, 2) are within three standard deviations of a centre: (n,) of True and False."""
    return torch.cdist(points, CENTRES).min(1).values < 3 * SPREAD


class IslandStage(Stage):
    """The rings of the islands, twice."""

    def __init__(self) -> None:
        edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.91, "wspace": 0.02}
        figure, self.axes = mosaic("ab", width=6.4, height=3.2, **edges)
        for axis in self.axes.values():
            for centre in CENTRES.tolist():
                axis.add_patch(Circle((centre[0], centre[1]), 3 * SPREAD, fill=False, edgecolor=GREY, linewidth=2))
            axis.set(xlim=(-3.2, 3.2), ylim=(-2.9, 2.9), aspect="equal")
            axis.axis("off")
        super().__init__(figure)

    def chains(self, name: str, chains: np.ndarray, lines: int, title: str) -> list[Artist]:
        """The answers of chains (S + 1, n, 2) as dots, the first `lines` chains as lines; one artist for all lines."""
        axis = self.axes[name]
        walks = LineCollection(list(chains[:, :lines].swapaxes(0, 1)), colors=CHAIN, linewidths=0.6, alpha=0.35)
        (dots,) = axis.plot(*chains[-1].T, "o", color=WITHOUT, markersize=4)
        words = axis.text(0.5, 1.02, title, fontsize=10, ha="center", transform=axis.transAxes)
        return [axis.add_collection(walks, autolim=False), dots, words]
