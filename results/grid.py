"""Every run behind the results: what it is, how it is run, and how it is kept so that a stopped evening goes on.

A `Unit` is one training of one method on one data set under one filter with one seed. Its metrics go to a CSV file in
CACHE and the ranks of every answer to an NPZ file beside it, for the paired bootstrap. Git ignores the cache;
`tables.py` gathers it into the tidy files that are committed, from which a fresh clone goes on.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.config import PRESETS, Config, choose_device
from dae4rec_core.data.dataset import Dataset, Split, held_out, prepare, training_graph
from dae4rec_core.data.town import write_town
from dae4rec_core.experiments.baselines import baselines
from dae4rec_core.experiments.evaluation import PARTS, ceiling_rows, train_compensators
from dae4rec_core.method.graph import ItemGraph, transition_graph
from dae4rec_core.method.model import Query
from dae4rec_core.outputs import replacing, reserved
from dae4rec_core.ranking import QueryScorer, Scorer, mean_metrics, ranks
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit, pretrained
from results import peers
from results.controls import NETWORKS

RULES = 2
"""The rules under which a run is made, kept in the column `rules` of every table of results. From 1 to 2 changed:

- Patience: training ends after Config.patience epochs in a row without a better one, for all methods. DAE4Rec had one
  epoch more, its peers had not.
- Validation users: the answers that choose an epoch are those of `validation_sample` for all methods. On a data set
  with 5,000 to 10,000 of them, they were the first 5,000 for DAE4Rec and all of them for its peers.
- Ties: `ranking` judges every method after an epoch. Peers counted ties against the answer.
- Seen items: on first visits they are left out of the ranking that chooses an epoch, for all methods. They were for
  peers only.
- Neighbours: the improved configuration is ranked with them after an epoch. They were added after training.
- Context: peers learn each answer from the newest max_len items before it. Windows of max_len answers hid a part of
  these items from 26% of the answers on foursquare_us, raw, and from 3% on its first visits.
- Random streams: each purpose has one of its own, so no two share numbers.
- Presets: DAE4Rec is `reference`, which the notebooks use too. It was `tuned`, with d = 256, a dropout of 0.3 and a
  shorter pretraining.
"""

# fields that came after the committed runs, which had what their defaults are
LATER = ("similarity", "compensator", "denoiser")

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
CACHE = FOLDER / "cache" / f"rules-{RULES}"
RUNS = FOLDER / "runs.csv"  # the metrics of all finished runs
RANKS = FOLDER / "ranks.parquet"  # of every test answer under every run of the main table
TOWN = ROOT / "data" / "town"
TOWN_SEED = 7  # of the bundled town
PEERS = ROOT / ".venv-peers" / "bin" / "python"
REAL = ("gowalla", "retailrocket", "foursquare_us", "online_retail")
FILTERS = {"raw": "keep", "first visits": "first_visits"}
BY_TIME = ", by time"  # behind a filter's name: all is learned before one moment and asked after it
SEEDS = (0, 1, 2)
EPOCHS = 40  # at most, with Config.patience, for every method
EXAMPLES = 1_200_000  # training examples that any method may look at in one run: large sets get fewer epochs
S = 10
NO_TRAINING = ("popularity", "recency", "first-order transitions", "symmetric transitions", "sequential rules")


@dataclass(frozen=True)
class Unit:
    """One run. changes: to a preset, for DAE4Rec; settings of `peers.py`, for a peer.

    steps: the S to measure, each without and with a compensator. markov: also the chain of Eq. 3. samples: also the
    mean of that many samples at S = 10. network: one of `controls.NETWORKS` in place of the preset's own. known: where
    Z* comes from a graph that holds answers, the last part of them that it holds, see `graph_of`.
    """

    study: str
    data: str
    filter: str
    method: str
    seed: int
    preset: str = ""
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    steps: tuple[int, ...] = (S,)
    markov: bool = False
    samples: int = 0
    network: str = ""
    known: str = ""

    @property
    def key(self) -> str:
        return "-".join([self.study, self.data, self.filter, self.method, str(self.seed)]).replace(" ", "_")

    @property
    def settings(self) -> int:
        """A number that changes with anything that decides the run."""
        preset = PRESETS[self.preset].to_dict() if self.preset else {}
        if preset:
            beyond, now = Config().to_dict()["beyond"], preset["beyond"]
            preset["beyond"] = {name: now[name] for name in now if name not in LATER or now[name] != beyond[name]}
        parts = [preset, self.changes, self.steps, self.markov, self.samples, EPOCHS, EXAMPLES, S]
        parts.append(Config().train.patience)  # also a peer's
        parts += [part for part in (self.network, self.known) if part]
        return zlib.crc32(json.dumps(parts, sort_keys=True).encode())

    @property
    def cached(self) -> bool:
        """Whether the cache holds this run, made with these settings."""
        path = CACHE / f"{self.key}.csv"
        return path.is_file() and pd.read_csv(path, nrows=1)["settings"][0] == self.settings

    def recorded(self) -> pd.DataFrame:
        """The rows of RUNS that hold this run, made with these settings."""
        runs = committed(RUNS)
        return runs[self.rows_in(runs, "study") & (runs["rules"] == RULES) & (runs["settings"] == self.settings)]

    @property
    def done(self) -> bool:
        """Whether this run need not be made again: it is in the cache, or committed with all that the tables need."""
        if self.cached or self.recorded().empty:
            return self.cached
        ranked = committed(RANKS)
        return self.study != "main" or bool((self.rows_in(ranked) & (ranked["rules"] == RULES)).any())

    def rows_in(self, table: pd.DataFrame, *more: str) -> pd.Series:
        """Which rows of a table are of this data, filter, method and seed, and of the same `more`."""
        same = pd.Series(True, table.index)
        for name in ("data", "filter", "method", "seed", *more):
            same &= table[name] == getattr(self, name)
        return same


class Reading(NamedTuple):
    """The ranks of one part's answers under one variant of a method: (N,) items above each and items level with it."""

    variant: str
    part: str
    better: Tensor
    tied: Tensor
    facts: dict[str, Any] = {}


@lru_cache(maxsize=2)
def committed(path: Path) -> pd.DataFrame:
    """RUNS or RANKS as this clone has it; empty columns where it has none."""
    if not path.is_file():
        names = ("study", "data", "filter", "method", "variant", "seed", "settings", "rules")
        return pd.DataFrame({name: [] for name in names})
    if path.suffix == ".csv":
        return read_csv(path)
    return pd.read_parquet(path)


def read_csv(path: Path) -> pd.DataFrame:
    """A table of results: only an empty field is missing."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], encoding="utf-8")


def fill(
    paths: Sequence[Path],
    names: Sequence[str],
    units: Iterable[tuple],
    measure: Callable[..., Sequence[list[dict]]],
) -> None:
    """Write the rows of every unit that the tables lack under these rules, each unit as soon as it is measured.

    names: of the columns that tell a unit's rows. measure: of a unit's parts, gives the rows of each of `paths`. The
    last path is written last, so what it holds is whole, and it is locked: two runs would lose each other's rows.
    """
    with reserved(paths[-1].parent, paths[-1].name):
        for unit in units:
            tables = [read_csv(path) if path.is_file() else pd.DataFrame(columns=[*names, "rules"]) for path in paths]
            same = [(table[list(names)] == list(unit)).all(axis=1) for table in tables]
            if (same[-1] & (tables[-1]["rules"] == RULES)).any():
                continue
            for path, table, old, rows in zip(paths, tables, same, measure(*unit), strict=True):
                new = pd.DataFrame([dict(zip(names, unit, strict=True)) | row | {"rules": RULES} for row in rows])
                kept = [part for part in (table[~old], new) if len(part)]
                with replacing(path) as draft:
                    pd.concat(kept).to_csv(draft, index=False, float_format="%.4g", encoding="utf-8")


def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the newest rules among rows that are to be averaged: a mean never mixes two rules."""
    return rows[rows["rules"] == rows["rules"].max()]


def run(unit: Unit, folder: Path, epochs: int | None = None) -> pd.DataFrame:
    """Run one unit and keep its metrics. folder: where the real data sets are. epochs: fewer than usual, for tests."""
    start = time.perf_counter()
    dataset, split = load(unit.data, unit.filter, folder)
    readings = list(_readings(unit, dataset, split, epochs))
    rows = [
        {
            "study": unit.study,
            "data": unit.data,
            "filter": unit.filter,
            "method": unit.method,
            "variant": reading.variant,
            "seed": unit.seed,
            "part": reading.part,
            **mean_metrics(reading.better, reading.tied, dataset.n_items),
            "users": len(reading.better),
            "items": dataset.n_items,
            **reading.facts,
        }
        for reading in readings
    ]
    seconds = time.perf_counter() - start
    table = pd.DataFrame(rows).assign(run_seconds=seconds, settings=unit.settings, rules=RULES)
    counts: dict[str, Any] = {}
    for reading in readings:
        counts[f"{reading.variant}|{reading.part}|better"] = reading.better.int().numpy()
        counts[f"{reading.variant}|{reading.part}|tied"] = reading.tied.int().numpy()
    with replacing(CACHE / f"{unit.key}.npz") as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **counts)
    # last, since it marks the unit as done
    with replacing(CACHE / f"{unit.key}.csv") as draft:
        table.to_csv(draft, index=False, float_format="%.6g", encoding="utf-8")
    return table


@lru_cache(maxsize=2)
def load(data: str, filter: str, folder: Path) -> tuple[Dataset, Split]:
    """A data set under one of FILTERS, split by leave-last-out, or by one moment where the filter ends in BY_TIME."""
    return prepare(place_of(data, folder), Config().replace(**data_settings(filter)))


def data_settings(filter: str) -> dict[str, str]:
    """What a filter's name means in a configuration."""
    split = "global_time" if filter.endswith(BY_TIME) else "leave_last_out"
    return {"repeats": FILTERS[filter.removesuffix(BY_TIME)], "split": split}


def town_name(again: float, returns: float, users: int, seed: int) -> str:
    """The name of another town, from which `place_of` makes it."""
    return f"town again={again:g} returns={returns:g} users={users} seed={TOWN_SEED + seed}"


def place_of(data: str, folder: Path) -> Path:
    """Where a data set is: the bundled town, another town in the cache (written when it is needed), or in folder."""
    if data == "town":
        return TOWN
    if not data.startswith("town "):
        return folder / data
    place = CACHE / "towns" / data.removeprefix("town ").replace(" ", "-")
    if not place.is_dir():
        knobs = dict(knob.split("=") for knob in data.split()[1:])
        again, returns = float(knobs["again"]), float(knobs["returns"])
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=place.parent))
        write_town(draft, n_users=int(knobs["users"]), seed=int(knobs["seed"]), again=again, returns=returns)
        try:
            draft.rename(place)
        except OSError:  # another worker made the same town meanwhile
            shutil.rmtree(draft)
    return place


def _readings(unit: Unit, dataset: Dataset, split: Split, epochs: int | None) -> Iterator[Reading]:
    """Everything that one unit measures."""
    if unit.method == "baselines":
        config = Config().replace(**data_settings(unit.filter))
        for name, scorer in baselines(dataset, split).items():
            for part in PARTS:
                better, tied, _ = ranks(scorer, held_out(dataset, split, part, config))
                yield Reading(name, part, better, tied)
    elif unit.preset:
        yield from _readings_of_ours(unit, dataset, split, epochs)
    else:
        yield from _readings_of_peer(unit, dataset, split, epochs, PARTS)


def epochs_for(examples: int) -> int:
    """The epochs that EPOCHS and EXAMPLES allow, at least 3."""
    return min(EPOCHS, max(3, math.ceil(EXAMPLES / examples)))


def config_of(unit: Unit, dataset: Dataset, split: Split, epochs: int | None = None) -> Config:
    """The configuration of one of our units."""
    limit = epochs_for(len(split.training_targets(dataset))) if epochs is None else epochs
    ours = {"seed": unit.seed, **data_settings(unit.filter), "steps": S, "epochs": limit}
    return PRESETS[unit.preset].replace(**ours | unit.changes)


def graph_of(dataset: Dataset, split: Split, known: str = "") -> ItemGraph:
    """The graph of the training part; or what a mistake would make of it, with answers in it.

    known: "validation", the steps to the validation answers too, or "test", every step. Sequences end with these two.
    """
    if not known:
        return training_graph(dataset, split)
    end = {"validation": -1, "test": None}[known]
    return transition_graph([dataset.sequence(user)[:end] for user in range(dataset.n_users)], dataset.n_items)


def z_star_of(dataset: Dataset, split: Split, config: Config, known: str = "") -> Tensor | None:
    """Z*, where the configuration needs it, from the cache: many units share it. known: as in `graph_of`."""
    if config.diffusion.delta == 0 or config.diffusion.aime_target != "gae":
        return None
    return pretrained(graph_of(dataset, split, known), config, choose_device(), folder=CACHE)


def _readings_of_ours(unit: Unit, dataset: Dataset, split: Split, epochs: int | None) -> Iterator[Reading]:
    config = config_of(unit, dataset, split, epochs)
    if not unit.steps:
        config = config.replace(compensator_epochs=0)
    z_star = z_star_of(dataset, split, config, unit.known)
    start = time.perf_counter()
    recommender = fit(dataset, split, config, z_star=z_star, network=NETWORKS.get(unit.network))
    seconds = time.perf_counter() - start
    train_compensators(recommender, dataset, split, unit.steps)
    # variant, S, compensator, and how its scorer is made: anew for each part, so that x_T is that of `model_rows`
    made: list[tuple[str, float, bool, Callable[[], Scorer]]] = []
    for compensate, ending in ((False, ""), (True, " + compensator")):
        made += [(f"S={s}{ending}", s, compensate, partial(recommender.scorer, s, compensate)) for s in unit.steps]
    if unit.markov:
        made.append(("Markov chain", math.nan, False, recommender.markov_scorer))
    if unit.samples:
        name = f"mean of {unit.samples} samples"
        made.append((name, math.nan, False, partial(mean_of_samples, recommender, S, unit.samples)))
    for variant, s, compensate, make_scorer in made:
        for part in PARTS:
            examples = held_out(dataset, split, part, config)
            start = time.perf_counter()
            better, tied, _ = ranks(make_scorer(), examples)
            facts = {
                "S": float(s),
                "compensator": compensate,
                "delta": config.diffusion.delta,
                "train_seconds": seconds,
                "rank_seconds": time.perf_counter() - start,
            }
            yield Reading(variant, part, better, tied, facts)


def mean_of_samples(recommender: Recommender, steps: int, samples: int) -> QueryScorer:
    """Ranks by the mean query of several samples, each from a first noise of its own: ours, see notebook 08."""
    each = [recommender.scorer(steps, compensate=False, seed=seed) for seed in range(samples)]

    def query(history: Tensor) -> Query:
        queries = [one.query(history) for one in each]
        # what a query grants to single items depends on the history alone, so it is the same in all of them
        return queries[0]._replace(vectors=torch.stack([one.vectors for one in queries]).mean(0))

    return QueryScorer(query, each[0].items)


def _readings_of_peer(
    unit: Unit, dataset: Dataset, split: Split, epochs: int | None, parts: Sequence[str]
) -> Iterator[Reading]:
    """The wanted parts."""
    found = run_peer(unit, dataset, split, epochs, parts)
    facts = {"train_seconds": json.loads(str(found["facts"]))["seconds"]}
    for part in parts:
        better, tied = (torch.from_numpy(found[f"{part}_{kind}"]).long() for kind in ("better", "tied"))
        yield Reading("", part, better, tied, facts)


def run_peer(
    unit: Unit,
    dataset: Dataset,
    split: Split,
    epochs: int | None,
    parts: Sequence[str],
    limit: int | None = None,
    **more: Any,
) -> dict[str, np.ndarray]:
    """What `peers.main` writes, by name. limit: answers of a part; more: settings beside those of the unit."""
    if not PEERS.is_file():
        raise FileNotFoundError(f"{PEERS} is missing, which the methods of other libraries need; run `make peers`.")
    config = Config().replace(**data_settings(unit.filter), max_len=unit.changes["max_len"])
    most = epochs_for(len(split.training_targets(dataset))) if epochs is None else epochs
    settings = unit.changes | {"seed": unit.seed, "epochs": most, "patience": config.train.patience} | more
    # a neighbour list names the item itself where people return, only there
    settings["itself"] = unit.filter.startswith("raw")
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "task.npz", Path(place) / "found.npz"
        peers.write_task(source, dataset, split, config, parts, limit)
        subprocess.run(
            [PEERS, "-W", "ignore", "-m", "results.peers", unit.method, source, out, json.dumps(settings)],
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        with np.load(out) as file:
            return dict(file)


def ceiling() -> pd.DataFrame:
    """What the town's law reaches, under both filters."""
    rows = []
    for name, repeats in FILTERS.items():
        dataset, split = load("town", name, Path())
        found = ceiling_rows(TOWN, dataset, split, Config().replace(repeats=repeats))
        rows += [{"data": "town", "filter": name, **row} for row in found]
    return pd.DataFrame(rows)
