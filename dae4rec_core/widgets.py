"""Sliders in three forms that share one drawing function: live, ready-made frames, and a still picture.

A `View` is what an explorer shows at one setting. `frames` turns views into pictures that the browser swaps by itself,
alive without a kernel. `Live` asks for a view at every move. `show` adds the still for GitHub and print.
"""

import asyncio
import base64
import html
import io
from collections.abc import Callable
from typing import NamedTuple

import ipywidgets
from IPython.display import display
from PIL import Image

ERRORS = (ValueError, FileNotFoundError, KeyError)  # what bad input raises: shown as a sentence, not as a traceback


class View(NamedTuple):
    """png: the picture. alt: what it shows, in a sentence. words: HTML beside it, "" for none."""

    png: bytes
    alt: str
    words: str = ""


class Explorer(NamedTuple):
    """A widget and what stands in for it where widgets are not shown."""

    widget: ipywidgets.Widget
    still: View
    text: str


def show(explorer: Explorer) -> None:
    """Display an explorer: the widget, its still picture with alt text, and a line of text, in one bundle."""
    bundle = explorer.widget._repr_mimebundle_()
    bundle["text/plain"] = explorer.text
    metadata = {}
    if explorer.still.png:
        bundle["image/png"] = base64.b64encode(explorer.still.png).decode()
        metadata = {"image/png": {"alt": explorer.still.alt}}
    display(bundle, raw=True, metadata=metadata)


def frames(name: str, parts: dict[str, View | Explorer], start: str, width: int = 700, play: bool = False) -> Explorer:
    """A slider over ready-made views, or over further sliders; arrow keys move it too.

    name: what the slider is called. parts: a View or another `frames` for each of its labels. start: the first label.
    play: also a button that walks through them. Raises ValueError when there are no parts or `start` is none of them.
    """
    if start not in parts:
        raise ValueError(f"{name} can't start at {start!r}; it has {', '.join(parts) or 'no positions'}.")
    labels = list(parts)
    shown = [part.widget if isinstance(part, Explorer) else _picture(part, width) for part in parts.values()]
    stack = ipywidgets.Stack(shown, selected_index=labels.index(start))
    slider = chooser(name, labels, start, width)
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    controls = [slider]
    if play:
        player = ipywidgets.Play(value=slider.index, min=0, max=len(labels) - 1, interval=400, tooltip=f"play {name}")
        ipywidgets.jslink((player, "value"), (slider, "index"))
        controls.append(player)
    first = parts[start]
    inner = f"; {first.text}" if isinstance(first, Explorer) else ""
    still = first.still if isinstance(first, Explorer) else first
    return Explorer(ipywidgets.VBox([_row(controls), stack]), still, f"slider {name}: {', '.join(labels)}{inner}")


def chooser(name: str, labels: list[str], start: str, width: int = 700) -> ipywidgets.SelectionSlider:
    """A slider over labels that names itself to screen readers."""
    return ipywidgets.SelectionSlider(
        options=[(label, label) for label in labels],
        value=start,
        description=name,
        tooltip=name,
        continuous_update=True,
        layout=ipywidgets.Layout(width=f"{min(width, 560)}px", max_width="100%"),
    )


def _player(slider: ipywidgets.IntSlider, name: str) -> ipywidgets.Play:
    """A play button that walks an integer slider from one end to the other."""
    player = ipywidgets.Play(value=slider.value, min=slider.min, max=slider.max, interval=400, tooltip=f"play {name}")
    ipywidgets.jslink((player, "value"), (slider, "value"))
    ipywidgets.jslink((slider, "max"), (player, "max"))
    return player


def _row(controls: list[ipywidgets.Widget]) -> ipywidgets.Widget:
    return ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap"))


def compact(png: bytes) -> bytes:
    """The same picture in 256 colours: a half of the bytes or less, for the many frames that a notebook keeps."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _picture(view: View, width: int) -> ipywidgets.Widget:
    """A picture, and its words below. The tooltip becomes the title, which names a picture to screen readers."""
    image = ipywidgets.Image(
        value=compact(view.png),
        format="png",
        tooltip=view.alt,
        layout=ipywidgets.Layout(width=f"{width}px", max_width="100%", object_fit="contain"),
    )
    return ipywidgets.VBox([image, ipywidgets.HTML(view.words)]) if view.words else image


class Latest:
    """Runs slow work for the newest request only: while it runs, older waiting requests are dropped.

    work(**request): run in another thread, so that the kernel can go on listening. done(result) and failed(sentence):
    called in the kernel's own loop, not for a request that a newer one has overtaken before it began. Without a running
    loop (a plain script) the work is done on the spot.
    """

    def __init__(self, work: Callable, done: Callable, failed: Callable[[str], None]):
        self.work, self.done, self.failed = work, done, failed
        self.waiting: dict | None = None
        self.busy = False
        self.task: asyncio.Task | None = None  # kept, or the loop may forget it

    def ask(self, **request) -> None:
        self.waiting = request
        if self.busy:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.run_now()
            return
        self.busy = True
        self.task = loop.create_task(self._run())

    def run_now(self) -> None:
        """The waiting request, at once, in this thread."""
        request, self.waiting = self.waiting, None
        try:
            self.done(self.work(**request))
        except ERRORS as error:
            self.failed(sentence(error))

    async def _run(self) -> None:
        try:
            while self.waiting is not None:
                request, self.waiting = self.waiting, None
                try:
                    self.done(await asyncio.to_thread(self.work, **request))
                except ERRORS as error:
                    self.failed(sentence(error))
        finally:
            self.busy = False


def sentence(error: Exception) -> str:
    """An error as one escaped line of HTML, for showing in place of a figure."""
    return f'<p role="alert"><b>{html.escape(str(error.args[0] if error.args else error))}</b></p>'


class Live:
    """Controls whose every move asks `view` for a new picture; the newest move wins, and a line says when it works.

    view(**{name: value of that control}) -> View; a ValueError is shown as a sentence in place of the picture.
    play: the name of an integer slider that gets a play button.
    """

    def __init__(
        self, view: Callable[..., View], controls: dict[str, ipywidgets.Widget], width: int = 700, play: str = ""
    ):
        self.controls, self.still = controls, View(b"", "")
        self.image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width=f"{width}px", max_width="100%"))
        self.words, self.status = ipywidgets.HTML(), ipywidgets.Label("ready")
        row = list(controls.values())
        if play:
            row.append(_player(controls[play], play))
        self.box = ipywidgets.VBox([_row(row), self.status, self.image, self.words])
        self.latest = Latest(view, self._done, self._failed)
        for control in controls.values():
            control.observe(self.refresh, "value")
        self.latest.waiting = self._values()
        self.latest.run_now()  # the first picture is there when the cell is done

    def _values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def refresh(self, _=None) -> None:
        """Ask for a new picture of the present values."""
        self.status.value = "working …"
        self.latest.ask(**self._values())

    def _done(self, view: View) -> None:
        self.still = view
        self.image.value, self.image.tooltip, self.words.value = view.png, view.alt, view.words
        self.image.layout.display = ""
        self.status.value = "ready" if self.latest.waiting is None else "working …"

    def _failed(self, words: str) -> None:
        self.still = View(b"", words)
        self.words.value, self.image.layout.display, self.status.value = words, "none", "ready"

    def explorer(self, text: str) -> Explorer:
        return Explorer(self.box, self.still, text)


def guarded(build: Callable[..., Explorer], *arguments, **options) -> Explorer:
    """What `build` returns, or one sentence in its place when the input is bad (no checkpoint, no such user)."""
    try:
        return build(*arguments, **options)
    except ERRORS as error:
        words = sentence(error)
        return Explorer(ipywidgets.HTML(words), View(b"", words), str(error))
