"""Whole experiments as functions: the table of one run, and a sweep over delta, S and seeds, as tidy rows."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap

from dae4rec_core.baselines import baselines
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data import Dataset, Examples, Split, make_examples
from dae4rec_core.events import Event
from dae4rec_core.gae import pretrain_gae
from dae4rec_core.graph import training_graph
from dae4rec_core.ranking import evaluate, metric_table
from dae4rec_core.recommender import Recommender
from dae4rec_core.town import load_town_law, town_ceiling
from dae4rec_core.training import fit, train_compensator, validation_sample


def baseline_rows(dataset: Dataset, split: Split, config: Config) -> Iterator[dict]:
    """One row of metrics on validation and one on test for each baseline."""
    for part, targets in (("validation", split.validation), ("test", split.test)):
        examples = make_examples(dataset, targets, config.max_len)
        for name, scorer in baselines(dataset, split).items():
            yield {"part": part, "method": name, **evaluate(scorer, examples)}


def ceiling_rows(data: str | Path, dataset: Dataset, split: Split) -> Iterator[dict]:
    """The best that anyone could do, where the law behind the data is known (a town folder); nothing elsewhere.

    Two rows a part: ranking by the true next-venue law given the user's latent taste, home and habit, and given the
    history alone. Both know the hour of the last visit, which DAE4Rec does not, so they are a little generous.
    """
    if not (Path(data) / "town.json").is_file():
        return
    law, users = load_town_law(data), pd.read_csv(Path(data) / "users.csv.gz")
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    for part, targets in (("validation", split.validation), ("test", split.test)):
        end = np.zeros(dataset.n_users, dtype=int)
        end[owner[targets]] = targets + 1
        seen = np.arange(len(dataset.items)) < end[owner]  # everything up to the answer itself
        visits = pd.DataFrame(
            {
                "user_id": dataset.user_ids[owner[seen]],
                "item_id": dataset.item_ids[dataset.items[seen]],
                "timestamp": dataset.timestamps[seen],
            }
        )
        tables = {"the law, given latents": [], "the law, given history": []}
        for _, target, *laws in town_ceiling(law, users, visits):
            for table, scores in zip(tables.values(), laws, strict=True):
                table.append(metric_table(torch.from_numpy(scores), torch.from_numpy(target)))
        for name, found in tables.items():
            yield {"part": part, "method": name, **pd.concat(found).mean().to_dict()}


def model_rows(
    recommender: Recommender,
    dataset: Dataset,
    split: Split,
    steps: list[int],
    parts=("validation", "test"),
    markov: bool = False,
    callbacks: list[Callable[[Event], None]] = (),
) -> Iterator[dict]:
    """Rows for every S without and with its compensator (trained here if the recommender lacks it), and for the Markov
    chain of Eq. 3 on request."""
    config = recommender.model.config
    train = make_examples(dataset, split.training_targets(dataset), config.max_len)
    for s in steps:
        if s not in recommender.compensators:
            train_compensator(recommender, train, validation_sample(dataset, split, config), s, callbacks)
    settings = [(s, compensate) for s in steps for compensate in (False, True)] + (
        [("markov", False)] if markov else []
    )
    for part in parts:
        examples = make_examples(dataset, getattr(split, part), config.max_len)
        for s, compensate in settings:
            scorer = recommender.markov_scorer() if s == "markov" else recommender.scorer(s, compensate)
            metrics = evaluate(scorer, examples)
            yield {
                "part": part,
                "method": "DAE4Rec",
                "delta": config.delta,
                "seed": config.seed,
                "S": s,
                "compensator": compensate,
                **metrics,
            }


def sampling_times(recommender: Recommender, examples: Examples, steps: list[int], repeats: int = 3) -> pd.DataFrame:
    """Seconds to sample and rank all examples at each S, and by the Markov chain: the median of `repeats` runs.

    A first run at S = 1 warms up. Columns: S, compensator, seconds, users.
    """
    settings = [(s, c) for s in steps for c in (False, True)] + [("markov", False)]
    rows = []
    evaluate(recommender.scorer(steps[0], False), examples)
    for s, compensate in settings:
        seconds = []
        for _ in range(repeats):
            scorer = recommender.markov_scorer() if s == "markov" else recommender.scorer(s, compensate)
            start = time.perf_counter()
            evaluate(scorer, examples)
            seconds.append(time.perf_counter() - start)
        rows.append({"S": s, "compensator": compensate, "seconds": statistics.median(seconds), "users": len(examples)})
    return pd.DataFrame(rows)


def sweep(
    dataset: Dataset,
    split: Split,
    config: Config,
    deltas: list[float],
    steps: list[int],
    seeds: list[int],
    device: str = "auto",
    parts=("validation", "test"),
    markov: bool = False,
    callbacks: list[Callable[[Event], None]] = (),
    on_rows: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Baselines once, then a fit for every (delta, seed), each evaluated at every S: a tidy table.

    `on_rows` receives the table so far after each fit, so that a long sweep loses nothing when it is stopped.
    """
    rows = list(baseline_rows(dataset, split, config))
    for seed in seeds:
        z_star = pretrain_gae(
            training_graph(dataset, split), config.replace(seed=seed), choose_device(device), callbacks
        )
        for delta in deltas:
            one = config.replace(delta=delta, seed=seed)
            recommender = fit(dataset, split, one, device, callbacks, z_star=z_star)
            rows += model_rows(recommender, dataset, split, steps, parts, markov, callbacks)
            on_rows(tidy(rows, dataset.name))
    return tidy(rows, dataset.name)


def tidy(rows: list[dict], name: str) -> pd.DataFrame:
    """Rows as a table with the data set's name in front."""
    table = pd.DataFrame(rows)
    table.insert(0, "data", name)
    return table


def summary(table: pd.DataFrame, part: str = "test", metrics=("HR@10", "NDCG@10")) -> pd.DataFrame:
    """Mean and standard deviation over seeds for each method and setting of a sweep's table, on one part."""
    keys = [key for key in ("method", "delta", "S", "compensator") if key in table]
    chosen = table[table["part"] == part]
    return chosen.groupby(keys, dropna=False, sort=False)[list(metrics)].agg(["mean", "std"]).reset_index()


def paired_bootstrap(ours: pd.Series, theirs: pd.Series, resamples: int = 5_000, seed: int = 0) -> dict[str, float]:
    """Is the mean of a metric better for the same users? Users are drawn again with replacement, both methods at once.

    ours, theirs: a value for each user, in one order. Returns the difference of the means, its 95% interval (low,
    high) and p, the share of resamples in which ours is not ahead, (count + 1) / (resamples + 1). It speaks of these
    users and not of other seeds.
    """
    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if not difference.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    found = bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2**22 // len(difference)),  # 32 MB at a time
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    behind = int((found.bootstrap_distribution <= 0).sum())
    return {
        "difference": float(difference.mean()),
        "low": float(found.confidence_interval.low),
        "high": float(found.confidence_interval.high),
        "p": (behind + 1) / (resamples + 1),
    }
