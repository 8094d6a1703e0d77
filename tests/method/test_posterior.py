"""f as a mean over the catalogue, against Bayes' rule in float64 and against the probabilities that it should draw."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import multivariate_normal

from dae4rec_core.cloud import probabilities, total_variation
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.method.model import PAD, StepNoise, scores
from dae4rec_core.method.posterior import PosteriorDAE4Rec
from dae4rec_core.method.sampling import choose_tau, markov_chain, skip_step
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender

ITEMS, DIM = 9, 8
HISTORY = torch.tensor([[PAD, 2, 5], [1, 0, 7], [3, 3, 3]])
SIZES = {"dim": DIM, "hidden": 16, "max_len": 3, "timesteps": 20, "steps": 4, "neighbours": 0.0}


def model_of(**changes) -> PosteriorDAE4Rec:
    torch.manual_seed(0)
    model = make_model(ITEMS, PRESETS["posterior"].replace(**SIZES | changes)).eval()
    assert isinstance(model, PosteriorDAE4Rec) and model.returns is not None
    torch.nn.init.normal_(model.returns.place)
    return model


def prior_of(model: PosteriorDAE4Rec, e_t: torch.Tensor, t: torch.Tensor, h: torch.Tensor) -> np.ndarray:
    """log p(v | h) of g(e^t, t, h), from the printed formula: cosines over the temperature, and returns. (B, |V|)"""
    cosines = torch.nn.functional.cosine_similarity(
        model.denoiser(e_t, t, h).unsqueeze(1), model.embedding.weight, dim=-1
    )
    logits = (cosines / model.config.beyond.temperature).double().numpy()
    gains = model.returns(HISTORY != PAD, h).double().numpy()
    for user, place in np.argwhere(HISTORY.numpy() != PAD):
        logits[user, HISTORY[user, place]] += gains[user, place]
    return log_softmax(logits, axis=1)


@torch.no_grad()
@pytest.mark.parametrize("t", [1, 7, 20])
def test_f_is_the_mean_by_bayes_rule(t):
    model = model_of()
    h, step = model.condition(HISTORY), torch.full((1,), t)
    items = model.embedding.weight.double().numpy()
    items *= np.sqrt(DIM) / np.linalg.norm(items, axis=1, keepdims=True)
    e_t = add_noise(torch.from_numpy(items[:3]).float(), torch.full((3,), t), torch.randn(3, DIM), model.alpha_bar)
    prior, level = prior_of(model, e_t, step, h), model.alpha_bar[t].item()
    expected = np.empty((3, DIM))
    for user in range(3):
        density = [
            multivariate_normal.logpdf(e_t[user].double(), level**0.5 * item, (1 - level) * np.eye(DIM))
            for item in items
        ]
        expected[user] = softmax(prior[user] + density) @ items
    found = model.predictor(h, HISTORY)(e_t, step, h)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(expected - items.mean(0)).max() > 0.1  # it says something


@torch.no_grad()
def test_its_loss_is_the_cross_entropy_of_bayes_rule_and_of_the_ranking_term():
    model, target = model_of(), torch.tensor([4, 8, 3])
    noise = StepNoise(torch.tensor([2, 11, 20]), torch.randn(3, DIM), torch.randn(3, DIM))
    h, rows, last = model.condition(HISTORY), np.arange(3), torch.full((1,), 20)
    e_t = add_noise(model.clean(target), noise.t, noise.eps, model.alpha_bar)
    items = model.clean(torch.arange(ITEMS)).double().numpy()
    level = model.alpha_bar[noise.t].numpy()[:, None]
    apart = ((e_t.double().numpy()[:, None] - np.sqrt(level)[:, None] * items) ** 2).sum(-1)  # (3, |V|)
    at_t = log_softmax(prior_of(model, e_t, noise.t, h) - apart / (2 * (1 - level)), axis=1)[rows, target]
    at_T = prior_of(model, noise.x_T, last, h)[rows, target]
    assert model(HISTORY, target, noise).item() == pytest.approx(-at_t.mean() - at_T.mean(), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("chain", ["skip", "markov"])
def test_draws_have_the_probabilities_of_the_prior(chain):
    """With a g that looks at h alone, p(v | h) is known, and 4,000 draws must come from it (0.05 is three errors)."""
    model = model_of(timesteps=100)
    model.denoiser.first.weight[:, : 2 * DIM] = 0  # neither e^t nor t
    h = model.condition(HISTORY).repeat_interleave(4000, 0)
    many, noise = HISTORY.repeat_interleave(4000, 0), torch.Generator().manual_seed(1)
    f, x_T = model.predictor(h, many), torch.randn(h.shape, generator=noise)
    if chain == "skip":
        e_0 = skip_step(f, x_T, h, model.alpha_bar, choose_tau(100, 50))[1]
    else:
        e_0 = markov_chain(f, x_T, h, model.alpha_bar, noise)
    found = probabilities(model, HISTORY, e_0.unflatten(0, (3, 4000)), width=0)
    few = model.condition(HISTORY)
    expected = torch.from_numpy(prior_of(model, torch.zeros(3, DIM), torch.tensor([100]), few)).exp()
    assert total_variation(found, expected).max() < 0.05
    assert total_variation(found, expected.roll(1, 0)).min() > 0.1  # each user's own


@torch.no_grad()
def test_a_batch_in_pieces_is_the_batch(monkeypatch):
    model = model_of()
    h, e_t, t = model.condition(HISTORY), torch.randn(3, DIM), torch.tensor([5])
    whole = model.predictor(h, HISTORY)(e_t, t, h)
    monkeypatch.setattr("dae4rec_core.method.posterior.CELLS", ITEMS)  # two rows at a time
    torch.testing.assert_close(model.predictor(h, HISTORY)(e_t, t, h), whole)


def test_lists_come_from_the_prior_and_no_chain_is_run(monkeypatch):
    model = model_of()
    recommender = Recommender(model, range(ITEMS))
    monkeypatch.setattr("dae4rec_core.recommender.skip_step", None)
    query = recommender.scorer().query(HISTORY)
    with torch.no_grad():
        h = model.condition(HISTORY)
        expected = prior_of(model, torch.zeros(3, DIM), torch.tensor([20]), h)
    found = scores(query, model.item_vectors().detach()).log_softmax(1)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-4)


def test_the_history_is_asked_for():
    model = model_of()
    with pytest.raises(ValueError, match=r"give predictor\(h, history\)"):
        model.predictor(torch.zeros(1, DIM))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"geometry": "free"}, "geometry 'sphere'"),
        ({"rank_weight": 0.0, "returns": False}, "rank_weight a value above 0"),
        ({"unconditional": 0.1}, "leave it at 0"),
        ({"compensator_epochs": 3}, "give Config.compensator_epochs 0"),
        ({"lambda_t": "paper"}, "leave it at 'uniform'"),
    ],
)
def test_what_can_not_work_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        PRESETS["posterior"].replace(**changes)
    assert Config().replace(**{name: value for name, value in changes.items() if name != "unconditional"})


@pytest.mark.parametrize("steps", [0, -3, 21])
def test_an_s_that_no_chain_has_is_refused_though_lists_need_no_chain(steps):
    recommender = Recommender(model_of(), [f"i{n}" for n in range(ITEMS)])
    with pytest.raises(ValueError, match=f"S is {steps}"):
        recommender.recommend(["i2", "i5"], 3, steps)
