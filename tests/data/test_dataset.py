"""Filtering, encoding, splitting, examples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.config import REPEATS, Config
from dae4rec_core.data.dataset import (
    VALIDATION_USERS,
    Dataset,
    Examples,
    encode,
    filter_before,
    filter_interactions,
    global_time,
    held_out,
    leave_last_out,
    length_grouped_order,
    make_examples,
    prepare,
    time_cuts,
    training_examples,
    training_graph,
    validation_sample,
)
from dae4rec_core.method.model import PAD

Row = tuple[str, str, float]
TOWN = Path(__file__).parents[2] / "data" / "town"
BY_TIME = Config().replace(split="global_time", k_core=2)


def frame_of(sequences: dict[str, str]) -> pd.DataFrame:
    """{"u": "aab"} -> user u visits a, a, b at times 0, 1, 2."""
    rows = [(u, item, time) for u, items in sequences.items() for time, item in enumerate(items)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def visits(frame: pd.DataFrame) -> dict[str, str]:
    return {str(user): "".join(rows["item_id"]) for user, rows in frame.groupby("user_id")}


def words(dataset: Dataset, sequences: list[np.ndarray]) -> list[str]:
    return ["".join(dataset.item_ids[sequence]) for sequence in sequences]


# filtering


def plain_filter(rows: list[Row], k_core: int, repeats: str) -> list[Row]:
    """The same filter as a loop over a list: a user or an item goes, or a repeat, and all is looked at again."""
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    while True:
        kept: list[Row] = []
        for row in rows:
            own = [item for user, item, _ in kept if user == row[0]]
            again = own[-1:] == [row[1]] if repeats == "drop_consecutive" else row[1] in own
            if repeats == "keep" or not again:
                kept.append(row)
        users, items = Counter(row[0] for row in kept), Counter(row[1] for row in kept)
        kept = [row for row in kept if users[row[0]] >= k_core and items[row[1]] >= k_core]
        if len(kept) == len(rows):
            return kept
        rows = kept


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("k_core", [1, 2, 4])
def test_the_filter_equals_a_plain_loop(k_core, repeats):
    rng = np.random.default_rng(1)
    rows = [(f"u{rng.zipf(1.5) % 40}", f"i{rng.zipf(1.3) % 40}", float(time)) for time in range(300)]
    expected = plain_filter(rows, k_core, repeats)
    assert len(expected) > 30 and (len(expected) < len(rows)) == (k_core > 1 or repeats != "keep")
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    found = filter_interactions(frame, k_core, repeats)
    assert list(found.itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize(
    "repeats, u, v",
    [("keep", "aabac", "caa"), ("drop_consecutive", "abac", "ca"), ("first_visits", "abc", "ca")],
)
@pytest.mark.parametrize("kind", ["string", "object"])
def test_repeats(repeats, u, v, kind):
    """Also with the strings that files give, whose comparison with nothing is neither true nor false."""
    frame = frame_of({"u": "aabac", "v": "caa"}).astype({"user_id": kind, "item_id": kind})
    assert visits(filter_interactions(frame, 1, repeats)) == {"u": u, "v": v}


def test_a_repeat_that_the_core_made_goes_too():
    """b and d have one visit. Without b, u's a and a meet. Without d, w's x and x meet, and then x has one visit."""
    frame = frame_of({"u": "abac", "v": "ca", "w": "xdx"})
    found = filter_interactions(frame, 2, "drop_consecutive")
    assert visits(found) == {"u": "ac", "v": "ca"}
    pd.testing.assert_frame_equal(filter_before(frame, 9, 2, "drop_consecutive")[0], found)  # all came before the cut


def test_sorted_by_time_and_stable_where_times_are_equal():
    frame = pd.DataFrame(
        {
            "user_id": list("vuuuuuu"),
            "item_id": list("zfbaedc"),
            "timestamp": [0, 9, 5, 5, 5, 1, 5],
        }
    )
    found = filter_interactions(frame, 1)
    assert visits(found) == {"u": "dbaecf", "v": "z"}
    dataset = encode(found)
    assert "".join(dataset.item_ids[dataset.sequence(0)]) == "dbaecf"


# encoding


def test_encode_round_trip(ring_frame):
    shuffled = filter_interactions(ring_frame.sample(frac=1, random_state=0), 1)
    dataset = encode(shuffled)
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    assert dataset.user_ids[owner].tolist() == ring_frame["user_id"].tolist()
    assert dataset.item_ids[dataset.items].tolist() == ring_frame["item_id"].tolist()
    assert dataset.timestamps.tolist() == ring_frame["timestamp"].tolist()
    assert dataset.user_ids.tolist() == sorted(dataset.user_ids)
    assert dataset.item_ids.tolist() == sorted(dataset.item_ids)
    assert dataset.user_ids[dataset.user_index("u07")] == "u07"


def test_users_may_come_in_any_order_as_long_as_their_own_visits_are_in_order():
    """Two users by turns, 300 visits each: more than a sort that isn't stable leaves alone."""
    items = [f"i{n % 37:02d}" for n in range(600)]
    frame = pd.DataFrame({"user_id": ["v", "u"] * 300, "item_id": items, "timestamp": np.arange(600)})
    dataset = encode(frame)
    for user, visits_of in enumerate((items[1::2], items[::2])):
        assert dataset.item_ids[dataset.sequence(user)].tolist() == visits_of
    assert dataset.timestamps.tolist() == [*range(1, 600, 2), *range(0, 600, 2)]


def test_an_item_is_called_by_its_name_its_description_or_its_id():
    items = pd.DataFrame({"item_id": list("abc"), "name": ["A", None, None], "description": ["x", "B", None]})
    for columns, labels in (
        (["name", "description"], ["A", "B", "c"]),
        (["name"], ["A", "b", "c"]),
        (["description"], ["x", "B", "c"]),
        ([], ["a", "b", "c"]),
    ):
        dataset = encode(frame_of({"u": "abc"}), items[["item_id", *columns]])
        assert [dataset.label(item) for item in range(3)] == labels
        assert list(dataset.attributes) == columns


def test_statistics_by_hand():
    dataset = encode(frame_of({"u": "aab", "v": "c"}))
    # 4 records, 2 users, 3 items: 4 of 6 cells, were no cell met twice
    assert dataset.statistics() == {
        "records": 4,
        "users": 2,
        "items": 3,
        "average length": 2.0,
        "sparsity": pytest.approx(1 / 3),
    }


# splitting


def test_leave_last_out_by_hand():
    dataset = encode(frame_of({"u": "abcd", "v": "ab", "w": "c", "x": "dca"}))
    # positions: u 0-3, v 4-5, w 6, x 7-9
    split = leave_last_out(dataset)
    assert split.test.tolist() == [3, 9] and split.validation.tolist() == [2, 8]
    assert words(dataset, split.training_sequences(dataset)) == ["ab", "ab", "c", "d"]
    assert split.training_targets(dataset).tolist() == [1, 5]
    assert split.unknown == 0


def test_global_time_keeps_the_future_out(ring):
    dataset, last_out = ring
    split = global_time(dataset, 0.2, 0.1)
    times, starts = dataset.timestamps, dataset.offsets[:-1]
    first, second = np.quantile(times, [0.7, 0.9])
    in_training = np.concatenate([np.arange(a, b) for a, b in zip(starts, split.train_end, strict=True)])
    assert (times[in_training] < first).all()
    assert len(in_training) == (times < first).sum()  # and nothing of the past is lost
    assert ((times[split.validation] >= first) & (times[split.validation] < second)).all()
    assert (times[split.test] >= second).all()
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    for answers, cut in ((split.validation, first), (split.test, second)):
        assert len(set(owner[answers])) == len(answers) > 5
        assert (answers > starts[owner[answers]]).all()  # each has a history ...
        assert (times[answers - 1] < cut).all()  # ... and is the first of its period
    assert set(split.test) != set(last_out.test)
    # the point of it: leave-last-out trains on interactions newer than some test answer
    trained = np.concatenate([np.arange(a, b) for a, b in zip(starts, last_out.train_end, strict=True)])
    assert times[trained].max() > times[last_out.test].min()
    assert times[in_training].max() < times[split.test].min()


def test_the_filter_before_a_cut_by_hand():
    rows = [*(("u", item, t) for t, item in enumerate("abc")), *(("v", item, t) for t, item in enumerate("ba"))]
    rows += [("x", "a", 3)]  # too few before the cut: x starts afresh after it
    rows += [("u", "c", 10), ("u", "b", 11), ("u", "d", 20)]  # c had one visit before the cut, d none
    rows += [("x", "b", 12), ("x", "c", 13), ("x", "a", 21), ("z", "b", 22)]  # z is new and needs no minimum
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    kept, unknown = filter_before(frame, 10, 2, "keep")
    assert visits(kept) == {"u": "abb", "v": "ba", "x": "ba", "z": "b"}
    assert unknown == 3  # u's c and d, x's c
    assert visits(filter_before(frame, 10, 2, "first_visits")[0]) == {"u": "ab", "v": "ba", "x": "b", "z": "b"}
    assert visits(filter_before(frame, 10, 2, "drop_consecutive")[0]) == {"u": "ab", "v": "ba", "x": "ba", "z": "b"}
    dataset = encode(kept)
    split = global_time(dataset, cuts=(10, 20))
    assert words(dataset, split.training_sequences(dataset)) == ["ab", "ba", "", ""]
    assert split.validation.tolist() == [2]  # u's later b
    assert split.test.tolist() == [6]  # x's a: since b, in the validation period, x has a history; z has none


@pytest.mark.parametrize("repeats", REPEATS)
def test_nothing_after_the_first_cut_reaches_training(tmp_path, ring_frame, repeats):
    """Later interactions with other users, items and times: the same catalogue, training examples and graph."""
    frame = pd.concat([ring_frame, pd.DataFrame([("u00", "rare", 1_600_000_000)], columns=ring_frame.columns)])
    cut, _ = time_cuts(frame["timestamp"].to_numpy())
    later = (frame["timestamp"] >= cut).to_numpy()
    rng, changed = np.random.default_rng(0), frame.copy()
    changed.loc[later, "user_id"] = rng.choice([f"u{i:02d}" for i in range(0, 80, 2)], later.sum())
    changed.loc[later, "item_id"] = rng.choice(["new", "rare", *(f"i{i:02d}" for i in range(10))], later.sum())
    changed.loc[later, "timestamp"] += rng.integers(1_000_000, size=later.sum())
    found = []
    for table in (frame, changed):
        table.to_csv(tmp_path / "a.csv", index=False)
        dataset, split = prepare(tmp_path / "a.csv", BY_TIME.replace(repeats=repeats))
        train = training_examples(dataset, split, BY_TIME)
        found.append((dataset, split, train, training_graph(dataset, split)))
    (one, split, train, graph), (other, other_split, other_train, other_graph) = found
    assert one.item_ids.tolist() == other.item_ids.tolist() and "rare" not in one.item_ids
    assert len(train) > 200 and torch.equal(train.history, other_train.history)
    assert torch.equal(train.target, other_train.target)
    assert (one.user_ids[train.user] == other.user_ids[other_train.user]).all()
    np.testing.assert_array_equal(graph.edges, other_graph.edges)
    assert split.unknown == 0 and other_split.unknown > 10
    assert len(split.test) != len(other_split.test)  # the change was felt


def test_prepare_obeys_the_split_of_the_configuration(ring_csv, ring):
    """leave_last_out filters all there is, at once; global_time takes its shares from all there is."""
    dataset, split = prepare(ring_csv, BY_TIME)
    by_shares = global_time(ring[0])  # the ring's 2-core keeps everything, in training too
    np.testing.assert_array_equal(split.test, by_shares.test)
    np.testing.assert_array_equal(split.validation, by_shares.validation)
    dataset, split = prepare(ring_csv, Config().replace(k_core=2))
    np.testing.assert_array_equal(dataset.items, ring[0].items)
    np.testing.assert_array_equal(split.test, ring[1].test)
    np.testing.assert_array_equal(split.validation, ring[1].validation)


@pytest.mark.parametrize("repeats, sizes", [("keep", (60_738, 5_000, 600)), ("first_visits", (41_403, 4_168, 600))])
def test_the_bundled_town_has_its_known_sizes(repeats, sizes):
    dataset, split = prepare(TOWN, Config().replace(repeats=repeats))
    assert (len(dataset.items), dataset.n_users, dataset.n_items) == sizes
    assert len(split.test) == len(split.validation) == dataset.n_users


def test_the_graph_holds_training_steps_only():
    dataset = encode(frame_of({"u": "abacd", "v": "bbad"}))
    # training: a b a, and b b; the steps to c, d and a are answers
    assert training_graph(dataset, leave_last_out(dataset)).edges.tolist() == [[0, 1]]


# examples


def test_make_examples_by_hand():
    dataset = encode(frame_of({"u": "abcde", "v": "ed"}))
    examples = make_examples(dataset, np.array([1, 3, 4, 5, 6]), max_len=3)
    assert examples.history.tolist() == [
        [PAD, PAD, 0],
        [0, 1, 2],
        [1, 2, 3],
        [PAD, PAD, PAD],  # the last two are v's: no look at u's items
        [PAD, PAD, 4],
    ]
    assert examples.target.tolist() == [1, 3, 4, 4, 3]
    assert examples.user.tolist() == [0, 0, 0, 1, 1]
    assert examples.seen.shape == (5, 0)


def test_seen_items_are_the_whole_history():
    dataset = encode(frame_of({"u": "abcde", "v": "ed"}))
    examples = make_examples(dataset, np.array([4, 6]), max_len=2, exclude_seen=True)
    assert examples.history.tolist() == [[2, 3], [PAD, 4]]
    assert examples.seen.tolist() == [[0, 1, 2, 3], [PAD, PAD, PAD, 4]]
    assert examples.seen.dtype == torch.long


def test_examples_are_selected_and_moved_with_all_their_parts():
    history = torch.arange(6).reshape(3, 2)
    examples = Examples(history, torch.arange(3), torch.arange(3) + 10, history + 100)
    for rows in (torch.tensor([2, 0]), slice(1, 3)):
        some = examples.select(rows)
        assert torch.equal(some.seen, some.history + 100) and torch.equal(some.user, some.target + 10)
        assert torch.equal(some.target, torch.arange(3)[rows]) and torch.equal(some.history, history[rows])
    moved = examples.to("meta")
    assert {part.device.type for part in vars(moved).values()} == {"meta"}
    plain = Examples(history, torch.arange(3), torch.arange(3))
    assert plain.seen.shape == (3, 0) and plain.select(torch.tensor([1])).seen.shape == (1, 0)


@pytest.fixture(scope="module")
def many() -> Dataset:
    """7,720 users with histories a b c d: a size at which every n-th answer and a cut would drop the last third."""
    return encode(frame_of({f"u{n:04d}": "abcd" for n in range(7_720)}))


@pytest.mark.parametrize("limit", [5_000, 4_999, 3_861, 7_719, 2, 1])
def test_answers_are_thinned_evenly(many, limit):
    examples = held_out(many, leave_last_out(many), "validation", Config(), limit=limit)
    users = examples.user
    assert len(users) == limit and users[0] == 0 and (limit == 1 or users[-1] == 7_719)
    gaps = users.diff()
    assert (gaps >= 1).all() and (limit == 1 or gaps.max() - gaps.min() <= 1)


def test_a_limit_above_the_answers_keeps_all(many):
    split = leave_last_out(many)
    assert len(held_out(many, split, "test", Config(), limit=7_720)) == 7_720
    assert len(held_out(many, split, "test", Config())) == 7_720
    assert len(validation_sample(many, split, Config())) == VALIDATION_USERS == 5_000


def test_held_out_answers_by_hand(one_sentence):
    dataset = encode(frame_of({"u": "abcd", "v": "dcba"}))
    split, config = leave_last_out(dataset), Config().replace(max_len=2, repeats="first_visits")
    validation, test = (held_out(dataset, split, part, config) for part in ("validation", "test"))
    assert validation.target.tolist() == [2, 1] and validation.history.tolist() == [[0, 1], [3, 2]]
    assert test.target.tolist() == [3, 0] and test.history.tolist() == [[1, 2], [2, 1]]
    assert validation.seen.tolist() == [[0, 1], [3, 2]] and test.seen.tolist() == [[0, 1, 2], [3, 2, 1]]
    for repeats in ("keep", "drop_consecutive"):
        assert held_out(dataset, split, "test", config.replace(repeats=repeats)).seen.shape == (2, 0)
    one_sentence(lambda: held_out(dataset, split, "training", config), "'training'", "validation or test")


def test_training_examples_are_all_training_targets(ring):
    dataset, split = ring
    examples = training_examples(dataset, split, Config().replace(max_len=4, repeats="first_visits"))
    expected = [dataset.items[a + 1 : b] for a, b in zip(dataset.offsets[:-1], split.train_end, strict=True)]
    assert examples.target.tolist() == np.concatenate(expected).tolist()
    assert examples.history.shape == (len(examples), 4) and examples.seen.shape == (len(examples), 0)


@pytest.mark.parametrize("n", [160, 150, 1])
def test_length_grouped_order_by_hand(n):
    """Python's sorted keeps the shuffled order of equal lengths; so must the pools, that a seed may mean one order."""
    lengths = torch.randint(1, 4, (n,), generator=torch.Generator().manual_seed(0))
    same = torch.Generator().manual_seed(1)
    shuffled, pools = torch.randperm(n, generator=same).tolist(), []
    for start in range(0, n, 40):  # pools of 5 batches of 8
        pools += sorted(shuffled[start : start + 40], key=lambda row: lengths[row])
    whole = [pools[start : start + 8] for start in range(0, n - n % 8, 8)]
    by_hand = [whole[place] for place in torch.randperm(len(whole), generator=same)]
    by_hand += [pools[n - n % 8 :]] if n % 8 else []
    order, longest = length_grouped_order(lengths, 8, torch.Generator().manual_seed(1), pool=5)
    assert order.tolist() == [row for batch in by_hand for row in batch]
    assert longest == [max(int(lengths[row]) for row in batch) for batch in by_hand]


def test_length_grouped_order_is_a_shuffle_with_little_padding():
    """Every example once, batches of one size, the longest history of each; far less padding than a plain shuffle."""
    lengths = torch.randint(1, 21, (1_000,), generator=torch.Generator().manual_seed(0))
    order, longest = length_grouped_order(lengths, 64, torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(1_000))
    batches = order.split(64)
    assert longest == [int(lengths[rows].max()) for rows in batches]
    places = sum(len(rows) * longest for rows, longest in zip(batches, longest, strict=True))
    assert lengths.sum() / places > 0.85  # a plain shuffle has 0.53
    assert torch.tensor(longest).float().diff().abs().mean() > 2  # the batches themselves are in no order
    again, _ = length_grouped_order(lengths, 64, torch.Generator().manual_seed(1))
    other, _ = length_grouped_order(lengths, 64, torch.Generator().manual_seed(2))
    assert torch.equal(order, again) and not torch.equal(order, other)
    whole, longest = length_grouped_order(lengths, 5_000, torch.Generator().manual_seed(1))
    assert len(whole) == 1_000 and longest == [20]


# what can't be done: one sentence that names what, where, and how to mend it


def test_one_item_users(tmp_path, one_sentence):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,a,1\nv,a,2\nw,a,3\n")
    one_sentence(lambda: prepare(tmp_path / "a.csv", Config().replace(k_core=1)), "three", "longer histories")


def test_no_training_example(one_sentence):
    dataset = encode(frame_of({"u": "abc", "v": "cba"}), name="short")
    one_sentence(lambda: training_examples(dataset, leave_last_out(dataset), Config()), "short", "longer histories")


def test_nothing_left_after_filtering(ring_csv, one_sentence):
    one_sentence(lambda: prepare(ring_csv, Config().replace(k_core=1000)), "1000-core", "lower k_core")


def test_global_time_without_real_times(tmp_path, one_sentence):
    frame = frame_of({f"u{n}": "abc" for n in range(9)}).assign(timestamp=5)
    one_sentence(lambda: global_time(encode(frame, name="flat")), "flat", "leave_last_out")
    frame.to_csv(tmp_path / "flat.csv", index=False)
    one_sentence(lambda: prepare(tmp_path / "flat.csv", BY_TIME), "first time cut", "leave_last_out")
    frame.loc[20:, "timestamp"] = 6  # a period of others: nobody is on both sides
    frame.loc[20:, "user_id"] = "late"
    frame.to_csv(tmp_path / "flat.csv", index=False)
    one_sentence(lambda: prepare(tmp_path / "flat.csv", BY_TIME), "flat", "both sides", "leave_last_out")


def test_unknown_user(ring, one_sentence):
    one_sentence(lambda: ring[0].user_index("nobody"), "'nobody'", "ring", "'u00'", "Give one")
