"""Draws as a distribution, against brute force in float64 and scipy."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from dae4rec_core.cloud import entropy, fit_width, probabilities, total_variation
from dae4rec_core.config import Config
from dae4rec_core.method.model import PAD
from dae4rec_core.method.variants import make_model

HISTORY = torch.tensor([[PAD, 2, 5], [1, 0, 7], [3, 3, 3]])


def model_of(**changes):
    torch.manual_seed(0)
    return make_model(9, Config().replace(dim=8, hidden=16, max_len=3, timesteps=20, steps=4, init_std=1.0, **changes))


def test_the_nearest_item_and_the_kernel_by_brute_force():
    model = model_of().eval()
    e_0 = torch.randn(3, 50, 8)
    items = model.embedding.weight.detach().double().numpy()
    for width in (0.0, 0.3, 2.0):
        found = probabilities(model, HISTORY, e_0, width).numpy()
        for user in range(3):
            apart = cdist(e_0[user].double().numpy(), items)
            if width == 0:
                expected = np.bincount(apart.argmin(1), minlength=9) / 50
            else:
                expected = softmax(-(apart**2) / (2 * width**2), axis=1).mean(0)
            np.testing.assert_allclose(found[user], expected, atol=1e-6)


def test_on_the_sphere_a_width_of_one_is_the_softmax_of_the_scores():
    model = model_of(geometry="sphere", rank_weight=1.0, returns=True).eval()
    torch.nn.init.normal_(model.returns.place)
    e_0 = torch.randn(3, 1, 8)
    with torch.no_grad():
        cosines = torch.nn.functional.cosine_similarity(e_0, model.embedding.weight, dim=-1).double() / 0.1
        gains = model.returns(HISTORY != PAD, model.condition(HISTORY))
        for user in range(3):
            for place in range(3):
                if HISTORY[user, place] != PAD:
                    cosines[user, HISTORY[user, place]] += gains[user, place]
    found = probabilities(model, HISTORY, e_0, 1.0)
    torch.testing.assert_close(found, cosines.softmax(1), atol=1e-5, rtol=0)


def test_the_fitted_width_is_the_one_that_made_the_answers():
    """Answers drawn from the kernel of width 0.7 around each draw: no other width makes them likelier."""
    torch.manual_seed(0)
    model = model_of().eval()
    e_0 = torch.randn(1500, 1, 8)
    history = HISTORY[:1].expand(1500, -1)
    target = torch.multinomial(probabilities(model, history, e_0, 0.7), 1).squeeze(1)
    assert fit_width(model, history, e_0, target) == pytest.approx(0.7, rel=0.1)


def test_distance_and_entropy_agree_with_scipy():
    p, q = torch.rand(4, 6, dtype=torch.float64).softmax(1), torch.rand(4, 6, dtype=torch.float64).softmax(1)
    p[0] = torch.tensor([1.0, 0, 0, 0, 0, 0])
    assert total_variation(p, p).abs().max() == 0 and total_variation(torch.eye(2), torch.eye(2).flip(0)).min() == 1
    np.testing.assert_allclose(total_variation(p, q), cdist(p, q, "cityblock").diagonal() / 2)
    np.testing.assert_allclose(entropy(p), scipy_entropy(p, base=2, axis=1), atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"geometry": "sphere", "rank_weight": 1.0}])
def test_a_tiny_width_is_the_nearest_item_and_a_huge_one_chance(changes):
    """Also where width**2 is 0 in float32 or float64: the limit, and no NaN."""
    model, e_0 = model_of(**changes).eval(), torch.randn(3, 50, 8)
    nearest = probabilities(model, HISTORY, e_0, 0.0)
    for width in (1e-300, 1e-30, 1e-20, 0.99e-9, 1e-9):
        assert torch.equal(probabilities(model, HISTORY, e_0, width), nearest)
    torch.testing.assert_close(probabilities(model, HISTORY, e_0, 1e9), torch.full((3, 9), 1 / 9, dtype=torch.float64))
    assert torch.equal(probabilities(model, HISTORY, e_0, np.float64(0.3)), probabilities(model, HISTORY, e_0, 0.3))


@pytest.mark.parametrize("width", [-1.0, -1e-30, float("nan"), float("inf"), 1e200, None, "1", True])
def test_a_width_that_is_none_is_refused(width, one_sentence):
    words = f"width is {width!r}", "give 0"
    one_sentence(lambda: probabilities(model_of(), HISTORY, torch.randn(3, 1, 8), width), *words)
