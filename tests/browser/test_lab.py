"""Notebook 04 in JupyterLab: keys and mouse move picture and list, with ready-made frames and with the model live.

Its first explorer shows the islands (sliders rho and S), its second is the model in the page.
Latencies are printed; the limits are the product's: 60 ms ready-made, 150 ms live, medians on 2 quiet cores. Each is
judged by the speed that the machine has at its moment.
"""

import statistics

import nbformat
import psutil
import pytest
from conftest import PICTURES, milliseconds, open_and_run, shot, slowness

FROM_RIGHT = ["ArrowLeft"] * 3 + ["ArrowRight", "ArrowLeft"] * 4  # each moves a slider that starts at its right end


def handles(page):
    return page.locator(".jupyter-widgets .noUi-handle:visible")


def median_of(name: str, page, keys: list[str]) -> float:
    """The median of milliseconds from key to picture, each divided by how slow the machine is just before it."""
    slow, times = zip(*((slowness(), milliseconds(page, [key])[0]) for key in keys), strict=True)
    print(f"{name}, ms:", [round(t) for t in times], "on a machine slower by", [round(s, 1) for s in slow])
    return statistics.median(t / s for t, s in zip(times, slow, strict=True))


def drag(page, handle, pixels: int) -> None:
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=6)
    page.mouse.up()


def test_ready_made_frames_and_the_s_explorer(page, lab):
    """On one page, because it takes half a minute to run. The S explorer needs the kernel no more once it is there."""
    open_and_run(page, lab, "04_skip_step_sampling.ipynb")
    page.wait_for_function(f"() => {PICTURES}.length === 1")
    rho, S = (handles(page).nth(n) for n in range(2))
    S.scroll_into_view_if_needed()
    S.focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 50 steps, rho = 0.')")
    took = median_of("ready-made", page, FROM_RIGHT)
    rho.focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('rho = posterior.')")
    drag(page, handles(page).nth(1), -400)  # each rho has a slider of its own
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 1 steps')")
    page.get_by_label("S", exact=True).locator("visible=true").last.select_option("10")  # what a screen reader finds
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 10 steps')")
    shot(page, "lab_frames")
    assert took < 60
    steps = page.locator(".dae4rec-steps")
    steps.wait_for(timeout=60_000)
    steps.scroll_into_view_if_needed()
    assert "rank 16 of 600" in steps.locator(".facts").inner_text()
    steps.get_by_label("S, sampling steps").fill("0")
    assert "rank 10 of 600" in steps.locator(".facts").inner_text()
    steps.get_by_label("200 first noises").check()
    page.wait_for_function("() => document.querySelector('.dae4rec-steps .facts').textContent.includes('bits')")
    shot(page, "lab_steps")


@pytest.fixture(scope="module")
def live(copy):
    """Notebook 04 with its switch on."""
    notebook = nbformat.read(copy / "notebooks/04_skip_step_sampling.ipynb", 4)
    cell = next(c for c in notebook.cells if "LIVE = False" in c.source)
    cell.source = cell.source.replace("LIVE = False", "LIVE = True")
    nbformat.write(notebook, copy / "notebooks/live.ipynb")
    return "live.ipynb"


def newest_kernel() -> psutil.Process:
    found = psutil.Process().children(recursive=True)
    return max((p for p in found if "ipykernel_launcher" in " ".join(p.cmdline())), key=psutil.Process.create_time)


def test_the_model_runs_at_every_move_and_a_thousand_end_on_the_last_value(page, lab, live):
    open_and_run(page, lab, live)
    page.wait_for_function(f"() => {PICTURES}.length === 1")
    S = handles(page).nth(1)
    S.scroll_into_view_if_needed()
    S.focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 50 steps')")
    took = median_of("live", page, FROM_RIGHT)
    drag(page, S, -400)
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 1 steps')")
    shot(page, "lab_live")
    assert took < 150
    kernel = newest_kernel()
    S.focus()
    heap = "() => performance.memory.usedJSHeapSize"
    kernel_before, page_before = kernel.memory_info().rss, page.evaluate(heap)
    for n in range(1000):
        page.keyboard.press("ArrowRight" if (n // 40) % 2 == 0 else "ArrowLeft")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => {PICTURES}[0].alt.includes('S = 2 steps')", timeout=60_000)
    page.locator(".widget-label", has_text="ready").last.wait_for()
    grown = (kernel.memory_info().rss - kernel_before) / 2**20, (page.evaluate(heap) - page_before) / 2**20
    print(f"grown by: kernel {grown[0]:.0f} MB, page {grown[1]:.0f} MB")
    assert max(grown) < 100
    assert page.get_by_label("S", exact=True).first.input_value() == "2"


def test_the_town_explorer_runs_in_lab(page, lab):
    """A widget of our own: it comes with the kernel's answer and then needs the kernel no more."""
    open_and_run(page, lab, "00_start_here.ipynb")
    done = "() => document.querySelector('.dae4rec-town .facts')?.textContent.startsWith('200 draws at S = ')"
    page.wait_for_function(done, timeout=120_000)
    town = page.locator(".dae4rec-town").first
    town.scroll_into_view_if_needed()
    first = town.locator(".lists section.model li").first.inner_text()
    town.locator("circle").nth(100).click(force=True)
    assert town.locator(".trail button").count() == 7
    page.wait_for_function(done)
    assert town.locator(".lists section.model li").first.inner_text() != first
    shot(page, "lab_town")


def test_graph_and_eigenvalues_run_in_lab(page, lab):
    open_and_run(page, lab, "02_graph_autoencoder.ipynb")
    graph, spectrum = page.locator(".dae4rec-graph"), page.locator(".dae4rec-spectrum")
    graph.wait_for(timeout=60_000)
    graph.scroll_into_view_if_needed()
    before = graph.locator(".lists").inner_text()
    graph.locator("circle.glides").nth(100).click(force=True)
    assert graph.locator(".lists").inner_text() != before
    spectrum.get_by_role("checkbox").check()
    assert "distance to the graph is 0.0" in spectrum.locator(".facts").inner_text()
    shot(page, "lab_spectrum")
