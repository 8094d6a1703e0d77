"""What notebook 05 says of compensators: a row for every answer. Oracles: `evaluate`, and loops over the answers."""

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.data.dataset import held_out
from dae4rec_core.experiments.compensators import (
    SAMPLES,
    Judge,
    compensator_rows,
    noise_levels,
    train_alone,
    train_shared,
)
from dae4rec_core.experiments.evaluation import train_compensators
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.ranking import METRICS, evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import stream
from dae4rec_core.training import fit


@pytest.fixture(scope="module")
def several(ring, tiny):
    """A recommender with compensators for S = 2 and 5."""
    found = fit(*ring, tiny.replace(seed=1), "cpu")
    train_compensators(found, *ring, [2])
    return found


@pytest.fixture(scope="module")
def table(several, ring):
    return pd.DataFrame(compensator_rows(several, *ring, [1, 5, 10]))


def row(table, answer, part="test", **places):
    chosen = table[(table["part"] == part) & (table["answer"] == answer)]
    for name, value in places.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_a_row_for_every_answer(table):
    counts = table[table["part"] == "test"]["answer"].value_counts().to_dict()
    assert counts == {
        "c(h)": 1,
        "f(0, T, h)": 1,
        "f(0, T, h) + r(h)": 1,
        "f(e, tau_1, h)": 3,
        "f(e, tau_1, h) + r(h)": 2,
        "c(e, h)": 3 * 2,
        "c(0, h)": 2,
        "mean of 16 f": 1,
        "f(e^t, t, h)": 4,
    }
    assert (table["part"].value_counts() == len(table) / 2).all() and set(table["seed"]) == {1}
    assert not table.duplicated(["part", "answer", "trained", "used"]).any()
    assert table.drop(columns=["trained", "used", "overlap"]).query("answer != 'f(e^t, t, h)'").notna().all(axis=None)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_first_chains_are_those_of_the_recommenders_scorer(table, several, ring, part):
    """The first S is sampled first, from the same stream."""
    examples = held_out(*ring, part, several.model.config)
    expected = evaluate(several.scorer(1, False, seed=1), examples)
    assert row(table, "f(e, tau_1, h)", part, used=1)[list(METRICS)].to_dict() == pytest.approx(expected)
    several.compensators[1] = several.compensators[2]
    expected = evaluate(several.scorer(1, seed=1), examples)
    del several.compensators[1]
    assert row(table, "c(e, h)", part, used=1, trained=2)[list(METRICS)].to_dict() == pytest.approx(expected)


@torch.no_grad()
def test_the_other_rows_by_hand(table, several, ring):
    model, c = several.model, several.compensators[5]
    examples = held_out(*ring, "test", model.config)
    h, noise = model.condition(examples.history), stream(1, "sampling")
    f, tau = model.predictor(h), choose_tau(10, 10)
    torch.randn(2 * 2, *h.shape, generator=noise)  # two chains each for S = 1 and S = 5
    chains = [skip_step(f, torch.randn(h.shape, generator=noise), h, model.alpha_bar, tau) for _ in "12"]
    samples = []
    for _ in range(SAMPLES):  # S = 5 is the configuration's
        samples.append(skip_step(f, torch.randn(h.shape, generator=noise), h, model.alpha_bar, choose_tau(10, 5))[1])
    truth, T = model.embedding(examples.target), torch.full((len(h),), 10)
    zeros, constant = torch.zeros_like(h), truth.var(0, correction=0).sum()
    answers = {
        ("f(0, T, h)",): model.denoiser(zeros, T, h),
        ("c(0, h)", 5): c(zeros, h),
        ("c(e, h)", 5, 10): c(chains[0][0], h),
        ("mean of 16 f",): torch.stack(samples).mean(0),
    }
    for (answer, *places), e_0 in answers.items():
        found = row(table, answer, **dict(zip(("trained", "used"), places, strict=False)))
        scores = e_0 @ model.embedding.weight.T
        better = (scores > scores.gather(1, examples.target.unsqueeze(1))).sum(1)
        assert found["HR@10"] == pytest.approx((better < 10).double().mean().item())
        assert found["error"] == pytest.approx(((e_0 - truth) ** 2).sum(1).mean().item() / constant.item(), rel=1e-5)
    levels = noise_levels(10)
    assert levels == [1, 2, 5, 10]
    for t in levels:
        at = torch.full((len(h),), t)
        e_t = add_noise(truth, at, torch.randn(h.shape, generator=noise), model.alpha_bar)
        error = (model.denoiser(e_t.float(), at, h) - truth).square().sum(1).mean() / constant
        assert row(table, "f(e^t, t, h)", used=t)["error"] == pytest.approx(error.item(), rel=1e-4)


@torch.no_grad()
def test_overlap_counts_what_two_lists_share(several, ring):
    judge = Judge(several, *ring, "test")
    one, other = torch.randn(2, *judge.h.shape, generator=torch.Generator().manual_seed(0))
    lists = [(e_0 @ several.model.embedding.weight.T).argsort(1, descending=True)[:, :10] for e_0 in (one, other)]
    shared = [len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(*lists, strict=True)]
    assert judge.metrics(one, other)["overlap"] == pytest.approx(np.mean(shared))
    assert judge.metrics(one, one)["overlap"] == 1 and "overlap" not in judge.metrics(one)


def test_what_is_trained_alone_sees_h_alone_and_leaves_the_recommender_as_it_is(several, ring):
    before = {name: value.clone() for name, value in several.model.state_dict().items()}
    found = Recommender(several.model, several.item_ids)
    alone = train_alone(found, *ring)
    assert found.compensators == {} and found.shared is None and not alone.training
    assert [name for name, value in several.model.state_dict().items() if not torch.equal(value, before[name])] == []
    assert all(parameter.requires_grad for parameter in several.model.parameters())
    of_e_tau1, of_h = alone.first.weight.grad.chunk(2, dim=1)
    assert (of_e_tau1 == 0).all() and (of_h != 0).any()


def test_the_shared_one_is_what_fit_trains(ring, tiny):
    whole = fit(*ring, tiny.replace(compensator="shared"), "cpu")
    other = train_shared(Recommender(whole.model, whole.item_ids), *ring)
    for name, value in whole.shared.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@torch.no_grad()
def test_one_that_starts_from_a_chain_adds_the_same_whatever_it_starts_from(several, ring):
    shared = train_shared(several, *ring, 5)
    one, other, h = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shared(one, h) - one, shared(other, h) - other)
