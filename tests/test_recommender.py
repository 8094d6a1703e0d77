"""A trained model in use: sampling, scoring, recommending for one and for many, and what can be wrong with each."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from padding import pad_histories

from dae4rec_core.data.dataset import held_out
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.model import PAD, DAE4Rec, scores
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.ranking import QueryScorer, evaluate
from dae4rec_core.recommender import SERVED, Recommender
from dae4rec_core.retrieval import ItemIndex
from dae4rec_core.streams import stream
from dae4rec_core.training import fit

NEWCOMER = ["i03", "i04", "i29", "i05"]  # no user of the ring has this history
S, MAX_LEN = 5, 5  # of `tiny`


def dense(scorer: QueryScorer, history: torch.Tensor) -> torch.Tensor:
    """The scores of all items."""
    return scores(scorer.query(history), scorer.items)


@pytest.fixture(scope="module")
def trained_ours(first_visits, ours):
    """All that is not in the paper, trained on first visits."""
    return fit(*first_visits, ours, "cpu")


@pytest.fixture(scope="module")
def histories(ring):
    dataset, _ = ring
    return [dataset.item_ids[dataset.sequence(user)].tolist() for user in range(dataset.n_users)]


# sampling


def test_generate_is_skip_step_sampling_ended_by_the_compensator(trained):
    rows = pad_histories([[1, 2], [3], [4, 9, 4, 28, 0]], MAX_LEN)
    x_T = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    model = trained.model
    with torch.no_grad():
        h = model.condition(rows)
        e_tau1, e_0 = skip_step(model.denoiser, x_T, h, model.alpha_bar, choose_tau(10, S))
        corrected = trained.compensators[S](e_tau1, h)
    torch.testing.assert_close(trained.generate(rows, x_T=x_T), corrected)  # S as trained
    torch.testing.assert_close(trained.generate(rows, S, compensate=False, x_T=x_T), e_0)
    assert not torch.allclose(corrected, e_0)


def test_a_shared_compensator_answers_for_every_s_without_a_chain(ring, tiny, one_sentence):
    """f(0, T, h) + r(h) by hand; no S, no first noise and no seed changes it, and no step is taken."""
    found = fit(*ring, tiny.replace(compensator="shared"), "cpu")
    rows, visited = pad_histories([[1, 2], [3], [4, 9, 4, 28, 0]], MAX_LEN), []
    with torch.no_grad():
        h = found.model.condition(rows)
        own = found.model.denoiser(torch.zeros(3, 16), torch.full((3,), 10), h)
        expected = own + found.shared.rest(found.shared.first(h))
    for n, steps in enumerate((None, 1, 3, 10)):
        noise = torch.Generator().manual_seed(n)
        answer = found.generate(rows, steps, generator=noise, on_step=lambda *step: visited.append(step))
        torch.testing.assert_close(answer, expected)
        assert torch.equal(dense(found.scorer(steps, seed=n), rows), dense(found.scorer(5), rows))
    assert visited == []
    lists = [found.recommend(NEWCOMER, 7, steps, seed=steps) for steps in (1, 4, 10)]
    assert lists[0].equals(lists[1]) and lists[0].equals(lists[2])
    assert not lists[0].equals(found.recommend(NEWCOMER, 7, compensate=False))
    one_sentence(lambda: found.recommend(NEWCOMER, 7, 11), "S is 11", "from 1 to 10")


def test_given_noise_decides_and_on_step_follows(trained):
    rows = pad_histories([[1, 2], [3]], MAX_LEN)
    x_T = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    visited = []
    one = trained.generate(rows, 3, False, x_T=x_T, on_step=lambda i, t, *_: visited.append(t))
    assert torch.equal(one, trained.generate(rows, 3, False, x_T=x_T))
    assert not torch.equal(one, trained.generate(rows, 3, False, x_T=-x_T))
    assert visited == choose_tau(10, 3)[::-1] and visited[0] == 10


def test_the_denoiser_is_not_asked_for_the_step_that_the_compensator_takes(trained, monkeypatch):
    asked, on_step = [], []
    real = DAE4Rec.predictor

    def counted(self, *arguments):
        f = real(self, *arguments)
        return lambda e, t, h: asked.append(t.item()) or f(e, t, h)

    monkeypatch.setattr(DAE4Rec, "predictor", counted)
    trained.generate(pad_histories([[1, 2], [3]], MAX_LEN), S, on_step=lambda i, t, *_: on_step.append(t))
    assert asked == on_step == choose_tau(10, S)[:0:-1]  # all but tau_1


def test_draws_are_the_chains_of_each_history(trained):
    """Each draw alone, by the plain denoiser from the same first noise."""
    rows = pad_histories([[1, 2], [3], [4, 9, 4, 28, 0]], MAX_LEN)
    found = trained.draw(rows, 4, S, generator=torch.Generator().manual_seed(0))
    x_T = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    model = trained.model
    with torch.no_grad():
        h = model.condition(rows)
        for user, draw in ((0, 0), (1, 3), (2, 2)):
            x = x_T[4 * user + draw : 4 * user + draw + 1]
            alone = skip_step(model.denoiser, x, h[user : user + 1], model.alpha_bar, choose_tau(10, S))[1]
            torch.testing.assert_close(found[user, draw], alone[0])


def test_the_distribution_counts_nearest_items_and_names_them(trained):
    found = trained.distribution(NEWCOMER, draws=200, steps=S, seed=3)
    assert found.is_monotonic_decreasing and found.sum() == pytest.approx(1)
    assert sorted(found.index) == sorted(trained.item_ids)
    rows = torch.tensor([[int(item[1:]) for item in NEWCOMER]])
    e_0 = trained.draw(rows, 200, S, generator=stream(3, "sampling"))[0]
    nearest = torch.cdist(e_0, trained.model.embedding.weight.detach()).argmin(1)
    shares = pd.Series(trained.item_ids[nearest.numpy()]).value_counts(normalize=True)
    pd.testing.assert_series_equal(found[found > 0].sort_index(), shares.sort_index(), check_names=False)
    wide = trained.distribution(NEWCOMER, draws=200, steps=S, seed=3, width=3.0)
    assert wide.max() < found.max() and (wide > 0).all()


def test_lists_by_draws_are_the_likeliest_items(trained, histories):
    """The score is the probability, seen items are left out, and what no draw meets comes by the mean draw's score."""
    likely = trained.distribution(NEWCOMER, draws=300, steps=S, width=1.0)
    listed = trained.recommend(NEWCOMER, 8, S, False, draws=300, width=1.0)
    assert listed["item_id"].tolist() == likely.index[:8].tolist()
    np.testing.assert_allclose(listed["score"], likely.iloc[:8], rtol=1e-6)

    few = trained.recommend(NEWCOMER, 30, S, False, draws=3)
    rest = few["item_id"][few["score"] == 0].tolist()
    rows = torch.tensor([[int(item[1:]) for item in NEWCOMER]])
    mean = trained.draw(rows, 3, S, generator=stream(0, "sampling")).mean(1)
    by_mean = trained.item_ids[(mean @ trained.model.embedding.weight.detach().T)[0].argsort(descending=True).numpy()]
    assert len(rest) >= 27 and rest == [item for item in by_mean if item in rest]

    fresh = trained.recommend(NEWCOMER, 20, S, False, exclude_seen=True, draws=50)
    assert not set(fresh["item_id"]) & set(NEWCOMER)
    many = trained.recommend_many([NEWCOMER, *histories[:2]], 5, S, False, draws=50)
    pd.testing.assert_frame_equal(
        many[many["user"] == 0][["item_id", "score"]], trained.recommend(NEWCOMER, 5, S, False, draws=50)
    )


def test_scorers_evaluate_reproducibly_and_differ(trained, ring, tiny):
    examples = held_out(*ring, "test", tiny)
    makers = {
        "compensated": lambda: trained.scorer(),
        "plain": lambda: trained.scorer(compensate=False),
        "S = 1": lambda: trained.scorer(1, compensate=False),
        "other noise": lambda: trained.scorer(purpose="judging"),
        "other seed": lambda: trained.scorer(seed=1),
        "markov": lambda: trained.markov_scorer(),
    }
    tables = {}
    for name, make in makers.items():
        tables[name] = dense(make(), examples.history)
        assert tables[name].shape == (60, 30) and not tables[name].requires_grad
        assert torch.equal(tables[name], dense(make(), examples.history))
        assert evaluate(make(), examples) == evaluate(make(), examples)
    assert len({table.numpy().tobytes() for table in tables.values()}) == len(makers)


def test_a_batch_gets_the_noise_of_its_place(trained, ring, tiny):
    """Batches draw one after the other from one stream, so their size doesn't matter."""
    history = held_out(*ring, "test", tiny).history
    whole, parts = trained.scorer(), trained.scorer()
    found = torch.cat([parts.query(rows).vectors for rows in history.split(17)])
    torch.testing.assert_close(found, whole.query(history).vectors)


# one user


def test_a_new_user_is_served_in_one_call(trained, ring):
    found = trained.recommend(NEWCOMER, k=5)
    assert list(found) == ["item_id", "score"] and len(found) == 5
    assert found["item_id"].is_unique and set(found["item_id"]) <= set(ring[0].item_ids)
    assert found["score"].is_monotonic_decreasing
    assert not found.equals(trained.recommend(["i20"], k=5))  # the history matters
    one = trained.recommend(["i00"] * 9 + NEWCOMER + ["i05"], k=5)
    other = trained.recommend(["i17"] * 4 + NEWCOMER + ["i05"], k=5)
    assert one.equals(other)  # but only its newest max_len = 5 items


def test_recommendations_are_the_best_scores(trained):
    row = dense(trained.scorer(seed=0), pad_histories([[3, 4, 29, 5]], MAX_LEN))[0]
    found = trained.recommend(NEWCOMER, k=30)
    order = row.argsort(descending=True)
    assert found["item_id"].tolist() == trained.item_ids[order.numpy()].tolist()
    torch.testing.assert_close(torch.tensor(found["score"]), row[order])


def test_exclude_seen(trained):
    everything = trained.recommend(NEWCOMER, k=30)
    fresh = trained.recommend(NEWCOMER, k=26, exclude_seen=True)
    assert set(NEWCOMER) <= set(everything["item_id"])
    assert not set(NEWCOMER) & set(fresh["item_id"])
    rest = everything[~everything["item_id"].isin(NEWCOMER)]
    assert fresh["item_id"].tolist() == rest["item_id"].tolist()
    # the whole history is left out, not only what the model sees of it
    long = [f"i{n:02d}" for n in range(20)]
    assert set(trained.recommend(long, k=10, exclude_seen=True)["item_id"]) == {f"i{n}" for n in range(20, 30)}


def test_seen_items_are_left_out_where_the_data_has_first_visits_only(trained, trained_ours):
    assert trained.recommend(NEWCOMER, k=30).equals(trained.recommend(NEWCOMER, k=30, exclude_seen=False))
    fresh = trained_ours.recommend(NEWCOMER, k=26)
    assert fresh.equals(trained_ours.recommend(NEWCOMER, k=26, exclude_seen=True))
    assert not set(NEWCOMER) & set(fresh["item_id"])
    assert set(NEWCOMER) <= set(trained_ours.recommend(NEWCOMER, k=30, exclude_seen=False)["item_id"])
    many = trained_ours.recommend_many([NEWCOMER, ["i00"]], k=26)
    assert not set(NEWCOMER) & set(many.loc[many["user"] == 0, "item_id"])
    assert "i00" not in many.loc[many["user"] == 1, "item_id"].tolist()


@pytest.mark.parametrize("draws", [None, 40])
def test_excluded_items_are_never_listed(trained, draws):
    """The rest keeps its order and its scores, for each of many users."""
    people, gone = [NEWCOMER, ["i03", "i04"]], ["i05", "i11"]
    for seen in (False, True):
        whole = trained.recommend_many(people, 26, exclude_seen=seen, draws=draws)
        rest = trained.recommend_many(people, 20, exclude_seen=seen, draws=draws, exclude=gone)
        kept = whole[~whole["item_id"].isin(gone)].groupby("user").head(20)
        assert rest.drop(columns="rank").equals(kept.drop(columns="rank").reset_index(drop=True))
    one = trained.recommend(NEWCOMER, 20, draws=draws, exclude=gone)
    assert not set(gone) & set(one["item_id"]) and len(one) == 20
    with pytest.warns(UserWarning, match="Of 3 items to exclude 1 are not in this checkpoint's catalogue, 'casino'"):
        assert one.equals(trained.recommend(NEWCOMER, 20, draws=draws, exclude=[*gone, "casino"]))


def test_unknown_items_are_skipped_where_that_is_asked_for(trained, one_sentence):
    people = [["new", *NEWCOMER], ["i03", "newer"], ["i04"]]
    known = [NEWCOMER, ["i03"], ["i04"]]
    assert trained.recommend_many(people, skip_unknown=True).equals(trained.recommend_many(known))
    assert trained.recommend(people[0], skip_unknown=True).equals(trained.recommend(NEWCOMER))
    assert trained.distribution(people[0], 9, skip_unknown=True).equals(trained.distribution(NEWCOMER, 9))
    one_sentence(lambda: trained.recommend_many([["i03"], ["new"]], skip_unknown=True), "user 1 has no item", "leave")


def test_same_seed_same_list_other_seed_other_scores(trained):
    one = trained.recommend(NEWCOMER, seed=3)
    torch.rand(5)  # the global generator plays no part
    assert one.equals(trained.recommend(NEWCOMER, seed=3))
    assert not one["score"].equals(trained.recommend(NEWCOMER, seed=4)["score"])


def test_without_a_compensator_one_sentence_says_what_to_do(trained, one_sentence):
    bare = Recommender(trained.model, trained.item_ids)
    one_sentence(lambda: bare.recommend(NEWCOMER), "S = 5", "train_compensator", "compensate=False")
    plain = bare.recommend(NEWCOMER, compensate=False)
    assert plain.equals(trained.recommend(NEWCOMER, compensate=False))
    assert not plain.equals(trained.recommend(NEWCOMER))


# many users


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_recommend_many_is_the_best_of_the_full_scores(trained, ring, histories, exclude_seen):
    dataset, _ = ring
    found = trained.recommend_many(histories, 6, exclude_seen=exclude_seen, seed=2)
    assert list(found) == ["user", "rank", "item_id", "score"]
    assert found["user"].tolist() == np.repeat(np.arange(60), 6).tolist()
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 60
    indices = [dataset.sequence(user) for user in range(60)]
    table = dense(trained.scorer(seed=2, shared_noise=True), pad_histories(indices, MAX_LEN))
    if exclude_seen:
        for row, seen in zip(table, indices, strict=True):
            row[seen] = -torch.inf
    best = table.topk(6)
    assert found["item_id"].tolist() == trained.item_ids[best.indices.flatten().numpy()].tolist()
    torch.testing.assert_close(torch.tensor(found["score"].to_numpy()), best.values.flatten())


def test_the_list_is_what_evaluation_ranks(trained_ours, first_visits, ours):
    """On first visits, with gains, from one first noise: the share of lists with the answer among ten is HR@10."""
    dataset, split = first_visits
    examples = held_out(dataset, split, "test", ours)
    known = [dataset.item_ids[dataset.sequence(user)[:-1]].tolist() for user in examples.user.tolist()]
    left = dataset.n_items - max(map(len, known))
    lists = trained_ours.recommend_many(known, left)
    answers = dataset.item_ids[examples.target.numpy()]
    lists["hit"] = lists["item_id"] == answers[lists["user"]]
    metrics = evaluate(trained_ours.scorer(shared_noise=True), examples)
    assert left >= 10
    assert lists.loc[lists["rank"] <= 10, "hit"].sum() / len(known) == pytest.approx(metrics["HR@10"], abs=1e-9)


def of_user(lists, user):
    """The list of one user, as `recommend` gives it."""
    return lists.loc[lists["user"] == user, ["item_id", "score"]].reset_index(drop=True)


@pytest.mark.parametrize("dim, hidden", [(16, 32), (24, 48), (24, 33), (30, 60), (34, 17)])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_user_gets_the_same_list_whoever_else_asks(tiny, dim, hidden, steps):
    """To the last rank and the last bit: alone, and at any place among few or many others."""
    torch.manual_seed(0)
    config = tiny.replace(dim=dim, hidden=hidden)
    recommender = Recommender(DAE4Rec(50, config), [f"i{n}" for n in range(50)])
    recommender.compensators[steps] = Compensator(config.model)
    rng = np.random.default_rng(dim)
    users = [[f"i{n}" for n in rng.integers(50, size=rng.integers(1, 9))] for _ in range(SERVED + 9)]
    alone = [recommender.recommend(history, 50, steps, seed=5) for history in users]
    for size in (2, 7, len(users)):
        asking = rng.permutation(len(users))[:size]
        many = recommender.recommend_many([users[user] for user in asking], 50, steps, seed=5)
        assert all(of_user(many, place).equals(alone[user]) for place, user in enumerate(asking))


@pytest.mark.parametrize("how", ["gains", "seen items left out", "index", "draws"])
def test_a_user_gets_the_same_list_however_it_is_made(trained, trained_ours, histories, how):
    recommender = trained_ours if how in ("gains", "seen items left out") else trained
    options = {
        "gains": {"exclude_seen": False},
        "seen items left out": {"exclude_seen": True},
        "index": {"index": ItemIndex(trained.model.item_vectors(), cells=3, probes=2)},
        "draws": {"draws": 9, "compensate": False},
    }[how]
    asking = np.random.default_rng(0).permutation(len(histories))
    many = recommender.recommend_many([histories[user] for user in asking], 6, seed=3, **options)
    for place, user in enumerate(asking[:20]):
        alone = recommender.recommend_many([histories[user]], 6, seed=3, **options)
        assert of_user(many, place).equals(of_user(alone, 0))


def odd(values):
    """A Series whose index is no position."""
    return pd.Series(values, index=range(5, 5 + len(values)))


def test_bytes_that_are_no_text_are_an_unknown_item(trained, one_sentence):
    one_sentence(lambda: trained.recommend(["i01", "\udcf0"]), "place 2 of the history")  # as the C locale gives them


SEQUENCES = [tuple, np.array, pd.Index, odd, lambda values: pd.array(values, dtype="string")]


@pytest.mark.parametrize("kind", SEQUENCES)
def test_histories_may_be_any_sequence(trained, histories, one_sentence, kind):
    many = [kind(history) for history in histories]
    assert trained.recommend_many(histories, 4).equals(trained.recommend_many(many, 4))
    assert trained.recommend_many(histories, 4).equals(trained.recommend_many(odd(many), 4))
    assert trained.recommend(NEWCOMER).equals(trained.recommend(kind(NEWCOMER)))
    assert trained.distribution(NEWCOMER, 9).equals(trained.distribution(kind(NEWCOMER), 9))
    one_sentence(lambda: trained.recommend(kind(["i01", "casino"])), "'casino'", "place 2 of the history")
    words = "'casino'", "place 1 of the history of user 1"
    one_sentence(lambda: trained.recommend_many(odd([kind(["i01"]), kind(["casino"])])), *words)


def test_integer_ids_are_found_as_text(trained):
    numbered = Recommender(trained.model, np.arange(100, 130))
    numbered.compensators = trained.compensators
    one, other = numbered.recommend_many([[103, 104]], 5), numbered.recommend_many([["103", "104"]], 5)
    assert one.equals(other) and one["item_id"].between(100, 129).all()


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_an_exhaustive_index_gives_the_exact_recommendations(trained, histories, exclude_seen):
    index = ItemIndex(trained.model.item_vectors(), cells=3, probes=3)
    exact, found = (trained.recommend_many(histories, 5, exclude_seen=exclude_seen, index=i) for i in (None, index))
    assert found.drop(columns="score").equals(exact.drop(columns="score"))
    np.testing.assert_allclose(found["score"], exact["score"], rtol=1e-5, atol=1e-6)


# bad requests


@pytest.mark.parametrize(
    "histories, options, words",
    [
        ([], {}, ["no histories", "at least one"]),
        ([["i01"], []], {}, ["history of user 1 is empty", "at least one"]),
        ([["i01"], ["i02", "casino"]], {}, ["'casino'", "place 2 of the history of user 1", "30 items", "remove it"]),
        ([["i01"], ["i01", "i02", "i01"]], {"k": 29, "exclude_seen": True}, ["k is 29", "user 1", "only 28"]),
        ([["i01"], ["i02"]], {"k": 0}, ["k is 0", "give a k"]),
        ([["i01"], ["i02"]], {"steps": 4}, ["No compensator", "S = 4"]),
    ],
)
def test_bad_requests_for_many(trained, one_sentence, histories, options, words):
    one_sentence(lambda: trained.recommend_many(histories, **options), *words)


def test_an_index_that_does_not_fit_is_refused(trained, trained_ours, one_sentence):
    index = ItemIndex(torch.randn(29, 16), cells=1)
    one_sentence(lambda: trained.recommend_many([["i01"]], index=index), "(29, 16)", "(30, 16)", "build it from")
    index = ItemIndex(trained_ours.model.item_vectors(), cells=1)
    one_sentence(lambda: trained_ours.recommend_many([["i01"]], index=index), "returns or neighbours", "leave")
    one_sentence(lambda: trained.recommend_many([["i01"]], index=index, draws=5), "give index or draws")


@pytest.mark.parametrize(
    "history, options, words",
    [
        ([], {}, ["history is empty", "at least one"]),
        (["i01", "casino"], {}, ["'casino'", "place 2", "30 items", "'i00'", "remove it"]),
        (["i01"], {"k": 31}, ["k is 31", "30 items", "give a k"]),
        (["i01"], {"k": 0}, ["k is 0", "give a k"]),
        (["i01", "i01", "i02"], {"k": 29, "exclude_seen": True}, ["k is 29", "only 28"]),
        (["i01"], {"k": 31, "compensate": False, "draws": 5}, ["k is 31", "30 items", "give a k"]),
        (["i01"], {"compensate": False, "draws": 0}, ["draws is 0", "at least 1"]),
        (["i01"], {"draws": 10**8 * 10**4}, ["draws is 1,000,000,000,000", "GiB", "give fewer"]),
        ([f"i{n:02d}" for n in range(30)], {"k": 1, "exclude_seen": True}, ["only 0 of 30", "exclude_seen=False"]),
        ([f"i{n:02d}" for n in range(30)], {"exclude_seen": True, "draws": 5}, ["only 0 of 30", "exclude_seen=False"]),
        (["i01"], {"steps": 4}, ["No compensator", "S = 4", "for 5", "compensate=False"]),
        (["i01"], {"steps": 0}, ["S is 0", "from 1 to 10"]),
        (["i01"], {"steps": -2, "compensate": False}, ["S is -2", "from 1 to 10"]),
        (["i01"], {"steps": 11, "compensate": False}, ["S is 11", "T = 10", "from 1 to 10"]),
    ],
)
def test_bad_requests(trained, one_sentence, history, options, words):
    one_sentence(lambda: trained.recommend(history, **options), *words)


@pytest.mark.parametrize(
    "history",
    [
        "i01",
        b"i01",
        None,
        3,
        {"i01", "i02"},
        {"i01": 1},
        pd.DataFrame({"item_id": ["i01"]}),
        np.array("i01"),
        iter("a"),
    ],
)
def test_what_has_no_order_is_no_history(trained, one_sentence, history):
    kind = type(history).__name__
    for call in (trained.recommend, trained.distribution):
        one_sentence(lambda call=call: call(history), f"The history can't be of type {kind}", "give a list of item ids")
    one_sentence(lambda: trained.recommend_many([["i01"], history]), f"history of user 1 can't be of type {kind}")
    one_sentence(lambda: trained.recommend_many(history), f"The histories can't be of type {kind}", "give a list")
    one_sentence(lambda: trained.recommend_many(["i01", "i02"]), "history of user 0 can't be of type str")


@pytest.mark.parametrize("draws", [None, 4])
@pytest.mark.parametrize(
    "name, wrong",
    [
        ("k", [3.0, "3", True, None, np.True_, float("nan")]),
        ("steps", [5.0, "5", True]),
        ("seed", [0.0, "0", None, True, -1]),
        ("compensate", ["no", 0, 1.0]),
        ("exclude_seen", ["no", 0, 1.0]),
        ("width", [None, "1", True, float("nan"), float("inf"), -1.0]),
    ],
)
def test_each_argument_of_another_kind_is_named(trained, one_sentence, name, wrong, draws):
    for value in wrong:
        one_sentence(lambda value=value: trained.recommend(NEWCOMER, **{"draws": draws, name: value}), f"{name} is ")
        if name not in ("k", "exclude_seen", "compensate"):
            one_sentence(lambda value=value: trained.distribution(NEWCOMER, **{name: value}), f"{name} is ")


@pytest.mark.parametrize("draws", [2.5, 3.0, "3", True, False, 0, -1])
def test_draws_of_another_kind_are_named(trained, one_sentence, draws):
    one_sentence(lambda: trained.recommend(NEWCOMER, draws=draws), "draws is ")
    one_sentence(lambda: trained.distribution(NEWCOMER, draws=draws), "draws is ")


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int8])
def test_whole_numbers_of_numpy_are_whole_numbers(trained, kind):
    found = trained.recommend(NEWCOMER, kind(3), kind(S), seed=kind(2), draws=kind(100), width=np.float64(0.5))
    assert found.equals(trained.recommend(NEWCOMER, 3, S, seed=2, draws=100, width=0.5))
    assert trained.recommend(NEWCOMER, kind(3), kind(S)).equals(trained.recommend(NEWCOMER, 3, S))


def test_draws_that_free_memory_can_not_hold_are_refused(trained, one_sentence, monkeypatch):
    """What is needed grows with histories, draws and sizes; the bound is met exactly."""
    rows = pad_histories([[1], [2]], MAX_LEN)
    for free, fits in ((2 * 50 * 32 * 48, True), (2 * 50 * 32 * 48 - 1, False)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        if fits:
            assert trained.draw(rows, 50).shape == (2, 50, 16)
        else:
            one_sentence(lambda: trained.draw(rows, 50), "draws is 50", "free", "give fewer")


def test_draws_go_without_the_compensator_unless_it_is_asked_for(trained):
    """It would remove the cloud."""
    assert trained.recommend(NEWCOMER, draws=90).equals(trained.recommend(NEWCOMER, compensate=False, draws=90))
    many = [trained.recommend_many([NEWCOMER], compensate=c, draws=90, width=0.5) for c in (None, False, True)]
    assert many[0].equals(many[1]) and not many[0].equals(many[2])
    assert trained.recommend(NEWCOMER).equals(trained.recommend(NEWCOMER, compensate=True))


@pytest.mark.parametrize("ask", ["generate", "draw", "distribution", "scorer"])
def test_a_compensate_that_is_neither_on_nor_off_is_refused(trained, one_sentence, ask):
    rows = pad_histories([[1], [2]], MAX_LEN)
    given = {"generate": (rows,), "draw": (rows, 3), "distribution": (NEWCOMER, 3), "scorer": ()}[ask]
    one_sentence(lambda: getattr(trained, ask)(*given, compensate="no"), "compensate is 'no'", "give True, False")


@pytest.mark.parametrize(
    "history", [torch.tensor([[1, 2], [PAD, PAD]]), torch.ones(2, MAX_LEN + 1).long(), torch.tensor([1, 2])]
)
def test_histories_that_no_model_reads_are_refused(trained, one_sentence, history):
    for ask in (trained.generate, lambda rows: trained.draw(rows, 3)):
        one_sentence(lambda ask=ask: ask(history), "history has shape", f"max_len = {MAX_LEN}", "an item in every row")


def test_first_noises_of_another_shape_are_refused(trained, one_sentence):
    rows, d = pad_histories([[1], [2]], MAX_LEN), trained.model.config.model.dim
    one_sentence(lambda: trained.generate(rows, x_T=torch.ones(3, d)), f"x_T has shape (3, {d})", f"(2, {d})")
    one = torch.randn(1, d, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trained.generate(rows, x_T=one), trained.generate(rows, x_T=one.expand(2, -1)))
