"""A search over what the paper leaves open, by TRIALS trials for each of our methods and of their peers.

Optuna's TPE, because it is kept, resumes from a file and spends later trials where earlier ones did well. Selection is
by validation NDCG@10 on one data set (gowalla, first visits), and the one choice is then used on all: a method that
needs a search for each data set is not the one that a reader would pick. Test answers are never read here.
"""

from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.distributions import CategoricalDistribution as Choice
from optuna.storages.journal import JournalFileBackend

from results import grid

DATA, FILTER = "gowalla", "first visits"
TRIALS = 12
COMPLETE = (optuna.trial.TrialState.COMPLETE,)

Space = dict[str, BaseDistribution]

# what any configuration of our modules may choose
OURS: Space = {
    "dim": Choice((64, 128, 256)),
    "hidden": Choice((256, 512)),
    "depth": IntDistribution(1, 3),
    "dropout": Choice((0.0, 0.1, 0.3, 0.5)),
    "lr": FloatDistribution(3e-4, 3e-3, log=True),
    "lr_embedding": FloatDistribution(3e-4, 1e-2, log=True),
    "batch_size": Choice((256, 512, 1024)),
    "positions": Choice((True, False)),
    "aggregation": Choice(("sum", "last")),
    "max_len": Choice((10, 20, 50)),
    "timesteps": Choice((50, 200, 1000)),
    "schedule": Choice(("linear", "cosine", "exponential")),
    "lambda_t": Choice(("uniform", "paper", "min_snr")),
}
FAITHFUL = OURS | {"delta": Choice((1.0, 10.0, 100.0, 1000.0)), "pos_weight": Choice((None, 10.0, 100.0))}
IMPROVED = OURS | {"rank_weight": Choice((10.0, 100.0, 1000.0)), "temperature": Choice((0.07, 0.1, 0.15))}
DREAMREC = OURS | {"init_std": Choice((0.1, 1.0)), "guidance": Choice((0.5, 2.0, 4.0))}
SEQUENCE_MODEL: Space = {
    "dim": Choice((64, 128, 256)),
    "dropout": Choice((0.1, 0.3, 0.5)),
    "lr": FloatDistribution(3e-4, 3e-3, log=True),
    "batch_size": Choice((256, 512, 1024)),
    "max_len": Choice((20, 50)),
}
ITEM_KNN: Space = {"neighbours": IntDistribution(5, 500, log=True), "max_len": Choice((1, 2, 5, 20))}


class Method(NamedTuple):
    """What is searched: a space, from a preset's own values or from `first`. markov: ranked by the Markov chain."""

    space: Space
    preset: str = ""
    first: dict[str, Any] = {}
    markov: bool = False
    filter: str = FILTER

    @property
    def start(self) -> dict[str, Any]:
        """The values of the first trial."""
        if not self.preset:
            return self.first
        values = grid.PRESETS[self.preset].flat()
        return {name: values[name] for name in self.space}


FIRST = {"dim": 128, "dropout": 0.3, "lr": 1e-3, "batch_size": 512, "max_len": 20}
METHODS = {
    "DAE4Rec": Method(FAITHFUL, "reference"),
    "DAE4Rec improved": Method(IMPROVED, "improved"),
    "DreamRec's recipe": Method(DREAMREC, "dreamrec", markov=True),
    "SASRec": Method(SEQUENCE_MODEL, first=FIRST),
    "GRU4Rec": Method(SEQUENCE_MODEL, first=FIRST),
    "item-kNN": Method(ITEM_KNN, first={"neighbours": 50, "max_len": 20}),
    "item-kNN, raw": Method(ITEM_KNN, first={"neighbours": 50, "max_len": 20}, filter="raw"),
}


def search(name: str, folder: Path, trials: int = TRIALS) -> pd.DataFrame:
    """Go on with the search of one method until it has `trials` trials; its table goes to the cache."""
    method = METHODS[name]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    grid.CACHE.mkdir(parents=True, exist_ok=True)
    journal = JournalFileBackend(str(grid.CACHE / "search.journal"))
    study = optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(journal),
        direction="maximize",
        load_if_exists=True,
    )
    finished = study.get_trials(states=COMPLETE)
    # a resumed search goes on with other random numbers than those it began with
    study.sampler = optuna.samplers.TPESampler(seed=len(finished), n_startup_trials=trials // 2)
    if not finished:
        study.enqueue_trial(method.start)
    for _ in range(len(finished), trials):
        trial = study.ask(method.space)
        unit = grid.Unit(
            "search", DATA, method.filter, name.split(",")[0], 0, method.preset, trial.params, markov=method.markov
        )
        metrics = grid.validation_metrics(unit, folder)
        trial.set_user_attr("HR@10", metrics["HR@10"])
        study.tell(trial, metrics["NDCG@10"])
        print(f"{name}, trial {trial.number}: validation NDCG@10 {metrics['NDCG@10']:.4f}", flush=True)
    rows = [
        {
            "method": name,
            "trial": trial.number,
            "HR@10": trial.user_attrs["HR@10"],
            "NDCG@10": trial.value,
            "seconds": trial.duration.total_seconds(),
            "parameters": ", ".join(f"{key} = {_text(value)}" for key, value in trial.params.items()),
            "rules": grid.RULES,
        }
        for trial in study.get_trials(states=COMPLETE)
        if trial.duration is not None
    ]
    table = pd.DataFrame(rows)
    path = grid.CACHE / f"search-{name.replace(' ', '_')}.csv"
    table.to_csv(path, index=False, float_format="%.4f", encoding="utf-8")
    return table


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
