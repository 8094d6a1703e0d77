"""Reading, filtering, encoding, splitting, examples, and every kind of bad input."""

import gzip
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.config import Config
from dae4rec_core.data import (
    PAD,
    encode,
    filter_interactions,
    global_time,
    leave_last_out,
    length_grouped_order,
    load_interactions,
    make_examples,
    pad_histories,
    prepare,
)


def frame_of(sequences: dict[str, str]) -> pd.DataFrame:
    """{"u": "aab"} -> user u visits a, a, b at times 0, 1, 2."""
    rows = [(u, item, time) for u, items in sequences.items() for time, item in enumerate(items)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def visits(frame: pd.DataFrame) -> dict[str, str]:
    return {user: "".join(rows["item_id"]) for user, rows in frame.groupby("user_id")}


def assert_same(one, other):
    for name in ("items", "timestamps", "offsets", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    pd.testing.assert_frame_equal(one.attributes, other.attributes, check_dtype=False)


# reading


def test_csv_gz_parquet_and_folder_give_the_same_dataset(tmp_path, ring_frame):
    folder = tmp_path / "ring"
    folder.mkdir()
    frame = ring_frame.assign(price=np.arange(len(ring_frame)) % 7)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(folder / "interactions.csv.gz", index=False)
    config = Config(k_core=2)
    csv, *others = [prepare(tmp_path / name, config)[0] for name in ("a.csv", "a.csv.gz", "a.parquet", "ring")]
    assert csv.n_users == 60 and csv.n_items == 30 and len(csv.items) == len(frame)
    for other in others:
        assert_same(csv, other)
    assert [csv.name, others[-1].name] == ["a", "ring"]
    assert prepare(folder / "interactions.csv.gz", config)[0].name == "ring"


def test_ids_keep_their_leading_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n007,010,1\n07,10,2\n")
    frame, items = load_interactions(tmp_path / "a.csv")
    assert frame["user_id"].tolist() == ["007", "07"] and frame["item_id"].tolist() == ["010", "10"]
    assert items is None


def test_integer_ids_of_parquet_are_those_of_csv(tmp_path):
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 9, 9], "timestamp": [1, 2, 3]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    one, other = [encode(load_interactions(tmp_path / name)[0]) for name in ("a.csv", "a.parquet")]
    assert_same(one, other)
    assert one.item_ids.tolist() == ["10", "9"]


def test_dates_and_unix_seconds_give_the_same_times(tmp_path):
    head = "user_id,item_id,timestamp\n"
    (tmp_path / "dates.csv").write_text(head + "u,a,2012-04-03 18:00\nu,b,2012-04-03T18:00:30Z\nu,c,2012-04-04\n")
    (tmp_path / "seconds.csv").write_text(head + "u,a,1333476000\nu,b,1333476030\nu,c,1333497600\n")
    dates, seconds = [load_interactions(tmp_path / name)[0]["timestamp"] for name in ("dates.csv", "seconds.csv")]
    assert dates.tolist() == seconds.tolist() == [1333476000, 1333476030, 1333497600]


def test_attributes_come_from_items_csv_and_from_extra_columns(tmp_path):
    frame_of({"u": "abc", "v": "cba"}).assign(lat=[1, 2, 3, 30, 20, 10], name="extra").to_csv(
        tmp_path / "interactions.csv", index=False
    )
    (tmp_path / "items.csv").write_text("item_id,name\nc,Cafe\na,Airport\nz,Zoo\n")
    attributes = prepare(tmp_path, Config(k_core=1))[0].attributes
    assert attributes["lat"].tolist() == [1, 2, 3]  # the first value of each item
    assert attributes["name"].fillna("").tolist() == ["Airport", "", "Cafe"]  # items.csv wins
    assert len(attributes) == 3  # z was never visited


# filtering


@pytest.mark.parametrize("k_core", [1, 2, 4])
def test_k_core_equals_a_brute_force_loop(k_core):
    rng = np.random.default_rng(1)
    rows = [(f"u{rng.zipf(1.5) % 40}", f"i{rng.zipf(1.3) % 40}", time) for time in range(300)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    kept = rows
    while True:
        users, items = Counter(r[0] for r in kept), Counter(r[1] for r in kept)
        fewer = [r for r in kept if users[r[0]] >= k_core and items[r[1]] >= k_core]
        if len(fewer) == len(kept):
            break
        kept = fewer
    assert k_core == 1 or 0 < len(kept) < len(rows)
    found = filter_interactions(frame, k_core)
    assert sorted(found.itertuples(index=False, name=None)) == sorted(kept)


@pytest.mark.parametrize(
    "repeats, u, v",
    [("keep", "aabac", "caa"), ("drop_consecutive", "abac", "ca"), ("first_visits", "abc", "ca")],
)
def test_repeats(repeats, u, v):
    found = filter_interactions(frame_of({"u": "aabac", "v": "caa"}), 1, repeats)
    assert visits(found) == {"u": u, "v": v}


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


def test_statistics_by_hand():
    dataset = encode(frame_of({"u": "aab", "v": "c"}))
    # 4 records, 2 users, 3 items; the pairs are ua, ub, vc: 3 of 6
    assert dataset.statistics() == {
        "records": 4,
        "users": 2,
        "items": 3,
        "average length": 2.0,
        "sparsity": 0.5,
    }


# splitting


def test_leave_last_out_by_hand():
    dataset = encode(frame_of({"u": "abcd", "v": "ab", "w": "c", "x": "dca"}))
    # positions: u 0-3, v 4-5, w 6, x 7-9
    split = leave_last_out(dataset)
    assert split.test.tolist() == [3, 9] and split.validation.tolist() == [2, 8]
    training = ["".join(dataset.item_ids[s]) for s in split.training_sequences(dataset)]
    assert training == ["ab", "ab", "c", "d"]
    assert split.training_targets(dataset).tolist() == [1, 5]


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


def test_prepare_obeys_the_split_of_the_configuration(ring_csv):
    dataset, split = prepare(ring_csv, Config(k_core=2, split="global_time"))
    np.testing.assert_array_equal(split.test, global_time(dataset).test)
    dataset, split = prepare(ring_csv, Config(k_core=2))
    np.testing.assert_array_equal(split.test, leave_last_out(dataset).test)


# examples


def test_make_examples_by_hand():
    dataset = encode(frame_of({"u": "abcde", "v": "ed"}))
    examples = make_examples(dataset, np.array([1, 3, 4, 6]), max_len=3)
    assert examples.history.tolist() == [
        [PAD, PAD, 0],
        [0, 1, 2],
        [1, 2, 3],
        [PAD, PAD, 4],  # the last is v's: no look at u's items
    ]
    assert examples.target.tolist() == [1, 3, 4, 3]
    assert examples.user.tolist() == [0, 0, 0, 1]


def test_pad_histories_keeps_the_newest():
    assert pad_histories([[1, 2, 3], [4], []], 2).tolist() == [[2, 3], [PAD, 4], [PAD, PAD]]


def test_batches_drop_and_repeat_nothing(ring):
    dataset, split = ring
    examples = make_examples(dataset, split.training_targets(dataset), 4)
    assert len(examples) % 100 != 0
    plain = list(examples.batches(100))
    assert torch.equal(torch.cat([b.history for b in plain]), examples.history)
    assert torch.equal(torch.cat([b.target for b in plain]), examples.target)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    mixed = list(examples.batches(100, order))
    assert torch.equal(torch.cat([b.target for b in mixed]), examples.target[order])
    assert torch.equal(torch.cat([b.history for b in mixed]), examples.history[order])


# bad input: one sentence that names what, where, and how to mend it

HEAD = "user_id,item_id,timestamp\n"


@pytest.mark.parametrize(
    "text, words",
    [
        ("user,item_id,timestamp\nu,a,1\n", ["no column user_id", "it has user,", "rename"]),
        ("a;b\n1;2\n", ["no column user_id, item_id, timestamp", "rename"]),
        ("", ["is empty", "header"]),
        (HEAD, ["no rows", "add interactions"]),
        (HEAD + "u,a,2012-01-01\nu,b,yesterday\n", ["line 3", "'yesterday'", "use Unix seconds"]),
        (HEAD + "u,a,1\nu,b,2\n,c,3\n", ["line 4", "user_id", "fill it in"]),
        (HEAD + "u,a,1\nu,,2\n", ["line 3", "item_id", "remove the line"]),
        (HEAD + "u,a,\nu,b,2\n", ["line 2", "timestamp"]),
        (HEAD + "u,a,1\nu,b,2,3,4\n", ["can't be read", "give CSV"]),
    ],
)
def test_bad_files(tmp_path, one_sentence, text, words):
    (tmp_path / "bad.csv").write_text(text)
    path = tmp_path / "bad.csv"
    one_sentence(lambda: load_interactions(path), str(path), *words)


def test_missing_files(tmp_path, one_sentence):
    one_sentence(lambda: load_interactions(tmp_path / "no.csv"), "no.csv", "check the path")
    one_sentence(lambda: load_interactions(tmp_path), str(tmp_path), "interactions.csv", "put one")


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "flipped bytes"])
def test_damaged_gz(tmp_path, ring_frame, one_sentence, damage):
    whole = gzip.compress(ring_frame.to_csv(index=False).encode())
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 40])
    path = tmp_path / "bad.csv.gz"
    path.write_bytes({"truncated": whole[:middle], "not gzip": b"user_id", "flipped bytes": flipped}[damage])
    one_sentence(lambda: load_interactions(path), "bad.csv.gz", "can't be read", "give CSV")


def test_damaged_parquet(tmp_path, one_sentence):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing else")
    one_sentence(lambda: load_interactions(tmp_path / "bad.parquet"), "bad.parquet", "give CSV")


def test_binary_file(tmp_path, one_sentence):
    (tmp_path / "bad.csv").write_bytes(bytes(range(128, 256)) * 5)
    one_sentence(lambda: load_interactions(tmp_path / "bad.csv"), "bad.csv", "can't be read")


def test_items_csv_without_item_id(tmp_path, one_sentence):
    frame_of({"u": "abc"}).to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "items.csv").write_text("item,name\na,Airport\n")
    one_sentence(lambda: load_interactions(tmp_path), "items.csv", "item_id", "rename")


def test_one_item_users(tmp_path, one_sentence):
    (tmp_path / "a.csv").write_text(HEAD + "u,a,1\nv,a,2\nw,a,3\n")
    one_sentence(lambda: prepare(tmp_path / "a.csv", Config(k_core=1)), "three", "longer histories")


def test_nothing_left_after_filtering(ring_csv, one_sentence):
    one_sentence(lambda: prepare(ring_csv, Config(k_core=1000)), "1000-core", "lower k_core")


def test_global_time_without_real_times(one_sentence):
    dataset = encode(frame_of({f"u{n}": "abc" for n in range(9)}).assign(timestamp=5), name="flat")
    one_sentence(lambda: global_time(dataset), "flat", "leave_last_out")


def test_unknown_user(ring, one_sentence):
    one_sentence(lambda: ring[0].user_index("nobody"), "'nobody'", "ring", "'u00'", "Give one")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"delta": -1.0}, ["Config.delta", "-1.0", "0 or more"]),
        ({"repeats": "some"}, ["Config.repeats", "'some'", "first_visits"]),
        ({"dim": 15}, ["Config.dim", "15", "even"]),
        ({"timesteps": 0}, ["Config.timesteps", "at least 1"]),
        ({"steps": 11, "timesteps": 10}, ["(S) is 11", "(T) = 10", "at most T"]),
        ({"steps": -1}, ["Config.steps", "-1"]),
        ({"dropout": 1.0}, ["Config.dropout", "below 1"]),
        ({"aime_pairs": -1}, ["Config.aime_pairs", "0 or more"]),
        ({"pair_precision": "half"}, ["Config.pair_precision", "'half'", "bfloat16"]),
    ],
)
def test_bad_configuration(one_sentence, change, words):
    one_sentence(lambda: Config(**change), *words)


def test_configuration_round_trip(one_sentence):
    config = Config(delta=3.0, schedule="cosine", positions=False)
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict({**config.to_dict(), "pair_rows": 256}) == config  # a checkpoint of an earlier version
    assert Config(timesteps=1).sampling_steps == 1 and Config(timesteps=9).sampling_steps == 4
    assert Config(timesteps=9, steps=9).sampling_steps == 9
    one_sentence(lambda: Config.from_dict({"dims": 3}), "no field dims", "its fields are")


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
