"""python -m benchmarks.busy: training beside other work, under settings that tell waiting threads what to do.

PyTorch's CPU threads spin while they wait for each other. Beside a busy process that waits for the same cores they wait
long. Writes benchmarks/busy.csv: seconds of 40 pretraining steps and of an epoch on the town, quiet and busy.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
SETTINGS: dict[str, dict[str, str]] = {
    "as they come": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
REPEATS = 3
# torch comes first, so that what dae4rec_core sets by itself has no effect; prints the seconds of both
SCRIPT = """
import time
import torch
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import prepare, training_graph
from dae4rec_core.method.gae import pretrain_gae
from dae4rec_core.training import fit
config = Config().replace(gae_steps=40, epochs=2, compensator_epochs=0)
dataset, split = prepare("data/town", config)
graph = training_graph(dataset, split)
pretrain_gae(graph, config.replace(gae_steps=2))
start = time.perf_counter()
z_star = pretrain_gae(graph, config)
steps, moments = time.perf_counter() - start, []
fit(dataset, split, config, "cpu", [lambda event: moments.append(time.perf_counter())], z_star=z_star)
print(steps, moments[1] - moments[0])
"""


def measure(setting: dict[str, str]) -> tuple[float, float]:
    """Seconds of the pretraining steps and of the second epoch, in a fresh process."""
    names = {name for values in SETTINGS.values() for name in values}
    environment = {name: value for name, value in os.environ.items() if name not in names} | setting
    call = [sys.executable, "-c", SCRIPT]
    found = subprocess.run(call, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=True)
    steps, epoch = map(float, found.stdout.split())
    return steps, epoch


def table() -> pd.DataFrame:
    """Medians over REPEATS. Columns: setting, beside, 40 pretraining steps, epoch (seconds)."""
    rows = []
    for beside in ("nothing", "one busy process"):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside != "nothing" else None
        try:
            for name, setting in SETTINGS.items():
                runs = pd.DataFrame([measure(setting) for _ in range(REPEATS)]).median()
                rows.append({"setting": name, "beside": beside, "40 pretraining steps": runs[0], "epoch": runs[1]})
        finally:
            if other is not None:
                other.kill()
    return pd.DataFrame(rows)


def main() -> None:
    found = table()
    print(found.to_string(index=False, float_format="%.2f"))
    found.to_csv(FOLDER / "busy.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
