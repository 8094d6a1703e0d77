"""Figures are drawn, the same each time; the builder of notebooks is repeatable."""

import importlib.util
import io
import json
import re
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from dae4rec_core.data.dataset import Dataset, training_graph
from dae4rec_core.views import plots, stage

ROOT = Path(__file__).parents[2]


def with_attributes(dataset: Dataset, **columns) -> Dataset:
    facts = {**dataset.__dict__, "attributes": pd.DataFrame(columns, index=range(dataset.n_items))}
    return Dataset(**facts)


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG") and len(data) > 2000


def test_groups_come_from_categories_then_places(ring):
    dataset, n = ring[0], ring[0].n_items
    kinds = [f"kind {i % 12}" for i in range(n)]
    groups, names = plots.item_groups(with_attributes(dataset, category=kinds))
    assert len(names) == 8 and names[-1] == "other"
    assert all(names[g] in (k, "other") for g, k in zip(groups, kinds, strict=True))
    groups, names = plots.item_groups(with_attributes(dataset, lon=np.arange(n), lat=0.0))
    assert (np.diff(groups) >= 0).all() and len(names) == 6
    towns = ["b", "a"] * (n // 2)
    groups, names = plots.item_groups(with_attributes(dataset, category=kinds, district=towns), "area")
    assert names == ["a", "b"] and groups.tolist() == [1, 0] * (n // 2)
    assert plots.item_groups(dataset)[1] == ["items"]


def test_a_map_needs_coordinates(ring, one_sentence):
    dataset = ring[0]
    one_sentence(lambda: plots.item_map(dataset), "x, y or lon, lat")
    placed = with_attributes(dataset, x=np.arange(dataset.n_items), y=0.0, category="cafe")
    assert is_png(plots.png(plots.item_map(placed)))


def test_figures_are_the_same_each_time(ring):
    graph = training_graph(*ring)
    for draw in (
        lambda: plots.degree_figure(graph),
        lambda: plots.graph_figure(nx.path_graph(4), {i: str(i) for i in range(4)}, highlight=[1]),
        lambda: plots.heatmaps({"a": np.eye(6), "b": np.ones((6, 6))}, np.array([0, 1, 1, 0, 2, 2]), list("xyz")),
        lambda: plots.lines({"a": pd.Series([1.0, 2.0])}, "x", "y", log=("y",), levels={"one": 1.0}),
    ):
        first = plots.png(draw())
        assert is_png(first) and first == plots.png(draw())


def test_the_heatmap_is_ordered_by_group():
    figure = plots.heatmaps({"m": np.diag([0.0, 1.0, 2.0, 3.0])}, np.array([1, 0, 1, 0]), ["a", "b"])
    assert np.diag(figure.axes[0].images[0].get_array()).tolist() == [1.0, 3.0, 0.0, 2.0]


def test_the_principal_plane_keeps_the_most_variance():
    points = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.1, 2.0, 0.1, 0.1])
    mean, directions = stage.principal_plane(points)
    kept = ((points.double() - mean) @ directions).var(0)
    largest = torch.linalg.eigvalsh(torch.cov(points.double().T))[-2:].flip(0)
    assert torch.allclose(kept, largest)
    assert torch.allclose(directions.T @ directions, torch.eye(2, dtype=torch.float64))


def test_methods_are_dots_at_their_means_and_differences_lie_around_a_line():
    """A dot at the mean over seeds, a bar from the lowest to the highest; 0 is the left end, or a line."""
    rows = pd.DataFrame({"group": "a set", "method": ["one", "one", "two"], "value": [2.0, 4.0, 1.0]})
    (axis,) = plots.methods_figure(rows, ["a set"], ["one", "two"], ("two",)).axes
    bars = [tuple(line.get_xdata()) for line in axis.lines]
    assert bars == [(1, 1), (1,), (2, 4), (3,)] and axis.get_xlim()[0] == 0
    (axis,) = plots.methods_figure(rows.assign(value=[-2.0, 4.0, 1.0]), ["a set"], ["one", "two"]).axes
    bars = [tuple(line.get_xdata()) for line in axis.lines]
    assert bars == [(1, 1), (1,), (-2, 4), (1,), (0, 0)] and axis.get_xlim()[0] < -2


def test_the_steps_figure_names_its_lines(sweep_of_steps):
    table, times = sweep_of_steps
    figure = plots.steps_figure(table, times)
    texts = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert set(texts) == {"without compensator", "with compensator", "Markov chain, T steps"}
    assert is_png(plots.png(figure))


def test_with_and_without_compensator_have_one_colour_everywhere(sweep_of_steps):
    axis = plots.steps_figure(*sweep_of_steps).axes[0]
    drawn = {line.get_label(): line[0].get_color() for line in axis.containers}
    assert drawn == {"without compensator": plots.WITHOUT, "with compensator": plots.WITH}
    named = {"plain": pd.Series([1.0]), "mended": pd.Series([2.0]), "other": pd.Series([3.0])}
    figure = plots.lines(named, "x", "y", colours={"plain": plots.WITHOUT, "mended": plots.WITH})
    assert [line.get_color() for line in figure.axes[0].lines] == [plots.WITHOUT, plots.WITH, plots.COLOURS[2]]


def test_three_errors_are_drawn_with_their_levels():
    ways = [(S, *way) for S in (1, 10) for way in plots.WAYS]
    rows = [("DAE4Rec", *way, 1 / way[0], 0.5 + seed / 10, 0.2) for way in ways for seed in (0, 2)]
    rows += [
        (name, None, None, None, None, level, None)
        for name, level in (("popularity", 0.7), ("the law's own draws", 0.3))
    ]
    columns = ["method", "S", "spacing", "order", "distance", "total variation", "HR@10"]
    figure = plots.solvers_figure(pd.DataFrame(rows, columns=columns))
    assert [len(axis.containers) for axis in figure.axes] == [3, 3, 3]
    points = figure.axes[1].containers[0][0].get_xydata()
    np.testing.assert_allclose(points, [[1, 0.6], [10, 0.6]])
    assert {line.get_ydata()[0] for line in figure.axes[1].lines if line.get_linestyle() == "--"} >= {0.7, 0.3}
    no_law = plots.solvers_figure(pd.DataFrame(rows[:12], columns=columns).drop(columns="total variation"))
    assert [text.get_text() for text in no_law.axes[1].texts] == ["unknown for this data"]


def test_a_stage_keeps_its_fixed_part():
    figure, axes = stage.mosaic("a", width=3, height=2, left=0.1, right=0.9)
    axes["a"].set(xlim=(0, 1), ylim=(0, 1))
    kept = stage.Stage(figure)
    bare = kept.png([])
    (line,) = axes["a"].plot([0, 1], [0, 1], color="black")
    drawn = kept.png([line])
    assert drawn != bare and kept.png([]) == bare and not axes["a"].lines
    axes["a"].plot([0, 1], [0, 1], color="black")
    whole = pixels(plots.png(figure)).astype(int)  # the same, drawn at once
    assert np.abs(whole - pixels(drawn)).mean() < 0.5


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB"))


def test_show_gives_the_picture_its_text(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show(plots.lines({"a": pd.Series([1.0])}, "x", "y"), "a single point")
    data, metadata = shown[0]._repr_png_()
    assert metadata["alt"] == "a single point" and data


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_an_unchanged_notebook_is_rebuilt_to_the_same_bytes(build, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    draft = tmp_path / "toy.py"
    draft.write_text(
        "# %%\nimport ipywidgets as W\nfrom tqdm.auto import tqdm\nfrom IPython.display import display\n"
        "for _ in tqdm(range(3)): pass\n# %% tags=['check']\ns, t = W.IntSlider(), W.IntText()\n"
        "W.jslink((s, 'value'), (t, 'value'))\ndisplay(W.VBox([s, t]))\n"
    )
    assert build.main([str(draft)]) == 0
    first = (tmp_path / "toy.ipynb").read_text()
    assert build.main([str(tmp_path / "toy.ipynb")]) == 0
    assert (tmp_path / "toy.ipynb").read_text() == first
    state = json.loads(first)["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    names = {model["model_name"] for model in state.values()}
    assert {"IntSliderModel", "IntTextModel", "LinkModel", "FloatProgressModel"} <= names
    assert not re.search(r"\d(it/s|s/it)", first)  # a bar is kept, the speed it shows is not
    draft.write_text("# %%\n1 / 0\n")
    assert build.main([str(draft)]) == 1
    assert (tmp_path / "toy.ipynb").read_text() == first and "its file is unchanged" in capsys.readouterr().err
