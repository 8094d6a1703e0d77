"""The compensator c and its loss (Eq. 16), and our shared one, against torch's own layers and numbers by hand."""

import pytest
import torch
from torch import nn

from dae4rec_core.config import Config
from dae4rec_core.method.beyond import SharedCompensator
from dae4rec_core.method.compensator import Compensator, compensator_loss
from dae4rec_core.method.losses import diffusion_loss
from dae4rec_core.method.variants import make_model

DIM, HIDDEN = 8, 16


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def compensator(**changes) -> Compensator:
    torch.manual_seed(2)
    return Compensator(Config().replace(dim=DIM, hidden=HIDDEN, dropout=0.5, **changes).model).double().eval()


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_c_is_an_mlp_on_the_concatenation_plus_its_shortcut(depth, shortcut):
    """An nn.Sequential of the same linear layers with GELUs between them, float64 (1e-12)."""
    c = compensator(depth=depth, shortcut=shortcut)
    linear = [layer for layer in c.modules() if isinstance(layer, nn.Linear) and layer is not c.shortcut]
    assert [tuple(layer.weight.shape) for layer in linear] == [
        (HIDDEN, 2 * DIM),
        *[(HIDDEN, HIDDEN)] * (depth - 1),
        (DIM, HIDDEN),
    ]
    mlp = nn.Sequential(*(part for layer in linear[:-1] for part in (layer, nn.GELU())), linear[-1])
    e_tau1, h = torch.randn(2, 5, DIM, generator=generator(11), dtype=torch.float64)
    expected = mlp(torch.cat([e_tau1, h], dim=1))
    if shortcut:
        expected = expected + h @ c.shortcut.weight.T + c.shortcut.bias
    torch.testing.assert_close(c(e_tau1, h), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Compensator, SharedCompensator])
def test_training_drops_features_behind_the_first_layer(kind):
    """The same linear layers around torch's own nn.Dropout, with its random numbers (1e-12)."""
    c = kind(Config().replace(dim=DIM, hidden=HIDDEN, dropout=0.3, depth=2, shortcut=False).model).double()
    linear = [layer for layer in c.modules() if isinstance(layer, nn.Linear)]
    nn.init.normal_(linear[-1].weight)
    mlp = nn.Sequential(linear[0], nn.GELU(), nn.Dropout(0.3), linear[1], nn.GELU(), linear[2])
    start, h = torch.randn(2, 5, DIM, generator=generator(11), dtype=torch.float64)
    torch.manual_seed(6)
    found = c.train()(start, h)
    torch.manual_seed(6)
    expected = start + mlp(h) if kind is SharedCompensator else mlp(torch.cat([start, h], dim=1))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, c.eval()(start, h))


def test_loss_by_hand_is_the_unweighted_diffusion_loss():
    e_0, prediction = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compensator_loss(e_0, prediction).item() == (4 + 9) / 2
    assert diffusion_loss(e_0, prediction, torch.ones(2)).item() == (4 + 9) / 2


def test_gradients_of_the_loss_and_of_c_by_gradcheck():
    e_0, e_tau1, h = torch.randn(3, 4, DIM, generator=generator(9), dtype=torch.float64)
    c = compensator()
    assert torch.autograd.gradcheck(lambda p: compensator_loss(e_0, p), h.clone().requires_grad_())
    assert torch.autograd.gradcheck(c, (e_tau1.requires_grad_(), h.requires_grad_()))


# one for every S (beyond the paper)


def untrained(**changes):
    torch.manual_seed(3)
    config = Config().replace(dim=DIM, hidden=HIDDEN, timesteps=10, steps=5, compensator="shared", **changes)
    return make_model(12, config).eval()


@torch.no_grad()
def test_before_training_the_shared_one_is_fs_own_answer():
    model = untrained(dropout=0.5)
    shared = SharedCompensator(model.config.model)  # in training mode: dropout is on
    h = torch.randn(5, DIM, generator=generator(1))
    start = shared.start(model, h)
    torch.testing.assert_close(start, model.denoiser(torch.zeros(5, DIM), torch.full((5,), 10), h))
    assert torch.equal(shared(start, h), start)


@torch.no_grad()
def test_with_guidance_it_starts_from_the_guided_answer():
    model = untrained(unconditional=0.5, guidance=0.7)
    model.nothing.copy_(torch.randn(DIM, generator=generator(4)))
    h, T = torch.randn(5, DIM, generator=generator(1)), torch.full((5,), 10)
    seeing, blind = (model.denoiser(torch.zeros(5, DIM), T, given) for given in (h, model.nothing.expand(5, DIM)))
    torch.testing.assert_close(SharedCompensator.start(model, h), 1.7 * seeing - 0.7 * blind)


@pytest.mark.parametrize("depth", [1, 3])
def test_what_it_adds_is_an_mlp_of_h_alone(depth):
    shared = SharedCompensator(Config().replace(dim=DIM, hidden=HIDDEN, depth=depth).model).double().eval()
    for parameter in shared.parameters():
        nn.init.normal_(parameter, std=0.5)
    linear = [layer for layer in shared.modules() if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [DIM, *[HIDDEN] * depth]
    r = nn.Sequential(*(part for layer in linear[:-1] for part in (layer, nn.GELU())), linear[-1])
    one, other, h = torch.randn(3, 5, DIM, generator=generator(11), dtype=torch.float64)
    for start in (one, other):
        torch.testing.assert_close(shared(start, h) - start, r(h), rtol=1e-12, atol=1e-12)
    assert r(h).abs().min() > 1e-6
