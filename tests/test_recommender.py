"""A trained model in use: recommending, saving, loading, and what can be wrong with each."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dae4rec_core.data import make_examples, pad_histories
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender

NEWCOMER = ["i03", "i04", "i29", "i05"]  # no user of the ring has this history


@pytest.fixture
def folder(trained, tmp_path):
    trained.save(tmp_path, data="ring")
    return tmp_path


def test_save_and_load_round_trip(trained, folder):
    loaded = Recommender.load(folder, "cpu")
    assert sorted(path.name for path in folder.iterdir()) == [
        "recommender.json", "weights.safetensors",
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
