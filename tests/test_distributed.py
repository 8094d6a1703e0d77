"""Two processes on this machine (gloo) do the work of one: same losses, same weights, within rounding."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dae4rec_core.data import make_examples
from dae4rec_core.distributed import launch, sum_over_processes, world
from dae4rec_core.events import History
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit, last_noisy

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from dae4rec_core.config import Config
from dae4rec_core.data import prepare
from dae4rec_core.distributed import world
from dae4rec_core.events import History
from dae4rec_core.training import fit

torch.set_num_threads(1)
data, config, out = sys.argv[1], Config(**json.loads(sys.argv[2])), Path(sys.argv[3])
history = History()
recommender = fit(*prepare(data, config), config, "cpu", [history], out / "state")
rank, processes = world()
digest = {name: value.double().sum().item() for name, value in recommender.model.state_dict().items()}
events = [[e.stage, e.step, e.figures] for e in history.events]
(out / f"rank{rank}.json").write_text(json.dumps({"processes": processes, "events": events, "digest": digest}))
if rank == 0:
    recommender.save(out / "checkpoint")
"""


def run_two(arguments, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )


def fit_with_two(tmp_path, data, config):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = run_two([str(script), str(data), json.dumps(config.to_dict()), str(tmp_path)])
    assert found.returncode == 0, found.stderr[-3000:]
    return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("pairs", [0, 200])
def test_two_processes_follow_the_loss_curve_of_one(tmp_path, ring_csv, ring, tiny, pairs):
    """Every reported figure within 1e-4 (relative), final weights within 1e-3; both processes hold the same model.

    Dropout is off, since its masks belong to a process. The last batch is an odd one, so shares differ in size.
    """
    config = tiny.replace(dropout=0.0, gae_pairs=pairs, aime_pairs=pairs, pair_tile=8, epochs=3)
    log = History()
    alone = fit(*ring, config, "cpu", [log])
    examples = len(make_examples(ring[0], ring[1].training_targets(ring[0]), 5))
    assert examples % config.batch_size % 2 == 1  # the test would miss a wrong weight otherwise
    first, second = fit_with_two(tmp_path, ring_csv, config)
    assert first["processes"] == 2
    assert first["digest"] == second["digest"] and first["events"] == second["events"]
    assert [(stage, step) for stage, step, _ in first["events"]] == [(e.stage, e.step) for e in log.events]
    for (_, _, figures), event in zip(first["events"], log.events, strict=True):
        assert figures == pytest.approx(event.figures, rel=1e-4, abs=1e-6), event
    together = Recommender.load(tmp_path / "checkpoint", "cpu")
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(together.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_of_two_that_was_stopped_is_resumed(tmp_path, ring_csv, tiny):
    """One epoch, then the same command with three: as if it had never stopped."""
    one, three = (tiny.replace(epochs=e) for e in (1, 3))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, _ = fit_with_two(tmp_path / "whole", ring_csv, three)
    fit_with_two(tmp_path / "parts", ring_csv, one)
    resumed, _ = fit_with_two(tmp_path / "parts", ring_csv, three)
    assert resumed["digest"] == pytest.approx(whole["digest"], rel=1e-6)
    assert [step for stage, step, _ in resumed["events"] if stage == "diffusion"] == [2, 3]


def test_a_batch_that_the_processes_cant_share_is_refused(tmp_path, ring_csv):
    small = ["--k-core", "2", "--gae-steps", "5", "--dim", "8", "--hidden", "8"]
    out = tmp_path / "out"
    command = ["-m", "dae4rec_core", "fit", "--data", str(ring_csv), "--out", str(out), "--batch-size", "33", *small]
    found = run_two(command)
    assert found.returncode != 0
    sentences = [line for line in found.stderr.splitlines() if line.startswith("dae4rec:")]
    assert len(sentences) == 1
    assert "batch of 33" in sentences[0] and "2 processes" in sentences[0]
    assert not out.exists()


def test_alone_there_is_one_process_and_nothing_to_sum(ring, trained, tiny):
    assert world() == (0, 1)
    assert launch("cpu").device == torch.device("cpu")
    x = torch.arange(3.0)
    sum_over_processes(x)
    assert x.tolist() == [0, 1, 2]
    examples = make_examples(ring[0], ring[1].validation, tiny.max_len)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    sizes = zip(draws, (99, 7), strict=True)
    (whole, h), (split, _) = (last_noisy(trained.model, examples, 5, g, size) for g, size in sizes)
    assert whole.shape == split.shape == h.shape == (len(examples), tiny.dim)
    torch.testing.assert_close(split[:7], whole[:7], rtol=1e-5, atol=1e-6)  # the first noise is the same
