"""The explorers' pictures: noise, a sampling chain, one delta, one item's company, drawn quickly for live sliders."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import NullLocator

from dae4rec_core.views.plots import (
    CHAIN,
    COLOURS,
    COMPENSATED,
    GREY,
    HEAT,
    LINES,
    MARKERS,
    PLAIN,
    draw_steps,
    encoded,
    panels,
    scatter_groups,
    styled,
)


class Stage:
    """A figure whose fixed part is drawn once: what moves is drawn over a copy of it, in a fifth of the time."""

    def __init__(self, figure: Figure):
        self.canvas = FigureCanvasAgg(figure)
        self.canvas.draw()
        self.fixed = self.canvas.copy_from_bbox(figure.bbox)

    def png(self, artists: list[Artist]) -> bytes:
        """The fixed part with these artists above it; they are taken off their axes again."""
        self.canvas.restore_region(self.fixed)
        for artist in artists:
            assert artist.axes is not None
            artist.axes.draw_artist(artist)
        for artist in artists:
            artist.remove()
        return encoded(self.canvas, 1)


def mosaic(pattern: str, width: float, height: float, **edges: float) -> tuple[Figure, dict[str, Axes]]:
    """A figure with axes named by letters, as `Figure.subplot_mosaic`, and fixed edges: quicker than a fitted layout,
    which takes half of the time that a live slider has. width, height: of the whole figure, in inches."""
    with styled({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width, height))
        axes = figure.subplot_mosaic(pattern, gridspec_kw=edges)
    return figure, axes


def principal_plane(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and the two principal directions of (n, d) points: project with (x - mean) @ directions, (d,) and (d, 2).

    The sign of each direction is fixed (its largest entry is positive), so that a figure does not flip between runs.
    """
    points = points.detach().cpu().double()
    mean = points.mean(0)
    directions = torch.linalg.svd(points - mean, full_matrices=False).Vh[:2].T
    largest = directions.abs().argmax(0)
    return mean, directions * directions[largest, [0, 1]].sign()


def noise_figure(
    cloud: np.ndarray, groups: np.ndarray, names: list[str], t: int, schedule: str, levels: dict[str, torch.Tensor]
) -> Figure:
    """The forward process at step t: the noised points (n, 2), and how much signal each schedule leaves.

    levels: alpha_bar (T + 1,) of each schedule by name; `schedule` is the one drawn boldly.
    """
    figure, axes = mosaic("ab", width=8.4, height=3.9, left=0.05, right=0.98, bottom=0.13, top=0.92)
    points, curves = axes["a"], axes["b"]
    scatter_groups(points, cloud, groups, names, size=7, legend=False)
    share = float(levels[schedule][t])
    points.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", title=f"t = {t}: {share:.0%} of the variance is signal")
    for n, (name, alpha_bar) in enumerate(levels.items()):
        chosen = name == schedule
        curves.plot(alpha_bar, LINES[n], color=COLOURS[n], linewidth=2.5 if chosen else 1, label=name)
    curves.plot(t, share, "o", color=CHAIN, markersize=8)
    curves.set(xlabel="t", ylabel="signal, alpha_bar", title=f"{schedule} schedule")
    curves.legend(fontsize=8, frameon=False)
    return figure


class SamplingStage(Stage):
    """Sampling chains of S steps among the items, and HR@10 and time against S with a band at this S.

    items (|V|, 2): in a plane that reaches `reach` from its middle; groups, names: see `item_groups`. table, times: see
    `draw_steps` and `evaluation.sampling_times`.
    """

    def __init__(
        self,
        items: np.ndarray,
        groups: np.ndarray,
        names: list[str],
        reach: float,
        S: int,
        table: pd.DataFrame,
        times: pd.DataFrame,
    ):
        figure, axes = mosaic("ab;ac", width=8.4, height=4.2, left=0.01, right=0.98, bottom=0.11, top=0.93, hspace=0.45)
        self.items, self.S, self.plane = items, S, axes["a"]
        scatter_groups(self.plane, items, groups, names, size=7, legend=False)
        self.plane.legend(fontsize=6, frameon=False, loc="upper right", markerscale=1.5)
        self.plane.set(xlim=(-reach, reach), ylim=(-reach, reach))
        self.plane.axis("off")
        draw_steps(axes["b"], table, "HR@10", 100)
        axes["b"].set(title="HR@10 (%), all users, spread over seeds", xlabel="", ylim=(0, None))
        axes["b"].legend(fontsize=7, frameon=False, loc="lower left")
        times = times.assign(part="test", method="DAE4Rec", ms=1000 * times["seconds"] / times["users"])
        draw_steps(axes["c"], times, "ms", 1)
        axes["c"].set(title="ms a user", yscale="log")
        for axis in (axes["b"], axes["c"]):
            axis.axvline(S, color=COLOURS[1], linewidth=6, alpha=0.3)
            axis.xaxis.set_minor_locator(NullLocator())
        super().__init__(figure)

    def chain(self, walk: np.ndarray, beliefs: np.ndarray, step: int, target: int, compensated: np.ndarray) -> bytes:
        """A PNG of the chain up to `step` in 1..S.

        walk, beliefs (S, 2): e^t and f(e^t, t, h) in sampling order; target: the true next item; compensated (2,):
        what c_phi makes of it, drawn at the last step.
        """
        black: dict[str, Any] = {"markeredgecolor": "black", "linestyle": ""}
        shown = self.plane.plot(*walk[:step].T, color=CHAIN, linewidth=1, marker=".", markersize=5, label="chain e^t")
        shown += self.plane.plot(
            *beliefs[:step].T, color=PLAIN, linewidth=1, marker="x", markersize=6, label="belief f"
        )
        shown += self.plane.plot(*self.items[target], "*", color=COLOURS[6], markersize=15, label="true next", **black)
        if step == self.S:
            shown += self.plane.plot(*compensated, "D", color=COMPENSATED, markersize=8, label="compensated", **black)
        names = [str(one.get_label()) for one in shown]
        key = Legend(self.plane, shown, names, fontsize=8, frameon=False, loc="lower left")
        self.plane.add_artist(key)
        title = self.plane.text(0.5, 1.02, f"S = {self.S}, step {step}", transform=self.plane.transAxes, ha="center")
        return self.png([*shown, key, title])


def delta_figure(
    delta: float,
    similar: np.ndarray,
    goal: np.ndarray,
    spectra: dict[float, np.ndarray],
    table: pd.DataFrame,
    trained: dict[float, float],
    groups: np.ndarray,
) -> Figure:
    """One delta: similarity of E beside S*, the spectrum of E among the other deltas', HR@10 with a band at delta.

    similar, goal: (|V|, |V|) in [0, 1]. spectra: singular values of E by delta. table: index delta, columns mean and
    std (NaN where one seed was run), in percent. trained: further runs, drawn hollow. Items are ordered by group.
    """
    order = np.argsort(groups, kind="stable")
    edges = {"left": 0.06, "right": 0.98, "bottom": 0.1, "top": 0.95, "hspace": 0.25}
    figure, axes = mosaic("ab;cd", width=7.6, height=6.6, **edges)
    for axis, matrix, title in (
        (axes["a"], similar, f"similarity of E, δ = {delta:g}"),
        (axes["b"], goal, "its goal S*"),
    ):
        axis.imshow(matrix[np.ix_(order, order)], vmin=0, vmax=1, cmap=HEAT, interpolation="none")
        axis.set(title=title, xticks=[], yticks=[])
    for value, singular in spectra.items():
        if value != delta:
            axes["c"].plot(range(1, len(singular) + 1), singular, color=GREY, linewidth=1)
    axes["c"].plot(range(1, len(spectra[delta]) + 1), spectra[delta], color=COMPENSATED, linewidth=2.5)
    axes["c"].set(xscale="log", yscale="log", xlabel="number", title="singular values of E (grey: other δ)")
    values = sorted({*table.index, *trained})
    place = {value: n for n, value in enumerate(values)}
    axes["d"].errorbar([place[d] for d in table.index], table["mean"], table["std"].fillna(0), marker="o", capsize=3)
    for value, reached in trained.items():
        axes["d"].plot(place[value], reached, "D", color=PLAIN, markerfacecolor="none", markersize=7)
    axes["d"].axvline(place[delta], color=COLOURS[1], linewidth=8, alpha=0.3)
    axes["d"].set_xticks(range(len(values)), [f"{value:g}" for value in values], rotation=45)
    axes["d"].set(xlabel="δ", title="validation HR@10 (%)")
    return figure


def neighbours_figure(place: np.ndarray, item: int, near: dict[str, np.ndarray], title: str = "") -> Figure:
    """One item on a map and what counts as near it, a colour and a marker for each notion; points may coincide.

    place: (|V|, 2). near: indices of items by name of the notion; lines go to those of the first.
    """
    figure, (axis,) = panels(width=6.4, height=4.6)
    axis.scatter(*place.T, s=6, color=GREY, linewidths=0)
    for n, (name, others) in enumerate(near.items()):
        if n == 0:
            for other in others:
                axis.plot(*place[[item, other]].T, color=COLOURS[n], linewidth=0.6, alpha=0.6)
        size = (110, 70, 30)[n % 3]  # larger ones below, so that all of a shared place can be seen
        axis.scatter(
            *place[others].T, s=size, marker=MARKERS[n], label=name, zorder=3, color=COLOURS[n], edgecolors="white"
        )
    axis.plot(*place[item], "*", markersize=17, color=COLOURS[6], markeredgecolor="black", zorder=4, label="the item")
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.axis("off")
    return figure
