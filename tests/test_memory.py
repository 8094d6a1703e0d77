"""The estimate of what a training holds, by hand, and what is refused because of it."""

import subprocess
import sys

import psutil
import pytest

from dae4rec_core.config import PRESETS
from dae4rec_core.memory import training_bytes
from dae4rec_core.method.variants import make_model
from dae4rec_core.training import fit

# prints what two steps of pretraining hold at most, and the estimate of a training, both in bytes. VmHWM is of the
# process itself, where getrusage begins with what the process that started it held
SCRIPT = """
import re
from pathlib import Path
import pandas as pd
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import encode, leave_last_out, training_graph
from dae4rec_core.memory import training_bytes
from dae4rec_core.method.gae import pretrain_gae

items = [f"i{{n}}" for n in range({n_items})]
rows = pd.DataFrame({{"user_id": [f"u{{n // 10}}" for n in range({n_items})], "item_id": items}})
dataset = encode(rows.assign(timestamp=range({n_items})))
split, config = leave_last_out(dataset), Config().replace(gae_steps=2, gae_pairs=1000)
pretrain_gae(training_graph(dataset, split), config)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(1024 * int(peak), training_bytes(dataset, split, config))
"""


def test_memory_is_the_sum_of_its_terms(ring):
    dataset, split = ring
    config, examples = PRESETS["improved"].replace(batch_size=64), len(split.training_targets(dataset))

    def grown(**changes):
        return training_bytes(dataset, split, config.replace(**changes)) - training_bytes(dataset, split, config)

    assert grown(batch_size=65) == 4 * 4 * dataset.n_items
    assert grown(batch_size=10**9) == 4 * 4 * dataset.n_items * (examples - 64)  # no batch is larger than that
    assert grown(rank_weight=0.0, returns=False) < -4 * 4 * dataset.n_items * 64
    places = 128 + 1 + 128  # an embedding of the place, and what Returns learns for it
    assert grown(max_len=51) == 4 * 8 * examples + 5 * 4 * places
    parameters = [
        sum(p.numel() for p in make_model(dataset.n_items, c).parameters()) for c in (config, config.replace(dim=64))
    ]
    assert grown(dim=64) == 5 * 4 * (parameters[1] - parameters[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is read from /proc")
def test_the_auto_encoder_counts_where_it_is_trained():
    """More items in a process of its own: what it holds more at most, as the system says, is what is estimated."""
    grown = {}
    for n_items in (20_000, 100_000):
        script = SCRIPT.format(n_items=n_items)
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        grown[n_items] = [float(word) for word in found.stdout.split()]
    measured, estimated = (grown[100_000][n] - grown[20_000][n] for n in (0, 1))
    assert 0.7 < measured / estimated < 1.1


@pytest.mark.parametrize("name", ["dim", "hidden", "max_len"])
def test_what_cannot_fit_is_refused_before_the_work(ring, tiny, one_sentence, name):
    """Well below a size that fits on no machine, the field that is to blame is named; nothing is reported before."""
    events = []
    config = tiny.replace(**{name: 10**6})
    one_sentence(lambda: fit(*ring, config, "cpu", [events.append]), f"Config.{name} is 1000000", "GiB", "give less")
    assert events == []


@pytest.mark.parametrize(
    "change, words", [({}, ["ring is large", "Config.dim"]), ({"depth": 9}, ["Config.depth is 9"])]
)
def test_a_small_machine_is_said(ring, tiny, one_sentence, monkeypatch, change, words):
    class Memory:
        total = 2**28

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    one_sentence(lambda: fit(*ring, tiny.replace(**change), "cpu"), *words, "about 1 GiB", "has 0")
