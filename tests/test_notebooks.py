"""What every notebook must be: executed in order, free of errors, described in words, in short cells."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest

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
    "09_the_cloud",
    "10_when_does_it_work",
]


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


def test_cells_are_short(notebook):
    """The setup cell stands apart: it is hidden, and the same everywhere."""
    cells = [c.source for c in code_cells(notebook) if "setup" not in c.metadata.get("tags", [])]
    lines = np.array([len(source.splitlines()) for source in cells])
    longest = cells[lines.argmax()].splitlines()[0]
    assert lines.max() <= 30, f"{lines.max()} lines from {longest!r} on"
    assert np.quantile(lines, 0.9) < 18, f"a tenth of the cells has {np.quantile(lines, 0.9):.0f} lines or more"
    assert 3 <= np.median(lines) <= 7, f"the median cell has {np.median(lines):g} lines"


def test_the_header_says_what_for_what_before_and_how_long(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \d\d · \S", first.source)
    for part in (r"\*\*After this notebook you can\*\* ", r"\*\*You need\*\* ", r"\*\*Time:\*\* about "):
        assert re.search(part, first.source), part


def test_a_reader_is_shown_numbers_and_not_whether_an_assertion_holds(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
            assert not re.search(r"^(.*[:?] )?(True|False)$", text, re.M), f"{cell.source}\n{text}"


def test_no_reader_meets_a_warning(notebook):
    assert [(c.source, o.text) for c in code_cells(notebook) for o in c.outputs if o.get("name") == "stderr"] == []


def test_widgets_keep_their_state(notebook):
    if "widgets" in notebook.metadata:
        assert notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]


def test_links_between_notebooks_exist(notebook):
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([\w./-]+\.ipynb)\)", prose):
        assert (FOLDER / target).is_file(), target


def test_the_demo_was_run_in_order_and_shows_its_pictures():
    """Its widgets live under Voila; the file holds what they looked like, with words."""
    cells = code_cells(nbformat.read(ROOT / "demo/demo.ipynb", as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) == len(cells) - 1  # all but the imports show something
    for output in outputs:
        assert set(output.data) == {"image/png", "text/plain"} and output.metadata["image/png"]["alt"]


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
