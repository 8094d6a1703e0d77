"""The S explorer, which runs in the page (steps.js): what it shows beside the weights, and its still picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Examples, Split, held_out
from dae4rec_core.data.town import load_town_law
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks, top_items
from dae4rec_core.streams import stream
from dae4rec_core.views.explorers.parts import names_of
from dae4rec_core.views.page import exported, law_parameters, person
from dae4rec_core.views.page.widget import DRAWS, StepsWidget, line
from dae4rec_core.views.plots import (
    CHAIN,
    COLOURS,
    WAYS,
    WITH,
    WITHOUT,
    coordinates,
    item_groups,
    panels,
    png,
)
from dae4rec_core.views.stage import principal_plane
from dae4rec_core.views.widgets import Explorer, View

SHOWN = (1, 10, 200)  # S of the still pictures
LISTED = 5  # items of each of its lists
DASHES = ("", "6 3", "2 3")
# lines of HR@10 in the page: whether with a compensator, name, colour (of page.css), dash
KINDS = ((False, "without compensator", "var(--model)", ""), (True, "with compensator", "var(--counts)", "6 3"))


def steps_explorer(
    recommender: Recommender,
    dataset: Dataset,
    split: Split,
    table: pd.DataFrame,
    errors: pd.DataFrame,
    people: Mapping[str, str],
    data: str | Path,
    many: bool = False,
    asked: dict[str, Any] | None = None,
) -> Explorer:
    """One person, one first noise or many, every S and every way to skip; what S is worth for everybody.

    table, errors: what `make artifacts` measured (steps.csv and solvers.csv). people: ids of users with a test answer,
    by what they are called; the first is shown at the start. data: where the data set is, a town or not. many: opens
    with many first noises. asked: the question before it, see `question`, which is asked otherwise.
    Raises ValueError for a user who has no test answer.
    """
    about = steps_about(recommender, dataset, split, people, data)
    about |= {"curves": curves(table, errors), "question": asked or question(table), "many": many}
    widget = StepsWidget(weights=exported(recommender), about=line(about))
    picture = (still_of_many if many else still)(recommender, dataset, split, next(iter(people.values())))
    return Explorer(widget, picture, "the S explorer")


def steps_about(
    recommender: Recommender, dataset: Dataset, split: Split, people: Mapping[str, str], data: str | Path
) -> dict[str, Any]:
    """The model's items and people for steps.js, where the type `About` says what each entry is."""
    model, (mean, directions, held) = recommender.model, plane_of(recommender.model)
    groups, names = item_groups(dataset, "area")
    for user in people.values():
        row_of(dataset, held_out(dataset, split, "test", model.config), user)
    about: dict[str, Any] = {
        "names": names_of(dataset),
        "people": [person(dataset, split, user) | {"name": f"{user} {name}"} for name, user in people.items()],
        "seen": model.config.data.repeats != "first_visits",
        "plane": {"mean": digits(mean), "directions": digits(directions), "held": held},
        "groups": {
            "names": list(names),
            "of": [int(group) for group in groups],
            "colours": wheel(len(names)),
        },
        "xT": digits(first_noise(model)[0]),
    }
    place = coordinates(dataset)
    if place is not None:
        about["xy"] = place.round(3).tolist()
    if (Path(data) / "town.json").is_file():
        law = load_town_law(data)
        about |= {"venue": law.index_of(dataset.item_ids).tolist(), "law": law_parameters(law)}
    return about


def kind_of_area(dataset: Dataset) -> str:
    """What the groups of `item_groups(dataset, "area")` are called, one of them."""
    return "district" if "district" in dataset.attributes else "area"


def wheel(n: int) -> list[str]:
    """n colours around the wheel."""
    return [to_hex(colour) for colour in colormaps["hsv"](np.linspace(0, 1, n, False))]


def digits(values: Tensor, n: int = 6) -> list:
    """n digits behind the point, as lists."""
    return [digits(row, n) for row in values] if values.ndim > 1 else [round(value, n) for value in values.tolist()]


def first_noise(model: DAE4Rec) -> Tensor:
    """The x_T from which `Recommender.recommend` starts with seed 0: (1, d)."""
    return torch.randn(1, model.config.model.dim, generator=stream(0, "sampling"))


@torch.no_grad()
def clean_items(model: DAE4Rec) -> Tensor:
    """e^0 of every item: (|V|, d)."""
    return model.clean(torch.arange(model.n_items, device=model.device)).cpu()


def plane_of(model: DAE4Rec) -> tuple[Tensor, Tensor, float]:
    """Mean and main directions of the items, (d,) and (d, 2), and the share of their variance that the plane holds."""
    e = clean_items(model)
    mean, directions = principal_plane(e)
    inside = (e.double() - mean) @ directions
    return mean, directions, float(inside.var(0).sum() / e.double().var(0).sum())


def row_of(dataset: Dataset, examples: Examples, user: str) -> int:
    """The row of a user among the test answers. Raises ValueError for one who has none."""
    found = torch.nonzero(examples.user == dataset.user_index(user)).flatten()
    if len(found) == 0:
        known = dataset.user_ids[int(examples.user[0])]
        raise ValueError(f"User {user!r} of {dataset.name} has no test answer; try {known!r}.")
    return int(found[0])


def hit_rates(table: pd.DataFrame) -> pd.DataFrame:
    """HR@10 of all test users in percent, mean over seeds: a row an S; columns False and True for a compensator."""
    model = table[(table["part"] == "test") & (table["method"] == "DAE4Rec") & (table["S"].astype(str) != "markov")]
    model = model.assign(S=model["S"].astype(int), compensator=model["compensator"].astype(str) == "True")
    return 100 * model.pivot_table(values="HR@10", index="S", columns="compensator", aggfunc="mean")


def curves(table: pd.DataFrame, errors: pd.DataFrame) -> list[dict[str, Any]]:
    """HR@10, the distance to the fine chain and to the law against S: for each a title and its lines."""

    def drawn(name: str, colour: str, dash: str, values: pd.Series) -> dict[str, Any]:
        known = values.dropna()
        points = [[int(S), round(float(value), 4)] for S, value in zip(known.index, known, strict=True)]
        return {"name": name, "colour": colour, "dash": dash, "points": points}

    rates = hit_rates(table)
    lines = [drawn(name, colour, dash, rates[kind]) for kind, name, colour, dash in KINDS if kind in rates]
    found = [{"title": "HR@10 (%) of all test users, against S", "lines": lines, "most": 0}]
    model = errors[errors["method"] == "DAE4Rec"].astype({"S": int, "order": int})
    titles = {"distance": "distance to the fine chain, against S", "total variation": "distance to the law, against S"}
    for column, title in titles.items():
        if column not in errors:
            continue
        lines = []
        for n, ((spacing, order), name) in enumerate(WAYS.items()):
            way = model[(model["spacing"] == spacing) & (model["order"] == order)]
            lines.append(drawn(name, COLOURS[2 + n], DASHES[n], way.groupby("S")[column].mean()))
        found.append({"title": title, "lines": lines, "most": int(column == "total variation")})
    return found


def question(table: pd.DataFrame) -> dict[str, Any]:
    """Which S gives the best lists without a compensator, of the least, a middle one and the most?

    question: what is asked. answers: to choose from; right: the number of the right one. then: what really happens.
    """
    rates = hit_rates(table)
    rates = rates.loc[sorted({rates.index[0], *(S for S in (10,) if S in rates.index), rates.index[-1]})]
    told = ", ".join(f"S = {S}: {value:.1f}%" for S, value in rates[False].items())
    mended = "" if True not in rates else f" With a compensator: {rates[True].min():.1f} to {rates[True].max():.1f}%."
    return {
        "question": "Without a compensator, with how many steps do the most people find their next item among ten?",
        "answers": [f"S = {S}" for S in rates.index],
        "right": int(rates[False].to_numpy().argmax()),
        "then": f"HR@10 of all test users: {told}.{mended} Now look at one person at a time.",
    }


@torch.no_grad()
def still(recommender: Recommender, dataset: Dataset, split: Split, user: str) -> View:
    """The chain of one user from the first noise number 0 at SHOWN, and the beginnings of the lists, side by side."""
    model, examples = recommender.model, only_test_answer(recommender.model, dataset, split, user)
    (mean, directions, held), labels = plane_of(model), names_of(dataset)
    figure, axes = stages(model, dataset, int(examples.target), height=3.9)
    said = []
    for S, axis in axes.items():
        walk: list[Tensor] = []
        beliefs: list[Tensor] = []

        def follow(i: int, t: int, e_t: Tensor, prediction: Tensor) -> None:
            walk.append(e_t[0].cpu())  # noqa: B023 (called in this turn of the loop)
            beliefs.append(prediction[0].cpu())  # noqa: B023

        x_T = first_noise(model).to(model.device)
        e_0 = recommender.generate(examples.history, S, False, x_T=x_T, on_step=follow)
        query = model.query(e_0, examples.history, model.condition(examples.history))
        rank = int(rank_by_blocks(query, model.item_vectors(), examples.target, examples.seen)[0]) + 1
        listed = top_items(query, model.item_vectors(), LISTED, examples.seen)[1][0].tolist()
        some = max(1, S // 20)
        for points, colour, marker in ((walk, CHAIN, "."), (beliefs, WITHOUT, "x")):
            inside = ((torch.stack(points).double() - mean) @ directions).numpy()
            axis.plot(*inside.T, linewidth=1, markersize=5, markevery=some, color=colour, marker=marker)
        axis.set(title=f"S = {S}: rank {rank}")
        text = "\n".join(f"{n + 1} {labels[item]}" for n, item in enumerate(listed))
        axis.text(0, -0.02, text, transform=axis.transAxes, va="top", fontsize=7)
        said.append(f"at S = {S} the true next item is at rank {rank}, and {labels[listed[0]]} is first")
    alt = (
        f"User {user}, one first noise, no compensator; the chain (black) and what f believes (orange) in two "
        f"directions that hold {held:.0%} of the items' variance; the star is the true next item: {'; '.join(said)}."
    )
    return View(png(figure), alt)


@torch.no_grad()
def still_of_many(recommender: Recommender, dataset: Dataset, split: Split, user: str) -> View:
    """Where DRAWS chains of one user end at SHOWN; where a compensator was trained for such an S, with it too."""
    model, examples = recommender.model, only_test_answer(recommender.model, dataset, split, user)
    mean, directions, held = plane_of(model)
    figure, axes = stages(model, dataset, int(examples.target), height=3.2)
    history = examples.history.expand(DRAWS, -1)
    said = []
    for S, axis in axes.items():
        x_T = torch.randn(DRAWS, model.config.model.dim, generator=stream(0, "sampling"))
        for compensate, colour, how in ((False, WITHOUT, "without"), (True, WITH, "with")):
            if compensate and recommender.compensator_for(S) is None:
                continue
            ends = (recommender.generate(history, S, compensate, x_T=x_T).cpu().double() - mean) @ directions
            wide = (ends - ends.mean(0)).square().sum(1).mean().sqrt()
            axis.scatter(ends[:, 0], ends[:, 1], color=colour, s=9, linewidths=0)
            said.append(f"{wide:.2f} at S = {S} {how}")
        axis.set(title=f"S = {S}")
    alt = (
        f"User {user}, {DRAWS} first noises: where their chains end without compensator (orange) and, where one was "
        f"trained for this S, with it (blue), in two directions that hold {held:.0%} of the items' variance; the star "
        f"is the true next item. Root mean square distance of the ends from their mean: {', '.join(said)}."
    )
    return View(png(figure), alt)


def only_test_answer(model: DAE4Rec, dataset: Dataset, split: Split, user: str) -> Examples:
    """The one test answer of a user. Raises ValueError for one who has none."""
    examples = held_out(dataset, split, "test", model.config)
    row = row_of(dataset, examples, user)
    return examples.select(slice(row, row + 1)).to(model.device)


def stages(model: DAE4Rec, dataset: Dataset, target: int, height: float) -> tuple[Figure, dict[int, Axes]]:
    """A panel for each S of SHOWN that the model allows, with all items in `plane_of` and a star at the target."""
    mean, directions, _ = plane_of(model)
    items = ((clean_items(model).double() - mean) @ directions).numpy()
    reach = 1.15 * abs(items).max()
    groups, names = item_groups(dataset, "area")
    colours = wheel(len(names))
    steps = [S for S in SHOWN if S <= model.config.diffusion.timesteps]
    figure, axes = panels(len(steps), width=3.0, height=height)
    for axis in axes:
        axis.scatter(*items.T, c=[colours[group] for group in groups], s=5, alpha=0.6, linewidths=0)
        axis.plot(*items[target], "*", color="black", fillstyle="none", markersize=14, zorder=3)
        axis.set(xlim=(-1.25 * reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.axis("off")
    return figure, dict(zip(steps, axes, strict=True))
