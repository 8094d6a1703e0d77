"""What each method costs: seconds and examples until its validation NDCG@10 is SASRec's, memory, users per second.

`python -m results cost` runs every method of METHODS on each of SETS, one after another and each in a process of its
own with one thread, and keeps cost.csv: after each epoch the processor's seconds since the start (pretraining
included), the training answers looked at, and the NDCG@10 of `validation_sample`; behind the last one the largest
memory and the users that are ranked in a second. What else the machine does must not change meanwhile. Test answers are
never read.
"""

import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

from dae4rec_core.data.dataset import validation_sample
from dae4rec_core.events import Event
from dae4rec_core.ranking import evaluate
from dae4rec_core.training import fit
from results import grid
from results.plan import ABLATED, units

TABLE = grid.FOLDER / "cost.csv"
SETS = ABLATED
METHODS = ("SASRec", "GRU4Rec", "DreamRec's recipe", "DAE4Rec", "DAE4Rec improved")
FACTS = ("memory", "users_per_second")


def write(folder: Path) -> None:
    """Measure what cost.csv lacks. folder: where the real data sets are."""
    wanted = [unit for unit in units() if unit.study == "main" and (unit.data, unit.filter) in SETS]
    chosen = {(u.data, u.filter, u.method, u.seed): u for u in wanted if u.method in METHODS}

    def measure_alone(*names: Any) -> list[list[dict]]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return [pool.apply(measure, (chosen[names], folder))]

    grid.fill((TABLE,), ("data", "filter", "method", "seed"), list(chosen), measure_alone)


def measure(unit: grid.Unit, folder: Path) -> list[dict[str, Any]]:
    """The rows of one unit, one an epoch. Everything is measured in this process, so nothing else may run in it."""
    dataset, split = grid.load(unit.data, unit.filter, folder)
    n_examples = len(split.training_targets(dataset))
    if unit.preset:
        curve, facts = of_ours(unit, folder)
    else:
        facts = json.loads(str(grid.run_peer(unit, dataset, split, None, ())["facts"]))
        curve = facts["curve"]
    rows = [
        {"epoch": n, "seconds": seconds, "examples": n * n_examples, "NDCG@10": ndcg}
        for n, (seconds, ndcg) in enumerate(curve, start=1)
    ]
    rows[-1] |= {name: facts[name] for name in FACTS}
    return rows


def of_ours(unit: grid.Unit, folder: Path) -> tuple[list[tuple[float, float]], dict[str, float]]:
    """Seconds and NDCG@10 after each epoch, and FACTS, of one of our units, without its compensator."""
    dataset, split = grid.load(unit.data, unit.filter, folder)
    config = grid.config_of(unit, dataset, split).replace(compensator_epochs=0)
    start, curve = time.process_time(), []

    def note(event: Event) -> None:
        if event.stage == "diffusion":
            curve.append((time.process_time() - start, event.metrics["NDCG@10"]))

    recommender = fit(dataset, split, config, callbacks=[note])
    answers, begun = validation_sample(dataset, split, config), time.process_time()
    evaluate(recommender.scorer(compensate=False), answers)
    return curve, {"memory": memory(), "users_per_second": len(answers) / (time.process_time() - begun)}


def memory() -> float:
    """The most that this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
