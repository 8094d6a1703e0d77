"""The configuration: its presets, its flat names, the command line that reads them, and what it refuses."""

import argparse
import dataclasses
import json
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dae4rec_core.__main__ import add_config_options, config_of
from dae4rec_core.config import DEPARTURES, FIELDS, PRESETS, Config, choose_device, free_bytes, kind_of

LETTER, REFERENCE = PRESETS["letter"], PRESETS["reference"]
OPTIONAL = [name for name, (_, item) in FIELDS.items() if kind_of(item)[1]]


# presets


def test_departures_are_exactly_what_reference_does_and_the_paper_does_not():
    """Each with its reason: a few words at least, and no name that the reader would have to look up."""
    printed, ours = LETTER.flat(), REFERENCE.flat()
    assert set(DEPARTURES) == {name for name in FIELDS if printed[name] != ours[name]}
    for name, reason in DEPARTURES.items():
        assert len(reason.split()) >= 4, name
        assert "\n" not in reason and not reason.endswith(".")  # listed as "name: reason"


def test_letter_is_the_papers_method():
    """No switch of the condition or of f is on, Eq. 9 and 10 are exact and unweighted, T = 1000 and S = T / 2."""
    expected = {
        "positions": False,
        "layer_norm": False,
        "shortcut": False,
        "dropout": 0.0,
        "aggregation": "sum",
        "pos_weight": 1.0,
        "gae_pairs": None,
        "aime_pairs": None,
        "timesteps": 1000,
        "lambda_t": "paper",
        "aime_target": "gae",
    }
    assert {name: LETTER.flat()[name] for name in expected} == expected
    assert LETTER.sampling_steps == 500
    assert LETTER.beyond == Config().beyond and LETTER.diffusion.delta > 0


def test_presets_say_what_they_are():
    assert set(PRESETS) == {"letter", "reference", "improved", "posterior", "dreamrec"}
    assert Config() == REFERENCE
    assert REFERENCE.beyond == type(REFERENCE.beyond)()
    for name in ("improved", "posterior", "dreamrec"):
        assert PRESETS[name].beyond != REFERENCE.beyond


# fields and flat names


def stages() -> dict[str, type]:
    return {stage.name: type(getattr(Config(), stage.name)) for stage in dataclasses.fields(Config)}


def test_every_field_has_a_flat_name_of_its_own_and_a_line_of_help():
    everything = [(stage, item.name) for stage, kind in stages().items() for item in dataclasses.fields(kind)]
    assert sorted(everything) == sorted((stage, item.name) for stage, item in FIELDS.values())
    assert len(FIELDS) == len(everything)
    assert {"gae_steps", "gae_lr", "gae_pairs", "steps", "lr", "timesteps"} <= set(FIELDS)
    assert all(item.metadata["help"] for _, item in FIELDS.values())


def test_flat_and_nested_say_the_same():
    config = Config().replace(gae_steps=7, steps=3, lr=0.5, gae_lr=0.25, neighbours=2.0)
    assert (config.gae.steps, config.sampling.steps, config.train.lr, config.gae.lr) == (7, 3, 0.5, 0.25)
    assert config.flat()["gae_steps"] == 7 and config.flat()["neighbours"] == 2.0
    assert Config().replace(**config.flat()) == config
    assert config.replace() == config and Config().gae.steps != 7  # nothing is changed in place
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gae = Config().gae


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_json(name):
    config = PRESETS[name]
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_json_leaves_out_keeps_its_default_and_what_it_makes_up_is_refused(one_sentence):
    assert Config.from_dict({"model": {"dim": 8}}) == Config().replace(dim=8)
    one_sentence(lambda: Config.from_dict({"model": {"dims": 8}}), "no field model.dims")
    one_sentence(lambda: Config.from_dict({"modell": {"dim": 8}}), "no field modell.dim")
    one_sentence(lambda: Config.from_dict({"train": {"steps": 8}}), "no field train.steps")  # S is another stage's
    one_sentence(lambda: Config.from_dict({"model": {"dim": 7}}), "Config.dim", "even")


def test_s_of_none_is_half_of_t():
    for timesteps, half in ((1, 1), (2, 1), (9, 4), (1000, 500)):
        assert Config().replace(timesteps=timesteps, steps=None).sampling_steps == half
    assert Config().replace(timesteps=9, steps=9).sampling_steps == 9


# the command line


@pytest.fixture
def read():
    """Options of the command line -> Config."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_config_options(parser)
    return lambda *options: config_of(parser.parse_args(list(options)))


def another(name: str) -> tuple[str, object]:
    """A text for the command line that changes a field, and the value that it stands for."""
    _, item = FIELDS[name]
    kind, now = kind_of(item)[0], Config().flat()[name]
    if kind is bool:
        return str(not now), not now
    if item.metadata["choices"]:
        value = next(choice for choice in item.metadata["choices"] if choice != now)
        return value, value
    if kind is int:
        value = 2 * (now or 3)
        return str(value), value
    return "0.75", 0.75


# what another field must hold for a change to be possible
NEEDS: dict[str, dict[str, Any]] = {
    "guidance": {"unconditional": 0.1},
    "returns": {"rank_weight": 1.0},
    "denoiser": {"geometry": "sphere", "rank_weight": 1.0, "compensator_epochs": 0},
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_an_option(read, name):
    text, value = another(name)
    extra = NEEDS.get(name, {})
    more = [word for other, number in extra.items() for word in (f"--{other.replace('_', '-')}", str(number))]
    found = read(f"--{name.replace('_', '-')}", text, *more)
    assert found == Config().replace(**{name: value}, **extra) != Config()
    assert type(found.flat()[name]) is kind_of(FIELDS[name][1])[0]


def test_options_start_from_a_preset(read):
    assert read() == Config()
    assert read("--preset", "letter", "--dim", "8") == LETTER.replace(dim=8)


@pytest.mark.parametrize("name", FIELDS)
def test_none_is_read_where_it_means_something(read, name):
    options = [f"--{name.replace('_', '-')}", "none"]
    if name in OPTIONAL:
        assert read(*options).flat()[name] is None
        assert read(*options) == read(options[0], "None")
    else:
        with pytest.raises((ValueError, argparse.ArgumentError)):
            read(*options)


def test_what_may_be_chosen_for_you_is_none_and_never_zero(one_sentence):
    assert set(OPTIONAL) == {"pos_weight", "gae_pairs", "aime_pairs", "steps", "pair_tile"}
    for name in OPTIONAL:
        Config().replace(**{name: None})
        one_sentence(lambda: Config().replace(**{name: 0}), f"Config.{name} is 0")


# what is refused


@pytest.mark.parametrize(
    "change, words",
    [
        ({"k_core": 0}, ["Config.k_core is 0", "at least 1"]),
        ({"repeats": "some"}, ["Config.repeats", "'some'", "keep, drop_consecutive, first_visits"]),
        ({"split": "random"}, ["Config.split", "'random'", "global_time"]),
        ({"dim": 15}, ["Config.dim", "15", "even"]),
        ({"depth": 0}, ["Config.depth", "at least 1"]),
        ({"dropout": 1.0}, ["Config.dropout", "below 1"]),
        ({"dropout": -0.1}, ["Config.dropout", "at least 0"]),
        ({"init_std": 0.0}, ["Config.init_std", "above 0"]),
        ({"timesteps": 0}, ["Config.timesteps", "at least 1"]),
        ({"delta": -1.0}, ["Config.delta", "-1.0", "at least 0"]),
        ({"aime_pairs": -1}, ["Config.aime_pairs", "at least 1"]),
        ({"steps": -1}, ["Config.steps", "-1", "at least 1"]),
        ({"steps": 11, "timesteps": 10}, ["(S) is 11", "(T) = 10", "at most T"]),
        ({"timesteps": 5}, ["(S) is 10", "(T) = 5", "at most T"]),
        ({"epochs": -1}, ["Config.epochs", "at least 0"]),
        ({"patience": 0}, ["Config.patience", "at least 1"]),
        ({"seed": -1}, ["Config.seed", "at least 0"]),
        ({"seed": 2**63}, ["Config.seed is 9223372036854775808", "at most 9223372036854775807"]),
        ({"max_len": 10**7}, ["Config.max_len", "at most 1000000"]),
        ({"dim": 10**7}, ["Config.dim", "at most 1000000"]),
        ({"depth": 10**7}, ["Config.depth", "at most 100"]),
        ({"neighbours": float("inf")}, ["Config.neighbours is inf", "give a number"]),
        ({"neighbours": 1e30}, ["Config.neighbours is 1e+30", "at most 1000000"]),
        ({"delta": 10**30}, ["Config.delta", "at most 9223372036854775807"]),
        ({"lr": 1e300}, ["Config.lr is 1e+300", "at most 3.4e+38"]),
        ({"pair_precision": "half"}, ["Config.pair_precision", "'half'", "bfloat16"]),
        ({"geometry": "cube"}, ["Config.geometry", "sphere"]),
        ({"temperature": 0.0}, ["Config.temperature", "at least 0.001"]),
        ({"rank_weight": -1.0}, ["Config.rank_weight", "at least 0"]),
        ({"unconditional": 1.0}, ["Config.unconditional", "below 1"]),
        ({"guidance": 2.0}, ["Config.guidance is 2.0", "without h", "Config.unconditional"]),
        ({"returns": True}, ["Config.returns", "ranking term", "Config.rank_weight"]),
        ({"similarity": "counts", "aime_target": "graph"}, ["Config.similarity", "Config.aime_target"]),
    ],
)
def test_impossible_values_are_refused_in_one_sentence(one_sentence, change, words):
    one_sentence(lambda: Config().replace(**change), *words)


@pytest.mark.parametrize("name", FIELDS)
def test_anything_is_taken_or_refused_with_the_name_of_its_field(name, one_sentence):
    """What is taken can be written and read again; nothing is an error of Python's own."""
    for value in (
        0,
        -1,
        1.5,
        10**7,
        2**63,
        10**400,
        1e300,
        -math.inf,
        math.inf,
        math.nan,
        True,
        "x",
        "",
        [3],
        {},
        b"x",
    ):
        try:
            config = Config().replace(**{name: value})
        except ValueError:
            text = one_sentence(lambda value=value: Config().replace(**{name: value}))
            assert re.match(r"Config\.\w+ ", text) and f"Config.{name}" in text
        else:
            assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", [n for n, (_, item) in FIELDS.items() if kind_of(item)[0] is float])
def test_nan_is_refused_for_every_real_number(one_sentence, name):
    one_sentence(lambda: Config().replace(**{name: float("nan")}), f"Config.{name} is nan")


@pytest.mark.parametrize(
    "name", [n for n, (_, item) in FIELDS.items() if kind_of(item) in ((int, False), (str, False))]
)
def test_none_is_refused_where_it_means_nothing(name, one_sentence):
    one_sentence(lambda: Config().replace(**{name: None}), f"Config.{name} is None")


def test_unknown_names_are_refused(one_sentence):
    one_sentence(lambda: Config().replace(dims=3), "no field dims", "its fields are", "dim,")
    one_sentence(lambda: Config().replace(dims=3, tau=1), "no field dims, tau")


# the device


def test_devices(one_sentence):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cuda", "cpu")
    for name in ("abacus", "mps", "meta"):
        one_sentence(lambda: choose_device(name), f"'{name}'", "choose auto", "cpu")


def test_a_graphics_card_is_taken_where_there_is_one_and_a_name_is_obeyed(monkeypatch, one_sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == choose_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    one_sentence(lambda: choose_device("cuda"), "'cuda' is not available", "choose auto or cpu")


def test_free_memory_is_the_cards_on_a_card_and_the_machines_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5))
    assert free_bytes(torch.device("cuda")) == 7 and free_bytes(torch.device("cpu")) == 5
