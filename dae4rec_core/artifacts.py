"""What the notebooks load instead of training for minutes: a checkpoint, learning curves, sweeps over S and delta.

`make artifacts` writes data/artifacts/<name of the data>/:
    checkpoint/        the recommender (seed 0, default delta) with compensators for every S in STEPS
    curves.csv         validation figures by epoch, for every delta
    steps.csv          tidy sweep over S and seeds at the default delta, with baselines and the Markov chain
    deltas.csv         tidy sweep over delta at S = 10; three seeds at 0 and at the default, one at the others
    embeddings.safetensors   E after training at each delta (seed 0), half precision
    times.csv          seconds to sample and rank all test users at every S, median of three runs on this machine
    overview.png       the series in three pictures, for the README
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from dae4rec_core import plots
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data import Dataset, Split, make_examples, prepare
from dae4rec_core.evaluation import baseline_rows, ceiling_rows, model_rows, sampling_times, tidy
from dae4rec_core.events import Event, History
from dae4rec_core.gae import pretrain_gae, similarity
from dae4rec_core.graph import training_graph
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit

ARTIFACTS = Path("data/artifacts")
SEEDS = (0, 1, 2)
DELTAS = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0)


def sampling_steps(timesteps: int) -> list[int]:
    """The S that the series looks at: 1, 2, 5, 10, 20, T/2 and T."""
    return sorted({s for s in (1, 2, 5, 10, 20, timesteps // 2, timesteps) if 1 <= s <= timesteps})


def make_artifacts(
    data: str | Path,
    out: str | Path = ARTIFACTS,
    device: str = "auto",
    callbacks: list[Callable[[Event], None]] = (),
    config: Config | None = None,
) -> Path:
    """Write all artifacts of one data set under out/<name>; about 20 minutes on one busy core for the town.

    Returns the folder. `config` is for tests with tiny settings.
    """
    config = config or Config()
    dataset, split = prepare(data, config)
    folder = Path(out) / dataset.name
    folder.mkdir(parents=True, exist_ok=True)

    graph, device = training_graph(dataset, split), choose_device(device)
    baseline = [*baseline_rows(dataset, split, config), *ceiling_rows(data, dataset, split)]
    steps_rows, delta_rows, curves, embeddings = list(baseline), list(baseline), [], {}
    for seed in SEEDS:
        z_star = pretrain_gae(graph, config.replace(seed=seed), device, callbacks)
        for delta in DELTAS if seed == SEEDS[0] else (0.0, config.delta):
            one, log = config.replace(delta=delta, seed=seed), History()
            recommender = fit(dataset, split, one, device.type, [log, *callbacks], z_star=z_star)
            curves.append(log.frame("diffusion").rename_axis("epoch").reset_index().assign(delta=delta, seed=seed))
            delta_rows += model_rows(recommender, dataset, split, [min(10, config.timesteps)])
            tidy(delta_rows, dataset.name).to_csv(folder / "deltas.csv", index=False, float_format="%.6g")
            if seed == SEEDS[0]:
                embeddings[f"{delta:g}"] = recommender.model.embedding.weight.detach().cpu().half()
            if delta == config.delta:
                steps = sampling_steps(config.timesteps)
                steps_rows += model_rows(recommender, dataset, split, steps, markov=True, callbacks=callbacks)
                tidy(steps_rows, dataset.name).to_csv(folder / "steps.csv", index=False, float_format="%.6g")
                if seed == SEEDS[0]:
                    recommender.save(folder / "checkpoint", half=True, data=dataset.name)
    pd.concat(curves).to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    save_file(embeddings, folder / "embeddings.safetensors")
    write_times(dataset, split, folder)
    write_overview(dataset, folder)
    return folder


def write_times(dataset: Dataset, split: Split, folder: Path) -> None:
    """Measure times.csv with the checkpoint; run it on a quiet machine."""
    recommender = Recommender.load(folder / "checkpoint")
    examples = make_examples(dataset, split.test, recommender.model.config.max_len)
    times = sampling_times(recommender, examples, sorted(recommender.compensators))
    times.to_csv(folder / "times.csv", index=False, float_format="%.3f")


def write_overview(dataset: Dataset, folder: Path) -> None:
    """Draw overview.png from the other artifacts."""
    similar = similarity(Recommender.load(folder / "checkpoint", "cpu").z_star).numpy()
    figure = plots.overview(dataset, similar, pd.read_csv(folder / "steps.csv"))
    (folder / "overview.png").write_bytes(plots.png(figure))


def artifacts_of(data_name: str, root: str | Path = ARTIFACTS) -> Path:
    """The artifact folder of a data set. Raises FileNotFoundError, saying how to make it, when it is not there."""
    folder = Path(root) / data_name
    if not (folder / "checkpoint" / "recommender.json").is_file():
        raise FileNotFoundError(
            f"There are no artifacts for {data_name!r} in {root}; "
            f"make them with `make artifacts DATA=path/of/{data_name}`."
        )
    return folder
