"""Every test that docs/promises.md names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", (ROOT / "docs/promises.md").read_text(encoding="utf-8"))


def test_every_named_test_is_there():
    assert len(NAMED) > 30
    for file, name in NAMED:
        found = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
        assert name in tests if name else any(test.startswith("test_") for test in tests), (file, name)


def test_every_promise_has_a_test():
    text = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!promise \||attack \||---)([^|]+) \| ([^|]+) \|$", text, re.M)
    assert all(test.startswith("`tests/") for _, test in rows), rows
