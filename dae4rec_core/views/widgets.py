"""Sliders in three forms that share one drawing function: live, ready-made frames, and a still picture.

A `View` is what an explorer shows at one setting. `frames` turns views into pictures that the browser swaps by itself,
alive without a kernel. `Live` asks for a view at every move. `show` adds the still for GitHub and print.
"""

import asyncio
import base64
import html
import io
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import ipywidgets
import torch
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
    made = explorer.widget._repr_mimebundle_()
    bundle = made[0] if isinstance(made, tuple) else made  # anywidget gives its metadata with it
    bundle["text/plain"] = explorer.text
    metadata = {}
    if explorer.still.png:
        bundle["image/png"] = base64.b64encode(compact(explorer.still.png)).decode()
        metadata = {"image/png": {"alt": explorer.still.alt}}
    display(bundle, raw=True, metadata=metadata)


def frames(
    name: str, parts: Mapping[str, View | Explorer], start: str, width: int = 700, play: bool = False
) -> Explorer:
    """A slider over ready-made views, or over further sliders; arrow keys move it too.

    name: what the slider is called. parts: a View or another `frames` for each of its labels. start: the first label.
    play: also a button that walks through them. Raises ValueError when there are no parts or `start` is none of them.
    """
    if start not in parts:
        raise ValueError(f"{name} can't start at {start!r}; it has {', '.join(parts) or 'no positions'}.")
    labels = list(parts)
    shown = [
        part.widget
        if isinstance(part, Explorer)
        else ipywidgets.HTML(as_html(part._replace(png=compact(part.png)), width))
        for part in parts.values()
    ]
    stack = ipywidgets.Stack(shown, selected_index=labels.index(start))
    choice, slider = chooser(name, labels, start)
    ipywidgets.jslink((choice, "index"), (stack, "selected_index"))
    controls = [choice, slider]
    if play:
        controls.append(player(name, slider, "index", 0, len(labels) - 1))
    first = parts[start]
    inner = f"; {first.text}" if isinstance(first, Explorer) else ""
    still = first.still if isinstance(first, Explorer) else first
    return Explorer(ipywidgets.VBox([row(controls), stack]), still, f"slider {name}: {', '.join(labels)}{inner}")


def nested(view: Callable[..., View], *levels: tuple[str, Mapping[str, Any], str]) -> Explorer:
    """Frames of every combination of several settings.

    levels: for each setting its name, its values by what the slider calls them, and the first label; the outermost
    setting first. view: of one value of each, in this order.
    """
    (name, values, start), *inner = levels
    parts = {label: nested(partial(view, value), *inner) if inner else view(value) for label, value in values.items()}
    return frames(name, parts, start)


def chooser(name: str, labels: Sequence[str], start: str) -> tuple[ipywidgets.Dropdown, ipywidgets.SelectionSlider]:
    """A list and a slider that move together in the browser. The slider is for the hand; the list has a label that
    screen readers can say, which ipywidgets' sliders lack, and holds the value."""
    options = [(label, label) for label in labels]
    choice = ipywidgets.Dropdown(options=options, value=start, description=name, layout=_short(name, labels))
    slider = ipywidgets.SelectionSlider(options=options, value=start, readout=False, tooltip=name, layout=SLIDER)
    ipywidgets.jslink((slider, "index"), (choice, "index"))
    return choice, slider


def counter(name: str, start: int, first: int, last: int) -> tuple[ipywidgets.BoundedIntText, ipywidgets.IntSlider]:
    """The same for a whole number: a labelled field, which holds the value, and a slider."""
    field = ipywidgets.BoundedIntText(start, first, last, description=name, layout=_short(name, [f"{last}"]))
    slider = ipywidgets.IntSlider(start, first, last, readout=False, tooltip=name, layout=SLIDER)
    ipywidgets.jslink((slider, "value"), (field, "value"))
    ipywidgets.jslink((field, "max"), (slider, "max"))
    return field, slider


def player(name: str, slider: ipywidgets.Widget, trait: str, first: int, last: int) -> ipywidgets.Play:
    """A play button that walks a slider from one end to the other."""
    play = ipywidgets.Play(value=getattr(slider, trait), min=first, max=last, interval=400, tooltip=f"play {name}")
    ipywidgets.jslink((play, "value"), (slider, trait))
    return play


def row(controls: Sequence[ipywidgets.Widget]) -> ipywidgets.HBox:
    """Controls beside one another, below one another where the page is narrow."""
    return ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))


SLIDER = {"width": "320px", "max_width": "90%"}


def _short(name: str, labels: Sequence[str]) -> dict[str, str]:
    """Room for a label and the longest value."""
    return {"width": f"{142 + 9 * max(map(len, labels))}px", "max_width": "95%"}


def compact(png: bytes) -> bytes:
    """The same picture in 256 colours: a half of the bytes or less, for the frames and stills that a notebook keeps.

    Small areas, such as coloured dots, keep their colours: the nearest of 256 is taken that cover all, not the most.
    """
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def as_html(view: View, width: int) -> str:
    """A picture with its text for screen readers, and the words below. width: at most, in pixels.

    An <img> inside an HTML widget, because ipywidgets' own Image can't carry an alt text; decoded together with the
    page, so that it doesn't flicker when it is replaced.
    """
    w, h = struct.unpack(">II", view.png[16:24])  # from the PNG's header: the place is kept while it loads
    return (
        f'<img alt="{html.escape(view.alt)}" width="{w}" height="{h}" decoding="sync" '
        f'style="max-width:min({width}px, 100%);height:auto;background:white" '
        f'src="data:image/png;base64,{base64.b64encode(view.png).decode()}">{view.words}'
    )


class Latest:
    """Runs slow work for the newest request only: while it runs, older waiting requests are dropped.

    work(**request): run in another thread, so that the kernel can go on listening. done(result) and failed(sentence):
    called in the kernel's own loop, not for a request that a newer one has overtaken before it began. Without a running
    loop (a plain script) the work is done on the spot, and only what bad input raises becomes a sentence.
    """

    def __init__(self, work: Callable[..., Any], done: Callable[[Any], None], failed: Callable[[str], None]):
        self.work, self.done, self.failed = work, done, failed
        self.waiting: dict[str, Any] | None = None
        self.busy = False
        self.task: asyncio.Task | None = None  # kept, or the loop may forget it
        # One torch thread: the threads of a team beside the kernel's own wait for each other at every small
        # product, and a view is made of hundreds. The kernel keeps its number.
        self.thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def ask(self, **request: Any) -> None:
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
        request, self.waiting = self.waiting or {}, None
        try:
            self.done(self.work(**request))
        except ERRORS as error:
            self.failed(sentence(error))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self.waiting is not None:
                request, self.waiting = self.waiting, None
                try:
                    self.done(await loop.run_in_executor(self.thread, partial(self.work, **request)))
                except Exception as error:  # whatever it is, an unread task would swallow it
                    self.failed(sentence(error))
        finally:
            self.busy = False


def sentence(error: Exception) -> str:
    """An error as one escaped line of HTML, for showing in place of a figure; beyond ERRORS, with its type."""
    words = str(error.args[0] if error.args else error).strip() or "no reason was given"
    line = words.splitlines()[0]
    line = line if isinstance(error, ERRORS) else f"{type(error).__name__}: {line}"
    return f'<p role="alert"><b>{html.escape(line)}</b></p>'


class Live:
    """Controls whose every move asks `view` for a new picture; the newest move wins, and a line says when it works.

    view(**{name: value of that control}) -> View; a ValueError is shown as a sentence in place of the picture.
    controls: what holds the values, by name. shown: what stands above the picture, in rows; the controls among it.
    """

    def __init__(
        self,
        view: Callable[..., View],
        controls: Mapping[str, ipywidgets.Widget],
        shown: Sequence[Sequence[ipywidgets.Widget]],
        width: int = 700,
    ):
        self.controls, self.width, self.still = controls, width, View(b"", "")
        self.picture, self.status = ipywidgets.HTML(), ipywidgets.Label("ready")
        self.box = ipywidgets.VBox([*map(row, shown), self.status, self.picture])
        self.latest = Latest(view, self._done, self._failed)
        for control in controls.values():
            control.observe(self.refresh, "value")
        self.latest.waiting = self._values()
        self.latest.run_now()  # the first picture is there when the cell is done

    def _values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def refresh(self, _: Any = None) -> None:
        """Ask for a new picture of the present values."""
        self.status.value = "working …"
        self.latest.ask(**self._values())

    def _done(self, view: View) -> None:
        self.still = view
        self.picture.value = as_html(view, self.width)
        self.status.value = "ready" if self.latest.waiting is None else "working …"

    def _failed(self, words: str) -> None:
        self.still = View(b"", words)
        self.picture.value, self.status.value = words, "ready"

    def explorer(self, text: str) -> Explorer:
        return Explorer(self.box, self.still, text)


def guarded(build: Callable[..., Explorer], *arguments: Any, **options: Any) -> Explorer:
    """What `build` returns, or one sentence in its place when the input is bad (no checkpoint, no such user)."""
    try:
        return build(*arguments, **options)
    except ERRORS as error:
        words = sentence(error)
        return Explorer(ipywidgets.HTML(words), View(b"", words), str(error))
