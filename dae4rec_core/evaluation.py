"""Whole experiments as functions: the table of one run, and a sweep over delta, S and seeds, as tidy rows."""

import time
from collections.abc import Callable, Iterator

import pandas as pd

from dae4rec_core.baselines import baselines
from dae4rec_core.config import Config
from dae4rec_core.data import Dataset, Split, make_examples
from dae4rec_core.events import Event
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit, train_compensator, validation_sample


def baseline_rows(dataset: Dataset, split: Split, config: Config) -> Iterator[dict]:
    """One row of metrics on validation and one on test for each baseline."""
    for part, targets in (("validation", split.validation), ("test", split.test)):
        examples = make_examples(dataset, targets, config.max_len)
        for name, scorer in baselines(dataset, split).items():
            yield {"part": part, "method": name, **evaluate(scorer, examples)}


def model_rows(
    recommender: Recommender, dataset: Dataset, split: Split, steps: list[int], parts=("validation", "test"),
    markov: bool = False, callbacks: list[Callable[[Event], None]] = (),
) -> Iterator[dict]:
    """Rows for every S without and with its compensator (trained here if the recommender lacks it), and for the Markov
    chain of Eq. 3 on request. `seconds` is the time to sample and rank all users of that part."""
    config = recommender.model.config
    train = make_examples(dataset, split.training_targets(dataset), config.max_len)
    for s in steps:
        if s not in recommender.compensators:
            train_compensator(recommender, train, validation_sample(dataset, split, config), s, callbacks)
    settings = [(s, compensate) for s in steps for compensate in (False, True)] + ([("markov", False)] if markov else [])
    for part in parts:
        examples = make_examples(dataset, getattr(split, part), config.max_len)
        for s, compensate in settings:
            scorer = recommender.markov_scorer() if s == "markov" else recommender.scorer(s, compensate)
            start = time.perf_counter()
            metrics = evaluate(scorer, examples)
            yield {
                "part": part, "method": "DAE4Rec", "delta": config.delta, "seed": config.seed, "S": s,
                "compensator": compensate, **metrics, "seconds": time.perf_counter() - start, "users": len(examples),
            }


def sweep(
    dataset: Dataset, split: Split, config: Config, deltas: list[float], steps: list[int], seeds: list[int],
    device: str = "auto", parts=("validation", "test"), markov: bool = False,
    callbacks: list[Callable[[Event], None]] = (), on_rows: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Baselines once, then a fit for every (delta, seed), each evaluated at every S: a tidy table, one figure set a row.

    `on_rows` receives the table so far after each fit, so that a long sweep loses nothing when it is stopped.
    """
    rows = list(baseline_rows(dataset, split, config))
    for delta in deltas:
        for seed in seeds:
            one = config.replace(delta=delta, seed=seed)
            recommender = fit(dataset, split, one, device, callbacks)
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
