"""What goes beyond the paper: sphere, ranking term, returns, neighbours, guidance. The defaults leave all of it out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

from dae4rec_core import checkpoint
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import held_out, training_graph
from dae4rec_core.method.beyond import BeyondDAE4Rec, Returns, neighbours, pretrain_counts, rank_loss
from dae4rec_core.method.graph import ItemGraph, transition_counts
from dae4rec_core.method.losses import diffusion_loss
from dae4rec_core.method.model import PAD, DAE4Rec, Query, StepNoise, scores
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.method.variants import make_model
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import ItemIndex
from dae4rec_core.state import z_star_file
from dae4rec_core.streams import weights_from
from dae4rec_core.training import fit, pretrained

ITEMS, DIM = 9, 8
HISTORY = torch.tensor([[PAD, PAD, 3, 5], [1, 2, 3, 3]])
TARGET = torch.tensor([4, 0])
COUNTS = transition_counts([[0, 1, 2, 3, 3, 1], [5, 3, 5], [8]], ITEMS, symmetric=True)


def model_of(**changes) -> DAE4Rec:
    torch.manual_seed(0)
    sizes = {"dim": DIM, "hidden": 16, "max_len": 6, "timesteps": 10, "dropout": 0.0}
    return make_model(ITEMS, Config().replace(**sizes, **changes)).double().eval()


def vectors(seed: int) -> torch.Tensor:
    return torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(**more) -> StepNoise:
    return StepNoise(torch.tensor([3, 9]), vectors(1), **more)


def taught(model: BeyondDAE4Rec) -> BeyondDAE4Rec:
    """Returns that add something: they start at nothing."""
    with torch.no_grad():
        model.returns.place.normal_(generator=torch.Generator().manual_seed(1))
        model.returns.gate.weight.normal_(generator=torch.Generator().manual_seed(2))
    return model


# ---- nothing beyond -----------------------------------------------------------------------------


@pytest.mark.parametrize("name, beyond", [("letter", False), ("reference", False), ("improved", True)])
def test_the_papers_presets_are_the_papers_model(name, beyond):
    assert isinstance(make_model(ITEMS, PRESETS[name]), BeyondDAE4Rec) == beyond


def test_the_subclass_with_every_switch_off_is_the_papers_model():
    """Same weights: same loss, same predictions, same query."""
    paper = model_of()
    ours = BeyondDAE4Rec(ITEMS, paper.config).double().eval()
    ours.load_state_dict(paper.state_dict())
    h, e_0 = paper.condition(HISTORY), vectors(2)
    assert torch.equal(ours(HISTORY, TARGET, noise()), paper(HISTORY, TARGET, noise()))
    assert torch.equal(ours.predictor(h)(e_0, torch.tensor([3]), h), paper.predictor(h)(e_0, torch.tensor([3]), h))
    assert ours.query(e_0, HISTORY, h) == paper.query(e_0, HISTORY, h) == Query(e_0)
    one, other = (model.draw_noise(3, torch.Generator().manual_seed(0)) for model in (ours, paper))
    assert torch.equal(one.eps, other.eps) and one.x_T is one.blind is None


# ---- the sphere ---------------------------------------------------------------------------------


def test_scores_on_the_sphere_are_cosines_over_the_temperature():
    model, e_0 = model_of(geometry="sphere", temperature=0.25), vectors(2)
    found = scores(model.query(e_0, HISTORY, e_0), model.item_vectors())
    expected = F.cosine_similarity(e_0.unsqueeze(1), model.embedding.weight.unsqueeze(0), dim=-1) / 0.25
    torch.testing.assert_close(found, expected)


def test_on_the_sphere_e0_has_the_length_of_noise_and_l_diff_leaves_the_clean_embeddings_alone():
    model = model_of(geometry="sphere")
    clean = model.clean(torch.arange(ITEMS))
    torch.testing.assert_close(clean.norm(dim=1), torch.full((ITEMS,), 8.0).double().sqrt())
    torch.testing.assert_close(F.cosine_similarity(clean, model.embedding.weight), torch.ones(ITEMS).double())
    assert not clean.requires_grad
    model(HISTORY, TARGET, noise()).backward()
    gradient = model.embedding.weight.grad
    assert (gradient[TARGET] == 0).all()  # as answers they are fixed
    assert (gradient[[1, 2, 3, 5]].abs().sum(1) > 0).all()  # as items of a history they learn


# ---- returns ------------------------------------------------------------------------------------


def test_returns_add_a_number_to_the_items_of_the_history_and_start_at_nothing():
    model = model_of(returns=True, rank_weight=1.0)
    h, e_0 = model.condition(HISTORY), vectors(2)
    plain = e_0 @ model.embedding.weight.T
    torch.testing.assert_close(scores(model.query(e_0, HISTORY, h), model.item_vectors()), plain)

    found = scores(taught(model).query(e_0, HISTORY, h), model.item_vectors()) - plain
    expected = torch.zeros(2, ITEMS).double()
    for user in range(2):
        for back in range(1, 5):  # the newest item stands at the last place
            if (item := HISTORY[user, -back]) != PAD:
                expected[user, item] += model.returns.place[-back] + model.returns.gate.weight[-back] @ h[user]
    torch.testing.assert_close(found, expected)
    # a draw stands for the item that its list has first
    assert torch.equal(scores(model.assignment(e_0, HISTORY, h), model.item_vectors()) - plain, found)


def test_more_padding_changes_no_return():
    returns, h = Returns(DIM, 6).double(), vectors(3)
    torch.nn.init.normal_(returns.place, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(returns.gate.weight, generator=torch.Generator().manual_seed(1))
    longer = F.pad(HISTORY, (2, 0), value=PAD)
    short, long = returns(HISTORY != PAD, h), returns(longer != PAD, h)
    assert torch.equal(long[:, 2:], short) and (long[:, :2] == 0).all()
    assert (short[HISTORY == PAD] == 0).all() and (short[HISTORY != PAD] != 0).all()


@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_best_items_with_gains_are_those_of_the_dense_scores(k):
    model = taught(model_of(returns=True, rank_weight=1.0, neighbours=0.5))
    model.counts = COUNTS
    recommender = Recommender(model, [f"i{item}" for item in range(ITEMS)])
    histories = [["i3", "i5"], ["i1", "i2", "i3", "i3"]]
    found = recommender.recommend_many(histories, k, steps=5, compensate=False)
    scorer = recommender.scorer(5, compensate=False, shared_noise=True)
    values, best = scores(scorer.query(HISTORY), scorer.items).topk(k)
    assert found["item_id"].tolist() == [f"i{item}" for item in best.flatten().tolist()]
    torch.testing.assert_close(torch.tensor(found["score"].to_numpy()), values.flatten())


# ---- the ranking term ---------------------------------------------------------------------------


def test_rank_loss_is_the_cross_entropy_of_the_answers():
    """By hand from the query: -log softmax of the answer's score, mean over users."""
    items, gaining = torch.randn(ITEMS, DIM).double(), torch.tensor([[3, 4], [PAD, 0]])
    query = Query(vectors(2), gaining, torch.tensor([[1.5, -2.0], [0.0, 0.5]]).double())
    by_hand = 0.0
    for user in range(2):
        each = [float(query.vectors[user] @ items[item]) for item in range(ITEMS)]
        for item, gain in zip(gaining[user].tolist(), query.gains[user].tolist(), strict=True):
            if item != PAD:
                each[item] += gain
        by_hand -= (each[TARGET[user]] - np.log(np.exp(each).sum())) / 2
    assert rank_loss(query, items, TARGET).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_loss_is_l_diff_plus_gamma_times_the_cross_entropy_of_one_step_from_pure_noise():
    """L_Diff by itself, and f(x_T, T, h) as the sampler with S = 1 gives it, scored against the whole catalogue."""
    model, x_T = model_of(rank_weight=2.5), vectors(4)
    h = model.condition(HISTORY)
    e_t = add_noise(model.embedding(TARGET), torch.tensor([3, 9]), noise().eps, model.alpha_bar)
    weight = model.lambda_t[torch.tensor([3, 9])]
    l_diff = diffusion_loss(model.embedding(TARGET), model.denoiser(e_t, torch.tensor([3, 9]), h), weight)
    logits = model.denoiser(x_T, torch.tensor([10]), h) @ model.embedding.weight.T
    expected = l_diff + 2.5 * F.nll_loss(logits.log_softmax(1), TARGET)
    torch.testing.assert_close(model(HISTORY, TARGET, noise(x_T=x_T)), expected, rtol=1e-6, atol=0)


def test_the_ranking_term_sees_returns_and_no_neighbours():
    """The counts of neighbours hold the training answers, so learning beside them would teach nothing."""
    model = model_of(rank_weight=1.0, returns=True, neighbours=0.5)
    model.counts = COUNTS
    e_0, h = vectors(2), model.condition(HISTORY)
    query = model.query(e_0, HISTORY, h)
    assert query.items.shape[1] > HISTORY.shape[1]  # the query of a recommendation has both
    start = model.ranking_term(e_0, HISTORY, h, TARGET)
    torch.testing.assert_close(start, rank_loss(Query(e_0), model.item_vectors(), TARGET))
    with torch.no_grad():
        model.returns.place.fill_(3.0)
    three = Query(e_0, HISTORY, 3.0 * (HISTORY != PAD))
    found = model.ranking_term(e_0, HISTORY, h, TARGET)
    torch.testing.assert_close(found, rank_loss(three, model.item_vectors(), TARGET))
    assert found > start  # the answers are not in the histories


def test_a_steps_noise_holds_what_the_switches_need():
    """x_T is other noise than eps; the blind are the share that was asked for, within 5 standard errors."""
    size = 20_000
    drawn = model_of(rank_weight=1.0, unconditional=0.3).draw_noise(size, torch.Generator().manual_seed(0))
    assert drawn.x_T.shape == drawn.eps.shape == (size, DIM)
    assert abs(torch.corrcoef(torch.stack([drawn.x_T.flatten(), drawn.eps.flatten()]))[0, 1]) < 5 / (size * DIM) ** 0.5
    assert drawn.blind.dtype == torch.bool
    assert abs(drawn.blind.double().mean() - 0.3) < 5 * (0.3 * 0.7 / size) ** 0.5
    assert model_of(unconditional=0.3).draw_noise(2, torch.Generator()).x_T is None


def test_the_ranking_term_lifts_a_short_run(ring, tiny):
    """On the ring the next item is known 8 times in 10, so a better loss shows at once."""
    short = tiny.replace(epochs=6, delta=0.0, compensator_epochs=0)
    examples = held_out(*ring, "test", tiny)
    with_term = short.replace(rank_weight=100.0, geometry="sphere", returns=True)
    found = [
        evaluate(fit(*ring, config, "cpu").scorer(compensate=False), examples)["NDCG@10"]
        for config in (short, with_term)
    ]
    assert found[1] > found[0] + 0.05


# ---- guidance -----------------------------------------------------------------------------------


def test_guidance_mixes_the_two_predictions():
    model = model_of(unconditional=0.2, guidance=1.5)
    with torch.no_grad():
        model.nothing.normal_(generator=torch.Generator().manual_seed(5))
    h, noisy, t = model.condition(HISTORY), vectors(6), torch.tensor([3])
    nothing = model.nothing.expand(2, -1)
    expected = 2.5 * model.denoiser(noisy, t, h) - 1.5 * model.denoiser(noisy, t, nothing)
    torch.testing.assert_close(model.predictor(h)(noisy, t, h), expected)


def test_the_blind_learn_from_nothing_and_give_their_history_no_gradient():
    model = model_of(unconditional=0.5)
    for blind in (True, False):
        model.zero_grad(set_to_none=False)
        model(HISTORY, TARGET, noise(blind=torch.full((2,), blind))).backward()
        history, nothing = model.attention.w_v.weight.grad, model.nothing.grad
        assert (history is not None and bool(history.abs().sum() > 0)) != blind
        assert bool(nothing.abs().sum() > 0) == blind


# ---- neighbours ---------------------------------------------------------------------------------


def test_neighbours_are_counted_by_hand():
    history = torch.tensor([[PAD, PAD, 4, 7], [1, 2, 3, 3], [PAD, PAD, PAD, 0]])
    rng = np.random.default_rng(0)
    counts = transition_counts([rng.integers(0, 8, 12) for _ in range(4)], ITEMS, window=3, symmetric=True)
    items, gains = neighbours(counts, history)
    assert items.shape == gains.shape and ((items == PAD) == (gains == 0)).all()
    dense = counts.toarray()
    for user in range(3):
        expected = np.zeros(ITEMS)
        for k in (1, 2, 3):
            if history[user, -k] != PAD:
                expected += dense[history[user, -k]] / k
        found = np.zeros(ITEMS)
        real = items[user] != PAD
        assert len(items[user][real].unique()) == real.sum()
        found[items[user][real]] = gains[user][real]
        np.testing.assert_allclose(found, np.log1p(expected), rtol=1e-6, atol=1e-6)


def test_histories_that_share_their_newest_items_gain_the_same():
    rng = np.random.default_rng(0)
    counts = sparse.random(12, 12, 0.3, "csr", random_state=0)
    history = torch.from_numpy(rng.integers(-1, 3, (40, 5)))  # many are alike in their newest three
    items, gains = neighbours(counts, history)
    for row in range(len(history)):
        alone = [part[0].tolist() for part in neighbours(counts, history[row : row + 1])]
        found = dict(zip(items[row].tolist(), gains[row].tolist(), strict=True))
        assert {item: gain for item, gain in found.items() if item != PAD} == {
            item: gain for item, gain in zip(*alone, strict=True) if item != PAD
        }


def test_an_item_without_neighbours_gains_nothing_and_a_short_history_has_fewer():
    items, gains = neighbours(COUNTS, torch.tensor([[8]]))
    assert items.tolist() == [[PAD]] and gains.tolist() == [[0.0]]
    alone, padded = neighbours(COUNTS, torch.tensor([[3]])), neighbours(COUNTS, torch.tensor([[PAD, PAD, PAD, 3]]))
    assert all(torch.equal(one, other) for one, other in zip(alone, padded, strict=True))


def test_neighbours_are_added_to_the_scores_with_their_weight(one_sentence):
    model, e_0 = model_of(neighbours=0.5), vectors(2)
    h = model.condition(HISTORY)
    one_sentence(lambda: model.query(e_0, HISTORY, h), "Config.neighbours", "model.counts")
    model.counts = COUNTS
    found = scores(model.query(e_0, HISTORY, h), model.item_vectors()) - e_0 @ model.embedding.weight.T
    items, gains = neighbours(COUNTS, HISTORY)
    expected = scores(Query(torch.zeros(2, DIM).double(), items, 0.5 * gains), model.item_vectors())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    index = ItemIndex(model.item_vectors(), cells=1)
    recommender = Recommender(model, [f"i{item}" for item in range(ITEMS)])
    one_sentence(
        lambda: recommender.recommend_many([["i1"]], 3, 5, compensate=False, index=index), "leave the index out"
    )


# ---- all of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_save_and_load(ring, tiny, tmp_path, name):
    """Sizes as in the tests, everything else as the preset says: the loaded model scores as the trained one does."""
    sizes = ("k_core", "max_len", "dim", "hidden", "gae_steps", "timesteps", "steps", "batch_size")
    small = {field: tiny.flat()[field] for field in sizes}
    passes = min(1, PRESETS[name].train.compensator_epochs)
    made = fit(*ring, PRESETS[name].replace(**small, epochs=1, compensator_epochs=passes), "cpu")
    checkpoint.save(made, tmp_path)
    again = checkpoint.load(tmp_path, "cpu")
    history = torch.tensor([[0, 1, 2]])
    one, other = (r.scorer() for r in (made, again))
    torch.testing.assert_close(scores(other.query(history), other.items), scores(one.query(history), one.items))
    if made.z_star is not None:
        torch.testing.assert_close(again.z_star, made.z_star)


# ---- Z* from counts ----------------------------------------------------------------------------


def counted(callbacks=(), **changes) -> torch.Tensor:
    return pretrain_counts(COUNTS, Config().replace(dim=DIM, gae_pairs=None, **changes), callbacks=callbacks)


def test_pretraining_on_counts_is_adam_on_the_dense_loss():
    """Twenty steps by PyTorch's own cross-entropy, as many 1s as c_ij n^2 / sum c and a 0 for each pair (1e-3)."""
    with weights_from(0, "W_0"):
        z = (0.1 * torch.randn(ITEMS, DIM)).requires_grad_()
    weights = torch.from_numpy(COUNTS.toarray()).float() * ITEMS**2 / COUNTS.sum()
    optimizer, losses, events = torch.optim.Adam([z], lr=Config().gae.lr), [], []
    for _ in range(20):
        optimizer.zero_grad()
        logits = z @ z.T
        ones, zeros = (
            F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")
            for label in (1.0, 0.0)
        )
        loss = (weights * ones + zeros).sum() / ITEMS
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / ITEMS)
    torch.testing.assert_close(counted([events.append], gae_steps=20), z.detach(), rtol=1e-3, atol=1e-4)
    assert [(event.stage, event.step, event.total) for event in events] == [("gae", n, 20) for n in range(1, 21)]
    assert [event.metrics["loss per pair"] for event in events] == pytest.approx(losses, rel=1e-3)


def test_what_is_pretrained_follows_the_configuration_and_is_kept_under_its_own_name(ring, tiny, tmp_path):
    graph, ours = training_graph(*ring), tiny.replace(similarity="counts")
    first = pretrained(graph, ours, folder=tmp_path)
    assert torch.equal(first, pretrain_counts(graph.counts, ours))
    assert torch.equal(first, pretrained(graph, ours, folder=tmp_path)) and len(list(tmp_path.iterdir())) == 1
    assert not torch.equal(first, pretrained(graph, tiny, folder=tmp_path))
    twice = ItemGraph(graph.n_items, graph.edges, 2 * graph.counts)  # the same edges, other counts
    files = {z_star_file(tmp_path, g, ours) for g in (graph, twice)} | {z_star_file(tmp_path, graph, tiny)}
    assert len(files) == 3
    assert z_star_file(tmp_path, twice, tiny) == z_star_file(tmp_path, graph, tiny)


def test_a_graph_without_counts_is_refused(ring, tiny, one_sentence):
    graph = training_graph(*ring)
    bare = ItemGraph(graph.n_items, graph.edges)
    one_sentence(lambda: pretrained(bare, tiny.replace(similarity="counts")), "transition_graph")


def test_a_model_drawn_to_counts_is_saved_resumed_and_read_again(ring, tiny, tmp_path):
    config = tiny.replace(similarity="counts")
    stopped, whole = tmp_path / "stopped", fit(*ring, config, "cpu")
    fit(*ring, config.replace(epochs=1, compensator_epochs=0), "cpu", state=stopped)
    resumed = fit(*ring, config, "cpu", state=stopped)
    assert torch.equal(resumed.z_star, whole.z_star)
    assert torch.equal(resumed.model.embedding.weight, whole.model.embedding.weight)
    checkpoint.save(whole, tmp_path / "saved")
    again = checkpoint.load(tmp_path / "saved", "cpu")
    assert again.model.config == config and torch.equal(again.z_star, whole.z_star)
    history = whole.item_ids[:3]
    assert again.recommend(history, 5).equals(whole.recommend(history, 5))
    assert not torch.equal(whole.model.embedding.weight, fit(*ring, tiny, "cpu").model.embedding.weight)
