"""Execute notebooks in place, so that an unchanged rebuild is byte-identical and a change shows a diff one can review.

    python notebooks/build.py                              all of notebooks/*.ipynb, in order, and the demo
    python notebooks/build.py notebooks/01_*.ipynb         some of them
    python notebooks/build.py drafts/01_graph.py           a py:percent text becomes notebooks/<its name>.ipynb

What would differ between two runs is made the same: cell ids follow the cell's place, widget ids their first showing,
no timing is recorded, progress bars keep their count and lose their clock, keys are sorted. A notebook that fails is
left as it was. The demo keeps the still pictures of its widgets alone: with their models they would weigh 7 MB, and it
runs under Voila anyway. To edit one as text, use `jupytext --to py:percent`.
"""

import json
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).resolve().parent
DEMO = FOLDER.parent / "demo/demo.ipynb"
LIMIT = 600  # seconds a cell may take
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def execute(source: Path) -> dict:
    """Run the demo in its own folder, others in the notebooks'; returns the notebook as plain JSON data."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number:03d}"
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(home(source))}},
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}  # no patch version of Python in the diff
    return json.loads(nbformat.writes(notebook))


def home(source: Path) -> Path:
    """Where a source is run and the notebook made from it lies."""
    return DEMO.parent if source.resolve() == DEMO else FOLDER


def keep_stills(notebook: dict) -> None:
    """Leave pictures and words of the widgets, and take the widgets away."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)


def settle_progress_bars(state: dict) -> None:
    """Write each bar's words anew from its count: tqdm's hold times, so no two runs would agree on them.

    The bar itself stays, because nbval expects every output of the run in the file.
    """
    for model in list(state.values()):
        names = [m.removeprefix("IPY_MODEL_") for m in model["state"].get("children", [])]
        parts = [state[name] for name in names if name in state]
        if [part["model_name"] for part in parts] == ["HTMLModel", "FloatProgressModel", "HTMLModel"]:
            left, bar, right = (part["state"] for part in parts)
            done, total = bar.get("value", 0.0), bar.get("max", 100.0)
            left["value"] = re.sub(r"\s*\d+%", f" {done / total:.0%}" if total else "", left.get("value", ""))
            counted = "/" in right.get("value", "").split("[")[0]  # a bar without a total shows "7it" instead
            right["value"] = f" {done:.0f}/{total:.0f}" if counted else right.get("value", "").split("[")[0]


def reachable(state: dict, shown: list[str]) -> list[str]:
    """Widget ids in the order in which the shown ones refer to them; links (which refer to others) come last."""
    found: list[str] = []

    def walk(model_id: str) -> None:
        if model_id in state and model_id not in found:
            found.append(model_id)
            for other in re.findall(r"IPY_MODEL_([0-9a-f]{32})", json.dumps(state[model_id])):
                walk(other)

    for model_id in shown:
        walk(model_id)
    links = [m for m in state if "LinkModel" in state[m]["model_name"]]
    order = {m: re.findall(r"IPY_MODEL_([0-9a-f]{32})", json.dumps(state[m]["state"])) for m in links}
    for link in sorted(
        (m for m in links if set(order[m]) <= set(found)), key=lambda m: [found.index(o) for o in order[m]]
    ):
        walk(link)
    return found


def normalise(notebook: dict) -> str:
    """The notebook's text with stable widget ids and sorted keys."""
    state = notebook["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state", {})
    shown = [
        o["data"][VIEW]["model_id"]
        for c in notebook["cells"]
        for o in c.get("outputs", [])
        if VIEW in o.get("data", {})
    ]
    settle_progress_bars(state)
    kept = reachable(state, shown)
    for model_id in set(state) - set(kept):
        del state[model_id]
    if not state:
        notebook["metadata"].pop("widgets", None)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    for number, model_id in enumerate(kept):
        text = text.replace(model_id, f"{number:032x}")
    return json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    sources = [Path(name) for name in arguments] or [*sorted(FOLDER.glob("*.ipynb")), DEMO]
    for source in sources:
        start = time.perf_counter()
        try:
            notebook = execute(source)
            if home(source) != FOLDER:
                keep_stills(notebook)
            text = normalise(notebook)
        except CellExecutionError as error:
            print(
                f"{source.name} stopped, its file is unchanged: {error.ename}: {error.evalue}\n{error}", file=sys.stderr
            )
            return 1
        except CellTimeoutError:
            print(f"{source.name} stopped, its file is unchanged: a cell ran longer than {LIMIT} s.", file=sys.stderr)
            return 1
        except DeadKernelError:
            print(f"{source.name} stopped, its file is unchanged: its kernel died (out of memory?).", file=sys.stderr)
            return 1
        except FileNotFoundError as error:
            print(f"{error.filename} does not exist; give a path to an .ipynb or .py file.", file=sys.stderr)
            return 1
        (home(source) / f"{source.stem}.ipynb").write_text(text, encoding="utf-8")
        print(f"{source.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
