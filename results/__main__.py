"""Studies, each a word behind `python -m results`: they make what the notebooks read. `make results` does all."""

import argparse
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from dae4rec_core.commands import end_well
from results import clouds, conformal, cost, grid, maps, search, similarity, tables, understand
from results.plan import PREDICTED, units

# studies with a table of their own, and the real data sets that each needs
WRITERS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "understand": (understand.write, {understand.DATA}),
    "similarity": (similarity.write, {data for data, _ in similarity.SETS}),
    "clouds": (clouds.write, {data for data, _ in clouds.SETS}),
    "conformal": (conformal.write, {data for data, _ in clouds.SETS}),
    "cost": (cost.write, {data for data, _ in cost.SETS}),
    "maps": (maps.write, {*grid.REAL, *(data for data, _ in PREDICTED)}),
}
WHAT = (
    "search: equal trials for seven methods; run: the runs of --study; understand: models from inside; similarity: "
    "what Eq. 10 may draw E towards; clouds: methods as distributions; conformal: lists that keep a promise; cost: "
    "seconds to be as good as SASRec; maps: properties of towns and real sets; tables: what notebooks read of all runs"
)
STUDIES = "only these: " + ", ".join(dict.fromkeys(unit.study for unit in units()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m results", description=__doc__)
    parser.add_argument("what", nargs="+", choices=["search", "run", *WRITERS, "tables"], help=WHAT)
    parser.add_argument("--data", default="../shared/data", help="folder of the real data sets (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each (default: 2)")
    parser.add_argument("--study", nargs="+", help=STUDIES)
    parser.add_argument("--set", nargs="+", help="only these data sets, by name")
    parser.add_argument("--method", nargs="+", help="only these methods, by name")
    parser.add_argument("--seed", type=int, nargs="+", default=grid.SEEDS, help="only these seeds (default: 0 1 2)")
    options = parser.parse_args(arguments)
    return end_well("results", lambda: make(options), goes_on=True)


def make(options: argparse.Namespace) -> None:
    """All that was asked for. Raises FileNotFoundError where a data set is missing."""
    folder = Path(options.data)
    todo = [
        unit
        for unit in units()
        if "run" in options.what
        and unit.seed in options.seed
        and (options.study is None or unit.study in options.study)
        and (options.set is None or unit.data in options.set)
        and (options.method is None or unit.method in options.method)
        and not unit.done
    ]
    needed = {unit.data for unit in todo if not unit.data.startswith("town")}
    needed |= {data for data, _ in search.SETS} if "search" in options.what else set()
    for what in set(options.what) & set(WRITERS):
        needed |= WRITERS[what][1] - {"town"}
    missing = sorted(name for name in needed if not (folder / name).is_dir())
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; make them with `python -m dae4rec_core data NAME --out "
            f"{folder}/NAME`, or name another folder with --data."
        )
    if "search" in options.what:
        chosen = options.method or list(search.METHODS)
        in_parallel(options.workers, search.search, [(name, folder) for name in chosen])
    if "run" in options.what:
        print(f"{len(todo)} of {len(units())} runs to go", flush=True)
        in_parallel(options.workers, run_and_tell, [(unit, folder) for unit in todo])
    for what, (write, _) in WRITERS.items():
        if what in options.what:
            write(folder)
    if "tables" in options.what:
        grid.ceiling().to_csv(grid.FOLDER / "ceiling.csv", index=False, float_format="%.5g", encoding="utf-8")
        runs = tables.gather()
        tables.write_text(runs)
        found = tables.better_than(runs)
        print(f"{grid.RUNS}, {tables.BETTER} written; {len(found)} comparisons.")


def run_and_tell(unit: grid.Unit, folder: Path) -> None:
    test = grid.run(unit, folder).query("part == 'test'").iloc[-1]
    print(
        f"{unit.key}: {test['variant']} HR@10 {test['HR@10']:.4f}, NDCG@10 {test['NDCG@10']:.4f}, "
        f"{test['run_seconds']:.0f} s",
        flush=True,
    )


def in_parallel(workers: int, function: Callable[..., object], calls: list[tuple]) -> None:
    """All calls in `workers` processes of one thread each: two threads in one small run mostly wait for each other."""
    with ProcessPoolExecutor(workers, initializer=as_worker) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BrokenProcessPool:
            raise ValueError(
                "A worker was killed, most often for want of memory; the same command goes on, with fewer --workers."
            ) from None


def as_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends workers without a word; the parent has the one sentence


if __name__ == "__main__":
    sys.exit(main())
