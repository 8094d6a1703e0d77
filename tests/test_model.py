"""The attention condition, the denoiser and the diffusion losses.

Oracles: torch's own attention, one Linear, diffusers' embedding. Float32 comparisons allow 1e-5,
float64 ones 1e-10.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding

from dae4rec_core import training
from dae4rec_core.compensator import Compensator, compensator_loss
from dae4rec_core.config import Config
from dae4rec_core.data import PAD, Examples, length_grouped_order
from dae4rec_core.graph import transition_graph
from dae4rec_core.losses import diffusion_loss
from dae4rec_core.model import AttentionCondition, DAE4Rec, Denoiser, time_embedding

BATCH, LENGTH, DIM = 5, 6, 8
LENGTHS = torch.tensor([6, 3, 1, 4, 2])  # items in each history, the rest is padding on the left
REAL = torch.arange(LENGTH) >= LENGTH - LENGTHS.unsqueeze(1)  # (B, L)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(positions: bool, aggregation: str) -> AttentionCondition:
    torch.manual_seed(0)
    return AttentionCondition(DIM, 2 * LENGTH, positions, aggregation, dropout=0.5).eval()


def small_model(**changes) -> DAE4Rec:
    torch.manual_seed(0)
    config = Config(dim=DIM, hidden=16, max_len=10, timesteps=20, init_std=1.0, dropout=0.3)
    return DAE4Rec(12, config.replace(**changes)).eval()


HISTORIES = [[3, 1, 4, 1, 5], [9], [2, 6], [7, 7, 7]]


def padded(histories, length: int) -> torch.Tensor:
    return torch.tensor([[PAD] * (length - len(h)) + h for h in histories])


# ---- the condition, Eq. 4 ----------------------------------------------------------------------


def test_attention_equals_torchs_scaled_dot_product_with_a_mask():
    """Outputs of every place, padding masked as a key (1e-5)."""
    module = attention(positions=False, aggregation="sum")
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(1))
    q, k, v = (e @ w.T for w in module.qkv.weight.split(DIM))
    mask = REAL.unsqueeze(1).expand(BATCH, LENGTH, LENGTH)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    outputs, weights = module.attend(e, REAL)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, LENGTH))
    assert (weights[~mask] == 0).all()


def test_sum_adds_the_outputs_of_real_places_only_before_the_norm():
    """Each history alone, without padding, by torch's attention; then sum, then LayerNorm."""
    module = attention(positions=False, aggregation="sum")
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(2))
    h = module(e, REAL)
    for row, length in enumerate(LENGTHS.tolist()):
        q, k, v = (e[row, -length:] @ w.T for w in module.qkv.weight.split(DIM))
        total = F.scaled_dot_product_attention(q[None], k[None], v[None])[0].sum(0)
        expected = (total - total.mean()) / (total.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(h[row], expected, rtol=1e-4, atol=1e-5)


def test_last_is_the_newest_places_output():
    """Positions count back from the newest item: the last row of the table belongs to it."""
    module = attention(positions=True, aggregation="last")
    e = torch.randn(BATCH, LENGTH, DIM, generator=generator(3))
    h = module(e, REAL)
    for row, length in enumerate(LENGTHS.tolist()):
        x = e[row, -length:] + module.positions[-length:]
        q, k, v = (x @ w.T for w in module.qkv.weight.split(DIM))
        last = F.scaled_dot_product_attention(q[None, -1:], k[None], v[None])[0, 0]
        expected = F.layer_norm(last, (DIM,))
        torch.testing.assert_close(h[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["sum", "last"])
@pytest.mark.parametrize("positions", [False, True])
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
    model, history = small_model(), padded(HISTORIES, 5)
    assert torch.equal(model.condition(history), model.condition(history))
    model.train()
    assert not torch.equal(model.condition(history), model.condition(history))


# ---- the denoiser, Eq. 5 -----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_time_embedding_equals_diffusers(dim):
    """Sines first, then cosines, frequencies 10000^(-i/half). To 1e-4: angles reach 1,000."""
    t = torch.tensor([1, 2, 10, 500, 1000])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=False, downscale_freq_shift=0)
    ours = time_embedding(t, dim)
    assert ours.shape == (5, dim)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_denoisers_first_layer_is_one_linear_on_the_concatenation():
    """f = shortcut(h) + MLP([e, t, h]) with W = [W_e, W_t, W_h] (1e-5)."""
    torch.manual_seed(1)
    denoiser = Denoiser(DIM, 16, dropout=0.5).eval()
    first = torch.nn.Linear(3 * DIM, 16)
    parts = (denoiser.from_noisy, denoiser.from_time, denoiser.from_condition)
    with torch.no_grad():
        first.weight.copy_(torch.cat([part.weight for part in parts], dim=1))
        first.bias.copy_(denoiser.from_noisy.bias)
    noisy, h = torch.randn(2, BATCH, DIM, generator=generator(6))
    t = torch.tensor([1, 5, 9, 13, 20])
    inputs = torch.cat([noisy, time_embedding(t, DIM), h], dim=1)
    expected = denoiser.out(first(inputs)) + denoiser.shortcut(h)
    torch.testing.assert_close(denoiser(noisy, t, h), expected, rtol=1e-5, atol=1e-5)


def test_one_step_for_all_users_equals_the_step_repeated():
    """Samplers pass t of shape (1,), training (B,)."""
    denoiser = small_model().denoiser
    noisy, h = torch.randn(2, BATCH, DIM, generator=generator(7))
    single = denoiser(noisy, torch.tensor([7]), h)
    repeated = denoiser(noisy, torch.full((5,), 7), h)
    torch.testing.assert_close(single, repeated, rtol=1e-5, atol=1e-6)
    assert (denoiser(noisy, torch.tensor([8]), h) - single).abs().max() > 1e-4


def test_scores_are_inner_products_with_every_item():
    model = small_model()
    e0 = torch.randn(3, DIM, generator=generator(8))
    scores, weight = model.scores(e0), model.embedding.weight.detach()
    for user in range(3):
        for item in range(12):
            expected = sum(float(a) * float(b) for a, b in zip(e0[user], weight[item], strict=False))
            assert scores[user, item].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# ---- the losses --------------------------------------------------------------------------------


def test_diffusion_loss_by_hand():
    """Example 1: 1 + 4 = 5, weight 2. Example 2: 9 + 0 = 9, weight 0.5. Mean (10 + 4.5) / 2."""
    e0 = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    prediction = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert diffusion_loss(e0, prediction, torch.tensor([2.0, 0.5])).item() == 7.25


def test_compensator_loss_by_hand_and_is_the_unweighted_diffusion_loss():
    e0, prediction = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compensator_loss(e0, prediction).item() == (4 + 9) / 2
    assert diffusion_loss(e0, prediction, torch.ones(2)).item() == (4 + 9) / 2


def test_gradients_of_both_losses_by_gradcheck():
    e0, prediction = torch.randn(2, 4, 3, generator=generator(9), dtype=torch.float64)
    weight = torch.tensor([0.0, 1.0, 2.5, 5.0], dtype=torch.float64)
    inputs = e0.requires_grad_(), prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: diffusion_loss(a, b, weight), inputs)
    assert torch.autograd.gradcheck(compensator_loss, inputs)


def test_gradients_of_the_condition_by_gradcheck():
    """h in float64 with respect to the item embeddings, both aggregations."""
    real = torch.tensor([[False, True, True], [True, True, True]])
    e = torch.randn(2, 3, 4, generator=generator(10), dtype=torch.float64, requires_grad=True)
    for aggregation in ("sum", "last"):
        torch.manual_seed(3)
        module = AttentionCondition(4, 3, True, aggregation, dropout=0.0).double()
        assert torch.autograd.gradcheck(lambda x: module(x, real), e)


def test_gradients_of_the_denoiser_by_gradcheck():
    """f in float64 with respect to e^t and h."""
    torch.manual_seed(3)
    denoiser = Denoiser(4, 5, dropout=0.0).double()
    noisy, h = torch.randn(2, 2, 4, generator=generator(10), dtype=torch.float64)
    inputs, t = (noisy.requires_grad_(), h.requires_grad_()), torch.tensor([3, 17])
    assert torch.autograd.gradcheck(lambda e, c: denoiser(e, t, c), inputs)


def test_the_compensator_is_a_shortcut_plus_an_mlp_on_the_concatenation():
    torch.manual_seed(2)
    compensator = Compensator(DIM, 16, dropout=0.5).eval()
    e_tau1, h = torch.randn(2, BATCH, DIM, generator=generator(11))
    x = F.gelu(compensator.net[0](torch.cat([e_tau1, h], dim=1)))
    expected = compensator.shortcut(h) + compensator.net[5](F.gelu(compensator.net[3](x)))
    torch.testing.assert_close(compensator(e_tau1, h), expected, rtol=1e-5, atol=1e-6)


# ---- Eq. 11 in the training loop ---------------------------------------------------------------


@pytest.mark.parametrize("target", ["gae", "graph"])
def test_a_training_step_follows_l_diff_plus_delta_times_l_aime(target, monkeypatch):
    """One batch with plain gradient descent: delta adds -lr * delta * dL_AIME/dE, nothing else.

    dL_AIME/dE by hand in numpy: with s = sigma(E E'), G = (s - S*) s (1 - s), it is
    2/|V| (G + G')E.
    Tolerance 1e-5 on a change of about 0.1.
    """
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    graph = transition_graph(HISTORIES, 12)
    z_star = torch.randn(12, DIM, generator=generator(12))
    history = padded(HISTORIES, 10)
    examples = Examples(history, torch.tensor([8, 2, 0, 11]), torch.arange(4))

    def embeddings_after_a_step(delta):
        model = small_model(delta=delta, aime_target=target, lr_embedding=0.1, epochs=1, aime_pairs=0)
        before = model.embedding.weight.detach().clone()
        training.train_diffusion(model, examples, examples, z_star, graph)
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


def test_a_training_step_follows_eq_5(monkeypatch):
    """With delta = 0 the reported loss is Eq. 5 by hand, with the same t, noise and no dropout.

    The loop draws the order, and with another generator t and then the noise, from the epoch's seed (1e-5, relative).
    """
    graph = transition_graph(HISTORIES, 12)
    model = small_model(delta=0.0, epochs=1, dropout=0.0, lambda_t="min_snr", seed=4)
    history, target = padded(HISTORIES, 10), torch.tensor([8, 2, 0, 11])
    examples = Examples(history, target, torch.arange(4))
    E = model.embedding.weight.detach().clone()
    seed = training._mix_seed(4, 1)
    lengths = (history != PAD).sum(1)
    order, _ = length_grouped_order(lengths, model.config.batch_size, generator(seed))
    draw = generator(seed)
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
    z_star = torch.zeros(12, DIM)
    training.train_diffusion(model, examples, examples, z_star, graph, [events.append])
    assert events[-1].figures["L_Diff"] == pytest.approx(total / 4, rel=1e-5)
    assert events[-1].figures["L_AIME"] == 0


def test_a_denoiser_given_h_is_the_denoiser():
    """What `given` computes once changes nothing, for every t and for other noise (1e-6)."""
    model = small_model()
    h, noisy = torch.randn(2, 5, DIM, generator=generator(5))
    f = model.denoiser.given(h, 20)
    for t in (1, 7, 20):
        t = torch.tensor([t])
        torch.testing.assert_close(f(noisy * t, t, None), model.denoiser(noisy * t, t, h), rtol=1e-5, atol=1e-6)
