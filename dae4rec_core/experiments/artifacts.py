"""What the notebooks load instead of training for minutes: a checkpoint, learning curves, sweeps over S and delta.

`make artifacts` writes data/artifacts/<name of the data>/:
    checkpoint/        the recommender (seed 0, default delta) with compensators for every S in `sampling_steps`
    posterior/         a recommender whose draws are a distribution (preset posterior, seed 0), for notebook 09
    curves.csv         validation metrics by epoch, for every delta
    steps.csv          tidy sweep over S and seeds at the default delta, with baselines and the Markov chain
    compensators.csv   compensators at other S than their own, without e^{tau_1}, and what needs none, every seed
                       (`compensators.compensator_rows`)
    solvers.csv        three errors of S steps for three ways of skipping, every seed (`solvers.solver_rows`)
    deltas.csv         tidy sweep over delta at S = 10; three seeds at 0 and at the default, one at the others
    embeddings.safetensors   E after training at each delta (seed 0), half precision
    deltas/            the model of each delta (seed 0) for the page, without compensators, in eight bits
    times.csv          seconds to sample and rank all test users at every S, median of three runs on this machine
    overview.png       the series in three pictures, for the README (drawn by `views.plots`)
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from dae4rec_core import checkpoint
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import Dataset, Split, held_out, prepare, training_examples
from dae4rec_core.events import Callback
from dae4rec_core.experiments.compensators import compensator_rows
from dae4rec_core.experiments.evaluation import (
    baseline_rows,
    ceiling_rows,
    delta_runs,
    model_rows,
    sampling_times,
    tidy,
    train_compensators,
)
from dae4rec_core.experiments.solvers import reference_rows, solver_rows
from dae4rec_core.outputs import replacing, reserved
from dae4rec_core.recommender import Recommender
from dae4rec_core.state import checksum, tensors_in
from dae4rec_core.training import fit

ARTIFACTS = Path("data/artifacts")
UNFINISHED = ".unfinished"
SEEDS = (0, 1, 2)
DELTAS = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0)


def sampling_steps(timesteps: int) -> list[int]:
    """The S that the series looks at: 1, 2, 5, 10, 20, T/2 and T."""
    return sorted({s for s in (1, 2, 5, 10, 20, timesteps // 2, timesteps) if 1 <= s <= timesteps})


def make_artifacts(
    data: str | Path,
    out: str | Path = ARTIFACTS,
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
    config: Config | None = None,
) -> Path:
    """Write all artifacts of one data set but the picture under out/<name>; about 30 minutes on one core for the town.

    They are made in a folder inside it and put in place together at the end, so that artifacts never mix two runs.
    Stopped or killed, the next call for the same data and settings goes on behind the last model that was trained and
    measured. Returns the folder. `config` is for tests with tiny settings.
    """
    config = config or Config()
    dataset, split = prepare(data, config)
    folder = Path(out) / dataset.name
    unfinished, made = folder / UNFINISHED, folder / UNFINISHED / "made"
    whose = checksum(config.flat(), *tensors_in(training_examples(dataset, split, config)))
    with reserved(folder):
        if [path.name for path in unfinished.glob("*.whose")] != [f"{whose:08x}.whose"]:
            shutil.rmtree(unfinished, ignore_errors=True)  # of other data or settings
            made.mkdir(parents=True)
            (unfinished / f"{whose:08x}.whose").touch()
        _make(data, dataset, split, config, unfinished, made, device, callbacks)
        for file in sorted(path for path in made.rglob("*") if path.is_file()):
            with replacing(folder / file.relative_to(made)) as new:
                shutil.copyfile(file, new)
        shutil.rmtree(unfinished)
    return folder


def _make(
    data: str | Path,
    dataset: Dataset,
    split: Split,
    config: Config,
    unfinished: Path,
    made: Path,
    device: str | torch.device,
    callbacks: Sequence[Callback],
) -> None:
    """Write all of them to `made`; `unfinished` keeps what a later call needs to go on."""
    default, steps = config.diffusion.delta, sampling_steps(config.diffusion.timesteps)
    settings = [(delta, seed) for seed in SEEDS for delta in (DELTAS if seed == SEEDS[0] else (0.0, default))]
    rows_of = {one: unfinished / f"{one[0]:g}-{one[1]}.json" for one in settings}  # a model that has one is done
    todo = [one for one in settings if not rows_of[one].exists()]
    runs = delta_runs(dataset, split, config, todo, device, callbacks, unfinished)
    for (delta, seed), (recommender, log) in zip(todo, runs, strict=True):
        curve = log.frame("diffusion").rename_axis("epoch").reset_index().assign(delta=delta, seed=seed)
        rows = {"curves": curve.to_dict("records")}
        rows["deltas"] = list(model_rows(recommender, dataset, split, [config.sampling_steps]))
        if seed == SEEDS[0]:
            model = Recommender(recommender.model, recommender.item_ids)
            checkpoint.export(model, made / "deltas" / f"{delta:g}.safetensors", eight_bits=True)
            with replacing(unfinished / f"{delta:g}.safetensors") as new:
                save_file({"E": model.model.embedding.weight.detach().cpu().half()}, new)
        if delta == default:
            train_compensators(recommender, dataset, split, steps, callbacks)
            rows["steps"] = list(model_rows(recommender, dataset, split, steps, markov=True))
            rows["compensators"] = list(compensator_rows(recommender, dataset, split, steps))
            few_steps = [s for s in steps if s <= 20 or s == config.diffusion.timesteps]
            rows["solvers"] = list(solver_rows(recommender, data, dataset, split, few_steps))
            if seed == SEEDS[0]:
                checkpoint.save(recommender, made / "checkpoint", half=True, data=dataset.name)
        with replacing(rows_of[delta, seed]) as new:
            new.write_text(json.dumps(rows), encoding="utf-8")
    write_tables(
        data, dataset, split, config, [json.loads(rows_of[one].read_text(encoding="utf-8")) for one in settings], made
    )
    embeddings = {f"{delta:g}": load_file(unfinished / f"{delta:g}.safetensors")["E"] for delta in DELTAS}
    with replacing(made / "embeddings.safetensors") as new:
        save_file(embeddings, new)
    write_posterior(dataset, split, config, made, device, callbacks, unfinished / "posterior")
    write_times(dataset, split, made)


def write_tables(
    data: str | Path, dataset: Dataset, split: Split, config: Config, found: Sequence[dict[str, list]], folder: Path
) -> None:
    """The rows of all models, table by table, behind those of what is not trained."""
    baseline = [*baseline_rows(dataset, split, config), *ceiling_rows(data, dataset, split, config)]
    tables = {"deltas": list(baseline), "steps": list(baseline), "compensators": [], "curves": []}
    tables["solvers"] = list(reference_rows(data, dataset, split, config))
    for rows in found:
        for name in rows:
            tables[name] += rows[name]
    for name, every in tables.items():
        table = pd.DataFrame(every) if name == "curves" else tidy(every, dataset.name)
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")


def write_posterior(
    dataset: Dataset,
    split: Split,
    config: Config,
    folder: Path,
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
    state: Path | None = None,
) -> None:
    """Train the preset posterior, in all that it leaves open as `config` is, and save it with half precision."""
    defaults = Config().flat()
    changes = {name: value for name, value in PRESETS["posterior"].flat().items() if value != defaults[name]}
    recommender = fit(dataset, split, config.replace(**changes), device, callbacks, state)
    checkpoint.save(recommender, folder / "posterior", half=True, data=dataset.name)


def write_times(dataset: Dataset, split: Split, folder: Path) -> None:
    """Measure times.csv with the checkpoint; run it on a quiet machine."""
    recommender = checkpoint.load(folder / "checkpoint")
    examples = held_out(dataset, split, "test", recommender.model.config)
    times = sampling_times(recommender, examples, sorted(recommender.compensators))
    times.to_csv(folder / "times.csv", index=False, float_format="%.3f")


def artifacts_of(data_name: str, root: str | Path = ARTIFACTS) -> Path:
    """The artifact folder of a data set. Raises FileNotFoundError, saying how to make it, when it is not there."""
    folder = Path(root) / data_name
    if not (folder / "checkpoint" / checkpoint.FILE).is_file():
        raise FileNotFoundError(
            f"There are no artifacts for {data_name!r} in {root}; "
            f"make them with `make artifacts DATA=path/of/{data_name}`."
        )
    return folder
