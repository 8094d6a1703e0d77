"""Kill a training again and again until it is done, and count what that cost: `python tests/kills.py 20` runs.

Each child process is forked, so that it starts in no time; it ends itself by SIGKILL after a random number of steps of
any stage, or inside a writing, just before or just after its rename. Writings happen at every step, or by the clock.
"""

import contextlib
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lightning_fabric  # noqa: F401, by `fit` otherwise, in every child anew
import torch

from dae4rec_core import checkpoint, state, training
from dae4rec_core.method import beyond, gae
from dae4rec_core.training import fit

PLACES = ("gae", "diffusion", "sampling", "compensator", "writing", "renamed")


def killing(place: str, after: int, seconds: float) -> None:
    """Let this process end itself at the `after`-th time that it comes to a place; writings are `seconds` apart."""
    left = [after]

    def count(here: str) -> None:
        left[0] -= here == place
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(owner: object, name: str, here: str) -> None:
        real: Callable = getattr(owner, name)

        def call(*arguments, **options):
            count(here)
            return real(*arguments, **options)

        setattr(owner, name, call)

    def replace(path: Path, target: Path, real: Callable = Path.replace) -> None:
        count("writing")
        real(path, target)
        count("renamed")

    state.SECONDS = seconds
    counted(gae, "reconstruction_loss", "gae")
    counted(beyond, "count_loss", "gae")
    counted(training, "total_loss", "diffusion")
    counted(training, "skip_step", "sampling")
    counted(training, "compensator_objective", "compensator")
    Path.replace = replace  # type: ignore[method-assign, assignment]


def once(arguments: tuple, folder: Path, kill: tuple[str, int, float] | None, seen: Path) -> bool:
    """One run in a child process, killed or not; was it done? Each event goes to a line of `seen`."""

    def work() -> None:
        with open(seen, "a", encoding="utf-8") as file, contextlib.redirect_stderr(io.StringIO()):
            if kill is not None:
                killing(*kill)
            recommender = fit(
                *arguments,
                "cpu",
                [lambda event: print(event.stage, event.step, event.metrics, file=file, flush=True)],
                folder / "state",
            )
            checkpoint.save(recommender, folder)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode == 0


def until_done(arguments: tuple, folder: Path, rng: random.Random, seconds: float, most: int = 12) -> tuple:
    """Kill a run up to `most` times, then let it end.

    Returns its checkpoint's bytes, the kills by place, and by stage how many reported steps were done twice.
    """
    folder.mkdir()
    kills: Counter[str] = Counter()
    for _ in range(most):
        place = rng.choice(PLACES)
        if once(arguments, folder, (place, rng.randint(1, 12), seconds), folder / "seen"):
            break
        kills[place] += 1
    assert once(arguments, folder, None, folder / "seen")
    reported = (folder / "seen").read_text(encoding="utf-8").splitlines()
    again = Counter(line.split()[0] for line, times in Counter(reported).items() for _ in range(times - 1))
    left = [path.name for path in folder.rglob("*") if path.suffix in (".new", ".lock")]
    assert left == [], left
    return (folder / checkpoint.FILE).read_bytes(), kills, again


if __name__ == "__main__":
    from conftest import ring, ring_frame, tiny  # the fixtures' own functions

    torch.set_num_threads(1)
    data = ring.__wrapped__(ring_frame.__wrapped__())
    config = tiny.__wrapped__().replace(dropout=0.2, epochs=3, batch_size=32)
    totals: dict[str, Counter[str]] = {"kills": Counter(), "steps done twice": Counter()}
    different = 0
    with tempfile.TemporaryDirectory() as place:
        assert once((*data, config), Path(place), None, Path(place) / "seen")
        whole = (Path(place) / checkpoint.FILE).read_bytes()
        for number in range(int(sys.argv[1])):
            rng = random.Random(number)
            seconds = rng.choice([0.0, 0.02, 60.0])
            found, *counts = until_done((*data, config), Path(place) / str(number), rng, seconds)
            different += found != whole
            for total, count in zip(totals.values(), counts, strict=True):
                total.update(count)
    print(f"{sys.argv[1]} runs, {different} ended in other bytes")
    for what, total in totals.items():
        print(f"{what}: {sum(total.values())} ({', '.join(f'{name} {n}' for name, n in sorted(total.items()))})")
    sys.exit(different > 0)
