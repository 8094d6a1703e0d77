"""The licences of the JavaScript, styles and fonts that the static site carries, as one text."""

import importlib.metadata
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = ("anywidget", "furo", "myst-nb", "sphinx")  # whose scripts and styles are copied too
LICENCE = re.compile(r"licen[cs]e|copying", re.I)


def licences() -> str:
    """Each text once, below the packages that it belongs to: all that npm's bundles are built from, and Python's.

    Some packages hold no text; there the licence that they state is written out, with the author that they name.
    """
    mit = (HERE.parent / "LICENSE").read_text(encoding="utf-8")
    written_out = {"MIT": mit[mit.index("Permission is hereby") :], "BSD-3-Clause": _of_python("ipywidgets")}
    packages: dict[str, list[str]] = {}  # by the text of their licence
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for place, facts in lock.items():
        if place in ("", "node_modules/axe-core") or facts.get("dev"):  # the last two check pages and aren't in them
            continue
        about = json.loads((HERE / place / "package.json").read_text(encoding="utf-8"))
        files = sorted(path for path in (HERE / place).iterdir() if path.is_file() and LICENCE.search(path.name))
        text = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in files)
        if not text:
            author = about.get("author", "the authors of " + about["name"])
            author = author["name"] if isinstance(author, dict) else author
            text = f"{facts['license']}, by {author}\n\n{written_out[facts['license']]}"
        packages.setdefault(text, []).append(f"{about['name']} {facts['version']}")
    for name in PYTHON:
        packages.setdefault(_of_python(name), []).append(f"{name} {importlib.metadata.version(name)}")
    parts = ["Licences of the JavaScript, styles and fonts that this site carries"]
    parts += [f"{', '.join(sorted(names))}\n\n{text.strip()}" for text, names in packages.items()]
    return f"\n\n{'-' * 100}\n\n".join(parts) + "\n"


def _of_python(name: str) -> str:
    files = importlib.metadata.files(name) or []
    texts = [
        file.read_text(encoding="utf-8") for file in files if "licenses" in file.parts and "dist-info" in str(file)
    ]
    return "\n\n".join(texts)
