"""Methods as distributions (notebook 09): results/clouds.csv, reliability.csv, better_clouds.csv.

Three seeds of each trained method on the town, whose law is known, and on one real set. What is fitted (a kernel's
width, a temperature, the weight of popularity) is fitted on validation answers; rows are of test answers, but for
better_clouds.csv, where settings of the cloud are compared on validation alone.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from dae4rec_core import checkpoint
from dae4rec_core.cloud import fit_width, probabilities, total_variation
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import Examples, held_out
from dae4rec_core.experiments.clouds import (
    AT_ONCE,
    Bench,
    cloud_row,
    counting,
    draws_by_exact_f,
    make_bench,
    overlap,
    reliability,
    rows_of_draws,
    rows_of_probabilities,
    softmax_of,
)
from dae4rec_core.experiments.solvers import law_given_history, shares_of
from dae4rec_core.method.sampling import choose_tau, choose_tau_by_snr, skip_step
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import stream
from dae4rec_core.training import fit
from results import grid
from results.peers import PEER_SETTINGS

SETS = (("town", "raw"), ("gowalla", "first visits"))
OURS = {"DAE4Rec": "reference", "DAE4Rec improved": "improved", "DAE4Rec posterior": "posterior"}
USERS = 300
DRAWS = 300
MANY = 2000  # draws at S = 10, on the town: what of a distance is that the draws are few
# behind a method's name: as a unit of work of its own
MORE = ", many draws"
BARE = ", without neighbours"  # whose counts come to the scores after training, so that no chain draws from them
STEPS = {"town": (1, 2, 5, 10, 20), "gowalla": (1, 10)}
TABLE, RELIABILITY = grid.FOLDER / "clouds.csv", grid.FOLDER / "reliability.csv"
BETTER = grid.FOLDER / "better_clouds.csv"

# what might make a cloud better: changes to a preset, then how its chains are run
TRAINED: dict[str, tuple[str, dict]] = {
    "reference": ("reference", {}),
    "reference, counts": ("reference", {"similarity": "counts"}),
    "reference, wide and deep f": ("reference", {"hidden": 512, "depth": 4}),
    "reference, guidance": ("reference", {"unconditional": 0.1, "guidance": 1.0}),
    "improved": ("improved", {}),
    "improved, free geometry": ("improved", {"geometry": "free"}),
    "posterior": ("posterior", {}),
    "posterior, d = 32": ("posterior", {"dim": 32}),
}
# spacing, order, eta, standard deviation of x_T
CHAINS = {
    "even in t": ("t", 1, 0.0, 1.0),
    "even in log-SNR": ("log-SNR", 1, 0.0, 1.0),
    "second order": ("t", 2, 0.0, 1.0),
    "rho of the Markov chain": ("t", 1, 1.0, 1.0),
    "x_T of 0.8": ("t", 1, 0.0, 0.8),
    "x_T of 1.25": ("t", 1, 0.0, 1.25),
}
ALL_CHAINS = ("reference", "improved", "posterior")  # of the others, only the first chain


def write(folder: Path) -> None:
    """Measure what the three tables lack, the town first. folder: where the real data sets are."""
    units = [(*where, "no training", 0) for where in SETS]
    units += [(*where, name, seed) for where in SETS for seed in grid.SEEDS for name in (*OURS, "SASRec")]
    units += [("town", "raw", name + MORE, seed) for seed in grid.SEEDS for name in OURS]
    counting = [name for name, preset in OURS.items() if PRESETS[preset].beyond.neighbours]
    units += [(*where, name + BARE, seed) for where in SETS for seed in grid.SEEDS for name in counting]
    units.sort(key=lambda unit: unit[0] != "town")
    grid.fill((TABLE, RELIABILITY), ("data", "filter", "unit", "seed"), units, partial(measure, folder=folder))
    models = [(name, seed) for seed in grid.SEEDS for name in TRAINED]
    grid.fill((BETTER,), ("model", "seed"), models, lambda name, seed: [list(better_rows(name, seed))])


@lru_cache(maxsize=2)
def bench_of(data: str, name: str, folder: Path, users: int) -> Bench:
    dataset, split = grid.load(data, name, folder)
    config = Config().replace(**grid.data_settings(name), max_len=50)
    return make_bench(grid.place_of(data, folder), dataset, split, config, users)


def measure(data: str, name: str, method: str, seed: int, folder: Path) -> tuple[list[dict], list[dict]]:
    """Rows of TABLE and of RELIABILITY for everything that is measured of one method."""
    bench = bench_of(data, name, folder, USERS)
    found, bins = [], []
    for row, p in rows(data, name, method, seed, folder, bench):
        facts = {key: row[key] for key in ("method", "kind", "S", "compensator", "draws") if key in row}
        found.append(row)
        bins += [facts | binned for binned in reliability(p, bench.test)]
    return found, bins


def rows(data: str, name: str, method: str, seed: int, folder: Path, bench: Bench) -> Iterator[tuple[dict, Tensor]]:
    """(row, p on test) of one method."""
    if method.endswith(MORE):
        method = method.removesuffix(MORE)
        recommender = trained(data, name, seed, OURS[method], {}, folder)
        yield from rows_of_draws(method, recommender, bench, grid.S, False, MANY)
        return
    if method.endswith(BARE):
        recommender = trained(data, name, seed, OURS[method.removesuffix(BARE)], {}, folder)
        yield from rows_without_neighbours(method.replace(BARE, ", softmax" + BARE), recommender, bench)
        return
    for called, (before, after) in probabilities_of(data, name, method, seed, folder, bench, USERS).items():
        label = f"{called}, softmax" if called in OURS else called
        yield from rows_of_probabilities(label, before, after, bench, fitted=method != "no training")
    if method == "no training" and bench.law is not None:
        yield from rows_of_the_law(data, name, folder, bench)
    if method in OURS:
        recommender = trained(data, name, seed, OURS[method], {}, folder)
        for steps in STEPS[data]:
            yield from rows_of_draws(method, recommender, bench, steps, False, DRAWS)
        if recommender.compensators:
            yield from rows_of_draws(method, recommender, bench, grid.S, True, DRAWS)


def rows_without_neighbours(label: str, recommender: Recommender, bench: Bench) -> Iterator[tuple[dict, Tensor]]:
    """The softmax of the scores that training made, and as many draws from it as chains are given."""
    model = recommender.model
    model.config = model.config.replace(neighbours=0.0)
    before, after = (softmax_of(recommender)(part) for part in (bench.validation, bench.test))
    yield from rows_of_probabilities(label, before, after, bench, fitted=True)
    for draws in (DRAWS, MANY):
        drawn = [drawn_from(p, draws) for p in (before, after)]
        yield {"method": label, "kind": "nearest", "draws": draws, **cloud_row(bench, *drawn)}, drawn[1]


def drawn_from(p: Tensor, draws: int) -> Tensor:
    """The shares of so many draws from p (N, |V|)."""
    return shares_of(torch.multinomial(p, draws, replacement=True, generator=stream(0, "judging")), p.shape[1])


def probabilities_of(
    data: str, name: str, method: str, seed: int, folder: Path, bench: Bench, users: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """p(v | history) of the bench's validation and test answers, (N, |V|) each: of every rule that counts, by its name,
    or the softmax of one trained method. users: those that the bench was made with."""
    dataset, split = grid.load(data, name, folder)
    if method == "SASRec":
        unit = grid.Unit("clouds", data, name, method, seed, changes=PEER_SETTINGS["SASRec"])
        scored = grid.run_peer(unit, dataset, split, None, ("validation", "test"), limit=users, scores=True)
        before, after = (torch.from_numpy(scored[f"{part}_scores"]) for part in ("validation", "test"))
        return {method: (before.double().softmax(1), after.double().softmax(1))}
    ways = (
        counting(dataset, split)
        if method == "no training"
        else {method: softmax_of(trained(data, name, seed, OURS[method], {}, folder))}
    )
    return {called: (p_of(bench.validation), p_of(bench.test)) for called, p_of in ways.items()}


def trained(data: str, name: str, seed: int, preset: str, changes: dict, folder: Path) -> Recommender:
    """One of our models, from a checkpoint in the cache or trained now."""
    unit = grid.Unit("clouds", data, name, preset, seed, preset, changes)
    place = grid.CACHE / "clouds" / f"{unit.key}-{unit.settings}"
    if not place.is_dir():
        dataset, split = grid.load(data, name, folder)
        config = grid.config_of(unit, dataset, split)
        checkpoint.save(fit(dataset, split, config, z_star=grid.z_star_of(dataset, split, config)), place)
    return checkpoint.load(place)


def rows_of_the_law(data: str, name: str, folder: Path, bench: Bench) -> Iterator[tuple[dict, Tensor]]:
    """The law itself, as many draws from it, and chains whose f is exact for it."""
    dataset, split = grid.load(data, name, folder)
    config = Config().replace(**grid.data_settings(name), max_len=50)
    before = law_given_history(grid.place_of(data, folder), dataset, split, bench.validation, config, "validation")
    assert bench.law is not None and before is not None
    yield {"method": "the law", "kind": "as it is", **cloud_row(bench, before, bench.law)}, bench.law

    for draws in (DRAWS, MANY):
        drawn = drawn_from(bench.law, draws)
        row = {"method": "the law", "kind": "nearest", "draws": draws}
        yield row | cloud_row(bench, drawn_from(before, draws), drawn), drawn
    model = trained(data, name, 0, "reference", {}, folder).model
    for steps in STEPS[data]:
        found = [draws_by_exact_f(model, p.clamp(min=1e-30).log(), steps, DRAWS) for p in (before, bench.law)]
        row = {"method": "exact f of the law", "S": steps, "kind": "nearest", "draws": DRAWS}
        yield row | cloud_row(bench, *found), found[1]


# ---- what makes the cloud better, on validation ----------------------------------------------------------------------


def better_rows(name: str, seed: int) -> Iterator[dict]:
    """A row for each chain: total variation from the law, and log-likelihood by a kernel fitted on the same answers."""
    dataset, split = grid.load("town", "raw", Path())
    preset, changes = TRAINED[name]
    recommender = trained("town", "raw", seed, preset, changes, Path())
    config = recommender.model.config
    examples = held_out(dataset, split, "validation", config, limit=USERS)
    law = law_given_history(grid.TOWN, dataset, split, examples, config, "validation")
    assert law is not None
    for chain in CHAINS if name in ALL_CHAINS else list(CHAINS)[:1]:
        e_0 = draws_by(recommender, examples, *CHAINS[chain])
        model, history = recommender.model, examples.history
        width = fit_width(model, history, e_0, examples.target)
        near, soft = (probabilities(model, history, e_0, w) for w in (0.0, width))
        answers = soft[torch.arange(len(soft)), examples.target]
        yield {
            "chain": chain,
            "total variation": total_variation(near, law).mean().item(),
            "total variation, kernel": total_variation(soft, law).mean().item(),
            "log-likelihood, kernel": answers.clamp(min=1e-12).log().mean().item(),
            "width": width,
            "overlap": overlap(recommender, examples, grid.S, compensate=False),
        }


@torch.no_grad()
def draws_by(recommender: Recommender, examples: Examples, spacing: str, order: int, eta: float, std: float) -> Tensor:
    """e^0 of DRAWS chains of S jumps for every example, run in one of CHAINS' ways: (N, DRAWS, d)."""
    model, noise = recommender.model, stream(0, "sampling")
    T, few = model.config.diffusion.timesteps, max(1, AT_ONCE // DRAWS)
    tau = choose_tau(T, grid.S) if spacing == "t" else choose_tau_by_snr(model.alpha_bar, grid.S)
    found = []
    for start in range(0, len(examples), few):
        history = examples.history[start : start + few]
        h, history = (part.repeat_interleave(DRAWS, 0) for part in (model.condition(history), history))
        x_T = std * torch.randn(h.shape, generator=noise)
        f = model.predictor(h, history)
        e_0 = skip_step(f, x_T, h, model.alpha_bar, tau, eta, noise, order=order)[1]
        found.append(e_0.unflatten(0, (-1, DRAWS)))
    return torch.cat(found)
