"""The static edition from file://, with the network off: sliders, equations, search, small screens and the dark."""

import re
import statistics

import pytest
from conftest import PICTURES, ROOT, SHOTS, Watch, context_of, milliseconds, shot

SITE = ROOT / "docs/_build/html"
PAGES = [
    *(
        "docs/index",
        "docs/map",
        "docs/glossary",
        "docs/related",
        "docs/reproduction",
        "docs/model-card",
        "docs/datasheet",
        "docs/promises",
        "results/LOG",
    ),
    *(f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))),
]


@pytest.fixture
def offline(browser):
    """Makes pages without a network, of a given width and colour scheme, and checks all of them at the end."""
    contexts = []

    def make(width: int = 1280, scheme: str = "light"):
        context = context_of(
            browser, viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, has_touch=width < 500
        )
        page = context.new_page()
        page.watch = Watch(page)
        contexts.append((context, page))
        return page

    yield make
    for context, page in contexts:
        page.watch.check()
        context.close()


def test_the_licences_travel_with_the_site(offline):
    page = offline()
    page.goto((SITE / "docs/index.html").as_uri())
    page.get_by_role("link", name="their licences").click()
    text = page.locator("body").inner_text()
    assert "mathjax 3.2.2" in text and "Apache License" in text and "requirejs 2.3.7" in text


def test_the_slider_of_04_works_without_a_network(offline):
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    page.wait_for_function(f"() => {PICTURES}.length === 1", timeout=30_000)
    handles = page.locator(".jupyter-widgets .noUi-handle:visible")  # islands: rho, S
    handles.nth(1).focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 50 steps')")
    times = milliseconds(page, ["ArrowLeft"] * 2 + ["ArrowRight", "ArrowLeft"] * 4, 0)
    print("static, ms:", [round(t) for t in times])
    assert statistics.median(times) < 4 * empty_redraw(page)


def empty_redraw(page) -> float:
    """How long this machine takes now for one redraw of nothing, but at least 16 ms."""
    took = page.evaluate(
        "async () => { const t = performance.now(); for (let n = 0; n < 30; n++) "
        "await new Promise(requestAnimationFrame); return (performance.now() - t) / 30; }"
    )
    return max(16.0, took)


def test_the_s_explorer_runs_in_the_page(offline):
    """Every control changes what is shown, with the network off; a move at S = 10 takes a few redraws."""
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    steps = page.locator(".dae4rec-steps")
    steps.wait_for(timeout=30_000)
    facts, table = steps.locator(".facts"), steps.locator("table")
    picture = steps.locator(".map svg")
    assert "rank 16 of 600" in facts.inner_text()  # what the notebook says of this person
    assert not steps.locator(".spoils h2").first.is_visible()  # the curves answer the question
    S = steps.get_by_label("S, sampling steps")
    S.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert S.get_attribute("aria-valuetext") == "S = 1" and "rank 10 of 600" in facts.inner_text()
    assert steps.locator(".chart circle").count() > 30 and steps.locator(".chart svg[role=img]").count() == 4
    S.fill("2")  # nobody measured S = 3 for everybody, and no other S is told in its place
    labels = [svg.get_attribute("aria-label") for svg in steps.locator(".chart svg[role=img]").all()]
    assert all("at 3: " in label and "not measured" in label and "0." not in label for label in labels[1:])
    S.fill("4")
    shown = steps.get_by_label("the step that is shown")
    assert shown.get_attribute("aria-valuetext") == "step 10 of 10, t = 20"
    stops = picture.locator("circle.stop").count()
    shown.fill("2")
    assert picture.locator("circle.stop").count() == 3 < stops == 10 and picture.locator(".mended").count() == 0
    steps.get_by_role("button", name="play").click()
    page.wait_for_function("() => document.querySelectorAll('.dae4rec-steps circle.stop').length === 10")
    assert picture.locator(".mended").count() == 1
    steps.get_by_role("checkbox", name="compensator").check()
    assert "rank 6 of 600" in facts.inner_text()
    steps.get_by_role("button", name="hold").click()
    steps.get_by_role("checkbox", name="compensator").uncheck()
    assert table.locator("thead th").count() == 3 and picture.locator(".held").count() == 1
    assert table.locator("td.changed").count() > 0
    before = table.inner_text()
    steps.get_by_label("where the steps stand").select_option("log-SNR, order 2")
    assert table.inner_text() != before
    steps.get_by_label("rho, noise").fill("4")  # noise in every step and the second order exclude each other
    assert steps.get_by_label("where the steps stand").input_value() == "1"
    before = table.inner_text()
    steps.get_by_role("button", name="another first noise").click()
    assert table.inner_text() != before
    steps.get_by_label("200 first noises").check()
    page.wait_for_function("() => document.querySelector('.dae4rec-steps .facts').textContent.includes('bits')")
    assert picture.locator("circle.end").count() == 200 and "total variation" in facts.inner_text()
    assert "end of a draw" in steps.locator(".legend").inner_text()
    steps.get_by_label("on the map").check()
    assert picture.locator("circle.end").count() == 0
    steps.get_by_label("person", exact=True).select_option("u03727 typical")
    assert table.locator("thead th").count() == 2  # what was held was another person's
    shared = page.url
    page.goto("about:blank")
    page.goto(shared)  # the address holds the state
    steps.wait_for(timeout=30_000)
    assert "u03727" in steps.get_by_label("person", exact=True).locator("option:checked").inner_text()
    assert steps.get_by_label("200 first noises").is_checked()
    steps.get_by_label("200 first noises").uncheck()
    steps.get_by_role("button", name="S = 10", exact=True).click()  # a wrong guess
    assert "No: S = 1. HR@10" in steps.locator(".told").inner_text()
    took = page.evaluate(
        """async () => {
        const slider = document.querySelector('.dae4rec-steps input[type=range]'), times = [];
        for (let n = 0; n < 20; n++) {
            slider.value = 3 + (n % 2);  // S = 5 and 10
            const start = performance.now();
            slider.dispatchEvent(new Event('input'));
            await new Promise(requestAnimationFrame);
            times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[10];
    }"""
    )
    print(f"the S explorer, from hand to picture: {took:.0f} ms, an empty redraw {empty_redraw(page):.0f} ms")
    assert took < 3 * empty_redraw(page)
    page.locator(".dae4rec-steps").scroll_into_view_if_needed()
    shot(page, "site_steps")


def test_the_status_follows_and_the_address_may_change(offline):
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    steps = page.locator(".dae4rec-steps")
    steps.locator("circle.listed").first.wait_for(timeout=30_000)
    steps.scroll_into_view_if_needed()
    steps.locator("circle.listed").first.hover(force=True)
    told = steps.locator(".status")
    assert ": rank " in told.inner_text()
    name = told.inner_text().split(": rank ")[0]
    steps.get_by_label("person", exact=True).select_option("u03604 breaks the rule")
    listed = [row.split("\t") for row in steps.locator("table").inner_text().splitlines()[1:]]
    ranks = {words.removeprefix("★ "): rank for rank, words in listed}
    found = told.inner_text().split(": rank ")
    assert found[0] == name and ranks.get(name, found[1]) == found[1]
    page.evaluate("() => { window.location.hash = 'who=0&S=50&way=1&rho=0&c=0&noise=3&many=0&map=0' }")
    page.wait_for_function(
        "() => document.querySelector('.dae4rec-steps th[scope=col] + th').innerText.includes('S = 50')"
    )
    assert "even in log-SNR, noise 3" in steps.locator("th[scope=col]").nth(1).inner_text()


@pytest.mark.parametrize("state", ["who=9&S=10", "S=7&who=0&rho=9&way=2", "who=&noise=abc", "the-s-explorer"])
def test_no_address_breaks_the_s_explorer(offline, state):
    """What can't be is left aside for what the explorer opens with."""
    page = offline(400)
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri() + f"#{state}")
    page.wait_for_function("() => document.querySelector('.dae4rec-steps tbody td')", timeout=30_000)
    steps = page.locator(".dae4rec-steps")
    assert steps.get_by_label("S, sampling steps").get_attribute("aria-valuetext") == "S = 10"
    assert steps.get_by_label("rho, noise").get_attribute("aria-valuetext").startswith("0%")
    assert steps.get_by_label("person", exact=True).input_value() == "0"


def test_the_page_of_04_is_light():
    assert (SITE / "notebooks/04_skip_step_sampling.html").stat().st_size < 4 * 2**20


RAW = """() => {
    const walk = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT), found = [];
    while (walk.nextNode()) {
        const { textContent, parentElement } = walk.currentNode;
        if (textContent.includes('$') && !parentElement.closest('pre, code, script')) found.push(textContent.trim());
    }
    return found;
}"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_every_page_reads_well(offline, name, width, scheme):
    page = offline(width, scheme)
    page.goto((SITE / f"{name}.html").as_uri())
    page.wait_for_load_state("load")
    notebook = ROOT / f"{name}.ipynb"
    if notebook.exists() and "widgets.show(" in notebook.read_text():
        page.wait_for_function(f"() => {PICTURES}.length > 0 || document.querySelector('.dae4rec svg')", timeout=30_000)
        page.locator(".widget-html img:visible, .dae4rec svg").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    SHOTS.mkdir(exist_ok=True)
    shot(page, f"site_{name.split('/')[1]}_{width}_{scheme}")
    assert page.locator("h1").count() == 1
    assert page.get_by_text("Math input error").count() == 0
    assert page.evaluate(RAW) == [], "an equation that stayed text"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width + 1, "the page scrolls sideways"
    for src in page.evaluate("() => [...document.querySelectorAll('article img')].filter(e => !e.alt).map(e => e.src)"):
        pytest.fail(f"a picture without a text: {src[:80]}")


def test_the_first_slider_is_not_far_by_keyboard(offline):
    """Links and the sidebar stand before it, and no equation does."""
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.locator(".noUi-handle:visible").first.wait_for()
    presses, tag, role = 0, "", ""
    while role != "slider":
        page.keyboard.press("Tab")
        tag, role = page.evaluate("() => [document.activeElement.tagName, document.activeElement.getAttribute('role')]")
        presses += 1
        assert tag != "MJX-CONTAINER" and presses < 50
    print("Tabs to the first slider of 04:", presses)


def test_equations_are_set_and_search_finds(offline):
    page = offline()
    page.goto((SITE / "notebooks/04_skip_step_sampling.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.goto((SITE / "search.html").as_uri() + "?q=compensator")
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li a").count() >= 3


DRAWN = "() => document.querySelector('.dae4rec-town .facts')?.textContent.startsWith('200 draws at S = ')"


def test_the_town_runs_in_the_page(offline):
    """The model, the law and counting answer to clicks, keys and the address, with the network off."""
    page = offline()
    page.goto((SITE / "index.html").as_uri())  # the root leads to the home page
    page.wait_for_url("**/docs/index.html*")
    page.wait_for_function(DRAWN)
    assert "history" not in page.url  # the reader's own address stays until they do something
    town = page.locator("#town")
    assert town.locator("circle").count() == 600 and town.locator(".trail button").count() == 6
    first = town.locator(".lists section.law li").first.inner_text()
    town.locator("circle").nth(100).click(force=True)
    assert town.locator(".trail button").count() == 7
    page.wait_for_function(DRAWN)
    assert town.locator(".lists section.law li").first.inner_text() != first
    town.get_by_label("the model", exact=True).check()
    assert town.locator("circle.on.model").count() > 0 and town.locator("circle.on.law").count() == 0
    before = town.locator(".facts").inner_text()
    steps = town.get_by_label("S, sampling steps")
    assert steps.get_attribute("aria-valuetext") == "S = 10"
    steps.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert steps.get_attribute("aria-valuetext") == "S = 1"
    page.wait_for_function(DRAWN)
    assert town.locator(".facts").inner_text() != before
    name = page.locator("#town datalist option").nth(123).get_attribute("value")
    town.get_by_label("name of a place").fill(name.upper())
    page.keyboard.press("Enter")
    assert town.locator(".trail button").last.inner_text().startswith(name.split(",")[0])
    town.get_by_label("name of a place").fill("nowhere")
    page.keyboard.press("Enter")
    page.wait_for_function(DRAWN)  # the draws of the last place, which end later, don't wipe the answer out
    assert town.locator(".status").inner_text() == "No name has this in it."
    town.locator(".trail button").last.focus()
    page.keyboard.press("Enter")
    assert town.locator(".trail button").count() == 7
    assert page.evaluate("() => document.activeElement.closest('.trail') !== null")  # the keyboard stays where it was
    shared, shown = page.url, town.locator(".lists section.law").inner_text()
    page.goto("about:blank")
    page.goto(shared)  # the address holds the state
    page.wait_for_function(DRAWN)
    assert town.locator(".lists section.law").inner_text() == shown
    town.locator("circle").nth(7).click(force=True)
    page.wait_for_function(DRAWN)
    far = re.search(r"are ([\d.]+) from .* counting is ([\d.]+)\.", town.locator(".facts").inner_text())
    answer = "the model" if far[1] < far[2] else "counting"
    town.get_by_role("button", name=answer, exact=True).click()
    told = f"Yes. Counting is {far[2]} from the law and the draws {far[1]}"
    assert town.locator(".told").inner_text().startswith(told)
    town.get_by_label("load a person").select_option("1")  # another history is asked about anew
    assert town.locator(".told").inner_text() == "" and town.get_by_role("button", name=answer, exact=True).is_enabled()
    town.get_by_role("button", name="clear").click()
    assert town.locator(".trail button").count() == 0 and town.locator(".lists li:visible").count() == 0


def test_the_tour_says_what_is_true(offline):
    """Eight steps, by keyboard; what they say of bits and distances holds for the person of the tour."""
    page = offline()
    page.goto((SITE / "docs/index.html").as_uri())
    page.wait_for_function(DRAWN)
    tour, facts = page.locator("#town .tour"), page.locator("#town .facts")
    page.get_by_role("button", name="take the tour").focus()
    far, bits, told = {}, {}, []
    for n in range(1, 9):
        page.keyboard.press("Enter")
        assert tour.locator("p").inner_text().startswith(f"{n} of 8. ")
        page.wait_for_function(DRAWN)
        text = facts.inner_text()
        far[n], bits[n] = (
            float(re.search(r"are ([\d.]+) from", text)[1]),
            float(re.search(r"have ([\d.]+) bits", text)[1]),
        )
        told.append(text)
    assert bits[5] < bits[3] and abs(far[5] - far[3]) < 0.05  # fifty steps: hardly nearer, and fewer places
    assert bits[4] < bits[3] and "S = 1 " in told[3] and "S = 50 " in told[4]  # fewer places with one step
    assert abs(far[6] - far[3]) < 0.05  # another noise hardly changes the distance
    assert page.locator("#town .trail button").count() == 7
    page.get_by_role("button", name="back").click()
    assert tour.locator("p").inner_text().startswith("7 of 8. ")
    page.get_by_role("button", name="leave the tour").click()
    assert tour.locator("p").inner_text() == "" and page.get_by_role("button", name="take the tour").is_visible()


@pytest.mark.parametrize(
    "state, visits",
    [
        ("history=1.5&slots=1", 6),  # what can't be is left aside for the first person
        ("history=3&slots=abc", 6),
        ("history=600&slots=1", 6),
        ("history=3,4&slots=1", 6),
        ("history=3&slots=1&noise=Infinity&S=7", 1),
        ("where-to-begin", 6),
        ("history=&slots=", 0),
    ],
)
def test_no_address_breaks_the_town(offline, state, visits):
    page = offline()
    page.goto((SITE / "docs/index.html").as_uri() + f"#{state}")
    page.wait_for_selector("#town .trail li")
    if visits:
        page.wait_for_function(DRAWN)
        assert "at S = 10 " in page.locator("#town .facts").text_content()
    assert page.locator("#town .trail button").count() == visits
    assert page.url.endswith(f"#{state}")


def test_a_finger_first_names_a_place_and_then_goes_there(offline):
    page = offline(400)
    page.goto((SITE / "docs/index.html").as_uri())
    page.wait_for_function(DRAWN)
    dot = page.locator("#town circle").nth(100)
    dot.scroll_into_view_if_needed()
    for visits in (6, 7):
        dot.tap(force=True)
        assert page.locator("#town .trail button").count() == visits
    assert ": the true law " in page.locator("#town .status").inner_text()


def test_the_home_page_is_light_and_quick(offline):
    assert sum(path.stat().st_size for path in (SITE / "docs/index.html", SITE / "_static/town.js")) < 2 * 2**20
    page = offline()
    page.goto((SITE / "docs/index.html").as_uri())
    page.wait_for_function("() => document.querySelectorAll('#town .lists section.law li').length > 0")
    shown = page.evaluate("() => performance.now()")  # since the page was opened
    empty = empty_redraw(page)
    assert shown < max(1_500, 240 * empty), (shown, empty)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing_serious(offline, name, width, scheme):
    page = offline(width, scheme)
    page.goto((SITE / f"{name}.html").as_uri())
    notebook = ROOT / f"{name}.ipynb"
    if notebook.exists() and "widgets.show(" in notebook.read_text():
        page.wait_for_function(f"() => {PICTURES}.length > 0 || document.querySelector('.dae4rec svg')")
    page.wait_for_timeout(1_000)  # what is mended when widgets have come
    page.add_script_tag(path=ROOT / "docs/node_modules/axe-core/axe.min.js")
    found = page.evaluate(
        "async () => (await axe.run({preload: false})).violations.map(v => [v.impact, v.id, v.nodes[0].target[0]])"
    )
    assert [violation for violation in found if violation[0] in ("serious", "critical")] == []
