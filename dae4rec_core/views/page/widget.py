"""What runs in the page as a widget: in JupyterLab, VS Code, Colab and Voila, and from saved state without a kernel."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.data.town import load_town_law
from dae4rec_core.recommender import Recommender
from dae4rec_core.views.explorers.cloud import circles
from dae4rec_core.views.page import HERE, PEOPLE, STEPS, TOWN, exported, person, script, town_about
from dae4rec_core.views.plots import COLOURS, GREY, coordinates, panels, png
from dae4rec_core.views.widgets import Explorer, View

DRAWS = 200  # as parts.js
CSS = (HERE / "page.css").read_text(encoding="utf-8")


def module(files: Sequence[str], mount: str) -> str:
    """The files as the one ES module that anywidget loads, with a default export that draws."""
    return f"""{script(files)}
export default {{
  render({{ model: widget, el }}) {{
    const weights = widget.get("weights");
    const bytes = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
    {mount}(el.appendChild(document.createElement("div")), bytes, JSON.parse(widget.get("about")));
  }},
}};
"""


class PageWidget(anywidget.AnyWidget):
    """weights: an exported checkpoint, see `page.exported`. about: what is shown beside it, as one line of JSON."""

    _css = CSS
    weights = traitlets.Bytes(b"").tag(sync=True)
    about = traitlets.Unicode("{}").tag(sync=True)


class TownWidget(PageWidget):
    """The town explorer; about is `page.town_about`."""

    _esm = module(TOWN, "mountTown")


class StepsWidget(PageWidget):
    """The S explorer; about is what `steps.steps_explorer` gathers."""

    _esm = module(STEPS, "mountSteps")


class DeltaWidget(PageWidget):
    """The delta explorer; weights and about are what `delta.delta_explorer` gathers."""

    _esm = module(("model.js", "parts.js", "delta.js"), "mountDelta")


class NoiseWidget(PageWidget):
    """The noise explorer; about is what `noise.noise_explorer` gathers."""

    _esm = module(("parts.js", "noise.js"), "mountNoise")


class CollapseWidget(PageWidget):
    """A toy that trains in the page; about is what `collapse.collapse_explorer` gathers."""

    _esm = module(("model.js", "parts.js", "toy.js", "collapse.js"), "mountCollapse")


class GraphWidget(PageWidget):
    """The graph explorer; about is what `graph.graph_explorer` gathers."""

    _esm = module(("parts.js", "graph.js"), "mountGraph")


class SpectrumWidget(PageWidget):
    """What inner products can't say; about is what `spectrum.spectrum_explorer` gathers."""

    _esm = module(("parts.js", "spectrum.js"), "mountSpectrum")


def line(about: dict[str, Any]) -> str:
    """JSON on one line."""
    return json.dumps(about, separators=(",", ":"), ensure_ascii=False)


def town_explorer(
    recommender: Recommender, data: str | Path, dataset: Dataset, split: Split, people: tuple[str, ...] = PEOPLE
) -> Explorer:
    """The widget and its still picture. data: the folder of a town. people: ids of users whose visits can be loaded.

    Raises FileNotFoundError for data whose law nobody knows.
    """
    if not (Path(data) / "town.json").is_file():
        raise FileNotFoundError(f"{data} is no town, so its law is unknown; take a folder written by `town`.")
    widget = TownWidget(weights=exported(recommender), about=line(town_about(data, dataset, split, people)))
    return Explorer(widget, still(recommender, data, dataset, split, people[0]), "the town explorer")


def still(recommender: Recommender, data: str | Path, dataset: Dataset, split: Split, user: str) -> View:
    """The law, draws of the model and transitions of one user, side by side on the map."""
    known, place, law = person(dataset, split, user), coordinates(dataset), load_town_law(data)
    assert place is not None
    number = dataset.user_index(user)
    before = slice(dataset.offsets[number], dataset.offsets[number] + len(known["items"]))
    venues = law.index_of(dataset.item_ids)
    p = law.next_given_history([(venues[known["items"]], dataset.timestamps[before])])[0][venues]
    ids = dataset.item_ids[known["items"]].tolist()
    drawn = recommender.distribution(ids, DRAWS, seed=0).reindex(dataset.item_ids).to_numpy()
    steps = np.zeros(dataset.n_items)
    for sequence in split.training_sequences(dataset):
        np.add.at(steps, sequence[1:][sequence[:-1] == known["items"][-1]], 1)
    figure, axes = panels(3, width=3.0, height=3.1)
    shown = {"the true law": p, "the model": drawn, "counting": steps / steps.sum()}
    for axis, (name, shares), colour in zip(axes, shown.items(), (2, 5, 0), strict=True):
        axis.scatter(place[:, 0], place[:, 1], s=2, color=GREY)
        circles(axis, place, shares, COLOURS[colour])
        axis.set(title=name, aspect="equal", xticks=[], yticks=[])
    first = [dataset.label(int(shares.argmax())) for shares in (p, drawn)]
    alt = (
        f"Three maps of the town for user {user}: where the true law sees the next visit, {DRAWS} draws of the model "
        f"at S = {recommender.model.config.sampling_steps}, and what followed the last place in training. The law's "
        f"likeliest place is {first[0]}, the model's {first[1]}."
    )
    return View(png(figure), alt)
