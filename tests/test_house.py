"""The house is as its plan says: imports point one way, the table of equations is true, names are explained."""

import ast
import graphlib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dae4rec_core import method

ROOT = Path(__file__).parent.parent
MODULE = ROOT / "dae4rec_core"

# ---- imports point one way -----------------------------------------------------------------------

# a file may import from its own row and from the rows above it
LAYERS = [
    ("config", "streams", "events", "distributed", "outputs", "commands", "terminal", "arguments"),
    ("method",),
    ("data",),
    ("ranking", "retrieval", "cloud", "recommender", "checkpoint", "checkpoint_file", "memory", "state", "training"),
    ("experiments",),
    ("views",),
    ("__main__",),
]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
ROW["exercises"] = ROW["data"]  # they may use the method; who imports them: nobody in the module


def name_of(file: Path) -> str:
    """dae4rec_core/method/gae.py -> dae4rec_core.method.gae"""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(MODULE.rglob("*.py"))}


def imported(source: str, module: str, package: bool = False) -> set[str]:
    """Everything that a file imports, wherever in the file it does: dotted names, the module's own ones in full."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative
                parts = module.split(".")[: None if package and node.level == 1 else -node.level + package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from package import file` imports the file
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names}
    return found - {module}


def imports() -> Iterator[tuple[str, str]]:
    """(importing file, imported name) for every file of the module."""
    for name, file in FILES.items():
        for other in imported(file.read_text(encoding="utf-8"), name, file.name == "__init__.py"):
            yield name, other


def folder(name: str) -> str:
    """dae4rec_core.method.gae -> method; dae4rec_core.training -> training"""
    return name.split(".")[1]


def wrong_way(name: str, other: str) -> bool:
    """Does this import point from an earlier row to a later one, or into a folder that nobody may import?"""
    if other == "dae4rec_core" or not other.startswith("dae4rec_core.") or name == "dae4rec_core":
        return other.startswith("dae4rec_core.")  # the package itself imports none of its files
    mine, its = folder(name), folder(other)
    if its in ("views", "exercises", "__main__") and its != mine:
        return (mine, its) != ("__main__", "views")
    return ROW[its] > ROW[mine]


def test_every_file_has_its_place():
    assert {folder(name) for name in FILES if name != "dae4rec_core"} == set(ROW)


def test_imports_point_one_way():
    found = list(imports())
    assert [pair for pair in found if wrong_way(*pair)] == []
    assert ("dae4rec_core.training", "dae4rec_core.method.gae") in found  # the walk sees something


def test_no_two_files_import_each_other_even_in_one_row():
    graph: dict[str, set[str]] = {name: set() for name in FILES}
    for name, other in imports():
        if other in graph:
            graph[name].add(other)
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(FILES)


def test_the_method_knows_nothing_of_tables_bars_and_figures():
    found = {other.split(".")[0] for name, other in imports() if name.startswith("dae4rec_core.method")}
    assert found & {"pandas", "tqdm", "matplotlib", "ipywidgets", "IPython", "safetensors", "pathlib", "os"} == set()
    assert "torch" in found


def test_only_views_draw():
    drawing = {"matplotlib", "ipywidgets", "IPython", "PIL"}
    assert {folder(name) for name, other in imports() if other.split(".")[0] in drawing} == {"views"}


@pytest.mark.parametrize(
    "module, line, wrong",
    [
        ("dae4rec_core.method.model", "from dae4rec_core.data.dataset import Dataset", True),
        ("dae4rec_core.method.model", "def f():\n    from dae4rec_core import training", True),
        ("dae4rec_core.method.model", "from ..recommender import Recommender", True),
        ("dae4rec_core.method.model", "from .gae import GAE", False),
        ("dae4rec_core.training", "import dae4rec_core.views.plots", True),
        ("dae4rec_core.training", "from dae4rec_core.views import plots", True),
        ("dae4rec_core.experiments.artifacts", "from dae4rec_core.views import plots", True),
        ("dae4rec_core.__main__", "from dae4rec_core.views.plots import write_overview", False),
        ("dae4rec_core.config", "from dae4rec_core.method.losses import aime_loss", True),
        ("dae4rec_core.exercises.start", "from dae4rec_core.method.sampling import skip_step", False),
        ("dae4rec_core.exercises.start", "from dae4rec_core.training import fit", True),
        ("dae4rec_core.ranking", "from dae4rec_core.exercises import checker", True),
        ("dae4rec_core.state", "from dae4rec_core.ranking import evaluate\nimport numpy as np", False),
    ],
)
def test_a_wrong_import_would_be_seen(module, line, wrong):
    assert any(wrong_way(module, other) for other in imported(line, module)) == wrong


# ---- the table in method/__init__.py --------------------------------------------------------------


def table() -> list[tuple[str, str, str, str]]:
    """Rows of (equation, file, function, notebook)."""
    lines = [line for line in (method.__doc__ or "").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["equation", "what", "file", "function", "notebook"]
    return [(equation, file, function, notebook) for equation, _, file, function, notebook in cells[2:]]


def numbers_in(text: str) -> set[int]:
    """ "1-3, 5" -> 1, 2, 3, 5."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def equations_named(text: str) -> set[int]:
    """Numbers behind "Eq." in a text: "Eq. 9", "Eq. 7-9", "Eq. 1-3, 5", "Eq. 12 and 13"."""
    text = re.sub(r"\s+", " ", text)
    lists = re.findall(r"Eq\. (\d+(?:-\d+)?(?:(?:, | and )\d+(?:-\d+)?)*)", text)
    return set().union(*map(numbers_in, lists))


def test_equations_are_read_as_they_are_written():
    text = "betas (Eq. 1-3, 5); see Eq. 12 and 13, Eq.\n    9 with 7 items, and equation 16"
    assert equations_named(text) == {1, 2, 3, 5, 9, 12, 13}


def test_every_equation_of_the_paper_has_a_row():
    assert set().union(*(numbers_in(equation) for equation, *_ in table())) == set(range(1, 17))


@pytest.mark.parametrize("equation, file, function, notebook", table())
def test_a_row_of_the_table_is_true(equation, file, function, notebook):
    """The file holds the function, the notebook exists, and a docstring names the equation."""
    assert (MODULE / "method" / f"{file}.py").is_file()
    module = importlib.import_module(f"dae4rec_core.method.{file}")
    found = getattr(module, function)
    assert found.__module__ == module.__name__  # made there, not only imported
    assert len(list((ROOT / "notebooks").glob(f"{notebook}_*.ipynb"))) == 1
    said = equations_named(f"{module.__doc__}\n{inspect.getdoc(found)}")
    if equation != "none":
        assert numbers_in(equation) <= said, (file, function)


def test_every_file_of_the_method_is_in_the_table():
    assert {file for _, file, _, _ in table()} == {f.stem for f in (MODULE / "method").glob("*.py")} - {"__init__"}


# ---- how it is written ----------------------------------------------------------------------------


def is_checker(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """A checker of the exercises: the sentences of its asserts are its explanation."""
    return any(isinstance(mark, ast.Name) and mark.id == "checker" for mark in node.decorator_list)


@pytest.mark.parametrize("name", FILES)
def test_every_public_name_is_explained(name):
    """A file and its public functions and classes have a docstring; a method may be explained by its class."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in made if not node.name.startswith("_") and not is_checker(node)]
    assert ast.get_docstring(tree), f"{name} itself"
    assert [node.name for node in public if not ast.get_docstring(node)] == []


OWN = [file for part in ("dae4rec_core", "results", "benchmarks", "notebooks") for file in (ROOT / part).rglob("*.py")]


def without_encoding(source: str) -> list[int]:
    """Lines that open, read or write a text file and leave the encoding to the machine."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        what = node.func
        if isinstance(what, ast.Name) and what.id == "open":
            modes = node.args[1:2]
        elif isinstance(what, ast.Attribute) and what.attr in ("open", "read_text", "write_text"):
            if isinstance(what.value, ast.Name) and what.value.id in names:
                continue  # a function of another module: gzip.open, Image.open
            modes = node.args[:1] if what.attr == "open" else []
        else:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        mode = [*modes, *([given["mode"]] if "mode" in given else [])]
        binary = mode and isinstance(mode[0], ast.Constant) and "b" in str(mode[0].value)
        if "encoding" not in given and not binary:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("file", OWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_text_files_name_their_encoding(file):
    """Windows reads with another one, and the town's names hold accents."""
    assert without_encoding(file.read_text(encoding="utf-8")) == []


def test_a_missing_encoding_would_be_seen():
    good = ['open(p, encoding="utf-8")', 'open(p, "rb")', "gzip.open(p)", 'p.open(mode="wb")', "tables.write_text(x)"]
    bad = ["open(p)", 'open(p, "w")', "p.open()", "p.read_text()", 'Path("a").write_text(x)', 'p.open("a")']
    assert [without_encoding(f"import gzip\nfrom results import tables\n{line}") for line in good] == [[]] * len(good)
    assert [without_encoding(f"import gzip\nfrom results import tables\n{line}") for line in bad] == [[3]] * len(bad)


# ---- tests/mutants.md ------------------------------------------------------------------------------


def test_the_mutants_that_are_explained_change_lines_that_there_are():
    """An explanation of a line that was rewritten would explain nothing."""
    explained = (ROOT / "tests" / "mutants.md").read_text(encoding="utf-8")
    changes = re.findall(r"```diff\n@@ (\S+) \S+ @@\n((?:[-+] .*\n)+)```\n", explained)
    assert len(changes) == explained.count("```diff") > 20
    for path, lines in changes:
        today = {line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()}
        assert [line for line in lines.splitlines() if line.startswith("- ") and line[2:] not in today] == [], path
