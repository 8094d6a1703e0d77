"""A command of dae4rec_core now and at an earlier commit, taken in turns:

    python -m benchmarks.against COMMIT --repeats 3 -- fit --preset improved --data ../shared/data/retailrocket

The earlier code runs from a temporary git worktree; both get the same data and threads, and an --out of their own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def measure(package: Path, command: list[str]) -> float:
    """Seconds of one run, from the start of the process to its end."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    with tempfile.TemporaryDirectory() as out:
        call = [sys.executable, "-P", "-m", "dae4rec_core", *command, "--out", out]
        start = time.perf_counter()
        subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="a commit of this repository")
    parser.add_argument("--repeats", type=int, default=3, help="(default: 3)")
    parser.add_argument("command", nargs="+", help="behind --: a command that takes --out, with its options")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(before), options.commit], cwd=ROOT, check=True)
        try:
            runs = [(measure(before, options.command), measure(ROOT, options.command)) for _ in range(options.repeats)]
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], cwd=ROOT, check=True)
    old, new = ([run[version] for run in runs] for version in (0, 1))
    ratios = [a / b for a, b in runs]
    print(
        f"{statistics.median(old):.1f} s at {options.commit}, {statistics.median(new):.1f} s now, "
        f"{statistics.median(ratios):.2f} times as fast (from {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
