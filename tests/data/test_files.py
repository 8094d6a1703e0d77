"""Reading interactions and attributes, and every kind of bad file."""

import gzip

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, encode, prepare
from dae4rec_core.data.files import load_interactions

HEAD = "user_id,item_id,timestamp\n"


def assert_same(one: Dataset, other: Dataset) -> None:
    for name in ("items", "timestamps", "offsets", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    pd.testing.assert_frame_equal(one.attributes, other.attributes, check_dtype=False)


def test_csv_gz_parquet_and_folder_give_the_same_dataset(tmp_path, ring_frame):
    folder = tmp_path / "ring"
    folder.mkdir()
    frame = ring_frame.assign(price=np.arange(len(ring_frame)) % 7)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(folder / "interactions.csv.gz", index=False)
    config = Config().replace(k_core=2)
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


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.csv.gz", "interactions.parquet"])
def test_ids_that_pandas_takes_for_missing_are_ids(tmp_path, name):
    """In both columns and in items.csv; in all other columns they are missing values, as pandas has it."""
    ids = ["NA", "null", "nan", "NaN", "None", "N/A", "n/a", "<NA>", "#N/A", "NULL"]
    frame = pd.DataFrame({"user_id": ids, "item_id": ids[::-1], "timestamp": range(10), "shop": ["NA", *"abcdefghi"]})
    if name.endswith("parquet"):
        frame.assign(shop=frame["shop"].replace({"NA": None})).to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False)
    (tmp_path / "items.csv").write_text("item_id,name\nNA,Namibia\nnull,NA\n")
    found, items = load_interactions(tmp_path)
    assert found["user_id"].tolist() == ids and found["item_id"].tolist() == ids[::-1]
    assert found["shop"].isna().tolist() == [True] + 9 * [False]
    assert items is not None and items["item_id"].tolist() == ["NA", "null"]
    assert items["name"].isna().tolist() == [False, True]
    dataset = encode(found, items)
    assert sorted(dataset.item_ids) == sorted(ids)
    assert dataset.label(dataset.item_ids.tolist().index("NA")) == "Namibia"


def test_an_empty_id_of_parquet_is_missing_as_in_csv(tmp_path, one_sentence):
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", ""], "timestamp": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    one_sentence(lambda: load_interactions(tmp_path / "a.parquet"), "line 3", "item_id is empty")


def test_integer_ids_of_parquet_are_those_of_csv(tmp_path):
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 9, 9], "timestamp": [1, 2, 3]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    one, other = [encode(load_interactions(tmp_path / name)[0]) for name in ("a.csv", "a.parquet")]
    assert_same(one, other)
    assert one.item_ids.tolist() == ["10", "9"]


def test_dates_and_unix_seconds_give_the_same_times(tmp_path):
    (tmp_path / "dates.csv").write_text(HEAD + "u,a,2012-04-03 18:00\nu,b,2012-04-03T18:00:30Z\nu,c,2012-04-04\n")
    (tmp_path / "seconds.csv").write_text(HEAD + "u,a,1333476000\nu,b,1333476030\nu,c,1333497600\n")
    dates, seconds = [load_interactions(tmp_path / name)[0]["timestamp"] for name in ("dates.csv", "seconds.csv")]
    assert dates.tolist() == seconds.tolist() == [1333476000, 1333476030, 1333497600]


def test_attributes_come_from_items_csv_and_from_extra_columns(tmp_path):
    rows = "u,a,0,1\nu,b,1,2\nu,c,2,3\nv,c,0,30\nv,b,1,20\nv,a,2,10\n".replace("\n", ",extra\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp,lat,name\n" + rows)
    (tmp_path / "items.csv").write_text("item_id,name\nc,Café\na,Airport\nz,Zoo\n", encoding="utf-8")
    attributes = prepare(tmp_path, Config().replace(k_core=1))[0].attributes
    assert attributes["lat"].tolist() == [1, 2, 3]  # the first value of each item
    assert attributes["name"].fillna("").tolist() == ["Airport", "", "Café"]  # items.csv wins
    assert len(attributes) == 3  # z was never visited


# bad input: one sentence that names what, where, and how to mend it


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
        (HEAD + "u,a,1,\nu,b,2,\n", ["longer than its header", "give CSV"]),
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
    (tmp_path / "interactions.csv").write_text(HEAD + "u,a,1\n")
    (tmp_path / "items.csv").write_text("item,name\na,Airport\n")
    one_sentence(lambda: load_interactions(tmp_path), "items.csv", "item_id", "rename")
