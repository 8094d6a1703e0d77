"""Four explorers: noise, the item graph, sampling in S steps, and delta.

Each has one `view` that draws a setting; `frames` shows chosen settings as ready-made pictures, `live` asks at every
move. Show either with `widgets.show`.
"""

import asyncio
import html
import threading
from collections.abc import Callable
from functools import lru_cache

import ipywidgets
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core import plots
from dae4rec_core.baselines import SequentialRules
from dae4rec_core.config import Config
from dae4rec_core.data import Dataset, Split, make_examples
from dae4rec_core.events import Event
from dae4rec_core.gae import similarity
from dae4rec_core.ranking import evaluate, rank_of
from dae4rec_core.recommender import Recommender
from dae4rec_core.sampling import choose_tau
from dae4rec_core.schedule import add_noise, make_alpha_bar
from dae4rec_core.training import fit, validation_sample
from dae4rec_core.widgets import ERRORS, Explorer, Live, View, chooser, counter, frames, player, row, sentence

SCHEDULES = ("linear", "cosine", "exponential")
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
        figure = plots.noise_figure(cloud, self.groups, self.names, t, schedule, self.levels)
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
    principal plane of Z*.
    """

    def __init__(self, dataset: Dataset, split: Split, recommender: Recommender):
        self.dataset = dataset
        self.place = plots.coordinates(dataset)
        z_star, e = recommender.z_star.cpu(), recommender.model.item_vectors().detach().cpu()
        if self.place is None:
            mean, directions = plots.principal_plane(z_star)
            self.place = ((z_star.double() - mean) @ directions).numpy()
        self.vectors = {"nearest under Z*": z_star, "nearest under E": e}
        self.counts = SequentialRules(dataset, split, window=1, symmetric=True).counts
        self.labels = [dataset.label(item) for item in range(dataset.n_items)]

    def item(self, label: str) -> int:
        """Raises ValueError when no item is called so, by name or by id."""
        found = [n for n, name in enumerate(self.labels) if label in (name, str(self.dataset.item_ids[n]))]
        if not found:
            raise ValueError(f"There is no item {label!r} in {self.dataset.name}; try {self.labels[0]!r}.")
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
        columns = {name: [self.labels[n] for n in items] for name, items in near.items()}
        title = f"{self.labels[centre]}: {agree} of the {LISTED} nearest under Z* are its most travelled edges"
        figure = plots.neighbours_figure(self.place, centre, near, self.labels[centre])
        return View(plots.png(figure, 1), f"Map around {title}.", ranking(columns, title))

    def frames(self, items: list[int]) -> Explorer:
        views = {self.labels[item]: self.view(self.labels[item]) for item in items}
        return frames("item", views, self.labels[items[0]])

    def live(self, start: int) -> Explorer:
        item = field("item", self.labels[start], sorted(set(self.labels)))
        return Live(self.view, {"item": item}, [[item]]).explorer("live: choose an item by name")


class SamplingExplorer:
    """One user and one x_T: the chain in a plane among the items, the list at this S, and what S is worth on average.

    table, times: the sweep and the times that `make artifacts` measured (steps.csv, times.csv).
    """

    def __init__(
        self, recommender: Recommender, dataset: Dataset, split: Split, table: pd.DataFrame, times: pd.DataFrame
    ):
        self.recommender, self.dataset, self.table, self.times = recommender, dataset, table, times
        self.examples = make_examples(dataset, split.test, recommender.model.config.max_len)
        e = recommender.model.item_vectors().detach().cpu()
        self.mean, self.directions = plots.principal_plane(e)
        self.items = self._plane(e)
        self.groups, self.names = plots.item_groups(dataset)
        self.steps = sorted(recommender.compensators)
        self.labels = [dataset.label(item) for item in range(dataset.n_items)]
        self.chain = lru_cache(maxsize=64)(self._chain)  # a step slider asks for the same chain again and again
        self.stage = lru_cache(maxsize=16)(self._stage)

    def _plane(self, vectors: Tensor) -> np.ndarray:
        return ((vectors.cpu().double() - self.mean) @ self.directions).numpy()

    def _stage(self, S: int) -> plots.SamplingStage:
        reach = 1.15 * np.abs(self.items).max()
        return plots.SamplingStage(self.items, self.groups, self.names, reach, S, self.table, self.times)

    def row(self, user: str) -> int:
        """The row of a user among the test answers. Raises ValueError for one who has none."""
        found = torch.nonzero(self.examples.user == self.dataset.user_index(user)).flatten()
        if len(found) == 0:
            known = self.dataset.user_ids[int(self.examples.user[0])]
            raise ValueError(f"User {user!r} of {self.dataset.name} has no test answer; try {known!r}.")
        return int(found[0])

    def _chain(self, user: str, S: int, seed: int):
        """(walk (S, 2), beliefs (S, 2), compensated (2,), target, scores without, scores with) of one chain."""
        row, model = self.row(user), self.recommender.model
        history, target = self.examples.history[row : row + 1], self.examples.target[row : row + 1]
        x_T = torch.randn(1, model.config.dim, generator=torch.Generator().manual_seed(seed))
        walk, beliefs = [], []
        after = self.recommender.generate(history, S, compensate=True, x_T=x_T)
        plain = self.recommender.generate(
            history, S, False, x_T=x_T, on_step=lambda i, t, e, f: (walk.append(e[0]), beliefs.append(f[0]))
        )
        with torch.no_grad():
            scores = [model.scores(e0).cpu() for e0 in (plain, after)]
        return (
            self._plane(torch.stack(walk)),
            self._plane(torch.stack(beliefs)),
            self._plane(after)[0],
            target,
            *scores,
        )

    def view(self, user: str, S: int, step: int, seed: int = 0) -> View:
        """The chain up to `step` of S. Raises ValueError for an unknown user, an S without compensator, or a step
        that is not in 1..S."""
        S = int(S)
        walk, beliefs, compensated, target, plain, after = self.chain(user, S, seed)
        if not 1 <= step <= S:
            raise ValueError(f"Step {step} is not one of the {S} steps; choose 1 to {S}.")
        picture = self.stage(S).chain(walk, beliefs, step, int(target), compensated)
        ranks = [int(rank_of(scores, target)[0]) + 1 for scores in (plain, after)]
        columns = {
            f"S = {S}, {name} (true next item: rank {rank})": [
                self.labels[item] for item in scores[0].topk(min(LISTED, scores.shape[1])).indices.tolist()
            ]
            for name, rank, scores in zip(("no compensator", "compensator"), ranks, (plain, after), strict=True)
        }
        label, t = self.labels[int(target)], choose_tau(len(self.recommender.model.alpha_bar) - 1, S)[S - step]
        words = f"User {user}: really next was {label}. Step {step} of {S}, t = {t}."
        return View(
            picture,
            f"{words} The true item is at rank {ranks[0]} without and {ranks[1]} with compensator.",
            ranking(columns, words, mark=label),
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

        def new_length(change) -> None:
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
        self.embeddings, self.spectra = {}, {}
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

    def view(self, delta: float) -> View:
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
        figure = plots.delta_figure(delta, similar, self.goal, self.spectra, self.table, self.trained, self.groups)
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
        kept = []  # the running task, or the loop may forget it

        async def run(value: float) -> None:
            loop = asyncio.get_running_loop()
            button.disabled, stop.disabled, bar.value, note.value = True, False, 0.0, ""
            stopping.clear()

            def listen(event: Event) -> None:  # called in the training thread
                if stopping.is_set():
                    raise Stopped
                words = ", ".join(f"{name} {figure:.3g}" for name, figure in event.figures.items())
                share = event.step / event.total
                loop.call_soon_threadsafe(lambda: setattr(bar, "value", share))
                loop.call_soon_threadsafe(lambda: setattr(note, "value", html.escape(f"{event.stage}: {words}")))

            try:
                await asyncio.to_thread(self.train, value, config, listen)
                note.value = f"δ = {value:g} is trained."
                picture.refresh()
            except Stopped:
                note.value = "Stopped; nothing was changed."
            except ERRORS as error:
                note.value = sentence(error)
            finally:
                button.disabled, stop.disabled = False, True

        button.on_click(lambda _: kept.append(asyncio.get_running_loop().create_task(run(float(delta.value)))))
        stop.on_click(lambda _: stopping.set())
        shown = picture.explorer(f"live slider δ: {', '.join(label for label, _ in delta.options)}")
        return shown._replace(widget=ipywidgets.VBox([shown.widget, row([button, stop, bar]), note]))

    def train(self, delta: float, config: Config, listen: Callable[[Event], None]) -> None:
        """Fit one delta and keep its E and its validation HR@10."""
        fitted = fit(
            self.dataset, self.split, config.replace(delta=delta), z_star=self.z_star.clone(), callbacks=[listen]
        )
        answers = validation_sample(self.dataset, self.split, config)
        self.trained[delta] = 100 * evaluate(fitted.scorer(), answers)["HR@10"]
        self._keep(delta, fitted.model.item_vectors())


class Stopped(Exception):
    """The reader pressed stop."""


def field(name: str, value: str, options: list[str]) -> ipywidgets.Combobox:
    """A labelled text field that suggests `options` and takes anything."""
    return ipywidgets.Combobox(value=value, options=options, description=name, continuous_update=False)


def ranking(columns: dict[str, list[str]], caption: str, mark: str | None = None) -> str:
    """Lists side by side as an HTML table; the entry `mark` is bold and says that it is the true one."""
    rows = max(map(len, columns.values()))
    style = 'style="padding:1px 14px 1px 0;text-align:left;font-weight:inherit"'

    def cell(items: list[str], n: int) -> str:
        text = html.escape(items[n]) if n < len(items) else ""
        true = mark is not None and n < len(items) and items[n] == mark
        return f"<td {style}>{f'<b>★ {text}</b>' if true else text}</td>"

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
