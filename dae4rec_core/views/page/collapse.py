"""The toy that trains in the page (toy.js, collapse.js): it has no still picture, since nothing is trained here."""

from dae4rec_core.views.page.widget import CollapseWidget, line
from dae4rec_core.views.plots import COLOURS
from dae4rec_core.views.widgets import Explorer, View

QUESTION = {
    "question": "From which δ on will the twelve places stay apart?",
    "answers": ["δ = 0.1", "δ = 1", "δ = 10"],
    "right": 1,
    "then": (
        "At δ = 0 and 0.1 they run together: what f is to answer is made of the same numbers that it is told, so equal "
        "embeddings make every answer right. At 1 and 10 they hold. Press play, for each δ."
    ),
}


def collapse_explorer() -> Explorer:
    """Twelve places in the plane that train before one's eyes, at a delta of one's choice."""
    widget = CollapseWidget(about=line({"colours": COLOURS[:3], "question": QUESTION}))
    return Explorer(widget, View(b"", ""), "a toy that trains in the page, at a δ of your choice")
