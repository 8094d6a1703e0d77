"""One person of a town: the law of the next visit beside what many draws of a model say, for any S."""

import html
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from torch import Tensor

from dae4rec_core.cloud import entropy, probabilities, total_variation
from dae4rec_core.data.dataset import Dataset, Split, held_out
from dae4rec_core.experiments.solvers import law_given_history
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import stream
from dae4rec_core.views.explorers.parts import names_of
from dae4rec_core.views.plots import COLOURS, GREY, WITHOUT, coordinates
from dae4rec_core.views.stage import Stage, mosaic
from dae4rec_core.views.widgets import Explorer, Live, View, chooser, nested

DRAWS = 300
STEPS = (1, 2, 5, 10, 20, 50)
LAW, CHOSEN = COLOURS[2], COLOURS[1]
AREA = 2_000  # of a circle with p = 1, in square points
LISTED = 5


class CloudExplorer:
    """The law of one person's next visit as circles on the map, beside the shares of DRAWS draws without compensator.

    models: by name. data: the folder of a town, whose law is known. users: ids of those with a test answer who are
    shown; the dashed curves are means over all of them. Raises ValueError for data without a law or a map.
    """

    def __init__(
        self, models: Mapping[str, Recommender], dataset: Dataset, split: Split, data: str | Path, users: Sequence[str]
    ):
        self.models, self.users, self.labels = models, list(users), names_of(dataset)
        longest = max((model.model.config for model in models.values()), key=lambda config: config.data.max_len)
        examples = held_out(dataset, split, "test", longest)
        rows = {str(dataset.user_ids[user]): row for row, user in enumerate(examples.user.tolist())}
        unknown = [user for user in self.users if user not in rows]
        if unknown:
            raise ValueError(f"User {unknown[0]!r} of {dataset.name} has no test answer; try {next(iter(rows))!r}.")
        self.examples = examples.select(torch.tensor([rows[user] for user in self.users]))
        law, place = law_given_history(data, dataset, split, self.examples, longest), coordinates(dataset)
        if law is None or place is None:
            raise ValueError(f"{dataset.name} has no known law or no map; take a town, with --repeats keep.")
        self.law, self.place = law, place
        self.shares = lru_cache(maxsize=64)(self._shares)  # a slider asks for the same draws again and again
        self.stage = lru_cache(maxsize=16)(self._stage)

    def _shares(self, model: str, S: int) -> Tensor:
        """Which share of the draws has each item as its nearest: (users, |V|)."""
        recommender = self.models[model]
        history = self.examples.history[:, -recommender.model.config.data.max_len :]
        e_0 = recommender.draw(history, DRAWS, S, generator=stream(0, "sampling"))
        return probabilities(recommender.model, history, e_0, width=0).cpu()

    def _stage(self, user: str) -> "CloudStage":
        return CloudStage(self, user)

    def distances(self, model: str) -> Tensor:
        """Total variation from the law for each of STEPS and each user: (S, users)."""
        return torch.stack([total_variation(self.shares(model, S), self.law) for S in STEPS])

    def entropies(self, model: str) -> Tensor:
        """In bits, for each of STEPS and each user: (S, users)."""
        return torch.stack([entropy(self.shares(model, S)) for S in STEPS])

    def view(self, model: str, user: str, S: int | str) -> View:
        """Raises ValueError for a model, a user or an S that is not shown."""
        for what, value, known in (("model", model, self.models), ("user", user, self.users), ("S", int(S), STEPS)):
            if value not in known:
                raise ValueError(f"There is no {what} {value!r} here; choose one of {', '.join(map(str, known))}.")
        row, S = self.users.index(user), int(S)
        law, shares = self.law[row], self.shares(model, S)[row]
        far, bits = self.distances(model)[STEPS.index(S), row].item(), entropy(shares[None]).item()
        words = (
            f"User {user}, {model}, S = {S}: {DRAWS} draws have {int((shares > 0).sum())} different items and "
            f"{bits:.1f} bits, the law has {entropy(law[None]).item():.1f}, and the total "
            f"variation between them is {far:.2f}."
        )
        caption = f"<p>{html.escape(words)}</p>{self._table(law, shares)}"
        return View(self.stage(user).draws(model, S), words, f'<div role="status">{caption}</div>')

    def _table(self, law: Tensor, shares: Tensor) -> str:
        """The likeliest items of both, with percentages."""
        style = 'style="padding:1px 14px 1px 0;text-align:left;font-weight:inherit"'
        best = [part.sort(descending=True, stable=True).indices[:LISTED].tolist() for part in (law, shares)]

        def cell(item: int, part: Tensor) -> str:
            text = f"{html.escape(self.labels[item])} {part[item]:.0%}" if part[item] > 0 else ""
            return f"<td {style}>{text}</td>"

        rows = [cell(one, law) + cell(other, shares) for one, other in zip(*best, strict=True)]
        head = f'<tr style="font-weight:bold"><th scope="col" {style}>likeliest by the law</th>'
        head += f'<th scope="col" {style}>most often drawn</th></tr>'
        return f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def frames(self, users: Mapping[str, str], start: int) -> Explorer:
        """users: who is shown, by what the slider calls them."""
        models, steps = {name: name for name in self.models}, {f"{S}": S for S in STEPS}
        first, person = next(iter(models)), next(iter(users))
        return nested(self.view, ("model", models, first), ("person", users, person), ("S", steps, f"{start}"))

    def live(self, start: int) -> Explorer:
        """Any of the users."""
        model, model_slider = chooser("model", list(self.models), next(iter(self.models)))
        user, user_slider = chooser("person", self.users, self.users[0])
        S, S_slider = chooser("S", [f"{s}" for s in STEPS], f"{start}")
        shown = [[model, model_slider], [user, user_slider], [S, S_slider]]
        live = Live(self.view, {"model": model, "user": user, "S": S}, shown)
        return live.explorer(f"live slider S: {', '.join(map(str, STEPS))}")


class CloudStage(Stage):
    """The explorer's picture of one person without a model's draws: the law on the map, an empty map, two curves."""

    def __init__(self, explorer: CloudExplorer, user: str):
        edges = {"left": 0.07, "right": 0.98, "bottom": 0.1, "top": 0.94, "hspace": 0.35, "wspace": 0.2}
        figure, self.axes = mosaic("ab;ab;cd", width=7.6, height=5.8, **edges)
        self.explorer, self.row = explorer, explorer.users.index(user)
        for name, title in (("a", "the law of the next visit"), ("b", f"nearest items of {DRAWS} draws")):
            self.axes[name].scatter(explorer.place[:, 0], explorer.place[:, 1], s=2, color=GREY)
            self.axes[name].set(title=title, aspect="equal", xticks=[], yticks=[])
        circles(self.axes["a"], explorer.place, explorer.law[self.row].numpy(), LAW)
        for n, model in enumerate(explorer.models):
            style: dict[str, Any] = {"color": COLOURS[(0, 3)[n % 2]], "linewidth": 1.5}
            for axis, found in (("c", explorer.distances(model)), ("d", explorer.entropies(model))):
                self.axes[axis].plot(STEPS, found[:, self.row], marker="o", markersize=4, label=model, **style)
                self.axes[axis].plot(STEPS, found.mean(1), linestyle=":", **style)
        self.axes["d"].axhline(entropy(explorer.law[self.row][None]).item(), color=LAW, linestyle="--", label="the law")
        for name, title in (("c", "total variation from the law"), ("d", "entropy in bits")):
            self.axes[name].set(xscale="log", ylim=(0, 1.02 if name == "c" else None), xlabel="S (dotted: mean person)")
            self.axes[name].set_xticks(STEPS, [f"{S}" for S in STEPS])
            self.axes[name].xaxis.set_minor_locator(NullLocator())
            self.axes[name].set_title(title, fontsize=9)
            self.axes[name].legend(fontsize=7, frameon=False)
        super().__init__(figure)

    def draws(self, model: str, S: int) -> bytes:
        """A PNG with the draws of a model, and S marked on the curves."""
        explorer = self.explorer
        shares = explorer.shares(model, S)[self.row].numpy()
        artists: list[Artist] = [circles(self.axes["b"], explorer.place, shares, WITHOUT)]
        artists += [self.axes[name].axvline(S, color=CHOSEN, linewidth=6, alpha=0.3) for name in "cd"]
        return self.png(artists)


def circles(axis: Axes, place: np.ndarray, p: np.ndarray, colour: str) -> Artist:
    """A circle at each place (|V|, 2) whose area is its probability p (|V|,)."""
    some = p > 0
    return axis.scatter(place[some, 0], place[some, 1], s=AREA * p[some], color=colour, alpha=0.6, linewidths=0)
