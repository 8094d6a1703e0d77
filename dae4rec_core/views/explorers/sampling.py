"""One user and one x_T: the chain of S steps among the items, its list, and what S is worth for all users."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.ticker import NullLocator
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Split, held_out
from dae4rec_core.method.model import PAD
from dae4rec_core.method.sampling import choose_tau
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks, top_items
from dae4rec_core.streams import stream
from dae4rec_core.views import plots
from dae4rec_core.views.explorers.parts import LISTED, field, names_of, ranking
from dae4rec_core.views.plots import CHAIN, COLOURS, GREY, WITH, WITHOUT, draw_steps, draw_ways, scatter_groups
from dae4rec_core.views.stage import Stage, mosaic, principal_plane
from dae4rec_core.views.widgets import Explorer, Live, View, chooser, counter, nested, player

RECENT = 5  # visits of the history that are named


class Chain(NamedTuple):
    """One sampling chain and what comes of it.

    walk, beliefs: (S, 2), e^t and f(e^t, t, h) in the plane, in sampling order; lengths: (S, 2) of both, in all d
    directions; compensated: (2,). target: the true next item. ranks, lists: of the plain answer and of the compensated
    one; seen items are left out where the data's filter says so.
    """

    walk: np.ndarray
    beliefs: np.ndarray
    lengths: np.ndarray
    compensated: np.ndarray
    target: int
    ranks: tuple[int, ...]
    lists: tuple[list[int], ...]


class SamplingExplorer:
    """One user and one x_T: the chain in a plane among the items, the list at this S, and three errors against S.

    table, errors: what `make artifacts` measured (steps.csv and solvers.csv).
    """

    def __init__(
        self, recommender: Recommender, dataset: Dataset, split: Split, table: pd.DataFrame, errors: pd.DataFrame
    ):
        self.recommender, self.dataset, self.table, self.errors = recommender, dataset, table, errors
        self.examples = held_out(dataset, split, "test", recommender.model.config)
        with torch.no_grad():
            e = recommender.model.clean(torch.arange(dataset.n_items, device=recommender.model.device)).cpu()
        self.mean, self.directions = principal_plane(e)
        self.items = self._plane(e)
        self.length = e.norm(dim=1).mean().item()
        self.held = float(self.items.var(0, ddof=1).sum() / e.double().var(0).sum())  # share of the items' variance
        self.groups, self.names = plots.item_groups(dataset)
        self.steps = sorted(recommender.compensators)
        self.labels = names_of(dataset)
        self.chain = lru_cache(maxsize=64)(self._chain)  # a step slider asks for the same chain again and again
        self.stage = lru_cache(maxsize=16)(self._stage)

    def _plane(self, vectors: Tensor) -> np.ndarray:
        return ((vectors.cpu().double() - self.mean) @ self.directions).numpy()

    def _tau(self, S: int) -> list[int]:
        return choose_tau(self.recommender.model.config.diffusion.timesteps, S)

    def _stage(self, S: int) -> "SamplingStage":
        return SamplingStage(self, S)

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
        both = torch.stack([torch.stack(walk), torch.stack(beliefs)])  # (2, S, d)
        return Chain(
            walk=self._plane(both[0]),
            beliefs=self._plane(both[1]),
            lengths=both.norm(dim=2).T.cpu().numpy(),
            compensated=self._plane(after)[0],
            target=int(examples.target),
            ranks=tuple(ranks),
            lists=tuple(lists),
        )

    def view(self, user: str, S: int | str, step: int | None = None, seed: int = 0) -> View:
        """The chain up to `step` of S, all of it without. Raises ValueError for an unknown user, an S without
        compensator, or a step that is not in 1..S."""
        S = int(S)
        chain, step = self.chain(user, S, seed), S if step is None else step
        if not 1 <= step <= S:
            raise ValueError(f"Step {step} is not one of the {S} steps; choose 1 to {S}.")
        columns = {
            f"S = {S}, {name} (true next item: rank {rank})": items
            for name, rank, items in zip(("no compensator", "compensator"), chain.ranks, chain.lists, strict=True)
        }
        history = self.examples.history[self.row(user)]
        visits = [self.labels[item] for item in history[history != PAD].tolist()]
        past = f"User {user}, {len(visits)} visits, the newest: {' · '.join(visits[-RECENT:])}."
        words = f"Really next was {self.labels[chain.target]}. Step {step} of {S}, t = {self._tau(S)[S - step]}."
        return View(
            self.stage(S).chain(chain, step),
            f"User {user}. {words} "
            f"The true item is at rank {chain.ranks[0]} without and {chain.ranks[1]} with compensator.",
            ranking(columns, self.labels, f"{past} {words}", mark=chain.target),
        )

    def frames(self, users: dict[str, str], steps: Sequence[int], start: int) -> Explorer:
        """Whole chains for some S. users: who is shown, by what the slider calls them."""
        shown = {f"{S}": S for S in steps}
        return nested(self.view, ("user", users, next(iter(users))), ("S", shown, f"{start}"))

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


class SamplingStage(Stage):
    """The explorer's picture for one S, without a chain: items in the plane, an empty axis for lengths, three errors
    with a band at this S."""

    def __init__(self, explorer: SamplingExplorer, S: int):
        edges = {"left": 0.07, "right": 0.98, "bottom": 0.09, "top": 0.95, "hspace": 0.5, "wspace": 0.3}
        figure, axes = mosaic("aab;aac;eed", width=8.4, height=5.2, **edges)
        self.items, self.tau, self.plane, self.lengths = explorer.items, explorer._tau(S), axes["a"], axes["e"]
        scatter_groups(self.plane, explorer.items, explorer.groups, explorer.names, size=7, legend=False)
        self.plane.legend(fontsize=6, frameon=False, loc="upper right", markerscale=1.5)
        reach = 1.15 * np.abs(explorer.items).max()
        d = explorer.recommender.model.config.model.dim
        words = f"2 of {d} directions, {explorer.held:.0%} of the items' variance"
        self.plane.set(xlim=(-1.25 * reach, reach), ylim=(-reach, reach), title=words)
        self.plane.axis("off")
        last = explorer._tau(1)[0]
        self.lengths.set(
            xlim=(1.03 * last, -0.03 * last),
            ylim=(0, 1.3 * d**0.5),
            xlabel="t",
            title=f"lengths over all {d} directions",
        )
        self.lengths.axhline(explorer.length, color=GREY, linestyle="--", linewidth=1)
        self._errors(axes, explorer, S)
        super().__init__(figure)

    def _errors(self, axes: dict[str, Axes], explorer: SamplingExplorer, S: int) -> None:
        """To the ranking, to the fine solver and to the law, from the top."""
        draw_steps(axes["b"], explorer.table, "HR@10", 100)
        axes["b"].set(title="HR@10 (%), all users", xlabel="", ylim=(0, None))
        axes["b"].legend(fontsize=6, frameon=False, loc="lower left")
        draw_ways(axes["c"], explorer.errors, "distance")
        axes["c"].legend(fontsize=6, frameon=False)
        axes["c"].set(title="distance to the fine chain", xlabel="")
        draw_ways(axes["d"], explorer.errors, "total variation")
        axes["d"].set(title="total variation to the law")
        for name in "bcd":
            axes[name].axvline(S, color=COLOURS[1], linewidth=6, alpha=0.3)
            axes[name].xaxis.set_minor_locator(NullLocator())
            axes[name].title.set_fontsize(9)
            axes[name].tick_params(labelsize=7)

    def chain(self, chain: Chain, step: int) -> bytes:
        """A PNG of a chain up to `step` in 1..S, with the compensator's answer at the last."""
        black: dict[str, Any] = {"markeredgecolor": "black", "linestyle": ""}
        some = max(1, len(self.tau) // 20)  # of many steps, every tenth is marked
        walk: dict[str, Any] = {"color": CHAIN, "linewidth": 1, "marker": ".", "markersize": 5, "markevery": some}
        belief: dict[str, Any] = {"color": WITHOUT, "linewidth": 1, "marker": "x", "markersize": 6, "markevery": some}
        shown = self.plane.plot(*chain.walk[:step].T, label="chain e^t", **walk)
        shown += self.plane.plot(*chain.beliefs[:step].T, label="belief f", **belief)
        shown += self.plane.plot(
            *self.items[chain.target], "*", color=COLOURS[6], markersize=15, label="true next", **black
        )
        if step == len(self.tau):
            shown += self.plane.plot(*chain.compensated, "D", color=WITH, markersize=8, label="compensated", **black)
        names = [str(one.get_label()) for one in shown]
        key = Legend(self.plane, shown, names, fontsize=8, frameon=False, loc="lower left")
        self.plane.add_artist(key)
        ts = self.tau[::-1][:step]
        lengths = [*self.lengths.plot(ts, chain.lengths[:step, 0], **walk)]
        lengths += self.lengths.plot(ts, chain.lengths[:step, 1], **belief)
        return self.png([*shown, key, *lengths])
