"""Every exercise of every notebook: its solution passes, its stub is met kindly, wrong answers are refused."""

import ast
import importlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core import exercises
from dae4rec_core.exercises.checker import checker

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IN_TIERS = [path for path in NOTEBOOKS if path.stem[:2] in ("02", "03", "04", "05", "06", "08", "09", "10")]
TIERS = {"1": "Fill in", "2": "Build", "3": "Investigate"}
CHECKERS = sorted(name for name in dir(exercises) if name.startswith("check_"))
PRELUDE = "import math, torch, numpy as np, pandas as pd, networkx as nx\n"


class Exercise(NamedTuple):
    """An exercise as it stands in a notebook: what is asked, the empty cell, its check, what is folded away."""

    heading: str
    stub: str
    checker: str
    function: str
    solution: str
    text: str  # all of its markdown


def functions(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def exercises_of(path: Path) -> Iterator[Exercise]:
    """The exercises of a notebook in their order: markdown that asks, stub, check, markdown with the solution."""
    cells = nbformat.read(path, as_version=4).cells
    stubs = [n for n, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", [])]
    for n in stubs:
        place, check = next((m, c) for m, c in enumerate(cells) if m > n and c.cell_type == "code")
        assert "check" in check.metadata.get("tags", []), f"the code cell after {cells[n].source!r} is its check"
        checker, function = re.search(r"exercises\.(check_\w+)\((\w+)\)", check.source).groups()
        assert functions(cells[n].source) == [function] and "raise NotImplementedError" in cells[n].source
        folded = next(c.source for c in cells[place + 1 :] if "<summary>Solution</summary>" in c.source)
        [solution] = re.findall(r"```python\n(.*?)```", folded, re.S)
        assert "<details>" in folded and function in functions(solution)
        asked = cells[n - 1].source
        headings = re.findall(r"^\*\*(.+?)\*\*", asked, re.M)
        assert headings, f"the markdown before {function} has a heading"
        yield Exercise(headings[-1], cells[n].source, checker, function, solution, f"{asked}\n{folded}")


def function_of(exercise: Exercise, source: str) -> Callable:
    """What a learner would have after running this source in the notebook."""
    space: dict = {}
    exec(PRELUDE + source, space)
    return space[exercise.function]


def wrong_answers(name: str) -> tuple[Callable, ...]:
    """The wrong answers to a checker of dae4rec_core/exercises/<file>.py, from wrong_<file>.py beside this file."""
    file = getattr(exercises, name).__module__.rpartition(".")[2]
    return importlib.import_module(f"exercises.wrong_{file}").WRONG[name]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def found(request):
    return list(exercises_of(request.param))


def test_at_least_two_exercises_each_with_its_solution(found):
    assert len(found) >= 2


def test_the_solution_passes(found, capsys):
    for exercise in found:
        passed = getattr(exercises, exercise.checker)(function_of(exercise, exercise.solution))
        assert passed is True, capsys.readouterr().out
        assert capsys.readouterr().out == f"Well done: {exercise.function} passes every check.\n"


def test_the_stub_is_met_kindly(found, capsys):
    for exercise in found:
        assert getattr(exercises, exercise.checker)(function_of(exercise, exercise.stub)) is False
        assert capsys.readouterr().out.startswith(f"Not written yet: fill in {exercise.function}")


@pytest.mark.parametrize("value", [42, None])
def test_an_answer_to_another_question_is_refused(found, value, capsys):
    for exercise in found:

        def other(*arguments, **options):
            return value

        other.__name__ = exercise.function
        assert getattr(exercises, exercise.checker)(other) is False
        assert re.fullmatch(r"[^\n]+\n", capsys.readouterr().out)


@pytest.mark.parametrize("name", CHECKERS)
def test_plausible_wrong_answers_are_refused_in_one_sentence(name, capsys):
    """By what the checker says itself: not by an error that happens to come up on the way."""
    wrong = wrong_answers(name)
    assert len(wrong) >= 2
    for answer in wrong:
        assert getattr(exercises, name)(answer) is False, f"{name} accepts {answer.__name__}"
        assert re.fullmatch(r"Not quite: [^\n]+\.\n", said := capsys.readouterr().out), (answer.__name__, said)


def test_every_checker_is_used_by_a_notebook():
    used = [exercise.checker for path in NOTEBOOKS for exercise in exercises_of(path)]
    assert sorted(used) == CHECKERS, "each checker has one exercise"


@pytest.mark.parametrize("path", IN_TIERS, ids=lambda path: path.stem)
def test_exercises_come_in_three_tiers(path):
    found = list(exercises_of(path))
    tiers = [re.fullmatch(r"([123]) · (Fill in|Build|Investigate): .+", exercise.heading) for exercise in found]
    assert all(tiers), [exercise.heading for exercise in found]
    assert {match[1]: match[2] for match in tiers} == TIERS
    assert all(match[2] == TIERS[match[1]] for match in tiers)
    assert [match[1] for match in tiers] == sorted(match[1] for match in tiers), "from easy to hard"
    for exercise in found:
        assert "<summary>Hint</summary>" in exercise.text, f"{exercise.function} has no hint"


def test_an_answer_without_a_return_and_one_that_was_called_are_told(capsys):
    @checker
    def check_any(answer):
        assert answer(2) + 1 == 3

    def forgets(x):
        x + 0

    assert check_any(forgets) is False
    assert capsys.readouterr().out == "Not quite: forgets returned nothing; is a `return` missing?\n"
    assert check_any(2.0) is False and "without calling it" in capsys.readouterr().out


@pytest.mark.parametrize("found", [math.nan, np.float32("nan"), np.full(2, np.nan), torch.tensor([1.0, math.nan])])
def test_an_answer_that_holds_nan_is_told_where_to_look(found, capsys):
    @checker
    def check_any(answer):
        assert answer() is not None, "a sentence about a difference"

    def divides():
        return found

    def divides_within():
        return 1.0, [found]

    for wrong in (divides, divides_within):
        assert check_any(wrong) is False
        assert f"Not quite: {wrong.__name__} returned NaN" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found", ["a word", {1: 2}, torch.nn.Linear(1, 1), nx.path_graph(2), pd.DataFrame({"a": ["b"]})]
)
def test_an_answer_that_holds_no_numbers_is_judged_by_its_checker(found):
    @checker
    def check_any(answer):
        assert answer() is found

    def finds():
        return found

    assert check_any(finds) is True


def test_a_missing_operation_of_torch_is_not_taken_for_a_missing_answer(capsys):
    @checker
    def check_any(answer):
        answer()

    def rounded():
        raise NotImplementedError("softmax not implemented for 'Long'\nand more")

    assert check_any(rounded) is False
    assert re.fullmatch(r"Your rounded, .* NotImplementedError: softmax[^\n]+\n", capsys.readouterr().out)
