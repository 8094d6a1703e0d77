"""Tidy tables, the town's ceiling, and the artifacts that notebooks load. Oracles: `evaluate`, the law in a loop."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dae4rec_core import checkpoint
from dae4rec_core.config import PRESETS
from dae4rec_core.data.dataset import held_out, prepare
from dae4rec_core.data.town import load_town_law, write_town
from dae4rec_core.events import History
from dae4rec_core.experiments.artifacts import artifacts_of, make_artifacts, sampling_steps
from dae4rec_core.experiments.baselines import baselines
from dae4rec_core.experiments.evaluation import (
    baseline_rows,
    ceiling_rows,
    delta_runs,
    model_rows,
    sampling_times,
    summary,
    sweep,
    tidy,
    train_compensators,
)
from dae4rec_core.ranking import METRICS, evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("repeats", ["keep", "first_visits"])
def test_baseline_rows_are_what_evaluate_says(ring, first_visits, tiny, repeats, part):
    data, config = first_visits if repeats == "first_visits" else ring, tiny.replace(repeats=repeats)
    rows = pd.DataFrame(baseline_rows(*data, config)).set_index(["part", "method"])
    assert len(rows) == 2 * len(baselines(*data))
    examples = held_out(*data, part, config)
    for name, scorer in baselines(*data).items():
        assert rows.loc[(part, name), list(METRICS)].to_dict() == evaluate(scorer, examples)


# rows of a model


def test_model_rows_are_what_evaluate_says_and_train_nothing(trained, ring, tiny):
    before = dict(trained.compensators)
    rows = list(model_rows(trained, *ring, [1, 5, 10], markov=True))
    assert trained.compensators == before and list(before) == [5]
    settings = [(1, False), (5, False), (5, True), (10, False), ("markov", False)]
    assert [(row["part"], row["S"], row["compensator"]) for row in rows] == [
        (part, *setting) for part in ("validation", "test") for setting in settings
    ]
    for row in rows:
        scorer = trained.markov_scorer() if row["S"] == "markov" else trained.scorer(row["S"], row["compensator"])
        found = evaluate(scorer, held_out(*ring, row["part"], tiny))
        assert {name: row[name] for name in METRICS} == found
        assert row["delta"] == tiny.diffusion.delta and row["seed"] == 0
    assert [row["part"] for row in model_rows(trained, *ring, [1], ("test",))] == ["test"]


def test_compensators_are_trained_for_the_s_that_lack_one(trained, ring):
    recommender, history = Recommender(trained.model, trained.item_ids), History()
    recommender.compensators = dict(trained.compensators)
    train_compensators(recommender, *ring, [1, 5], [history])
    assert sorted(recommender.compensators) == [1, 5]
    assert recommender.compensators[5] is trained.compensators[5]
    assert [event.stage for event in history.events] == ["compensator"] * 2
    assert [row["S"] for row in model_rows(recommender, *ring, [1], ("test",))] == [1, 1]


def test_delta_runs_are_fits_that_share_their_pretraining(ring, tiny):
    config, heard = tiny.replace(epochs=1, compensator_epochs=0), []
    settings = [(0.0, 0), (1.0, 0), (10.0, 0), (10.0, 1)]
    runs = list(delta_runs(*ring, config, settings, "cpu", [lambda event: heard.append(event.stage)]))
    assert heard.count("gae") == 2 * 20  # once a seed, and not for delta = 0
    for (delta, seed), (recommender, log) in zip(settings, runs, strict=True):
        alone = fit(*ring, config.replace(delta=delta, seed=seed), "cpu")
        for name, value in alone.model.state_dict().items():
            assert torch.equal(recommender.model.state_dict()[name], value), name
        assert len(log.frame("diffusion")) == 1
        assert (recommender.z_star is None) == (delta == 0)


@pytest.mark.slow
def test_a_sweep_has_a_row_for_every_setting_and_tells_as_it_goes(ring, tiny):
    told = []
    options = {"parts": ("test",), "on_rows": lambda rows: told.append(len(rows))}
    table = sweep(*ring, tiny, [0.0, 1.0], [1, 2], [0, 1], "cpu", **options)
    model = table[table["method"] == "DAE4Rec"]
    assert len(model) == 2 * 2 * 2 * 2  # deltas, seeds, S, with and without compensator
    assert not model.duplicated(["delta", "seed", "S", "compensator"]).any()
    assert told == sorted(told) and len(told) == 4 and told[-1] == len(table)
    both = summary(table)
    one = both[(both["delta"] == 1.0) & (both["S"] == 2) & (both["compensator"] == True)]  # noqa: E712
    seeds = model[(model["delta"] == 1.0) & (model["S"] == 2) & (model["compensator"] == True)]["HR@10"]  # noqa: E712
    assert one[("HR@10", "mean")].item() == pytest.approx(seeds.mean())
    assert one[("HR@10", "std")].item() == pytest.approx(np.std(seeds, ddof=1))


@pytest.mark.parametrize(
    "deltas, steps, seeds, words",
    [
        ([0.0], [1, 11], [0], ["S is 11", "T = 10"]),
        ([0.0, float("nan")], [1], [0], ["Config.delta is nan"]),
        ([0.0], [1], [0, -1], ["Config.seed is -1"]),
    ],
)
def test_an_impossible_sweep_is_refused_before_anything_is_trained(
    ring, tiny, one_sentence, deltas, steps, seeds, words
):
    events = []
    one_sentence(lambda: sweep(*ring, tiny, deltas, steps, seeds, "cpu", callbacks=[events.append]), *words)
    assert events == []


def test_a_sweep_without_compensators_has_no_row_for_them(ring, tiny):
    table = sweep(*ring, tiny.replace(epochs=1, compensator_epochs=0, delta=0.0), [0.0], [1, 2], [0], "cpu")
    assert table.loc[table["method"] == "DAE4Rec", "compensator"].tolist() == [False] * 4


def test_times_have_a_row_for_every_setting(trained, ring, tiny):
    recommender = Recommender(trained.model, trained.item_ids)
    train_compensators(recommender, *ring, [1, 2])
    times = sampling_times(recommender, held_out(*ring, "test", tiny), [1, 2], repeats=1)
    assert times["S"].tolist() == [1, 1, 2, 2, "markov"] and (times["seconds"] > 0).all()
    assert times["users"].tolist() == [60] * 5


# the town's ceiling


@pytest.fixture(scope="module")
def village(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town") / "village"
    write_town(folder, n_venues=100, n_users=60, seed=1)
    return folder


@pytest.mark.parametrize("repeats", ["keep", "first_visits"])
def test_the_ceiling_is_the_law_user_by_user(village, tiny, repeats):
    """A loop over users and the catalogue's venues; on first visits those of the history are not ranked."""
    config = tiny.replace(repeats=repeats, k_core=5)
    dataset, split = prepare(village, config)
    law = load_town_law(village)
    catalogue = law.index_of(dataset.item_ids)
    assert len(catalogue) < law.n_venues
    latents = pd.read_csv(village / "users.csv.gz").set_index("user_id")
    rows = {(row["part"], row["method"]): row for row in ceiling_rows(village, dataset, split, config)}
    assert len(rows) == 4
    for part, targets in (("validation", split.validation), ("test", split.test)):
        expected = {"the law, given latents": [], "the law, given history": []}
        for place in targets:
            user = int(np.searchsorted(dataset.offsets, place, side="right")) - 1
            before = slice(dataset.offsets[user], place)
            venues = law.index_of(dataset.item_ids[dataset.items[before]])
            target = int(law.index_of(dataset.item_ids[[dataset.items[place]]])[0])
            history, own = [(venues, dataset.timestamps[before])], latents.loc[[dataset.user_ids[user]]]
            left_out = set(venues.tolist()) if repeats == "first_visits" else set()
            assert target not in left_out
            for name, table in (
                ("the law, given latents", law.next_given_latents(history, own["persona"], own["home"], own["eta"])),
                ("the law, given history", law.next_given_history(history)),
            ):
                p = table[0]
                others = [p[venue] for venue in catalogue if venue not in left_out and venue != target]
                expected[name].append(1 + sum(value > p[target] for value in others))
                assert p[target] not in others  # no ties
        for name, ranks in expected.items():
            found = rows[part, name]
            assert len(ranks) == len(targets) > 30
            for k in (10, 20):
                assert found[f"HR@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]), abs=1e-12)
                gains = [1 / math.log2(rank + 1) if rank <= k else 0 for rank in ranks]
                assert found[f"NDCG@{k}"] == pytest.approx(np.mean(gains), abs=1e-12)
            assert found["MRR"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-12)


def test_the_ceiling_beats_the_counts(tmp_path, tiny):
    write_town(tmp_path / "town", n_venues=100, n_users=300, seed=1)
    dataset, split = prepare(tmp_path / "town", tiny)
    ceiling = ceiling_rows(tmp_path / "town", dataset, split, tiny)
    rows = tidy([*baseline_rows(dataset, split, tiny), *ceiling], "town")
    assert set(rows["data"]) == {"town"}
    test = rows[rows["part"] == "test"].set_index("method")["NDCG@10"]
    assert test["the law, given latents"] > test["the law, given history"] > test["first-order transitions"]


def test_without_a_law_there_is_no_ceiling(ring_csv, ring, tiny):
    for path in (ring_csv, ring_csv.parent):
        assert list(ceiling_rows(path, *ring, tiny)) == []


# artifacts


@pytest.mark.slow
def test_artifacts_hold_what_the_notebooks_load(ring_csv, tmp_path, tiny):
    config = tiny.replace(epochs=1, compensator_epochs=1, delta=1.0)
    folder = make_artifacts(ring_csv, tmp_path / "artifacts", "cpu", config=config)
    assert artifacts_of("ring", tmp_path / "artifacts") == folder
    recommender = checkpoint.load(folder / "checkpoint", "cpu")
    assert sorted(recommender.compensators) == sampling_steps(config.diffusion.timesteps) == [1, 2, 5, 10]
    assert recommender.z_star.shape == recommender.model.embedding.weight.shape
    drawn = checkpoint.load(folder / "posterior", "cpu").model.config
    assert drawn.beyond == PRESETS["posterior"].beyond and drawn.model.dim == config.model.dim
    steps = pd.read_csv(folder / "steps.csv")
    assert set(steps["S"].dropna()) == {"1", "2", "5", "10", "markov"} and set(steps["seed"].dropna()) == {0, 1, 2}
    embeddings = load_file(folder / "embeddings.safetensors")
    assert torch.allclose(embeddings["1"].float(), recommender.model.embedding.weight, atol=1e-2)
    assert {f"{d:g}" for d in pd.read_csv(folder / "deltas.csv")["delta"].dropna()} == set(embeddings)
    solvers = pd.read_csv(folder / "solvers.csv")
    assert set(solvers["seed"]) == {0, 1, 2} and set(solvers["spacing"]) == {"t", "log-SNR"}
    compensators = pd.read_csv(folder / "compensators.csv")
    assert set(compensators["seed"]) == {0, 1, 2} and set(compensators["part"]) == {"validation", "test"}
    assert not compensators.duplicated(["part", "answer", "seed", "trained", "used"]).any()
    times = pd.read_csv(folder / "times.csv")
    assert len(times) == 2 * 4 + 1 and (times["users"] == 60).all()
    assert set(pd.read_csv(folder / "curves.csv")) >= {"epoch", "delta", "seed", "norm of E", "HR@10"}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [("gae", 1), ("diffusion", 3), ("compensator", 9), ("diffusion", 21)])
def test_stopped_anywhere_artifacts_go_on_to_the_same_bytes(ring_csv, tmp_path, tiny, stop):
    config = tiny.replace(compensator_epochs=1, delta=1.0)

    def files(folder):
        found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        return {str(name): path.read_bytes() for name, path in found.items() if name.name != "times.csv"}

    def stopping(event):
        heard.append(event.stage)
        if (event.stage, heard.count(event.stage)) == stop:
            raise KeyboardInterrupt

    whole, heard = History(), []
    wanted = files(make_artifacts(ring_csv, tmp_path / "whole", "cpu", [whole], config))
    make_artifacts(ring_csv, tmp_path / "parts", "cpu", config=config.replace(lr=1e-3))  # something older is there
    before = files(tmp_path / "parts" / "ring")
    with pytest.raises(KeyboardInterrupt):
        make_artifacts(ring_csv, tmp_path / "parts", "cpu", [stopping], config)
    kept = {name: data for name, data in files(tmp_path / "parts" / "ring").items() if ".unfinished" not in name}
    assert kept == before
    rest = History()
    assert files(make_artifacts(ring_csv, tmp_path / "parts", "cpu", [rest], config)) == wanted != before
    epochs = config.train.epochs
    done = max(0, heard.count("diffusion") - 1) // epochs * epochs  # of models that were trained, and perhaps measured
    assert len(rest.frame("diffusion")) <= len(whole.frame("diffusion")) - done + epochs


def test_missing_artifacts_say_how_to_make_them(tmp_path, one_sentence):
    one_sentence(lambda: artifacts_of("mine", tmp_path), "'mine'", "make artifacts")
