"""The model in the page: the bundled town's checkpoints under node, and what a reader downloads."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from dae4rec_core import checkpoint
from dae4rec_core.views.page import HERE

ROOT = Path(__file__).parent.parent
SAVED = {"DAE4Rec": "checkpoint", "posterior": "posterior"}  # folders of data/artifacts/town


def measured(saved: Path) -> dict[str, float]:
    """Bytes of the exported file, milliseconds of one list and of 200 draws. Raises FileNotFoundError without node."""
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("node is missing, under which the page's model is timed; install Node.js.")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        size = checkpoint.export(checkpoint.load(saved, "cpu"), weights)
        command = [node, str(Path(__file__).with_suffix(".mjs")), str(HERE / "model.js"), str(weights)]
        return {"bytes": size, **json.loads(subprocess.run(command, capture_output=True, check=True).stdout)}


def table() -> list[dict]:
    """Rows: what, setting, figure, unit."""
    rows = []
    for name, folder in SAVED.items():
        found = measured(ROOT / "data/artifacts/town" / folder)
        for what, figure, unit in (
            ("exported weights", found["bytes"] / 2**20, "MiB"),
            ("one list at S = 10, under node", found["list"], "ms"),
            ("200 draws at S = 10, under node", found["draws"], "ms"),
        ):
            rows.append({"part": "page", "setting": name, "what": what, "figure": figure, "unit": unit})
    return rows
