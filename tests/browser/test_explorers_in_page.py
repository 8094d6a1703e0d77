"""The smaller explorers on the static site, with the network off: every control changes what is shown."""

import re

import pytest
from conftest import ROOT, Watch, context_of, shot

NOTEBOOKS = ROOT / "docs/_build/html/notebooks"


@pytest.fixture(scope="module")
def context(browser):
    context = context_of(browser, viewport={"width": 1280, "height": 900}, offline=True)
    yield context
    context.close()


@pytest.fixture
def opened(context):
    """Opens a notebook's page at an address and waits for one of its explorers; its errors fail the test."""
    pages = []

    def make(name: str, explorer: str, state: str = ""):
        page = context.new_page()
        page.watch = Watch(page)
        pages.append(page)
        page.goto((NOTEBOOKS / f"{name}.html").as_uri() + (f"#{state}" if state else ""))
        found = page.locator(f".dae4rec-{explorer}").first
        found.wait_for(timeout=30_000)
        found.scroll_into_view_if_needed()
        return page, found

    yield make
    for page in pages:
        page.watch.check()
        page.close()


def wrong_guess(explorer, words: str) -> str:
    """What is told after one of the answers."""
    explorer.get_by_role("button", name=words, exact=True).click()
    return explorer.locator(".told").inner_text()


def test_nothing_glides_where_people_ask_for_no_motion(opened):
    page, delta = opened("03_diffusion_training", "delta")
    dot, motion = delta.locator("circle.glides").first, "dot => getComputedStyle(dot).transitionDuration"
    assert dot.evaluate(motion) == "0.5s, 0.5s"
    page.emulate_media(reduced_motion="reduce")
    assert dot.evaluate(motion) == "0s"


def test_noise(opened):
    page, noise = opened("03_diffusion_training", "noise")
    t, facts = noise.get_by_label("t, the step of the forward process"), noise.locator(".facts")
    assert t.get_attribute("aria-valuetext") == "t = 10 of 50" and "98% of the points" in facts.inner_text()
    t.fill("20")
    assert "66% of the points" in facts.inner_text()  # as the notebook's table has it
    at = noise.locator("circle").first.get_attribute("style")
    noise.get_by_label("schedule", exact=True).select_option("cosine")
    assert noise.locator("circle").first.get_attribute("style") != at
    assert (
        noise.locator(".chart svg[role=img]")
        .get_attribute("aria-label")
        .startswith("ᾱ, the share of the signal's variance, against t, at 20")
    )
    assert "No: t = 20." in wrong_guess(noise, "t = 5")
    t.fill("49")
    noise.get_by_role("button", name="play").click()
    page.wait_for_function("() => document.querySelector('.dae4rec-noise .facts').textContent.startsWith('ᾱ = 0.00')")
    shared = page.url
    page.goto("about:blank")
    page.goto(shared)
    noise.wait_for(timeout=30_000)
    assert noise.get_by_label("schedule", exact=True).locator("option:checked").inner_text() == "cosine"
    page.wait_for_function("() => Math.abs(document.querySelector('.dae4rec-noise').getBoundingClientRect().top) < 200")
    shot(page, "page_noise")


def test_a_toy_trains_in_the_page(opened):
    """At delta 0 it collapses before one's eyes, at 10 it holds; a started training can be stopped."""
    page, toy = opened("03_diffusion_training", "collapse")
    facts, play = toy.locator(".facts"), toy.get_by_role("button", name="play")

    def length() -> float:
        return float(re.search(r"Mean length (?:below )?([\d.]+\d)", facts.inner_text())[1])

    start = length()
    play.click()
    stop = toy.get_by_role("button", name="pause")
    page.wait_for_function(
        "() => /Step [2-9]\\d\\d/.test(document.querySelector('.dae4rec-collapse .facts').textContent)"
    )
    stop.click()
    told = facts.inner_text()
    page.wait_for_timeout(200)
    assert facts.inner_text() == told and length() < 0.2 * start
    toy.get_by_label("delta, the weight of L_AIME").fill("3")
    assert "Step 0 of 1500" in facts.inner_text() and length() == start
    play.click()
    page.wait_for_function(
        "() => /Step 1500/.test(document.querySelector('.dae4rec-collapse .facts').textContent)", timeout=60_000
    )
    assert length() > 1.5 and "100% are in that place's district" in facts.inner_text()
    assert toy.locator(".chart").first.locator(".key span").count() == 2  # both runs
    assert play.inner_text() == "play"
    play.click()  # once more from the start
    page.wait_for_function(
        "() => /Step \\d\\d0 of/.test(document.querySelector('.dae4rec-collapse .facts').textContent)"
    )
    stop.click()
    assert "No: δ = 1." in wrong_guess(toy, "δ = 10")
    shot(page, "page_toy")


def test_delta(opened):
    page, delta = opened("03_diffusion_training", "delta")
    slider, facts = delta.get_by_label("δ, the weight of the item graph"), delta.locator(".facts")
    assert not delta.locator(".spoils h2").is_visible()  # until a guess, or a move
    assert slider.get_attribute("aria-valuetext") == "δ = 10" and delta.locator("thead th").count() == 2
    rank = re.search(r"at rank (\d+) of 600", facts.inner_text())[1]
    heat = "() => document.querySelector('.dae4rec-delta canvas').toDataURL()"
    images, labels = [page.evaluate(heat)], []
    before = delta.locator("circle").nth(5).get_attribute("style")
    for n in range(6):
        slider.fill(str(n))
        images.append(page.evaluate(heat))
        labels.append(delta.locator(".map svg").get_attribute("aria-label"))
        assert delta.locator("thead th").count() == (2 if n == 4 else 3)
    assert len(set(images)) == 6 and "δ = 0.1" in labels[2] and "hold 58%" in labels[2]  # as the notebook says
    slider.fill("0")
    assert "hold 4%" in delta.locator(".map svg").get_attribute("aria-label")
    assert delta.locator("circle").nth(5).get_attribute("style") != before
    assert f"at δ = 10 at rank {rank}" in facts.inner_text() and "of ten" in facts.inner_text()
    delta.get_by_label("S, sampling steps").fill("0")
    delta.locator("td button").first.focus()
    page.keyboard.press("Enter")  # an item of the list, by keyboard
    assert delta.locator("circle.pointed").count() == 1
    delta.locator("circle").nth(40).hover(force=True)
    assert "of its ten nearest under E" in delta.locator(".status").inner_text()
    assert delta.locator("circle.listed").count() == 10
    delta.get_by_label("on the map").check()
    assert delta.locator(".map svg").get_attribute("aria-label").startswith("Items where they are in the town")
    shared, shown = page.url, delta.locator("table").inner_text()
    page.goto("about:blank")
    page.goto(shared)
    delta.locator("tbody td").first.wait_for(timeout=30_000)
    assert delta.locator("table").inner_text() == shown and delta.get_by_label("on the map").is_checked()
    assert "No: δ = 0.1. Validation HR@10" in wrong_guess(delta, "δ = 10")
    delta.get_by_role("button", name="play").click()
    page.wait_for_function(
        "() => document.querySelector('.dae4rec-delta input').getAttribute('aria-valuetext') === 'δ = 0.1'"
    )
    shot(page, "page_delta")


@pytest.mark.parametrize(
    "name, columns", [("01_interaction_graph", 1), ("02_graph_autoencoder", 2), ("03_diffusion_training", 3)]
)
def test_the_graph(opened, name, columns):
    page, graph = opened(name, "graph")
    facts, lists = graph.locator(".facts"), graph.locator(".lists")
    assert lists.locator("section").count() == columns and lists.locator("section").first.locator("li").count() == 10
    assert not facts.is_visible()
    before = lists.inner_text()
    graph.locator("circle.glides").nth(100).click(force=True)
    assert lists.inner_text() != before and "item=100" in page.url and facts.is_visible()
    assert graph.locator("circle.pointed").count() == 1
    graph.get_by_label("name of an item").fill("nowhere")
    page.keyboard.press("Enter")
    assert graph.locator(".status").inner_text() == "No name has this in it."
    wanted = graph.locator("datalist option").nth(123).get_attribute("value")
    graph.get_by_label("name of an item").fill(wanted.upper()[3:])  # a part of it is enough
    page.keyboard.press("Enter")
    assert facts.inner_text().startswith(wanted)
    lists.locator("button").first.click()
    assert not facts.inner_text().startswith(wanted)
    buttons = graph.locator(".question button")
    buttons.first.click()
    assert graph.locator(".told").inner_text().startswith(("Yes.", "No:")) and buttons.first.is_disabled()
    shot(page, f"page_graph_{columns}")


def test_eigenvalues(opened):
    page, spectrum = opened("02_graph_autoencoder", "spectrum")
    facts, kept = spectrum.locator(".facts"), spectrum.get_by_label("how many eigenvectors are kept")
    assert not facts.is_visible()
    kept.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert "20 of 20, of which 1 is left out as negative" in kept.get_attribute("aria-valuetext")
    assert "have 0.45 on average, two of different kinds 0.55" in facts.inner_text()
    spectrum.get_by_role("checkbox").check()
    assert "distance to the graph is 0.0" in facts.inner_text()
    kept.fill("2")  # its stops: 0, 1, 2 and all
    assert "distance to the graph is 4.2" in facts.inner_text() and spectrum.locator("path.bar.used").count() == 2
    assert "No: about a tenth as far." in wrong_guess(spectrum, "half as far")
    shot(page, "page_spectrum")


@pytest.mark.parametrize("state", ["delta=9&person=7", "delta=-1", "schedule=5&t=900", "item=600", "item=x"])
def test_no_address_breaks_them(opened, state):
    page, delta = opened("03_diffusion_training", "delta", state)
    assert delta.get_by_label("δ, the weight of the item graph").get_attribute("aria-valuetext") == "δ = 10"
    assert (
        page.locator(".dae4rec-noise").get_by_label("t, the step of").get_attribute("aria-valuetext") == "t = 10 of 50"
    )
    assert page.locator(".dae4rec-graph .lists li").count() == 30
