"""A trained model in use: recommending, saving, loading, and what can be wrong with each."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from dae4rec_core.data import make_examples, pad_histories
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import EmbeddingScorer, ItemIndex

NEWCOMER = ["i03", "i04", "i29", "i05"]  # no user of the ring has this history


@pytest.fixture
def folder(trained, tmp_path):
    trained.save(tmp_path, data="ring")
    return tmp_path


def test_save_and_load_round_trip(trained, folder):
    loaded = Recommender.load(folder, "cpu")
    assert sorted(path.name for path in folder.iterdir()) == [
        "recommender.json",
        "weights.safetensors",
    ]
    assert loaded.model.config == trained.model.config
    assert loaded.item_ids.tolist() == trained.item_ids.tolist()
    assert torch.equal(loaded.z_star, trained.z_star)
    assert sorted(loaded.compensators) == sorted(trained.compensators) == [5]
    for options in ({}, {"compensate": False, "steps": 3}, {"exclude_seen": True, "seed": 4}):
        one, other = (r.recommend(NEWCOMER, 7, **options) for r in (trained, loaded))
        assert one.equals(other)
    assert json.loads((folder / "recommender.json").read_text())["facts"] == {"data": "ring"}


def test_a_recommender_without_z_star_is_saved_too(trained, tmp_path):
    Recommender(trained.model, trained.item_ids).save(tmp_path)
    assert Recommender.load(tmp_path, "cpu").z_star is None


def test_a_new_user_is_served_in_one_call(trained, folder, ring):
    found = Recommender.load(folder, "cpu").recommend(NEWCOMER, k=5)
    assert list(found) == ["item_id", "score"] and len(found) == 5
    assert found["item_id"].is_unique and set(found["item_id"]) <= set(ring[0].item_ids)
    assert found["score"].is_monotonic_decreasing
    assert not found.equals(trained.recommend(["i20"], k=5))  # the history matters
    one = trained.recommend(["i00"] * 9 + NEWCOMER + ["i05"], k=5)
    other = trained.recommend(["i17"] * 4 + NEWCOMER + ["i05"], k=5)
    assert one.equals(other)  # but only its newest max_len = 5 items


def test_recommendations_are_the_best_scores(trained, tiny):
    rows = pad_histories([[3, 4, 29, 5]], tiny.max_len)
    scores = trained.scorer(seed=0)(rows)[0]
    found = trained.recommend(NEWCOMER, k=30)
    order = scores.argsort(descending=True)
    assert found["item_id"].tolist() == trained.item_ids[order.numpy()].tolist()
    torch.testing.assert_close(torch.tensor(found["score"]), scores[order])


def test_exclude_seen(trained):
    seen = set(NEWCOMER)
    everything = trained.recommend(NEWCOMER, k=30)
    fresh = trained.recommend(NEWCOMER, k=26, exclude_seen=True)
    assert seen <= set(everything["item_id"])
    assert not seen & set(fresh["item_id"])
    rest = everything[~everything["item_id"].isin(seen)]
    assert fresh["item_id"].tolist() == rest["item_id"].tolist()


def test_same_seed_same_list_other_seed_other_scores(trained):
    one = trained.recommend(NEWCOMER, seed=3)
    torch.rand(5)  # the global generator plays no part
    assert one.equals(trained.recommend(NEWCOMER, seed=3))
    assert not one["score"].equals(trained.recommend(NEWCOMER, seed=4)["score"])


def test_scorers_evaluate_reproducibly_and_differ(trained, ring):
    dataset, split = ring
    examples = make_examples(dataset, split.test, 5)
    makers = {
        "compensated": lambda: trained.scorer(),
        "plain": lambda: trained.scorer(compensate=False),
        "S = 1": lambda: trained.scorer(1, compensate=False),
        "markov": lambda: trained.markov_scorer(),
    }
    tables = {}
    for name, make in makers.items():
        tables[name] = make()(examples.history)
        assert tables[name].shape == (60, 30) and not tables[name].requires_grad
        assert torch.equal(tables[name], make()(examples.history))
        assert evaluate(make(), examples) == evaluate(make(), examples)
    assert len({table.numpy().tobytes() for table in tables.values()}) == 4


def test_given_noise_decides_and_on_step_follows(trained, tiny):
    rows = pad_histories([[1, 2], [3]], tiny.max_len)
    noise = torch.randn(2, tiny.dim, generator=torch.Generator().manual_seed(0))
    seen = []
    one = trained.generate(rows, 3, False, x_T=noise, on_step=lambda i, t, *_: seen.append(t))
    assert torch.equal(one, trained.generate(rows, 3, False, x_T=noise))
    assert not torch.equal(one, trained.generate(rows, 3, False, x_T=-noise))
    assert len(seen) == 3 and seen[0] == tiny.timesteps and seen == sorted(seen, reverse=True)


def test_scorers_offer_the_vectors_behind_the_scores(trained, ring):
    history = make_examples(ring[0], ring[1].test, 5).history
    for make in (trained.scorer, trained.markov_scorer):
        assert isinstance(make(), EmbeddingScorer)
        e0 = make().queries(history)
        assert e0.shape == (60, 16) and not e0.requires_grad
        torch.testing.assert_close(trained.model.scores(e0).detach(), make()(history))


# many users


@pytest.fixture(scope="module")
def histories(ring):
    dataset, _ = ring
    return [dataset.item_ids[dataset.sequence(user)].tolist() for user in range(dataset.n_users)]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_recommend_many_is_the_best_of_the_full_scores(trained, ring, tiny, histories, exclude_seen):
    dataset, _ = ring
    found = trained.recommend_many(histories, 6, exclude_seen=exclude_seen, seed=2)
    assert list(found) == ["user", "rank", "item_id", "score"]
    assert found["user"].tolist() == np.repeat(np.arange(60), 6).tolist()
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 60
    indices = [dataset.sequence(user) for user in range(60)]
    scores = trained.scorer(seed=2)(pad_histories(indices, tiny.max_len))
    if exclude_seen:
        for row, seen in zip(scores, indices, strict=True):
            row[seen] = -torch.inf
    best = scores.topk(6)
    assert found["item_id"].tolist() == trained.item_ids[best.indices.flatten().numpy()].tolist()
    torch.testing.assert_close(torch.tensor(found["score"].to_numpy()), best.values.flatten())


def test_recommend_many_agrees_with_recommend_and_with_itself(trained, histories):
    whole = trained.recommend_many(histories, 4, seed=5)
    assert whole.equals(trained.recommend_many([np.array(h, dtype=object) for h in histories], 4, seed=5))
    for batch_size in (7, 59):  # neither divides 60; a batch of one user rounds differently
        pd.testing.assert_frame_equal(trained.recommend_many(histories, 4, seed=5, batch_size=batch_size), whole)
    alone = trained.recommend(histories[0], 4, seed=5)
    pd.testing.assert_frame_equal(whole.loc[whole["user"] == 0, ["item_id", "score"]], alone)


def test_integer_ids_are_found_as_text(trained):
    numbered = Recommender(trained.model, np.arange(100, 130))
    numbered.compensators = trained.compensators
    one, other = numbered.recommend_many([[103, 104]], 5), numbered.recommend_many([["103", "104"]], 5)
    assert one.equals(other) and one["item_id"].between(100, 129).all()


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_an_exhaustive_index_gives_the_exact_recommendations(trained, histories, exclude_seen):
    index = ItemIndex(trained.model.embedding.weight, cells=3, probes=3)
    exact, found = (
        trained.recommend_many(histories, 5, exclude_seen=exclude_seen, batch_size=25, index=i) for i in (None, index)
    )
    assert found.drop(columns="score").equals(exact.drop(columns="score"))
    np.testing.assert_allclose(found["score"], exact["score"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "histories, options, words",
    [
        ([], {}, ["no histories", "at least one"]),
        ([["i01"], []], {}, ["history of user 1 is empty", "at least one"]),
        ([["i01"], ["i02", "casino"]], {}, ["'casino'", "place 2 of the history of user 1", "30 items", "remove it"]),
        ([["i01"], ["i01", "i02", "i01"]], {"k": 29, "exclude_seen": True}, ["k is 29", "only 28"]),
        ([["i01"], ["i02"]], {"k": 0}, ["k is 0", "give a k"]),
        ([["i01"], ["i02"]], {"steps": 4}, ["No compensator", "S = 4"]),
    ],
)
def test_bad_requests_for_many(trained, one_sentence, histories, options, words):
    one_sentence(lambda: trained.recommend_many(histories, **options), *words)


def test_an_index_of_other_embeddings_is_refused(trained, one_sentence):
    index = ItemIndex(torch.randn(29, 16), cells=1)
    one_sentence(lambda: trained.recommend_many([["i01"]], index=index), "(29, 16)", "(30, 16)", "build it from")


# bad input


@pytest.mark.parametrize(
    "history, options, words",
    [
        ([], {}, ["history is empty", "at least one"]),
        (["i01", "casino"], {}, ["'casino'", "place 2", "30 items", "'i00'", "remove it"]),
        (["i01"], {"k": 31}, ["k is 31", "30 items", "give a k"]),
        (["i01"], {"k": 0}, ["k is 0", "give a k"]),
        (["i01", "i01", "i02"], {"k": 29, "exclude_seen": True}, ["k is 29", "only 28"]),
        (["i01"], {"steps": 4}, ["No compensator", "S = 4", "for 5", "compensate=False"]),
        (["i01"], {"steps": 0}, ["S is 0", "from 1 to 10"]),
        (["i01"], {"steps": -2, "compensate": False}, ["S is -2", "from 1 to 10"]),
        (["i01"], {"steps": 11, "compensate": False}, ["S is 11", "T = 10", "from 1 to 10"]),
    ],
)
def test_bad_requests(trained, one_sentence, history, options, words):
    one_sentence(lambda: trained.recommend(history, **options), *words)


def test_missing_files(folder, one_sentence):
    def load():
        return Recommender.load(folder, "cpu")

    one_sentence(lambda: Recommender.load(folder / "none"), "none", "no checkpoint", "fit --out")
    (folder / "weights.safetensors").unlink()
    one_sentence(load, str(folder), "weights.safetensors is missing", "fit --out")
    (folder / "recommender.json").unlink()
    one_sentence(load, str(folder), "recommender.json is missing")


@pytest.mark.parametrize("text", ['{"format": 1', "", "[]", "{}", '{"format": 99}'])
def test_damaged_json(folder, one_sentence, text):
    (folder / "recommender.json").write_text(text)
    one_sentence(lambda: Recommender.load(folder, "cpu"), str(folder), "checkpoint", "train anew")


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_damaged_safetensors(folder, one_sentence, keep):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    one_sentence(lambda: Recommender.load(folder, "cpu"), str(folder), "damaged", "copy it again")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.embedding.weight", "compensator.5.shortcut.bias"])
def test_nan_in_a_checkpoint(folder, one_sentence, name, value):
    tensors = load_file(folder / "weights.safetensors")
    tensors[name].view(-1)[3] = value
    save_file(tensors, folder / "weights.safetensors")
    one_sentence(lambda: Recommender.load(folder, "cpu"), str(folder), "NaN", name, "train anew")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text["item_ids"].pop(),
        lambda text: text["config"].update(dim=8),
        lambda text: text["compensators"].append(7),
        lambda text: text["config"].update(positions=False),
    ],
)
def test_weights_that_do_not_fit(folder, one_sentence, damage):
    text = json.loads((folder / "recommender.json").read_text())
    damage(text)
    (folder / "recommender.json").write_text(json.dumps(text))
    one_sentence(lambda: Recommender.load(folder, "cpu"), "does not fit", "same run")
