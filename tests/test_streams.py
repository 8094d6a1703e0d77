"""One seed, a stream for each purpose: same seed, same numbers; two purposes, no number in common."""

import typing

import pytest
import torch

from dae4rec_core import recommender, training
from dae4rec_core.method import gae
from dae4rec_core.method.beyond import BeyondDAE4Rec
from dae4rec_core.streams import Purpose, seed_of, stream, weights_from
from dae4rec_core.training import fit

PURPOSES = typing.get_args(Purpose)
CHUNK = 16  # torch makes normal numbers 16 at a time, so a copy of a stream shows as equal chunks wherever it starts


def chunks(numbers: torch.Tensor) -> set[tuple[float, ...]]:
    numbers = numbers.detach().flatten()
    return set(map(tuple, numbers[: len(numbers) // CHUNK * CHUNK].reshape(-1, CHUNK).tolist()))


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the numbers in the order in which they were drawn."""
    n = min(one.numel(), other.numel())
    return torch.corrcoef(torch.stack([one.detach().flatten()[:n], other.detach().flatten()[:n]]))[0, 1].item()


# the function itself


def test_every_purpose_seed_and_number_has_a_seed_of_its_own():
    numbers = [(), *((n,) for n in range(1, 30)), *((n, m) for n in range(1, 30) for m in range(1, 4))]
    found = [seed_of(seed, purpose, *more) for seed in range(10) for purpose in PURPOSES for more in numbers]
    assert len(set(found)) == len(found)
    assert 0 <= min(found) and max(found) < 2**64 and max(found) > 2**60


def test_the_same_seed_gives_the_same_numbers_on_every_machine():
    """Written down once: a run repeats in another process and another year."""
    assert seed_of(0, "model") == 8630049772419547921
    first, second, other = (torch.randn(5, generator=stream(seed, "noise", 3)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert stream(0, "noise").device.type == "cpu"


def test_streams_of_two_purposes_are_independent():
    """9,984 numbers each: a correlation has standard error 0.01, and no chunk occurs twice."""
    drawn = {purpose: torch.randn(9_984, generator=stream(7, purpose)) for purpose in PURPOSES}
    for one in PURPOSES:
        for other in PURPOSES:
            if one < other:
                assert abs(correlation(drawn[one], drawn[other])) < 0.05, (one, other)
                assert not chunks(drawn[one]) & chunks(drawn[other]), (one, other)
    assert correlation(drawn["model"], drawn["model"]) == pytest.approx(1)  # the check can fail


def test_a_training_leaves_torchs_own_stream_as_it_was(ring, tiny):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    fit(*ring, tiny.replace(epochs=1, compensator_epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_from_leaves_torchs_own_stream_as_it_was():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with weights_from(0, "model"):
        first = torch.randn(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(9)
    with weights_from(0, "model"):
        assert torch.equal(torch.randn(4), first)


# what a training draws from them


class Drawn(typing.NamedTuple):
    """What one training drew: first weights by the module that they belong to, and noises by their use."""

    weights: dict[str, torch.Tensor]
    noise: dict[str, list[torch.Tensor]]


def watched_fit(ring, config) -> Drawn:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return _watched_fit(ring, config, monkeypatch)


def _watched_fit(ring, config, monkeypatch) -> Drawn:
    drawn = Drawn({}, {"eps": [], "x_T": [], "judged": [], "learned from": [], "recommended": []})

    def first_weights(place: object, name: str, of: typing.Callable, label: str) -> None:
        real = getattr(place, name)

        def spy(*arguments):
            made = real(*arguments)
            drawn.weights[label] = of(made).detach().clone()
            return made

        monkeypatch.setattr(place, name, spy)

    first_weights(gae, "GAE", lambda made: made.w0, "W_0")
    first_weights(training, "make_model", lambda made: made.embedding.weight, "E")
    first_weights(training, "Compensator", lambda made: made.first.weight, "compensator")

    draw_noise, sample_e_tau1, skip_step = BeyondDAE4Rec.draw_noise, training.sample_e_tau1, recommender.skip_step
    uses = ["learned from", "judged"]  # the two calls of sample_e_tau1, in this order

    def spy_noise(model, size, generator):
        noise = draw_noise(model, size, generator)
        drawn.noise["eps"].append(noise.eps)
        drawn.noise["x_T"].append(noise.x_T)
        return noise

    def spy_sample(*arguments, **options):
        use = uses.pop(0)

        def spy_step(f, x_T, *more, **given):
            drawn.noise[use].append(x_T)
            return skip_step(f, x_T, *more, **given)

        with monkeypatch.context() as during:
            during.setattr(training, "skip_step", spy_step)
            return sample_e_tau1(*arguments, **options)

    now = ["judged"]  # while training, a recommender's sampler judges

    def spy_recommender(f, x_T, *more, **options):
        drawn.noise[now[0]].append(x_T)
        return skip_step(f, x_T, *more, **options)

    monkeypatch.setattr(BeyondDAE4Rec, "draw_noise", spy_noise)
    monkeypatch.setattr(training, "sample_e_tau1", spy_sample)
    monkeypatch.setattr(recommender, "skip_step", spy_recommender)
    made = fit(*ring, config, "cpu")
    now[0] = "recommended"
    made.recommend(["i00", "i01"], k=3, seed=config.train.seed)
    assert all(drawn.noise.values()) and set(drawn.weights) == {"W_0", "E", "compensator"}
    return drawn


@pytest.fixture
def config(tiny):
    """E ~ N(0, 1), as W_0 is, so that a copy would be an equal number; and a ranking term, which learns from x_T."""
    return tiny.replace(init_std=1.0, rank_weight=1.0, gae_steps=1, compensator_epochs=1)


def test_e_is_no_copy_of_w_0(ring, config):
    """Nor are the compensator's weights of either. With 480 numbers a correlation has standard error 0.05."""
    weights = watched_fit(ring, config).weights
    for one, other in (("W_0", "E"), ("W_0", "compensator"), ("E", "compensator")):
        assert abs(correlation(weights[one], weights[other])) < 0.2
        assert not chunks(weights[one]) & chunks(weights[other])


def test_one_stream_for_both_would_be_seen(ring, config, monkeypatch):
    """The test above can fail: here E and W_0 are drawn from one stream, as they once were."""
    monkeypatch.setattr("dae4rec_core.streams.seed_of", lambda seed, purpose, *numbers: seed)
    weights = watched_fit(ring, config).weights
    assert len(chunks(weights["W_0"]) & chunks(weights["E"])) == len(chunks(weights["E"]))


def test_what_is_judged_was_never_trained_on(ring, config):
    """x_T of validation, of training, of the compensator's examples and of a recommendation share no row."""
    noise = {use: chunks(torch.cat(parts)) for use, parts in watched_fit(ring, config).noise.items()}
    for one in noise:
        for other in noise:
            assert one == other or not noise[one] & noise[other], (one, other)
    assert len(noise["judged"]) == 60  # all epochs, and the compensator, are judged on the same noise


def test_every_epoch_has_its_own_noise_and_every_seed_its_own(ring, config):
    drawn = [watched_fit(ring, config.replace(seed=seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(value, drawn[1].weights[name]) for name, value in drawn[0].weights.items())
    assert not chunks(drawn[0].weights["E"]) & chunks(drawn[2].weights["E"])
    assert not chunks(torch.cat(drawn[0].noise["eps"])) & chunks(torch.cat(drawn[2].noise["eps"]))
    rows = torch.cat(drawn[0].noise["eps"])
    assert len(chunks(rows)) == len(rows)  # two epochs, d = 16: no row twice
