"""One item and its company: in the transition graph, under Z* and under E, on a map and in a list."""

import numpy as np
import torch
from matplotlib.figure import Figure

from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.recommender import Recommender
from dae4rec_core.views import plots
from dae4rec_core.views.explorers.parts import LISTED, field, names_of, ranking
from dae4rec_core.views.plots import COLOURS, GREY, MARKERS, panels
from dae4rec_core.views.stage import principal_plane
from dae4rec_core.views.widgets import Explorer, Live, View, frames


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
            mean, directions = principal_plane(z_star)
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
        figure = neighbours_figure(self.place, centre, near, self.labels[centre])
        return View(plots.png(figure, 1), f"Map around {title}.", ranking(near, self.labels, title))

    def frames(self, items: list[int]) -> Explorer:
        views = {self.labels[item]: self.view(self.labels[item]) for item in items}
        return frames("item", views, self.labels[items[0]])

    def live(self, start: int) -> Explorer:
        item = field("item", self.labels[start], sorted(self.labels))
        return Live(self.view, {"item": item}, [[item]]).explorer("live: choose an item by name")


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
