"""Two processes on this machine (gloo) do the work of one: same losses, same weights, within rounding."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load

from dae4rec_core import checkpoint
from dae4rec_core.data.dataset import held_out, training_examples
from dae4rec_core.distributed import launch, sum_over_processes, world
from dae4rec_core.events import History
from dae4rec_core.training import fit, sample_e_tau1, share_of

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from dae4rec_core import checkpoint
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import prepare
from dae4rec_core.distributed import world
from dae4rec_core.events import History
from dae4rec_core.training import fit

torch.set_num_threads(1)
data, out = sys.argv[1], Path(sys.argv[2])
found = []
for name, values in json.loads(sys.argv[3]):  # runs, one after the other
    config, history = Config.from_dict(values), History()
    recommender = fit(*prepare(data, config), config, "cpu", [history], out / name / "state")
    checkpoint.save(recommender, out / name)
    digest = {name: value.double().sum().item() for name, value in recommender.model.state_dict().items()}
    events = [[event.stage, event.step, event.metrics] for event in history.events]
    found.append({"processes": world()[1], "events": events, "digest": digest})
(out / f"rank{world()[0]}.json").write_text(json.dumps(found))
"""


def start(arguments, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*launcher, *arguments], stdout=pipe, stderr=pipe, text=True, env=environment)


def run_two(arguments, processes=2):
    process = start(arguments, processes)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fit_with(tmp_path, data, runs, processes=2):
    """What the processes saw of each of the runs, (folder, configuration)."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    configs = json.dumps([(name, config.to_dict()) for name, config in runs])
    found = run_two([str(script), str(data), str(tmp_path), configs], processes)
    assert found.returncode == 0, found.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(processes)]
    return list(zip(*ranks, strict=True))


@pytest.fixture(scope="module")
def runs(tiny):
    """Runs of two processes, all in one launch. Dropout is off, since its masks belong to a process."""
    exact = tiny.replace(dropout=0.0, pair_tile=8, epochs=3)
    return {
        "exact": exact,
        "sampled pairs": exact.replace(gae_pairs=200, aime_pairs=200),
        "returns": exact.replace(delta=0.0, rank_weight=1.0, returns=True, neighbours=1.0, geometry="sphere"),
        "guidance": exact.replace(delta=0.0, unconditional=0.3, guidance=1.0),
        "stopped": exact.replace(epochs=1),
    }


@pytest.fixture(scope="module")
def together(runs, ring_frame, tmp_path_factory):
    """The folder with ring.csv and a checkpoint of each run, and what both processes saw of it."""
    folder = tmp_path_factory.mktemp("two")
    ring_frame.to_csv(folder / "ring.csv", index=False)
    return folder, dict(zip(runs, fit_with(folder, folder / "ring.csv", runs.items()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "sampled pairs", "returns", "guidance"])
def test_two_processes_follow_the_loss_curve_of_one(together, runs, ring, name):
    """Every reported metric within 1e-4 (relative), final weights within 1e-3; both processes hold the same model.

    The last batch is an odd one, so shares differ in size: a wrong weight would be seen.
    """
    folder, found = together
    (first, second), config, log = found[name], runs[name], History()
    assert len(training_examples(*ring, config)) % config.train.batch_size % 2 == 1
    alone = fit(*ring, config, "cpu", [log])
    assert first["processes"] == 2
    assert first["digest"] == second["digest"] and first["events"] == second["events"]
    assert [(stage, step) for stage, step, _ in first["events"]] == [(e.stage, e.step) for e in log.events]
    for (_, _, metrics), event in zip(first["events"], log.events, strict=True):
        assert metrics == pytest.approx(event.metrics, rel=1e-4, abs=1e-6), event
    saved = checkpoint.load(folder / name, "cpu")
    assert sorted(saved.compensators) == [5]
    for key, value in alone.model.state_dict().items():
        torch.testing.assert_close(saved.model.state_dict()[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
def test_a_run_of_two_that_was_stopped_is_resumed(together, runs):
    """One epoch, then in new processes the same command with three: as if it had never stopped, Z* included."""
    folder, found = together
    [(resumed, other)] = fit_with(folder, folder / "ring.csv", [("stopped", runs["exact"])])
    first, whole = found["stopped"][0], found["exact"][0]
    assert resumed["digest"] == other["digest"]
    assert resumed["digest"] == whole["digest"]
    assert [step for stage, step, _ in first["events"] if stage == "diffusion"] == [1]
    assert [step for stage, step, _ in resumed["events"] if stage == "diffusion"] == [2, 3]
    assert "gae" in {stage for stage, *_ in first["events"]}
    assert "gae" not in {stage for stage, *_ in resumed["events"]}


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_of_three_is_resumed_to_the_bit(tmp_path, ring_csv, tiny):
    """Their sums depend on an order, which is kept."""
    whole = tiny.replace(epochs=3, batch_size=63, dropout=0.2)
    runs = [("whole", whole), ("stopped", whole.replace(epochs=1))]
    fit_with(tmp_path, ring_csv, runs, 3)
    fit_with(tmp_path, ring_csv, [("stopped", whole)], 3)
    one, other = ((tmp_path / name / checkpoint.FILE).read_bytes() for name in ("whole", "stopped"))
    one, other = (load(found) for found in (one, other))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.slow
def test_processes_end_with_their_launcher(tmp_path, ring_csv):
    small = [
        "--k-core",
        "2",
        "--gae-steps",
        "5",
        "--dim",
        "8",
        "--hidden",
        "8",
        "--epochs",
        "99999",
        "--patience",
        "99999",
    ]
    launcher = start(["-m", "dae4rec_core", "fit", "--data", str(ring_csv), "--out", str(tmp_path / "m"), *small])
    while not (tmp_path / "m" / "state" / "state.safetensors").exists():
        assert launcher.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(launcher.pid).children()
    launcher.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert len(workers) == 2 and alive == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting, sentence",
    [
        (
            "PATIENCE = timedelta(seconds=5)",
            "dae4rec: This process ended beside others",
        ),  # as of one on another machine
        ("STOPPED = 6", "of this run has been stopped for 6 seconds, so the run ends; the same command goes on"),
    ],
)
def test_a_process_that_stands_still_ends_the_run(tmp_path, ring_csv, setting, sentence):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom datetime import timedelta\nfrom dae4rec_core import distributed\n"
        "from dae4rec_core.__main__ import main\n"
        f"distributed.{setting}\nsys.exit(main())\n"
    )
    small = "--k-core 2 --gae-steps 5 --dim 8 --hidden 8 --epochs 99999 --patience 99999".split()
    launcher = start([str(script), "fit", "--data", str(ring_csv), "--out", str(tmp_path / "m"), *small])
    while not (tmp_path / "m" / "state" / "state.safetensors").exists():
        assert launcher.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(launcher.pid).children()
    later = next(worker for worker in workers if worker.environ()["RANK"] == "1")
    later.suspend()
    try:
        _, err = launcher.communicate(timeout=90)
    finally:
        for worker in workers:
            if worker.is_running():
                worker.kill()
    assert launcher.returncode != 0
    assert sentence in err


@pytest.mark.slow
def test_an_error_of_a_later_process_is_seen(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from dae4rec_core import __main__ as command\n"
        "def fail(options):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise ValueError('The disk of this machine lacks the data.')\n"
        "    time.sleep(60)\n"
        "command.town_command = fail\n"
        "sys.exit(command.main(['town', '--out', 'nowhere']))\n"
    )
    found = run_two([str(script)])
    assert found.returncode != 0
    assert "dae4rec, process 1: The disk of this machine lacks the data.\n" in found.stderr


@pytest.mark.slow
def test_a_process_may_end_before_its_last_sum_is_there(tmp_path):
    """Without `leave` gloo's thread lets go of the sum in an interpreter that is half gone, and aborts the process."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "import torch\n"
        "import torch.distributed as dist\n"
        "from dae4rec_core.distributed import launch, world\n"
        "class Slow:\n"
        "    def __del__(self, sleep=time.sleep):\n"
        "        sleep(4)\n"
        "launch('cpu')\n"
        "if world()[0] == 0:\n"
        "    time.sleep(2)\n"
        "else:\n"
        "    held = Slow()  # lengthens the end of the interpreter\n"
        "parts = [torch.empty(1) for _ in range(2)]\n"
        "dist.group.WORLD.allgather(parts, torch.ones(1))\n"
    )
    found = run_two([str(script)])
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_what_the_processes_average_is_the_mean_of_the_batch(size, processes):
    """Of the last, smallest batch too, which may have fewer rows than there are processes."""
    losses = torch.arange(1.0, size + 1) ** 2
    shares = [share_of(size, rank, processes) for rank in range(processes)]
    found = [weight * losses[mine].mean().item() for mine, weight in shares]
    assert sum(found) / processes == pytest.approx(losses.mean().item())


def test_alone_there_is_one_process_and_nothing_to_sum(ring, trained, tiny):
    assert world() == (0, 1)
    assert launch("cpu").device == torch.device("cpu")
    x = torch.arange(3.0)
    sum_over_processes(x)
    assert x.tolist() == [0, 1, 2]
    examples = held_out(*ring, "validation", tiny)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    sizes = zip(draws, (99, 7), strict=True)
    (whole, h), (split, _) = (sample_e_tau1(trained.model, examples, 5, g, size) for g, size in sizes)
    assert whole.shape == split.shape == h.shape == (len(examples), 16)
    torch.testing.assert_close(split[:7], whole[:7], rtol=1e-5, atol=1e-6)  # the first noise is the same
