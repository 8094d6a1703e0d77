"""The machinery behind results/: what peers learn from and are judged on, the bootstrap, and one tiny row made again.

Oracles: loops over users and answers, scipy's paired t-test, NumPy, and for one tiny run results/runs.csv itself.
"""

import copy
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from scipy.stats import bootstrap, ttest_rel

from dae4rec_core.config import PRESETS, Config
from dae4rec_core.data import dataset as data_module
from dae4rec_core.data.dataset import held_out, training_graph, validation_sample
from dae4rec_core.experiments.clouds import make_bench, softmax_of
from dae4rec_core.experiments.evaluation import mean_difference, paired_bootstrap, reached
from dae4rec_core.method.model import PAD, scores
from dae4rec_core.method.variants import make_model
from dae4rec_core.ranking import METRICS, hit_rate, ranks
from dae4rec_core.streams import stream
from dae4rec_core.training import fit
from results import __main__ as command
from results import clouds, conformal, cost, grid, maps, peers, search, similarity, tables, understand
from results.controls import CrossEntropyAlone, HeldAnswers, RegressionAlone
from results.peers import PEER_SETTINGS
from results.plan import CONTROLS, TINY, departures, units

RAW, FIRST_VISITS = (Config().replace(repeats=repeats, max_len=5) for repeats in ("keep", "first_visits"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Everything that results writes goes to a temporary folder."""
    for name, path in (("CACHE", "cache"), ("RUNS", "runs.csv"), ("RANKS", "ranks.parquet")):
        monkeypatch.setattr(grid, name, tmp_path / path)
    return tmp_path


def test_every_run_has_a_key_of_its_own_and_a_configuration_that_exists(ring):
    found = units()
    assert len({unit.key for unit in found}) == len(found)
    for unit in found:
        if unit.preset:
            data = grid.config_of(unit, *ring).data
            assert data.repeats == grid.FILTERS[unit.filter.removesuffix(grid.BY_TIME)]
            assert (data.split == "global_time") == (unit.study == "by time")


def test_large_sets_get_fewer_epochs():
    assert grid.epochs_for(100) == grid.EPOCHS
    assert grid.epochs_for(grid.EXAMPLES // 7) == 8
    assert grid.epochs_for(10 * grid.EXAMPLES) == 3


@pytest.mark.slow
def test_a_tiny_row_comes_out_again(tmp_path, monkeypatch):
    """Trains DAE4Rec for one epoch on the bundled town, as `make results` did, and compares with runs.csv."""
    monkeypatch.setattr(grid, "CACHE", tmp_path)
    again = grid.run(TINY, tmp_path).set_index(["variant", "part"])
    runs = grid.read_csv(grid.RUNS)
    stored = runs[runs["study"] == TINY.study].set_index(["variant", "part"])
    assert len(stored) == len(again) == 4
    assert (stored["rules"] == grid.RULES).all() and (stored["settings"] == TINY.settings).all()
    # sums of another machine round differently, which may turn a few of the 4,168 users' ranks
    for metric in METRICS:
        assert (stored[metric] - again[metric]).abs().max() < 1e-3


@pytest.mark.slow
def test_the_stored_tables_agree_with_each_other():
    """runs.csv holds the means of ranks.parquet, and better_than.csv the differences of these means."""
    runs, stored = grid.read_csv(grid.RUNS).fillna({"variant": ""}), pd.read_parquet(grid.RANKS)
    keys = ["data", "filter", "method", "variant", "seed", "rules"]
    hits = hit_rate(*(torch.tensor(stored[name].to_numpy()).long() for name in ("better", "tied")), 10)
    means = stored[keys].assign(hits=hits.numpy()).groupby(keys)["hits"].mean()
    main = runs[(runs["study"] == "main") & (runs["part"] == "test")].set_index(keys)
    assert main.index.is_unique and (main["HR@10"] - means).abs().max() < 1e-5

    means = means.rename("hits").reset_index()
    means["name"] = means["variant"].where(means["method"] == "baselines", means["method"])
    named = [variant for _, variant in (*tables.OURS, *tables.RIVALS)]
    means = means[means["variant"].isin(named)]
    better = pd.read_csv(tables.BETTER).query("metric == 'HR@10'")
    for row in better.to_dict("records"):
        here = means[(means["data"] == row["data"]) & (means["filter"] == row["filter"])]
        one, other = (grid.newest(here[here["name"] == row[name]]) for name in ("method", "rival"))
        assert row["difference"] == pytest.approx(one["hits"].mean() - other["hits"].mean(), abs=1e-4, rel=1e-3)
        assert row["rules"] == min(one["rules"].max(), other["rules"].max())
        assert row["low"] <= row["difference"] <= row["high"]


def test_the_readme_shows_the_main_table():
    text = tables.as_text(grid.read_csv(grid.RUNS))
    assert tables.TABLE.read_text(encoding="utf-8") == text
    assert text in tables.README.read_text(encoding="utf-8")


def row(method: str, hits: float, rules: int, seed: int = 0) -> dict:
    """A row of runs.csv."""
    where = {"study": "main", "data": "town", "filter": "raw", "method": method, "variant": "", "seed": seed}
    return where | {"part": "test", "HR@10": hits, "NDCG@10": hits / 2, "rules": rules}


def test_only_cells_of_older_rules_are_marked():
    old, new = row("SASRec", 0.2, grid.RULES - 1), row("GRU4Rec", 0.1, grid.RULES)
    text = tables.as_text(pd.DataFrame([old, new]))
    assert "| SASRec | 20.0 / 10.0 ° |" in text and "| GRU4Rec | 10.0 / 5.0 |" in text
    assert text.endswith("\n\n° made under older rules, see results/README.md.\n")
    # a mean is of one kind of run: the newer one, as soon as there is one
    text = tables.as_text(pd.DataFrame([old, row("SASRec", 0.4, grid.RULES, seed=1), new]))
    assert "| SASRec | 40.0 / 20.0 |" in text and "°" not in text


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


def test_the_difference_of_means_is_students_from_three_seeds_on():
    """Against scipy's paired t-test; with two seeds, against twenty thousand pairs of readings by two crowds."""
    hits = {"three": ([0.31, 0.33, 0.32], [0.30, 0.31, 0.32]), "two": ([0.32, 0.30], [0.30, 0.26]), "mine": ([0.5], [])}

    def rows(which):
        return pd.DataFrame(
            [
                {"set": name, "seed": seed, "HR@10": value, "users": 1000}
                for name, both in hits.items()
                for seed, value in enumerate(both[which])
            ]
        )

    found = mean_difference(rows(0), rows(1))
    assert set(found.index) == {"three", "two"}
    interval = ttest_rel(*hits["three"]).confidence_interval(0.95)
    difference, reach = found.loc["three"]
    assert (difference - reach, difference + reach) == pytest.approx((interval.low, interval.high))
    crowds = [np.random.default_rng(n).binomial(1000, p, 20_000) / 1000 for n, p in enumerate((0.31, 0.28))]
    assert found.loc["two", "difference"] == pytest.approx(0.03)
    assert found.loc["two", "reach"] == pytest.approx(1.96 * (crowds[0] - crowds[1]).std(), rel=0.02)


def test_the_bootstrap_draws_seeds_too():
    """Against the exact variance of a mean whose users and seeds are drawn again, and scipy's bootstrap of one seed."""
    rng = np.random.default_rng(2)
    taste = rng.normal(size=600)
    ours, theirs = (taste + shift + rng.normal(size=(3, 1)) * 0.3 + rng.normal(size=(3, 600)) for shift in (0.2, 0.0))
    found = paired_bootstrap(ours, theirs, resamples=20_000)
    assert found["difference"] == pytest.approx(ours.mean() - theirs.mean())
    # of users alone, and of seeds: each method's three seed means, drawn three times
    users = (ours.mean(0) - theirs.mean(0)).var() / 600
    seeds = sum(method.mean(1).var() / 3 for method in (ours, theirs))
    width = (found["high"] - found["low"]) / (2 * 1.96)
    assert width == pytest.approx(np.sqrt(users + seeds), rel=0.05)
    assert np.sqrt(users) < 0.5 * width  # users alone would be far too sure
    [alone] = ours[:1] - theirs[:1]
    oracle = bootstrap((alone,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    one = paired_bootstrap(ours[0], theirs[0], resamples=20_000)
    assert (one["low"], one["high"]) == pytest.approx((oracle.low, oracle.high), abs=0.004)
    swapped = paired_bootstrap(ours[::-1], theirs, resamples=20_000)  # seeds of two methods are no pairs
    assert swapped["high"] - swapped["low"] == pytest.approx(found["high"] - found["low"], rel=0.03)


def task_of(data, config, tmp_path, parts=("validation", "test")) -> peers.Task:
    """What a peer reads."""
    peers.write_task(tmp_path / "task.npz", *data, config, parts)
    return peers.read_task(tmp_path / "task.npz")


def test_peers_choose_an_epoch_on_our_validation_users(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "VALIDATION_USERS", 7)
    ours, theirs = validation_sample(*ring, RAW), task_of(ring, RAW, tmp_path).examples[peers.SAMPLE]
    assert len(ours) == 7
    for name in peers.FIELDS:
        assert getattr(theirs, name).tolist() == getattr(ours, name).tolist()


@pytest.mark.parametrize("filter", ["raw", "first visits"])
def test_peers_are_ranked_as_we_are(filter, ring, first_visits, tmp_path, monkeypatch):
    (dataset, split), config = (ring, RAW) if filter == "raw" else (first_visits, FIRST_VISITS)
    table = torch.randint(0, 6, (dataset.n_items,) * 2, generator=torch.Generator().manual_seed(0)).float()

    def score(history):
        return table[history[:, -1]]  # many ties

    peers.write_task(tmp_path / "in.npz", dataset, split, config, ("validation", "test"))
    monkeypatch.setattr(peers, "item_knn", lambda task, settings: (score, {"neighbours": settings["neighbours"]}))
    peers.main("item-kNN", str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), '{"neighbours": 3}')
    found = np.load(tmp_path / "out.npz")
    assert json.loads(str(found["facts"]))["neighbours"] == 3
    for part in ("validation", "test"):
        better, tied, _ = ranks(score, held_out(dataset, split, part, config))
        assert found[f"{part}_better"].tolist() == better.tolist()
        assert found[f"{part}_tied"].tolist() == tied.tolist()
    for user, place in enumerate(split.test):  # by hand: every user of these data is tested
        sequence, answer = dataset.sequence(user), dataset.items[place]
        rankable = set(range(dataset.n_items)) - (set(sequence[:-1]) if filter == "first visits" else set())
        own = table[sequence[-2], answer]
        assert found["test_better"][user] == sum(bool(table[sequence[-2], item] > own) for item in rankable)
        assert found["test_tied"][user] == sum(bool(table[sequence[-2], item] == own) for item in rankable)


class Causal(torch.nn.Module):
    """What `recbole` uses of RecBole's models, around a small GRU."""

    def __init__(self, n_items: int, dim: int = 8):
        super().__init__()
        self.item_embedding = torch.nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.gru = torch.nn.GRU(dim, dim, batch_first=True)

    def loss_fct(self, logits, answers):
        return torch.nn.functional.cross_entropy(logits, answers)

    def gather_indexes(self, output, places):
        return output[torch.arange(len(output)), places]

    def forward(self, items, lengths):
        return self.gather_indexes(self.gru(self.item_embedding(items))[0], lengths - 1)

    def full_sort_predict(self, batch):
        return self(batch["item_list"], batch["length"]) @ self.item_embedding.weight.T


class Recorder(Causal):
    """Learns nothing and writes down what a causal model could see of each answer that it is asked for."""

    def __init__(self, n_items: int):
        super().__init__(n_items, 2)
        self.lessons: list[tuple[list[int], int]] = []
        with torch.no_grad():
            self.item_embedding.weight.copy_(torch.eye(n_items + 1, 2))  # so that logits begin with a model's outputs

    def forward(self, items, lengths):
        self.items = items
        rows, places = torch.meshgrid(*map(torch.arange, items.shape), indexing="ij")
        return self.gather_indexes(torch.stack([rows, places], -1).float(), lengths - 1)

    def loss_fct(self, logits, answers):
        for (row, place), answer in zip(logits[:, :2].int().tolist(), answers.tolist(), strict=True):
            self.lessons.append((self.items[row, : place + 1].tolist(), answer))
        return 0 * self.item_embedding.weight.sum()


SETTINGS = {"seed": 0, "lr": 0.01, "batch_size": 64, "max_len": 5, "epochs": 1, "patience": 2}


@pytest.mark.parametrize("max_len", [1, 3, 5, 50])
def test_peers_learn_every_answer_from_the_newest_items_before_it(max_len, ring, tmp_path, monkeypatch):
    model = Recorder(ring[0].n_items)
    monkeypatch.setattr(peers, "recbole_model", lambda *_: model)
    peers.recbole("SASRec", task_of(ring, RAW.replace(max_len=max_len), tmp_path), SETTINGS | {"max_len": max_len})
    expected = []
    for sequence in ring[1].training_sequences(ring[0]):
        items = [int(item) + 1 for item in sequence]
        expected += [(items[max(0, place - max_len) : place], items[place]) for place in range(1, len(items))]
    assert sorted(model.lessons) == sorted(expected)


def test_peers_stop_as_we_do_and_keep_the_best_epoch(ring, tmp_path, monkeypatch):
    model, weights, judged = Causal(ring[0].n_items), [], []
    values = iter([0.1, 0.3, 0.2, 0.25, 0.9])

    def judge(score, examples):
        weights.append(copy.deepcopy(model.state_dict()))
        judged.append(examples)
        return {"NDCG@10": next(values)}

    monkeypatch.setattr(peers, "recbole_model", lambda *_: model)
    monkeypatch.setattr(peers, "evaluate", judge)
    task = task_of(ring, RAW, tmp_path)
    score, facts = peers.recbole("GRU4Rec", task, SETTINGS | {"epochs": 9})
    assert len(weights) == facts["epochs"] == 4 and facts["epoch"] == 2  # two epochs in a row without a better one
    assert all(examples is task.examples[peers.SAMPLE] for examples in judged)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[1][name]) and (name == "item_embedding.weight") <= value.any()
    assert not torch.equal(weights[1]["gru.weight_hh_l0"], weights[3]["gru.weight_hh_l0"])
    # the scorer asks with the items as they stand, oldest first
    found = score(torch.tensor([[PAD, PAD, 3, 1, 4]]))
    alone = model.full_sort_predict({"item_list": torch.tensor([[4, 2, 5]]), "length": torch.tensor([3])})
    torch.testing.assert_close(found, alone[:, 1:])


def test_a_place_sees_the_items_up_to_itself():
    rows = torch.tensor([[3, 1, 4, 1], [5, 9, 0, 0]])
    found = peers.histories(rows)
    for row, items in enumerate(rows.tolist()):
        for place in range(4):
            seen = items[: place + 1]
            assert found[row, place].tolist() == [0] * (4 - len(seen)) + seen


def near_by_hand(sequences, n_items: int, newest) -> np.ndarray:
    """What neighbours of the newest items (the newest first) gain, by a loop over pairs of visits."""
    counts = np.zeros((n_items, n_items))
    for sequence in sequences:
        for i, j in itertools.combinations(range(len(sequence)), 2):
            if j - i <= 10:
                counts[sequence[i], sequence[j]] += 1 / (j - i)
                counts[sequence[j], sequence[i]] += 1 / (j - i)
    return np.log1p(sum(counts[item] / (k + 1) for k, item in enumerate(newest)))


def test_sasrec_gains_what_ours_does(ring, tmp_path, monkeypatch):
    """The control learns its returns, and is judged with returns and neighbours: by hand for one history."""
    model = Causal(ring[0].n_items)
    monkeypatch.setattr(peers, "recbole_model", lambda *_: model)
    task = task_of(ring, RAW, tmp_path)
    score, _ = peers.recbole("SASRec", task, SETTINGS | {"dim": 8, "gains": True, "epochs": 2})
    assert model.returns.place.any() and model.returns.gate.weight.any()
    history = torch.tensor([[PAD, PAD, 3, 1, 4]])
    items, length = torch.tensor([[4, 2, 5]]), torch.tensor([3])
    h = model(items, length)[0]
    expected = (model.item_embedding.weight[1:] @ h).detach()
    for place, item in ((2, 3), (3, 1), (4, 4)):
        expected[item] += (model.returns.place[place] + model.returns.gate.weight[place] @ h).item()
    expected += torch.from_numpy(near_by_hand(task.sequences, ring[0].n_items, (4, 1, 3))).float()
    torch.testing.assert_close(score(history)[0], expected)


def test_what_is_left_of_the_improved_model_without_diffusion(first_visits, ours):
    """Its loss is gamma times a cross-entropy, PyTorch's own; every S gives the one answer W h + b."""
    model = CrossEntropyAlone(first_visits[0].n_items, ours).eval()
    history, target = torch.tensor([[1, 2, 3], [PAD, 4, 5]]), torch.tensor([4, 6])
    noise = model.draw_noise(2, torch.Generator().manual_seed(0))
    h = model.condition(history)
    cosines = F.normalize(model.denoiser.answer(h), dim=1) @ F.normalize(model.embedding.weight, dim=1).T
    logits = cosines / ours.beyond.temperature  # no item is gained yet: returns start at 0
    torch.testing.assert_close(model(history, target, noise), ours.beyond.rank_weight * F.cross_entropy(logits, target))
    recommender = fit(*first_visits, ours.replace(compensator_epochs=0), "cpu", network=CrossEntropyAlone)
    users = held_out(*first_visits, "test", ours).history
    one, many = (recommender.scorer(steps, False, seed=steps).query(users).vectors for steps in (1, 7))
    torch.testing.assert_close(one, many)


def test_what_is_left_of_the_reference_without_diffusion(ring, tiny):
    """Its loss is PyTorch's squared error of one answer to h, whatever noise is drawn; every S gives that answer."""
    config = tiny.replace(delta=0.0, dropout=0.0)
    model = RegressionAlone(ring[0].n_items, config)
    history, target = torch.tensor([[1, 2, 3], [PAD, 4, 5]]), torch.tensor([4, 6])
    h = model.condition(history)
    answer = model.denoiser(torch.randn_like(h), torch.tensor([3]), h)
    expected = F.mse_loss(answer, model.embedding(target)) * config.model.dim
    for seed in (0, 1):
        torch.testing.assert_close(model(history, target, model.draw_noise(2, stream(seed, "noise"))), expected)
    assert (torch.autograd.grad(answer.sum(), model.denoiser.first.weight)[0][:, : config.model.dim] == 0).all()
    recommender = fit(*ring, tiny.replace(compensator_epochs=0), "cpu", network=RegressionAlone)
    users = held_out(*ring, "test", tiny).history
    one, many = (recommender.scorer(steps, False, seed=steps).query(users).vectors for steps in (1, 7))
    torch.testing.assert_close(one, many)


def test_a_heavy_ranking_term_leaves_nothing_of_the_diffusion_loss(first_visits, ours):
    """Adam sees directions, so a gradient that is the ranking term's but for 10^-6 is L_Diff = 0."""
    weight = CONTROLS["L_Diff = 0"]["changes"]["rank_weight"]
    model = make_model(first_visits[0].n_items, ours.replace(rank_weight=weight)).eval()
    history, target = torch.tensor([[1, 2, 3], [PAD, 4, 5]]), torch.tensor([4, 6])
    noise = model.draw_noise(2, torch.Generator().manual_seed(0))
    last = torch.full((1,), ours.diffusion.timesteps)

    def ranking_term():
        h = model.condition(history)
        return model.ranking_term(model.denoiser(noise.x_T, last, h), history, h, target)

    both, alone = (
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()), allow_unused=False)])
        for loss in (model(history, target, noise), ranking_term())
    )
    assert (both - alone).norm() < 1e-6 * alone.norm()


def test_held_answers_get_no_gradient(ring, tiny):
    """Of an item that is an answer alone, as autograd says; in the paper's model it gets one."""
    history, target = torch.tensor([[1, 2, 3]]), torch.tensor([9])
    for network, moves in ((HeldAnswers, False), (make_model, True)):
        model = network(ring[0].n_items, tiny)
        model(history, target, model.draw_noise(1, torch.Generator().manual_seed(0))).backward()
        assert model.embedding.weight.grad[9].any() == moves and model.embedding.weight.grad[3].any()


def test_departures_meet_in_the_middle():
    """A letter with all departures is the reference, and the other way round, but for S, which a run measures."""
    for end, other, sign in (("letter", "reference", "+"), ("reference", "letter", "-")):
        changes = {}
        for unit in departures("town", "raw", 0):
            if unit.method.startswith(f"{end} {sign}"):
                assert len(unit.changes) == 1
                changes |= unit.changes
        assert PRESETS[end].replace(**changes, steps=10) == PRESETS[other].replace(steps=10)


def test_batches_hold_every_window_once_and_about_as_many_answers_as_asked():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (300,), generator=generator)
    counts = torch.where(torch.rand(300, generator=generator) < 0.5, lengths, 1)
    batches = peers.batches_of_like_length(lengths, counts, 64, generator)
    assert sorted(torch.cat(batches).tolist()) == list(range(300))
    assert max(int(counts[rows].sum()) for rows in batches) <= 64 + 20
    assert len(batches) <= counts.sum() / 64 + 1
    spread = [int(lengths[rows].max() - lengths[rows].min()) for rows in batches]
    assert np.mean(spread) < 3  # of any 20 windows it would be about 17


@pytest.mark.slow
@pytest.mark.skipif(not grid.PEERS.is_file(), reason="`make peers` has not been run")
@pytest.mark.parametrize("method", ["SASRec", "GRU4Rec", "eSASRec", "item-kNN"])
def test_peers_learn_the_ring(method, ring, elsewhere, monkeypatch):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    settings = {"dim": 16, "dropout": 0.0, "lr": 0.01, "batch_size": 64, "max_len": 5, "neighbours": 5}
    unit = grid.Unit("test", "ring", "raw", method, 0, changes=settings)
    found = grid.run(unit, elsewhere, epochs=10)
    assert found["part"].tolist() == ["validation", "test"]
    assert (found["HR@10"] > 0.5).all()  # chance is a third
    if method in search.METHODS:
        short = search.judge(unit, 0.0, elsewhere)
        assert short["epochs"] == 1 and 0 < short["HR@10"] <= 1 and short["cpu_seconds"] > 0
        rows = pd.DataFrame(cost.measure(unit, elsewhere))
        assert rows["seconds"].is_monotonic_increasing and rows["examples"].iloc[-1] > 0
        assert rows["memory"].iloc[-1] > 0.1 and rows["users_per_second"].iloc[-1] > 1


def test_the_cost_of_ours_is_its_epochs(ring, tiny, monkeypatch, elsewhere):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    small = {name: tiny.flat()[name] for name in ("k_core", "max_len", "dim", "hidden", "gae_steps")}
    unit = grid.Unit("main", "ring", "raw", "DAE4Rec", 0, "reference", small | {"epochs": 3, "patience": 9})
    rows = cost.measure(unit, elsewhere)
    n = len(ring[1].training_targets(ring[0]))
    assert [(row["epoch"], row["examples"]) for row in rows] == [(1, n), (2, 2 * n), (3, 3 * n)]
    seconds = [row["seconds"] for row in rows]
    assert 0 < seconds[0] < seconds[1] < seconds[2] and rows[-1]["memory"] > 0.1 and "memory" not in rows[0]


def test_the_goal_is_the_best_of_the_rivals_same_seed():
    """Two seeds of the rival reach 0.2 and 0.4 at best, after two epochs each."""
    curves = {
        ("SASRec", 0): (0.1, 0.2),
        ("SASRec", 1): (0.31, 0.4, 0.35),
        ("ours", 0): (0.1, 0.15, 0.1, 0.5),
        ("ours", 1): (0.1, 0.2),
        ("theirs", 0): (0.2, 0.1),
    }
    rows = [
        {"data": "d", "filter": "f", "method": method, "seed": seed, "epoch": n, "seconds": 10.0 * n, "examples": 5 * n}
        | {"NDCG@10": value, "memory": 1.0 if n == len(curve) else np.nan, "users_per_second": 2.0}
        for (method, seed), curve in curves.items()
        for n, value in enumerate(curve, start=1)
    ]
    found = reached(pd.DataFrame(rows), "SASRec").droplevel(["data", "filter"])
    assert found["seconds"].to_dict() == pytest.approx(
        {(0, "SASRec"): 20, (1, "SASRec"): 20, (0, "ours"): 40, (1, "ours"): np.nan, (0, "theirs"): 10}, nan_ok=True
    )
    assert found.loc[(0, "ours")].to_dict() == {"seconds": 40, "examples": 20, "share": 2}
    assert found.loc[(0, "theirs"), "share"] == 0.5 and np.isnan(found.loc[(1, "ours"), "share"])


@pytest.mark.parametrize("known", ["validation", "test"])
def test_a_leaking_graph_has_the_steps_to_the_answers_and_an_honest_one_has_not(known, ring, elsewhere, monkeypatch):
    """As the units of the study get it, up to Z*: edges by a loop over pairs of items."""
    asked = []

    def pretrained(graph, *_, **__):
        asked.append(graph)
        raise InterruptedError

    monkeypatch.setattr(grid, "pretrained", pretrained)
    [leaking] = [u for u in units() if u.study == "leak" and u.known == known and u.data == "gowalla" and u.seed == 0]
    [honest] = [u for u in units() if u.key == "main-gowalla-first_visits-DAE4Rec-0"]
    for unit in (honest, leaking):
        with pytest.raises(InterruptedError):
            list(grid._readings_of_ours(unit, *ring, None))
    dataset, left_out = ring[0], 1 if known == "validation" else 0
    sequences = [dataset.sequence(user).tolist() for user in range(dataset.n_users)]
    for graph, short in zip(asked, (2, left_out), strict=True):
        steps = {pair for s in sequences for pair in itertools.pairwise(s[: len(s) - short]) if pair[0] != pair[1]}
        assert {tuple(edge) for edge in graph.edges.tolist()} == {(min(pair), max(pair)) for pair in steps}


def test_the_mean_of_samples_is_their_mean(trained, first_visits, ours):
    history = torch.tensor([[1, 2, 3]])
    for recommender in (trained, fit(*first_visits, ours.replace(compensator_epochs=0), "cpu")):
        each = [recommender.scorer(5, compensate=False, seed=seed) for seed in range(3)]
        found = grid.mean_of_samples(recommender, 5, 3)
        mean = sum(scores(one.query(history), one.items) for one in each) / 3
        torch.testing.assert_close(scores(found.query(history), found.items), mean)


def test_a_softmax_without_neighbours_lacks_their_counts_alone(ring, ours, tmp_path):
    """Put back by hand, the counts make the recommender's own softmax again; draws from it are whole shares of it."""
    dataset, split = ring
    recommender = fit(*ring, ours.replace(compensator_epochs=0, repeats="keep"), "cpu")
    bench = make_bench(tmp_path, *ring, recommender.model.config, users=10)
    whole = softmax_of(recommender)(bench.test)
    bare, _, few, many = [p for _, p in clouds.rows_without_neighbours("it", recommender, bench)]
    near = [
        near_by_hand(
            split.training_sequences(dataset), dataset.n_items, [item for item in row[::-1][:3] if item != PAD]
        )
        for row in bench.test.history.tolist()
    ]
    assert np.ptp(near, axis=1).min() > 1
    torch.testing.assert_close((bare.log() + torch.from_numpy(np.stack(near))).softmax(1), whole, rtol=1e-4, atol=1e-6)
    for draws, drawn in ((clouds.DRAWS, few), (clouds.MANY, many)):
        torch.testing.assert_close(draws * drawn, (draws * drawn).round())
        gap = (drawn - bare).abs().max().item()
        assert gap < 5 * (0.25 / draws) ** 0.5  # five standard deviations of a share, at most


class Guess(torch.nn.Module):
    """A denoiser that answers the same whatever it is asked."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, e_t, t, h):
        return self.answer.expand_as(e_t)


def test_a_look_inside_a_model(ring, trained):
    examples = held_out(*ring, "validation", trained.model.config)
    recommender, e = copy.deepcopy(trained), trained.model.embedding.weight.detach()
    e_0 = e[examples.target]
    recommender.model.denoiser = Guess(e_0.mean(0))
    recommender.generate = lambda history, s, compensate, generator: e[history[:, -1]]  # h decides everything
    found = pd.DataFrame(understand.measure(recommender, examples), columns=["what", "x", "value"])
    found = found.set_index("what")["value"]
    e = e.double().numpy()
    singular = np.linalg.svd(e, compute_uv=False)
    np.testing.assert_allclose(found["singular value"], singular / singular[0], rtol=1e-4)
    norms = np.linalg.norm(e, axis=1)
    np.testing.assert_allclose(found["norm"], np.quantile(norms, np.linspace(0, 1, 21)), rtol=0.05)
    np.testing.assert_allclose(found["error"], 1, rtol=1e-5)  # guessing the mean
    np.testing.assert_allclose(found["decided by h"], 1, atol=1e-5)
    distances = cdist(e, e) + np.diag(np.full(len(e), np.inf))
    spread = np.sqrt(((e_0 - e_0.mean(0)) ** 2).sum(1).mean())
    nearest = np.sort(distances.min(1))[(len(e) - 1) // 2]  # torch's median: the lower of the two in the middle
    assert found["width"] == pytest.approx(float(spread / nearest), rel=1e-4)

    recommender.generate = lambda history, s, compensate, generator: torch.randn(len(history), 16, generator=generator)
    found = pd.DataFrame(understand.measure(recommender, examples), columns=["what", "x", "value"])
    assert found.query("what == 'decided by h'")["value"].abs().max() < 0.1  # noise decides everything


def test_the_error_of_the_last_step(ring, trained, monkeypatch):
    [S] = trained.compensators
    monkeypatch.setattr(grid, "S", S)
    one = held_out(*ring, "test", trained.model.config)
    found = understand.last_step(trained, one.select(slice(0, 2)), one)
    assert [(what, x) for what, x, _ in found] == [
        (what, x) for x in (0, 1) for what in ("last step", "last step, compensated")
    ]
    e_0 = trained.model.embedding.weight.detach()[one.target].numpy().astype(float)
    x_T = torch.randn(len(one), trained.model.config.model.dim, generator=stream(0, "sampling"))
    sampled = trained.generate(one.history, S, compensate=True, x_T=x_T).numpy()
    by_hand = ((e_0 - sampled) ** 2).sum() / ((e_0 - e_0.mean(0)) ** 2).sum()
    assert found[-1][2] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("name", search.METHODS)
def test_a_search_asks_for_as_many_possible_trials_of_every_method(name, ring):
    found, method = search.candidates(name), search.METHODS[name]
    assert len(found) == search.TRIALS and found == search.candidates(name)
    assert len({json.dumps(settings) for settings in found}) == search.TRIALS
    if method.preset:
        shortest = {"gae_steps": search.PRETRAINING[0]} if "gae_steps" in method.space else {}
        preset = grid.PRESETS[method.preset].replace(**method.changes, **shortest)
        assert preset.replace(**found[0]) == preset
        for settings in found:
            grid.config_of(grid.Unit("search", "ring", "raw", name, 0, method.preset, settings), *ring)
    else:
        assert found[0] == PEER_SETTINGS[name]


def test_the_pretraining_grows_with_the_seconds():
    first, second, third = (seconds for _, seconds in search.RUNGS)
    settings = {"gae_steps": 100, "dim": 64}
    lengths = [search.in_rung("DAE4Rec", 5, settings, seconds)["gae_steps"] for seconds in (first, second, third)]
    assert lengths == [100, 100 * second / first, 100 * third / first]
    assert search.in_rung("DAE4Rec", 0, settings, second) == {"gae_steps": Config().gae.steps, "dim": 64}
    assert search.in_rung("SASRec", 0, {"dim": 64}, second) == {"dim": 64}


def test_a_search_halves_by_both_sets_and_goes_on(elsewhere, monkeypatch):
    """Values grow with the trial on one set and fall on the other: the geometric mean decides, by hand."""
    monkeypatch.setattr(search, "TABLES", elsewhere / "search")
    monkeypatch.setattr(search, "TRIALS", 6)
    monkeypatch.setattr(search, "RUNGS", ((6, 1), (2, 3)))
    monkeypatch.setattr(search, "candidates", lambda name: [{"lr": n} for n in range(6)])
    ndcg = {"gowalla": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "retailrocket": [0.9, 0.5, 0.4, 0.2, 0.1, 0.0]}
    asked = []

    def judge(unit, seconds, folder):
        asked.append((unit.changes["lr"], seconds, unit.data))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return {"HR@10": 0.5, "NDCG@10": ndcg[unit.data][unit.changes["lr"]], "cpu_seconds": seconds, "epochs": 1}

    monkeypatch.setattr(search, "judge", judge)
    with pytest.raises(KeyboardInterrupt):
        search.search("SASRec", elsewhere)
    with pytest.raises(ValueError, match="isn't over"):
        search.chosen.__wrapped__("SASRec")
    search.search("SASRec", elsewhere)
    both = np.sqrt(np.prod(list(ndcg.values()), axis=0))
    best = np.argsort(-both)[:2].tolist()
    assert asked[-4:] == [(n, 3, data) for n in best for data, _ in search.SETS]
    assert len(asked) == 6 * 2 + 2 * 2 + 1  # what was measured before the stop is not measured again
    found = search.best_first("SASRec", 3)
    assert found.to_dict() == pytest.approx({n: both[n] for n in best}) and found.is_monotonic_decreasing
    assert search.chosen.__wrapped__("SASRec") == {"lr": max(best, key=lambda n: both[n])}


@pytest.mark.parametrize("name", search.METHODS)
def test_the_main_table_has_the_settings_of_the_best_trial(name):
    """As the table of the search says, by hand: the root of the product over both sets; a preset stays when close."""
    table = grid.read_csv(search.table_of(name))
    last = table[table["budget"] == table["budget"].max()]
    values = last.groupby("trial")["NDCG@10"].prod() ** 0.5
    best = 0 if search.METHODS[name].preset and values.get(0, 0) > values.max() - 0.002 else values.idxmax()
    wanted = json.loads(last[last["trial"] == best]["settings"].iloc[0])
    mine = [unit for unit in units() if (unit.study, unit.method) == ("main", name)]
    assert len(mine) == 27
    for unit in mine:
        has = grid.PRESETS[unit.preset].replace(**unit.changes).flat() if unit.preset else unit.changes
        assert wanted.items() <= has.items()


@pytest.mark.parametrize("name", ["DAE4Rec", "DAE4Rec improved"])
def test_the_studies_vary_what_the_main_table_has(name):
    """They start from the presets, so the main table must have these too."""
    assert search.chosen(name) == {}


def test_a_trial_ends_with_its_seconds_and_keeps_the_best_epoch(ring, elsewhere, monkeypatch, tiny):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    few = {name: tiny.flat()[name] for name in ("dim", "hidden", "max_len", "gae_steps", "timesteps", "lr", "k_core")}
    unit = grid.Unit("search", "ring", "raw", "DAE4Rec", 0, "reference", few | {"gae_steps": 20})
    log = []
    monkeypatch.setattr(search, "fit", lambda *data, callbacks: fit(*data, callbacks=[log.append, *callbacks]))
    found = search.judge(unit, 2.0, elsewhere)
    epochs = [event for event in log if event.stage == "diffusion"]
    assert found["epochs"] == len(epochs) >= 1 and {event.stage for event in log} == {"gae", "diffusion"}
    assert found["NDCG@10"] == max(event.metrics["NDCG@10"] for event in epochs)
    assert found["cpu_seconds"] >= 2.0 or len(epochs) > 3  # the seconds ended it, or the patience
    none = search.judge(unit, 0.0, elsewhere)  # over before the pretraining is
    assert none["epochs"] == none["NDCG@10"] == 0


def test_missing_data_is_one_sentence_and_what_needs_none_runs(elsewhere, monkeypatch, capsys):
    assert command.main(["run", "--data", str(elsewhere)]) == 2
    text = capsys.readouterr().err
    assert "gowalla" in text and "--data" in text and text.count("\n") == 1
    calls = []
    monkeypatch.setattr(command, "in_parallel", lambda workers, function, units: calls.extend(units))
    assert command.main(["run", "--data", str(elsewhere), "--study", "tiny"]) == 0
    assert calls == [(TINY, elsewhere)]


def test_a_missing_environment_of_the_peers_is_one_sentence(ring, elsewhere, monkeypatch, one_sentence):
    monkeypatch.setattr(grid, "PEERS", elsewhere / "none")
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("test", "ring", "raw", "SASRec", 0, changes={"max_len": 5})
    one_sentence(lambda: grid.run(unit, elsewhere), "make peers")


def test_a_fresh_clone_goes_on_from_what_is_committed(elsewhere, monkeypatch, ring):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("main", "ring", "raw", "baselines", 0)
    monkeypatch.setattr(tables, "units", lambda: [unit])
    with pytest.raises(FileNotFoundError, match="no finished runs"):
        tables.gather()
    grid.run(unit, elsewhere)
    first, ranked = tables.gather(), pd.read_parquet(grid.RANKS)
    for variant, hits in first[first["part"] == "test"].set_index("variant")["HR@10"].items():
        mine = ranked[ranked["variant"] == variant]
        assert tables.per_user(mine, ring[0].n_items)["HR@10"].mean() == pytest.approx(hits, abs=1e-5)

    shutil.rmtree(grid.CACHE)
    assert unit.done and not unit.cached
    pd.testing.assert_frame_equal(tables.gather(), first, rtol=1e-4)
    pd.testing.assert_frame_equal(pd.read_parquet(grid.RANKS), ranked)
    ranked.assign(rules=grid.RULES - 1).to_parquet(grid.RANKS)
    grid.committed.cache_clear()
    assert not unit.done  # the bootstrap needs the ranks, of the same rules
    grid.RANKS.unlink()
    grid.committed.cache_clear()
    assert not unit.done


def test_rows_of_older_rules_stay_until_their_run_is_made_again(elsewhere, monkeypatch, ring):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    both = [grid.Unit("main", data, "raw", "baselines", 0) for data in ("one", "other")]
    monkeypatch.setattr(tables, "units", lambda: both)
    with monkeypatch.context() as earlier:
        earlier.setattr(grid, "RULES", grid.RULES - 1)
        for unit in both:
            grid.run(unit, elsewhere)
        old = tables.gather()
        assert all(unit.done for unit in both)
    shutil.rmtree(grid.CACHE)
    assert not any(unit.done for unit in both)
    pd.testing.assert_frame_equal(tables.gather(), old)

    grid.run(both[0], elsewhere)
    found, ranked = tables.gather(), pd.read_parquet(grid.RANKS)
    for table in (found, ranked):
        rules = table.groupby("data")["rules"].unique()
        assert rules["one"].tolist() == [grid.RULES] and rules["other"].tolist() == [grid.RULES - 1]
    assert len(found) == len(old)
    assert both[0].done and not both[1].done


def test_a_run_with_other_settings_is_not_done(elsewhere, monkeypatch, ring):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    unit = grid.Unit("test", "ring", "raw", "baselines", 0)
    assert not unit.done
    grid.run(unit, elsewhere)
    assert unit.done
    monkeypatch.setattr(grid, "EPOCHS", 7)
    assert not unit.done


# ---- other similarities for Eq. 10 -------------------------------------------------------------


@pytest.mark.parametrize("kind", similarity.LOST)
def test_each_similarity_that_lost_is_made_from_the_seed(ring, tiny, kind):
    graph = training_graph(*ring)
    z, again, other = (similarity.LOST[kind](graph, tiny.replace(seed=seed)) for seed in (0, 0, 1))
    sides = (2,) if kind == "two sides" else ()
    assert z.shape == (*sides, graph.n_items, tiny.model.dim)
    assert z.isfinite().all() and torch.equal(z, again) and not torch.equal(z, other)


def test_counts_over_chance_are_pmi_under_a_sigmoid(ring, tiny, monkeypatch):
    """The loss that is minimised, at random Z, against NumPy's: c_ij ones and c_i c_j / sum c zeros a pair."""
    graph, found = training_graph(*ring), []
    z = torch.randn(graph.n_items, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(similarity, "gae_of", lambda *_: lambda a_norm: z)
    monkeypatch.setattr(similarity, "learn", lambda module, loss_of, config: found.append(loss_of().item()))
    similarity.over_chance(graph, tiny)
    x, c = (z.double() @ z.double().T).numpy(), graph.counts.toarray()
    chance = np.outer(c.sum(1), c.sum(0)) / c.sum()
    expected = (c * np.logaddexp(0, -x) + chance * np.logaddexp(0, x)).sum() / c.sum()
    assert found == [pytest.approx(expected, rel=1e-5)]


def test_two_sides_have_two_tables_and_eq_10_between_them(ring, tiny):
    """The loss on all pairs, against NumPy; the answers' table is scored, the other one is read."""
    n = training_graph(*ring).n_items
    model = similarity.TwoSides(n, tiny.replace(aime_pairs=n**2))
    target = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(0))
    e, f = model.embedding.weight.detach().double().numpy().reshape(2, n, -1)
    u, v = target.double().numpy()
    gap = 1 / (1 + np.exp(-e @ f.T)) - 1 / (1 + np.exp(-u @ v.T))
    found = similarity.two_sided_aime(model, target, torch.Generator().manual_seed(0))
    assert found.item() == pytest.approx((gap**2).sum() / n, rel=1e-5)
    assert model.n_items == n
    np.testing.assert_allclose(model.item_vectors().detach().numpy(), f, rtol=1e-6)
    np.testing.assert_allclose(model.clean(torch.tensor([3, 0])).detach().numpy(), f[[3, 0]], rtol=1e-6)


def test_a_similarity_is_measured_once_and_kept(ring, tiny, elsewhere, monkeypatch):
    monkeypatch.setattr(grid, "load", lambda *_: ring)
    monkeypatch.setattr(grid, "config_of", lambda unit, *_: tiny.replace(steps=2, aime_pairs=100, **unit.changes))
    monkeypatch.setattr(grid, "S", 2)
    rows = {kind: similarity.cached("ring", "raw", kind, 0, elsewhere) for kind in (*similarity.KEPT, "two sides")}
    assert [len(rows[kind]) for kind in rows] == [6, 6, 1]
    assert not rows["graph"]["HR@10"].equals(rows["counts"]["HR@10"])
    monkeypatch.delattr(similarity, "measure")
    assert similarity.cached("ring", "raw", "counts", 0, elsewhere).equals(rows["counts"])


def test_the_improved_preset_is_ahead_of_reference_on_every_set_as_diagnose_says():
    runs = grid.read_csv(grid.RUNS)
    rows = runs[(runs["study"] == "main") & (runs["part"] == "test") & (runs["variant"] == "S=10 + compensator")]
    means = rows.groupby(["data", "filter", "method"])["NDCG@10"].mean().unstack()
    assert len(means) == 9 and (means["DAE4Rec improved"] > means["DAE4Rec"]).all()


def test_a_stopped_table_goes_on_and_says_nothing_twice(tmp_path):
    paths, asked = (tmp_path / "a.csv", tmp_path / "b.csv"), []

    def measure(data, seed):
        asked.append((data, seed))
        if asked == [("x", 0), ("x", 1)]:
            raise KeyboardInterrupt
        return [{"value": seed + 0.123456}], [{"bin": n} for n in range(2)]

    todo = [("x", 0), ("x", 1), ("y", 0)]
    with pytest.raises(KeyboardInterrupt):
        grid.fill(paths, ("data", "seed"), todo, measure)
    assert len(grid.read_csv(paths[1])) == 2  # what was measured before the stop is there
    # as if it had been killed between the two tables: the first has the unit, the last has not
    half = pd.concat([grid.read_csv(paths[0]), pd.DataFrame([{"data": "x", "seed": 1, "value": 9.0, "rules": 2}])])
    half.to_csv(paths[0], index=False)
    grid.fill(paths, ("data", "seed"), todo, measure)
    assert asked == [("x", 0), ("x", 1), ("x", 1), ("y", 0)]
    found = grid.read_csv(paths[0])
    assert found["value"].tolist() == [0.1235, 1.123, 0.1235] and found["data"].tolist() == ["x", "x", "y"]
    assert len(grid.read_csv(paths[1])) == 6
    grid.fill(paths, ("data", "seed"), todo, measure)
    assert len(asked) == 4


def test_units_of_older_rules_are_measured_again(tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame([{"data": "x", "value": 1.0, "rules": grid.RULES - 1}]).to_csv(path, index=False)
    grid.fill((path,), ("data",), [("x",)], lambda data: [[{"value": 2.0}]])
    assert grid.read_csv(path)[["value", "rules"]].to_numpy().tolist() == [[2.0, grid.RULES]]


def test_another_town_is_named_by_its_knobs_and_made_once(elsewhere):
    name = grid.town_name(0.2, 0.5, 30, seed=1)
    place = grid.place_of(name, elsewhere)
    about = json.loads((place / "town.json").read_text())
    assert (about["again"], about["returns"], about["n_users"], about["seed"]) == (0.2, 0.5, 30, grid.TOWN_SEED + 1)
    before = (place / "town.json").stat().st_mtime_ns
    assert grid.place_of(name, elsewhere) == place and (place / "town.json").stat().st_mtime_ns == before
    assert grid.place_of("gowalla", elsewhere) == elsewhere / "gowalla"
    start = maps.start_of(name, "raw", elsewhere)
    assert [start[knob] for knob in maps.NAMED] == [0.2, 0.5, 30, grid.TOWN_SEED + 1]


def test_a_row_of_the_map_takes_the_counting_that_is_best_on_validation(monkeypatch):
    def run(method, variant, part, hits, rules=grid.RULES):
        return {"method": method, "variant": variant, "part": part, "seed": 0, "HR@10": hits, "rules": rules}

    runs = pd.DataFrame(
        [
            *(run("baselines", "popularity", part, hits) for part, hits in (("validation", 0.2), ("test", 0.3))),
            *(run("baselines", "recency", part, hits) for part, hits in (("validation", 0.3), ("test", 0.1))),
            run("DAE4Rec", tables.FULL, "test", 0.2),
            run("DAE4Rec", "S=10", "test", 0.9),
            run("DAE4Rec", tables.FULL, "test", 0.9, rules=grid.RULES - 1),
            run("SASRec", np.nan, "test", 0.4, rules=grid.RULES - 1),
        ]
    )
    monkeypatch.setattr(maps, "start_of", lambda *where: {})
    row = maps.row_of("x", "raw", runs, None)
    assert (row["best counting"], row["DAE4Rec"], row["SASRec"]) == pytest.approx((0.1, 0.2, 0.4))
    assert row["DAE4Rec over counting"] == pytest.approx(1) and row["DAE4Rec over SASRec"] == pytest.approx(-1)
    assert row["winner"] == "SASRec" and row["rules"] == f"{grid.RULES - 1} and {grid.RULES}"


@pytest.mark.slow
def test_what_counting_says_of_the_town_comes_out_again(tmp_path, monkeypatch):
    """Coverage and sizes of conformal sets by counting and by the law, as conformal.csv has them.

    Two of four methods, because each takes crepes half a minute.
    """
    some, every = ["first-order transitions", "the law"], conformal.methods
    monkeypatch.setattr(conformal, "methods", lambda *given: {k: p for k, p in every(*given).items() if k in some})
    [rows] = conformal.measure("town", "raw", "no training", 0, tmp_path)
    again = pd.DataFrame(rows).astype({"group": str})
    kept = grid.read_csv(conformal.TABLE).astype({"group": str})
    kept = kept[(kept["data"] == "town") & (kept["unit"] == "no training") & kept["method"].isin(some)]
    kept = kept.reset_index(drop=True)
    keys = ["method", "strangeness", "by group", "level", "group", "users"]
    pd.testing.assert_frame_equal(again[keys], kept[keys], check_dtype=False)
    for column in ("coverage", "mean size", "median size"):
        np.testing.assert_allclose(again[column], kept[column], rtol=2e-3, err_msg=column)
