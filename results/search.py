"""A search over what the paper leaves open, for our methods and their peers alike: the same number of trials each.

Optuna's TPE, because it is kept, resumes from a file and spends later trials where earlier ones did well. Selection is
by validation NDCG@10 on one data set (gowalla, first visits), and the one choice is then used on all: a method that
needs a search for each data set is not the one that a reader would pick. Test answers are never read here.
"""

from pathlib import Path

import optuna
import pandas as pd

from results import grid

DATA, FILTER = "gowalla", "first visits"
TRIALS = 12
LOG = grid.FOLDER / "search.csv"


def ours(trial) -> dict:
    """What any configuration of our modules may choose."""
    return {
        "dim": trial.suggest_categorical("dim", [64, 128, 256]),
        "hidden": trial.suggest_categorical("hidden", [256, 512]),
        "depth": trial.suggest_int("depth", 1, 3),
        "dropout": trial.suggest_categorical("dropout", [0.0, 0.1, 0.3, 0.5]),
        "lr": trial.suggest_float("lr", 3e-4, 3e-3, log=True),
        "lr_embedding": trial.suggest_float("lr_embedding", 3e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [256, 512, 1024]),
        "positions": trial.suggest_categorical("positions", [True, False]),
        "aggregation": trial.suggest_categorical("aggregation", ["sum", "last"]),
        "max_len": trial.suggest_categorical("max_len", [10, 20, 50]),
        "timesteps": trial.suggest_categorical("timesteps", [50, 200, 1000]),
        "schedule": trial.suggest_categorical("schedule", ["linear", "cosine", "exponential"]),
        "lambda_t": trial.suggest_categorical("lambda_t", ["uniform", "paper", "min_snr"]),
    }


def faithful(trial) -> dict:
    return ours(trial) | {
        "delta": trial.suggest_categorical("delta", [1.0, 10.0, 100.0, 1000.0]),
        "pos_weight": trial.suggest_categorical("pos_weight", [0.0, 10.0, 100.0]),
    }


def improved(trial) -> dict:
    return ours(trial) | {
        "rank_weight": trial.suggest_categorical("rank_weight", [10.0, 100.0, 1000.0]),
        "temperature": trial.suggest_categorical("temperature", [0.07, 0.1, 0.15]),
    }


def dreamrec(trial) -> dict:
    return ours(trial) | {
        "init_std": trial.suggest_categorical("init_std", [0.1, 1.0]),
        "guidance": trial.suggest_categorical("guidance", [0.5, 2.0, 4.0]),
    }


def sequence_model(trial) -> dict:
    return {
        "dim": trial.suggest_categorical("dim", [64, 128, 256]),
        "dropout": trial.suggest_categorical("dropout", [0.1, 0.3, 0.5]),
        "lr": trial.suggest_float("lr", 3e-4, 3e-3, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [256, 512, 1024]),
        "max_len": trial.suggest_categorical("max_len", [20, 50]),
    }


def item_knn(trial) -> dict:
    return {
        "neighbours": trial.suggest_int("neighbours", 5, 500, log=True),
        "max_len": trial.suggest_categorical("max_len", [1, 2, 5, 20]),
    }


# method: (preset, ranked by the Markov chain, space, where the search starts)
METHODS = {
    "DAE4Rec": ("tuned", False, faithful, {}),
    "DAE4Rec improved": ("improved", False, improved, {}),
    "DreamRec's recipe": ("dreamrec", True, dreamrec, {}),
    "SASRec": ("", False, sequence_model, {"dim": 128, "dropout": 0.3, "lr": 1e-3, "batch_size": 512, "max_len": 20}),
    "GRU4Rec": ("", False, sequence_model, {"dim": 128, "dropout": 0.3, "lr": 1e-3, "batch_size": 512, "max_len": 20}),
    "item-kNN": ("", False, item_knn, {"neighbours": 50, "max_len": 20}),
    "item-kNN, raw": ("", False, item_knn, {"neighbours": 50, "max_len": 20}),
}


def search(method: str, folder: Path, trials: int = TRIALS) -> pd.DataFrame:
    """Go on with the search of one method until it has `trials` trials; writes its part of results/search.csv."""
    preset, markov, space, first = METHODS[method]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    grid.CACHE.mkdir(exist_ok=True)
    journal = optuna.storages.journal.JournalFileBackend(str(grid.CACHE / "search.journal"))
    study = optuna.create_study(
        study_name=method,
        storage=optuna.storages.JournalStorage(journal),
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=trials // 2),
        direction="maximize",
        load_if_exists=True,
    )
    if not study.trials:
        if preset:  # begin where the preset stands
            start = grid.PRESETS[preset].to_dict()
            first = {name: start[name] for name in _names(space, start)} | first
        study.enqueue_trial(first)

    def objective(trial) -> float:
        filter = "raw" if method.endswith("raw") else FILTER
        unit = grid.Unit("search", DATA, filter, method.split(",")[0], 0, preset, space(trial), markov=markov)
        figures = grid.validation_figure(unit, folder)
        trial.set_user_attr("HR@10", figures["HR@10"])
        print(f"{method}, trial {trial.number}: validation NDCG@10 {figures['NDCG@10']:.4f}", flush=True)
        return figures["NDCG@10"]

    finished = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(objective, n_trials=max(0, trials - len(finished)))
    rows = [
        {
            "method": method,
            "trial": trial.number,
            "HR@10": trial.user_attrs.get("HR@10"),
            "NDCG@10": trial.value,
            "seconds": trial.duration.total_seconds(),
            "parameters": ", ".join(f"{name} = {_text(value)}" for name, value in trial.params.items()),
        }
        for trial in study.trials
        if trial.value is not None
    ]
    table = pd.DataFrame(rows)
    table.to_csv(grid.CACHE / f"search-{method.replace(' ', '_')}.csv", index=False, float_format="%.4f")
    return table


def _names(space, start: dict) -> list[str]:
    """The names that a space asks for, by letting it ask."""

    class Asked(list):
        def __getattr__(self, _):
            def suggest(name, *_, **__):
                self.append(name)
                return start.get(name)

            return suggest

    asked = Asked()
    space(asked)
    return asked


def _text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
