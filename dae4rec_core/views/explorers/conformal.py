"""One user's set of items that holds the next one as often as a level promises, and the sizes of everybody's sets."""

import html
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from matplotlib.artist import Artist
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Examples
from dae4rec_core.experiments.conformal import LEVELS, ConformalSets
from dae4rec_core.views.explorers.parts import names_of
from dae4rec_core.views.plots import COLOURS, GREY, LINES, coordinates
from dae4rec_core.views.stage import Stage, mosaic
from dae4rec_core.views.widgets import Explorer, Live, View, chooser, nested

WORDS = {f"{level:.0%}": level for level in LEVELS}  # what the slider says
INSIDE, CHOSEN = COLOURS[0], COLOURS[1]


class ConformalExplorer:
    """Sets of several methods at any of LEVELS, calibrated on validation answers and counted on test answers.

    methods: p(v | history) of the answers `before` (N, |V|) and `after` (M, |V|), by name. Raises ValueError for data
    without a map.
    """

    def __init__(
        self, methods: Mapping[str, tuple[Tensor, Tensor]], dataset: Dataset, before: Examples, after: Examples
    ):
        place = coordinates(dataset)
        if place is None:
            raise ValueError(f"{dataset.name} has no map; its items need coordinates x and y.")
        self.place, self.labels, self.target = place, names_of(dataset), after.target
        self.row_of = {str(dataset.user_ids[user]): row for row, user in enumerate(after.user.tolist())}
        self.p = {name: p for name, (_, p) in methods.items()}
        self.p_values = {
            name: ConformalSets(calibration, before.target).p_values(p) for name, (calibration, p) in methods.items()
        }
        self.stage = lru_cache(maxsize=16)(self._stage)

    def sets(self, method: str, level: float) -> Tensor:
        """Which items are in each user's set: (M, |V|)."""
        return self.p_values[method] > 1 - level

    def coverage(self, method: str, level: float) -> float:
        """The share of users whose set holds their answer."""
        return self.sets(method, level).gather(1, self.target.unsqueeze(1)).double().mean().item()

    def _stage(self, method: str, user: str) -> "ConformalStage":
        return ConformalStage(self, method, self.row_of[user])

    def view(self, method: str, user: str, level: str) -> View:
        """Raises ValueError for a method, a user or a level that is not shown."""
        known: tuple[tuple[str, str, Mapping], ...]
        known = ("method", method, self.p), ("user", user, self.row_of), ("level", level, WORDS)
        for what, value, values in known:
            if value not in values:
                raise ValueError(f"There is no {what} {value!r} here; try {next(iter(values))!r}.")
        row, sets = self.row_of[user], self.sets(method, WORDS[level])
        target = int(self.target[row])
        held = "holds" if sets[row, target] else "does not hold"
        words = (
            f"At {level}, the set of {method} for user {user} has {int(sets[row].sum())} of {len(self.labels)} items "
            f"and {held} the next one, {self.labels[target]}. Over all {len(sets)} users, on test: sets hold the next "
            f"item of {self.coverage(method, WORDS[level]):.1%} and have {sets.sum(1).double().mean():.0f} items on "
            "average."
        )
        picture = self.stage(method, user).at(level)
        return View(picture, words, f'<div role="status"><p>{html.escape(words)}</p></div>')

    def frames(self, users: Mapping[str, str], start: str) -> Explorer:
        """users: who is shown, by what the slider calls them. start: a level such as "90%"."""
        methods, levels = ({label: label for label in labels} for labels in (self.p, WORDS))
        first, person = next(iter(methods)), next(iter(users))
        return nested(self.view, ("method", methods, first), ("person", users, person), ("level", levels, start))

    def live(self, start: str) -> Explorer:
        """Any of the users. start: a level such as "90%"."""
        method, method_slider = chooser("method", list(self.p), next(iter(self.p)))
        user, user_slider = chooser("person", list(self.row_of), next(iter(self.row_of)))
        level, level_slider = chooser("level", list(WORDS), start)
        shown = [[method, method_slider], [user, user_slider], [level, level_slider]]
        live = Live(self.view, {"method": method, "user": user, "level": level}, shown)
        return live.explorer(f"live slider level: {', '.join(WORDS)}")


class ConformalStage(Stage):
    """The picture of one method and user without a level: the map with the true item, an empty histogram, all sizes."""

    def __init__(self, explorer: ConformalExplorer, method: str, row: int):
        edges = {"left": 0.05, "right": 0.98, "bottom": 0.12, "top": 0.92, "hspace": 0.6, "wspace": 0.24}
        figure, self.axes = mosaic("ab;ac", width=8.2, height=4.4, **edges)
        self.explorer, self.method, self.row = explorer, method, row
        place, target = explorer.place, int(explorer.target[row])
        self.axes["a"].scatter(place[:, 0], place[:, 1], s=4, color=GREY)
        self.axes["a"].set(aspect="equal", xticks=[], yticks=[])
        self.axes["a"].set_title("the set (blue) and the true next item (star)", fontsize=9)
        self.star = place[target]
        n_items = len(place)
        self.bins, self.width = np.linspace(0, n_items, 41, retstep=True)
        self.axes["b"].set(xlim=(0, n_items), xlabel="items in a set", ylabel="users")
        sizes = [explorer.sets(method, level).sum(1).numpy() for level in LEVELS]
        most = max(np.histogram(size, self.bins)[0].max() for size in sizes)
        self.axes["b"].set_ylim(0, 1.05 * most)
        for n, name in enumerate(explorer.p):
            found = [explorer.sets(name, level).sum(1).double().mean() for level in LEVELS]
            self.axes["c"].plot(LEVELS, found, LINES[n % 4], label=name, color=COLOURS[(0, 3)[n % 2]], marker="o")
        self.axes["c"].set(ylim=(0, None), xlabel="level", ylabel="mean items in a set")
        self.axes["c"].xaxis.set_major_formatter(PercentFormatter(1, 0))
        self.axes["c"].legend(fontsize=7, frameon=False)
        super().__init__(figure)

    def at(self, level: str) -> bytes:
        """A PNG with the set at this level, the sizes of all sets, and the level marked."""
        explorer = self.explorer
        sets = explorer.sets(self.method, WORDS[level])
        inside = explorer.place[sets[self.row].numpy()]
        sizes = sets.sum(1).numpy()
        artists: list[Artist] = [
            self.axes["a"].scatter(inside[:, 0], inside[:, 1], s=16, color=INSIDE, linewidths=0),
            self.axes["a"].scatter([self.star[0]], [self.star[1]], s=170, marker="*", color=CHOSEN, edgecolors="black"),
            *self.axes["b"].bar(
                self.bins[:-1], np.histogram(sizes, self.bins)[0], self.width, align="edge", color=INSIDE
            ),
            self.axes["b"].axvline(int(sizes[self.row]), color=CHOSEN, linewidth=3),
            self.axes["c"].axvline(WORDS[level], color=CHOSEN, linewidth=6, alpha=0.3),
        ]
        return self.png(artists)
