"""The licence texts that travel with the static site."""

import importlib.util
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The text of a licence, by what it is for: "mathjax 3.2.2"."""
    if not (DOCS / "node_modules").is_dir():
        pytest.skip("npm's packages are not installed; `make site` installs them")
    for name in ("anywidget", "furo", "myst_nb", "sphinx"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("licences", DOCS / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parts = [part.strip().split("\n\n", 1) for part in module.licences().split("\n" + "-" * 100 + "\n")[1:]]
    return {name: text for names, text in parts for name in names.split(", ")}


def test_every_package_that_the_bundles_are_built_from_has_its_text(sections):
    lock = json.loads((DOCS / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    needed = {
        f"{facts.get('name', place.split('node_modules/')[-1])} {facts['version']}"
        for place, facts in lock.items()
        if place not in ("", "node_modules/axe-core") and not facts.get("dev")
    }
    assert len(needed) > 100 and needed <= set(sections)
    assert not {name.split()[0] for name in sections} & {"eslint", "typescript", "axe-core"}
    assert {name.split()[0] for name in sections} >= {"anywidget", "furo", "myst-nb", "sphinx"}
    assert [name for name, text in sections.items() if len(text) < 500] == []


@pytest.mark.parametrize(
    "name, words",
    [
        ("mathjax", ["Apache License", "Version 2.0"]),
        ("requirejs", ["MIT", "Permission is hereby granted", "AS IS"]),
        ("@jupyter-widgets/html-manager", ["BSD-3-Clause, by", "Jupyter", "Redistribution and use"]),
        ("@fortawesome/fontawesome-free", ["SIL OFL 1.1"]),
        ("jquery", ["OpenJS Foundation", "Permission is hereby granted"]),
        ("sphinx", ["Redistribution and use"]),
    ],
)
def test_a_licence_is_the_packages_own(sections, name, words):
    (text,) = [text for title, text in sections.items() if title.rpartition(" ")[0] == name]
    assert [word for word in words if word not in text] == []
