"""The training loop: nothing of the test set gets in, and stopping, resuming and reporting work."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from dae4rec_core import training
from dae4rec_core.baselines import Popularity
from dae4rec_core.config import choose_device
from dae4rec_core.data import global_time, make_examples
from dae4rec_core.events import Event, History, ProgressBar
from dae4rec_core.graph import training_graph
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit, train_compensator, validation_sample


def weights(recommender) -> dict[str, torch.Tensor]:
    """Every number that training decided."""
    found = dict(recommender.model.state_dict()) | {"Z*": recommender.z_star}
    for steps, compensator in recommender.compensators.items():
        found |= {f"{steps}.{name}": value for name, value in compensator.state_dict().items()}
    return found


def differing(one: dict, other: dict) -> list[str]:
    """Names whose tensors are not identical bit by bit."""
    assert set(one) == set(other)
    return [name for name in one if not torch.equal(one[name], other[name])]


def other_items(dataset, positions):
    """The data set with every item at `positions` changed to another one of the catalogue."""
    items = dataset.items.copy()
    items[positions] = (items[positions] + 11) % dataset.n_items
    assert (items != dataset.items).sum() == len(positions)
    return dataclasses.replace(dataset, items=items)


# the leak test


@pytest.mark.parametrize("kind", ["leave_last_out", "global_time"])
def test_changing_the_test_items_changes_nothing_before_evaluation(ring, tiny, kind):
    dataset, split = ring
    hidden = split.test
    if kind == "global_time":
        split = global_time(dataset)
        hidden = np.flatnonzero(dataset.timestamps >= np.quantile(dataset.timestamps, 0.9))
        assert set(split.test) <= set(hidden)
    changed = other_items(dataset, hidden)
    before, after = training_graph(dataset, split), training_graph(changed, split)
    np.testing.assert_array_equal(before.edges, after.edges)
    for one, other in (
        (make_examples(d, split.training_targets(d), 5) for d in (dataset, changed)),
        (validation_sample(d, split, tiny) for d in (dataset, changed)),
    ):
        assert torch.equal(one.history, other.history) and torch.equal(one.target, other.target)
    one, other = fit(dataset, split, tiny, "cpu"), fit(changed, split, tiny, "cpu")
    assert differing(weights(one), weights(other)) == []
    # the change is real: the evaluation sees it
    figures = [evaluate(r.scorer(), make_examples(d, split.test, 5)) for r, d in ((one, dataset), (other, changed))]
    assert figures[0] != figures[1]


def test_changing_the_validation_items_changes_no_graph_no_example_and_no_z_star(ring, tiny):
    dataset, split = ring
    changed = other_items(dataset, split.validation)
    np.testing.assert_array_equal(training_graph(dataset, split).edges, training_graph(changed, split).edges)
    one, other = (make_examples(d, split.training_targets(d), 5) for d in (dataset, changed))
    assert torch.equal(one.history, other.history) and torch.equal(one.target, other.target)
    # with one epoch there is nothing to choose, so the weights are the same too
    once = tiny.replace(epochs=1, compensator_epochs=1)
    found = [weights(fit(d, split, once, "cpu")) for d in (dataset, changed)]
    assert differing(*found) == []


def test_changing_a_training_item_changes_the_weights(ring, tiny, trained):
    """The leak test could see a leak."""
    dataset, split = ring
    changed = other_items(dataset, split.validation[:1] - 1)
    found = differing(weights(trained), weights(fit(changed, split, tiny, "cpu")))
    assert {"Z*", "embedding.weight"} <= set(found)


# the loop


def test_same_seed_same_weights_other_seed_other_weights(ring, tiny, trained):
    again = fit(*ring, tiny, "cpu")
    assert differing(weights(trained), weights(again)) == []
    other = fit(*ring, tiny.replace(seed=1), "cpu")
    assert "embedding.weight" in differing(weights(trained), weights(other))


def test_a_resumed_run_equals_an_uninterrupted_one(ring, tiny, tmp_path):
    four = tiny.replace(epochs=4, dropout=0.2, patience=10)
    whole, first, second = History(), History(), History()
    uninterrupted = fit(*ring, four, "cpu", [whole])
    fit(*ring, four.replace(epochs=2), "cpu", [first], state=tmp_path / "state")
    resumed = fit(*ring, four, "cpu", [second], state=tmp_path / "state")
    assert first.frame("diffusion").index.tolist() == [1, 2]
    assert second.frame("diffusion").index.tolist() == [3, 4]
    assert whole.frame("diffusion").loc[3:].equals(second.frame("diffusion"))
    assert differing(weights(uninterrupted), weights(resumed)) == []
    # once more: all is done, no epoch is run again
    third = History()
    finished = fit(*ring, four, "cpu", [third], state=tmp_path / "state")
    assert {event.stage for event in third.events} == {"gae", "compensator"}
    assert differing(weights(uninterrupted), weights(finished)) == []


def test_a_state_of_another_run_is_refused(ring, tiny, tmp_path, one_sentence):
    dataset, split = ring
    one = tiny.replace(epochs=1, compensator_epochs=0)
    fit(dataset, split, one, "cpu", state=tmp_path)
    text = one_sentence(
        lambda: fit(dataset, split, one.replace(lr=0.5), "cpu", state=tmp_path),
        str(tmp_path),
        "another configuration",
        "another state folder",
    )
    assert "data" not in text
    changed = other_items(dataset, split.validation[:1] - 1)
    one_sentence(
        lambda: fit(changed, split, one, "cpu", state=tmp_path),
        str(tmp_path),
        "other data",
        "another state folder",
    )


def scripted(figures: list[float]):
    """An `evaluate` that reads its NDCG@10 from a list."""
    left = iter(figures)
    return lambda scorer, examples: {"HR@10": 0.0, "NDCG@10": next(left)}


def test_early_stopping_restores_the_best_epoch(ring, tiny, monkeypatch):
    config = tiny.replace(epochs=9, patience=2, compensator_epochs=0)
    monkeypatch.setattr(training, "evaluate", scripted([0.1, 0.3, 0.2, 0.3, 0.25, 0.2, 0.2, 1, 1]))
    history = History()
    stopped = fit(*ring, config, "cpu", [history])
    last = [event for event in history.events if event.stage == "diffusion"][-1]
    # epochs 3 and 4 are the two without a better figure that patience allows, 5 is one too many
    assert last.step == last.total == 5
    monkeypatch.setattr(training, "evaluate", scripted([0.1, 0.3]))
    two = fit(*ring, config.replace(epochs=2), "cpu")
    assert differing(weights(stopped), weights(two)) == []


def test_the_compensator_of_the_best_epoch_is_kept(ring, tiny, monkeypatch):
    config = tiny.replace(epochs=1, compensator_epochs=4)
    monkeypatch.setattr(training, "evaluate", scripted([0.5, 0.1, 0.4, 0.3, 0.2]))
    best = fit(*ring, config, "cpu")
    monkeypatch.setattr(training, "evaluate", scripted([0.5, 0.1, 0.4]))
    two = fit(*ring, config.replace(compensator_epochs=2), "cpu")
    assert differing(weights(best), weights(two)) == []
    monkeypatch.setattr(training, "evaluate", scripted([0.5, 0.1]))
    one = fit(*ring, config.replace(compensator_epochs=1), "cpu")
    assert differing(weights(best), weights(one)) != []


def test_the_compensator_trains_nothing_else(ring, tiny, trained):
    without = fit(*ring, tiny.replace(compensator_epochs=0), "cpu")
    found = differing(weights(without), weights(trained))
    assert found and all(name.startswith("5.") for name in found)  # S = T // 2 = 5


def test_a_large_training_set_is_thinned(ring, tiny, monkeypatch):
    dataset, split = ring
    monkeypatch.setattr(training, "VALIDATION_USERS", 20)
    sample = validation_sample(dataset, split, tiny)
    assert len(sample) == 20 and sample.user.tolist() == list(range(0, 60, 3))
    monkeypatch.setattr(training, "COMPENSATOR_EXAMPLES", 50)
    seen, real = [], training.last_noisy

    def spy(model, examples, *rest, **options):
        seen.append(len(examples))
        return real(model, examples, *rest, **options)

    monkeypatch.setattr(training, "last_noisy", spy)
    fit(dataset, split, tiny.replace(epochs=1), "cpu")
    assert seen == [50, 20]  # training, then validation


# what the method promises


@pytest.fixture(scope="module")
def longer(tiny):
    return tiny.replace(
        epochs=25,
        patience=25,
        gae_steps=100,
        lr=1e-2,
        lr_embedding=1e-2,
        dropout=0.0,
        compensator_epochs=20,
    )


def test_without_aime_the_embeddings_collapse(ring, longer):
    norms = {}
    for delta in (0.0, 10.0):
        history = History()
        fit(*ring, longer.replace(delta=delta, epochs=10, compensator_epochs=0), "cpu", [history])
        norms[delta] = history.frame("diffusion")["norm of E"]
    assert norms[0.0].iloc[-1] < 0.8 * norms[0.0].iloc[0]
    assert norms[10.0].iloc[-1] > norms[10.0].iloc[0]
    assert norms[0.0].iloc[-1] < 0.5 * norms[10.0].iloc[-1]


def test_a_trained_model_beats_popularity_clearly(ring, longer):
    dataset, split = ring
    examples = make_examples(dataset, split.test, longer.max_len)
    recommender = fit(dataset, split, longer, "cpu")
    popular = evaluate(Popularity(dataset, split), examples)["NDCG@10"]
    for compensate in (True, False):
        ours = evaluate(recommender.scorer(compensate=compensate), examples)["NDCG@10"]
        assert ours > 2 * popular


@pytest.mark.parametrize(
    "change",
    [
        {"lambda_t": "paper"},
        {"lambda_t": "min_snr"},
        {"aggregation": "last"},
        {"positions": False},
        {"aime_target": "graph"},
        {"gae_pairs": 49, "aime_pairs": 49},
        {"schedule": "cosine"},
        {"schedule": "exponential"},
        {"pos_weight": 1.0},
        {"delta": 0.0},
        {"steps": 10},
        {"steps": 1, "timesteps": 1},
        {"epochs": 0, "compensator_epochs": 0},
    ],
)
def test_every_variant_trains(ring, tiny, trained, change):
    found = fit(*ring, tiny.replace(**change), "cpu")
    assert all(value.isfinite().all() for value in weights(found).values())
    ours = found.model.embedding.weight
    assert not torch.equal(ours, trained.model.embedding.weight) or "steps" in change
    assert len(found.recommend(["i00", "i01"], k=3)) == 3


# reports and failures


def test_history_and_bar_hear_every_step(ring, tiny):
    history, text = History(), io.StringIO()
    bar = ProgressBar(file=text)
    fit(*ring, tiny, "cpu", [history, bar])
    expected = [("gae", 20), ("diffusion", 2), ("compensator", 2)]
    assert [(e.stage, e.step, e.total) for e in history.events] == [
        (stage, step, total) for stage, total in expected for step in range(1, total + 1)
    ]
    assert list(history.frame("gae")) == ["loss per pair"]
    diffusion = history.frame("diffusion")
    assert list(diffusion) == ["L_Diff", "L_AIME", "norm of E", "HR@10", "NDCG@10"]
    assert list(history.frame("compensator")) == ["L_Com", "HR@10", "NDCG@10"]
    assert np.isfinite(diffusion.to_numpy()).all()
    for stage, total in expected:
        assert f"{stage}: 100%" in text.getvalue() and f"{total}/{total}" in text.getvalue()
    assert bar.bar is None


def test_a_bar_for_each_stage():
    text = io.StringIO()
    bar = ProgressBar(file=text, mininterval=0)
    bar(Event("gae", 1, 2, {"loss": 0.25}))
    assert bar.bar.n == 1
    bar(Event("gae", 2, 2, {"loss": 0.125}))
    assert bar.bar is None
    bar(Event("diffusion", 3, 4, {}))  # a resumed run starts at its own epoch
    assert bar.bar.n == 3 and bar.stage == "diffusion"
    bar.bar.close()
    assert "loss=0.125" in text.getvalue()


@pytest.mark.parametrize("change", [{"lr": 1e20}, {"lr_embedding": 1e30}, {"gae_lr": 1e30}])
def test_a_loss_that_is_no_number(ring, tiny, one_sentence, change):
    text = one_sentence(lambda: fit(*ring, tiny.replace(**change), "cpu"), "NaN", "lower")
    assert "epoch 1" in text


def test_devices(one_sentence):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cuda", "cpu")
    for name in ("abacus", "mps"):
        one_sentence(lambda: choose_device(name), f"'{name}'", "choose auto", "cpu")


def test_the_compensators_validation_is_what_the_recommender_does(trained, ring, tiny):
    """The sampled-once validation reports the same figure as the recommender's own scorer."""
    dataset, split = ring
    recommender = Recommender(trained.model, trained.item_ids)
    train = make_examples(dataset, split.training_targets(dataset), tiny.max_len)
    validation = validation_sample(dataset, split, tiny)
    log = History()
    train_compensator(recommender, train, validation, 5, [log])
    best = log.frame("compensator")["NDCG@10"].max()
    assert evaluate(recommender.scorer(5), validation)["NDCG@10"] == pytest.approx(best, abs=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_training_on_cuda_ends_near_the_cpu(ring, tiny):
    """Mixed precision and other random numbers: the loss within 15%, every weight finite, recommendations possible."""
    logs = {}
    for device in ("cpu", "cuda"):
        logs[device] = History()
        found = fit(*ring, tiny.replace(epochs=5), device, [logs[device]])
        assert len(found.recommend(["i00", "i01"], k=3)) == 3
        assert all(value.isfinite().all() for value in weights(found).values())
    losses = [logs[device].frame("diffusion")["L_Diff"].iloc[-1] for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)
