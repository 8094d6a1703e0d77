"""The toy that trains in the page (toy.js, collapse.js): it has no still picture, since nothing is trained here."""

from dae4rec_core.views.page.widget import CollapseWidget, line
from dae4rec_core.views.plots import COLOURS
from dae4rec_core.views.widgets import Explorer, View

QUESTION = {
    "question": "With δ = 0, what will training do to the twelve embeddings?",
    "answers": ["leave them about where they are", "draw them together", "drive them apart"],
    "right": 1,
    "then": (
        "What f is to answer is made of the same numbers that it is told. If all twelve are equal the answer is always "
        "right, and the loss is 0. Press play; then choose δ = 1 and press it again."
    ),
}


def collapse_explorer() -> Explorer:
    """Twelve places in the plane that train before one's eyes, at a delta of one's choice."""
    widget = CollapseWidget(about=line({"colours": COLOURS[:3], "question": QUESTION}))
    return Explorer(widget, View(b"", ""), "a toy that trains in the page, at a δ of your choice")
