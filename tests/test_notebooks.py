"""What every notebook must be: executed in order, free of errors, described in words, with exercises that check."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from dae4rec_core import exercises

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NAMES = [
    "00_start_here",
    "01_interaction_graph",
    "02_graph_autoencoder",
    "03_diffusion_training",
    "04_skip_step_sampling",
    "05_compensator",
    "06_results",
    "07_scaling",
    "08_beyond_the_paper",
]
PRELUDE = "import math, torch, numpy as np, pandas as pd, networkx as nx\n"


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def test_the_series_is_complete():
    assert set(NAMES) <= {path.stem for path in FOLDER.glob("*.ipynb")}


def test_valid_and_executed_in_order_from_a_fresh_kernel(notebook):
    nbformat.validate(notebook)
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert any(c.outputs for c in code_cells(notebook))


def test_no_cell_ends_in_an_error(notebook):
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.output_type == "error"]


def test_every_picture_has_a_text(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 20, cell.source
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert not re.search(r"!\[\s*\]\(", prose)
    assert all(re.search(r"\balt=[\"'][^\"']+", tag) for tag in re.findall(r"<img\b[^>]*>", prose))


def test_no_cell_relies_on_a_semicolon(notebook):
    """nbval runs cells without history, where a last `;` hides nothing: the stored output would differ."""
    assert not [c.source for c in code_cells(notebook) if c.source.rstrip().endswith(";")]


def test_cells_are_short_and_widgets_keep_their_state(notebook):
    assert max(len(c.source.splitlines()) for c in code_cells(notebook)) < 35
    if "widgets" in notebook.metadata:
        assert notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]


def test_links_between_notebooks_exist(notebook):
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([\w./-]+\.ipynb)\)", prose):
        assert (FOLDER / target).is_file(), target


@pytest.mark.parametrize(
    "path", [*sorted(FOLDER.glob("*.ipynb")), ROOT / "demo/demo.ipynb"], ids=lambda path: path.stem
)
def test_all_that_a_notebook_takes_from_the_module_is_there(path):
    sources = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    assert [name for name in taken(sources) if not exists(name)] == []


def taken(sources: list[str]) -> list[str]:
    """Every name of dae4rec_core that code cells import, and every attribute of an imported module that they read."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("dae4rec_core")]
    known = {name.asname or name.name: f"{n.module}.{name.name}" for n in imports for name in n.names}
    return list(known.values()) + [
        f"{known[node.value.id]}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and isinstance(found(known.get(node.value.id, "")), ModuleType)
    ]


def found(name: str) -> object:
    """The module of this name, or what a module holds under its last part; None when there is neither."""
    try:
        return importlib.import_module(name)
    except (ModuleNotFoundError, ValueError):
        place, _, last = name.rpartition(".")
        return getattr(importlib.import_module(place), last, None) if place else None


def exists(name: str) -> bool:
    return found(name) is not None


def test_a_name_that_is_gone_is_noticed():
    gone = [
        "from dae4rec_core.views import plots\nplots.show\nplots.nothing",
        "from dae4rec_core.config import Nothing",
    ]
    assert [name for name in taken(gone) if not exists(name)] == [
        "dae4rec_core.config.Nothing",
        "dae4rec_core.views.plots.nothing",
    ]


def functions(source):
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def exercises_of(notebook):
    """(stub source, checker name, function name, solution source) of each exercise, in the order of the convention."""
    cells = list(notebook.cells)
    for n, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            place, check = next((m, c) for m, c in enumerate(cells) if m > n and c.cell_type == "code")
            assert "check" in check.metadata.get("tags", []), f"the code cell after {cell.source!r} is its check"
            checker, function = re.search(r"exercises\.(check_\w+)\((\w+)\)", check.source).groups()
            assert functions(cell.source) == [function] and "raise NotImplementedError" in cell.source
            folded = next(c.source for c in cells[place + 1 :] if "<summary>Solution</summary>" in c.source)
            [solution] = re.findall(r"```python\n(.*?)```", folded, re.S)
            assert "<details>" in folded and function in functions(solution)
            yield cell.source, checker, function, solution


def test_exercises_accept_the_solution_and_are_kind_to_the_stub(notebook, capsys):
    found = list(exercises_of(notebook))
    assert len(found) >= 2
    for stub, checker, function, solution in found:
        check = getattr(exercises, checker)
        for source, expected in ((stub, False), (solution, True)):
            space: dict = {}
            exec(PRELUDE + source, space)
            assert check(space[function]) is expected, (function, capsys.readouterr().out)
        assert "Not written yet" in capsys.readouterr().out


def test_exercises_refuse_a_wrong_answer(notebook, capsys):
    for _, checker, function, _ in exercises_of(notebook):

        def wrong(*arguments):
            return 42

        wrong.__name__ = function
        assert getattr(exercises, checker)(wrong) is False
        assert capsys.readouterr().out.strip()
