"""The demo under Voila: its explorers load and react, training can be started and stopped, bad input is a sentence."""

import shutil

import pytest
from conftest import PICTURES, ROOT, free_port, pictures, serve, shot


def voila(folder):
    port = free_port()
    command = ["voila", "demo.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    yield from serve(command, f"http://127.0.0.1:{port}/", folder / "demo", JUPYTER_PATH=".")


@pytest.fixture(scope="module")
def demo(copy):
    yield from voila(copy)


@pytest.mark.parametrize("width", [1280, 400])
def test_both_explorers_react(page, demo, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(demo, timeout=90_000)
    page.wait_for_function(f"() => {PICTURES}.length === 1", timeout=90_000)
    drawn = "() => document.querySelector('.dae4rec-town .facts')?.textContent.startsWith('200 draws at S = 10')"
    page.wait_for_function(drawn, timeout=30_000)
    page.locator(".dae4rec-town circle").nth(100).click(force=True)
    assert page.locator(".dae4rec-town .trail button").count() == 7
    steps, deltas = page.locator(".dae4rec-steps"), page.locator(".dae4rec-delta")
    first = steps.locator("table").inner_text()
    steps.get_by_label("S, sampling steps").fill("5")
    steps.get_by_role("button", name="another first noise").click()
    assert steps.locator("table").inner_text() != first
    steps.scroll_into_view_if_needed()
    shot(page, f"demo_S_{width}")
    page.add_script_tag(path=ROOT / "docs/node_modules/axe-core/axe.min.js")
    found = page.evaluate(
        "async () => (await axe.run({preload: false})).violations.map(v => [v.impact, v.id, v.nodes[0].target[0]])"
    )
    assert [violation for violation in found if violation[0] in ("serious", "critical")] == []
    deltas.get_by_label("δ, the weight of the item graph").fill("0")
    assert "δ = 0" in deltas.locator("thead").inner_text()
    deltas.scroll_into_view_if_needed()
    shot(page, f"demo_delta_{width}")
    delta = page.get_by_label("δ", exact=True)  # the field of the training
    delta.select_option("1000")
    alert = page.locator(".widget-html [role=alert]")
    alert.wait_for()
    assert "train it now" in alert.inner_text()
    page.get_by_role("button", name="train this δ now").click()
    page.wait_for_function("() => / s, batch [1-9]/.test(document.body.innerText)", timeout=60_000)  # it goes on
    page.get_by_role("button", name="stop", exact=True).click()
    page.wait_for_function("() => document.body.innerText.includes('Stopped')", timeout=10_000)  # at the next batch
    assert len(pictures(page)) == 0


def test_without_artifacts_there_is_a_sentence(page, tmp_path):
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/town").symlink_to(ROOT / "data/town")
    for address in voila(tmp_path):
        page.goto(address, timeout=90_000)
        page.locator(".widget-html [role=alert]").first.wait_for(timeout=90_000)
        assert "make artifacts" in page.locator(".widget-html [role=alert]").first.inner_text()
        shot(page, "demo_no_artifacts")
