"""python -m benchmarks.epoch --against COMMIT: an epoch on the town now and at an earlier commit, taken in turns.

The earlier code runs from a temporary git worktree; both get the same data, seeds and threads.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# uses only what both versions have; prints seconds a pretraining step and an epoch, the first of each left out
SCRIPT = """
import time
from dae4rec_core.config import Config
from dae4rec_core.data import make_examples, prepare
from dae4rec_core.gae import pretrain_gae
from dae4rec_core.graph import training_graph
from dae4rec_core.model import DAE4Rec
from dae4rec_core.training import train_diffusion, validation_sample
config = Config(epochs=5, gae_steps=100)
dataset, split = prepare("data/town", config)
train = make_examples(dataset, split.training_targets(dataset), config.max_len)
graph = training_graph(dataset, split)
pretrain_gae(graph, config.replace(gae_steps=5))
start = time.perf_counter()
z_star = pretrain_gae(graph, config)
gae = (time.perf_counter() - start) / config.gae_steps
moments = []
train_diffusion(DAE4Rec(dataset.n_items, config), train, validation_sample(dataset, split, config), z_star, graph,
                [lambda event: moments.append(time.perf_counter())])
print(gae, (moments[-1] - moments[0]) / (len(moments) - 1))
"""


def measure(package: Path) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    found = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    gae, epoch = map(float, found.stdout.split())
    return gae, epoch


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epoch", description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, help="a commit of this repository")
    parser.add_argument("--repeats", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(before), options.against], cwd=ROOT, check=True
        )
        try:
            runs = [(measure(before), measure(ROOT)) for _ in range(options.repeats)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    for place, what in enumerate(("pretraining step", "epoch")):
        old, new = ([run[version][place] for run in runs] for version in (0, 1))
        ratios = [a / b for a, b in zip(old, new, strict=True)]
        print(
            f"{what}: {statistics.median(old):.4f} s at {options.against}, {statistics.median(new):.4f} s now, "
            f"{statistics.median(ratios):.2f} times as fast (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
