"""Every tensor on the right device, found out without a graphics card; and what is asked of one that is there.

`Card` pretends to be one. Its tensors say that they are elsewhere (on "meta", which torch knows and never computes on)
and hold their numbers on the CPU, so a whole training runs on it with real numbers. Each operation is checked by the
rules of CUDA first: it refuses tensors of two devices, numpy, and a CPU's generator. Not covered: kernels of CUDA alone
(torch.compile, fused Adam) and mixed precision.
"""

import functools
import types

import lightning_fabric
import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dae4rec_core import checkpoint, recommender, training
from dae4rec_core.config import PRESETS
from dae4rec_core.data.dataset import encode, leave_last_out, training_examples, training_graph
from dae4rec_core.distributed import launch
from dae4rec_core.events import History
from dae4rec_core.method import pairwise
from dae4rec_core.method.beyond import neighbours
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.graph import adjacency, transition_counts
from dae4rec_core.method.model import DAE4Rec, StepNoise
from dae4rec_core.method.sampling import markov_chain, skip_step
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit

CARD = torch.device("meta")

# ---- the pretended card ---------------------------------------------------------------------------


class WrongDevice(RuntimeError):
    """What CUDA would have refused."""


class OnCard(Tensor):
    """A tensor on the card; `inner` holds its numbers."""

    is_cuda, is_meta = True, False  # so that code for CUDA runs, and none for meta

    @staticmethod
    def __new__(cls, inner: Tensor):
        strides = {}
        if inner.layout == torch.strided:
            strides = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype, device=CARD, **strides)
        made.inner = inner
        return made

    @property
    def layout(self):
        return self.inner.layout

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return operate(func, args, kwargs or {})

    def numpy(self, **_):
        raise WrongDevice("a tensor on the card has no numpy array")


class Card(TorchDispatchMode):
    """Inside, `.to(CARD)` and `device=CARD` work."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return operate(func, args, kwargs or {})


def all_of(values):
    """What nested lists and tuples hold."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from all_of(value)
        else:
            yield value


def each(function, value):
    """function of everything that nested lists and tuples hold."""
    return type(value)(each(function, v) for v in value) if isinstance(value, list | tuple) else function(value)


def operate(func, args, kwargs):
    """One operation: check where its tensors are, compute on the CPU, and put the result where it belongs."""
    given = list(all_of([args, *kwargs.values()]))
    wrapped = {id(value.inner): value for value in given if isinstance(value, OnCard)}
    device = kwargs.get("device")
    on_card = bool(wrapped) if device is None else torch.device(device) == CARD
    check(func, args, given, on_card)
    if func is torch.ops.aten.copy_.default:
        on_card = isinstance(args[0], OnCard)

    def bare(value):
        return value.inner if isinstance(value, OnCard) else value

    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*each(bare, args), **{name: each(bare, value) for name, value in kwargs.items()})

    def placed(value):
        if not on_card or not isinstance(value, Tensor):
            return value
        return wrapped.get(id(value)) if id(value) in wrapped else OnCard(value)  # in place: the same tensor again

    return each(placed, found)


def check(func, args, given, on_card):
    """Raises WrongDevice where CUDA would have refused."""
    name = func._schema.name.removeprefix("aten::")
    if on_card and any(isinstance(value, torch.Generator) for value in given):
        raise WrongDevice(f"{name}: a generator of the CPU draws on the CPU only")
    tensors = [value for value in given if isinstance(value, Tensor)]
    here = [value for value in tensors if isinstance(value, OnCard)]
    # torch.tensor(..., device=) goes past every dispatch; such a tensor would hold no numbers
    assert all(isinstance(value, OnCard) or value.device != CARD for value in tensors)
    if len(here) in (0, len(tensors)) or name in ("copy_", "_to_copy"):
        return
    indexing = name in ("index", "index_put", "index_put_", "_index_put_impl_")
    if indexing:
        tensors = [args[0], *args[2:3]]  # indices may lie on the CPU
    numbers = all(isinstance(value, OnCard) or value.dim() == 0 for value in tensors if isinstance(value, Tensor))
    if not numbers or (indexing or name.endswith("_")) and not isinstance(args[0], OnCard):
        raise WrongDevice(f"{name}: some tensors are on the card and some on the CPU")


def test_the_card_computes_and_refuses_as_cuda_does():
    x, y = torch.randn(3, 4), torch.randn(4, 3)
    with Card():
        on, there = x.to(CARD), y.to(CARD)
        assert on.device == CARD and (on @ there).device == CARD and torch.zeros(2, device=CARD).device == CARD
        assert torch.equal((on @ there).cpu(), x @ y) and type((on @ there).cpu()) is Tensor
        assert (on.sum() * torch.tensor(2.0)).item() == pytest.approx(2 * x.sum().item())  # single numbers may mix
        assert torch.equal(on[torch.tensor([2, 0])].cpu(), x[[2, 0]])  # as may indices on the CPU
        on.add_(1)
        assert torch.equal(on.cpu(), x + 1) and torch.equal(x.to(CARD).to("cpu"), x)
        inside = torch.tensor([2, 0]).to(CARD)
        refused = [
            lambda: on @ y,
            lambda: on + x,
            lambda: x[inside],
            lambda: torch.cat([on, x]),
            lambda: x.add_(on),
            lambda: x.sum().add_(on.sum()),
            lambda: torch.where(on > 0, on, x),
            lambda: torch.nn.functional.embedding(torch.tensor([1]), on),
            lambda: on.index_select(0, torch.tensor([1])),
            lambda: torch.randn(3, generator=torch.Generator(), device=CARD),
            lambda: on.normal_(generator=torch.Generator()),
            lambda: on.numpy(),
            lambda: np.asarray(on),
        ]
        for number, call in enumerate(refused):
            with pytest.raises(WrongDevice):
                call()
                pytest.fail(f"number {number} was allowed")


# ---- the module on it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    """Eight users who walk around a ring of six items, as (dataset, split)."""
    steps = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(8) for step in range(4 + user % 3)]
    dataset = encode(pd.DataFrame(steps, columns=["user_id", "item_id", "timestamp"]))
    return dataset, leave_last_out(dataset)


@pytest.fixture
def card(monkeypatch):
    """The card, with stand-ins for what only CUDA has; `fit` trains on it."""
    adam = torch.optim.Adam
    fabric = types.SimpleNamespace(
        device=CARD,
        setup=lambda model, optimizer: (model, optimizer),
        backward=lambda loss: loss.backward(),
        broadcast=lambda value: value,
    )
    monkeypatch.setattr(training, "launch", lambda device: fabric)
    monkeypatch.setattr(torch.optim, "Adam", lambda groups, fused=False, **options: adam(groups, **options))
    monkeypatch.setattr(pairwise, "_compiled", lambda tile_loss: tile_loss)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    with Card():
        yield CARD


def config_of(name, **changes):
    sizes = {"max_len": 5, "dim": 8, "hidden": 16, "timesteps": 6, "steps": 3, "gae_steps": 2, "batch_size": 16}
    sizes |= {"epochs": 2, "compensator_epochs": 1, "gae_pairs": 9, "aime_pairs": 9, "delta": 1.0}
    if PRESETS[name].beyond.denoiser == "posterior":
        sizes["compensator_epochs"] = 0  # it has no last step to compensate
    return PRESETS[name].replace(**{**sizes, **changes})


def model_on_card(name, data):
    config = config_of(name)
    model = make_model(6, config).to(CARD)
    if config.beyond.neighbours:
        model.counts = transition_counts(data[1].training_sequences(data[0]), 6, 3, symmetric=True)
    return model


def batch_on_card(model, data):
    """(history, target, noise) of one step, as `train_diffusion` makes them."""
    train = training_examples(*data, model.config).to(model.device)
    rows = torch.arange(8)
    noise = model.draw_noise(8, torch.Generator()).of(slice(None), model.device)
    return *training.batch_of(train, rows, 3), noise


def wrong_places(module):
    return [name for name, value in [*module.named_parameters(), *module.named_buffers()] if value.device != CARD]


@pytest.mark.parametrize("target", ["gae", "graph", None])
@pytest.mark.parametrize("name", PRESETS)
def test_a_training_step(card, data, name, target):
    model = model_on_card(name, data)
    assert wrong_places(model) == [] and model.device == card
    z_star, a = torch.randn(6, 8).to(card), adjacency(training_graph(*data)).to(card)
    l_aime = training.l_aime_of(model, {"gae": z_star, "graph": a, None: None}[target], torch.Generator())
    loss = model(*batch_on_card(model, data)) + l_aime
    loss.backward()
    assert loss.device == card and np.isfinite(loss.item())
    assert model.embedding.weight.grad.device == card and model.embedding.weight.grad.abs().sum().item() > 0


@pytest.mark.parametrize("name", PRESETS)
def test_generating_scoring_and_the_compensators_objective(card, data, name):
    model = model_on_card(name, data)
    history, target, _ = batch_on_card(model, data)
    compensator = Compensator(model.config.model).to(card)
    made = Recommender(model, [f"i{item}" for item in range(6)])
    if model.config.train.compensator_epochs:
        made.compensators[3] = compensator
    at_home = history.cpu()  # users' histories come from the CPU
    for compensate in (False, True)[: 1 + len(made.compensators)]:
        assert made.generate(at_home, 3, compensate).device == card
        assert made.generate(at_home, 3, compensate, x_T=torch.randn(8, 8)).device == card
    for scorer in (made.scorer(), made.scorer(1, compensate=False), made.markov_scorer()):
        query = scorer.query(at_home)
        assert {part.device for part in (scorer.items, *query) if part is not None} == {card}
    for exclude_seen in (False, True):
        assert len(made.recommend_many([["i1"], ["i1", "i2"]], 3, exclude_seen=exclude_seen)) == 6
    if not made.compensators:
        return
    e_tau1, h = training.sample_e_tau1(model, training_examples(*data, model.config), 3, torch.Generator())
    loss = training.compensator_objective(model, compensator, e_tau1[:8], h[:8], history, target)
    loss.backward()
    assert loss.device == card and wrong_places(compensator) == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_whole_training_gives_the_same_numbers_as_on_the_cpu(data, name, request, tmp_path):
    """All random numbers are drawn on the CPU, so both runs are one, stopped and resumed on the card (1e-4)."""
    config, dataset = config_of(name), data[0]
    logs = [History(), History()]
    on_cpu = fit(*data, config, "cpu", [logs[0]])
    request.getfixturevalue("card")
    fit(*data, config.replace(epochs=1), callbacks=[logs[1]], state=tmp_path)
    on_card = fit(*data, config, callbacks=[logs[1]], state=tmp_path)
    assert wrong_places(on_card.model) == [] and (on_card.z_star is None or on_card.z_star.device == CARD)
    one, other = (log.frame("diffusion") for log in logs)
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)
    for made, log in ((on_cpu, logs[0]), (on_card, logs[1])):
        if not config.train.compensator_epochs:
            assert made.compensators == {}
            continue
        assert log.frame("compensator")["L_Com"].notna().all() and made.compensators.keys() == {3}
    torch.testing.assert_close(
        on_card.model.embedding.weight.cpu(), on_cpu.model.embedding.weight, rtol=1e-4, atol=1e-4
    )
    lists = [made.recommend(dataset.item_ids[:2].tolist(), k=3) for made in (on_cpu, on_card)]
    pd.testing.assert_frame_equal(*lists, rtol=1e-3, atol=1e-3)
    checkpoint.save(on_card, tmp_path / "saved")
    loaded = checkpoint.load(tmp_path / "saved", "cpu")
    pd.testing.assert_frame_equal(loaded.recommend(dataset.item_ids[:2].tolist(), k=3), lists[1], rtol=1e-4)


@pytest.mark.parametrize("target", ["gae", "graph"])
def test_a_z_star_that_is_given_from_the_cpu_is_moved(card, data, target):
    z_star = torch.randn(6, 8)
    made = fit(*data, config_of("reference", aime_target=target, epochs=1, compensator_epochs=0), z_star=z_star)
    assert made.z_star.device == card and torch.equal(made.z_star.cpu(), z_star)


# ---- the check can fail ---------------------------------------------------------------------------


def test_a_z_star_left_on_the_cpu_is_found(card, data):
    model = model_on_card("reference", data)
    for budget in (9, None):
        model.config = model.config.replace(aime_pairs=budget)
        with pytest.raises(WrongDevice):
            training.l_aime_of(model, torch.randn(6, 8), torch.Generator())


def test_a_first_noise_left_on_the_cpu_is_found(card, data):
    model = model_on_card("reference", data)
    h = model.condition(batch_on_card(model, data)[0])
    for sampler in (functools.partial(skip_step, tau=[2, 6]), markov_chain):
        with pytest.raises(WrongDevice):
            sampler(model.predictor(h), torch.randn(8, 8), h, model.alpha_bar)


def test_a_step_whose_noise_or_batch_was_not_moved_is_found(card, data):
    model = model_on_card("improved", data)
    history, target, noise = batch_on_card(model, data)
    for part in ("t", "eps", "x_T"):
        with pytest.raises(WrongDevice):
            model(history, target, noise._replace(**{part: getattr(noise, part).cpu()}))
    for batch in ((history.cpu(), target), (history, target.cpu())):
        with pytest.raises(WrongDevice):
            model(*batch, noise)
    with pytest.raises(WrongDevice):
        neighbours(model.counts, history)


def left_on_the_cpu(function):
    """The same, with its tensor back on the CPU."""
    return lambda *arguments, **options: function(*arguments, **options).cpu()


SABOTAGE = {
    "the target of Eq. 10": (training, "aime_target", left_on_the_cpu(training.aime_target)),
    "a step's noise": (StepNoise, "of", lambda self, rows, device: self),
    "lambda_t": (DAE4Rec, "register_buffer", lambda self, name, value, persistent: setattr(self, name, value)),
    "x_T of the judge": (recommender, "skip_step", lambda f, x_T, *more, **k: skip_step(f, x_T.cpu(), *more, **k)),
    "x_T of the compensator": (training, "skip_step", lambda f, x_T, *more, **k: skip_step(f, x_T.cpu(), *more, **k)),
    "the compensator": (Compensator, "to", lambda self, device: self),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_whole_training_finds_what_was_not_moved(card, data, what, monkeypatch):
    monkeypatch.setattr(*SABOTAGE[what])
    with pytest.raises(WrongDevice):
        fit(*data, config_of("reference", epochs=1))


# ---- what is asked of a card that is there ----------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What `launch` asks Fabric for, on a machine that is said to have (or not) a card, and one that knows bfloat16."""

    def ask(device, card=True, bf16=True, processes=1):
        seen = {}

        class Fabric:
            def __init__(self, **options):
                seen.update(options)

            def launch(self):
                seen["launched"] = True

        monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(lightning_fabric, "Fabric", Fabric)
        for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
            monkeypatch.setenv(name, str(processes))
        assert isinstance(launch(device), Fabric) and seen.pop("launched")
        return seen

    return ask


@pytest.mark.parametrize("bf16, precision", [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_is_asked_for_only_where_the_card_has_it(asked, bf16, precision):
    assert asked("cuda", bf16=bf16)["precision"] == precision
    assert asked("cpu", bf16=bf16)["precision"] == asked("auto", card=False, bf16=bf16)["precision"] == "32-true"


def test_the_number_of_the_card_is_kept(asked):
    for device, number in (("cuda:1", 1), (torch.device("cuda", 2), 2), ("cuda", 0), ("auto", 0)):
        found = asked(device)
        assert (found["accelerator"], found["devices"]) == ("cuda", [number])
        assert found["strategy"] == "auto"


def test_several_processes_have_a_card_each_and_the_cpu_needs_none(asked):
    found = asked("cuda", processes=4)
    assert (type(found["strategy"]), found["devices"], found["num_nodes"]) == (DDPStrategy, 4, 1)
    found = asked("cpu", processes=2)
    assert (found["accelerator"], type(found["strategy"]), found["devices"]) == ("cpu", DDPStrategy, 2)
    assert asked("cpu")["devices"] == 1
