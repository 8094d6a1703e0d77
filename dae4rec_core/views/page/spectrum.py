"""What inner products can't say, in the page (spectrum.js): a graph built again from its eigenvectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from dae4rec_core.views.page.widget import SpectrumWidget, line
from dae4rec_core.views.plots import HEAT, panels, png
from dae4rec_core.views.widgets import Explorer, View


def spectrum_explorer(matrix: np.ndarray, of: Sequence[int], kinds: Sequence[str]) -> Explorer:
    """matrix: a symmetric (n, n). of: the kind of each item, 0 or 1, which are called `kinds`."""
    values, vectors = strongest(matrix)
    about = {
        "matrix": matrix.round(6).tolist(),
        "values": values.round(6).tolist(),
        "vectors": vectors.T.round(6).tolist(),
        "stops": stops(values),
        "of": [int(kind) for kind in of],
        "kinds": list(kinds),
        "heat": [to_hex(colour) for colour in colormaps[HEAT](np.arange(256))],
        "question": question(matrix, values, vectors, np.asarray(of), kinds),
    }
    return Explorer(SpectrumWidget(about=line(about)), still(matrix, values, vectors), "the eigenvalue explorer")


def strongest(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,) and eigenvectors (n, n; columns) of a symmetric matrix, the largest absolute value first."""
    values, vectors = np.linalg.eigh(matrix)
    order = np.argsort(-np.abs(values), kind="stable")
    return values[order], vectors[:, order]


def stops(values: np.ndarray) -> list[int]:
    """How many of the strongest can be kept so that equal ones stay together: 0, .., n."""
    changes = np.flatnonzero(np.abs(np.diff(values)) > 1e-6) + 1
    return [0, *changes.tolist(), len(values)]


def question(
    matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray, of: np.ndarray, kinds: Sequence[str]
) -> dict[str, Any]:
    """How unlike the kinds are once the negative eigenvalues are gone.

    question: what is asked. answers: to choose from; right: the number of the right one. then: what really happens.
    """
    positive = (vectors * values.clip(min=0)) @ vectors.T
    same = (of[:, None] == of) & ~np.eye(len(of), dtype=bool)
    other = of[:, None] != of
    (in_graph, apart), (within, between) = ((m[same].mean(), m[other].mean()) for m in (matrix, positive))
    return {
        "question": (
            f"In the graph two {kinds[0]} have {in_graph:.0f} and one of the {kinds[0]} with one of the {kinds[1]} has "
            f"{apart:.0f}. Built again from the positive eigenvalues alone, how far apart will the two numbers be?"
        ),
        "answers": ["as far as in the graph", "half as far", "about a tenth as far"],
        "right": int(np.abs(np.array([1, 0.5, 0.1]) - (between - within) / (apart - in_graph)).argmin()),
        "then": (
            f"{within:.2f} and {between:.2f}. What tells the kinds apart has a negative eigenvalue. Tick the box, and "
            "keep two eigenvectors."
        ),
    }


def still(matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> View:
    """The matrix, its nearest positive semidefinite one, and what two eigenvectors of any sign say."""
    positive = (vectors * values.clip(min=0)) @ vectors.T
    two = (vectors[:, :2] * values[:2]) @ vectors[:, :2].T
    figure, axes = panels(3, width=2.8, height=3.0)
    names = ("the graph A", "positive eigenvalues only", f"two eigenvalues, {values[0]:.0f} and {values[1]:.0f}")
    for axis, name, shown in zip(axes, names, (matrix, positive, two), strict=True):
        axis.imshow(shown, vmin=0, vmax=1, cmap=HEAT)
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, fontsize=10)
    gaps = [np.linalg.norm(matrix - other) for other in (positive, two)]
    return View(
        png(figure),
        f"Three heatmaps: the graph; built again from its positive eigenvalues, at a distance of {gaps[0]:.1f} (the "
        f"root of the sum of squared differences); and from the two strongest of either sign, at {gaps[1]:.1f}.",
    )
