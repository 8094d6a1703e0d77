"""The notebooks' figures: functions that take what the module returned and give back a matplotlib Figure.

`show(figure, alt)` puts one into a notebook as a PNG with alt text. Colours are Okabe and Ito's, safe for colour-blind
readers; heatmaps use cividis, which also prints well in grey. The explorers' figures stand beside them.
"""

import contextlib
import io
import threading
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter, StrMethodFormatter

from dae4rec_core import checkpoint
from dae4rec_core.data.dataset import Dataset
from dae4rec_core.method.gae import similarity
from dae4rec_core.method.graph import ItemGraph

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
WITHOUT, WITH, CHAIN = COLOURS[5], COLOURS[0], COLOURS[7]  # without and with compensator, e^t; in every figure
LINES = ["-", "--", "-.", ":"]
GREY = "#B8B8B8"
HEAT = "cividis"
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
}

STYLING = threading.Lock()  # live explorers draw in a thread of their own, and matplotlib's style is global


@contextlib.contextmanager
def styled(changes: dict[Any, Any] | None = None) -> Iterator[None]:
    """Figures made inside have the series' style, with some settings changed."""
    with STYLING, plt.rc_context(STYLE | (changes or {})):
        yield


def png(figure: Figure, level: int = 6) -> bytes:
    """The figure as PNG bytes, the same for the same figure. level: of compression; 1 is quick, for live sliders."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return encoded(canvas, level)


def encoded(canvas: FigureCanvasAgg, level: int) -> bytes:
    """What was drawn on a canvas, as PNG bytes."""
    buffer = io.BytesIO()
    picture = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.save(buffer, "png", compress_level=level)
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure with a text for those who can't see it."""
    display(Image(png(figure), alt=alt))


def panels(columns: int = 1, width: float = 5.0, height: float = 3.6, rows: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure in the series' style with rows x columns axes, as a flat array."""
    with styled():
        figure = Figure(figsize=(width * columns, height * rows))  # not pyplot's, which a notebook would show twice
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes.ravel()


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
        codes, districts = pd.factorize(dataset.attributes["district"].astype(str), sort=True)
        return codes, list(districts)
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


def scatter_groups(
    axis: Axes, xy: np.ndarray, groups: np.ndarray, names: list[str], size: float = 12, legend: bool = True
) -> None:
    """Points coloured and marked by group."""
    for n, name in enumerate(names):
        at = xy[groups == n]
        style: dict[str, Any] = {"color": COLOURS[n % 8], "marker": MARKERS[n % 8], "alpha": 0.7, "linewidths": 0}
        axis.scatter(at[:, 0], at[:, 1], s=size, label=name, **style)
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


def graph_figure(
    graph: nx.Graph, labels: dict[Any, str], seed: int = 0, highlight: Collection[Hashable] = (), title: str = ""
) -> Figure:
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


def heatmaps(
    matrices: dict[str, np.ndarray], groups: np.ndarray, names: list[str], limits: tuple[float, float] = (0, 1)
) -> Figure:
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


def write_overview(dataset: Dataset, folder: Path) -> None:
    """Draw overview.png from the other artifacts of `experiments.artifacts`."""
    z_star = checkpoint.load(folder / "checkpoint", "cpu").z_star
    if z_star is None:
        raise ValueError(f"The checkpoint in {folder} has no Z*, so there is no similarity to draw.")
    figure = overview(dataset, similarity(z_star).numpy(), pd.read_csv(folder / "steps.csv"))
    (folder / "overview.png").write_bytes(png(figure))


def lines(
    series: dict[str, pd.Series],
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: Collection[str] = (),
    levels: dict[str, float] | None = None,
    colours: dict[str, str] | None = None,
) -> Figure:
    """Named lines over their index; `log` may hold "x" and "y"; `levels` are named dashed horizontals.

    colours: of the lines that have one of their own, such as WITH and WITHOUT.
    """
    figure, (axis,) = panels(width=6.0)
    for n, (name, values) in enumerate(series.items()):
        axis.plot(
            values.index,
            values.to_numpy(),
            label=name,
            color=(colours or {}).get(name, COLOURS[n % 8]),
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


def methods_figure(
    table: pd.DataFrame, groups: list[str], methods: list[str], highlight: Collection[str] = (), xlabel: str = ""
) -> Figure:
    """A dot for each method, one panel for each group: mean over seeds, and a line from the lowest to the highest.

    table: columns group, method, value; where some are below 0, as differences are, a line marks it. highlight: methods
    drawn in a colour of their own.
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
        if (table["value"] >= 0).all():
            axis.set_xlim(left=0)
        else:  # differences
            axis.axvline(0, color="#333333", linewidth=0.8)
    for number, axis in enumerate(axes):
        if number >= len(groups):
            axis.set_axis_off()
        elif number % columns:
            axis.set_yticklabels([])
    figure.supxlabel(xlabel, fontsize=9)
    return figure


def draw_steps(axis: Axes, table: pd.DataFrame, column: str, scale: float, part: str = "test") -> None:
    """One column of a tidy sweep against S: without and with compensator, mean and one standard deviation over seeds;
    the Markov chain (S = "markov") as a dashed level."""
    model = table[(table["part"] == part) & (table["method"] == "DAE4Rec")]
    chain, model = model[model["S"].astype(str) == "markov"], model[model["S"].astype(str) != "markov"]
    model = model.assign(S=model["S"].astype(int), compensator=model["compensator"].astype(str) == "True")
    for compensated, colour, name in ((False, WITHOUT, "without compensator"), (True, WITH, "with compensator")):
        group = model[model["compensator"] == compensated].groupby("S")[column].agg(["mean", "std"]) * scale
        axis.errorbar(
            group.index, group["mean"], group["std"].fillna(0), color=colour, marker="o", capsize=3, label=name
        )
    if len(chain):
        axis.axhline(chain[column].mean() * scale, color=CHAIN, linestyle="--", label="Markov chain, T steps")
    axis.set(xscale="log", xlabel="S (sampling steps)")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


WAYS = {("t", 1): "even in t", ("log-SNR", 1): "even in log-SNR", ("log-SNR", 2): "log-SNR, order 2"}


def draw_ways(axis: Axes, errors: pd.DataFrame, column: str, scale: float = 1) -> None:
    """One column of `experiments.solvers` against S: a line for each way, mean and one standard deviation over seeds;
    for the total variation also the level of draws from the law itself and of popularity."""
    axis.set(xscale="log", xlabel="S (sampling steps)")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if column not in errors:
        axis.text(0.5, 0.5, "unknown for this data", ha="center", transform=axis.transAxes)
        return
    model = errors[errors["method"] == "DAE4Rec"].astype({"S": int, "order": int})
    for n, ((spacing, order), name) in enumerate(WAYS.items()):
        way = model[(model["spacing"] == spacing) & (model["order"] == order)]
        group = way.groupby("S")[column].agg(["mean", "std"]) * scale
        style: dict[str, Any] = {"color": COLOURS[2 + n], "linestyle": LINES[n], "marker": MARKERS[n], "markersize": 4}
        axis.errorbar(group.index, group["mean"], group["std"].fillna(0), capsize=3, label=name, **style)
    if column == "total variation":
        for name in ("popularity", "the law's own draws"):
            level = errors.loc[errors["method"] == name, column].item()
            axis.axhline(level, color=GREY, linestyle="--", linewidth=1)
            axis.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=7, ha="right", va="bottom")
        axis.set(ylim=(0, 1))


def solvers_figure(errors: pd.DataFrame) -> Figure:
    """The three errors of `experiments.solvers` side by side: to the fine solver, to the law, to the ranking."""
    figure, axes = panels(3, width=3.6, height=3.4)
    for axis, column, scale, title in (
        (axes[0], "distance", 1, "distance to the fine chain"),
        (axes[1], "total variation", 1, "total variation to the law"),
        (axes[2], "HR@10", 100, "HR@10 (%)"),
    ):
        draw_ways(axis, errors, column, scale)
        axis.set(title=title, ylim=(0, None if column != "total variation" else 1))
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def steps_figure(table: pd.DataFrame, times: pd.DataFrame) -> Figure:
    """Figure 3's layout: HR@10 of a tidy sweep and the `sampling_times` against S."""
    figure, axes = panels(2, width=4.8, height=3.5)
    draw_steps(axes[0], table, "HR@10", 100)
    draw_steps(axes[1], times.assign(part="test", method="DAE4Rec"), "seconds", 1)
    axes[0].set(ylabel="HR@10 (%)")
    axes[1].set(ylabel="seconds, all users", yscale="log")
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def seed_bands(
    tables: dict[str, pd.DataFrame], xlabel: str, ylabel: str, title: str = "", levels: dict[str, float] | None = None
) -> Figure:
    """Named lines over their index, the mean of the columns (one a seed), in a band from the lowest to the highest.

    levels: named dashed horizontals.
    """
    means = {name: table.mean(axis=1) for name, table in tables.items()}
    figure = lines(means, xlabel, ylabel, title, levels=levels)
    for name, line in zip(tables, figure.axes[0].get_lines(), strict=False):
        table = tables[name]
        edges = table.min(axis=1).to_numpy(), table.max(axis=1).to_numpy()
        figure.axes[0].fill_between(table.index, *edges, color=line.get_color(), alpha=0.2, linewidth=0)
    return figure
