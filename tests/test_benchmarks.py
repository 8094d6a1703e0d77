"""The benchmark runs at a tiny size, and its figures are what they say."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import __main__ as report
from benchmarks import busy, measure, pairs, sampling, training
from dae4rec_core.data.dataset import training_examples

ROOT = Path(__file__).parent.parent


def test_slope_is_the_exponent():
    assert measure.slope([1, 10, 100], [5, 500, 50_000]) == pytest.approx(2)
    assert measure.slope([3, 9], [7, 7]) == pytest.approx(0)


def test_seconds_is_the_median_after_a_warm_up(monkeypatch):
    ticks = iter([0, 100, 100, 101, 101, 104, 104, 106])  # 100 s to warm up, then 1, 3 and 2
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    assert measure.seconds(lambda: None) == 2


def fill(mebibytes: int) -> dict:
    def call():
        np.ones(mebibytes * 2**17)  # given back at once: only the peak shows it

    return {"MiB": measure.peak_mib(call)}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="memory is then the GPU's")
def test_a_process_of_its_own_reports_its_memory():
    assert measure.in_own_process(fill, 300)["MiB"] == pytest.approx(300, rel=0.1)


@pytest.mark.slow
def test_pair_figures(monkeypatch):
    """Every row is finite and above 0 where it must be; errors are rounding, noise is noise."""
    monkeypatch.setattr(pairs, "in_own_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(pairs, "BUDGET", 2_500)
    rows = pd.DataFrame(pairs.table((200, 300)))
    assert np.isfinite(rows["figure"]).all() and (rows[rows["unit"] != "exponent"]["figure"] >= 0).all()
    error = rows[rows["what"].str.contains("error of the gradient against dense")]["figure"]
    assert len(error) == 4 and (error < 1e-5).all()
    noise = rows[rows["what"] == "sampled gradient: distance from the exact one"]["figure"]
    assert (noise > 1e-2).all()


@pytest.mark.slow
def test_dense_is_extrapolated_where_it_would_not_fit(monkeypatch):
    monkeypatch.setattr(pairs, "in_own_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(pairs, "BUDGET", 2_500)

    free = SimpleNamespace(available=3e6)  # room for the dense loss of 200 items, not of 400
    monkeypatch.setattr(pairs, "psutil", SimpleNamespace(virtual_memory=lambda: free))
    rows = pd.DataFrame(pairs.table((200, 400))).set_index(["setting", "what"])["figure"]
    small = rows["Eq. 9, 200 items", "dense"]
    assert rows["Eq. 9, 400 items", "dense, extrapolated from 200"] == pytest.approx(4 * small)


def test_breakdown_adds_up_to_a_step(ring, tiny, trained):
    examples = training_examples(*ring, tiny)
    weights = {name: value.clone() for name, value in trained.model.state_dict().items()}
    shares = training.breakdown(trained.model, examples, trained.z_star)
    trained.model.load_state_dict(weights)
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0


def test_recommending_is_timed_from_ids_to_ids():
    assert 0 < sampling.time_of(n_items=50, users=20, dim=8, steps=3) < 30


def test_the_report_holds_every_row_and_the_machine(tmp_path, monkeypatch):
    row = {"part": "pairs", "setting": "Eq. 9", "what": "tiled", "figure": 0.000123, "unit": "s"}
    monkeypatch.setattr(report, "PARTS", {"pairs": lambda: [row, {**row, "figure": 12345.6}]})
    monkeypatch.setattr("sys.argv", ["benchmarks", "--out", str(tmp_path / "results")])
    report.main()
    assert pd.read_csv(tmp_path / "results.csv")["figure"].tolist() == pytest.approx([0.000123, 12345.6], rel=1e-3)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| 1.2e-04 | s |" in text and "| 12,346 | s |" in text and f"torch {torch.__version__}" in text


def test_a_busy_machine_is_measured_and_told(monkeypatch, tmp_path):
    """Every setting quiet and busy, each in a process of its own environment, the other process gone afterwards."""
    seen, others = [], []
    monkeypatch.setattr(busy, "FOLDER", tmp_path)
    monkeypatch.setattr(busy, "measure", lambda setting: seen.append((setting, len(others))) or (1.0, 2.0))
    real = busy.subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", lambda *a, **o: others.append(real(*a, **o)) or others[-1])
    busy.main()
    table = pd.read_csv(tmp_path / "busy.csv")
    assert len(table) == 2 * len(busy.SETTINGS) and set(table["beside"]) == {"nothing", "one busy process"}
    assert [count for _, count in seen] == [0] * 3 * len(busy.SETTINGS) + [1] * 3 * len(busy.SETTINGS)
    assert len(others) == 1 and others[0].wait() != 0


def test_waiting_threads_are_told_to_rest_before_torch_is_loaded():
    """A fresh process that imports dae4rec_core first has the setting; one that sets another keeps its own."""
    script = "import dae4rec_core, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    for given, expected in (({}, "1000 False"), ({"GOMP_SPINCOUNT": "7"}, "7 False")):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
        found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert found.stdout.strip() == expected, found.stderr


@pytest.mark.parametrize(
    "start", ["dae4rec_core.__main__", "benchmarks.__main__", "results.__main__", "results.peers", "conftest"]
)
def test_every_command_and_the_tests_set_it_before_they_load_torch(start):
    """Each is imported in a fresh process that stops at the first import of torch."""
    script = f"""
import importlib, os, sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Gate())
importlib.import_module("{start}")
"""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == "1000", found.stderr
