"""delta in powers of ten: what it does to E and to HR@10, and a button that trains one now."""

import asyncio
import html
import threading
import time
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, Split, training_examples, validation_sample
from dae4rec_core.events import Callback, Event
from dae4rec_core.method.gae import similarity
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.method.variants import make_model
from dae4rec_core.ranking import evaluate
from dae4rec_core.training import fit
from dae4rec_core.views import plots
from dae4rec_core.views.plots import CHAIN, COLOURS, GREY, HEAT, WITH
from dae4rec_core.views.stage import mosaic
from dae4rec_core.views.widgets import Explorer, Live, View, row, sentence

POWERS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


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
        figure = delta_figure(delta, similar, self.goal, self.spectra, self.table, self.trained, self.groups)
        if delta in self.trained:
            reached = f"your short run reached {self.trained[delta]:.1f}%"
        else:
            reached = f"validation HR@10 is {self.table['mean'][delta]:.1f}%"
        gap = np.abs(similar - self.goal).mean()
        words = f"δ = {delta:g}: {reached}; the similarity of E is {gap:.2f} from S* on average."
        return View(plots.png(figure, 1), words, f'<p role="status">{html.escape(words)}</p>')

    def live(self, start: float, config: Config) -> Explorer:
        """A list, and a button that trains the chosen delta with `config`, with a bar and a stop."""
        labels = [f"{d:g}" for d in sorted({*POWERS, *self.embeddings})]
        delta = ipywidgets.Dropdown(options=[(label, label) for label in labels], value=f"{start:g}", description="δ")
        picture = Live(self.view, {"delta": delta}, [[delta]], width=760)
        button = ipywidgets.Button(description="train this δ now", tooltip="train this δ now")
        stop = ipywidgets.Button(description="stop", tooltip="stop training", disabled=True)
        bar = ipywidgets.FloatProgress(value=0, min=0, max=1, description="training", tooltip="training")
        note = ipywidgets.HTML()
        kept: list[asyncio.Task] = []  # the running task, or the loop may forget it
        work = Work(len(training_examples(self.dataset, self.split, config).target), config)

        async def tell() -> None:
            """Time goes on between two events, so the reader sees that something happens."""
            while True:
                bar.value, note.value = work.share, html.escape(work.words())
                await asyncio.sleep(0.2)

        async def run(value: float) -> None:
            button.disabled, stop.disabled = True, False
            work.begin()
            telling = asyncio.create_task(tell())
            try:
                await asyncio.to_thread(self.train, value, config, work.listen, work.batch)
                note.value, bar.value = f"δ = {value:g} is trained, in {work.seconds:.0f} s.", 1.0
                picture.refresh()
            except Stopped:
                note.value = "Stopped; nothing was changed."
            except Exception as error:  # whatever it is, an unread task would swallow it
                note.value = sentence(error)
            finally:
                telling.cancel()
                button.disabled, stop.disabled = False, True

        button.on_click(lambda _: kept.append(asyncio.get_running_loop().create_task(run(float(delta.value)))))
        stop.on_click(lambda _: work.stopping.set())
        shown = picture.explorer(f"live, δ: {', '.join(labels)}")
        return shown._replace(widget=ipywidgets.VBox([shown.widget, row([button, stop, bar]), note]))

    def train(self, delta: float, config: Config, listen: Callback, batch: Callable[[nn.Module], None]) -> None:
        """Fit one delta and keep its E and its validation HR@10, judged by the seen-item rule of the data's filter.

        batch: called with the denoiser before each of its answers; what it raises ends the training.
        """

        def watched(n_items: int, config: Config) -> DAE4Rec:
            model = make_model(n_items, config)
            model.denoiser.register_forward_pre_hook(lambda denoiser, _: batch(denoiser))
            return model

        one = config.replace(delta=delta)
        fitted = fit(self.dataset, self.split, one, callbacks=[listen], z_star=self.z_star, network=watched)
        answers = validation_sample(self.dataset, self.split, config)
        self.trained[delta] = 100 * evaluate(fitted.scorer(), answers)["HR@10"]
        self._keep(delta, fitted.model.item_vectors())


class Work:
    """How far a training has come, seen from outside; `listen` and `batch` are called in the training's own thread.

    examples: of an epoch.
    """

    def __init__(self, examples: int, config: Config):
        self.batches = config.train.epochs * -(-examples // config.train.batch_size)
        self.stopping = threading.Event()
        self.begin()

    def begin(self) -> None:
        self.stopping.clear()
        self.start, self.done, self.newest = time.monotonic(), 0, ""

    def batch(self, denoiser: nn.Module) -> None:
        if self.stopping.is_set():
            raise Stopped
        self.done += denoiser.training  # one answer a batch; in eval mode it is being judged

    def listen(self, event: Event) -> None:
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in event.metrics.items())
        self.newest = f"; {event.stage}, epoch {event.step} of {event.total}: {metrics}"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.batches)

    def words(self) -> str:
        return f"{self.seconds:.0f} s, batch {self.done} of {self.batches}{self.newest}"


class Stopped(Exception):
    """The reader pressed stop."""


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
    axes["c"].plot(range(1, len(spectra[delta]) + 1), spectra[delta], color=CHAIN, linewidth=2.5)
    axes["c"].set(xscale="log", yscale="log", xlabel="number", title="singular values of E (grey: other δ)")
    values = sorted({*table.index, *trained})
    place = {value: n for n, value in enumerate(values)}
    style: dict[str, Any] = {"color": WITH, "marker": "o", "capsize": 3}
    axes["d"].errorbar([place[d] for d in table.index], table["mean"], table["std"].fillna(0), **style)
    for value, reached in trained.items():
        axes["d"].plot(place[value], reached, "D", color=WITH, markerfacecolor="none", markersize=7)
    axes["d"].axvline(place[delta], color=COLOURS[1], linewidth=8, alpha=0.3)
    axes["d"].set_xticks(range(len(values)), [f"{value:g}" for value in values], rotation=45)
    axes["d"].set(xlabel="δ", title="validation HR@10 (%)")
    return figure
