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

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from dae4rec_core import checkpoint
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import Dataset, Split, held_out, prepare
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
from dae4rec_core.outputs import reserved
from dae4rec_core.recommender import Recommender
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
    Returns the folder. `config` is for tests with tiny settings.
    """
    config = config or Config()
    dataset, split = prepare(data, config)
    folder = Path(out) / dataset.name
    unfinished = folder / UNFINISHED
    with reserved(folder):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was stopped
        unfinished.mkdir()
        try:
            _make(data, dataset, split, config, unfinished, device, callbacks)
            for file in sorted(path for path in unfinished.rglob("*") if path.is_file()):
                place = folder / file.relative_to(unfinished)
                place.parent.mkdir(exist_ok=True)
                file.replace(place)
        finally:
            shutil.rmtree(unfinished)
    return folder


def _make(
    data: str | Path,
    dataset: Dataset,
    split: Split,
    config: Config,
    folder: Path,
    device: str | torch.device,
    callbacks: Sequence[Callback],
) -> None:
    """Write all of them to `folder`."""
    default, steps = config.diffusion.delta, sampling_steps(config.diffusion.timesteps)
    settings = [(delta, seed) for seed in SEEDS for delta in (DELTAS if seed == SEEDS[0] else (0.0, default))]
    baseline = [*baseline_rows(dataset, split, config), *ceiling_rows(data, dataset, split, config)]
    steps_rows, delta_rows, curves, embeddings = list(baseline), list(baseline), [], {}
    compensated: list[dict] = []
    solvers = list(reference_rows(data, dataset, split, config))
    runs = delta_runs(dataset, split, config, settings, device, callbacks)
    for (delta, seed), (recommender, log) in zip(settings, runs, strict=True):
        curves.append(log.frame("diffusion").rename_axis("epoch").reset_index().assign(delta=delta, seed=seed))
        delta_rows += model_rows(recommender, dataset, split, [config.sampling_steps])
        tidy(delta_rows, dataset.name).to_csv(folder / "deltas.csv", index=False, float_format="%.6g")
        if seed == SEEDS[0]:
            embeddings[f"{delta:g}"] = recommender.model.embedding.weight.detach().cpu().half()
            model = Recommender(recommender.model, recommender.item_ids)
            checkpoint.export(model, folder / "deltas" / f"{delta:g}.safetensors", eight_bits=True)
        if delta == default:
            train_compensators(recommender, dataset, split, steps, callbacks)
            steps_rows += model_rows(recommender, dataset, split, steps, markov=True)
            tidy(steps_rows, dataset.name).to_csv(folder / "steps.csv", index=False, float_format="%.6g")
            compensated += compensator_rows(recommender, dataset, split, steps)
            tidy(compensated, dataset.name).to_csv(folder / "compensators.csv", index=False, float_format="%.6g")
            few_steps = [s for s in steps if s <= 20 or s == config.diffusion.timesteps]
            solvers += solver_rows(recommender, data, dataset, split, few_steps)
            tidy(solvers, dataset.name).to_csv(folder / "solvers.csv", index=False, float_format="%.6g")
            if seed == SEEDS[0]:
                checkpoint.save(recommender, folder / "checkpoint", half=True, data=dataset.name)
    pd.concat(curves).to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    save_file(embeddings, folder / "embeddings.safetensors")
    write_posterior(dataset, split, config, folder, device, callbacks)
    write_times(dataset, split, folder)


def write_posterior(
    dataset: Dataset,
    split: Split,
    config: Config,
    folder: Path,
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train the preset posterior, in all that it leaves open as `config` is, and save it with half precision."""
    theirs, defaults = PRESETS["posterior"].to_dict(), Config().to_dict()
    changes = {name: value for part in theirs for name, value in theirs[part].items() if value != defaults[part][name]}
    recommender = fit(dataset, split, config.replace(**changes), device, callbacks)
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
