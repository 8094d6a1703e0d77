"""Every figure of the series: functions that take what the module returned and give back a matplotlib Figure.

`show(figure, alt)` puts one into a notebook as a PNG with alt text. Colours are Okabe and Ito's, safe for colour-blind
readers; heatmaps use cividis, which also prints well in grey.
"""

import io
import threading

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
import torch
from IPython.display import Image, display
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from dae4rec_core.data import Dataset
from dae4rec_core.graph import ItemGraph

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
PLAIN, COMPENSATED, CHAIN = COLOURS[5], COLOURS[0], COLOURS[7]
LINES = ["-", "--", "-.", ":"]
GREY = "#B8B8B8"
HEAT = "cividis"
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
}


_STYLING = threading.Lock()  # live explorers draw in a thread of their own, and matplotlib's style is global


def png(figure: Figure, level: int = 6) -> bytes:
    """The figure as PNG bytes, the same for the same figure. level: of compression; 1 is quick, for live sliders."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return _encoded(canvas, level)


def _encoded(canvas: FigureCanvasAgg, level: int) -> bytes:
    buffer = io.BytesIO()
    picture = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.save(buffer, "png", compress_level=level)
    return buffer.getvalue()


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
            artist.axes.draw_artist(artist)
        for artist in artists:
            artist.remove()
        return _encoded(self.canvas, 1)


def show(figure: Figure, alt: str) -> None:
    """Display a figure with a text for those who can't see it."""
    display(Image(png(figure), alt=alt))


def panels(columns: int = 1, width: float = 5.0, height: float = 3.6, rows: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure in the series' style with rows x columns axes, as a flat array."""
    with _STYLING, plt.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows))  # not pyplot's, which a notebook would show twice
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes.ravel()


def mosaic(pattern: str, width: float, height: float, **edges) -> tuple[Figure, dict]:
    """A figure with axes named by letters, as `Figure.subplot_mosaic`, and fixed edges: quicker than a fitted layout,
    which takes half of the time that a live slider has. width, height: of the whole figure, in inches."""
    with _STYLING, plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width, height))
        axes = figure.subplot_mosaic(pattern, gridspec_kw=edges)
    return figure, axes


def coordinates(dataset: Dataset) -> np.ndarray | None:
    """Item positions (|V|, 2) from the columns x, y or lon, lat (or longitude, latitude); None without."""
    for names in (["x", "y"], ["lon", "lat"], ["longitude", "latitude"]):
        if set(names) <= set(dataset.attributes.columns):
            return dataset.attributes[names].to_numpy(dtype=float)
    return None


def item_groups(dataset: Dataset, by: str = "category", most: int = 8) -> tuple[np.ndarray, list[str]]:
    """A group number for each item and the groups' names; where the data lacks what is asked for, the next best.

    "category": categories beyond the `most - 1` largest become "other". "area": the column district, else bands of
    longitude with equal counts. Data with neither has one group, "items".
    """
    place = coordinates(dataset)
    column = next((c for c in ("category", "parent_category") if c in dataset.attributes), None)
    if by == "area" and "district" in dataset.attributes:
        codes, names = pd.factorize(dataset.attributes["district"].astype(str), sort=True)
        return codes, list(names)
    if place is not None and (by == "area" or column is None):
        bands = pd.qcut(place[:, 0], 24 if by == "area" else 6, labels=False, duplicates="drop")
        return bands.astype(int), [f"area {n + 1}" for n in range(bands.max() + 1)]
    if column is None:
        return np.zeros(dataset.n_items, dtype=int), ["items"]
    values = dataset.attributes[column].fillna("unknown").astype(str)
    common = values.value_counts()
    names = sorted(common.index[: most if len(common) <= most else most - 1])
    names += ["other"] if len(common) > most else []
    return np.array([names.index(v) if v in names else len(names) - 1 for v in values]), names


def scatter_groups(axis, xy: np.ndarray, groups: np.ndarray, names: list[str], size=12, legend: bool = True) -> None:
    """Points coloured and marked by group."""
    for n, name in enumerate(names):
        at = xy[groups == n]
        axis.scatter(*at.T, s=size, color=COLOURS[n % 8], marker=MARKERS[n % 8], alpha=0.7, linewidths=0, label=name)
    if legend:
        axis.legend(fontsize=7, markerscale=1.5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def item_map(dataset: Dataset) -> Figure:
    """Items in the plane by their own coordinates, coloured by group. Raises ValueError without coordinates."""
    place = coordinates(dataset)
    if place is None:
        raise ValueError(f"{dataset.name} has no columns x, y or lon, lat; add them to items.csv to draw a map.")
    figure, (axis,) = panels(width=6.5, height=4.6)
    scatter_groups(axis, place, *item_groups(dataset), size=16)
    axis.set(title=f"{dataset.name}: {dataset.n_items:,} items on the map", aspect="equal")
    axis.axis("off")
    return figure


def degree_figure(graph: ItemGraph) -> Figure:
    """How many items have how many neighbours, on log-log axes."""
    degree = np.bincount(graph.edges.ravel(), minlength=graph.n_items)
    values, counts = np.unique(degree[degree > 0], return_counts=True)
    figure, (axis,) = panels()
    axis.loglog(values, counts, "o", markersize=4)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(ScalarFormatter())
        one.set_minor_formatter(NullFormatter())
    axis.set(xlabel="degree (different neighbours in the graph)", ylabel="items", title="Degrees of the item graph")
    return figure


def graph_figure(graph: nx.Graph, labels: dict, seed: int = 0, highlight=(), title: str = "") -> Figure:
    """A small graph drawn with its labels; highlighted nodes in orange."""
    figure, (axis,) = panels(width=6.5, height=4.6)
    place = nx.spring_layout(graph, seed=seed)
    colours = [COLOURS[1] if node in highlight else COLOURS[4] for node in graph]
    nx.draw_networkx(
        graph, place, ax=axis, labels=labels, node_color=colours, edge_color=GREY, font_size=8, node_size=260
    )
    axis.set_title(title)
    axis.axis("off")
    axis.margins(0.15)
    return figure


def heatmaps(matrices: dict[str, np.ndarray], groups: np.ndarray, names: list[str], limits=(0, 1)) -> Figure:
    """Item-by-item matrices side by side, items ordered by group (stable), thin lines between groups."""
    order = np.argsort(groups, kind="stable")
    borders = np.cumsum(np.bincount(groups, minlength=len(names)))
    middles = borders - np.bincount(groups, minlength=len(names)) / 2
    figure, axes = panels(len(matrices), width=4.2, height=4.0)
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(
            np.asarray(matrix)[np.ix_(order, order)], vmin=limits[0], vmax=limits[1], cmap=HEAT, interpolation="none"
        )
        for border in borders[:-1]:
            axis.axhline(border - 0.5, color="white", linewidth=0.4)
            axis.axvline(border - 0.5, color="white", linewidth=0.4)
        axis.set(title=title, xticks=[], yticks=[])
    every = -(-len(names) // 10)  # at most ten names beside the picture
    axes[0].set_yticks(middles[::every], names[::every], fontsize=7)
    figure.colorbar(image, ax=list(axes), shrink=0.8)
    return figure


def overview(dataset: Dataset, similarity: np.ndarray, table: pd.DataFrame) -> Figure:
    """The series in three pictures: the items (on the map where there is one), their similarity, HR@10 against S."""
    figure, axes = panels(3, width=4.3, height=3.7)
    groups, names = item_groups(dataset, "area")
    place = coordinates(dataset)
    if place is not None:
        scatter_groups(axes[0], place, *item_groups(dataset), size=8, legend=False)
        axes[0].set(aspect="equal")
    axes[0].set_title(f"{dataset.n_items:,} items, {dataset.n_users:,} users")
    axes[0].axis("off")
    order = np.argsort(groups, kind="stable")
    axes[1].imshow(similarity[np.ix_(order, order)], vmin=0, vmax=1, cmap=HEAT, interpolation="none")
    axes[1].set(title="what the graph auto-encoder found", xticks=[], yticks=[])
    draw_steps(axes[2], table, "HR@10", 100)
    axes[2].set(title="sampling in S of T steps", ylabel="HR@10 (%)")
    axes[2].legend(fontsize=7, frameon=False)
    return figure


def lines(
    series: dict[str, pd.Series], xlabel: str, ylabel: str, title: str = "", log=(), levels: dict | None = None
) -> Figure:
    """Named lines over their index; `log` may hold "x" and "y"; `levels` are named dashed horizontals."""
    figure, (axis,) = panels(width=6.0)
    for n, (name, values) in enumerate(series.items()):
        axis.plot(
            values.index,
            values.to_numpy(),
            label=name,
            marker=MARKERS[n % 8] if len(values) < 40 else None,
            markersize=4,
        )
    for n, (name, value) in enumerate((levels or {}).items()):
        axis.axhline(value, color=GREY, linestyle=["--", ":", "-."][n % 3])
        axis.annotate(name, (1, value), xycoords=("axes fraction", "data"), fontsize=7, ha="right", va="bottom")
    for which in log:
        getattr(axis, f"set_{which}scale")("log")
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.legend(fontsize=8, frameon=False)
    return figure


def methods_figure(table: pd.DataFrame, groups: list[str], methods: list[str], highlight=(), xlabel="") -> Figure:
    """A dot for each method, one panel for each group: mean over seeds, and a line from the lowest to the highest.

    table: columns group, method, value. highlight: methods drawn in a colour of their own.
    """
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = panels(columns, 3.6, 0.22 * len(methods) + 0.9, rows)
    for axis, group in zip(axes, groups, strict=False):
        for place, method in enumerate(reversed(methods)):
            values = table.query("group == @group and method == @method")["value"]
            if len(values):
                colour = COLOURS[list(highlight).index(method)] if method in highlight else "#666666"
                axis.plot([values.min(), values.max()], [place, place], color=colour, linewidth=3, alpha=0.4)
                axis.plot(values.mean(), place, "D" if method in highlight else "o", color=colour, markersize=5)
        axis.set_title(group, fontsize=9)
        axis.set_yticks(range(len(methods)), list(reversed(methods)), fontsize=7)
        axis.grid(axis="x", color="#EEEEEE")
        axis.set_xlim(left=0)
    for number, axis in enumerate(axes):
        if number >= len(groups):
            axis.set_axis_off()
        elif number % columns:
            axis.set_yticklabels([])
    figure.supxlabel(xlabel, fontsize=9)
    return figure


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
    axes = list(axes.values())
    scatter_groups(axes[0], cloud, groups, names, size=7, legend=False)
    share = float(levels[schedule][t])
    axes[0].set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", title=f"t = {t}: {share:.0%} of the variance is signal")
    for n, (name, alpha_bar) in enumerate(levels.items()):
        chosen = name == schedule
        axes[1].plot(alpha_bar, LINES[n], color=COLOURS[n], linewidth=2.5 if chosen else 1, label=name)
    axes[1].plot(t, share, "o", color=CHAIN, markersize=8)
    axes[1].set(xlabel="t", ylabel="signal, alpha_bar", title=f"{schedule} schedule")
    axes[1].legend(fontsize=8, frameon=False)
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
        black = {"markeredgecolor": "black", "linestyle": ""}
        shown = self.plane.plot(*walk[:step].T, color=CHAIN, linewidth=1, marker=".", markersize=5, label="chain e^t")
        shown += self.plane.plot(
            *beliefs[:step].T, color=PLAIN, linewidth=1, marker="x", markersize=6, label="belief f"
        )
        shown += self.plane.plot(*self.items[target], "*", color=COLOURS[6], markersize=15, label="true next", **black)
        if step == self.S:
            shown += self.plane.plot(*compensated, "D", color=COMPENSATED, markersize=8, label="compensated", **black)
        key = Legend(self.plane, shown, [one.get_label() for one in shown], fontsize=8, frameon=False, loc="lower left")
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
    axes = list(axes.values())
    for axis, matrix, title in ((axes[0], similar, f"similarity of E, δ = {delta:g}"), (axes[1], goal, "its goal S*")):
        axis.imshow(matrix[np.ix_(order, order)], vmin=0, vmax=1, cmap=HEAT, interpolation="none")
        axis.set(title=title, xticks=[], yticks=[])
    for value, singular in spectra.items():
        if value != delta:
            axes[2].plot(range(1, len(singular) + 1), singular, color=GREY, linewidth=1)
    axes[2].plot(range(1, len(spectra[delta]) + 1), spectra[delta], color=COMPENSATED, linewidth=2.5)
    axes[2].set(xscale="log", yscale="log", xlabel="number", title="singular values of E (grey: other δ)")
    values = sorted({*table.index, *trained})
    place = {value: n for n, value in enumerate(values)}
    axes[3].errorbar([place[d] for d in table.index], table["mean"], table["std"].fillna(0), marker="o", capsize=3)
    for value, reached in trained.items():
        axes[3].plot(place[value], reached, "D", color=PLAIN, markerfacecolor="none", markersize=7)
    axes[3].axvline(place[delta], color=COLOURS[1], linewidth=8, alpha=0.3)
    axes[3].set_xticks(range(len(values)), [f"{value:g}" for value in values], rotation=45)
    axes[3].set(xlabel="δ", title="validation HR@10 (%)")
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


def draw_steps(axis, table: pd.DataFrame, column: str, scale: float, part: str = "test") -> None:
    """One column of a tidy sweep against S: without and with compensator, mean and one standard deviation over seeds;
    the Markov chain (S = "markov") as a dashed level."""
    model = table[(table["part"] == part) & (table["method"] == "DAE4Rec")]
    chain, model = model[model["S"].astype(str) == "markov"], model[model["S"].astype(str) != "markov"]
    model = model.assign(S=model["S"].astype(int), compensator=model["compensator"].astype(str) == "True")
    for compensated, colour, name in ((False, PLAIN, "without compensator"), (True, COMPENSATED, "with compensator")):
        group = model[model["compensator"] == compensated].groupby("S")[column].agg(["mean", "std"]) * scale
        axis.errorbar(
            group.index, group["mean"], group["std"].fillna(0), color=colour, marker="o", capsize=3, label=name
        )
    if len(chain):
        axis.axhline(chain[column].mean() * scale, color=CHAIN, linestyle="--", label="Markov chain, T steps")
    axis.set(xscale="log", xlabel="S (sampling steps)")


def steps_figure(table: pd.DataFrame, times: pd.DataFrame) -> Figure:
    """Figure 3's layout: HR@10 of a tidy sweep and the `sampling_times` against S."""
    figure, axes = panels(2, width=4.8, height=3.5)
    draw_steps(axes[0], table, "HR@10", 100)
    draw_steps(axes[1], times.assign(part="test", method="DAE4Rec"), "seconds", 1)
    axes[0].set(ylabel="HR@10 (%)")
    axes[1].set(ylabel="seconds, all users", yscale="log")
    axes[0].legend(fontsize=8, frameon=False)
    return figure
