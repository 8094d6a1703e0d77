"""The series in other places: the first cell, badges, the container, and links that lead somewhere."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# every page outside this repository that we point at, so that a new one is a decision
EXTERNAL = {
    *(
        f"https://arxiv.org/abs/{number}"
        for number in (
            *("1611.07308", "1808.09781", "2006.11239", "2010.02502", "2207.12598", "2211.01095", "2303.09556"),
            *("2304.04971", "2310.20453", "2410.13117", "2505.09364"),
        )
    ),
    *(f"https://doi.org/{doi}" for doi in ("10.1145/3631116", "10.1145/3711896.3737172", "10.24963/ijcai.2025/346")),
    "https://archive.ics.uci.edu/dataset/352/online+retail",
    "https://archive.org/details/201309_foursquare_dataset_umn",
    "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
    "https://snap.stanford.edu/data/loc-gowalla.html",
    "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
}


@pytest.fixture(scope="module")
def places():
    spec = importlib.util.spec_from_file_location("places", ROOT / "notebooks" / "places.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_notebook_begins_with_the_same_cell_and_putting_it_in_again_changes_nothing(places):
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text())
        cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        repository = places.repository_of(notebook)
        assert "".join(cell["source"]) == places.CELL.format(repository=repository), path.name
        assert places.with_setup_cell(notebook, path.stem, repository) == json.loads(path.read_text())


def run_cell(places, monkeypatch, folder, repository, installed):
    calls = []

    def record(command, check):
        calls.append(" ".join(command[:1] + command[1:]))
        if command[0] == "git":
            (folder / "series/notebooks").mkdir(parents=True)
            (folder / "series/pyproject.toml").touch()

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.chdir(folder)
    exec(places.CELL.format(repository=repository), {})
    return calls


def test_the_first_cell_gets_what_is_absent(places, monkeypatch, tmp_path, one_sentence):
    for name in ("installed", "colab", "binder/notebooks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "binder/pyproject.toml").touch()
    assert run_cell(places, monkeypatch, tmp_path / "installed", "", True) == []
    [pip] = run_cell(places, monkeypatch, tmp_path / "binder/notebooks", "", False)
    assert pip.endswith("-m pip install -q ..")
    clone, pip = run_cell(places, monkeypatch, tmp_path / "colab", "someone/series", False)
    assert clone == "git clone --depth=1 https://github.com/someone/series series" and pip.endswith("install -q ..")
    assert Path(os.getcwd()) == tmp_path / "colab/series/notebooks"
    one_sentence(lambda: run_cell(places, monkeypatch, tmp_path / "installed", "", False), "REPOSITORY")


def test_the_first_cell_comes_before_torch_and_tells_its_threads_to_wait(places):
    check = "assert 'torch' not in sys.modules and os.environ['GOMP_SPINCOUNT'] == '1000'"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    cell = places.CELL.format(repository="")
    run = subprocess.run([sys.executable, "-c", f"{cell}\n{check}"], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for path in NOTEBOOKS:
        code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert code[0] == cell, path.name
        assert not re.search(r"^(import|from) torch", code[0], re.M)


def test_badges_name_a_notebook_that_exists(places, one_sentence):
    line = places.badges("someone/series")
    assert "colab.research.google.com/github/someone/series/blob/main/" in line and "mybinder.org/v2/gh/" in line
    for target in re.findall(r"notebooks/\w+\.ipynb", line):
        assert (ROOT / target).is_file()
    assert places.BADGES.search((ROOT / "README.md").read_text())
    one_sentence(lambda: places.badges("not a repository"), "owner/name")
    assert places.main(["not a repository"]) == 2


def test_the_container_runs_a_target_that_exists():
    text = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / text["build"]["dockerfile"]).is_file()
    target = text["postCreateCommand"].removeprefix("make ")
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.M)


def prose(path: Path) -> str:
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return path.read_text()


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted(ROOT.glob("[bdr]*/*.md")), *NOTEBOOKS],
    ids=lambda path: path.name,
)
def test_every_link_leads_somewhere(path):
    text = prose(path)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"href=\"([^\"]+)\"", text)
    for target in found:
        if target.startswith("http"):
            assert target in EXTERNAL or BADGE.match(target), target
        elif not target.startswith(("#", "../_static/")):  # what the site's own build puts there
            file = target.split("#")[0]
            file = file.removesuffix(".html") + ".ipynb" if file.endswith(".html") else file  # the site's own pages
            assert (path.parent / file).exists(), f"{path.name}: {target}"


BADGE = re.compile(r"https://(colab\.research\.google\.com|mybinder\.org)/")
