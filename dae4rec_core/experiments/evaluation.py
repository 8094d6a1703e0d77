"""Whole experiments as functions: the table of one run, and a sweep over delta, S and seed, as tidy rows."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.stats import t as student

from dae4rec_core.config import Config, choose_device
from dae4rec_core.data.dataset import (
    Dataset,
    Examples,
    Split,
    held_out,
    training_examples,
    training_graph,
    validation_sample,
)
from dae4rec_core.data.town import load_town_law, town_ceiling
from dae4rec_core.events import Callback, History
from dae4rec_core.experiments.baselines import baselines
from dae4rec_core.method.sampling import choose_tau
from dae4rec_core.ranking import METRICS, QueryScorer, evaluate, metrics_of_ranks, rank_of
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit, pretrained, train_compensator

PARTS = ("validation", "test")


def baseline_rows(dataset: Dataset, split: Split, config: Config) -> Iterator[dict]:
    """One row of metrics on validation and one on test for each baseline."""
    for part in PARTS:
        examples = held_out(dataset, split, part, config)
        for name, scorer in baselines(dataset, split).items():
            yield {"part": part, "method": name, **evaluate(scorer, examples)}


def ceiling_rows(data: str | Path, dataset: Dataset, split: Split, config: Config) -> Iterator[dict]:
    """What the true law reaches, where the law behind the data is known (a town folder); nothing elsewhere.

    Two rows a part: ranking the catalogue by the next-venue law given the user's latent taste, home and habit, and
    given the history alone; seen items are left out where they are for every method. The law is asked with the filtered
    history, so under a filter it knows less of the visits than the simulator did. Both know the hour of the last visit,
    which DAE4Rec does not.
    """
    if not (Path(data) / "town.json").is_file():
        return
    law, users = load_town_law(data), pd.read_csv(Path(data) / "users.csv.gz")
    exclude_seen = config.data.repeats == "first_visits"
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    catalogue = law.index_of(dataset.item_ids)  # the venues that the k-core left
    place = np.full(law.n_venues, -1)
    place[catalogue] = np.arange(len(catalogue))
    for part in PARTS:
        targets = getattr(split, part)
        end = np.zeros(dataset.n_users, dtype=int)
        end[owner[targets]] = targets + 1
        known = np.arange(len(dataset.items)) < end[owner]  # everything up to the answer itself
        visits = pd.DataFrame(
            {
                "user_id": dataset.user_ids[owner[known]],
                "item_id": dataset.item_ids[dataset.items[known]],
                "timestamp": dataset.timestamps[known],
            }
        )
        tables: dict[str, list[pd.DataFrame]] = {"the law, given latents": [], "the law, given history": []}
        for _, target, *laws in town_ceiling(law, users, visits, exclude_seen=exclude_seen):
            for table, scores in zip(tables.values(), laws, strict=True):
                better, tied = rank_of(torch.from_numpy(scores[:, catalogue]), torch.from_numpy(place[target]))
                table.append(metrics_of_ranks(better, tied, dataset.n_items))
        for name, found in tables.items():
            yield {"part": part, "method": name, **pd.concat(found).mean().to_dict()}


def model_rows(
    recommender: Recommender,
    dataset: Dataset,
    split: Split,
    steps: Iterable[int],
    parts: Sequence[str] = PARTS,
    markov: bool = False,
) -> Iterator[dict]:
    """A row for every part and S without a compensator, one with it where the recommender has one, and on request one
    for the Markov chain of Eq. 3."""
    config = recommender.model.config
    settings: list[tuple[int | str, bool]] = []
    for s in steps:
        settings += [(s, False)] if recommender.compensator_for(s) is None else [(s, False), (s, True)]
    if markov:
        settings.append(("markov", False))
    for part in parts:
        examples = held_out(dataset, split, part, config)
        for setting, compensate in settings:
            yield {
                "part": part,
                "method": "DAE4Rec",
                "delta": config.diffusion.delta,
                "seed": config.train.seed,
                "S": setting,
                "compensator": compensate,
                **evaluate(_scorer(recommender, setting, compensate), examples),
            }


def _scorer(recommender: Recommender, setting: int | str, compensate: bool) -> QueryScorer:
    """setting: an S, or "markov"."""
    return recommender.markov_scorer() if isinstance(setting, str) else recommender.scorer(setting, compensate)


def train_compensators(
    recommender: Recommender,
    dataset: Dataset,
    split: Split,
    steps: Iterable[int],
    callbacks: Sequence[Callback] = (),
) -> None:
    """A compensator for every S in `steps` that the recommender lacks one for."""
    config = recommender.model.config
    train, validation = training_examples(dataset, split, config), validation_sample(dataset, split, config)
    for s in steps:
        if recommender.compensator_for(s) is None:
            train_compensator(recommender, train, validation, s, callbacks)


def sampling_times(
    recommender: Recommender, examples: Examples, steps: Sequence[int], repeats: int = 3
) -> pd.DataFrame:
    """Seconds to sample and rank all examples at each S, and by the Markov chain: the median of `repeats` runs.

    A first run at the smallest S warms up. Columns: S, compensator, seconds, users.
    """
    settings: list[tuple[int | str, bool]] = [(s, c) for s in steps for c in (False, True)]
    settings.append(("markov", False))
    rows = []
    evaluate(recommender.scorer(min(steps), False), examples)
    for setting, compensate in settings:
        seconds = []
        for _ in range(repeats):
            scorer = _scorer(recommender, setting, compensate)
            start = time.perf_counter()
            evaluate(scorer, examples)
            seconds.append(time.perf_counter() - start)
        rows.append(
            {"S": setting, "compensator": compensate, "seconds": statistics.median(seconds), "users": len(examples)}
        )
    return pd.DataFrame(rows)


def delta_runs(
    dataset: Dataset,
    split: Split,
    config: Config,
    settings: Iterable[tuple[float, int]],
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
    folder: str | Path | None = None,
) -> Iterator[tuple[Recommender, History]]:
    """A fit for every (delta, seed), with its log; Z* is pretrained once for each seed that needs it.

    folder: where each Z* is kept for a later call. Raises ValueError for an impossible delta or seed before the first
    fit.
    """
    z_stars: dict[int, torch.Tensor] = {}
    configs = [config.replace(delta=delta, seed=seed) for delta, seed in settings]
    graph, place = training_graph(dataset, split), choose_device(device)
    for one in configs:
        delta, seed, log = one.diffusion.delta, one.train.seed, History()
        if delta > 0 and config.diffusion.aime_target == "gae" and seed not in z_stars:
            z_stars[seed] = pretrained(graph, one, place, callbacks, folder)
        yield fit(dataset, split, one, place, [log, *callbacks], z_star=z_stars.get(seed)), log


def sweep(
    dataset: Dataset,
    split: Split,
    config: Config,
    deltas: Sequence[float],
    steps: Sequence[int],
    seeds: Sequence[int],
    device: str | torch.device = "auto",
    parts: Sequence[str] = PARTS,
    markov: bool = False,
    callbacks: Sequence[Callback] = (),
    on_rows: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Baselines once, then a fit for every (delta, seed), each evaluated at every S: a tidy table.

    `on_rows` receives the table so far after each fit, so that a long sweep loses nothing when it is stopped. Raises
    ValueError for an S that is not in 1..T before anything is trained.
    """
    for s in steps:
        choose_tau(config.diffusion.timesteps, s)
    rows = [row for row in baseline_rows(dataset, split, config) if row["part"] in parts]
    settings = [(delta, seed) for seed in seeds for delta in deltas]
    for recommender, _ in delta_runs(dataset, split, config, settings, device, callbacks):
        train_compensators(recommender, dataset, split, steps, callbacks)
        rows += model_rows(recommender, dataset, split, steps, parts, markov)
        on_rows(tidy(rows, dataset.name))
    return tidy(rows, dataset.name)


def tidy(rows: list[dict], name: str) -> pd.DataFrame:
    """Rows as a table with the data set's name in front."""
    table = pd.DataFrame(rows)
    table.insert(0, "data", name)
    return table


def summary(table: pd.DataFrame, part: str = "test", metrics: Sequence[str] = METRICS[:2]) -> pd.DataFrame:
    """Mean and standard deviation over seeds for each method and setting of a sweep's table, on one part."""
    keys = [key for key in ("method", "delta", "S", "compensator") if key in table]
    chosen = table[table["part"] == part]
    return chosen.groupby(keys, dropna=False, sort=False)[list(metrics)].agg(["mean", "std"]).reset_index()


def paired_bootstrap(ours: ArrayLike, theirs: ArrayLike, resamples: int = 5_000, seed: int = 0) -> dict[str, float]:
    """Is the mean of a metric better for the same users? Users and seeds are drawn again with replacement.

    ours, theirs: a value for each user, (users,), or for each seed of a training too, (seeds, users), users in one
    order. A resample takes the same users for both methods, and for each method seeds of its own: seed 1 of one has
    nothing to do with seed 1 of another. Returns the difference of the means, its 95% interval (low, high) and p, the
    share of resamples in which ours is not ahead, (count + 1) / (resamples + 1). Of a single seed nothing can be drawn
    again, so the interval then speaks of these users alone; of S seeds, it holds (S - 1) / S of their variance.
    """
    one, other = (np.atleast_2d(np.asarray(values, dtype=float)) for values in (ours, theirs))
    difference = float(one.mean() - other.mean())
    if one.shape == other.shape and (one == other).all():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    rng, users, found = np.random.default_rng(seed), one.shape[1], []
    at_once = max(1, 2**21 // users)
    for first in range(0, resamples, at_once):
        size = min(at_once, resamples - first)
        drawn = rng.integers(users, size=(size, users))
        means = [np.stack([values[drawn].mean(1) for values in method]) for method in (one, other)]  # (seeds, size)
        seeds = [rng.integers(len(method), size=(len(method), size)) for method in (one, other)]
        ahead, behind = (np.take_along_axis(mean, chosen, 0).mean(0) for mean, chosen in zip(means, seeds, strict=True))
        found.append(ahead - behind)
    resampled = np.concatenate(found)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "difference": difference,
        "low": float(low),
        "high": float(high),
        "p": (int((resampled <= 0).sum()) + 1) / (resamples + 1),
    }


def mean_difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Which is the better of two methods on each set: the difference of their mean HR@10, its 95% interval's reach.

    ours, theirs: a row for each set and seed, columns set, seed, HR@10, users. Where three seeds or more are paired,
    reach = t_{0.975, n-1} s / sqrt(n), Student's for the n differences. Two say too little about their spread (the
    factor is 9), so with fewer reach = 1.96 sqrt(v_1 + v_2), v = p (1 - p) / users: the variance of one reading, as if
    two methods had different users. Returns difference and reach by set, for the sets that both have.
    """
    one, other = (rows.set_index(["set", "seed"])["HR@10"] for rows in (ours, theirs))
    paired = (one - other).dropna().groupby("set").agg(["std", "count"]).query("count > 2")
    reach = paired["std"] * student.ppf(0.975, paired["count"] - 1) / paired["count"] ** 0.5
    means, users = ([rows.groupby("set")[of].mean() for rows in (ours, theirs)] for of in ("HR@10", "users"))
    variance = sum(p * (1 - p) / n for p, n in zip(means, users, strict=True))
    found = pd.DataFrame({"difference": means[0] - means[1]}).dropna()
    return found.assign(reach=reach.reindex(found.index).fillna(1.96 * variance**0.5))


def reached(curves: pd.DataFrame, rival: str) -> pd.DataFrame:
    """What it costs to be as good as a rival: of each method, the first epoch with the NDCG@10 of the rival's best.

    curves: a row for each epoch, columns data, filter, seed, method, seconds, examples, NDCG@10 (`python -m results
    cost`); both are of the same data set and seed. Returns seconds, examples and share, the seconds over those of the
    rival's own best epoch, by data, filter, seed and method; NaN where it is never reached.
    """
    where = ["data", "filter", "seed"]
    best = curves[curves["method"] == rival].groupby(where)["NDCG@10"].max()
    curves = curves.join(best.rename("goal"), on=where)
    runs = curves.groupby([*where, "method"], sort=False)
    there = curves[curves["NDCG@10"] >= curves["goal"]].groupby([*where, "method"])[["seconds", "examples"]].first()
    there = there.reindex(runs.size().index)
    return there.assign(share=there["seconds"] / there["seconds"].xs(rival, level="method"))
