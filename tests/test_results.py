"""The machinery behind results/: peers' data, the bootstrap, and one tiny row made again from nothing.

Oracles: scipy's paired t-test, a loop, and results/runs.csv itself for the row that is run again.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel

from dae4rec_core.data import PAD, Examples, make_examples
from dae4rec_core.evaluation import paired_bootstrap
from dae4rec_core.ranking import METRICS, user_ranks
from results import __main__ as command
from results import grid, peers, search, tables, understand
from results.plan import TINY, units

RESULTS = Path(__file__).parents[1] / "results"


def test_every_run_has_a_key_of_its_own_and_a_preset_that_exists():
    found = units()
    assert len({unit.key for unit in found}) == len(found)
    for unit in found:
        assert not unit.preset or unit.preset in grid.PRESETS
        assert unit.filter in grid.FILTERS


def test_large_sets_get_fewer_epochs():
    assert grid.epochs_for(100) == grid.EPOCHS
    assert grid.epochs_for(grid.EXAMPLES // 7) == 8
    assert grid.epochs_for(10 * grid.EXAMPLES) == 3


def test_a_tiny_row_comes_out_again(tmp_path, monkeypatch):
    """Trains DAE4Rec for one epoch on the bundled town, as `make results` did, and compares with runs.csv."""
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    again = grid.run(TINY, tmp_path).set_index(["variant", "part"])
    runs = pd.read_csv(grid.FOLDER / "runs.csv", keep_default_na=False, na_values=[""])
    stored = runs[runs["study"] == TINY.study].set_index(["variant", "part"])
    assert len(stored) == len(again) == 4
    # sums of another machine's threads round differently, which may turn a few of the 4,168 users' ranks
    for metric in METRICS:
        assert (stored[metric] - again[metric]).abs().max() < 3e-3
    assert TINY.done


def test_the_stored_tables_hold_what_they_should():
    runs = pd.read_csv(RESULTS / "runs.csv")
    assert runs[list(METRICS)].stack().between(0, 1).all()
    assert (runs["HR@10"] <= runs["HR@20"] + 1e-9).all() and (runs["NDCG@10"] <= runs["HR@10"] + 1e-9).all()
    keys = ["study", "data", "filter", "method", "variant", "seed", "part"]
    assert not runs.duplicated(keys).any()
    better = pd.read_csv(RESULTS / "better_than.csv")
    assert (better["low"] <= better["difference"]).all() and (better["difference"] <= better["high"]).all()


def test_the_readme_shows_the_main_table():
    runs = pd.read_csv(RESULTS / "runs.csv")
    text = tables.as_text(runs)
    assert (RESULTS / "table.md").read_text() == text
    assert text in (RESULTS.parent / "README.md").read_text()


def test_the_bootstrap_agrees_with_a_paired_t_test():
    rng = np.random.default_rng(1)
    theirs = pd.Series(rng.random(400))
    ours = theirs + 0.02 + 0.2 * pd.Series(rng.standard_normal(400))
    found, oracle = paired_bootstrap(ours, theirs), ttest_rel(ours, theirs, alternative="greater")
    interval = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found["difference"] == pytest.approx((ours - theirs).mean())
    assert found["low"] == pytest.approx(interval.low, abs=0.003)
    assert found["high"] == pytest.approx(interval.high, abs=0.003)
    assert found["p"] == pytest.approx(oracle.pvalue, abs=0.01)
    assert paired_bootstrap(ours, ours)["p"] == 1.0


def peer_data(ring, tmp_path, filter="raw"):
    dataset, split = ring
    grid.write_peer_input(tmp_path / "in.npz", dataset, split, filter, 5)
    return np.load(tmp_path / "in.npz")


def test_training_windows_hold_every_answer_once_with_the_item_before_it(ring, tmp_path):
    data = peer_data(ring, tmp_path)
    pairs = [
        (int(a), int(b)) for window in peers.training_windows(data, 4) for a, b in zip(window, window[1:], strict=False)
    ]
    expected = []
    for items in np.split(data["train_items"], data["train_offsets"][1:-1]):
        expected += [(a + 1, b + 1) for a, b in zip(items, items[1:], strict=False)]
    assert sorted(pairs) == sorted(expected)
    assert len(expected) == len(ring[1].training_targets(ring[0]))


def test_batches_hold_every_row_once_and_about_as_many_answers_as_asked():
    torch.manual_seed(0)
    lengths = torch.randint(1, 20, (300,))
    batches = peers.batches_of_like_length(lengths, 64)
    assert sorted(torch.cat(batches).tolist()) == list(range(300))
    assert max(int(lengths[rows].sum()) for rows in batches) <= 64 + 20
    assert max(int(lengths[rows].max() - lengths[rows].min()) for rows in batches) <= 5


@pytest.mark.parametrize("filter", ["raw", "first visits"])
def test_peers_rank_as_we_do(filter, ring, tmp_path):
    data = peer_data(ring, tmp_path, filter)
    torch.manual_seed(0)
    table = torch.randint(0, 6, (int(data["n_items"]),) * 2)  # scores by the newest item; many ties
    examples = make_examples(ring[0], ring[1].test, 5)
    examples = Examples(examples.history, (examples.history[:, -1] + 1) % len(table), examples.user)
    answers = dict(data) | {"test_target": examples.target.numpy()}
    seen = grid.seen_items(*ring, "test", filter)
    seen = seen.masked_fill(seen == examples.target.unsqueeze(1), PAD)  # an answer must be rankable
    answers["test_seen"] = seen.numpy()
    theirs = peers.ranks_of(lambda history: table[history[:, -1]], answers, "test", slice(None))
    ours = user_ranks(lambda history: table[history[:, -1]].float(), examples, seen)
    for one, other in zip(ours[:2], theirs, strict=True):
        assert one.tolist() == other.tolist()
    scores = table[examples.history[:, -1]]
    for user in range(len(scores)):  # by hand
        rankable = [item for item in range(len(table)) if item not in seen[user].tolist()]
        own = scores[user, examples.target[user]]
        assert int(ours[0][user]) == sum(bool(scores[user, item] > own) for item in rankable)


@pytest.mark.skipif(not grid.PEERS.is_file(), reason="`make peers` has not been run")
@pytest.mark.parametrize("method", ["SASRec", "GRU4Rec", "item-kNN"])
def test_peers_learn_the_ring(method, ring, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    settings = {"dim": 16, "dropout": 0.0, "lr": 0.01, "batch_size": 64, "max_len": 5, "neighbours": 5}
    unit = grid.Unit("test", "ring", "raw", method, 0, changes=settings)
    found = grid.run(unit, tmp_path, epochs=10)
    assert (found["HR@10"] > 0.5).all()  # chance is a third


def test_the_mean_of_samples_is_their_mean(trained):
    history = torch.tensor([[1, 2, 3]])
    each = [trained.scorer(10, compensate=False, seed=seed)(history) for seed in range(3)]
    found = grid.mean_of_samples(trained, 10, 3)(history)
    torch.testing.assert_close(found, sum(each) / 3)


def test_a_look_inside_a_model(ring, trained):
    dataset, split = ring
    config = trained.model.config
    found = pd.DataFrame(
        understand.measure(trained, make_examples(dataset, split.validation, config.max_len)),
        columns=["what", "x", "value"],
    )
    e = trained.model.embedding.weight.detach().double()
    singular = np.linalg.svd(e.numpy(), compute_uv=False)
    np.testing.assert_allclose(found.query("what == 'singular value'")["value"], singular / singular[0], rtol=1e-4)
    norms = found.query("what == 'norm'")["value"]
    assert norms.is_monotonic_increasing and norms.max() == pytest.approx(float(e.norm(dim=1).max()), rel=1e-5)
    assert found.query("what == 'decided by h'")["value"].between(-0.2, 1).all()


def test_the_error_of_the_last_step(ring, trained, monkeypatch):
    dataset, split = ring
    [S] = trained.compensators
    monkeypatch.setattr(grid, "S", S)
    one = make_examples(dataset, split.test, trained.model.config.max_len)
    found = understand.last_step(trained, one.select(slice(0, 2)), one)
    assert [(what, x) for what, x, _ in found] == [
        (what, x) for x in (0, 1) for what in ("last step", "last step, compensated")
    ]
    e0 = trained.model.embedding.weight.detach()[one.target].numpy().astype(float)
    x_T = torch.randn(len(one), trained.model.config.dim, generator=torch.Generator().manual_seed(0))
    sampled = trained.generate(one.history, S, compensate=True, x_T=x_T).numpy()
    by_hand = ((e0 - sampled) ** 2).sum() / ((e0 - e0.mean(0)) ** 2).sum()
    assert found[-1][2] == pytest.approx(by_hand, rel=1e-4)


def test_a_search_resumes_and_logs_its_trials(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    monkeypatch.setattr(grid, "validation_figure", lambda unit, _: {"HR@10": 0.5, "NDCG@10": unit.changes["lr"]})
    assert len(search.search("DAE4Rec", tmp_path, trials=2)) == 2
    table = search.search("DAE4Rec", tmp_path, trials=3)
    assert table["trial"].tolist() == [0, 1, 2]
    first = grid.PRESETS[search.METHODS["DAE4Rec"][0]]
    assert f"dim = {first.dim}" in table["parameters"][0]
    assert table["NDCG@10"][0] == pytest.approx(first.lr)


def test_missing_data_is_one_sentence(tmp_path, capsys):
    assert command.main(["run", "--data", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert "gowalla" in text and "--data" in text and text.count("\n") == 1


def test_a_missing_environment_of_the_peers_is_one_sentence(ring, tmp_path, monkeypatch, one_sentence):
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    monkeypatch.setattr(grid, "PEERS", tmp_path / "none")
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("test", "ring", "raw", "SASRec", 0, changes={"max_len": 5})
    one_sentence(lambda: grid.run(unit, tmp_path), "make peers")


def test_a_fresh_clone_goes_on_from_what_is_committed(tmp_path, monkeypatch, ring):
    for name, path in (("CACHE", "cache"), ("RUNS", "runs.csv"), ("RANKS", "ranks.parquet")):
        monkeypatch.setattr(grid, name, tmp_path / path)
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("main", "ring", "raw", "baselines", 0)
    monkeypatch.setattr(tables, "units", lambda: [unit])
    with pytest.raises(FileNotFoundError, match="no finished runs"):
        tables.gather()
    grid.run(unit, tmp_path)
    first, ranks = tables.gather(), pd.read_parquet(grid.RANKS)
    for variant, hits in first[first["part"] == "test"].set_index("variant")["HR@10"].items():
        mine = ranks[ranks["variant"] == variant]
        assert tables.per_user(mine, ring[0].n_items)["HR@10"].mean() == pytest.approx(hits, abs=1e-5)

    shutil.rmtree(grid.CACHE)
    assert unit.done and not unit.cached
    pd.testing.assert_frame_equal(tables.gather(), first, rtol=1e-4)
    pd.testing.assert_frame_equal(pd.read_parquet(grid.RANKS), ranks)
    grid.RANKS.unlink()
    grid.committed.cache_clear()
    assert not unit.done  # the bootstrap needs the ranks


def test_a_run_with_other_settings_is_not_done(tmp_path, monkeypatch, ring):
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("test", "ring", "raw", "baselines", 0)
    assert not unit.done
    grid.run(unit, tmp_path)
    assert unit.done
    monkeypatch.setattr(grid, "EPOCHS", 7)
    assert not unit.done
