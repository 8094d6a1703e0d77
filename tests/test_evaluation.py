"""Tidy tables, the town's ceiling, and the artifacts that notebooks load."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dae4rec_core.artifacts import artifacts_of, make_artifacts, sampling_steps
from dae4rec_core.baselines import baselines
from dae4rec_core.data import make_examples, prepare
from dae4rec_core.evaluation import baseline_rows, ceiling_rows, model_rows, summary, sweep, tidy
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.town import write_town


def test_baseline_rows_are_what_evaluate_says(ring, tiny):
    dataset, split = ring
    rows = pd.DataFrame(baseline_rows(dataset, split, tiny)).set_index(["part", "method"])
    examples = make_examples(dataset, split.test, tiny.max_len)
    for name, scorer in baselines(dataset, split).items():
        assert rows.loc[("test", name), "HR@10"] == evaluate(scorer, examples)["HR@10"]


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


def test_the_markov_chain_gets_its_own_rows(trained, ring):
    rows = list(model_rows(trained, *ring, [trained.model.config.sampling_steps], ("test",), markov=True))
    assert [row["S"] for row in rows] == [trained.model.config.sampling_steps] * 2 + ["markov"]


def test_the_ceiling_is_the_law_and_beats_the_counts(tmp_path, tiny):
    write_town(tmp_path / "town", n_venues=100, n_users=300, seed=1)
    dataset, split = prepare(tmp_path / "town", tiny)
    rows = tidy([*baseline_rows(dataset, split, tiny), *ceiling_rows(tmp_path / "town", dataset, split)], "town")
    test = rows[rows["part"] == "test"].set_index("method")["NDCG@10"]
    assert test["the law, given latents"] > test["the law, given history"] > test["first-order transitions"]
    assert list(ceiling_rows(tmp_path, dataset, split)) == []


def steps_users(path, config):
    return prepare(path, config)[1].test


def test_artifacts_hold_what_the_notebooks_load(ring_csv, tmp_path, tiny):
    config = tiny.replace(epochs=1, compensator_epochs=1, delta=1.0)
    folder = make_artifacts(ring_csv, tmp_path / "artifacts", "cpu", config=config)
    assert artifacts_of("ring", tmp_path / "artifacts") == folder
    recommender = Recommender.load(folder / "checkpoint", "cpu")
    assert sorted(recommender.compensators) == sampling_steps(config.timesteps) == [1, 2, 5, 10]
    assert recommender.z_star.shape == recommender.model.embedding.weight.shape
    steps = pd.read_csv(folder / "steps.csv")
    assert set(steps["S"].dropna()) == {"1", "2", "5", "10", "markov"} and set(steps["seed"].dropna()) == {0, 1, 2}
    embeddings = load_file(folder / "embeddings.safetensors")
    assert torch.allclose(embeddings["1"].float(), recommender.model.embedding.weight, atol=1e-2)
    assert {f"{d:g}" for d in pd.read_csv(folder / "deltas.csv")["delta"].dropna()} == set(embeddings)
    times = pd.read_csv(folder / "times.csv")
    assert len(times) == 2 * 4 + 1 and (times["users"] == len(steps_users(ring_csv, config))).all()
    assert (folder / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert set(pd.read_csv(folder / "curves.csv")) >= {"epoch", "delta", "seed", "norm of E", "HR@10"}


def test_missing_artifacts_say_how_to_make_them(tmp_path, one_sentence):
    one_sentence(lambda: artifacts_of("mine", tmp_path), "'mine'", "make artifacts")
