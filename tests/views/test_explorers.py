"""Explorers and their three forms, against brute force; what the browser does with them is in tests/browser."""

import asyncio
import re
import time

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.data.dataset import training_examples, validation_sample
from dae4rec_core.ranking import evaluate
from dae4rec_core.training import fit
from dae4rec_core.views import plots, widgets
from dae4rec_core.views.explorers import (
    DeltaExplorer,
    IslandExplorer,
    delta,
)
from dae4rec_core.views.explorers.islands import on_island
from dae4rec_core.views.explorers.parts import ranking
from dae4rec_core.views.widgets import Latest, Live, View, frames, guarded, nested


@pytest.fixture(scope="module")
def picture() -> bytes:
    return plots.png(plots.lines({"a": pd.Series([0.0, 1.0])}, "x", "y"))


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(widgets, "display", lambda bundle, **options: found.append((bundle, options)))
    return found


def test_frames_hold_every_view_and_a_still_one(picture, shown, one_sentence):
    inner = {n: frames("t", {m: View(picture, f"{n} at {m}") for m in "ab"}, "b") for n in ("x", "y")}
    explorer = frames("schedule", inner, "y", play=True)
    widgets.show(explorer)
    [(bundle, options)] = shown
    assert options["metadata"]["image/png"]["alt"] == "y at b"
    assert bundle["text/plain"] == "slider schedule: x, y; slider t: a, b"
    assert "application/vnd.jupyter.widget-view+json" in bundle
    row, stack = explorer.widget.children
    assert isinstance(stack, ipywidgets.Stack) and stack.selected_index == 1
    assert [type(w).__name__ for w in row.children] == ["Dropdown", "SelectionSlider", "Play"]
    pages = [page.value for box in stack.children for page in box.children[1].children]
    assert [re.search('alt="([^"]*)"', page)[1] for page in pages] == ["x at a", "x at b", "y at a", "y at b"]
    one_sentence(lambda: frames("S", {"1": View(picture, "")}, "2"), "'2'", "1")
    one_sentence(lambda: frames("S", {}, "2"), "no positions")


def test_nested_frames_show_every_combination_in_its_place(picture):
    def view(a, b):
        return View(picture, f"{a} with {b}")

    explorer = nested(view, ("outer", {"one": 1, "two": 2}, "two"), ("inner", {"x": "X", "y": "Y"}, "x"))
    assert explorer.text == "slider outer: one, two; slider inner: x, y" and explorer.still.alt == "2 with X"
    _, stack = explorer.widget.children
    pages = [page.value for box in stack.children for page in box.children[1].children]
    assert [re.search('alt="([^"]*)"', page)[1] for page in pages] == ["1 with X", "1 with Y", "2 with X", "2 with Y"]


def test_a_picture_says_its_size_and_its_text_and_stays_the_same_in_256_colours(picture):
    text = widgets.as_html(View(picture, 'a "b" <c>', "<p>words</p>"), 300)
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in text and "300px" in text and text.endswith("<p>words</p>")
    assert 'width="600" height="360"' in text
    small = widgets.compact(picture)
    a, b = (np.asarray(plots.PIL.Image.open(widgets.io.BytesIO(p)).convert("RGB"), int) for p in (picture, small))
    assert len(small) < len(picture) and np.abs(a - b).mean() < 1


def test_only_the_newest_request_is_worked_on():
    worked, done, failed = [], [], []

    def work(n):
        time.sleep(0.05)
        worked.append(n)
        if n == 3:
            raise ValueError("three is bad <here>.")
        return n

    async def reader():
        latest = Latest(work, done.append, failed.append)
        for n in range(50):
            latest.ask(n=n)
            await asyncio.sleep(0)
        while latest.busy:
            await asyncio.sleep(0.01)
        latest.ask(n=3)
        await latest.task
        latest.ask(n=7)
        await latest.task

    asyncio.run(reader())
    assert worked == [0, 49, 3, 7] and done == [0, 49, 7]
    assert len(failed) == 1 and "three is bad &lt;here&gt;." in failed[0] and 'role="alert"' in failed[0]


def test_live_work_has_one_torch_thread_and_leaves_the_kernel_its_own():
    found, before = [], torch.get_num_threads()

    async def reader():
        latest = Latest(torch.get_num_threads, found.append, found.append)
        latest.ask()
        await latest.task

    try:
        torch.set_num_threads(2)
        asyncio.run(reader())
        assert found == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_live_explorer_shows_a_sentence_in_place_of_the_picture_and_recovers(picture):
    def view(n):
        if n == 2:
            raise ValueError("2 is out of range; choose 1.")
        return View(picture, f"n is {n}")

    number = ipywidgets.IntText(2)
    live = Live(view, {"n": number}, [[number]])  # no loop runs here: every change is drawn at once
    assert "out of range" in live.picture.value and "<img" not in live.picture.value
    number.value = 1
    assert 'alt="n is 1"' in live.picture.value and live.status.value == "ready"
    assert live.explorer("x").still.alt == "n is 1"


def test_bad_input_at_the_start_is_a_sentence(shown):
    def build():
        raise FileNotFoundError("There are no artifacts; make them.")

    widgets.show(guarded(build))
    assert shown[0][0]["text/plain"] == "There are no artifacts; make them." and "image/png" not in shown[0][0]


def test_lists_are_escaped_and_the_true_item_is_marked():
    text = ranking({"<a>": [0, 1], "b": [1]}, ["x & y", "z"], "caption", mark=1)
    assert "&lt;a&gt;" in text and "x &amp; y" in text
    assert marked(text) == ["z", "z"]
    assert marked(ranking({"a": [0, 1]}, ["z", "z"], "caption", mark=1)) == ["z"]


def marked(text: str) -> list[str]:
    return re.findall("<b>★ (.*?)</b>", text)


class Island(torch.nn.Module):
    """A denoiser that believes in the point (2, 0), the middle of the first island, or in the origin without h."""

    def forward(self, e_t, t, h):
        return torch.tensor([2.0, 0.0]) * h[:, :1]


def test_islands_are_counted_and_rho_makes_chains_random(one_sentence):
    explorer = IslandExplorer(Island())
    view = explorer.view(5, "0")
    assert view.alt == (
        "60 chains of S = 5 steps, rho = 0. Answers on an island: nothing known, 0%; history: island 1, 100%."
    )
    walk, random = (explorer.chains(5, rho, known=True) for rho in ("0", "posterior"))
    assert walk.shape == (6, 1000, 2) and torch.equal(walk[0], explorer.x_T)
    assert torch.equal(explorer.chains(5, "0", known=True), walk)
    assert (walk[-1] == torch.tensor([2.0, 0.0])).all()
    assert (random[1] - walk[1]).norm(dim=1).min() > 0 and torch.equal(random[0], walk[0])
    ring = torch.tensor([[2.44, 0.0], [2.46, 0.0], [-1.0, 1.7], [0.0, 0.0]])
    assert on_island(ring).tolist() == [True, False, True, False]
    one_sentence(lambda: explorer.view(5, "1"), "'1'", "half")
    one_sentence(lambda: explorer.view(51, "0"), "S is 51")
    shown = explorer.frames([1, 5], 5)
    assert shown.text == "slider rho: 0, half, posterior; slider S: 1, 5" and shown.still.alt == view.alt
    assert explorer.live(5).still.alt == view.alt


@pytest.fixture
def deltas(ring, trained, tiny):
    table = pd.DataFrame(
        [("validation", True, d, h) for d, h in ((0.0, 0.1), (10.0, 0.3), (10.0, 0.5))],
        columns=["part", "compensator", "delta", "HR@10"],
    )
    e = trained.model.embedding.weight
    return DeltaExplorer(*ring, trained.z_star, {0.0: torch.zeros_like(e), 10.0: e}, table)


def test_delta_views_and_training_one(ring, tiny, trained, deltas, one_sentence):
    assert "HR@10 is 40.0%" in deltas.view(10).alt
    one_sentence(lambda: deltas.view(3), "δ = 3", "0, 10")
    goal = 1 / (1 + np.exp(-(trained.z_star @ trained.z_star.T).numpy().astype(float)))
    assert f"is {np.abs(0.5 - goal).mean():.2f} from S*" in deltas.view(0).alt
    events = []
    deltas.train(3.0, tiny, events.append, lambda denoiser: None)
    assert {event.stage for event in events} == {"diffusion", "compensator"}
    again = fit(*ring, tiny.replace(delta=3.0), "cpu", z_star=trained.z_star.clone())
    torch.testing.assert_close(deltas.embeddings[3.0], again.model.embedding.weight.detach())
    assert f"your short run reached {deltas.trained[3.0]:.1f}%" in deltas.view(3).alt


def test_training_one_judges_by_the_rule_of_the_data(first_visits, tiny, deltas):
    (dataset, split), config = first_visits, tiny.replace(repeats="first_visits")
    recommender = fit(dataset, split, config, "cpu")
    explorer = DeltaExplorer(dataset, split, recommender.z_star, {}, empty_table())
    explorer.train(config.diffusion.delta, config, lambda event: None, lambda denoiser: None)
    answers = validation_sample(dataset, split, config)
    assert answers.seen.shape[1] > 0
    assert explorer.trained[config.diffusion.delta] == 100 * evaluate(recommender.scorer(), answers)["HR@10"]


def empty_table() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in ("part", "compensator", "delta", "HR@10")})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_training_one_on_cuda_takes_a_z_star_from_anywhere(ring, tiny, trained):
    for device in ("cpu", "cuda"):
        explorer = DeltaExplorer(*ring, trained.z_star.to(device), {}, empty_table())
        explorer.train(3.0, tiny, lambda event: None, lambda denoiser: None)
        assert 3.0 in explorer.trained and explorer.embeddings[3.0].device.type == "cpu"


def test_training_stops_at_the_next_batch_and_changes_nothing(ring, tiny, deltas):
    examples = len(training_examples(*ring, tiny).target)
    work, events = delta.Work(examples, tiny), []

    def batch(denoiser):
        if work.done == 3:
            work.stopping.set()
        work.batch(denoiser)

    with pytest.raises(delta.Stopped):
        deltas.train(3.0, tiny.replace(batch_size=2), events.append, batch)
    assert work.done == 3 and not events
    assert 3.0 not in deltas.embeddings and not deltas.trained


def test_the_bar_counts_batches(ring, tiny, deltas):
    examples = len(training_examples(*ring, tiny).target)
    work = delta.Work(examples, tiny)
    deltas.train(3.0, tiny, work.listen, work.batch)
    last = [event for event in [work.newest] if "compensator" in event]
    assert work.share == 1 and work.done <= work.batches and last and "HR@10" in work.words()


def buttons(widget):
    return {w.description: w for w in everything(widget) if isinstance(w, ipywidgets.Button)}


def everything(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def test_the_button_trains_and_the_picture_follows(tiny, deltas):
    async def reader():
        explorer = deltas.live(10.0, tiny)
        [choice] = [w for w in everything(explorer.widget) if isinstance(w, ipywidgets.Dropdown)]
        [bar] = [w for w in everything(explorer.widget) if isinstance(w, ipywidgets.FloatProgress)]
        choice.value = "1000"
        buttons(explorer.widget)["train this δ now"].click()
        await asyncio.sleep(0.05)
        assert buttons(explorer.widget)["train this δ now"].disabled
        while buttons(explorer.widget)["train this δ now"].disabled:
            await asyncio.sleep(0.05)
        [status] = [w for w in everything(explorer.widget) if type(w) is ipywidgets.Label]
        while status.value != "ready":
            await asyncio.sleep(0.05)
        return explorer, bar.value

    explorer, share = asyncio.run(reader())
    texts = " ".join(w.value for w in everything(explorer.widget) if isinstance(w, ipywidgets.HTML))
    assert "δ = 1000 is trained, in " in texts and "δ = 1000: your short run reached" in texts and share == 1


@pytest.mark.parametrize(
    "error", [ValueError("The loss <became> NaN."), RuntimeError("Expected one device\nbut got two")]
)
def test_whatever_stops_the_training_is_said_in_a_sentence(tiny, deltas, monkeypatch, error):
    def broken(*arguments, **options):
        raise error

    monkeypatch.setattr(delta, "fit", broken)

    async def reader():
        explorer = deltas.live(10.0, tiny)
        press = buttons(explorer.widget)["train this δ now"]
        press.click()
        await asyncio.sleep(0.05)
        while press.disabled:
            await asyncio.sleep(0.05)
        return explorer

    explorer = asyncio.run(reader())
    texts = " ".join(w.value for w in everything(explorer.widget) if isinstance(w, ipywidgets.HTML))
    [said] = re.findall('<p role="alert"><b>(.*?)</b></p>', texts)
    assert said in ("The loss &lt;became&gt; NaN.", "RuntimeError: Expected one device")


def test_an_error_that_nobody_foresaw_is_said_too_and_the_next_move_works(picture):
    def view(n):
        if n == 2:
            raise RuntimeError("a bug\nwith details")
        return View(picture, f"n is {n}")

    async def reader():
        number = ipywidgets.IntText(1)
        live = Live(view, {"n": number}, [[number]])
        number.value = 2
        await live.latest.task
        assert "RuntimeError: a bug<" in live.picture.value and live.status.value == "ready"
        number.value = 3
        await live.latest.task
        assert 'alt="n is 3"' in live.picture.value

    asyncio.run(reader())
