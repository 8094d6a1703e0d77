"""Methods as distributions: every measure by a loop in NumPy, scikit-learn or scipy, and laws that must come back."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp
from sklearn.calibration import calibration_curve

from dae4rec_core.cloud import total_variation
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Examples, prepare
from dae4rec_core.data.town import write_town
from dae4rec_core.experiments import clouds
from dae4rec_core.experiments.clouds import Bench
from dae4rec_core.method.model import PAD, DAE4Rec
from dae4rec_core.method.schedule import make_alpha_bar

USERS, ITEMS = 40, 12


def random_p(seed: int, sharp: float = 2.0, users: int = USERS) -> torch.Tensor:
    return (sharp * torch.randn(users, ITEMS, generator=torch.Generator().manual_seed(seed)).double()).softmax(1)


def examples_of(p: torch.Tensor, seed: int, seen: bool = False) -> Examples:
    """Answers drawn from p, histories of three items at random, the first of them padding for every other user."""
    noise = torch.Generator().manual_seed(seed)
    history = torch.randint(ITEMS, (len(p), 3), generator=noise)
    history[::2, 0] = PAD
    target = torch.multinomial(p, 1, generator=noise).squeeze(1)
    hidden = torch.where(history == target.unsqueeze(1), PAD, history) if seen else torch.empty(len(p), 0).long()
    return Examples(history, target, torch.arange(len(p)), hidden)


@pytest.fixture
def bench() -> Bench:
    law, before = random_p(0), random_p(1)
    popularity = torch.arange(1, ITEMS + 1).double()
    groups = {"category": np.arange(ITEMS) % 3, "district": np.arange(ITEMS) // 4}
    return Bench(examples_of(before, 1), examples_of(law, 0), law, popularity / popularity.sum(), groups)


def test_a_row_by_loops(bench):
    p, before = random_p(2), random_p(3)
    row = clouds.cloud_row(bench, before, p)
    assert bench.law is not None
    P, L, pop = p.numpy(), bench.law.numpy(), bench.popularity.numpy()
    target, history = bench.test.target.numpy(), bench.test.history.numpy()
    expected = {"total variation": [], "by category": [], "by district": [], "own items": [], "entropy": []}
    likelihood, hits, listed, kinds, novelty = [], [], set(), [], []
    for n in range(USERS):
        expected["total variation"].append(sum(abs(P[n] - L[n])) / 2)
        for name, codes in bench.groups.items():
            gaps = [abs(P[n][codes == code].sum() - L[n][codes == code].sum()) for code in set(codes)]
            expected[f"by {name}"].append(sum(gaps) / 2)
        own = [item for item in set(history[n]) if item != PAD]
        expected["own items"].append(abs(P[n][own].sum() - L[n][own].sum()))
        expected["entropy"].append(-sum(P[n] * np.log2(P[n])))
        likelihood.append(math.log((1 - row["mixed"]) * P[n][target[n]] + row["mixed"] * pop[target[n]]))
        top = sorted(range(ITEMS), key=lambda item: -P[n][item])[:10]
        hits.append(target[n] in top)
        listed |= set(top)
        kinds.append(len({item % 3 for item in top}))
        novelty += [-math.log2(pop[item]) for item in top]
    for name, values in expected.items():
        assert row[name] == pytest.approx(np.mean(values), abs=1e-9), name
    assert row["log-likelihood"] == pytest.approx(np.mean(likelihood))
    assert row["HR@10"] == pytest.approx(np.mean(hits)) and row["coverage"] == len(listed) / ITEMS
    assert row["kinds"] == pytest.approx(np.mean(kinds)) and row["novelty"] == pytest.approx(np.mean(novelty))


def test_without_a_law_what_needs_it_is_left_out(bench):
    blind = Bench(bench.validation, bench.test, None, bench.popularity, {})
    row = clouds.cloud_row(blind, random_p(3), random_p(2))
    assert set(row) == {"log-likelihood", "mixed", "entropy", "HR@10", "NDCG@10", "coverage", "novelty"}


def test_the_law_is_its_own_best(bench):
    """No distance to itself, no popularity mixed in where it made the validation answers, and the best likelihood."""
    validation = random_p(1, users=2000)
    many = Bench(examples_of(validation, 1), bench.test, bench.law, bench.popularity, bench.groups)
    row = clouds.cloud_row(many, validation, bench.law)
    assert row["total variation"] == row["own items"] == 0
    assert row["mixed"] < 0.05
    assert row["log-likelihood"] > clouds.cloud_row(many, validation, random_p(2))["log-likelihood"]


def test_the_mixing_weight_is_the_best_on_a_grid(bench):
    p = random_p(3)
    p[:, ::2] = 0  # many answers are impossible
    p = clouds.normalized(p)
    found = clouds.mixing_weight(p, bench)
    grid = np.linspace(0, 1, 2001)
    own = p[torch.arange(USERS), bench.validation.target].numpy()
    pop = bench.popularity[bench.validation.target].numpy()
    with np.errstate(divide="ignore"):
        best = grid[np.argmax([np.log((1 - w) * own + w * pop).mean() for w in grid])]
    assert found == pytest.approx(best, abs=2e-3)


def test_sharpness_finds_the_power_that_made_the_answers(bench):
    p = random_p(5, users=4000)
    made = examples_of(clouds.sharpened(p, 0.5), 6)
    many = Bench(made, bench.test, None, bench.popularity, {})
    assert clouds.sharpness(p, many) == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(clouds.sharpened(p, 1.0), p)


def test_seen_items_have_no_probability(bench):
    p, part = random_p(2), examples_of(random_p(0), 0, seen=True)
    found = clouds.of_unseen(p, part)
    for n in range(USERS):
        hidden = [item for item in part.seen[n].tolist() if item != PAD]
        rest = p[n].clone()
        rest[hidden] = 0
        torch.testing.assert_close(found[n], rest / rest.sum())
    assert clouds.of_unseen(p, bench.test) is p


def test_seen_items_are_not_listed():
    """Also where all but one item have the same probability, none, and popularity alone decides."""
    part = examples_of(random_p(0), 0, seen=True)
    ranked = torch.arange(ITEMS).double().expand(USERS, -1)
    for row, seen in zip(clouds.listed(ranked, part).tolist(), part.seen.tolist(), strict=True):
        allowed = [item for item in reversed(range(ITEMS)) if item not in seen]
        assert row[: len(allowed)] == allowed[:10]
    assert (ranked == torch.arange(ITEMS)).all()


def test_reliability_agrees_with_scikit_learn_and_a_law_is_calibrated():
    p = random_p(7, users=3000)
    part = examples_of(p, 8)
    rows = pd.DataFrame(clouds.reliability(p, part))
    assert rows["pairs"].sum() == p.numel()
    assert (rows["predicted"] * rows["pairs"]).sum() == pytest.approx(3000)  # each user's p sums to 1
    for row in rows.itertuples():
        error = math.sqrt(row.predicted * (1 - row.predicted) / row.pairs)
        assert abs(row.observed - row.predicted) < 4 * error + 1e-9
    hit = torch.zeros_like(p).scatter_(1, part.target.unsqueeze(1), 1.0)
    top = p >= 0.3  # the last bin, which scikit-learn makes from data in it alone
    observed, predicted = calibration_curve(hit[top], p[top], n_bins=1)
    assert rows.iloc[-1][["observed", "predicted"]].tolist() == pytest.approx([observed[0], predicted[0]])
    wrong = pd.DataFrame(clouds.reliability(p.roll(1, 0), part))
    assert abs(wrong["observed"] - wrong["predicted"]).max() > 0.1


def test_exact_f_is_bayes_rule_and_its_draws_are_the_law():
    torch.manual_seed(0)
    config = Config().replace(dim=16, timesteps=100, hidden=8, init_std=1.0)
    model, law = DAE4Rec(ITEMS, config), random_p(9, users=3)
    items, alpha_bar = model.embedding.weight.detach(), make_alpha_bar("linear", 100)
    e_t, t = torch.randn(3, 16), torch.tensor([70])
    found = clouds.exact_f(law.log().float(), items, alpha_bar)(e_t, t, e_t)
    level = alpha_bar[70].item()
    apart = ((e_t.unsqueeze(1) - level**0.5 * items) ** 2).sum(2).double().numpy()
    joint = law.log().numpy() - apart / (2 * (1 - level))
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) @ items.double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)

    drawn = clouds.draws_by_exact_f(model, law.log(), steps=50, draws=4000)
    assert total_variation(drawn, law).max() < 0.05
    for mine, theirs in zip(drawn.numpy(), law.roll(1, 0).numpy(), strict=True):
        assert jensenshannon(mine, theirs) > 0.1


def test_overlap_is_what_two_lists_share(trained, ring):
    part = Examples(torch.tensor([[PAD, 1, 2], [3, 4, 5]]), torch.tensor([3, 6]), torch.arange(2))
    lists = []
    for seed in (0, 1):
        query = trained.scorer(5, False, seed).query(part.history).vectors
        lists.append((query @ trained.model.embedding.weight.detach().T).argsort(dim=1, descending=True)[:, :10])
    shared = [len(set(one.tolist()) & set(other.tolist())) / 10 for one, other in zip(*lists, strict=True)]
    assert clouds.overlap(trained, part, 5, compensate=False) == pytest.approx(np.mean(shared))


def test_rows_of_a_trained_model_and_of_counting(tmp_path, tiny, trained, ring):
    """On a little town everything is measured; counting alone knows whether a user came from somewhere."""
    write_town(tmp_path, n_venues=100, n_users=60)
    dataset, split = prepare(tmp_path, tiny)
    found = clouds.make_bench(tmp_path, dataset, split, tiny, users=10)
    assert found.law is not None and len(found.law) == len(found.test) == 10
    torch.testing.assert_close(found.law.sum(1), torch.ones(10).double())
    for name, p_of in clouds.counting(dataset, split).items():
        p = p_of(found.test)
        torch.testing.assert_close(p.sum(1), torch.ones(10).double(), msg=name)
    own = clouds.counting(dataset, split)["own visits"](found.test)
    assert clouds.own_mass(own, found.test).min() == pytest.approx(1)

    dataset, split = ring
    on_ring = clouds.make_bench(tmp_path / "ring", dataset, split, tiny, users=10)
    assert on_ring.law is None
    rows = [row for row, _ in clouds.rows_of_draws("it", trained, on_ring, 5, False, 20)]
    assert [row["kind"] for row in rows] == ["nearest", "kernel"] and rows[0]["width"] == 0 < rows[1]["width"]
    assert rows[1]["log-likelihood"] >= rows[0]["log-likelihood"] - 0.5
    both = [clouds.softmax_of(trained)(part) for part in (on_ring.validation, on_ring.test)]
    rows = [row for row, _ in clouds.rows_of_probabilities("it", *both, on_ring, fitted=True)]
    assert [row["kind"] for row in rows] == ["as it is", "tempered"]
