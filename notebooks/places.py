"""Other places to read the series: the first cell that installs the module, and the README's badges.

    python notebooks/places.py                 the first cell into every notebook that lacks it
    python notebooks/places.py owner/name      also name the repository on GitHub: badges for Colab and Binder in the
                                               README, and where the first cell finds module and data on Colab

Cells are put in without running the notebook again: the first cell prints nothing where the module is installed.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CELL = """\
# Colab, Binder or a bare kernel: get the module and its data where they are absent
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "{repository}"  # owner/name on GitHub
if importlib.util.find_spec("dae4rec_core") is None:
    if not os.path.exists("../pyproject.toml"):
        if not REPOSITORY:
            raise FileNotFoundError("Write the repository's owner/name into REPOSITORY.")
        source = f"https://github.com/{{REPOSITORY}}"
        subprocess.run(["git", "clone", "--depth=1", source, "series"], check=True)
        os.chdir("series/notebooks")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", ".."], check=True)
import dae4rec_core  # noqa: F401  before torch: its threads then spin less while they wait"""
TAG = "setup"
TAGS = [TAG, "hide-input"]  # the static edition folds the cell
BADGES = re.compile(r"<!-- badges -->.*?<!-- end of badges -->", re.S)


def with_setup_cell(notebook: dict, stem: str, repository: str) -> dict:
    """The notebook with the setup cell as its first code cell, ids and counts as `build.py` would give them."""
    cells = [cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", [])]
    place = next(n for n, cell in enumerate(cells) if cell["cell_type"] == "code")
    source = CELL.format(repository=repository).splitlines(keepends=True)
    setup = {"cell_type": "code", "execution_count": 1, "metadata": {"tags": TAGS}, "outputs": [], "source": source}
    cells.insert(place, setup)
    count = 0
    for number, cell in enumerate(cells):
        cell["id"] = f"{stem}-{number:03d}"
        if cell["cell_type"] == "code" and cell["source"]:
            count += 1
            cell["execution_count"] = count
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = count
    return notebook | {"cells": cells}


def badges(repository: str) -> str:
    """Links that open the series on Colab and Binder. Raises ValueError when it is not an owner/name."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is not a repository on GitHub; give it as owner/name.")
    start = "notebooks/00_start_here.ipynb"
    return (
        f"[Open in Colab](https://colab.research.google.com/github/{repository}/blob/main/{start}) · "
        f"[Open in Binder](https://mybinder.org/v2/gh/{repository}/HEAD?labpath={start})"
    )


def repository_of(notebook: dict) -> str:
    """What the setup cell of a notebook names, "" where there is none."""
    text = "".join(line for cell in notebook["cells"] for line in cell["source"])
    found = re.search(r'^REPOSITORY = "(.*)"', text, re.M)
    return found[1] if found else ""


def main(arguments: list[str]) -> int:
    try:
        line = badges(arguments[0]) if arguments else ""
    except ValueError as error:
        print(f"places: {error}", file=sys.stderr)
        return 2
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        repository = arguments[0] if arguments else repository_of(notebook)
        new = json.dumps(with_setup_cell(notebook, path.stem, repository), indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(new + "\n", encoding="utf-8")
    if line:
        readme = ROOT / "README.md"
        text = BADGES.sub(f"<!-- badges -->\n{line}\n<!-- end of badges -->", readme.read_text(encoding="utf-8"))
        readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
