"""Every run behind the results: what it is, how it is run, and how it is kept so that a stopped evening goes on.

A `Unit` is one training of one method on one data set under one filter with one seed. Its figures go to
results/cache/<key>.csv and the rank of every tested answer to <key>.npz, for the paired bootstrap. The cache is ignored
by git; `tables.py` gathers it into the tidy files that are committed, from which a fresh clone goes on.
"""

import json
import math
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from dae4rec_core.baselines import baselines
from dae4rec_core.config import PRESETS, Config, choose_device
from dae4rec_core.data import Dataset, Split, make_examples, prepare
from dae4rec_core.evaluation import ceiling_rows
from dae4rec_core.gae import pretrain_gae
from dae4rec_core.graph import training_graph
from dae4rec_core.ranking import METRICS, metrics_of_ranks, user_ranks
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import EmbeddingScorer
from dae4rec_core.training import VALIDATION_USERS, fit, train_compensator, validation_sample

FOLDER = Path(__file__).parent
CACHE = FOLDER / "cache"
RUNS = FOLDER / "runs.csv"  # the figures of all finished runs
RANKS = FOLDER / "ranks.parquet"  # of every test answer under every run of the main table
PEERS = Path(".venv-peers/bin/python")
REAL = ("gowalla", "retailrocket", "foursquare_us", "online_retail")
FILTERS = {"raw": "keep", "first visits": "first_visits"}
SEEDS = (0, 1, 2)
EPOCHS = 40  # at most, with Config.patience, for every method
EXAMPLES = 1_200_000  # training examples that any method may look at in one run: large sets get fewer epochs
S = 10
NO_TRAINING = ("popularity", "recency", "first-order transitions", "symmetric transitions", "sequential rules")


@dataclass(frozen=True)
class Unit:
    """One run. config: a preset's name and changes to it, for DAE4Rec; settings of `peers.py`, for a peer.

    steps: the S to measure, each without and with a compensator. markov: also the chain of Eq. 3. samples: also the
    mean of that many samples at S = 10.
    """

    study: str
    data: str
    filter: str
    method: str
    seed: int
    preset: str = ""
    changes: dict = field(default_factory=dict, hash=False)
    steps: tuple[int, ...] = (S,)
    markov: bool = False
    samples: int = 0

    @property
    def key(self) -> str:
        return "-".join([self.study, self.data, self.filter, self.method, str(self.seed)]).replace(" ", "_")

    @property
    def settings(self) -> int:
        """A number that changes with anything that decides the run."""
        preset = PRESETS[self.preset].to_dict() if self.preset else {}
        parts = [preset, self.changes, self.steps, self.markov, self.samples, EPOCHS, EXAMPLES, S]
        return zlib.crc32(json.dumps(parts, sort_keys=True).encode())

    @property
    def cached(self) -> bool:
        """Whether the cache holds this run, made with these settings."""
        path = CACHE / f"{self.key}.csv"
        return path.is_file() and pd.read_csv(path, nrows=1)["settings"][0] == self.settings

    def recorded(self) -> pd.DataFrame:
        """The rows of RUNS that hold this run, made with these settings."""
        runs = committed(RUNS)
        return runs[self.rows_in(runs, "study") & (runs["settings"] == self.settings)]

    @property
    def done(self) -> bool:
        """Whether this run need not be made again: it is in the cache, or committed with all that the tables need."""
        if self.cached or self.recorded().empty:
            return self.cached
        return self.study != "main" or bool(self.rows_in(committed(RANKS)).any())

    def rows_in(self, table: pd.DataFrame, *more: str) -> pd.Series:
        """Which rows of a table are of this data, filter, method and seed, and of the same `more`."""
        same = pd.Series(True, table.index)
        for name in ("data", "filter", "method", "seed", *more):
            same &= table[name] == getattr(self, name)
        return same


@lru_cache(maxsize=2)
def committed(path: Path) -> pd.DataFrame:
    """RUNS or RANKS as this clone has it; empty columns where it has none."""
    if not path.is_file():
        return pd.DataFrame({name: [] for name in ("study", "data", "filter", "method", "variant", "seed", "settings")})
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    return pd.read_parquet(path)


def run(unit: Unit, folder: Path, epochs: int | None = None) -> pd.DataFrame:
    """Run one unit and keep its figures. folder: where the real data sets are. epochs: fewer than usual, for tests."""
    start = time.perf_counter()
    ranks, facts = {}, {}
    for variant, part, better, tied, fact in _ranks(unit, folder, epochs):
        ranks[f"{variant}|{part}|better"], ranks[f"{variant}|{part}|tied"] = better, tied
        facts[variant] = fact
    dataset, _ = load(unit.data, unit.filter, folder)
    rows = []
    for name in ranks:
        variant, part, kind = name.split("|")
        if kind == "better":
            better, tied = (torch.from_numpy(ranks[f"{variant}|{part}|{kind}"]).long() for kind in ("better", "tied"))
            means = metrics_of_ranks(better, tied, dataset.n_items).mean()
            rows.append(
                {
                    "study": unit.study,
                    "data": unit.data,
                    "filter": unit.filter,
                    "method": unit.method,
                    "variant": variant,
                    "seed": unit.seed,
                    "part": part,
                    **{metric: means[metric] for metric in METRICS},
                    "users": len(better),
                    "items": dataset.n_items,
                    **facts[variant],
                }
            )
    table = pd.DataFrame(rows).assign(run_seconds=time.perf_counter() - start, settings=unit.settings)
    CACHE.mkdir(exist_ok=True)
    np.savez_compressed(CACHE / f"{unit.key}.npz", **ranks)
    table.to_csv(CACHE / f"{unit.key}.csv", index=False, float_format="%.6g")  # last: it marks the unit as done
    return table


@lru_cache(maxsize=2)
def load(data: str, filter: str, folder: Path) -> tuple[Dataset, Split]:
    """A data set under one of FILTERS, split by leave-last-out."""
    path = Path("data/town") if data == "town" else folder / data
    return prepare(path, Config(repeats=FILTERS[filter]))


def _ranks(unit: Unit, folder: Path, epochs: int | None) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, dict]]:
    """(variant, part, better, tied, facts) for everything that one unit measures."""
    dataset, split = load(unit.data, unit.filter, folder)
    if unit.method == "baselines":
        for name, scorer in baselines(dataset, split).items():
            for part in ("validation", "test"):
                yield name, part, *_ranks_of(scorer, dataset, split, part, unit.filter, Config().max_len), {}
    elif unit.preset:
        yield from _ranks_of_ours(unit, dataset, split, epochs)
    else:
        yield from _ranks_of_peer(unit, dataset, split, epochs)


def seen_items(dataset: Dataset, split: Split, part: str, filter: str) -> torch.Tensor:
    """What may not be recommended: nothing on raw data, everything in the user's history where only first visits count
    and a seen item can't be the answer. One rule for all methods. (N, M), filled with PAD."""
    targets = getattr(split, part)
    if filter == "raw":
        return torch.empty(len(targets), 0, dtype=torch.long)
    longest = int(np.diff(dataset.offsets).max())
    return make_examples(dataset, targets, longest).history


def _ranks_of(scorer, dataset: Dataset, split: Split, part: str, filter: str, max_len: int):
    seen = seen_items(dataset, split, part, filter)
    better, tied, _ = user_ranks(scorer, make_examples(dataset, getattr(split, part), max_len), seen)
    return better.numpy().astype(np.int32), tied.numpy().astype(np.int32)


def epochs_for(examples: int) -> int:
    """The epochs that EPOCHS and EXAMPLES allow, at least 3."""
    return min(EPOCHS, max(3, math.ceil(EXAMPLES / examples)))


def config_of(unit: Unit, dataset: Dataset, split: Split, epochs: int | None = None) -> Config:
    """The configuration of one of our units."""
    config = PRESETS[unit.preset].replace(seed=unit.seed, repeats=FILTERS[unit.filter], steps=S, **unit.changes)
    limit = epochs_for(len(split.training_targets(dataset))) if epochs is None else epochs
    return config.replace(epochs=unit.changes.get("epochs", limit))


def pretrained(unit_data: str, unit_filter: str, dataset: Dataset, split: Split, config: Config) -> torch.Tensor:
    """Z* for a configuration, trained once and kept, since many units share it."""
    names = ("seed", "dim", "hidden", "pos_weight", "gae_steps", "gae_pairs", "gae_lr")
    key = "-".join([unit_data, unit_filter, *(f"{getattr(config, name):g}" for name in names)]).replace(" ", "_")
    path = CACHE / f"z-{key}.safetensors"
    if not path.is_file():
        CACHE.mkdir(exist_ok=True)
        z_star = pretrain_gae(training_graph(dataset, split), config, choose_device())
        save_file({"z_star": z_star.cpu().contiguous()}, path)
    return load_file(path)["z_star"].to(choose_device())


def _ranks_of_ours(unit: Unit, dataset: Dataset, split: Split, epochs: int | None):
    config = config_of(unit, dataset, split, epochs)
    needs_z = config.delta > 0 and config.aime_target == "gae"
    z_star = pretrained(unit.data, unit.filter, dataset, split, config) if needs_z else torch.empty(0)
    start = time.perf_counter()
    recommender = fit(dataset, split, config, z_star=z_star)
    seconds = time.perf_counter() - start
    train = make_examples(dataset, split.training_targets(dataset), config.max_len)
    for steps in unit.steps:
        if steps not in recommender.compensators:
            train_compensator(recommender, train, validation_sample(dataset, split, config), steps)
    scorers = {f"S={s}": (s, False) for s in unit.steps} | {f"S={s} + compensator": (s, True) for s in unit.steps}
    made = {name: recommender.scorer(*setting) for name, setting in scorers.items()}
    if unit.markov:
        made["Markov chain"] = recommender.markov_scorer()
    if unit.samples:
        made[f"mean of {unit.samples} samples"] = mean_of_samples(recommender, S, unit.samples)
    for variant, scorer in made.items():
        for part in ("validation", "test"):
            before = time.perf_counter()
            better, tied = _ranks_of(scorer, dataset, split, part, unit.filter, config.max_len)
            yield (
                variant,
                part,
                better,
                tied,
                {
                    "S": float(variant.split()[0][2:]) if variant.startswith("S=") else math.nan,
                    "compensator": "compensator" in variant,
                    "delta": config.delta,
                    "train_seconds": seconds,
                    "rank_seconds": time.perf_counter() - before,
                },
            )


def mean_of_samples(recommender: Recommender, steps: int, samples: int) -> EmbeddingScorer:
    """Ranks by the mean query of several samples, each from a first noise of its own: ours, see notebook 08."""
    each = [recommender.scorer(steps, compensate=False, seed=seed) for seed in range(samples)]
    return EmbeddingScorer(lambda history: sum(one.queries(history) for one in each) / samples, each[0].items)


def write_peer_input(path: Path, dataset: Dataset, split: Split, filter: str, max_len: int) -> None:
    """What `peers.py` reads: training sequences and the histories of both parts, as plain arrays."""
    sequences = split.training_sequences(dataset)
    parts = {}
    for part in ("validation", "test"):
        examples = make_examples(dataset, getattr(split, part), max_len)
        parts |= {f"{part}_history": examples.history.numpy(), f"{part}_target": examples.target.numpy()}
        parts[f"{part}_seen"] = seen_items(dataset, split, part, filter).numpy()
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    np.savez(path, n_items=dataset.n_items, train_items=np.concatenate(sequences), train_offsets=offsets, **parts)


def _ranks_of_peer(unit: Unit, dataset: Dataset, split: Split, epochs: int | None):
    CACHE.mkdir(exist_ok=True)
    if not PEERS.is_file():
        raise FileNotFoundError(f"{PEERS} is missing, which SASRec, GRU4Rec and item-kNN need; run `make peers`.")
    source, out = CACHE / f"{unit.key}.in.npz", CACHE / f"{unit.key}.out.npz"
    settings = dict(unit.changes)
    write_peer_input(source, dataset, split, unit.filter, settings["max_len"])
    limit = epochs_for(len(split.training_targets(dataset))) if epochs is None else epochs
    # a neighbour list that names the item itself is right where people return, and only there
    settings |= {"seed": unit.seed, "epochs": limit, "patience": Config().patience, "itself": unit.filter == "raw"}
    subprocess.run(
        [PEERS, "-W", "ignore", FOLDER / "peers.py", unit.method, source, out, json.dumps(settings)], check=True
    )
    found = np.load(out)
    facts = {"train_seconds": json.loads(str(found["facts"]))["seconds"]}
    for part in ("validation", "test"):
        yield "", part, found[f"{part}_better"], found[f"{part}_tied"], facts
    source.unlink()
    out.unlink()


def validation_figure(unit: Unit, folder: Path) -> dict[str, float]:
    """HR@10 and NDCG@10 on at most VALIDATION_USERS of validation, test untouched: what the search looks at.

    Ours is ranked by f(x_T, T, h), DreamRec's recipe by its Markov chain.
    """
    dataset, split = load(unit.data, unit.filter, folder)
    every = max(1, len(split.validation) // VALIDATION_USERS)
    if not unit.preset:
        for _, part, better, tied, _ in _ranks_of_peer(unit, dataset, split, None):
            if part == "validation":
                chosen = slice(None, None, every)
                better, tied = (torch.from_numpy(found[chosen]).long() for found in (better, tied))
                ranks = better, tied, dataset.n_items
    else:
        config = config_of(unit, dataset, split).replace(compensator_epochs=0, steps=1)
        needs_z = config.delta > 0
        z_star = pretrained(unit.data, unit.filter, dataset, split, config) if needs_z else torch.empty(0)
        recommender = fit(dataset, split, config, z_star=z_star)
        scorer = recommender.markov_scorer() if unit.markov else recommender.scorer(1, compensate=False)
        seen = seen_items(dataset, split, "validation", unit.filter)[::every][:VALIDATION_USERS]
        ranks = user_ranks(scorer, validation_sample(dataset, split, config), seen)
    means = metrics_of_ranks(*ranks).mean()
    return {name: float(means[name]) for name in ("HR@10", "NDCG@10")}


def ceiling() -> pd.DataFrame:
    """The town's best possible rows, under both filters."""
    rows = []
    for name in FILTERS:
        town = load("town", name, Path())
        rows += [{"data": "town", "filter": name, **row} for row in ceiling_rows("data/town", *town)]
    return pd.DataFrame(rows)
