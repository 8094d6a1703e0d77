"""Checkpoints: what is written comes back, and what is wrong with a file is said in one sentence."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dae4rec_core import checkpoint
from dae4rec_core.data.dataset import held_out
from dae4rec_core.method.beyond import BeyondDAE4Rec
from dae4rec_core.ranking import user_metrics
from dae4rec_core.recommender import Recommender
from dae4rec_core.training import fit

NEWCOMER = ["i03", "i04", "i29", "i05"]


@pytest.fixture(scope="module")
def trained_ours(first_visits, ours):
    """All that is not in the paper, so that there are gains, counts and parameters of its own to keep."""
    return fit(*first_visits, ours.replace(unconditional=0.1, guidance=0.5), "cpu")


@pytest.fixture
def folder(trained, tmp_path):
    checkpoint.save(trained, tmp_path, data="ring")
    return tmp_path


def read(folder) -> tuple[dict, dict]:
    """Header and tensors of the file."""
    with safe_open(folder / checkpoint.FILE, "pt") as file:
        header = json.loads(file.metadata()["recommender"])
        return header, {name: file.get_tensor(name) for name in file.keys()}


def rewrite(folder, header, tensors) -> None:
    """The file with something changed."""
    save_file(tensors, folder / checkpoint.FILE, metadata={"recommender": json.dumps(header)})


def tensors_of(recommender) -> dict[str, torch.Tensor]:
    found = {f"model.{name}": value for name, value in recommender.model.state_dict().items()}
    for steps, compensator in recommender.compensators.items():
        found |= {f"{steps}.{name}": value for name, value in compensator.state_dict().items()}
    if recommender.shared is not None:
        found |= {f"shared.{name}": value for name, value in recommender.shared.state_dict().items()}
    return found if recommender.z_star is None else found | {"Z*": recommender.z_star}


# what comes back


def test_round_trip_to_the_bit(trained, folder):
    loaded = checkpoint.load(folder, "cpu")
    assert [path.name for path in folder.iterdir()] == ["recommender.safetensors"]
    assert loaded.model.config == trained.model.config
    assert loaded.item_ids.tolist() == trained.item_ids.tolist()
    assert sorted(loaded.compensators) == [5]
    ours, theirs = tensors_of(trained), tensors_of(loaded)
    assert "Z*" in ours and set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for options in ({}, {"compensate": False, "steps": 3}, {"exclude_seen": True, "seed": 4}):
        assert loaded.recommend(NEWCOMER, 7, **options).equals(trained.recommend(NEWCOMER, 7, **options))
    assert read(folder)[0]["facts"] == {"data": "ring"}


def test_round_trip_of_what_is_ours(trained_ours, first_visits, ours, tmp_path):
    checkpoint.save(trained_ours, tmp_path)
    loaded = checkpoint.load(tmp_path, "cpu")
    assert isinstance(loaded.model, BeyondDAE4Rec) and loaded.z_star is None
    counts, theirs = trained_ours.model.counts, loaded.model.counts
    assert counts.dtype == theirs.dtype and (counts != theirs).nnz == 0
    one, other = tensors_of(trained_ours), tensors_of(loaded)
    assert set(one) == set(other)
    assert {"model.nothing", "model.returns.place", "model.returns.gate.weight"} <= set(one)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    examples = held_out(*first_visits, "test", ours)
    assert user_metrics(loaded.scorer(), examples).equals(user_metrics(trained_ours.scorer(), examples))


def test_round_trip_of_a_shared_compensator(ring, tiny, tmp_path, one_sentence):
    found = fit(*ring, tiny.replace(compensator="shared"), "cpu")
    checkpoint.save(found, tmp_path)
    loaded = checkpoint.load(tmp_path, "cpu")
    assert loaded.compensators == {} and not loaded.shared.training
    ours, theirs = tensors_of(found), tensors_of(loaded)
    assert set(ours) == set(theirs) and any(name.startswith("shared.rest") for name in ours)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert loaded.recommend(NEWCOMER, 7, 3).equals(found.recommend(NEWCOMER, 7, 10))
    header, tensors = read(tmp_path)
    assert header["compensators"] == ["shared"]
    rewrite(
        tmp_path, header, {name: value for name, value in tensors.items() if name != "compensator.shared.first.bias"}
    )
    one_sentence(lambda: checkpoint.load(tmp_path, "cpu"), str(tmp_path), "does not fit", "copy it again")


def test_half_precision_is_float16_in_the_file_and_float32_in_use(trained, folder, tmp_path):
    checkpoint.save(trained, tmp_path / "half", half=True)
    _, stored = read(tmp_path / "half")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    sizes = [(place / checkpoint.FILE).stat().st_size for place in (tmp_path / "half", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    one, other = tensors_of(trained), tensors_of(checkpoint.load(tmp_path / "half", "cpu"))
    for name, value in one.items():
        assert other[name].dtype == torch.float32
        assert torch.equal(other[name], value.half().float())
    assert not torch.equal(one["model.embedding.weight"], other["model.embedding.weight"])


def test_counts_that_float16_does_not_hold_survive_half_exactly(trained_ours, tmp_path):
    """float16 ends at 65,504 and has no 70,001, no 1/3 and no 2,049."""
    model = BeyondDAE4Rec(30, trained_ours.model.config)
    model.counts = trained_ours.model.counts.copy()
    model.counts.data[:4] = [70_001.0, 1e6 + 1 / 3, 2_049.0, 1 / 3]
    checkpoint.save(Recommender(model, trained_ours.item_ids), tmp_path, half=True)
    loaded = checkpoint.load(tmp_path, "cpu").model
    assert loaded.counts.data.tolist() == model.counts.data.tolist()
    assert loaded.counts.indices.tolist() == model.counts.indices.tolist()
    checkpoint.export(Recommender(model, trained_ours.item_ids), tmp_path / "small", [], eight_bits=True)
    assert load_file(tmp_path / "small")["counts.data"].tolist() == model.counts.data.tolist()


def test_a_recommender_without_z_star_and_compensator(trained, tmp_path):
    checkpoint.save(Recommender(trained.model, trained.item_ids), tmp_path / "deep" / "folder")
    loaded = checkpoint.load(tmp_path / "deep" / "folder", "cpu")
    assert loaded.z_star is None and loaded.compensators == {}
    assert loaded.recommend(NEWCOMER, compensate=False).equals(trained.recommend(NEWCOMER, compensate=False))


@pytest.mark.parametrize("half", [False, True])
def test_killed_before_the_renaming_the_old_file_is_still_there(trained, folder, half, monkeypatch):
    before = (folder / checkpoint.FILE).read_bytes()
    other = Recommender(trained.model, trained.item_ids)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(other, folder, half, data="another")
    assert (folder / checkpoint.FILE).read_bytes() == before
    assert sorted(checkpoint.load(folder, "cpu").compensators) == [5]
    checkpoint.save(other, folder, half, data="another")  # what was left behind is no hindrance
    assert read(folder)[0]["facts"] == {"data": "another"}
    assert [path.name for path in folder.iterdir()] == [checkpoint.FILE]


# what can be wrong


def test_nothing_there(tmp_path, one_sentence):
    one_sentence(lambda: checkpoint.load(tmp_path / "none"), "none", "no checkpoint", "fit --out")


def test_a_checkpoint_of_format_1(tmp_path, one_sentence):
    (tmp_path / "recommender.json").write_text('{"format": 1}')
    (tmp_path / "weights.safetensors").write_bytes(b"")
    one_sentence(lambda: checkpoint.load(tmp_path), str(tmp_path), "format 1", "train again")


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_a_damaged_file(folder, one_sentence, keep):
    path = folder / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:keep])
    one_sentence(lambda: checkpoint.load(folder, "cpu"), str(folder), "damaged", "copy it again")


@pytest.mark.parametrize(
    "metadata", [None, {"other": "1"}, {"recommender": "[]"}, {"recommender": '{"format": 1}'}, {"recommender": "{"}]
)
def test_another_safetensors_file(tmp_path, one_sentence, metadata):
    save_file({"x": torch.ones(2)}, tmp_path / checkpoint.FILE, metadata=metadata)
    text = one_sentence(lambda: checkpoint.load(tmp_path, "cpu"), str(tmp_path), "train anew")
    assert "format 2" in text or "damaged" in text


@pytest.mark.parametrize("name", ["config", "compensators", "item_ids"])
def test_a_header_without_a_part(folder, one_sentence, name):
    header, tensors = read(folder)
    del header[name]
    rewrite(folder, header, tensors)
    one_sentence(lambda: checkpoint.load(folder, "cpu"), str(folder), f"lacks its {name}", "train anew")


def test_a_file_without_the_counts_that_it_needs(trained_ours, tmp_path, one_sentence):
    checkpoint.save(trained_ours, tmp_path)
    header, tensors = read(tmp_path)
    del tensors["counts.indptr"]
    rewrite(tmp_path, header, tensors)
    one_sentence(lambda: checkpoint.load(tmp_path, "cpu"), str(tmp_path), "counts", "train anew")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.embedding.weight", "compensator.5.shortcut.bias", "z_star"])
def test_nan_in_a_checkpoint(folder, one_sentence, name, value):
    header, tensors = read(folder)
    tensors[name].view(-1)[3] = value
    rewrite(folder, header, tensors)
    one_sentence(lambda: checkpoint.load(folder, "cpu"), str(folder), "NaN", name, "train anew")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda header: header["item_ids"].pop(), ["does not fit", "copy it again"]),
        (lambda header: header["config"]["model"].update(dim=8), ["does not fit", "copy it again"]),
        (lambda header: header["config"]["model"].update(positions=False), ["does not fit", "copy it again"]),
        (lambda header: header["compensators"].append(7), ["does not fit", "copy it again"]),
        (lambda header: header["config"]["model"].update(width=8), ["model.width", "another version"]),
        (lambda header: header["config"].update(tuning={"lr": 1}), ["tuning.lr", "another version"]),
        (lambda header: header.update(config={"dim": 16, "hidden": 32}), ["dim", "another version"]),
        (lambda header: header["config"]["model"].update(dim=-2), ["Config.dim", "-2"]),
        (lambda header: header["config"]["model"].update(dim=10**30), ["Config.dim", "at most"]),
        (lambda header: header["config"]["model"].update(hidden=2**40), ["Config.hidden", "at most"]),
        (lambda header: header["config"]["model"].update(hidden=33), ["model.denoiser.first.weight is F32 (32, 48)"]),
        (lambda header: header["config"]["model"].update(init_std=10**400), ["can't be used", "init_std"]),
        (lambda header: header["config"]["model"].update(depth=90), ["rest.180.weight is missing"]),
        (lambda header: header["config"]["data"].update(max_len=10**5), ["memory", "max_len = 100000"]),
        (lambda header: header["config"]["diffusion"].update(timesteps=10**9), ["Config.timesteps", "at most"]),
        (lambda header: header["config"].update(model=[1, 2]), ["model", "another version"]),
        (lambda header: header["config"]["model"].update({"a\nb\x1b[1m": 1}), [r"model.a\nb\x1b[1m"]),
        (lambda header: header.update(config=[]), ["config is no object"]),
        (lambda header: header.update(item_ids="abc"), ["item_ids is no list of texts"]),
        (lambda header: header.update(item_ids=[]), ["item_ids is no list of texts"]),
        (lambda header: header["item_ids"].__setitem__(3, 3), ["item_ids is no list of texts"]),
        (lambda header: header["item_ids"].__setitem__(3, "i04"), ["item_ids holds one of them twice"]),
        (lambda header: header.update(compensators=5), ["compensators is no list of S"]),
        (lambda header: header.update(compensators=[5.0]), ["compensators is no list of S"]),
        (lambda header: header.update(compensators=[[5]]), ["compensators is no list of S"]),
        (lambda header: header.update(compensators=[5, 5]), ["compensators holds one of them twice"]),
        # what the sizes don't tell, the digest does
        (lambda header: header["item_ids"].reverse(), ["damaged", "digest", "ids"]),
        (lambda header: header["config"]["diffusion"].update(timesteps=11), ["damaged", "digest", "configuration"]),
    ],
)
def test_a_header_that_does_not_fit(folder, one_sentence, damage, words):
    header, tensors = read(folder)
    damage(header)
    rewrite(folder, header, tensors)
    one_sentence(lambda: checkpoint.load(folder, "cpu"), *words)


def test_a_changed_weight_is_noticed(folder, one_sentence):
    header, tensors = read(folder)
    tensors["model.embedding.weight"][7, 3] += 1e-4
    rewrite(folder, header, tensors)
    one_sentence(lambda: checkpoint.load(folder, "cpu"), str(folder), "digest", "weights have changed")


def test_a_file_from_before_the_digest_is_read(trained, folder):
    """The bundled town's is one."""
    header, tensors = read(folder)
    del header["digest"]
    rewrite(folder, header, tensors)
    assert checkpoint.load(folder, "cpu").recommend(NEWCOMER).equals(trained.recommend(NEWCOMER))


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": ' + "9" * 5000 + "}"])
def test_json_that_python_does_not_read(folder, one_sentence, text):
    save_file(read(folder)[1], folder / checkpoint.FILE, metadata={"recommender": text})
    one_sentence(lambda: checkpoint.load(folder, "cpu"), str(folder), "damaged", "copy it again")


def test_tensors_that_nobody_asked_for_or_of_another_type(folder, one_sentence):
    header, tensors = read(folder)
    rewrite(folder, header, tensors | {"model.\x1b[2J": torch.ones(1)})
    one_sentence(lambda: checkpoint.load(folder, "cpu"), "does not fit", r"'model.\x1b[2J' belongs to no part of it")
    rewrite(folder, header, tensors | {"z_star": tensors["z_star"].long()})
    one_sentence(lambda: checkpoint.load(folder, "cpu"), "does not fit", "z_star is I64 (30, 16), not F32 (30, 16)")


@pytest.mark.parametrize(
    "name, change",
    [
        ("indices", lambda values: values + 10**6),  # SciPy would read whatever lies there
        ("indices", lambda values: values - 1),
        ("indices", lambda values: values.float()),
        ("indices", lambda values: values[:-1]),
        ("indptr", lambda values: values.flip(0)),
        ("indptr", lambda values: values + 1),
        ("indptr", lambda values: values * 10),
        ("indptr", lambda values: values[:-1]),
        # from one to the other the difference overflows, so that SciPy sees it grow
        ("indptr", lambda values: values.index_copy(0, torch.tensor([4, 5]), values.new_tensor([1.6e9, -1.6e9]))),
        ("data", lambda values: -values),
        ("data", lambda values: values.reshape(1, -1)),
    ],
)
def test_counts_that_are_no_matrix(trained_ours, tmp_path, one_sentence, name, change):
    checkpoint.save(trained_ours, tmp_path)
    header, tensors = read(tmp_path)
    del header["digest"]
    tensors[f"counts.{name}"] = change(tensors[f"counts.{name}"]).contiguous()
    rewrite(tmp_path, header, tensors)
    one_sentence(lambda: checkpoint.load(tmp_path, "cpu"), str(tmp_path), "counts", "copy it again")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="each file is tried in a process of its own")
def test_damaged_in_any_way_a_checkpoint_ends_in_a_list_or_a_sentence():
    """More of it: python tests/fuzz_checkpoint.py --seconds 3600"""
    from fuzz_checkpoint import attack  # Windows lacks what it needs

    found = attack(trials=150, seconds=6)
    assert set(found) == {"list", "sentence"}, found
