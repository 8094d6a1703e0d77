"""Shared by the tests: tiny made-up data, a tiny configuration, and checks of error messages."""

from pathlib import Path

import dae4rec_core  # noqa: F401  before torch: its threads then spin less while they wait

# isort: split
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import Phase, settings

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import encode, filter_interactions, leave_last_out
from dae4rec_core.training import fit

torch.set_num_threads(1)  # the tensors are tiny: more threads would only wait for each other
# `make mutants` asks whether a test fails: to look for the smallest example of it would take minutes
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes don't name a test: those of an archive hold the time, and mutmut runs each by its name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def ring_frame() -> pd.DataFrame:
    """60 users walk around a ring of 30 items: the next item in 8 of 10 steps, else any item."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        item = int(rng.integers(30))
        time = 1_600_000_000 + int(rng.integers(20)) * 86_400
        for _ in range(int(rng.integers(8, 17))):
            rows.append((f"u{user:02d}", f"i{item:02d}", time))
            item = (item + 1) % 30 if rng.random() < 0.8 else int(rng.integers(30))
            time += int(rng.integers(1, 86_400))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture
def ring_csv(tmp_path, ring_frame) -> Path:
    """The ring as a CSV file."""
    ring_frame.to_csv(tmp_path / "ring.csv", index=False)
    return tmp_path / "ring.csv"


@pytest.fixture(scope="session")
def ring(ring_frame):
    """The ring as (dataset, leave-last-out split)."""
    dataset = encode(filter_interactions(ring_frame, 2), name="ring")
    return dataset, leave_last_out(dataset)


@pytest.fixture(scope="session")
def tiny() -> Config:
    """A configuration that trains in a fraction of a second."""
    return Config().replace(
        k_core=2,
        max_len=5,
        dim=16,
        hidden=32,
        gae_steps=20,
        timesteps=10,
        steps=5,
        epochs=2,
        batch_size=64,
        compensator_epochs=2,
        gae_pairs=None,
        aime_pairs=None,
        lr=3e-3,
    )


@pytest.fixture(scope="session")
def first_visits(ring_frame):
    """The ring where only a user's first visit of an item counts, as (dataset, leave-last-out split)."""
    dataset = encode(filter_interactions(ring_frame, 2, "first_visits"), name="ring")
    return dataset, leave_last_out(dataset)


@pytest.fixture(scope="session")
def ours(tiny) -> Config:
    """`tiny` with everything that is not in the paper, for the data of `first_visits`."""
    return tiny.replace(
        repeats="first_visits", geometry="sphere", rank_weight=1.0, returns=True, neighbours=1.0, delta=0.0
    )


@pytest.fixture(scope="session")
def trained(ring, tiny):
    """A recommender trained for two epochs on the ring; tests must not change it."""
    return fit(*ring, tiny, "cpu")


@pytest.fixture(scope="session")
def one_sentence():
    """Check that a call fails with one sentence on one line which holds the given words."""

    def check(call, *words: str) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            call()
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")
        assert [word for word in words if word not in text] == [], text
        return text

    return check


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets beside the project; skips where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets in {folder}")
    return folder


@pytest.fixture
def sweep_of_steps():
    """A sweep over S with its times, as `make artifacts` writes them: (table, times)."""
    settings = [(s, c) for s in (1, 10) for c in (False, True)] + [("markov", False)]
    rows = [
        {"part": "test", "method": "DAE4Rec", "S": s, "compensator": c, "HR@10": 0.1 * (1 + c)}
        for s, c in settings
        for _ in range(3)
    ]
    times = [{"S": s, "compensator": c, "seconds": 1.0, "users": 60} for s, c in settings]
    return pd.DataFrame(rows), pd.DataFrame(times)
