"""Four explorers: noise, the item graph, sampling in S steps, and delta.

Each has one `view` that draws a setting; `frames` shows chosen settings as ready-made pictures, `live` asks at every
move. Show either with `widgets.show`.
"""

import asyncio
import html
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.config import SCHEDULES, Config
from dae4rec_core.data.dataset import Dataset, Split, held_out, validation_sample
from dae4rec_core.events import Callback, Event
from dae4rec_core.method.gae import similarity
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.method.model import PAD
from dae4rec_core.method.sampling import choose_tau
from dae4rec_core.method.schedule import add_noise, make_alpha_bar
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks, top_items
from dae4rec_core.streams import stream
from dae4rec_core.training import fit
from dae4rec_core.views import explorer_plots, plots
from dae4rec_core.views.widgets import (
    Explorer,
    Live,
    View,
    chooser,
    counter,
    frames,
    player,
    row,
    sentence,
)

POWERS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
LISTED = 10  # items in every list


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
        figure = explorer_plots.noise_figure(cloud, self.groups, self.names, t, schedule, self.levels)
        share = float(self.levels[schedule][t])
        return View(
            plots.png(figure, 1),
            f"The points at t = {t} of the {schedule} schedule: {share:.0%} of their variance is signal.",
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


class GraphExplorer:
    """One item: what is next to it in the transition graph, and what is nearest to it under Z* and under E.

    Nearest is by inner product, as in S* = sigma(Z Z^T). The map is the data's own where it has coordinates, else the
    principal plane of Z*. Raises ValueError for a recommender without Z*.
    """

    def __init__(self, dataset: Dataset, split: Split, recommender: Recommender):
        if recommender.z_star is None:
            raise ValueError(
                "This recommender has no Z*, as it was trained without it (delta = 0); give one with delta above 0."
            )
        self.dataset = dataset
        z_star, e = recommender.z_star.cpu(), recommender.model.item_vectors().detach().cpu()
        place = plots.coordinates(dataset)
        if place is None:
            mean, directions = explorer_plots.principal_plane(z_star)
            place = ((z_star.double() - mean) @ directions).numpy()
        self.place = place
        self.vectors = {"nearest under Z*": z_star, "nearest under E": e}
        self.counts = transition_counts(split.training_sequences(dataset), dataset.n_items, symmetric=True)
        self.labels = names_of(dataset)

    def item(self, label: str) -> int:
        """The index of an item, by its name or its id. Raises ValueError when none is called so."""
        found = [n for n, name in enumerate(self.labels) if label in (name, str(self.dataset.item_ids[n]))]
        if not found:
            raise ValueError(f"There is no item called {label!r} in {self.dataset.name}; try {self.labels[0]!r}.")
        return found[0]

    def near(self, item: int) -> dict[str, np.ndarray]:
        """At most LISTED items by each notion, nearest first: the most travelled edges, then largest products."""
        row = self.counts[[item]].tocoo()
        others, times = row.col[row.col != item], row.data[row.col != item]
        found = {"next to it in the graph": others[np.lexsort((others, -times))][:LISTED]}
        for name, vectors in self.vectors.items():
            products = vectors @ vectors[item]
            products[item] = -torch.inf
            found[name] = products.topk(min(LISTED, len(products) - 1)).indices.numpy()
        return found

    def view(self, item: str) -> View:
        centre = self.item(item)
        near = self.near(centre)
        agree = len(set(near["next to it in the graph"]) & set(near["nearest under Z*"]))
        title = f"{self.labels[centre]}: {agree} of the {LISTED} nearest under Z* are its most travelled edges"
        figure = explorer_plots.neighbours_figure(self.place, centre, near, self.labels[centre])
        return View(plots.png(figure, 1), f"Map around {title}.", ranking(near, self.labels, title))

    def frames(self, items: list[int]) -> Explorer:
        views = {self.labels[item]: self.view(self.labels[item]) for item in items}
        return frames("item", views, self.labels[items[0]])

    def live(self, start: int) -> Explorer:
        item = field("item", self.labels[start], sorted(self.labels))
        return Live(self.view, {"item": item}, [[item]]).explorer("live: choose an item by name")


class Chain(NamedTuple):
    """One sampling chain, in the plane, and what comes of it.

    walk, beliefs: (S, 2), e^t and f(e^t, t, h) in sampling order; compensated: (2,). target: the true next item. ranks,
    lists: of the plain answer and of the compensated one; seen items are left out where the data's filter says so.
    """

    walk: np.ndarray
    beliefs: np.ndarray
    compensated: np.ndarray
    target: int
    ranks: tuple[int, ...]
    lists: tuple[list[int], ...]


class SamplingExplorer:
    """One user and one x_T: the chain in a plane among the items, the list at this S, and what S is worth on average.

    table, times: the sweep and the times that `make artifacts` measured (steps.csv, times.csv).
    """

    def __init__(
        self, recommender: Recommender, dataset: Dataset, split: Split, table: pd.DataFrame, times: pd.DataFrame
    ):
        self.recommender, self.dataset, self.table, self.times = recommender, dataset, table, times
        self.examples = held_out(dataset, split, "test", recommender.model.config)
        with torch.no_grad():
            e = recommender.model.clean(torch.arange(dataset.n_items, device=recommender.model.device)).cpu()
        self.mean, self.directions = explorer_plots.principal_plane(e)
        self.items = self._plane(e)
        self.groups, self.names = plots.item_groups(dataset)
        self.steps = sorted(recommender.compensators)
        self.labels = names_of(dataset)
        self.chain = lru_cache(maxsize=64)(self._chain)  # a step slider asks for the same chain again and again
        self.stage = lru_cache(maxsize=16)(self._stage)

    def _plane(self, vectors: Tensor) -> np.ndarray:
        return ((vectors.cpu().double() - self.mean) @ self.directions).numpy()

    def _stage(self, S: int) -> explorer_plots.SamplingStage:
        reach = 1.15 * np.abs(self.items).max()
        return explorer_plots.SamplingStage(self.items, self.groups, self.names, reach, S, self.table, self.times)

    def row(self, user: str) -> int:
        """The row of a user among the test answers. Raises ValueError for one who has none."""
        found = torch.nonzero(self.examples.user == self.dataset.user_index(user)).flatten()
        if len(found) == 0:
            known = self.dataset.user_ids[int(self.examples.user[0])]
            raise ValueError(f"User {user!r} of {self.dataset.name} has no test answer; try {known!r}.")
        return int(found[0])

    def _chain(self, user: str, S: int, seed: int) -> Chain:
        """The first noise is the one from which `Recommender.recommend` starts with this seed."""
        row, model = self.row(user), self.recommender.model
        examples = self.examples.select(slice(row, row + 1)).to(model.device)
        x_T = torch.randn(1, model.config.model.dim, generator=stream(seed, "sampling"))
        walk: list[Tensor] = []
        beliefs: list[Tensor] = []

        def follow(i: int, t: int, e_t: Tensor, prediction: Tensor) -> None:
            walk.append(e_t[0])
            beliefs.append(prediction[0])

        plain = self.recommender.generate(examples.history, S, False, x_T=x_T, on_step=follow)
        after = self.recommender.generate(examples.history, S, True, x_T=x_T)
        ranks, lists = [], []
        allowed = model.n_items - len(set(examples.seen.flatten().tolist()) - {PAD})
        with torch.no_grad():
            items, h = model.item_vectors(), model.condition(examples.history)
            for e_0 in (plain, after):
                query = model.query(e_0, examples.history, h)
                better, _ = rank_by_blocks(query, items, examples.target, examples.seen)
                _, best = top_items(query, items, min(LISTED, allowed), examples.seen)
                ranks.append(int(better) + 1)
                lists.append(best[0].tolist())
        return Chain(
            walk=self._plane(torch.stack(walk)),
            beliefs=self._plane(torch.stack(beliefs)),
            compensated=self._plane(after)[0],
            target=int(examples.target),
            ranks=tuple(ranks),
            lists=tuple(lists),
        )

    def view(self, user: str, S: int | str, step: int, seed: int = 0) -> View:
        """The chain up to `step` of S. Raises ValueError for an unknown user, an S without compensator, or a step
        that is not in 1..S."""
        S = int(S)
        chain = self.chain(user, S, seed)
        if not 1 <= step <= S:
            raise ValueError(f"Step {step} is not one of the {S} steps; choose 1 to {S}.")
        picture = self.stage(S).chain(chain.walk, chain.beliefs, step, chain.target, chain.compensated)
        columns = {
            f"S = {S}, {name} (true next item: rank {rank})": items
            for name, rank, items in zip(("no compensator", "compensator"), chain.ranks, chain.lists, strict=True)
        }
        t = choose_tau(self.recommender.model.config.diffusion.timesteps, S)[S - step]
        words = f"User {user}: really next was {self.labels[chain.target]}. Step {step} of {S}, t = {t}."
        return View(
            picture,
            f"{words} The true item is at rank {chain.ranks[0]} without and {chain.ranks[1]} with compensator.",
            ranking(columns, self.labels, words, mark=chain.target),
        )

    def frames(self, user: str, start: int = 10, most: int = 6) -> Explorer:
        """S for every compensator, and at most `most` steps of each chain."""
        inner = {}
        for S in self.steps:
            shown = sorted({int(n) for n in np.linspace(1, S, min(most, S)).round()})
            views = {f"{step}": self.view(user, S, step) for step in shown}
            inner[f"{S}"] = frames("step", views, f"{S}", play=True)
        return frames("S", inner, f"{start}")

    def live(self, user: str, start: int = 10) -> Explorer:
        """Any user by id; a move of S jumps to the last step."""
        users = [str(self.dataset.user_ids[u]) for u in self.examples.user[:500].tolist()]
        who = field("user", str(user), users)
        seed = ipywidgets.BoundedIntText(0, 0, 9999, description="noise x_T", layout={"width": "160px"})
        S, S_slider = chooser("S", [f"{s}" for s in self.steps], f"{start}")
        step, step_slider = counter("step", start, 1, start)
        play = player("step", step_slider, "value", 1, start)
        ipywidgets.jslink((step, "max"), (play, "max"))

        def new_length(change: dict[str, Any]) -> None:
            step.max = int(change["new"])
            step.value = step.max

        S.observe(new_length, "value")
        shown = [[who, seed], [S, S_slider], [step, step_slider, play]]
        live = Live(self.view, {"user": who, "S": S, "step": step, "seed": seed}, shown)
        return live.explorer(f"live slider S: {', '.join(map(str, self.steps))}")


class DeltaExplorer:
    """delta in powers of ten: similarity of E beside S*, its spectrum, validation HR@10; and training one now.

    embeddings: E (|V|, d) by delta. table: deltas.csv of `make artifacts`. config: what `live` trains with.
    """

    def __init__(
        self, dataset: Dataset, split: Split, z_star: Tensor, embeddings: dict[float, Tensor], table: pd.DataFrame
    ):
        self.dataset, self.split, self.z_star = dataset, split, z_star
        self.embeddings: dict[float, Tensor] = {}
        self.spectra: dict[float, np.ndarray] = {}
        self.drawn: dict[float, View] = {}  # until something new is trained
        for delta, e in embeddings.items():
            self._keep(delta, e)
        part = table[(table["part"] == "validation") & table["delta"].notna()]
        part = part[part["compensator"].astype(str) == "True"]
        self.table = part.groupby("delta")["HR@10"].agg(["mean", "std"]) * 100
        self.goal = similarity(z_star.cpu()).numpy()
        self.groups, _ = plots.item_groups(dataset, "area")
        self.trained: dict[float, float] = {}  # HR@10 of the runs that the reader started, in percent

    def _keep(self, delta: float, e: Tensor) -> None:
        self.embeddings[delta] = e.detach().float().cpu()
        self.spectra[delta] = torch.linalg.svdvals(self.embeddings[delta]).numpy()
        self.drawn.clear()

    def view(self, delta: float | str) -> View:
        """Raises ValueError for a delta that nobody trained."""
        delta = float(delta)
        if delta not in self.embeddings:
            known = ", ".join(f"{d:g}" for d in sorted(self.embeddings))
            raise ValueError(
                f"There is no model with δ = {delta:g} yet (there is {known}); train it now, or choose one."
            )
        if delta not in self.drawn:
            self.drawn[delta] = self._draw(delta)
        return self.drawn[delta]

    def _draw(self, delta: float) -> View:
        similar = similarity(self.embeddings[delta]).numpy()
        figure = explorer_plots.delta_figure(
            delta, similar, self.goal, self.spectra, self.table, self.trained, self.groups
        )
        if delta in self.trained:
            reached = f"your short run reached {self.trained[delta]:.1f}%"
        else:
            reached = f"validation HR@10 is {self.table['mean'][delta]:.1f}%"
        gap = np.abs(similar - self.goal).mean()
        words = f"δ = {delta:g}: {reached}; the similarity of E is {gap:.2f} from S* on average."
        return View(plots.png(figure, 1), words, f'<p role="status">{html.escape(words)}</p>')

    def frames(self, start: float) -> Explorer:
        return frames("δ", {f"{d:g}": self.view(d) for d in sorted(self.embeddings)}, f"{start:g}", width=760)

    def live(self, start: float, config: Config) -> Explorer:
        """Sliders, and a button that trains the chosen delta with `config`, with a bar and a stop."""
        delta, delta_slider = chooser("δ", [f"{d:g}" for d in sorted({*POWERS, *self.embeddings})], f"{start:g}")
        picture = Live(self.view, {"delta": delta}, [[delta, delta_slider]], width=760)
        button = ipywidgets.Button(description="train this δ now", tooltip="train this δ now")
        stop = ipywidgets.Button(description="stop", tooltip="stop training", disabled=True)
        bar = ipywidgets.FloatProgress(value=0, min=0, max=1, description="training", tooltip="training")
        note = ipywidgets.HTML()
        stopping = threading.Event()
        kept: list[asyncio.Task] = []  # the running task, or the loop may forget it

        async def run(value: float) -> None:
            loop = asyncio.get_running_loop()
            button.disabled, stop.disabled, bar.value, note.value = True, False, 0.0, ""
            stopping.clear()

            def listen(event: Event) -> None:  # called in the training thread
                if stopping.is_set():
                    raise Stopped
                words = ", ".join(f"{name} {value:.3g}" for name, value in event.metrics.items())
                share = event.step / event.total
                loop.call_soon_threadsafe(lambda: setattr(bar, "value", share))
                loop.call_soon_threadsafe(lambda: setattr(note, "value", html.escape(f"{event.stage}: {words}")))

            try:
                await asyncio.to_thread(self.train, value, config, listen)
                note.value = f"δ = {value:g} is trained."
                picture.refresh()
            except Stopped:
                note.value = "Stopped; nothing was changed."
            except Exception as error:  # whatever it is, an unread task would swallow it
                note.value = sentence(error)
            finally:
                button.disabled, stop.disabled = False, True

        button.on_click(lambda _: kept.append(asyncio.get_running_loop().create_task(run(float(delta.value)))))
        stop.on_click(lambda _: stopping.set())
        shown = picture.explorer(f"live slider δ: {', '.join(label for label, _ in delta.options)}")
        return shown._replace(widget=ipywidgets.VBox([shown.widget, row([button, stop, bar]), note]))

    def train(self, delta: float, config: Config, listen: Callback) -> None:
        """Fit one delta and keep its E and its validation HR@10, judged by the seen-item rule of the data's filter."""
        fitted = fit(self.dataset, self.split, config.replace(delta=delta), callbacks=[listen], z_star=self.z_star)
        answers = validation_sample(self.dataset, self.split, config)
        self.trained[delta] = 100 * evaluate(fitted.scorer(), answers)["HR@10"]
        self._keep(delta, fitted.model.item_vectors())


class Stopped(Exception):
    """The reader pressed stop."""


def field(name: str, value: str, options: list[str]) -> ipywidgets.Combobox:
    """A labelled text field that suggests `options` and takes anything."""
    return ipywidgets.Combobox(value=value, options=options, description=name, continuous_update=False)


def names_of(dataset: Dataset) -> list[str]:
    """What every item is called: `Dataset.label`, with the id behind a name that several items share."""
    labels = [dataset.label(item) for item in range(dataset.n_items)]
    times = Counter(labels)
    return [f"{name} ({dataset.item_ids[n]})" if times[name] > 1 else name for n, name in enumerate(labels)]


def ranking(
    columns: Mapping[str, Sequence[int] | np.ndarray], labels: Sequence[str], caption: str, mark: int | None = None
) -> str:
    """Lists of item indices side by side as an HTML table; the item `mark` is bold and says that it is the true one."""
    rows = max(map(len, columns.values()))
    style = 'style="padding:1px 14px 1px 0;text-align:left;font-weight:inherit"'

    def cell(items: Sequence[int] | np.ndarray, n: int) -> str:
        if n >= len(items):
            return f"<td {style}></td>"
        text = html.escape(labels[items[n]])
        return f"<td {style}>{f'<b>★ {text}</b>' if items[n] == mark else text}</td>"

    head = "".join(f'<th scope="col" {style}>{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" {style}>{n + 1}</th>{"".join(cell(items, n) for items in columns.values())}</tr>'
        for n in range(rows)
    )
    return (
        f'<div role="status" style="overflow-x:auto;line-height:1.5"><p>{html.escape(caption)}</p><table>'
        f'<thead style="font-weight:bold"><tr><th scope="col" {style}>rank</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
