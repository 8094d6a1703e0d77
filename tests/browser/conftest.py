"""A real browser: Debian's Chromium under playwright, a JupyterLab and a Voila of their own, and the built site.

Run by `make test-browser`. Screenshots go to tests/browser/shots, which git ignores.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="the browser extra is not installed; run `make test-browser`")
from playwright.sync_api import Page, TimeoutError, sync_playwright

ROOT = Path(__file__).parents[2]
SHOTS = Path(__file__).parent / "shots"
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("google-chrome") or "")
# without these a machine without internet is kept busy by the browser's own requests
FLAGS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        pytest.fail("There is no Chromium; install one, or name it with CHROMIUM=/path/to/it.")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Watch:
    """Collects what must not happen: errors on the page or its console, and requests that leave this machine."""

    def __init__(self, page: Page):
        self.errors, self.outside = [], []
        page.on("pageerror", lambda error: self.error(str(error)))
        page.on("console", lambda line: self.error(line.text) if line.type == "error" else None)
        page.on("request", self.request)

    def error(self, text: str) -> None:
        # JupyterLab's own complaint about questions that a restarted kernel can't answer any more
        if "Canceled future" not in text:
            self.errors.append(text)

    def request(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:")):
            self.outside.append(request.url)

    def check(self) -> None:
        assert not self.errors and not self.outside, (self.errors[:5], self.outside[:5])


def context_of(browser, **options):
    """A context whose pages scroll at once: smoothly, as the site's theme does, they move on under the mouse."""
    context = browser.new_context(**options)
    at_once = "document.documentElement.style.scrollBehavior = 'auto'"
    context.add_init_script(f"addEventListener('DOMContentLoaded', () => {at_once})")
    return context


@pytest.fixture
def page(browser):
    """A page of 1280 x 1000 that fails the test on any error or outside request."""
    context = context_of(browser, viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.watch = Watch(page)
    yield page
    page.watch.check()
    context.close()


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


PICTURES = "[...document.querySelectorAll('.widget-html img')].filter(e => e.offsetParent !== null)"


def pictures(page: Page) -> list[str]:
    """The texts of all visible explorer pictures: they tell what each shows."""
    return page.evaluate(f"() => {PICTURES}.map(e => e.alt)")


def milliseconds(page: Page, keys: list[str], n: int = 0) -> list[float]:
    """Time from each key press to another n-th picture on the page, measured inside the browser."""
    found = []
    for key in keys:
        page.evaluate(
            f"""n => {{
            const now = () => {PICTURES}[n]?.src, before = now();
            window.took = new Promise(done => window.addEventListener('keydown', () => {{
                const start = performance.now();
                const look = () => now() && now() !== before
                    ? done(performance.now() - start) : requestAnimationFrame(look);
                look();
            }}, {{once: true, capture: true}}));
        }}""",
            n,
        )
        page.keyboard.press(key)
        found.append(page.evaluate("() => window.took"))
    return found


def slowness() -> float:
    """How many times longer a fixed computation takes now than 0.12 s, the least of a dozen on two quiet cores.

    A shared machine's cores change speed by a half within a minute (0.18 to 0.31 s for the same work) and count the
    lost time as processor time, so only work of a known length shows it.
    """
    start = time.perf_counter()
    for _ in range(1000):
        sum(range(10_000))
    return max(1.0, (time.perf_counter() - start) / 0.12)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve(command: list[str], url: str, folder: Path, **environment: str):
    """Start a server in `folder` and yield once `url` answers; stop it afterwards."""
    log = (folder / "server.log").open("w")
    command, environment = [sys.executable, "-m", *command], os.environ | environment
    server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=2)
            break
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.25)
    yield url
    server.terminate()
    server.wait(timeout=20)
    log.close()


@pytest.fixture(scope="session")
def copy(tmp_path_factory) -> Path:
    """A copy of the notebooks beside the data, so that a test may run and save them."""
    folder = tmp_path_factory.mktemp("series")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    shutil.copytree(ROOT / "demo", folder / "demo")
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "results").symlink_to(ROOT / "results")
    return folder


@pytest.fixture(scope="session")
def lab(copy):
    """The address of a JupyterLab over the copy, with every cell kept in the page."""
    settings = copy / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    other = copy / "settings" / "@jupyterlab" / "apputils-extension"
    other.mkdir(parents=True)
    (other / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    port = free_port()
    command = ["jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=t"]
    command += [f"--LabApp.user_settings_dir={copy / 'settings'}", "--ServerApp.ip=127.0.0.1"]
    yield from serve(command, f"http://127.0.0.1:{port}/lab?token=t", copy)


PROMPTS = """() => [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell .jp-InputPrompt')]
    .map(e => e.innerText.trim())"""
ERRORS = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"  # tracebacks and warnings


def all_cells_ran(page: Page) -> bool:
    """Wait until each cell has its number; False when one failed or none has ended for a minute (the longest: 20 s)."""
    since, before = time.monotonic(), []
    while time.monotonic() - since < 60 and not page.locator(ERRORS).count():
        prompts = page.evaluate(PROMPTS)
        if all(any(c.isdigit() for c in p) for p in prompts):
            return True
        if prompts != before:
            since, before = time.monotonic(), prompts
        page.wait_for_timeout(200)
    return False


def run_all(page: Page) -> bool:
    """Click on Run All Cells until the cells wait for the kernel; False if they don't after a minute or two."""
    for _ in range(10):
        try:
            for asked in page.locator("dialog.jp-Dialog .jp-mod-accept").all():
                asked.click(timeout=5_000)  # a busy machine is asked which kernel it wants: the one that is offered
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
            page.get_by_text("Run All Cells", exact=True).click(timeout=5_000)
            page.wait_for_function(f"() => ({PROMPTS})().includes('[*]:')", timeout=5_000)
            return True
        except TimeoutError:
            assert page.locator(ERRORS).count() == 0, page.locator(ERRORS).first.inner_text()
    return False


def open_and_run(page: Page, lab: str, name: str) -> None:
    """Open a notebook in JupyterLab, run all its cells, and wait until the last one has run.

    A run that is asked for before the kernel's socket is up is lost: its cells never start, or they stay at [*] for
    ever. The notebook is opened again then, with a new kernel, but not where a cell failed.
    """
    sessions = lab.replace("/lab?", "/api/sessions{}?")
    for _ in range(3):
        page.goto(lab.replace("/lab?", f"/lab/tree/notebooks/{name}?reset&"))
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=60_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        if run_all(page) and all_cells_ran(page):
            break
        assert page.locator(ERRORS).count() == 0, page.locator(ERRORS).first.inner_text()
        print(f"{name} is run again, because its cells stand at", *page.evaluate(PROMPTS))
        for session in page.request.get(sessions.format("")).json():
            page.request.delete(sessions.format(f"/{session['id']}"))
    else:
        raise AssertionError(f"{name} did not run, and its cells stand at {' '.join(page.evaluate(PROMPTS))}")
    assert page.locator(ERRORS).count() == 0, page.locator(ERRORS).first.inner_text()
