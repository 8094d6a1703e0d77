"""What goes beyond the paper: the sphere, the ranking term, returns, guidance. The defaults leave all of it out."""

import pytest
import torch
import torch.nn.functional as F

from dae4rec_core.baselines import SequentialRules
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data import PAD, make_examples
from dae4rec_core.graph import neighbours
from dae4rec_core.model import DAE4Rec, Denoiser, Returns
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import ItemIndex, add_bonus
from dae4rec_core.training import _DiffusionStep, fit, rank_loss

HISTORY = torch.tensor([[PAD, PAD, 3, 5], [1, 2, 3, 3]])


def model_of(**changes) -> DAE4Rec:
    torch.manual_seed(0)
    return DAE4Rec(9, Config(dim=8, hidden=16, max_len=6, timesteps=10, dropout=0.0, **changes)).double().eval()


def test_the_default_query_is_e0_and_its_scores_are_inner_products():
    model = model_of()
    e0 = torch.randn(2, 8).double()
    assert model.query(e0) is e0
    torch.testing.assert_close(model.scores(e0), e0 @ model.embedding.weight.T)
    assert PRESETS["paper"] == Config()


def test_scores_on_the_sphere_are_cosines_over_the_temperature():
    model = model_of(geometry="sphere", temperature=0.25)
    e0 = torch.randn(2, 8).double()
    expected = F.cosine_similarity(e0.unsqueeze(1), model.embedding.weight.unsqueeze(0), dim=-1) / 0.25
    torch.testing.assert_close(model.scores(e0), expected)


def test_on_the_sphere_e0_has_the_length_of_noise_and_l_diff_leaves_the_embeddings_alone():
    model = model_of(geometry="sphere")
    torch.testing.assert_close(model.clean(torch.arange(9)).norm(dim=1), torch.full((9,), 8.0).double().sqrt())
    model.clean(torch.arange(9)).requires_grad_().sum().backward()
    assert model.embedding.weight.grad is None


def test_returns_add_a_number_to_the_items_of_the_history_and_start_at_nothing():
    model = model_of(returns=True)
    recommender = Recommender(model, range(9))
    plain = recommender.scorer(5, compensate=False)(HISTORY)
    model.returns = None
    torch.testing.assert_close(recommender.scorer(5, compensate=False)(HISTORY), plain)

    model.returns = Returns(8, 6).double()
    with torch.no_grad():
        model.returns.place.normal_()
        model.returns.gate.weight.normal_()
    found = recommender.scorer(5, compensate=False)(HISTORY) - plain
    h = model.condition(HISTORY)
    expected = torch.zeros(2, 9).double()
    for user in range(2):
        for back in range(1, 5):  # the newest item stands at the last place
            if (item := HISTORY[user, -back]) != PAD:
                expected[user, item] += model.returns.place[-back] + model.returns.gate.weight[-back] @ h[user]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_best_items_with_a_bonus_are_those_of_the_full_scores(k):
    model = model_of(returns=True, unconditional=0.1)
    with torch.no_grad():
        model.returns.place.normal_(std=3)
    recommender = Recommender(model, [f"i{item}" for item in range(9)])
    histories = [["i3", "i5"], ["i1", "i2", "i3", "i3"]]
    found = recommender.recommend_many(histories, k, steps=5, compensate=False)
    scores, best = recommender.scorer(5, compensate=False)(HISTORY).topk(k)
    assert found["item_id"].tolist() == [f"i{item}" for item in best.flatten().tolist()]
    torch.testing.assert_close(torch.tensor(found["score"].to_numpy()), scores.flatten())


def test_rank_loss_is_the_cross_entropy_of_the_answers():
    model = model_of()
    e0, h, target = torch.randn(2, 8).double(), model.condition(HISTORY), torch.tensor([4, 0])
    by_hand = 0.0
    for user in range(2):
        scores = [float(e0[user] @ model.embedding.weight[item].detach()) for item in range(9)]
        by_hand -= torch.tensor(scores).double().softmax(0)[target[user]].log() / 2
    assert rank_loss(model, e0, HISTORY, h, target).item() == pytest.approx(float(by_hand), rel=1e-5)


def test_guidance_mixes_the_two_predictions():
    model = model_of(unconditional=0.2, guidance=1.5)
    with torch.no_grad():
        model.nothing.normal_()
    h, noisy, t = model.condition(HISTORY), torch.randn(2, 8).double(), torch.tensor([3])
    nothing = model.nothing.expand(2, -1)
    expected = 2.5 * model.denoiser(noisy, t, h) - 1.5 * model.denoiser(noisy, t, nothing)
    torch.testing.assert_close(model.predictor(h)(noisy, t, h), expected)


def test_a_hidden_condition_gives_the_history_no_gradient():
    step = _DiffusionStep(model_of(unconditional=0.5))
    noise = torch.randn(2, 8).double()
    for hidden in (True, False):
        step.zero_grad()
        step(HISTORY, torch.tensor([4, 0]), torch.tensor([3, 9]), noise, torch.full((2,), hidden), noise).backward()
        moved = step.model.attention.qkv.weight.grad.abs().sum() > 0
        assert bool(moved) != hidden


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"guidance": 2.0}, ("guidance", "unconditional")),
        ({"unconditional": 1.0}, ("unconditional", "below 1")),
        ({"geometry": "cube"}, ("geometry", "sphere")),
        ({"temperature": 0.0}, ("temperature", "above 0")),
        ({"rank_weight": -1.0}, ("rank_weight", "0 or more")),
        ({"depth": 0}, ("depth", "at least 1")),
    ],
)
def test_impossible_values_are_refused(one_sentence, change, words):
    one_sentence(lambda: Config(**change), *words)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_counts_hidden_layers(depth):
    linear = [layer for layer in Denoiser(8, 16, 0.0, depth).out if isinstance(layer, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(16, 16)] * (depth - 1) + [(8, 16)]


def test_the_ranking_term_lifts_a_short_run(ring, tiny):
    """On the ring the next item is known 8 times in 10, so a better loss shows at once."""
    dataset, split = ring
    short = tiny.replace(epochs=6, delta=0.0, gae_steps=1)
    examples = make_examples(dataset, split.test, tiny.max_len)
    with_term = short.replace(rank_weight=100.0, geometry="sphere", returns=True)
    found = [
        evaluate(fit(dataset, split, config, "cpu").scorer(), examples)["NDCG@10"] for config in (short, with_term)
    ]
    assert found[1] > found[0] + 0.05


def test_presets_train_save_and_load(ring, tiny, tmp_path):
    dataset, split = ring
    small = {name: getattr(tiny, name) for name in ("k_core", "max_len", "dim", "hidden", "gae_steps", "timesteps")}
    for name, preset in PRESETS.items():
        made = fit(dataset, split, preset.replace(**small, epochs=1, compensator_epochs=1, batch_size=64), "cpu")
        made.save(tmp_path / name)
        again = Recommender.load(tmp_path / name, "cpu")
        history = torch.tensor([[0, 1, 2]])
        torch.testing.assert_close(again.scorer()(history), made.scorer()(history))


def test_neighbours_are_counted_by_hand_and_added_to_the_scores(ring, trained):
    counts = SequentialRules(*ring, symmetric=True).counts
    history = torch.tensor([[PAD, PAD, 4, 7], [1, 2, 3, 3], [PAD, PAD, PAD, 0]])
    items, weights = neighbours(counts, history)
    dense = counts.toarray()
    for user in range(3):
        expected = sum(dense[history[user, -k]] / k for k in (1, 2, 3) if history[user, -k] != PAD)
        found = torch.zeros(len(dense)).double()
        real = items[user] != PAD
        found[items[user][real]] = weights[user][real].double()
        torch.testing.assert_close(found, torch.log1p(torch.from_numpy(expected)), rtol=1e-6, atol=1e-6)

    more = Recommender(DAE4Rec(len(dense), trained.model.config.replace(neighbours=0.5)), trained.item_ids)
    more.model.load_state_dict(trained.model.state_dict())
    plain = more.scorer(5, compensate=False)(history)
    more.transitions = counts
    gained = more.scorer(5, compensate=False)(history) - plain
    torch.testing.assert_close(gained, add_bonus(torch.zeros_like(plain), items, 0.5 * weights), rtol=1e-4, atol=1e-5)
    index = ItemIndex(more.model.item_vectors(), cells=3, probes=3)
    with pytest.raises(ValueError, match="leave the index out"):
        more.recommend_many([["i01"]], 3, 5, compensate=False, index=index)
