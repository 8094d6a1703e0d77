"""Checkers of 03: the jump of Eq. 2, attention of Eq. 4, a weighted step on Eq. 5, and where its loss lies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dae4rec_core.exercises.checker import Answer, checker
from dae4rec_core.method.schedule import make_alpha_bar

__all__ = ["check_jump_to", "check_condition", "check_diffusion_step", "check_loss_shares"]


@checker
def check_jump_to(jump_to: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for alpha_bar_t in (1.0, 0.0, 0.36, 0.9, 0.07):
        e0, noise = torch.randn(2, 4, 3, generator=draw, dtype=torch.float64)
        given = e0.clone(), noise.clone()
        found = torch.as_tensor(jump_to(*given, alpha_bar_t)).double()
        assert torch.equal(given[0], e0) and torch.equal(given[1], noise), (
            "return a new tensor; you changed e0 or noise."
        )
        # the angle whose cosine and sine are the two roots: they are the sides of a triangle of length 1
        angle = torch.acos(torch.tensor(2 * alpha_bar_t - 1, dtype=torch.float64)) / 2
        expected = angle.cos() * e0 + angle.sin() * noise
        assert found.shape == e0.shape, f"e^t has the shape of e0, {tuple(e0.shape)}; you have {tuple(found.shape)}."
        assert torch.allclose(found, expected), (
            f"at alpha_bar = {alpha_bar_t} the signal counts {angle.cos():.3f} and the noise {angle.sin():.3f}."
        )


@checker
def check_condition(condition: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for size, places, d in ((1, 1, 2), (3, 4, 2), (4, 7, 5), (2, 20, 8)):
        e = torch.randn(size, places, d, generator=draw, dtype=torch.float64)
        w_q, w_k, w_v = torch.randn(3, d, d, generator=draw, dtype=torch.float64)
        items = torch.randint(1, places + 1, (size, 1), generator=draw)
        real = torch.arange(places) >= places - items  # filled on the left
        found = torch.as_tensor(condition(e.clone(), real.clone(), w_q, w_k, w_v)).double()
        assert found.shape == (size, d), (
            f"h has one row of {d} for each of {size} histories; you have {tuple(found.shape)}."
        )
        other = torch.where(real.unsqueeze(2), e, 7.0)
        assert torch.allclose(found, condition(other, real.clone(), w_q, w_k, w_v)), (
            "what stands in a filled place changes h: mask it before the softmax, and leave it out of the sum."
        )
        places_out = F.scaled_dot_product_attention(e @ w_q, e @ w_k, e @ w_v, attn_mask=real.unsqueeze(1))
        for n in range(size):
            expected = places_out[n][real[n]].sum(0)
            assert torch.allclose(found[n], expected), (
                f"a history of {int(items[n])} items in {places} places with d = {d} has "
                f"h = {numbers(expected)}, you have {numbers(found[n])}."
            )


def numbers(values: Tensor) -> list[float]:
    """A few numbers to be read in a sentence."""
    return [round(value, 3) for value in values.detach().flatten().tolist()]


@checker
def check_diffusion_step(diffusion_step: Answer) -> None:
    size, d, T = 6000, 3, 8
    alpha_bar = make_alpha_bar("cosine", T)
    draw = torch.Generator().manual_seed(0)
    weights = torch.rand(T + 1, generator=draw, dtype=torch.float64) + 0.5
    e_0 = torch.randn(size, d, generator=draw, dtype=torch.float64) + 2
    h = torch.randn(size, 2, generator=draw, dtype=torch.float64)
    asked: list[tuple[Tensor, Tensor, Tensor]] = []
    answer = torch.randn(size, d, generator=draw, dtype=torch.float64).requires_grad_()

    def spy(e_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        asked.append((e_t, t, h))
        return answer

    def one_step(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Its loss, and the noise and t that f was asked with."""
        asked.clear()
        generator = torch.Generator().manual_seed(seed)
        loss = torch.as_tensor(diffusion_step(spy, e_0.clone(), h.clone(), alpha_bar, weights, generator))
        assert len(asked) == 1, f"f is asked once for the whole batch; you asked it {len(asked)} times."
        e_t, t, seen = asked[0]
        assert torch.equal(seen, h), "f needs the h that was given."
        assert t.shape == (size,), f"every example has its own t, shape ({size},); yours is {tuple(t.shape)}."
        assert int(t.min()) >= 1 and int(t.max()) <= T, f"t runs from 1 to T = {T}; yours from {t.min()} to {t.max()}."
        share = torch.bincount(t, minlength=T + 1)[1:] / size
        assert (share - 1 / T).abs().max() < 0.03, f"every t is equally likely; your shares are {numbers(share)}."
        level = alpha_bar[t].unsqueeze(1)
        assert e_t.shape == e_0.shape, f"e^t has the shape of e_0, {tuple(e_0.shape)}; yours is {tuple(e_t.shape)}."
        return loss, (e_t - level.sqrt() * e_0) / (1 - level).sqrt(), t

    loss, noise, t = one_step(1)
    for step in range(1, T + 1):
        eps = noise[t == step]
        assert eps.mean(0).abs().max() < 0.2 and (eps.std(0) - 1).abs().max() < 0.2, (
            f"by Eq. 2, (e^t - sqrt(abar_t) e^0) / sqrt(1 - abar_t) is noise of mean 0 and deviation 1; at t = {step} "
            f"yours has mean {eps.mean():.2f} and deviation {eps.std():.2f}."
        )
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.1, "each number of e_0 needs a noise of its own."
    assert loss.shape == (), f"the loss is one number; yours has shape {tuple(loss.shape)}."
    each = torch.cdist(e_0.unsqueeze(1), answer.unsqueeze(1)).flatten() ** 2  # (B,)
    expected = torch.dot(each, weights[t]) / size
    assert torch.allclose(loss.double(), expected), (
        f"the batch's loss is {expected:.4f}: squared error summed over d, times weights[t], averaged over the batch; "
        f"you have {loss:.4f}."
    )
    assert loss.requires_grad, "keep the gradient of the loss, or f can't learn from it."
    again, changed = one_step(1), one_step(2)
    assert torch.equal(noise, again[1]) and torch.equal(t, again[2]), (
        "draw t and the noise from the generator, so that the same seed gives the same step."
    )
    assert not torch.equal(t, changed[2]) and not torch.equal(noise, changed[1]), (
        "another seed must give another t and another noise."
    )


@checker
def check_loss_shares(loss_shares: Answer) -> None:
    draw = torch.Generator().manual_seed(0)
    for T in (1, 4, 50):
        errors, weights = torch.rand(2, T, generator=draw, dtype=torch.float64) + 0.01
        found = torch.as_tensor(loss_shares(errors.clone(), weights.clone()))
        assert found.shape == (T,), f"one share for each of {T} levels; yours has shape {tuple(found.shape)}."
        whole = sum(error * weight for error, weight in zip(errors.tolist(), weights.tolist(), strict=True))
        for t in range(T):
            expected = errors[t].item() * weights[t].item() / whole
            assert abs(found[t].item() - expected) < 1e-9, (
                f"with errors {numbers(errors[:4])} and weights {numbers(weights[:4])} at the first of {T} levels, "
                f"t = {t + 1} has the share {expected:.4f}, you have {found[t].item():.4f}."
            )
