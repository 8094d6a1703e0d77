"""A search over what the paper leaves open: as many trials and as many seconds for every method, ours and others'.

Successive halving (Jamieson and Talwalkar 2016): TRIALS configurations of a method are trained for a minute of
processor time on each of SETS, the better third of them for three minutes, and the better third of these for nine
(RUNGS). A trial's value is the geometric mean over SETS of the best validation NDCG@10 of an epoch, so that one
configuration is chosen for all data: a method that needs a search for each data set is not the one that a reader would
pick. Test answers are never read here.

The first trial of a method has the values of its preset, or those that a search of rules 1 had found for a peer; the
others are drawn at random from its space, by optuna. Seconds are of the processor, so that other work on the machine
changes nothing. They include the pretraining, where a method has one: the preset's 4,000 steps of it would take all of
the first minute and more, so its length is searched too and grows as the seconds do, threefold and ninefold; the first
trial has the shortest in the first minute and the preset's own after it. After an epoch our
models are ranked by their one-step answer f(x_T, T, h), as in every training; so of DreamRec's recipe the chain itself
is not searched.
"""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.distributions import CategoricalDistribution as Choice

from dae4rec_core.config import PRESETS
from dae4rec_core.events import Event
from dae4rec_core.ranking import mean_metrics
from dae4rec_core.training import Exploded, fit
from results import grid, peers
from results.peers import PEER_SETTINGS

SETS = (("gowalla", "first visits"), ("retailrocket", "first visits"))
TRIALS = 24
RUNGS = ((TRIALS, 60), (8, 180), (3, 540))  # trials, and seconds of the processor for each on each of SETS
TABLES = grid.FOLDER / "search"  # a table for each method
METRICS = ("HR@10", "NDCG@10")
CLOSE = 0.002  # of NDCG@10: less than one standard error of a trial's value, which has some 10,000 answers
UNLIMITED = 10_000  # epochs: the seconds end a trial, or the patience

Space = dict[str, BaseDistribution]
SIZES = Choice((64, 128, 256, 512, 1024))

# what any configuration of our modules may choose
OURS: Space = {
    "dim": SIZES,
    "hidden": Choice((256, 512, 1024)),
    "depth": Choice((1, 2, 3)),
    "dropout": Choice((0.0, 0.1, 0.3, 0.5)),
    "lr": FloatDistribution(3e-4, 3e-3, log=True),
    "lr_embedding": FloatDistribution(3e-4, 1e-2, log=True),
    "batch_size": Choice((256, 512, 1024)),
    "aggregation": Choice(("sum", "last")),
    "max_len": Choice((10, 20, 50)),
    "timesteps": Choice((50, 200, 1000)),
    "schedule": Choice(("linear", "cosine", "exponential")),
}
DEPARTURES: Space = {"positions": Choice((True, False)), "lambda_t": Choice(("uniform", "paper", "min_snr"))}
PRETRAINING = (100, 300, 1000)  # steps
AIME: Space = {"delta": Choice((0.1, 1.0, 10.0, 100.0, 1000.0)), "gae_steps": Choice(PRETRAINING)}
BALANCED: Space = {"pos_weight": Choice((None, 10.0, 100.0))}
RANKING: Space = {"rank_weight": Choice((10.0, 100.0, 1000.0)), "temperature": Choice((0.07, 0.1, 0.15))}
GUIDED: Space = {"init_std": Choice((0.1, 1.0)), "guidance": Choice((0.5, 2.0, 4.0))}
SEQUENCE_MODEL: Space = {
    "dim": SIZES,
    "dropout": Choice((0.1, 0.3, 0.5)),
    "lr": FloatDistribution(3e-4, 3e-3, log=True),
    "batch_size": Choice((256, 512, 1024)),
    "max_len": Choice((20, 50)),
}


class Method(NamedTuple):
    """What is searched: a space around a preset, with changes that every trial has; without a preset, a peer's."""

    space: Space
    preset: str = ""
    changes: dict[str, Any] = {}


METHODS = {
    "SASRec": Method(SEQUENCE_MODEL),
    "GRU4Rec": Method(SEQUENCE_MODEL),
    "DreamRec's recipe": Method(OURS | DEPARTURES | GUIDED, "dreamrec"),
    "DAE4Rec, letter": Method(OURS | AIME, "letter"),
    "DAE4Rec": Method(OURS | DEPARTURES | AIME | BALANCED, "reference"),
    "DAE4Rec, counts": Method(OURS | DEPARTURES | AIME | BALANCED, "reference", {"similarity": "counts"}),
    "DAE4Rec improved": Method(OURS | DEPARTURES | RANKING, "improved"),
}


def table_of(name: str) -> Path:
    """Where the trials of a method are kept."""
    return TABLES / f"{name.replace(' ', '_')}.csv"


def candidates(name: str) -> list[dict[str, Any]]:
    """The settings of a method's TRIALS trials, always the same."""
    method = METHODS[name]
    first = PRESETS[method.preset].flat() | {"gae_steps": PRETRAINING[0]} if method.preset else PEER_SETTINGS[name]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask(method.space).params for _ in range(TRIALS - 1)]
    return [settings | method.changes for settings in ({key: first[key] for key in method.space}, *drawn)]


def in_rung(name: str, trial: int, settings: dict[str, Any], seconds: int) -> dict[str, Any]:
    """A trial's settings where it has so many seconds: its pretraining grows with them."""
    first = RUNGS[0][1]
    if "gae_steps" not in settings or seconds == first:
        return settings
    steps = PRESETS[METHODS[name].preset].gae.steps if trial == 0 else settings["gae_steps"] * seconds // first
    return settings | {"gae_steps": steps}


def search(name: str, folder: Path) -> None:
    """Run what is missing of a method's search. folder: where the real data sets are."""
    TABLES.mkdir(exist_ok=True)
    every = candidates(name)

    def measure(trial: int, seconds: int, data: str, which: str) -> list[list[dict]]:
        settings = in_rung(name, trial, every[trial], seconds)
        found = judge(grid.Unit("search", data, which, name, 0, METHODS[name].preset, settings), seconds, folder)
        print(f"{name}, trial {trial}, {data}, {seconds} s: NDCG@10 {found['NDCG@10']:.4f}", flush=True)
        return [[found | {"settings": json.dumps(settings)}]]

    trials = list(range(TRIALS))
    for keep, seconds in RUNGS:
        trials = trials[:keep]
        todo = [(trial, seconds, *where) for trial in trials for where in SETS]
        grid.fill((table_of(name),), ("trial", "budget", "data", "filter"), todo, measure)
        trials = best_first(name, seconds).index.tolist()


def best_first(name: str, seconds: int) -> pd.Series:
    """The values of the trials that a method made with this budget on all SETS, the best one first."""
    table = grid.read_csv(table_of(name))
    table = table[(table["budget"] == seconds) & (table["rules"] == grid.RULES)]
    values = table.assign(log=np.log(table["NDCG@10"].clip(lower=1e-6))).groupby("trial")["log"].agg(["mean", "size"])
    values = np.exp(values.loc[values["size"] == len(SETS), "mean"])
    return values.sort_values(ascending=False, kind="stable")  # of equal ones the earlier first


@cache
def chosen(name: str) -> dict[str, Any]:
    """For the main table, what the search changes in a method's preset; of a peer all settings.

    A peer has those of its best trial. A preset, which is the first trial, stays where it is CLOSE to the best.
    Raises ValueError before the method's search is over.
    """
    trials, seconds = RUNGS[-1]
    values = best_first(name, seconds)
    if len(values) < trials:
        raise ValueError(f"The search for {name} isn't over; go on with `python -m results search`.")
    preset = PRESETS[METHODS[name].preset].flat() if METHODS[name].preset else {}
    best = 0 if preset and values.get(0, 0.0) > values.iloc[0] - CLOSE else values.index[0]
    table = grid.read_csv(table_of(name)).set_index(["budget", "trial"])
    settings = json.loads(table.loc[(seconds, best), "settings"].iloc[0])
    return {key: value for key, value in settings.items() if key not in preset or preset[key] != value}


def judge(unit: grid.Unit, seconds: float, folder: Path) -> dict[str, Any]:
    """Train a unit for so many seconds of the processor; its best validation metrics, its seconds and its epochs."""
    dataset, split = grid.load(unit.data, unit.filter, folder)
    if not unit.preset:
        found = grid.run_peer(unit, dataset, split, UNLIMITED, (), seconds=seconds)
        better, tied = (torch.from_numpy(found[f"{peers.SAMPLE}_{kind}"]).long() for kind in ("better", "tied"))
        metrics, facts = mean_metrics(better, tied, dataset.n_items), json.loads(str(found["facts"]))
        return {name: metrics[name] for name in METRICS} | {name: facts[name] for name in ("cpu_seconds", "epochs")}
    budget = Budget(seconds)
    config = grid.config_of(unit, dataset, split, UNLIMITED).replace(compensator_epochs=0)
    try:
        fit(dataset, split, config, callbacks=[budget])
    except Spent:
        pass
    except ValueError as error:  # the training explodes: a bad choice, and a result
        if not isinstance(error, Exploded) and "NaN" not in str(error):
            raise
    return budget.best | {"cpu_seconds": time.process_time() - budget.start, "epochs": budget.epochs}


class Spent(Exception):
    """The seconds are over."""


class Budget:
    """A callback that keeps the best epoch's metrics and ends all work with `Spent` when its seconds are over.

    That may be in the pretraining already; the metrics are 0 then.
    """

    def __init__(self, seconds: float):
        self.seconds, self.start, self.epochs = seconds, time.process_time(), 0
        self.best = dict.fromkeys(METRICS, 0.0)

    def __call__(self, event: Event) -> None:
        if event.stage == "diffusion":
            self.epochs = event.step
            if event.metrics["NDCG@10"] > self.best["NDCG@10"]:
                self.best = {name: event.metrics[name] for name in METRICS}
        if time.process_time() - self.start >= self.seconds:
            raise Spent
