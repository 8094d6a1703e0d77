"""The static edition from file://, with the network off: sliders, equations, search, small screens and the dark."""

import statistics

import pytest
from conftest import PICTURES, ROOT, SHOTS, Watch, milliseconds, pictures, shot

SITE = ROOT / "docs/_build/html"
PAGES = [
    *("docs/index", "docs/map", "docs/glossary", "docs/related"),
    *(f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))),
]


@pytest.fixture
def offline(browser):
    """Makes pages without a network, of a given width and colour scheme, and checks all of them at the end."""
    contexts = []

    def make(width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, has_touch=width < 500
        )
        page = context.new_page()
        page.watch = Watch(page)
        contexts.append((context, page))
        return page

    yield make
    for context, page in contexts:
        page.watch.check()
        context.close()


def test_the_slider_of_04_works_without_a_network(offline):
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    page.wait_for_function(f"() => {PICTURES}.length === 2", timeout=30_000)
    handles = page.locator(".jupyter-widgets .noUi-handle:visible")  # islands: rho, S; town: user, S
    handles.nth(1).focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 50 steps')")
    handles.nth(3).focus()
    times = milliseconds(page, ["ArrowLeft"] * 2 + ["ArrowRight", "ArrowLeft"] * 4, 1)
    print("static, ms:", [round(t) for t in times])
    before = page.locator(".widget-html table:visible").inner_text()
    page.keyboard.press("Home")
    page.wait_for_function(f"() => {PICTURES}[1].alt.includes('Step 1 of 1,')")
    assert page.locator(".widget-html table:visible").inner_text() != before
    page.get_by_label("S", exact=True).locator("visible=true").last.select_option("200")
    page.wait_for_function(f"() => {PICTURES}[1].alt.includes('of 200')")
    assert statistics.median(times) < 60


def test_every_slider_of_03_moves(offline):
    page = offline()
    page.goto((SITE / "notebooks/03_diffusion_training.html").as_uri())
    page.wait_for_function(f"() => {PICTURES}.length === 3", timeout=30_000)
    for n, (label, value, expected) in enumerate(
        [("t", "50", "t = 50"), ("δ", "0", "δ = 0:"), ("item", None, "Map around")]
    ):
        choice = page.get_by_label(label, exact=True).first
        before = pictures(page)[n]
        choice.select_option(value) if value else choice.select_option(index=3)
        page.wait_for_function(f"([n, old]) => {PICTURES}[n].alt !== old", arg=[n, before])
        assert expected in pictures(page)[n]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_every_page_reads_well(offline, name, width, scheme):
    page = offline(width, scheme)
    page.goto((SITE / f"{name}.html").as_uri())
    page.wait_for_load_state("load")
    notebook = ROOT / f"{name}.ipynb"
    if notebook.exists() and "widgets.show(" in notebook.read_text():
        page.wait_for_function(f"() => {PICTURES}.length > 0", timeout=30_000)
        page.locator(".widget-html img:visible").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    SHOTS.mkdir(exist_ok=True)
    shot(page, f"site_{name.split('/')[1]}_{width}_{scheme}")
    assert page.locator("h1").count() == 1
    assert page.get_by_text("Math input error").count() == 0
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width + 1, "the page scrolls sideways"
    for src in page.evaluate("() => [...document.querySelectorAll('article img')].filter(e => !e.alt).map(e => e.src)"):
        pytest.fail(f"a picture without a text: {src[:80]}")


def test_equations_are_set_and_search_finds(offline):
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.goto((SITE / "search.html").as_uri() + "?q=compensator")
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li a").count() >= 3
