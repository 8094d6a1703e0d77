"""The graph explorer, which runs in the page (graph.js), and its still picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.views.explorers.parts import LISTED, names_of
from dae4rec_core.views.page.steps import kind_of_area
from dae4rec_core.views.page.widget import GraphWidget, line
from dae4rec_core.views.plots import COLOURS, GREY, coordinates, item_groups, panels, png
from dae4rec_core.views.stage import principal_plane
from dae4rec_core.views.widgets import Explorer, View

TRAVELLED = "joined by its most travelled edges"


def graph_explorer(dataset: Dataset, split: Split, vectors: dict[str, Tensor], items: Sequence[int]) -> Explorer:
    """One item and its company: by the edges that were walked most often, and nearest under each of `vectors`.

    vectors: (|V|, d) by name, at most two; nearest is by inner product, as in S* = sigma(Z Z^T). items: those of the
    still picture; the first is shown at the start. The map is the data's own where it has coordinates, else the
    principal plane of the first vectors, or of the counts.
    """
    counts = transition_counts(split.training_sequences(dataset), dataset.n_items, symmetric=True)
    notions = company(counts, vectors)
    place = coordinates(dataset)
    if place is None:
        table = next(iter(vectors.values())) if vectors else torch.from_numpy(counts.toarray()).float().log1p()
        mean, directions = principal_plane(table)
        place = ((table.cpu().double() - mean) @ directions).numpy()
    groups, _ = item_groups(dataset, "area")
    about: dict[str, Any] = {
        "names": names_of(dataset),
        "xy": place.round(3).tolist(),
        "notions": [{"name": name, "lists": lists} for name, lists in notions.items()],
        "groups": {"kind": kind_of_area(dataset), "of": groups.tolist()},
        "start": int(items[0]),
        "question": question(notions, groups, counts),
    }
    return Explorer(GraphWidget(about=line(about)), still(place, notions, items, about["names"]), "the graph explorer")


def company(counts: sparse.csr_matrix, vectors: dict[str, Tensor]) -> dict[str, list[list[int]]]:
    """For each item at most LISTED others, nearest first, by each notion.

    counts: (|V|, |V|), how often each way was taken; of equal ones the smaller number comes first. vectors: (|V|, d) by
    name, where the largest inner products come first.
    """
    edges = []
    for item in range(counts.shape[0]):
        row = counts[[item]].tocoo()
        others, times = row.col[row.col != item], row.data[row.col != item]
        edges.append(others[np.lexsort((others, -times))][:LISTED].tolist())
    found = {TRAVELLED: edges}
    for name, table in vectors.items():
        e = table.detach().cpu()
        products = (e @ e.T).fill_diagonal_(-torch.inf)
        found[f"nearest under {name}"] = products.topk(min(LISTED, len(e) - 1)).indices.tolist()
    return found


def question(notions: dict[str, list[list[int]]], groups: np.ndarray, counts: sparse.csr_matrix) -> dict[str, Any]:
    """How much of an item's company two notions share; with edges alone, how much of it is in the item's own district.

    With edges alone stand two controls beside it: any edge of Eq. 6, which forgets the counts, and any other item.

    question: what is asked. answers: to choose from; right: the number of the right one. then: what really happens.
    """

    def own(lists: list[list[int]]) -> float:
        same = [groups[others] == groups[item] for item, others in enumerate(lists) if others]
        return float(np.concatenate(same).mean())

    if len(notions) == 1:
        share = own(notions[TRAVELLED])
        row, column = counts.nonzero()
        row, column = row[row != column], column[row != column]
        degree = np.bincount(row, minlength=len(groups))
        at_home = np.bincount(row, groups[row] == groups[column], minlength=len(groups))
        edges = (at_home[degree > 0] / degree[degree > 0]).mean()
        sizes = np.unique(groups, return_counts=True)[1]
        anywhere = (sizes * (sizes - 1)).sum() / (len(groups) * (len(groups) - 1))
        answers = ["about one", "about three", "about six", "all ten"]
        return {
            "question": "Of an item's ten most travelled edges, how many lead to its own district?",
            "answers": answers,
            "right": int(np.abs(np.array([0.1, 0.3, 0.6, 1.0]) - share).argmin()),
            "then": f"{10 * share:.1f} of ten, over all items. Of ten edges picked at random, however often they were "
            f"walked, {10 * edges:.1f}; of ten other items, {10 * anywhere:.1f}. "
            "None of this was told where anything is.",
        }
    *_, last = notions
    other = list(notions)[-2]
    shared = np.mean([len(set(a) & set(b)) for a, b in zip(notions[other], notions[last], strict=True)])
    home = ", ".join(f"{own(lists):.0%} of those {name}" for name, lists in notions.items())
    return {
        "question": f"Of an item's ten {last}, how many are also {other}, over all items?",
        "answers": ["about two", "about five", "about nine"],
        "right": int(np.abs(np.array([2, 5, 9]) - shared).argmin()),
        "then": f"{shared:.1f} of ten. And in the item's own district lie {home}.",
    }


def still(place: np.ndarray, notions: dict[str, list[list[int]]], items: Sequence[int], names: Sequence[str]) -> View:
    """Each of the items with its company on the map."""
    figure, axes = panels(len(items), width=3.4, height=3.6)
    said = []
    for axis, item in zip(axes, items, strict=True):
        axis.scatter(*place.T, s=3, color=GREY, linewidths=0)
        for n, (name, lists) in enumerate(notions.items()):
            others = lists[item]
            if n == 0:
                for other in others:
                    axis.plot(*place[[item, other]].T, color=COLOURS[n], linewidth=0.6, alpha=0.6)
            size = (70, 40, 18)[n]  # larger ones below, so that all of a shared place can be seen
            style: dict[str, Any] = {
                "marker": "oDs"[n],
                "color": COLOURS[(0, 2, 5)[n]],
                "edgecolors": "white",
                "zorder": 3,
            }
            axis.scatter(*place[others].T, s=size, label=name, **style)
        axis.plot(*place[item], "*", markersize=14, color=COLOURS[6], markeredgecolor="black", zorder=4)
        axis.set_title(names[item], fontsize=9)
        axis.axis("off")
        shared = [len(set(lists[item]) & set(notions[TRAVELLED][item])) for lists in list(notions.values())[1:]]
        said.append(
            names[item]
            + "".join(
                f", of its ten {name} {n} are also {TRAVELLED}"
                for n, name in zip(shared, list(notions)[1:], strict=True)
            )
        )
    axes[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 0), frameon=False)
    far = [np.linalg.norm(place[notions[TRAVELLED][item]] - place[item], axis=1).mean() for item in items]
    anywhere = np.linalg.norm(place - place[list(items), None], axis=2).mean()
    near = (
        f"Over these items, the ten {TRAVELLED} are on average {np.mean(far) / anywhere:.0%} as far away as an item "
        "picked at random."
    )
    return View(png(figure), f"Maps of an item and its company: {'; '.join(said)}. {near}")
