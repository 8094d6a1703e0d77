"""Training: nothing of the test set gets in; choosing, stopping, resuming and reporting work.

Oracles: runs with changed data, runs that end earlier, loops over all items, and the recommender's own scorer.
"""

import copy
import dataclasses
import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from padding import pad_histories

from dae4rec_core import training
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data.dataset import (
    Examples,
    encode,
    global_time,
    held_out,
    leave_last_out,
    prepare,
    training_examples,
    training_graph,
    validation_sample,
)
from dae4rec_core.events import Event, History, ProgressBar
from dae4rec_core.experiments.baselines import Popularity
from dae4rec_core.method import gae
from dae4rec_core.method.beyond import NEIGHBOUR_WINDOW, SharedCompensator
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.method.losses import aime_loss
from dae4rec_core.method.model import DAE4Rec, scores
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.method.variants import make_model
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import Purpose, stream
from dae4rec_core.training import Exploded, check_loss, fit, sample_e_tau1, train_compensator


def weights(recommender) -> dict[str, torch.Tensor]:
    """Every number that training decided."""
    found = dict(recommender.model.state_dict())
    if recommender.z_star is not None:
        found["Z*"] = recommender.z_star
    for steps, compensator in recommender.compensators.items():
        found |= {f"{steps}.{name}": value for name, value in compensator.state_dict().items()}
    if recommender.shared is not None:
        found |= {f"shared.{name}": value for name, value in recommender.shared.state_dict().items()}
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


def stages(history: History) -> set[str]:
    return {event.stage for event in history.events}


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
    for examples in (training_examples, validation_sample):
        one, other = (examples(d, split, tiny) for d in (dataset, changed))
        assert torch.equal(one.history, other.history) and torch.equal(one.target, other.target)
    one, other = fit(dataset, split, tiny, "cpu"), fit(changed, split, tiny, "cpu")
    assert differing(weights(one), weights(other)) == []
    # the change is real: the evaluation sees it
    found = [evaluate(r.scorer(), held_out(d, split, "test", tiny)) for r, d in ((one, dataset), (other, changed))]
    assert found[0] != found[1]


def test_the_neighbours_counts_are_the_training_parts(first_visits, ours):
    dataset, split = first_visits
    changed = other_items(dataset, np.concatenate([split.validation, split.test]))
    one, other = (fit(d, split, ours.replace(epochs=0), "cpu").model.counts for d in (dataset, changed))
    assert (one != other).nnz == 0
    sequences = split.training_sequences(dataset)
    assert (one != transition_counts(sequences, dataset.n_items, NEIGHBOUR_WINDOW, symmetric=True)).nnz == 0
    changed = other_items(dataset, split.validation[:1] - 1)
    assert (one != fit(changed, split, ours.replace(epochs=0), "cpu").model.counts).nnz > 0


def test_changing_the_validation_items_changes_no_graph_no_example_and_no_z_star(ring, tiny):
    dataset, split = ring
    changed = other_items(dataset, split.validation)
    np.testing.assert_array_equal(training_graph(dataset, split).edges, training_graph(changed, split).edges)
    one, other = (training_examples(d, split, tiny) for d in (dataset, changed))
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


def test_nothing_to_learn_from_is_one_sentence(tiny, one_sentence):
    """Three interactions a user: one is the test answer, one the validation answer, and one has nothing before it."""
    rows = [(user, item, time) for user in "uvw" for time, item in enumerate("abc")]
    dataset = encode(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), name="short")
    split = leave_last_out(dataset)
    one_sentence(lambda: fit(dataset, split, tiny, "cpu"), "short", "no next item to learn from", "longer histories")


# random numbers


def test_same_seed_same_weights_other_seed_other_weights(ring, tiny, trained):
    torch.rand(3)  # the global generator plays no part
    again = fit(*ring, tiny, "cpu")
    assert differing(weights(trained), weights(again)) == []
    other = fit(*ring, tiny.replace(seed=1), "cpu")
    assert "embedding.weight" in differing(weights(trained), weights(other))


def test_nothing_but_dropout_draws_from_the_global_generator(ring, tiny):
    """A network that draws from it at every step changes nothing where there is no dropout: pairs have their stream."""

    class Drawing(DAE4Rec):
        def forward(self, *batch):
            torch.rand(1)
            return super().forward(*batch)

    config = tiny.replace(gae_pairs=49, aime_pairs=49, dropout=0.0, compensator_epochs=0)
    one, other = (weights(fit(*ring, config, "cpu", network=network)) for network in (DAE4Rec, Drawing))
    assert differing(one, other) == []


def test_every_stream_holds_numbers_of_its_own():
    asked = [(seed, purpose, *numbers) for seed in (0, 1) for purpose in Purpose.__args__ for numbers in ((), (1,))]
    draws = [torch.randn(64, generator=stream(*place)) for place in asked]
    again = [torch.randn(64, generator=stream(*place)) for place in asked]
    assert torch.equal(torch.stack(draws), torch.stack(again))
    correlations = np.corrcoef(torch.stack(draws)) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.6  # of 64 independent numbers; a shared stream would give 1


def test_the_first_embeddings_are_no_copy_of_the_auto_encoders_first_weights(ring, tiny, monkeypatch):
    made = []

    class Remembered(gae.GAE):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            made.append(self.w0.detach().clone())

    monkeypatch.setattr(gae, "GAE", Remembered)
    e = fit(*ring, tiny.replace(hidden=16, epochs=0, compensator_epochs=0), "cpu").model.embedding.weight.detach()
    assert len(made) == 1 and made[0].shape == e.shape
    assert abs(np.corrcoef(e.flatten(), made[0].flatten())[0, 1]) < 0.2


# Z*


@pytest.mark.parametrize("change", [{"delta": 0.0}, {"aime_target": "graph"}])
def test_z_star_is_not_pretrained_where_nothing_needs_it(ring, tiny, tmp_path, change):
    history = History()
    found = fit(*ring, tiny.replace(epochs=1, **change), "cpu", [history], tmp_path)
    assert stages(history) == {"diffusion", "compensator"}
    assert found.z_star is None and list(tmp_path.glob("z_star*")) == []


def test_z_star_that_is_given_is_used(ring, tiny, trained):
    history = History()
    again = fit(*ring, tiny, "cpu", [history], z_star=trained.z_star)
    assert stages(history) == {"diffusion", "compensator"}
    assert differing(weights(again), weights(trained)) == []
    other = fit(*ring, tiny, "cpu", z_star=trained.z_star + 1)
    assert "embedding.weight" in differing(weights(other), weights(trained))


def test_z_star_is_kept_in_the_state_folder(ring, tiny, trained, tmp_path):
    first, second = History(), History()
    fit(*ring, tiny.replace(epochs=1), "cpu", [first], tmp_path)
    again = fit(*ring, tiny, "cpu", [second], tmp_path)
    assert "gae" in stages(first) and "gae" not in stages(second)
    assert differing(weights(again), weights(trained)) == []


# choosing an epoch and stopping


def test_training_stops_by_patience_with_the_best_epochs_weights(ring, tiny):
    config = tiny.replace(epochs=60, patience=2, lr=0.05, compensator_epochs=0)
    history = History()
    stopped = fit(*ring, config, "cpu", [history])
    values = history.frame("diffusion")["NDCG@10"].tolist()
    last = history.events[-1]
    assert last.step == last.total == len(values) < 60
    # the last two epochs are no better, and before them no two in a row were
    better = [value > max(values[:place], default=-1) for place, value in enumerate(values)]
    assert better[-3:] == [True, False, False]
    assert not any(better[place : place + 2] == [False, False] for place in range(len(better) - 2))
    best = len(values) - 2
    assert best > 1
    assert differing(weights(stopped), weights(fit(*ring, config.replace(epochs=best), "cpu"))) == []


def by_hand(recommender, dataset, split, leave_out=True, neighbours=True) -> float:
    """Validation NDCG@10 of f(x_T, T, h): float64 scores of all items, sorted for each user in a loop."""
    model, config = recommender.model, recommender.model.config
    histories = [dataset.items[dataset.offsets[user] : place] for user, place in enumerate(split.validation)]
    assert [len(h) + 2 for h in histories] == np.diff(dataset.offsets).tolist()  # everybody is validated
    history = pad_histories(histories, config.data.max_len)
    x_T = torch.randn(len(history), config.model.dim, generator=stream(config.train.seed, "judging"))
    with torch.no_grad():
        h = model.condition(history)
        e_0 = model.denoiser(x_T, torch.tensor([config.diffusion.timesteps]), h)
        query = (model.query if neighbours else model.learned_query)(e_0, history, h)
        query = query._replace(vectors=query.vectors.double())
        table = scores(query, model.item_vectors().double()).tolist()
    gains = []
    for row, before, place in zip(table, histories, split.validation, strict=True):
        target = dataset.items[place]
        others = set(range(dataset.n_items)) - {target} - (set(before.tolist()) if leave_out else set())
        rank = 1 + sum(row[item] > row[target] for item in others)
        gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0)
    return sum(gains) / len(gains)


@pytest.mark.parametrize("kind", ["the paper's", "ours"])
def test_an_epoch_is_chosen_by_the_same_rule_as_the_evaluation(first_visits, tiny, ours, kind):
    """On first visits the seen items are left out, the neighbours' gains count, the noise is the judges' own."""
    dataset, split = first_visits
    config = ours.replace(epochs=3) if kind == "ours" else tiny.replace(repeats="first_visits", epochs=3, delta=1.0)
    for seed in (0, 1):
        history = History()
        found = fit(dataset, split, config.replace(seed=seed, compensator_epochs=0), "cpu", [history])
        best = history.frame("diffusion")["NDCG@10"].max()
        scorer = found.scorer(1, False, seed, purpose="judging")
        assert evaluate(scorer, validation_sample(dataset, split, config))["NDCG@10"] == pytest.approx(best, abs=1e-9)
        assert by_hand(found, dataset, split) == pytest.approx(best, abs=1e-6)
        # each of the two rules is seen in the value
        assert by_hand(found, dataset, split, leave_out=False) < best - 1e-3
        if kind == "ours":
            assert abs(by_hand(found, dataset, split, neighbours=False) - best) > 1e-3


# resuming


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
    # once more: all is done, nothing is run again, the compensator neither
    third = History()
    finished = fit(*ring, four, "cpu", [third], state=tmp_path / "state")
    assert stages(third) == set()
    assert differing(weights(uninterrupted), weights(finished)) == []


def test_a_run_that_had_stopped_early_stays_stopped(ring, tiny, tmp_path):
    config = tiny.replace(epochs=60, patience=2, lr=0.05, compensator_epochs=0)
    first, second = History(), History()
    one = fit(*ring, config, "cpu", [first], tmp_path)
    other = fit(*ring, config, "cpu", [second], tmp_path)
    assert first.events and second.events == []
    assert differing(weights(one), weights(other)) == []


def test_a_state_of_another_run_is_refused(ring, tiny, tmp_path, one_sentence):
    """Settings that differ before any work, that of another Z* included."""
    dataset, split = ring
    one = tiny.replace(epochs=1, compensator_epochs=0)
    fit(dataset, split, one, "cpu", state=tmp_path)
    changed = other_items(dataset, split.validation[:1] - 1)
    for data, config, words in (
        (dataset, one.replace(lr=0.5), "another configuration"),
        (dataset, one.replace(seed=1), "another configuration"),
        (changed, one, "other data"),
    ):
        log = History()
        one_sentence(
            lambda: fit(data, split, config, "cpu", [log], tmp_path), str(tmp_path), words, "write somewhere else"
        )
        assert log.events == [] or words == "other data"


# the compensator


def test_the_compensator_of_the_best_epoch_is_kept(ring, tiny):
    config, history = tiny.replace(compensator_epochs=8, lr=0.03), History()
    found = fit(*ring, config, "cpu", [history])
    values = history.frame("compensator")["NDCG@10"]
    best = int(values.idxmax())
    assert len(values) == 8 and 1 < best < 8
    earlier = fit(*ring, config.replace(compensator_epochs=best), "cpu")
    assert differing(weights(found), weights(earlier)) == []
    assert differing(weights(found), weights(fit(*ring, config.replace(compensator_epochs=best - 1), "cpu"))) != []


def test_the_compensator_learns_with_dropout_in_every_epoch(ring, tiny, trained, monkeypatch):
    """Judging it between two epochs switches dropout off. The model learns nothing meanwhile."""
    modes = []

    def remember(model, compensator, *batch):
        frozen = not any(parameter.requires_grad for parameter in model.parameters())
        modes.append((compensator.training, model.training, frozen))
        return training.compensator_loss(model.clean(batch[-1]), compensator(*batch[:2]))

    monkeypatch.setattr(training, "compensator_objective", remember)
    train, validation = training_examples(*ring, tiny), validation_sample(*ring, tiny)
    train_compensator(Recommender(trained.model, trained.item_ids), train, validation, 5)
    batches = math.ceil(len(train) / tiny.train.batch_size)
    assert modes == [(True, False, True)] * batches * tiny.train.compensator_epochs


def test_the_compensator_trains_nothing_else(ring, tiny, trained):
    without = fit(*ring, tiny.replace(compensator_epochs=0), "cpu")
    one, other = weights(without), weights(trained)
    assert set(other) - set(one) == {name for name in other if name.startswith("5.")} != set()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert all(parameter.requires_grad for parameter in trained.model.parameters())


def test_a_compensator_that_is_stopped_leaves_the_model_as_it_was(ring, tiny, trained):
    """Weights that learn go on learning, and one that was frozen before stays frozen."""
    recommender = Recommender(copy.deepcopy(trained.model), trained.item_ids)
    recommender.model.embedding.weight.requires_grad_(False)
    before = [weight.requires_grad for weight in recommender.model.parameters()]

    def stop(event):
        raise KeyboardInterrupt

    data = training_examples(*ring, tiny), validation_sample(*ring, tiny)
    with pytest.raises(KeyboardInterrupt):
        train_compensator(recommender, *data, 5, [stop])
    assert [weight.requires_grad for weight in recommender.model.parameters()] == before
    train_compensator(recommender, *data, 5)
    assert [weight.requires_grad for weight in recommender.model.parameters()] == before


def test_no_compensator_is_registered_without_an_epoch(ring, tiny, one_sentence):
    history = History()
    bare = fit(*ring, tiny.replace(compensator_epochs=0), "cpu", [history])
    assert bare.compensators == {} and "compensator" not in stages(history)
    one_sentence(lambda: bare.recommend(["i01"]), "S = 5", "train_compensator", "compensate=False")
    assert len(bare.recommend(["i01"], 3, compensate=False)) == 3
    train_compensator(bare, training_examples(*ring, tiny), validation_sample(*ring, tiny), 2)
    assert bare.compensators == {}


@pytest.mark.parametrize("kind", ["the paper's", "ours"])
def test_the_compensators_epoch_is_chosen_by_what_the_recommender_does(ring, first_visits, trained, ours, kind):
    """The validation that is sampled once reports the value of the recommender's own scorer, seen items left out."""
    data, found = (ring, trained) if kind == "the paper's" else (first_visits, fit(*first_visits, ours, "cpu"))
    config, log = found.model.config, History()
    recommender = Recommender(found.model, found.item_ids)
    validation = validation_sample(*data, config)
    train_compensator(recommender, training_examples(*data, config), validation, 3, [log])
    best = log.frame("compensator")["NDCG@10"].max()
    scorer = recommender.scorer(3, seed=config.train.seed, purpose="judging")
    assert evaluate(scorer, validation)["NDCG@10"] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_compensator_is_judged_on_other_noise_than_it_learns_from(ring, tiny, monkeypatch, seed):
    """The same examples as training and as validation: e^{tau_1} differs in every row all the same."""
    found, sampled = fit(*ring, tiny.replace(seed=seed, epochs=1), "cpu"), []

    def remember(*arguments, **options):
        sampled.append(sample_e_tau1(*arguments, **options))
        return sampled[-1]

    monkeypatch.setattr(training, "sample_e_tau1", remember)
    train_compensator(found, *[validation_sample(*ring, tiny)] * 2, 5)
    (learning, h), (judging, same_h) = sampled
    assert torch.equal(h, same_h)
    assert not torch.isclose(learning, judging).all(1).any()


@pytest.mark.parametrize("inputs", [training.own_answers, lambda *of: sample_e_tau1(*of, 5, stream(0, "judging"))])
def test_what_a_compensator_starts_from_is_made_without_dropout(ring, tiny, inputs):
    """Also by a model that was left in training mode."""
    model, examples = make_model(ring[0].n_items, tiny.replace(dropout=0.5)), validation_sample(*ring, tiny)
    one, other = inputs(model.train(), examples), inputs(model.eval(), examples)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_the_parts_of_a_compensators_training_are_kept_in_files_of_their_own(
    ring, tiny, trained, tmp_path, monkeypatch
):
    kept, sample, learn = [], training.sample_e_tau1, training.learn_last_step
    monkeypatch.setattr(
        training, "sample_e_tau1", lambda *of, keeper: (kept.append(keeper), sample(*of, keeper=keeper))[1]
    )
    monkeypatch.setattr(training, "learn_last_step", lambda *of: (kept.append(of[-1]), learn(*of))[1])
    train, validation = training_examples(*ring, tiny), validation_sample(*ring, tiny)
    train_compensator(Recommender(trained.model, trained.item_ids), train, validation, 5, state=tmp_path)
    assert len({keeper.file for keeper in kept}) == 3 and {keeper.file.parent for keeper in kept} == {tmp_path}


def test_a_large_training_set_is_thinned(ring, tiny, trained, monkeypatch):
    """Not one that is just large enough."""
    sampled, train, validation = [], training_examples(*ring, tiny), validation_sample(*ring, tiny)

    def remember(model, examples, *rest, **options):
        sampled.append(examples)
        return sample_e_tau1(model, examples, *rest, **options)

    monkeypatch.setattr(training, "sample_e_tau1", remember)
    for most in (50, len(train)):
        monkeypatch.setattr(training, "COMPENSATOR_EXAMPLES", most)
        train_compensator(Recommender(trained.model, trained.item_ids), train, validation, 5)
    thinned, judging, whole, _ = sampled
    assert len(thinned) == 50 and len(judging) == 60
    assert torch.equal(whole.history, train.history) and torch.equal(whole.target, train.target)


@pytest.mark.parametrize("kind", ["each S", "shared"])
def test_a_trained_compensator_reaches_the_mean_given_h(tiny, kind):
    """Four histories, each followed by known shares of three items: E[e^0 | h] is those shares times E, whatever S."""
    config = tiny.replace(compensator=kind, timesteps=10, dropout=0.0, lr=3e-3, compensator_epochs=4, batch_size=64)
    torch.manual_seed(5)
    model = make_model(12, config)
    torch.nn.init.normal_(model.embedding.weight)
    times = torch.tensor([[6, 3, 1], [2, 2, 6], [1, 8, 1], [0, 5, 5]])  # of the items 4, 5, 6 after item 0, 1, 2, 3
    visits = [(a, 4 + b) for a in range(4) for b in range(3) for _ in range(400 * int(times[a, b]))]
    known, follows = torch.tensor(visits).T
    examples = Examples(known.unsqueeze(1), follows, torch.zeros_like(known))
    recommender = Recommender(model, [f"i{n}" for n in range(12)])
    train_compensator(recommender, examples, examples.select(slice(None, None, 50)), 5)
    assert (recommender.shared is None) == (kind == "each S")

    mean = times / times.sum(1, keepdim=True) @ model.embedding.weight.detach()[4:7]  # (4, d)
    untrained = recommender.generate(torch.arange(4).unsqueeze(1), 5, compensate=False, x_T=torch.zeros(4, 16))
    found = [
        recommender.generate(torch.arange(4).unsqueeze(1), 5, x_T=torch.randn(4, 16, generator=stream(n, "sampling")))
        for n in range(20)
    ]
    apart = (torch.stack(found) - mean).norm(dim=2).mean() / mean.norm(dim=1).mean()
    assert apart < 0.1 < 0.5 < (untrained - mean).norm(dim=1).mean() / mean.norm(dim=1).mean()


def test_the_shared_compensator_is_the_same_whatever_the_s_that_asks_for_it(ring, tiny):
    config = tiny.replace(compensator="shared")
    one, other = (fit(*ring, config.replace(steps=steps), "cpu") for steps in (2, 10))
    assert one.compensators == other.compensators == {}
    assert differing(weights(one), weights(other)) == []
    assert any(name.startswith("shared.") for name in weights(one))


def test_choosing_it_changes_nothing_that_is_trained_before(ring, tiny, trained):
    one, other = weights(fit(*ring, tiny.replace(compensator="shared"), "cpu")), weights(trained)
    common = [name for name in one if not name.startswith("shared.")]
    assert common == [name for name in other if not name.startswith("5.")]
    assert [name for name in common if not torch.equal(one[name], other[name])] == []


def test_fs_own_answer_takes_part_in_the_choice(ring, tiny):
    """Epochs that ruin it, so that the best of all is none: what is kept adds nothing to f's answer."""
    found = fit(*ring, tiny.replace(compensator="shared", epochs=8, lr=1e-2, dropout=0.0, compensator_epochs=0), "cpu")
    train, validation = training_examples(*ring, tiny), validation_sample(*ring, tiny)
    nonsense = dataclasses.replace(train, target=torch.zeros_like(train.target))
    learning, judging = (training.own_answers(found.model, examples) for examples in (nonsense, validation))
    shared = SharedCompensator(found.model.config.model)
    found.model.config = found.model.config.replace(compensator_epochs=5)
    training.learn_last_step(found.model, shared, learning, judging, nonsense, validation, stream(0, "compensator"))
    assert torch.equal(shared(*judging), judging[0])


def test_another_compensator_resumes_the_same_run(ring, tiny, tmp_path):
    fit(*ring, tiny, "cpu", state=tmp_path)
    history = History()
    resumed = fit(*ring, tiny.replace(compensator="shared"), "cpu", [history], state=tmp_path)
    assert stages(history) == {"compensator"} and resumed.compensators == {} and resumed.shared is not None
    assert differing(weights(resumed), weights(fit(*ring, tiny.replace(compensator="shared"), "cpu"))) == []


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


@pytest.mark.slow
def test_without_aime_the_embeddings_collapse(ring, longer):
    norms = {}
    for delta in (0.0, 10.0):
        history = History()
        fit(*ring, longer.replace(delta=delta, epochs=10, compensator_epochs=0), "cpu", [history])
        norms[delta] = history.frame("diffusion")["norm of E"]
    assert norms[0.0].iloc[-1] < 0.8 * norms[0.0].iloc[0]
    assert norms[10.0].iloc[-1] > norms[10.0].iloc[0]
    assert norms[0.0].iloc[-1] < 0.5 * norms[10.0].iloc[-1]


@pytest.mark.slow
def test_a_trained_model_beats_popularity_clearly(ring, longer):
    dataset, split = ring
    examples = held_out(dataset, split, "test", longer)
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
        {"positions": False, "layer_norm": False, "shortcut": False},
        {"aime_target": "graph"},
        {"gae_pairs": 49, "aime_pairs": 49},
        {"schedule": "cosine"},
        {"schedule": "exponential"},
        {"pos_weight": 1.0},
        {"delta": 0.0},
        {"steps": 10},
        {"steps": None},
        {"steps": 1, "timesteps": 1},
        {"epochs": 0, "compensator_epochs": 1},
        {"geometry": "sphere", "rank_weight": 1.0},
        {"rank_weight": 1.0, "returns": True, "neighbours": 1.0, "delta": 0.0},
        {"unconditional": 0.2, "guidance": 1.0},
        {"compensator": "shared"},
        {"compensator": "shared", "geometry": "sphere", "rank_weight": 1.0, "returns": True},
        {"compensator": "shared", "unconditional": 0.2, "guidance": 1.0},
    ],
)
def test_every_variant_trains(ring, tiny, trained, change):
    found = fit(*ring, tiny.replace(**change), "cpu")
    assert all(value.isfinite().all() for value in weights(found).values())
    ours = found.model.embedding.weight
    assert not torch.equal(ours, trained.model.embedding.weight) or not {"steps", "compensator"}.isdisjoint(change)
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


def test_the_reported_losses_are_means_over_all_examples_of_an_epoch(ring, tiny):
    """A model that hardly moves, so that L_AIME (Eq. 10, dense) is that of its E in every batch; L_Diff by batch."""
    seen = []

    class Remembering(DAE4Rec):
        def forward(self, history, target, noise):
            loss = super().forward(history, target, noise)
            seen.append((loss.item(), len(target)))
            return loss

    log, config = History(), tiny.replace(lr=1e-20, lr_embedding=1e-20, compensator_epochs=0)
    found = fit(*ring, config, "cpu", [log], network=Remembering)
    frame, count = log.frame("diffusion"), len(training_examples(*ring, config))
    expected = aime_loss(found.model.embedding.weight.detach(), torch.sigmoid(found.z_star @ found.z_star.T))
    assert frame["L_AIME"].tolist() == pytest.approx([expected.item()] * 2, rel=1e-5)
    by_epoch = np.array(seen).reshape(2, -1, 2)
    assert by_epoch.shape[1] > 3 and len(set(by_epoch[0, :, 1])) == 2 and by_epoch[0, :, 1].sum() == count
    means = (by_epoch[..., 0] * by_epoch[..., 1]).sum(1) / count
    assert frame["L_Diff"].tolist() == pytest.approx(means.tolist(), rel=1e-5)


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


@pytest.mark.parametrize(
    "change, words",
    [
        ({"lr": 1e20}, ["L_Diff explodes", "nan in epoch 1", "lower Config.lr,"]),
        ({"lr": 10.0}, ["L_Diff explodes", "e+", "in epoch 1", "lower Config.lr,"]),  # its scores are numbers of 1e14
        ({"lr_embedding": 1e30}, ["L_Diff explodes", "lower Config.lr_embedding,"]),
        ({"lr_embedding": 1e4}, ["L_Diff explodes", "e+", "lower Config.lr_embedding,"]),
        ({"gae_lr": 1e30}, ["Z*", "NaN", "lower Config.gae_lr"]),
        ({"gae_lr": 1e7}, ["Z*", "above a million", "lower Config.gae_lr"]),
    ],
)
def test_a_training_that_explodes_is_said_and_the_field_is_named(ring, tiny, one_sentence, tmp_path, change, words):
    one_sentence(lambda: fit(*ring, tiny.replace(**change), "cpu", state=tmp_path), *words)
    assert list(tmp_path.iterdir()) == [] or "Z*" not in words  # no such Z* is kept


@pytest.mark.parametrize(
    "change, length, ranking",
    [
        ({"geometry": "sphere"}, 1.0, 0.0),
        ({"geometry": "sphere", "rank_weight": 3.0}, 1.0, 3.0),
        ({"init_std": 0.02}, 0.1, 0.0),
        ({"init_std": 0.5}, 0.5, 0.0),
    ],
)
def test_a_million_times_the_cost_of_zeros_is_an_explosion(tiny, one_sentence, change, length, ranking):
    """Zeros cost d times the squared length of a coordinate of the first E, and gamma log |V|."""
    model = make_model(12, tiny.replace(**change))
    bound = 1e6 * (tiny.model.dim * length**2 + ranking * math.log(12))
    check_loss(model, "L_Diff", 0.999 * bound, 1)
    one_sentence(lambda: check_loss(model, "L_Diff", 1.001 * bound, 1), "L_Diff explodes", "epoch 1")


def test_where_no_field_is_above_its_default_the_learning_rate_is_named(one_sentence):
    e_tau1 = torch.ones(4, Config().model.dim)
    model = make_model(12, Config())
    one_sentence(lambda: check_loss(model, "L_Com", math.inf, 3, e_tau1), "inf in epoch 3", "Config.lr, ")


def test_what_zeros_cost_a_compensator_knows_no_lambda(tiny, one_sentence):
    """Eq. 16 has no weights: d times the squared length of a coordinate of the first E, whatever lambda_t is."""
    model = make_model(12, tiny.replace(lambda_t="paper", timesteps=1000))
    cost = tiny.model.dim * max(tiny.model.init_std, 0.1) ** 2
    one_sentence(lambda: check_loss(model, "L_Com", math.inf, 1), f"zeros would cost about {cost:.3g};")
    weighted = cost * model.lambda_t.mean().item()
    one_sentence(lambda: check_loss(model, "L_Diff", math.inf, 1), f"zeros would cost about {weighted:.3g};")


def test_a_chain_that_runs_away_is_told_apart_from_a_large_rate(tiny, one_sentence):
    """f answers twelve times what it is given, so that e^t grows at every jump; here for one history of four."""
    model = make_model(12, tiny)
    h, tau = torch.tensor([0.0, 0.0, 1.0, 0.0]).unsqueeze(1), choose_tau(tiny.diffusion.timesteps, 10)
    x_T = torch.ones(4, tiny.model.dim)
    e_tau1, _ = skip_step(lambda e, t, h: 12 * h * e, x_T, h, model.alpha_bar, tau)
    assert (e_tau1[2] > 100 * e_tau1[0]).all()
    words = "1 of 4 sampled chains ran away", "another Config.seed", "Config.compensator_epochs 0"
    one_sentence(lambda: check_loss(model, "L_Com", 1e12, 2, e_tau1), *words)
    with pytest.raises(Exploded, match="lower Config.lr,"):
        check_loss(model, "L_Com", 1e12, 2, e_tau1[:2])


def test_a_compensator_that_explodes_is_said(ring, tiny, trained, one_sentence):
    """Its learning rate is everything else's too, so the model here was trained before."""
    model = copy.deepcopy(trained.model)
    model.config = tiny.replace(lr=10.0)
    examples = training_examples(*ring, tiny), validation_sample(*ring, tiny)
    one_sentence(lambda: train_compensator(Recommender(model, []), *examples, 5), "L_Com explodes", "Config.lr,")


def test_no_training_that_works_is_near_an_explosion(ring, tiny):
    """The letter, a start of E from almost nothing, heavy weights: L_Diff stays a thousandfold below the bound."""
    for change in (
        {"layer_norm": False, "positions": False, "shortcut": False, "lambda_t": "paper", "timesteps": 1000},
        {"layer_norm": False, "init_std": 1e-5},
        {"geometry": "sphere", "rank_weight": 1e6},
        {"lr": 0.1, "delta": 1e6},
    ):
        log = History()
        config = tiny.replace(**change, epochs=1, compensator_epochs=1)
        model = fit(*ring, config, "cpu", [log]).model
        for stage, name in (("diffusion", "L_Diff"), ("compensator", "L_Com")):
            check_loss(model, name, 1e3 * log.frame(stage)[name].max(), 1)


def test_devices(one_sentence):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device("auto").type in ("cuda", "cpu")
    for name in ("abacus", "mps"):
        one_sentence(lambda: choose_device(name), f"'{name}'", "choose auto", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_training_on_cuda_ends_near_the_cpu(ring, tiny):
    """Mixed precision: the loss within 15%, every weight finite, recommendations possible."""
    logs = {}
    for device in ("cpu", "cuda"):
        logs[device] = History()
        found = fit(*ring, tiny.replace(epochs=5), device, [logs[device]])
        assert len(found.recommend(["i00", "i01"], k=3)) == 3
        assert all(value.isfinite().all() for value in weights(found).values())
    losses = [logs[device].frame("diffusion")["L_Diff"].iloc[-1] for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


# what belongs to other data


def test_a_split_of_other_data_is_refused(ring, tiny, ring_frame, one_sentence):
    dataset, split = ring
    fewer = encode(ring_frame[ring_frame["user_id"] < "u50"], name="fewer")
    longer = encode(pd.concat([ring_frame, ring_frame]).sort_values("user_id", kind="stable"), name="longer")
    others = [leave_last_out(fewer), leave_last_out(longer), dataclasses.replace(split, train_end=dataset.offsets[1:])]
    others += [dataclasses.replace(split, test=split.test[-1:] + step) for step in (1, -(10**6))]
    for other in others:
        one_sentence(lambda other=other: fit(dataset, other, tiny, "cpu"), "not one of ring", "60 users", "give the")
    one_sentence(lambda: fit(fewer, split, tiny, "cpu"), "not one of fewer", "50 users", "give the split")


@pytest.mark.parametrize(
    "z_star, words",
    [
        (torch.zeros(3, 3), "(3, 3)"),
        (torch.zeros(29, 16), "(29, 16)"),
        (torch.zeros(30, 15), "(30, 15)"),
        (torch.zeros(480), "(480,)"),
        (np.zeros((30, 16)), "a ndarray"),
    ],
)
def test_a_z_star_of_another_shape_is_refused(ring, tiny, one_sentence, z_star, words):
    one_sentence(lambda: fit(*ring, tiny, "cpu", z_star=z_star), "z_star is ", words, "(30, 16)", "give a tensor")


@pytest.mark.parametrize("config", ["reference", None, {}])
def test_prepare_wants_a_configuration(ring_csv, one_sentence, config):
    one_sentence(lambda: prepare(ring_csv, config), f"config is {config!r}", "give a Config")


@pytest.mark.parametrize("z_star", [torch.ones(30, 16).long(), torch.full((30, 16), math.nan)])
def test_a_z_star_without_finite_floats_is_refused(ring, tiny, one_sentence, z_star):
    one_sentence(lambda: fit(*ring, tiny, "cpu", z_star=z_star), "z_star", "no floats", "give finite floats")


def test_a_split_that_leaves_nothing_to_choose_an_epoch_by_is_refused_before_any_work(ring, tiny, one_sentence):
    dataset, split = ring
    everything = dataclasses.replace(
        split, train_end=dataset.offsets[1:], validation=split.test[:0], test=split.test[:0]
    )
    history = History()
    one_sentence(lambda: fit(dataset, everything, tiny, "cpu", [history]), dataset.name, "no validation answers")
    assert history.events == []


def test_a_compensator_that_is_trained_alone_leaves_the_callers_random_numbers(ring, tiny, trained):
    dataset, split = ring
    train, validation = training_examples(dataset, split, tiny), held_out(dataset, split, "validation", tiny)
    drawn = []
    for work in (False, True):
        torch.manual_seed(5)
        if work:
            train_compensator(Recommender(trained.model, dataset.item_ids), train, validation, 3)
        drawn.append(torch.rand(1))
    assert torch.equal(*drawn)
