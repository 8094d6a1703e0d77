"""Maps of the towns with knobs: how often people return across, how often a kind of place follows itself upwards."""

import html

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm

from dae4rec_core.experiments.maps import LEADS
from dae4rec_core.views.plots import COLOURS, panels, png
from dae4rec_core.views.widgets import Explorer, View, frames

WINNER = "who wins"
WIDEST = 0.8  # a lead that has the full colour: a factor of 1.7


class MapExplorer:
    """A map for each lead, and one of the best method, over the towns of results/maps.csv.

    table: a row for each town and seed, with the knobs again, returns knob and users, `winner`, and LEADS.
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table
        self.shown = [WINNER, *(name for name in LEADS if name in table and table[name].notna().any())]
        self.axes = {name: sorted(table[name].unique()) for name in ("again", "returns knob", "users")}

    def cells(self, column: str, users: float) -> list[list[list]]:
        """What the seeds say, by `again` and `returns knob`."""
        rows = self.table[self.table["users"] == users]
        return [
            [
                rows[(rows["again"] == again) & (rows["returns knob"] == returns)][column].dropna().tolist()
                for returns in self.axes["returns knob"]
            ]
            for again in self.axes["again"]
        ]

    def view(self, name: str) -> View:
        """Raises ValueError for a map that is not shown."""
        if name not in self.shown:
            raise ValueError(f"There is no map {name!r} here; choose one of {', '.join(self.shown)}.")
        figure, axes = panels(len(self.axes["users"]), width=3.9, height=3.4)
        draw = self._winners if name == WINNER else self._leads
        said = [draw(axis, name, users) for axis, users in zip(axes, self.axes["users"], strict=True)]
        for axis, users in zip(axes, self.axes["users"], strict=True):
            axis.set_xticks(range(len(self.axes["returns knob"])), [f"{r:g}" for r in self.axes["returns knob"]])
            axis.set_yticks(range(len(self.axes["again"])), [f"{a:g}" for a in self.axes["again"]])
            axis.set(title=f"{users:g} people", xlabel="share of returns", ylabel="weight of the same kind again")
        figure.suptitle(name)
        words = " ".join(said)
        return View(png(figure), f"{name}. {words}", f'<div role="status"><p>{html.escape(words)}</p></div>')

    def _leads(self, axis: Axes, name: str, users: float) -> str:
        """A heat map of the mean over seeds, as factors; a question mark where the seeds don't agree on the sign."""
        cells = self.cells(name, users)
        means = np.array([[np.mean(seeds) if seeds else np.nan for seeds in row] for row in cells])
        axis.imshow(means, origin="lower", cmap="PuOr", norm=TwoSlopeNorm(0, -WIDEST, WIDEST), aspect="auto")
        for y, row in enumerate(cells):
            for x, seeds in enumerate(row):
                if seeds:
                    doubt = "?" if min(seeds) < 0 < max(seeds) else ""
                    axis.text(x, y, f"×{2 ** means[y, x]:.2f}{doubt}", ha="center", va="center")
        ahead, known = int((means > 0).sum()), int(np.isfinite(means).sum())
        return (
            f"With {users:g} people it is ahead in {ahead} of {known} towns; the factor of HR@10 is between "
            f"{2 ** np.nanmin(means):.2f} and {2 ** np.nanmax(means):.2f}."
        )

    def _winners(self, axis: Axes, name: str, users: float) -> str:
        """The method with the largest HR@10, by seed where they differ."""
        cells = self.cells("winner", users)
        methods = sorted(self.table["winner"].dropna().unique())
        first = np.array([[methods.index(seeds[0]) if seeds else np.nan for seeds in row] for row in cells])
        axis.imshow(
            first, origin="lower", cmap=ListedColormap(COLOURS[: len(methods)]), vmin=-0.5, vmax=len(methods) - 0.5,
            alpha=0.5, aspect="auto",
        )  # fmt: skip
        for y, row in enumerate(cells):
            for x, seeds in enumerate(row):
                axis.text(x, y, "\nor ".join(dict.fromkeys(seeds)), ha="center", va="center", fontsize=7)
        won = pd.Series([seed for row in cells for seeds in row for seed in seeds]).value_counts()
        return (
            f"With {users:g} people, each town with each seed: "
            + ", ".join(f"{name} wins {n} of {won.sum()}" for name, n in won.items())
            + "."
        )

    def frames(self, start: str = WINNER) -> Explorer:
        return frames("map", {name: self.view(name) for name in self.shown}, start)
