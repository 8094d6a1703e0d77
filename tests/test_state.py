"""Which epoch is kept, and what a stopped run goes on from. Oracles: the whole list of values, an unbroken run."""

import errno
import json
import os
import random
from pathlib import Path

import kills
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dae4rec_core import checkpoint, state
from dae4rec_core.data.dataset import Examples
from dae4rec_core.events import History
from dae4rec_core.method.gae import pretrain_gae
from dae4rec_core.method.graph import ItemGraph
from dae4rec_core.state import EarlyStopping, begun, diffusion_stage, load_finished, save_finished, z_star_file
from dae4rec_core.training import fit, pretrained, training_graph

# early stopping


def numbered(epoch: int) -> nn.Linear:
    """A module whose weight says of which epoch it is."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, epoch)
    return module


@pytest.mark.parametrize("patience", [1, 2, 3, 7])
def test_training_stops_after_exactly_patience_epochs_without_a_better_one(patience):
    rng = np.random.default_rng(patience)
    for _ in range(50):
        values = rng.integers(6, size=40) / 10  # equal values are no better ones
        stopping = EarlyStopping(patience)
        for epoch, value in enumerate(values, 1):
            stopping.keep(epoch, value, numbered(epoch))
            newest, before = values[max(0, epoch - patience) : epoch], values[: max(0, epoch - patience)]
            assert stopping.stop == (len(before) > 0 and newest.max() <= before.max())
            if stopping.stop:
                break
        assert stopping.stop and stopping.epoch == epoch
        assert stopping.best_value == values[:epoch].max()
        module = numbered(0)
        stopping.restore(module)
        assert module.weight.item() == 1 + values[:epoch].argmax()  # of equal ones the first


def test_what_is_kept_is_a_copy_and_restoring_ends_training_mode():
    module, stopping = numbered(1), EarlyStopping(2)
    stopping.restore(module)  # nothing was looked at: nothing changes
    assert module.weight.item() == 1 and not module.training
    stopping.keep(1, 0.0, module)  # 0 is better than nothing
    nn.init.constant_(module.train().weight, 9)
    stopping.keep(2, 0.0, module)
    stopping.restore(module)
    assert module.weight.item() == 1 and not module.training


# a run


def examples(seed: int = 0) -> Examples:
    history, target = torch.randint(9, (20, 4), generator=torch.Generator().manual_seed(seed)).split([3, 1], dim=1)
    return Examples(history, target.squeeze(1), torch.arange(20))


def graph_of(n_items: int = 9) -> ItemGraph:
    return ItemGraph(n_items, np.array([[0, 1], [1, 2]]))


class Small(nn.Linear):
    """Stands for a model: 3 numbers in, 2 out."""

    def __init__(self, config, n_items):
        super().__init__(3, 2)
        self.config, self.n_items = config, n_items


class Run:
    """A few steps of Adam on a small regression, with a state in `folder`."""

    def __init__(self, folder, config, train=None, validation=None, n_items=9):
        self.model = Small(config, n_items)
        self.train = examples() if train is None else train
        self.optimizer = torch.optim.Adam(
            [{"params": [self.model.weight], "lr": 0.1}, {"params": [self.model.bias], "lr": 0.01}]
        )
        self.stopping = EarlyStopping(3)
        validation = examples(2) if validation is None else validation
        self.keeper = diffusion_stage(folder, self.model, self.train, validation, graph_of(n_items), None)
        self.keeper.resume({"model": self.model, "adam": self.optimizer, "stopping": self.stopping})

    def go(self, last: int) -> "Run":
        for epoch in range(self.stopping.epoch + 1, last + 1):
            loss = (self.model(self.train.history.float()) - self.train.target.unsqueeze(1)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.stopping.keep(epoch, [0.1, 0.5, 0.2, 0.3, 0.1, 0.9][epoch - 1], self.model)
            self.keeper.save(0, now=True)
        return self

    def everything(self) -> tuple:
        parts = [self.model.state_dict(), self.stopping.best, *self.optimizer.state_dict()["state"].values()]
        numbers = [part[name].tolist() for part in parts for name in sorted(part)]
        return numbers, self.stopping.epoch, self.stopping.stale, self.stopping.best_value


def same_start(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)


def test_a_resumed_run_is_the_unbroken_one(tmp_path, tiny):
    whole, first = Run(None, tiny), Run(tmp_path, tiny)
    same_start(whole.model)
    same_start(first.model)
    expected = whole.go(5).everything()
    first.go(3)
    assert first.everything() != expected
    second = Run(tmp_path, tiny.replace(epochs=5))  # more epochs are no other run
    assert second.everything() == first.everything()
    assert second.go(5).everything() == expected
    assert expected[1:] == (5, 3, 0.5) and second.stopping.stop
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_without_a_folder_nothing_is_written(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run(None, tiny).go(1)
    assert list(tmp_path.iterdir()) == []


def test_killed_before_the_renaming_the_old_state_is_read(tmp_path, tiny, monkeypatch):
    run = Run(tmp_path, tiny).go(2)
    expected = run.everything()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run.go(3)
    again = Run(tmp_path, tiny)
    assert again.everything() == expected and again.stopping.epoch == 2
    again.go(4)
    assert Run(tmp_path, tiny).stopping.epoch == 4


def test_a_state_of_another_run_is_refused(tmp_path, tiny, one_sentence):
    Run(tmp_path, tiny).go(1)
    words = str(tmp_path), "write somewhere else"
    for change in ({"lr": 0.5}, {"seed": 1}, {"patience": 9}, {"repeats": "first_visits"}):
        text = one_sentence(lambda: Run(tmp_path, tiny.replace(**change)), *words, "another configuration")
        assert "data" not in text.replace(str(tmp_path), "")
    for other in ({"train": examples(1)}, {"validation": examples(1)}, {"n_items": 10}):
        one_sentence(lambda: Run(tmp_path, tiny, **other), *words, "other data")


def test_a_state_of_another_version_is_refused(tmp_path, tiny, one_sentence):
    facts = {"epoch": 1, "stale": 0, "best_figure": 0.1, "config": {"dim": 16, "hidden": 32}, "data": 1}
    save_file({"model.weight": torch.ones(2, 3)}, tmp_path / "state.safetensors", {"facts": json.dumps(facts)})
    one_sentence(lambda: Run(tmp_path, tiny), str(tmp_path), "another configuration", "write somewhere else")


# Z*


def test_a_finished_result_comes_back_to_the_bit_and_what_led_to_it_goes(tmp_path):
    z_star, file = torch.randn(5, 3), tmp_path / "deep" / "z_star-1.safetensors"
    assert load_finished(file) is None
    keeper = begun(file)
    keeper.resume({"z": z_star})
    keeper.save(1, now=True)
    save_finished({"z_star": z_star}, file)
    assert torch.equal(load_finished(file)["z_star"], z_star)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "change",
    [
        {"gae_steps": 21},
        {"gae_lr": 0.02},
        {"pos_weight": 1.0},
        {"gae_pairs": 100},
        {"dim": 14},
        {"hidden": 31},
        {"seed": 1},
    ],
)
def test_what_changes_z_star_changes_the_name_of_its_file(ring, tiny, tmp_path, change):
    graph, other = training_graph(*ring), tiny.replace(**change)
    z_star, changed = pretrain_gae(graph, tiny), pretrain_gae(graph, other)
    assert z_star.shape != changed.shape or not torch.equal(z_star, changed)
    assert z_star_file(tmp_path, graph, tiny) != z_star_file(tmp_path, graph, other)


def test_what_leaves_z_star_alone_leaves_the_name_alone(ring, tiny, tmp_path):
    graph = training_graph(*ring)
    other = tiny.replace(delta=3.0, epochs=9, timesteps=20, steps=4, init_std=1.0, max_len=7, aime_pairs=10, lr=0.5)
    assert torch.equal(pretrain_gae(graph, tiny), pretrain_gae(graph, other))
    assert z_star_file(tmp_path, graph, tiny) == z_star_file(tmp_path, graph, other)


def test_another_graph_has_another_file(ring, tiny, tmp_path):
    graph = training_graph(*ring)
    fewer, larger = ItemGraph(graph.n_items, graph.edges[1:]), ItemGraph(graph.n_items + 1, graph.edges)
    assert len({z_star_file(tmp_path, g, tiny) for g in (graph, fewer, larger)}) == 3


def test_pretrained_reads_what_is_there_and_trains_what_is_not(ring, tiny, tmp_path):
    graph, events = training_graph(*ring), []
    one = pretrained(graph, tiny, "cpu", [events.append], tmp_path)
    assert len(events) == 20
    assert torch.equal(pretrained(graph, tiny, "cpu", [events.append], tmp_path), one) and len(events) == 20
    fewer = ItemGraph(graph.n_items, graph.edges[1:])
    other = pretrained(fewer, tiny, "cpu", [events.append], tmp_path)
    assert len(events) == 40 and not torch.equal(one, other)
    pretrained(graph, tiny, "cpu", [events.append])  # without a folder it is trained each time
    assert len(events) == 60 and len(list(tmp_path.iterdir())) == 2


def test_another_z_star_is_refused_and_what_follows_the_diffusion_stage_may_change(ring, tiny, tmp_path, one_sentence):
    z_star = torch.randn(ring[0].n_items, tiny.model.dim, generator=torch.Generator().manual_seed(0))
    fit(*ring, tiny, "cpu", state=tmp_path, z_star=z_star)
    one_sentence(lambda: fit(*ring, tiny, "cpu", state=tmp_path, z_star=2 * z_star), str(tmp_path), "another Z*")
    log = History()
    fit(*ring, tiny.replace(compensator_epochs=0, pair_tile=7), "cpu", [log], state=tmp_path, z_star=z_star)
    assert log.events == []  # nothing was trained again


def test_another_number_of_steps_trains_its_compensator_alone(ring, tiny, tmp_path):
    fit(*ring, tiny, "cpu", state=tmp_path)
    log, other = History(), tiny.replace(steps=3)
    found, fresh = fit(*ring, other, "cpu", [log], state=tmp_path), fit(*ring, other, "cpu")
    assert {event.stage for event in log.events} == {"compensator"} and set(found.compensators) == {3}
    for one, another in ((found.model, fresh.model), (found.compensators[3], fresh.compensators[3])):
        for name, value in one.state_dict().items():
            assert torch.equal(value, another.state_dict()[name]), name


# what can be wrong with a state, and with its disk


@pytest.fixture(scope="module")
def kept(ring, tiny, tmp_path_factory):
    """The state folder of a finished run."""
    folder = tmp_path_factory.mktemp("kept")
    fit(*ring, tiny, "cpu", state=folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("stage", ["z_star", "state", "compensator"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "folder", "header", *range(5)])
def test_a_damaged_state_is_one_sentence(ring, tiny, kept, tmp_path, one_sentence, stage, damage):
    for name, content in kept.items():
        path = tmp_path / name
        if name.startswith(stage):
            rng = np.random.default_rng(damage) if isinstance(damage, int) else None
            flipped = bytearray(content)
            if rng:  # one bit, anywhere
                flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
            texts = {"cut": content[:-100], "empty": b"", "text": b"epoch 3\n" * 9, "header": content[:200]}
            if damage == "folder":
                path.mkdir()
                continue
            content = bytes(flipped) if rng else texts[damage]
        path.write_bytes(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    one_sentence(lambda: fit(*ring, tiny, "cpu", state=tmp_path), str(tmp_path), stage)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_fewer_epochs_than_the_state_has_seen(ring, tiny, tmp_path, one_sentence):
    fit(*ring, tiny.replace(epochs=3, patience=9), "cpu", state=tmp_path)
    fewer = tiny.replace(epochs=2, patience=9)
    one_sentence(lambda: fit(*ring, fewer, "cpu", state=tmp_path), str(tmp_path), "3 epochs", "Config.epochs is 2")


def test_a_state_of_other_processes_is_refused(ring, tiny, tmp_path, one_sentence, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(state, "world", lambda: (0, 2))
        save_finished({"z_star": torch.ones(2)}, tmp_path / "z_star-1.safetensors")
        Run(tmp_path, tiny).go(1)
    one_sentence(lambda: load_finished(tmp_path / "z_star-1.safetensors"), "2 processes", "this one has 1")
    one_sentence(lambda: Run(tmp_path, tiny), "2 processes", "this one has 1", "write somewhere else")


def test_a_full_disk_leaves_the_old_state(tmp_path, tiny, one_sentence, monkeypatch):
    expected = Run(tmp_path, tiny).go(2).everything()

    def full(_, file, **__):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        one_sentence(lambda: Run(tmp_path, tiny).go(3), str(tmp_path), "No space left", "as it was")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert Run(tmp_path, tiny).everything() == expected


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path, tiny):
    dead = tmp_path / "state.safetensors.999999999.new"
    living = tmp_path / f"state.safetensors.{os.getppid()}.new"
    for path in (dead, living):
        path.write_bytes(b"half")
    Run(tmp_path, tiny).go(1)
    assert not dead.exists() and living.exists()


@pytest.fixture(scope="module")
def unbroken(ring, tiny, tmp_path_factory):
    """What to fit; checkpoint and reports of a run that nobody killed. Its last epochs are the best ones."""
    config, log = tiny.replace(dropout=0.2, batch_size=32, compensator_epochs=4), History()
    folder, arguments = tmp_path_factory.mktemp("unbroken"), (*ring, config)
    assert kills.once(arguments, folder, None, folder / "seen")
    fit(*arguments, "cpu", [log])
    assert [log.frame(stage)["NDCG@10"].idxmax() for stage in ("diffusion", "compensator")] == [2, 4]
    return arguments, (folder / checkpoint.FILE).read_bytes(), (folder / "seen").read_text().splitlines()


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_killed_anywhere_a_run_ends_in_the_same_bytes(unbroken, tmp_path, seconds):
    """`python tests/kills.py 60` does it for longer."""
    arguments, whole, _ = unbroken
    found, killed, _ = kills.until_done(arguments, tmp_path / "killed", random.Random(3), seconds, most=5)
    assert found == whole
    assert sum(killed.values()) > 1


@pytest.mark.parametrize("place, after", [("gae", 2), ("diffusion", 2), ("sampling", 2), ("compensator", 25)])
def test_killed_in_any_stage_no_step_is_done_twice_where_each_is_kept(unbroken, tmp_path, place, after):
    """Nor reported otherwise. An epoch of the compensator has fewer than 25 batches, so that one was kept."""
    arguments, whole, reports = unbroken
    assert not kills.once(arguments, tmp_path, (place, after, 0.0), tmp_path / "seen")
    assert kills.once(arguments, tmp_path, None, tmp_path / "seen")
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen == reports and len(seen) == len(set(seen)) == 20 + 2 + 4
    assert (tmp_path / checkpoint.FILE).read_bytes() == whole
