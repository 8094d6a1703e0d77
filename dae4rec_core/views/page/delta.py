"""The delta explorer, which runs in the page (delta.js): a whole model for each delta, and its still picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from dae4rec_core.checkpoint import in_eight_bits
from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.gae import similarity
from dae4rec_core.recommender import Recommender
from dae4rec_core.views.explorers.parts import names_of
from dae4rec_core.views.page import person
from dae4rec_core.views.page.steps import KINDS, kind_of_area, wheel
from dae4rec_core.views.page.widget import DeltaWidget, line
from dae4rec_core.views.plots import HEAT, coordinates, item_groups, panels, png
from dae4rec_core.views.stage import principal_plane
from dae4rec_core.views.widgets import Explorer, View

SHOWN = (0.0, 0.1, 10.0)  # delta of the still picture
IN_HEATMAP = 600  # items at most


def delta_explorer(
    dataset: Dataset,
    split: Split,
    recommender: Recommender,
    folder: str | Path,
    table: pd.DataFrame,
    people: Mapping[str, str],
) -> Explorer:
    """Whole models by delta: E in its plane and on the map, heatmaps, spectra, HR@10 and one person's list.

    recommender: that of the usual delta, with which the others are compared; its Z* gives S*. folder: of the artifacts,
    with embeddings.safetensors and deltas/. table: deltas.csv. people: ids of users with a test answer, by what they
    are called. Raises FileNotFoundError when a model is missing.
    """
    embeddings, files = models_of(folder)
    assert recommender.z_star is not None
    z_star, config = recommender.z_star.cpu().float(), recommender.model.config
    files.append(safetensors.torch.save(in_eight_bits({"z_star": z_star}), {"recommender": "null"}))
    ends = np.cumsum([len(file) for file in files]).tolist()
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    usual = list(embeddings).index(config.diffusion.delta)
    planes, held = planes_of(embeddings, config.diffusion.delta)
    groups, names = item_groups(dataset, "area")
    order = np.argsort(groups, kind="stable")
    rates = hit_rates(table)
    about: dict[str, Any] = {
        "models": [
            {"delta": delta, "held": held[delta], "plane": planes[delta].round(4).tolist(), "bytes": place}
            for delta, place in zip(embeddings, places[:-1], strict=True)
        ],
        "zStar": places[-1],
        "start": usual,
        "usual": usual,
        "names": names_of(dataset),
        "people": [person(dataset, split, user) | {"name": f"{user} {name}"} for name, user in people.items()],
        "seen": config.data.repeats != "first_visits",
        "groups": {"kind": kind_of_area(dataset), "names": list(names), "of": groups.tolist()}
        | {"colours": wheel(len(names))},
        "order": order[:: -(-len(order) // IN_HEATMAP)].tolist(),
        "heat": [to_hex(colour) for colour in colormaps[HEAT](np.arange(256))],
        "spectra": spectra(embeddings),
        "hits": hits(rates, popularity(table)),
        "question": question(rates, popularity(table)),
    }
    place = coordinates(dataset)
    if place is not None:
        about["xy"] = place.round(3).tolist()
    widget = DeltaWidget(weights=b"".join(files), about=line(about))
    return Explorer(widget, still(embeddings, z_star, groups, planes, held, rates), "the δ explorer")


def models_of(folder: str | Path) -> tuple[dict[float, Tensor], list[bytes]]:
    """E of each delta, in ascending order, and the exported files of their models."""
    saved = safetensors.torch.load_file(Path(folder) / "embeddings.safetensors")
    embeddings = {float(name): saved[name].float() for name in sorted(saved, key=float)}
    files = [Path(folder) / "deltas" / f"{delta:g}.safetensors" for delta in embeddings]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing; `make artifacts` writes a model for each delta.")
    return embeddings, [file.read_bytes() for file in files]


def planes_of(embeddings: Mapping[float, Tensor], usual: float) -> tuple[dict[float, np.ndarray], dict[float, float]]:
    """The items in the two main directions of each E, (|V|, 2), and the share of E's variance that these hold.

    Each plane is turned (and mirrored) to lie as near to the usual delta's as it can, so that items glide from one to
    the next and don't jump.
    """
    planes, held = {}, {}
    for delta, e in embeddings.items():
        mean, directions = principal_plane(e)
        plane = (e.double() - mean) @ directions
        planes[delta], held[delta] = plane.numpy(), float(plane.var(0).sum() / e.double().var(0).sum())
    goal = planes[usual]
    return {delta: plane @ orthogonal_procrustes(plane, goal)[0] for delta, plane in planes.items()}, held


def spectra(embeddings: Mapping[float, Tensor]) -> list[dict[str, Any]]:
    """For each delta, the share of E's variance in its first n directions, as a line."""
    found = []
    for delta, e in embeddings.items():
        squares = torch.linalg.svdvals(e.double() - e.double().mean(0)).square()
        share = (squares.cumsum(0) / squares.sum()).tolist()
        shown = sorted({round(n) for n in np.geomspace(1, len(share), 24)})
        points = [[n, round(share[n - 1], 4)] for n in shown]
        found.append({"name": f"δ = {delta:g}", "colour": "currentColor", "dash": "", "points": points})
    return found


def hit_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Validation HR@10 in percent, mean over seeds: a row a delta; columns False and True for a compensator."""
    part = table[(table["part"] == "validation") & table["delta"].notna()]
    part = part.assign(compensator=part["compensator"].astype(str) == "True")
    return 100 * part.pivot_table(values="HR@10", index="delta", columns="compensator", aggfunc="mean")


def popularity(table: pd.DataFrame) -> float:
    """Validation HR@10 of the ten most popular items for everybody, in percent."""
    return 100 * table.query("part == 'validation' and method == 'popularity'")["HR@10"].iloc[0]


def hits(rates: pd.DataFrame, popular: float) -> list[dict[str, Any]]:
    """Lines of HR@10 against the number of the model."""
    lines = [(name, colour, dash, rates[kind]) for kind, name, colour, dash in KINDS]
    lines.append(("popularity", "currentColor", "1 4", pd.Series(popular, rates.index)))
    return [
        {"name": name, "colour": colour, "dash": dash, "points": [[n, round(v, 4)] for n, v in enumerate(values)]}
        for name, colour, dash, values in lines
    ]


def question(rates: pd.DataFrame, popular: float) -> dict[str, Any]:
    """From which delta on are the lists better than popularity's?

    question: what is asked. answers: to choose from; right: the number of the right one. then: what really happens.
    """
    told = ", ".join(f"δ = {delta:g}: {value:.1f}%" for delta, value in rates[True].items())
    return {
        "question": "From which δ on are the model's lists better than the ten most popular items for everybody?",
        "answers": [f"δ = {delta:g}" for delta in rates.index],
        "right": int((rates[True] > popular).to_numpy().argmax()),
        "then": f"Validation HR@10 with a compensator is {told}; that of popularity {popular:.1f}%.",
    }


def still(
    embeddings: Mapping[float, Tensor],
    z_star: Tensor,
    groups: np.ndarray,
    planes: Mapping[float, np.ndarray],
    held: Mapping[float, float],
    rates: pd.DataFrame,
) -> View:
    """E in its plane, on one scale, and its similarity, at the deltas SHOWN; and S* beside them."""
    shown = [delta for delta in SHOWN if delta in embeddings] or list(embeddings)[:3]
    figure, axes = panels(len(shown) + 1, width=2.5, height=2.75, rows=2)
    above, below = axes[: len(shown) + 1], axes[len(shown) + 1 :]
    order, colours = np.argsort(groups, kind="stable"), np.array(wheel(int(groups.max()) + 1))
    reach = 1.1 * max(np.abs(planes[delta]).max() for delta in shown)
    goal, said = similarity(z_star).numpy(), []
    for n, delta in enumerate(shown):
        above[n].scatter(*planes[delta].T, c=colours[groups], s=6, alpha=0.7, linewidths=0)
        above[n].set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        above[n].set_title(
            f"δ = {delta:g}: HR@10 {rates[True][delta]:.1f}%\n{held[delta]:.0%} of the variance", fontsize=9
        )
        similar = similarity(embeddings[delta]).numpy()
        below[n].imshow(similar[np.ix_(order, order)], vmin=0, vmax=1, cmap=HEAT, interpolation="none")
        below[n].set_title(f"similarity of E, δ = {delta:g}", fontsize=9)
        said.append(
            f"δ = {delta:g}: {rates[True][delta]:.1f}%, {held[delta]:.0%} of the variance in the plane, a mean length "
            f"of {embeddings[delta].norm(dim=1).mean():.2f}, similarity {np.abs(similar - goal).mean():.2f} from S*"
        )
    below[-1].imshow(goal[np.ix_(order, order)], vmin=0, vmax=1, cmap=HEAT, interpolation="none")
    below[-1].set_title("the goal S*", fontsize=9)
    above[-1].axis("off")
    for axis in below:
        axis.set(xticks=[], yticks=[])
    alt = (
        "The items in the two main directions of E, on one scale and coloured by district, above the similarity of E, "
        f"beside S*. Validation HR@10 with a compensator: {'; '.join(said)}."
    )
    return View(png(figure), alt)
