"""The drawn picture of the method: the committed files are what the script writes, large and strong enough to read."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("drawing", ROOT / "docs" / "drawing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_pictures_are_what_the_script_writes(drawing):
    """One for each notebook and no other; after a change of the script run `python docs/drawing.py`."""
    notebooks = {path.stem[:2] for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    found = {path.name: path.read_text(encoding="utf-8") for path in drawing.FOLDER.glob("method_*.svg")}
    assert set(found) == {f"method_{number}.svg" for number in notebooks}
    for here in drawing.SERIES:
        assert found[f"method_{here:02d}.svg"] == drawing.picture(here), f"method_{here:02d}.svg"


@pytest.mark.parametrize("here", range(11))
def test_a_picture_stands_alone_and_says_where_you_are(drawing, here):
    source = drawing.picture(here)
    root = ElementTree.fromstring(source)
    name = f"{here:02d} {drawing.SERIES[here][0]}"
    assert root.find(f"{SVG}title").text.endswith(name)
    assert root.find(f"{SVG}desc").text.endswith(f"Marked here: {drawing.MARKED[here]}.")
    words = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert words.count("you are here") == 1 and words[-1].startswith(name)
    assert "prefers-color-scheme:dark" in source
    assert not re.search(r"href|url\((?!#)|@import|<script", source)  # nothing from elsewhere
    marks = [e.get("class") for e in root.iter(f"{SVG}rect") if {"here", "part", "outer"} & set(e.get("class").split())]
    assert len(marks) == {7: 3, 8: 3, 9: 2, 10: 2}.get(here, 1)


def test_letters_are_large_enough(drawing):
    """None below 11 pixels where the picture is 700 wide."""
    root = ElementTree.fromstring(drawing.picture(3))
    sizes = [float(e.get("font-size")) for e in root.iter() if e.get("font-size")]
    assert len(sizes) > 30 and min(sizes) * 700 / drawing.WIDTH >= 11
    assert all(e.get("font-size") for e in root.iter(f"{SVG}text"))


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    "letters, behind, least",
    [
        *((letters, behind, 4.5) for letters in ("ink", "soft") for behind in ("page", "panel", "here")),
        ("onmark", "tag", 4.5),
        ("mark", "here", 3.0),  # bold figures, and the edge of the marked part
        *((items, behind, 2.5) for items in ("blue", "green", "pink") for behind in ("panel", "here")),
    ],
)
def test_contrast(drawing, letters, behind, least, scheme):
    behind = "mark" if behind == "tag" else behind
    one, other = (luminance(drawing.COLOURS[name][scheme]) + 0.05 for name in (letters, behind))
    assert max(one, other) / min(one, other) >= least
