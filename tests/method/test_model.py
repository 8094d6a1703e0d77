"""The attention condition (Eq. 4), the denoiser (Eq. 5), scores, and one training step (Eq. 11).

Oracles: torch's own attention and layers, diffusers' embedding, autograd. Float32 comparisons allow 1e-5, float64 ones
1e-10.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from dae4rec_core import training
from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data.dataset import Examples, length_grouped_order
from dae4rec_core.method.graph import transition_graph
from dae4rec_core.method.model import PAD, AttentionCondition, DAE4Rec, Denoiser, Query, scores, time_embedding
from dae4rec_core.retrieval import score_blocks
from dae4rec_core.streams import stream

BATCH, LENGTH, DIM, HIDDEN, ITEMS = 5, 6, 8, 16, 12
LENGTHS = torch.tensor([6, 3, 1, 4, 2])  # items in each history, the rest is padding on the left
REAL = torch.arange(LENGTH) >= LENGTH - LENGTHS.unsqueeze(1)  # (B, L)
HISTORIES = [[3, 1, 4, 1, 5], [9], [2, 6], [7, 7, 7]]
LAYER_NORM = pytest.mark.parametrize("layer_norm", [False, True])
POSITIONS = pytest.mark.parametrize("positions", [False, True])
AGGREGATIONS = pytest.mark.parametrize("aggregation", ["sum", "last"])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(aggregation: str = "sum", positions: bool = False, layer_norm: bool = True) -> AttentionCondition:
    torch.manual_seed(0)
    return AttentionCondition(DIM, 2 * LENGTH, aggregation, positions, layer_norm, dropout=0.5).eval()


def small(preset: str = "reference", **changes) -> Config:
    sizes = {"dim": DIM, "hidden": HIDDEN, "max_len": 10, "timesteps": 20, "init_std": 1.0}
    return PRESETS[preset].replace(**{**sizes, **changes})


def small_model(preset: str = "reference", **changes) -> DAE4Rec:
    torch.manual_seed(0)
    return DAE4Rec(ITEMS, small(preset, **changes)).eval()


def padded(histories, length: int) -> torch.Tensor:
    return torch.tensor([[PAD] * (length - len(h)) + h for h in histories])


def torchs_attention(module: AttentionCondition, x: torch.Tensor) -> torch.Tensor:
    """Outputs (L, d) of torch.nn.MultiheadAttention with one head and the module's weights, for one sequence (L, d)."""
    theirs = nn.MultiheadAttention(DIM, num_heads=1, bias=False, batch_first=True).to(x.dtype)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([module.w_q.weight, module.w_k.weight, module.w_v.weight]))
        theirs.out_proj.weight.copy_(torch.eye(DIM))
    return theirs(x, x, x)[0]


# ---- the condition, Eq. 4 ----------------------------------------------------------------------


def test_attention_equals_torchs_scaled_dot_product_with_a_mask():
    """Outputs of every place, padding masked as a key (1e-5)."""
    module = attention()
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(1))
    q, k, v = (e @ w.weight.T for w in (module.w_q, module.w_k, module.w_v))
    mask = REAL.unsqueeze(1).expand(BATCH, LENGTH, LENGTH)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    outputs, weights = module.attend(e, REAL)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, LENGTH))
    assert (weights[~mask] == 0).all()


def test_sum_adds_the_outputs_of_real_places_only_before_the_norm():
    """Each history alone, without padding, by torch's attention; then sum, then LayerNorm by hand."""
    module = attention("sum")
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(2))
    h = module(e, REAL)
    for row, length in enumerate(LENGTHS.tolist()):
        total = torchs_attention(module, e[row, -length:]).sum(0)
        expected = (total - total.mean()) / (total.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(h[row], expected, rtol=1e-4, atol=1e-5)


def test_last_is_the_newest_places_output():
    """Positions count back from the newest item: the last row of the table belongs to it."""
    module = attention("last", positions=True)
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(3))
    h = module(e, REAL)
    for row, length in enumerate(LENGTHS.tolist()):
        last = torchs_attention(module, e[row, -length:] + module.positions[-length:])[-1]
        torch.testing.assert_close(h[row], F.layer_norm(last, (DIM,)), rtol=1e-4, atol=1e-5)


@LAYER_NORM
@POSITIONS
@AGGREGATIONS
@pytest.mark.parametrize("training", [False, True])
def test_fused_equals_plain_and_so_do_its_gradients(aggregation, positions, layer_norm, training):
    """float64 (1e-10). In training both drop the same features when torch's seed is the same."""
    module = attention(aggregation, positions, layer_norm).double().train(training)
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(1), dtype=torch.float64, requires_grad=True)
    into = torch.randn(BATCH, DIM, generator=generator(2), dtype=torch.float64)
    inputs = [e, *module.parameters()]
    found = []
    for form in (module, module.fused):
        torch.manual_seed(5)
        h = form(e, REAL)
        found.append((h, *torch.autograd.grad((h * into).sum(), inputs)))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
        assert plain.abs().max() > 1e-3
    torch.manual_seed(6)
    assert torch.equal(module(e, REAL), found[0][0]) != training  # the dropout is real


@POSITIONS
@AGGREGATIONS
def test_padding_is_ignored(positions, aggregation):
    """More padding, or garbage embeddings under it, changes nothing (1e-5); real items do."""
    model = small_model(positions=positions, aggregation=aggregation)
    short = model.condition(padded(HISTORIES, 5))
    for length in (6, 10):
        longer = model.condition(padded(HISTORIES, length))
        torch.testing.assert_close(longer, short, rtol=1e-5, atol=1e-5)
    for row, history in enumerate(HISTORIES):
        alone = model.condition(torch.tensor([history]))[0]
        torch.testing.assert_close(alone, short[row], rtol=1e-5, atol=1e-5)

    module = model.attention
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(4))
    garbage = torch.where(REAL.unsqueeze(-1), e, 1e3 * torch.ones(DIM))
    torch.testing.assert_close(module(garbage, REAL), module(e, REAL), rtol=1e-5, atol=1e-5)
    other = e.clone()
    other[:, -1] += torch.randn(DIM, generator=generator(5))
    changed = (module(other, REAL) - module(e, REAL)).abs().amax(1)
    assert (changed > 1e-2).all()


def test_padding_gives_no_gradient_to_any_item():
    """PAD is looked up as some item's row; that row must not learn from it."""
    model = small_model()
    model.condition(padded(HISTORIES, 10))[:, 0].sum().backward()
    gradient = model.embedding.weight.grad
    used = sorted({item for history in HISTORIES for item in history})
    unused = [item for item in range(12) if item not in used]
    assert 0 in unused
    assert (gradient[unused] == 0).all() and (gradient[used].abs().sum(1) > 0).all()


def test_order_matters_with_positions_and_not_without():
    forward, backward = torch.tensor([[3, 1, 4, 5]]), torch.tensor([[5, 4, 1, 3]])
    blind, sighted = small_model(positions=False), small_model(positions=True)
    with torch.no_grad():
        sighted.attention.positions.mul_(10)  # as large as the embeddings; they start at 0.1
    torch.testing.assert_close(blind.condition(forward), blind.condition(backward), rtol=1e-5, atol=1e-5)
    assert (sighted.condition(forward) - sighted.condition(backward)).abs().max() > 1e-2


def test_dropout_is_on_in_training_and_off_in_evaluation():
    model, history = small_model(dropout=0.3), padded(HISTORIES, 5)
    assert torch.equal(model.condition(history), model.condition(history))
    model.train()
    assert not torch.equal(model.condition(history), model.condition(history))


@AGGREGATIONS
def test_gradients_of_the_condition_by_gradcheck(aggregation):
    """h in float64 with respect to the item embeddings."""
    real = torch.tensor([[False, True, True], [True, True, True]])
    e = torch.randn(2, 3, 4, generator=generator(10), dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    module = AttentionCondition(4, 3, aggregation, True, True, dropout=0.0).double()
    assert torch.autograd.gradcheck(lambda x: module.fused(x, real), e)


# ---- the letter: the switches off ---------------------------------------------------------------


def test_the_letters_h_is_exactly_the_sum_of_torchs_attention_outputs():
    """No LayerNorm, no positions, nothing dropped in training: float64 (1e-12)."""
    model = small_model("letter").double().train()
    history = padded(HISTORIES, 10)
    h = model.condition(history)
    for row, items in enumerate(HISTORIES):
        expected = torchs_attention(model.attention, model.embedding.weight[items]).sum(0)
        torch.testing.assert_close(h[row], expected, rtol=1e-12, atol=1e-12)
    assert {name for name, _ in model.attention.named_parameters()} == {"w_q.weight", "w_k.weight", "w_v.weight"}


def test_the_letter_is_blind_to_order():
    model = small_model("letter").double()
    orders = torch.tensor([[3, 1, 4, 1, 5], [5, 1, 1, 3, 4], [1, 3, 5, 4, 1]])
    h = model.condition(orders)
    torch.testing.assert_close(h, h[:1].expand(3, -1), rtol=1e-12, atol=1e-12)
    assert (model.condition(torch.tensor([[3, 1, 4, 5]])) - h[:1]).abs().max() > 1e-2  # but not to how often


def test_the_letters_h_grows_with_the_history_and_the_references_does_not():
    once, often = torch.tensor([[7]]), torch.tensor([[7] * 10])
    letter, reference = small_model("letter"), small_model(positions=False)
    torch.testing.assert_close(letter.condition(often), 10 * letter.condition(once), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reference.condition(often), reference.condition(once), rtol=1e-3, atol=1e-3)


# ---- the denoiser, Eq. 5 -----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_time_embedding_equals_diffusers(dim):
    """Sines first, then cosines, frequencies 10000^(-i/half). To 1e-4: angles reach 1,000."""
    t = torch.tensor([1, 2, 10, 500, 1000])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=False, downscale_freq_shift=0)
    ours = time_embedding(t, dim)
    assert ours.shape == (5, dim)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def denoiser(depth: int = 2, shortcut: bool = True, dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(1)
    return Denoiser(DIM, HIDDEN, depth, dropout, shortcut).double().eval()


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_f_is_an_mlp_on_the_concatenation_plus_its_shortcut(depth, shortcut):
    """An nn.Sequential of the same linear layers with GELUs between them, float64 (1e-12); the letter has no more."""
    f = denoiser(depth, shortcut, dropout=0.5)
    linear = [layer for layer in f.modules() if isinstance(layer, nn.Linear) and layer is not f.shortcut]
    hidden = [(HIDDEN, 3 * DIM), *[(HIDDEN, HIDDEN)] * (depth - 1)]  # depth counts hidden layers
    assert [tuple(layer.weight.shape) for layer in linear] == [*hidden, (DIM, HIDDEN)]
    mlp = nn.Sequential(*(part for layer in linear[:-1] for part in (layer, nn.GELU())), linear[-1])
    noisy, h = torch.randn(2, BATCH, DIM, generator=generator(6), dtype=torch.float64)
    t = torch.tensor([1, 5, 9, 13, 20])
    expected = mlp(torch.cat([noisy, time_embedding(t, DIM).double(), h], dim=1))
    if shortcut:
        expected = expected + h @ f.shortcut.weight.T + f.shortcut.bias
    torch.testing.assert_close(f(noisy, t, h), expected, rtol=1e-12, atol=1e-12)


def test_the_letters_f_has_no_shortcut_and_the_references_has():
    assert small_model("letter").denoiser.shortcut is None
    assert small_model().denoiser.shortcut is not None


def test_one_step_for_all_users_equals_the_step_repeated():
    """Samplers pass t of shape (1,), training (B,)."""
    f = denoiser()
    noisy, h = torch.randn(2, BATCH, DIM, generator=generator(7), dtype=torch.float64)
    single = f(noisy, torch.tensor([7]), h)
    repeated = f(noisy, torch.full((5,), 7), h)
    torch.testing.assert_close(single, repeated, rtol=1e-12, atol=1e-12)
    assert (f(noisy, torch.tensor([8]), h) - single).abs().max() > 1e-4


@pytest.mark.parametrize("shortcut", [False, True])
def test_given_equals_plain_and_so_do_its_gradients(shortcut):
    """What `given` computes once changes nothing, for every t and for other noise: float64 (1e-10)."""
    f = denoiser(shortcut=shortcut)
    h = torch.randn(BATCH, DIM, generator=generator(5), dtype=torch.float64, requires_grad=True)
    fast = f.given(h, 20)
    inputs = [h, *f.parameters()]
    for t in (torch.tensor([1]), torch.tensor([20]), torch.tensor([1, 7, 7, 13, 20])):
        noisy = torch.randn(BATCH, DIM, generator=generator(int(t[0])), dtype=torch.float64)
        found = []
        for answer in (f(noisy, t, h), fast(noisy, t, None)):
            slopes = torch.autograd.grad(answer.square().sum(), inputs, retain_graph=True)
            found.append((answer, *slopes))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_gradients_of_the_denoiser_by_gradcheck():
    """f in float64 with respect to e^t and h."""
    torch.manual_seed(3)
    f = Denoiser(4, 5, 2, 0.0, True).double()
    noisy, h = torch.randn(2, 2, 4, generator=generator(10), dtype=torch.float64)
    inputs, t = (noisy.requires_grad_(), h.requires_grad_()), torch.tensor([3, 17])
    assert torch.autograd.gradcheck(lambda e, c: f(e, t, c), inputs)


# ---- scores ------------------------------------------------------------------------------------


def test_scores_are_inner_products_with_every_item():
    model = small_model()
    e_0 = torch.randn(3, DIM, generator=generator(8))
    query = model.query(e_0, padded(HISTORIES, 5)[:3], e_0)
    assert query.vectors is e_0 and query.items is None
    found, weight = scores(query, model.item_vectors()), model.embedding.weight.detach()
    for user in range(3):
        for item in range(ITEMS):
            expected = sum(float(a) * float(b) for a, b in zip(e_0[user], weight[item], strict=False))
            assert found[user, item].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def gaining(users: int, items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A few items of each user and what they gain; an item may stand twice, and some places are padding."""
    draw = generator(users)
    found, gains = torch.randint(items, (users, 4), generator=draw), torch.randn(users, 4, generator=draw)
    found[:, 1] = found[:, 0]
    found[::2, 3], gains[::2, 3] = PAD, 0.0
    return found, gains


def test_gains_are_added_to_their_items_and_padding_to_none():
    vectors, items = torch.randn(2, 3, DIM, generator=generator(1)), torch.randn(9, DIM, generator=generator(2))
    found, gains = gaining(3, 9)
    expected = vectors[0] @ items.T
    for user in range(3):
        for item, gain in zip(found[user].tolist(), gains[user], strict=True):
            if item != PAD:
                expected[user, item] += gain
    torch.testing.assert_close(scores(Query(vectors[0], found, gains), items), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("block", [1, 7, 64, 200, 16_384])
@pytest.mark.parametrize("users", [1, 30])
def test_scores_equal_retrievals_blocks(users, block, gains):
    """Side by side, the blocks of items are the one dense table (1e-5)."""
    vectors, items = torch.randn(users, DIM, generator=generator(3)), torch.randn(200, DIM, generator=generator(4))
    query = Query(vectors, *gaining(users, 200)) if gains else Query(vectors)
    firsts, blocks = zip(*score_blocks(query, items, block=block), strict=True)
    assert list(firsts) == [sum(part.shape[1] for part in blocks[:n]) for n in range(len(blocks))]
    torch.testing.assert_close(torch.cat(blocks, 1), scores(query, items), rtol=1e-5, atol=1e-5)


# ---- Eq. 11 in the training loop ---------------------------------------------------------------


@pytest.mark.parametrize("target", ["gae", "graph"])
def test_a_training_step_follows_l_diff_plus_delta_times_l_aime(target, monkeypatch):
    """One batch with plain gradient descent: delta adds -lr * delta * dL_AIME/dE, nothing else.

    dL_AIME/dE by hand in numpy: with s = sigma(E E'), G = (s - S*) s (1 - s), it is
    2/|V| (G + G')E.
    Tolerance 1e-5 on a change of about 0.1.
    """
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    graph = transition_graph(HISTORIES, ITEMS)
    z_star = torch.randn(12, DIM, generator=generator(12))
    history = padded(HISTORIES, 10)
    examples = Examples(history, torch.tensor([8, 2, 0, 11]), torch.arange(4))

    def embeddings_after_a_step(delta):
        model = small_model(delta=delta, aime_target=target, lr_embedding=0.1, epochs=1, aime_pairs=None)
        before = model.embedding.weight.detach().clone()
        training.train_diffusion(model, examples, examples, graph, z_star)
        return before, model.embedding.weight.detach()

    before, without = embeddings_after_a_step(0.0)
    assert (without - before).abs().max() > 1e-4  # L_Diff alone moves E
    e = before.double().numpy()
    if target == "gae":
        wanted = 1 / (1 + np.exp(-(z_star @ z_star.T).double().numpy()))
    else:
        wanted = np.eye(12)
        for a, b in graph.edges:
            wanted[a, b] = wanted[b, a] = 1
    s = 1 / (1 + np.exp(-e @ e.T))
    G = (s - wanted) * s * (1 - s)
    gradient = 2 / 12 * (G + G.T) @ e
    for delta in (1.0, 2.5):
        _, after = embeddings_after_a_step(delta)
        moved = (after - without).double().numpy()
        assert np.abs(moved).max() > 0.01
        np.testing.assert_allclose(moved, -0.1 * delta * gradient, rtol=0, atol=1e-5)


def test_a_training_step_follows_eq_5():
    """With delta = 0 the reported loss is Eq. 5 by hand, with the same t, noise and no dropout (1e-5, relative).

    An epoch draws its order from one stream, and t and then the noise of each batch from another.
    """
    graph = transition_graph(HISTORIES, ITEMS)
    model = small_model(delta=0.0, epochs=1, dropout=0.0, lambda_t="min_snr", seed=4)
    history, target = padded(HISTORIES, 10), torch.tensor([8, 2, 0, 11])
    examples = Examples(history, target, torch.arange(4))
    E = model.embedding.weight.detach().clone()
    lengths = (history != PAD).sum(1)
    order, _ = length_grouped_order(lengths, model.config.train.batch_size, stream(4, "order", 1))
    draw = stream(4, "noise", 1)
    t = torch.randint(1, 21, (4,), generator=draw)
    noise = torch.randn(4, DIM, generator=draw)
    total = 0.0
    for place, row in enumerate(order.tolist()):
        a = model.alpha_bar[t[place]].item()
        noisy = math.sqrt(a) * E[target[row]] + math.sqrt(1 - a) * noise[place]
        h = model.condition(history[row : row + 1])
        f = model.denoiser(noisy[None], t[place : place + 1], h)[0]
        total += min(a / (1 - a), 5.0) * (E[target[row]] - f).square().sum().item()
    events = []
    training.train_diffusion(model, examples, examples, graph, None, [events.append])
    assert events[-1].metrics["L_Diff"] == pytest.approx(total / 4, rel=1e-5)
    assert events[-1].metrics["L_AIME"] == 0


def test_a_steps_noise_is_uniform_in_t_and_normal():
    """20,000 draws: counts of 20 steps and moments within 5 standard errors; the paper's model draws nothing else."""
    size = 20_000
    noise = small_model().draw_noise(size, generator(0))
    assert noise.x_T is None and noise.blind is None
    counts = noise.t.bincount(minlength=21)
    assert counts[0] == 0 and len(counts) == 21
    assert (counts[1:] - size / 20).abs().max() < 5 * math.sqrt(size / 20)
    assert noise.eps.shape == (size, DIM) and noise.eps.mean().abs() < 5 / math.sqrt(size * DIM)
    assert (noise.eps.var() - 1).abs() < 5 * math.sqrt(2 / (size * DIM))
