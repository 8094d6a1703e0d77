"""The compensator c and its loss (Eq. 16), against torch's own layers and numbers by hand."""

import pytest
import torch
from torch import nn

from dae4rec_core.config import Config
from dae4rec_core.method.compensator import Compensator, compensator_loss
from dae4rec_core.method.losses import diffusion_loss

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


def test_loss_by_hand_is_the_unweighted_diffusion_loss():
    e_0, prediction = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compensator_loss(e_0, prediction).item() == (4 + 9) / 2
    assert diffusion_loss(e_0, prediction, torch.ones(2)).item() == (4 + 9) / 2


def test_gradients_of_the_loss_and_of_c_by_gradcheck():
    e_0, e_tau1, h = torch.randn(3, 4, DIM, generator=generator(9), dtype=torch.float64)
    c = compensator()
    assert torch.autograd.gradcheck(lambda p: compensator_loss(e_0, p), h.clone().requires_grad_())
    assert torch.autograd.gradcheck(c, (e_tau1.requires_grad_(), h.requires_grad_()))
