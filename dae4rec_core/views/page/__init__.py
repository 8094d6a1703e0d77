"""What runs in the reader's browser: the model (model.js), the town's law (law.js), explorers (town.js, steps.js and
others), and the data that each shows beside the weights."""

import base64
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dae4rec_core import checkpoint
from dae4rec_core.data.dataset import Dataset, Split, prepare
from dae4rec_core.data.town import TownLaw, load_town_law, slot_of
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.recommender import Recommender
from dae4rec_core.views.explorers.parts import names_of
from dae4rec_core.views.plots import coordinates

HERE = Path(__file__).parent
ARRAYS = ("district", "category", "popularity", "near", "follows", "second", "taste", "next_slot", "etas")
SHARED = ("model.js", "law.js", "parts.js")
TOWN, STEPS = (*SHARED, "town.js"), (*SHARED, "steps.js")
PEOPLE = ("u00001", "u00339", "u00085", "u00763", "u01187")  # of the bundled town, whose last visits can be loaded


def script(files: Sequence[str]) -> str:
    """Several of the files as one classic script: an ES module can't be loaded from a page on a disk.

    Each file's imports name what an earlier one holds, so they are left out, and what a file exports stays in the
    script's own scope.
    """
    parts = [(HERE / file).read_text(encoding="utf-8") for file in files]
    return re.sub(r"^import .*?;\n|^export (?=class|const|function|async)", "", "\n".join(parts), flags=re.M)


def write_town(data: str | Path, saved: str | Path, out: str | Path) -> None:
    """Write one classic script that puts the town explorer into the element with the id "town", with all it needs.

    data: the folder of a town. saved: the folder of a checkpoint of it. The first of PEOPLE is shown at the start.
    """
    recommender = checkpoint.load(saved, "cpu")
    dataset, split = prepare(data, recommender.model.config)
    about = json.dumps(town_about(data, dataset, split, PEOPLE), separators=(",", ":"), ensure_ascii=False)
    encoded = base64.b64encode(exported(recommender)).decode()
    start = (
        f'const weights = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));\n'
        f'mountTown(document.getElementById("town"), weights, {about});'
    )
    Path(out).write_text(f"(() => {{\n{script(TOWN)}\n{start}\n}})();\n", encoding="utf-8")


def exported(recommender: Recommender) -> bytes:
    """What `checkpoint.export` writes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        checkpoint.export(recommender, file)
        return file.read_bytes()


def law_parameters(law: TownLaw) -> dict[str, Any]:
    """The arrays of a town's law as lists, for JSON; law.js reads them."""
    return {name: rounded(getattr(law, name)) for name in ARRAYS}


def rounded(values: np.ndarray) -> list:
    """Twelve digits are enough for a law, and half of what JSON would write."""
    return np.array([float(f"{value:.12g}") for value in np.ravel(values)]).reshape(np.shape(values)).tolist()


def town_about(folder: str | Path, dataset: Dataset, split: Split, people: Sequence[str]) -> dict[str, Any]:
    """What the town explorer shows beside the model: names, places, the law, counts, and some people's last visits.

    people: ids of users with a test answer, by which they are called in the list.
    """
    law, place = load_town_law(folder), coordinates(dataset)
    assert place is not None
    counts = transition_counts(split.training_sequences(dataset), dataset.n_items)
    visits = np.bincount(np.concatenate(split.training_sequences(dataset)), minlength=dataset.n_items)
    return {
        "names": names_of(dataset),
        "xy": place.round(3).tolist(),
        "venue": law.index_of(dataset.item_ids).tolist(),
        "law": law_parameters(law),
        "popularity": visits.tolist(),
        "follows": [
            [list(pair) for pair in zip(row.indices.tolist(), row.data.astype(int).tolist(), strict=True)]
            for row in counts
        ],
        "people": [person(dataset, split, user) for user in people],
    }


def person(dataset: Dataset, split: Split, user: str) -> dict[str, Any]:
    """The visits of a user before the test answer, their slots of the day, and the answer."""
    first = dataset.offsets[dataset.user_index(user)]
    test = int(split.test[np.searchsorted(split.test, first)])
    before = slice(first, test)
    return {
        "name": user,
        "items": dataset.items[before].tolist(),
        "slots": slot_of(dataset.timestamps[before]).tolist(),
        "next": int(dataset.items[test]),
    }
