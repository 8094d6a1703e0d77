"""What the page's smaller explorers show, against brute force and the module; the browser tests move them."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from scipy import sparse
from test_page import NODE, PLAIN, ask, by_torch, compare, questions_of

from dae4rec_core import checkpoint
from dae4rec_core.checkpoint import in_eight_bits
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.method.schedule import make_alpha_bar
from dae4rec_core.recommender import Recommender
from dae4rec_core.views.page import collapse, delta, graph, noise, spectrum, widget

# ---- delta ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """What `make artifacts` keeps of three deltas."""
    folder = tmp_path_factory.mktemp("artifacts")
    e = trained.model.embedding.weight.detach()
    few = Recommender(trained.model, trained.item_ids)
    (folder / "deltas").mkdir()
    for name in ("0", "0.1", "10"):
        checkpoint.export(few, folder / "deltas" / f"{name}.safetensors", eight_bits=True)
    safetensors.torch.save_file({"0": 0 * e, "10": e.half(), "0.1": e / 2}, folder / "embeddings.safetensors")
    return folder


@pytest.fixture(scope="module")
def table():
    rows = [("validation", "popularity", np.nan, np.nan, np.nan, 0.1)]
    for d, rates in {0.0: (0.02, 0.04), 0.1: (0.1, 0.2), 10.0: (0.2, 0.3)}.items():
        rows += [("validation", "DAE4Rec", d, seed, c, r + seed / 100) for seed in (0, 1) for c, r in enumerate(rates)]
        rows += [("test", "DAE4Rec", d, 0, c, 0.9) for c in (0, 1)]
    table = pd.DataFrame(rows, columns=["part", "method", "delta", "seed", "compensator", "HR@10"])
    return table.assign(compensator=table["compensator"] == 1)


@pytest.fixture(scope="module")
def deltas(ring, trained, folder, table):
    return delta.delta_explorer(*ring, trained, folder, table, {"one": str(ring[0].user_ids[7])})


def test_the_delta_explorer_tells_the_sweep(deltas, ring, trained):
    about = json.loads(deltas.widget.about)
    assert [model["delta"] for model in about["models"]] == [0.0, 0.1, 10.0]
    assert about["models"][about["usual"]]["delta"] == trained.model.config.diffusion.delta
    without, with_one, popular = (line["points"] for line in about["hits"])
    assert popular == [[0, 10], [1, 10], [2, 10]]
    np.testing.assert_allclose(without, [[0, 2.5], [1, 10.5], [2, 20.5]])  # means over two seeds, in percent
    np.testing.assert_allclose(with_one, [[0, 4.5], [1, 20.5], [2, 30.5]])
    asked = about["question"]
    assert asked["answers"][asked["right"]] == "δ = 0.1" and "popularity 10.0%" in asked["then"]
    assert "δ = 0: 4.5%, " in deltas.still.alt and deltas.text == "the δ explorer"
    assert sorted(about["order"]) == list(range(ring[0].n_items))


def test_planes_are_principal_ones_turned_to_the_usual(trained):
    e = trained.model.embedding.weight.detach().double()
    mirrored = e * torch.tensor([-1.0] + [1.0] * (e.shape[1] - 1))
    planes, held = delta.planes_of({0.1: mirrored.float(), 10.0: e.float()}, 10.0)
    values, vectors = np.linalg.eigh(np.cov(e.numpy().T))
    assert held[10.0] == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-5) == held[0.1]
    inside = (e - e.mean(0)).numpy() @ vectors[:, :-3:-1]
    np.testing.assert_allclose(np.linalg.norm(planes[0.1], axis=1), np.linalg.norm(inside, axis=1), atol=1e-5)
    np.testing.assert_allclose(planes[0.1], planes[10.0], atol=1e-4)  # only a mirror lay between them
    last = delta.spectra({10.0: e.float()})[0]["points"]
    shares = np.cumsum(values[::-1]) / values.sum()
    np.testing.assert_allclose([share for _, share in last], [shares[n - 1] for n, _ in last], atol=1e-4)


def test_a_missing_model_is_said(folder, tmp_path, one_sentence):
    (tmp_path / "embeddings.safetensors").write_bytes((folder / "embeddings.safetensors").read_bytes())
    one_sentence(lambda: delta.models_of(tmp_path), "0.safetensors", "make artifacts")


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_reads_eight_bits(deltas, trained, tmp_path, monkeypatch):
    """The page's numbers are torch's with the same rounded weights."""
    about = json.loads(deltas.widget.about)
    first, last = about["models"][-1]["bytes"]
    file = tmp_path / "model.safetensors"
    file.write_bytes(deltas.widget.weights[first:last])
    state = trained.model.state_dict()
    weights = {f"model.{name}": value for name, value in state.items()}
    small = in_eight_bits({name: value.cpu().float() for name, value in weights.items()})
    for name, value in weights.items():
        scale = small.get(f"{name}.scale")
        found = small[name].float() if scale is None else small[name] * scale[:, None]
        assert (found - value).abs().max() <= 0.004 * value.abs().max() + 1e-6, name
        weights[name] = found
    rounded = Recommender(type(trained.model)(trained.model.n_items, trained.model.config), trained.item_ids)
    rounded.model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    rounded.model.eval()
    ways = [PLAIN | {"S": 1}, PLAIN | {"S": 5}, PLAIN | {"S": 5, "eta": 0.5}]
    asked = questions_of(rounded, [[3, 4, 5], [9, 1, 2], [0]], ways)
    for mine, question in zip(ask(file, tmp_path, asked=asked)["answers"], asked, strict=True):
        compare(mine, by_torch(rounded, question, monkeypatch))
    start, end = about["zStar"]
    kept = safetensors.torch.load(deltas.widget.weights[start:end])
    z = kept["z_star"] * kept["z_star.scale"][:, None]
    torch.testing.assert_close(z, trained.z_star.cpu(), atol=0.005 * trained.z_star.abs().max().item(), rtol=0)


# ---- the graph ---------------------------------------------------------------------------------------


def test_company_is_brute_force(ring, trained):
    dataset, split = ring
    counts = np.zeros((dataset.n_items, dataset.n_items))
    for s in split.training_sequences(dataset):
        for a, b in zip(s[:-1], s[1:], strict=True):
            counts[a, b] += 1
            counts[b, a] += 1
    np.fill_diagonal(counts, 0)
    sparse = transition_counts(split.training_sequences(dataset), dataset.n_items, symmetric=True)
    e = trained.model.embedding.weight
    edges, near = graph.company(sparse, {"E": e}).values()
    products = (e @ e.T).detach().numpy()
    np.fill_diagonal(products, -np.inf)
    for item in range(dataset.n_items):
        expected = np.argsort(-counts[item], kind="stable")
        assert edges[item] == [other for other in expected if counts[item, other]][:10]
        assert near[item] == np.argsort(-products[item])[:10].tolist()


def test_the_graph_explorer_asks_what_is_so(ring, trained):
    explorer = graph.graph_explorer(*ring, {"Z*": trained.z_star, "E": trained.model.item_vectors()}, [4, 5])
    about = json.loads(explorer.widget.about)
    assert len(about["names"]) == len(about["xy"]) == ring[0].n_items and about["start"] == 4
    groups = np.array(about["groups"]["of"])
    lists = [notion["lists"] for notion in about["notions"]]
    own = [np.concatenate([groups[others] == groups[n] for n, others in enumerate(one)]).mean() for one in lists]
    asked = about["question"]
    assert [int(share) for share in re.findall(r"(\d+)% of those", asked["then"])] == pytest.approx(
        [100 * share for share in own], abs=0.51
    )
    shared = np.mean([len(set(a) & set(b)) for a, b in zip(*lists[1:], strict=True)])
    assert float(re.match(r"([\d.]+) of ten", asked["then"])[1]) == pytest.approx(shared, abs=0.051)
    assert asked["right"] == np.argmin([abs(shared - n) for n in (2, 5, 9)])
    alone = graph.graph_explorer(*ring, {}, [4])
    asked = json.loads(alone.widget.about)["question"]
    assert float(re.search(r"([\d.]+) of ten", asked["then"])[1]) == pytest.approx(10 * own[0], abs=0.05)
    assert explorer.still.png and about["names"][4] in explorer.still.alt


def test_the_question_about_edges_has_controls_beside_it():
    """Any edge, and any other item: by loops."""
    rng = np.random.default_rng(0)
    counts = np.triu(rng.poisson(0.3, (40, 40)))
    counts, groups = counts + counts.T, rng.integers(4, size=40)
    notions = graph.company(sparse.csr_matrix(counts), {})
    said = graph.question(notions, groups, sparse.csr_matrix(counts))["then"]
    joined = [[j for j in range(40) if j != i and counts[i, j]] for i in range(40)]
    edges = np.mean([np.mean(groups[others] == groups[i]) for i, others in enumerate(joined) if others])
    anywhere = np.mean([groups[i] == groups[j] for i, j in itertools.permutations(range(40), 2)])
    numbers = [float(number) for number in re.findall(r"\d+\.\d", said)]
    assert numbers[1:] == pytest.approx([10 * edges, 10 * anywhere], abs=0.051)


# ---- noise, a toy, eigenvalues --------------------------------------------------------------------------


def test_noise_counts_as_the_page_does():
    generator = torch.Generator().manual_seed(0)
    centres = noise.CENTRES
    island = torch.arange(300) % 3
    points = centres[island] + 0.15 * torch.randn(300, 2, generator=generator)
    eps = torch.randn(300, 2, generator=generator)
    explorer = noise.noise_explorer(points, island, eps, 50, "linear", 10)
    about = json.loads(explorer.widget.about)
    level = make_alpha_bar("linear", 50).numpy()
    told = {int(t): int(share) for t, share in re.findall(r"t = (\d+): (\d+)%", about["question"]["then"])}
    for t, share in told.items():
        spoiled = np.sqrt(level[t]) * points.numpy() + np.sqrt(1 - level[t]) * eps.numpy()
        far = [np.linalg.norm(spoiled - np.sqrt(level[t]) * centre, axis=1) for centre in centres.numpy()]
        assert round(100 * (np.argmin(far, 0) == island.numpy()).mean()) == share
    asked = about["question"]
    assert asked["right"] == min(range(len(told)), key=lambda n: abs(list(told.values())[n] - 66.7))
    assert set(about["levels"]) == {"linear", "cosine", "exponential"} and "at t = 20 " in explorer.still.alt


def test_eigenvalues_say_what_inner_products_cannot():
    A = np.eye(20)
    A[:10, 10:] = A[10:, :10] = 1
    explorer = spectrum.spectrum_explorer(A, [0] * 10 + [1] * 10, ["cafés", "museums"])
    about = json.loads(explorer.widget.about)
    values, vectors = np.array(about["values"]), np.array(about["vectors"])
    np.testing.assert_allclose((vectors.T * values) @ vectors, A, atol=1e-4)
    np.testing.assert_allclose(values[:2], [11, -9])
    assert about["stops"] == [0, 1, 2, 20]  # 18 of them are 1
    asked = about["question"]
    assert asked["answers"][asked["right"]] == "about a tenth as far" and asked["then"].startswith("0.45 and 0.55.")
    assert "at a distance of 9.0" in explorer.still.alt  # the eigenvalue that is lost


def test_stills_hold_as_many_draws_as_the_page():
    assert f"const DRAWS = {widget.DRAWS};" in widget.script(["parts.js"])


def test_every_module_holds_what_it_needs():
    """One script each, whose imports are held by it, so that no name is missing and none comes twice."""
    assert collapse.collapse_explorer().widget.about
    for kind in widget.PageWidget.__subclasses__():
        source = kind._esm if isinstance(kind._esm, str) else str(kind._esm)
        assert not re.search(r"^(import|export (?!default))", source, re.M), kind
        names = re.findall(r"^(?:const|class|function|async function) (\w+)", source, re.M)
        assert len(names) == len(set(names)), kind
