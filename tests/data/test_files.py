"""Reading interactions and attributes, and every kind of bad file."""

import bz2
import datetime
import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dae4rec_core import checkpoint
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, encode, prepare
from dae4rec_core.data.files import load_interactions
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender

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
    """And names; in columns of another kind they are missing values, as pandas has it."""
    ids = ["NA", "null", "nan", "NaN", "None", "N/A", "n/a", "<NA>", "#N/A", "NULL"]
    frame = pd.DataFrame({"user_id": ids, "item_id": ids[::-1], "timestamp": range(10), "shop": ["NA", *"abcdefghi"]})
    if name.endswith("parquet"):
        frame.assign(shop=frame["shop"].replace({"NA": None})).to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False)
    (tmp_path / "items.csv").write_text("item_id,name,shop\nNA,Namibia,a\nnull,NA,NA\nnan,1984,b\nNaN,,c\n")
    found, items = load_interactions(tmp_path)
    assert found["user_id"].tolist() == ids and found["item_id"].tolist() == ids[::-1]
    assert found["shop"].isna().tolist() == [True] + 9 * [False]
    assert items is not None and items["item_id"].tolist() == ["NA", "null", "nan", "NaN"]
    assert items["name"].fillna("").tolist() == ["Namibia", "NA", "1984", ""]
    assert items["shop"].isna().tolist() == [False, True, False, False]
    dataset = encode(found, items)
    assert sorted(dataset.item_ids) == sorted(ids)
    labels = [dataset.label(dataset.item_ids.tolist().index(item)) for item in ("NA", "null", "nan", "NaN")]
    assert labels == ["Namibia", "NA", "1984", "NaN"]  # the id where there is no name


def test_a_column_that_parquet_lacks_is_named(tmp_path, one_sentence):
    pd.DataFrame({"user": ["u"], "item_id": ["a"], "timestamp": [1]}).to_parquet(tmp_path / "a.parquet")
    one_sentence(lambda: load_interactions(tmp_path / "a.parquet"), "a.parquet has no column user_id", "it has user,")


def test_an_empty_id_of_parquet_is_missing_as_in_csv(tmp_path, one_sentence):
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", ""], "timestamp": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    one_sentence(lambda: load_interactions(tmp_path / "a.parquet"), "row 2", "item_id is empty")


@pytest.mark.parametrize("name", ["item_id", "shop"])
def test_text_of_parquet_that_is_no_utf8_is_refused(tmp_path, one_sentence, name):
    lengths = pa.py_buffer(np.array([0, 1, 2], dtype=np.int32).tobytes())
    damaged = pa.Array.from_buffers(pa.string(), 2, [None, lengths, pa.py_buffer(b"a\xff")])
    table = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]} | {name: damaged}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    one_sentence(lambda: load_interactions(tmp_path / "a.parquet"), "a.parquet", "Invalid UTF8", "string index 1")


def test_integer_ids_of_parquet_are_those_of_csv(tmp_path):
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 9, 9], "timestamp": [1, 2, 3]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    one, other = [encode(load_interactions(tmp_path / name)[0]) for name in ("a.csv", "a.parquet")]
    assert_same(one, other)
    assert one.item_ids.tolist() == ["10", "9"]


ONE_LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1)
LOOKALIKES = ["NA", "null", "nan", "None", "001", "1", "1.0", "True", "1e3", " a", "a", 'say "a"', "a,b", "2012-04-03"]
ID = st.sampled_from(LOOKALIKES) | ONE_LINE
MOMENTS = st.datetimes(datetime.datetime(1678, 1, 1), datetime.datetime(2261, 12, 31), timezones=st.just(datetime.UTC))
TIMES = [
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    MOMENTS.map(lambda moment: moment.replace(microsecond=0)),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TIMES).flatmap(lambda time: st.lists(st.tuples(ID, ID, time), min_size=1, max_size=8)))
def test_what_was_written_is_read(tmp_path_factory, rows):
    """Any ids on one line and any times of one kind, through CSV, CSV.GZ and Parquet."""
    numbers = [time for *_, time in rows if not isinstance(time, datetime.datetime)]
    assume(not (max(numbers, default=0) >= 1e11 and any(1e8 <= number <= 1e10 for number in numbers)))  # two units
    frame, folder = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), tmp_path_factory.getbasetemp()
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        (frame.to_parquet if name.endswith("parquet") else frame.to_csv)(folder / name, index=False)
        found, _ = load_interactions(folder / name)
        times = [time.timestamp() if isinstance(time, datetime.datetime) else time for *_, time in rows]
        assert found["user_id"].tolist() == [row[0] for row in rows]
        assert found["item_id"].tolist() == [row[1] for row in rows]
        assert found["timestamp"].tolist() == times


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.parquet"])
def test_ids_stay_what_they_are_up_to_the_recommendation(tmp_path, tiny, name):
    """Ids that look like numbers, truth values and nothing are found by user and by item, also in a checkpoint."""
    rows = [(user, item, time) for user in LOOKALIKES for time, item in enumerate(LOOKALIKES)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    (frame.to_parquet if name.endswith("parquet") else frame.to_csv)(tmp_path / name, index=False)
    dataset, _ = prepare(tmp_path, tiny)
    assert dataset.user_ids.tolist() == dataset.item_ids.tolist() == sorted(LOOKALIKES)
    assert [dataset.user_ids[dataset.user_index(user)] for user in LOOKALIKES] == LOOKALIKES
    checkpoint.save(Recommender(make_model(dataset.n_items, tiny), dataset.item_ids), tmp_path / "model")
    loaded = checkpoint.load(tmp_path / "model", "cpu")
    assert loaded.item_ids.tolist() == sorted(LOOKALIKES)
    for item in LOOKALIKES:
        found = loaded.recommend([item], len(LOOKALIKES) - 1, compensate=False, exclude_seen=True)
        assert sorted([item, *found["item_id"]]) == sorted(LOOKALIKES)


@pytest.mark.parametrize(
    "stamps",
    [
        ["1333476000", "1333476030", "1333497600"],
        ["1333476000.0", "1.33347603e9", " 1333497600"],
        ["2012-04-03 18:00", "2012-04-03T18:00:30Z", "2012-04-04"],
        ["20120403T1800", "2012-04-03T20:00:30+02:00", "2012-04-04 00:00:00.000"],
        ["2012-04-03 18:00:00 UTC", "2012-04-03 18:00:30 UTC", "2012-04-04 00:00:00.000 UTC"],
        ["03/04/2012 18:00:00", "3/4/2012 18:00:30", "04/04/2012 00:00:00", "13/04/2012 00:00:00"],
        ["04/03/2012 18:00:00", "4/3/2012 18:00:30", "04/04/2012 00:00:00", "04/13/2012 00:00:00"],
        ["4/3/2012 6:00:00 PM", "4/3/2012 6:00:30 PM", "4/4/2012 12:00:00 AM", "4/13/2012 12:00:00 AM"],
        ["03-Apr-2012 18:00:00", "03-Apr-2012 18:00:30", "04-Apr-2012 00:00:00"],
        ["Tue Apr 03 18:00:00 +0000 2012", "Tue Apr 03 20:00:30 +0200 2012", "Wed Apr 04 00:00:00 +0000 2012"],
    ],
)
def test_times_of_one_form(tmp_path, stamps):
    (tmp_path / "a.csv").write_text(HEAD + "".join(f"u,a,{stamp}\n" for stamp in stamps))
    pd.DataFrame({"user_id": "u", "item_id": "a", "timestamp": stamps}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        times = load_interactions(tmp_path / name)[0]["timestamp"].tolist()
        assert times[:3] == [1333476000, 1333476030, 1333497600] and times[3:] in ([], [1334275200])


def test_an_empty_items_csv_is_told_what_it_needs(tmp_path):
    (tmp_path / "interactions.csv").write_text(HEAD + "u,a,1\nu,b,2\n")
    (tmp_path / "items.csv").write_text("")
    with pytest.raises(ValueError, match=r"items.csv is empty; it needs a header item_id and rows"):
        load_interactions(tmp_path)


def test_attributes_come_from_items_csv_and_from_extra_columns(tmp_path):
    rows = "u,a,0,1\nu,b,1,2\nu,c,2,3\nv,c,0,30\nv,b,1,20\nv,a,2,10\n".replace("\n", ",extra\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp,lat,name\n" + rows)
    (tmp_path / "items.csv").write_text("item_id,name\nc,Café\na,Airport\nz,Zoo\n", encoding="utf-8")
    attributes = prepare(tmp_path, Config().replace(k_core=1))[0].attributes
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress((tmp_path / "items.csv").read_bytes()))
    (tmp_path / "items.csv").unlink()
    pd.testing.assert_frame_equal(prepare(tmp_path, Config().replace(k_core=1))[0].attributes, attributes)
    assert attributes["lat"].tolist() == [1, 2, 3]  # the first value of each item
    assert attributes["name"].fillna("").tolist() == ["Airport", "", "Café"]  # items.csv wins
    assert len(attributes) == 3  # z was never visited


# bad input: one sentence that names what, where, and how to mend it


@pytest.mark.parametrize(
    "text, words",
    [
        ("user,item_id,timestamp\nu,a,1\n", ["no column user_id", "it has user,", "rename"]),
        ("a,b\n1,2\n", ["no column user_id, item_id, timestamp", "it has a, b)", "rename"]),
        (
            "a, user_id,user_id ,item_id,timestamp\n1,u,u,a,1\n",
            ["no column user_id", "' user_id', 'user_id '", "rename"],
        ),
        (HEAD.replace(",", ";") + "u;a;1\n", ["line 1", "separated by semicolons", "commas"]),
        (HEAD.replace(",", "\t") + "u\ta\t1\n", ["line 1", "separated by tabs", "commas"]),
        ("u0,i0,1600000000\nu0,i1,1600000001\n", ["line 1", "looks like data", "field 3, '1600000000'", HEAD.strip()]),
        ("\nu0,i0,2012-04-03 18:00\n", ["line 2", "looks like data", "field 3", "a time", "above it"]),
        ("sep=,\n" + HEAD + "u,a,1\n", ["line 1", "'sep=,'", "remove this line"]),
        ("sep=;\n" + HEAD.replace(",", ";") + "u;a;1\n", ["line 1", "'sep=;'", "remove this line"]),
        ("# made by us, in May\n" + HEAD + "u,a,1\n", ["line 1", "'# made by us, in May'", "remove this line"]),
        ("#user_id,item_id,timestamp\nu,a,1\n", ["no column user_id", "#user_id", "rename"]),
        ('{"user_id":"u","item_id":"a","timestamp":1}\n', ["holds JSON", "give CSV"]),
        ('[\n {"user_id": "u", "item_id": "a", "timestamp": 1}]\n', ["holds JSON", "give CSV"]),
        ("", ["is empty", "header"]),
        (HEAD, ["no rows", "add interactions"]),
        (HEAD + "u,a,2012-01-01\nu,b,yesterday\n", ["line 3", "'yesterday'", "use Unix seconds"]),
        (HEAD + "u,a,1\nu,b,2\n,c,3\n", ["line 4", "user_id", "fill it in"]),
        (HEAD + "u,a,1\nu,,2\n", ["line 3", "item_id", "remove the line"]),
        (HEAD + "u,a,\nu,b,2\n", ["line 2", "timestamp"]),
        (HEAD + "u,a,1\nu,b,2,3,4\n", ["line 3", "is 5 and the header's is 3", "in quotes"]),
        (HEAD + "u,a,1,\nu,b,2,\n", ["line 2", "is 4 and the header's is 3"]),
        (HEAD + "u1,a,1,5\nu2,b,2,6\n", ["line 2", "is 4 and the header's is 3"]),
        ("user_id,item_id,timestamp,shop\nu,a,1,x\na,2,x\n", ["line 3", "is 3 and the header's is 4", "leave nothing"]),
        ("user_id,item_id,timestamp,timestamp\nu,a,1,2\n", ["'timestamp' twice", "rename"]),
        (HEAD + "\n\nu,a,1\n\nu,,2\n", ["line 6", "item_id"]),  # blank lines count
        (HEAD.replace("user_id", "note,user_id") + '"a\nb",u,a,1\n"",u,b,nan\n', ["line 4", "timestamp is empty"]),
        (HEAD + 'u,"a,1\nu,b",2\nu,c,3\n', ["line 2", "holds a line break", "stray quote"]),
        (HEAD + 'u,a,1\nu,"b,2\nu,c,3\n', ["line 3", "quotes don't match"]),
        (HEAD + 'u,a,1\nu,"b"c,2\n', ["line 3", "quotes don't match"]),
        (HEAD + "u,a,1\nu,b,2\0 5\n", ["line 3", "NUL", "remove it"]),
        (HEAD + "u,a,1\nu,b,inf\n", ["line 3", "'inf'", "use Unix seconds"]),
        (HEAD + "u,a,True\nu,b,False\n", ["line 2", "'True'"]),
        (HEAD + "u,a,18:00\nu,b,19:00\n", ["line 2", "'18:00'", "nor can any other"]),
        (HEAD + "u,a,2012-01-01\nu,b,now\n", ["line 3", "'now'", "as the others are"]),
        (HEAD + "u,a,13 Apr 2012\nu,b,now\n", ["line 3", "'now'"]),
        (HEAD + "u,a,2012-01-01\nu,b,2012-01\n", ["line 3", "'2012-01'"]),
        (HEAD + "u,a,2012-01-01 18:00\nu,b,2012-01-01 18:0\n", ["line 3", "'2012-01-01 18:0'"]),
        (HEAD + "u,a,2012-01-01\nu,b,7012-01-01\n", ["line 3", "'7012-01-01'"]),
        (HEAD + "u,a,1333476000\nu,b,2012-01-01\nu,c,1333476000\n", ["line 3", "'2012-01-01'"]),
        (HEAD + "u,a,x333476000\nu,b,1333476000\nu,c,1333476000\n", ["line 2", "'x333476000'"]),
        (HEAD + "u,a,13/04/2012\nu,b,04/13/2012\nu,c,05/05/2012\n", ["line 3", "'04/13/2012'"]),
        (
            HEAD + "u,a,1600000000\nu,b,1600000001000\n",
            ["line 3", "1600000001000 looks like milliseconds", "1600000000 like seconds", "one unit"],
        ),
        (HEAD + "u,a,03/04/2012\nu,b,05/05/2012\n", ["'03/04/2012'", "the day first or", "write them as 2012-04-03"]),
        (HEAD + "u,a,03/04/12\n", ["line 2", "'03/04/12'"]),
        (HEAD + "u,a,2012-04-03\nu,b,14/04/2012\nu,c,15/04/2012\n", ["line 3", "'14/04/2012'"]),
    ],
)
def test_bad_files(tmp_path, one_sentence, text, words):
    (tmp_path / "bad.csv").write_text(text)
    path = tmp_path / "bad.csv"
    one_sentence(lambda: load_interactions(path), str(path), *words)


def archive(**members: str) -> bytes:
    """A ZIP archive whose times hold the byte of a line break; a double underscore stands for a dot in a name."""
    with zipfile.ZipFile(memory := io.BytesIO(), "w") as file:
        for name, text in members.items():
            file.writestr(zipfile.ZipInfo(name.replace("__", "."), (2024, 1, 1, 0, 0, 20)), text)
    return memory.getvalue()


def workbook() -> bytes:
    pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]}).to_excel(memory := io.BytesIO(), index=False)
    return memory.getvalue()


ACCENTS = HEAD + "u,Café,1\n"


@pytest.mark.parametrize("name", ["a.csv", "as it came"])
@pytest.mark.parametrize(
    "own, content, words",
    [
        ("a.xlsx", workbook(), ["workbook of Excel", "save it as CSV"]),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), ["workbook of Excel", "save it as CSV"]),
        ("a.ods", archive(mimetype="application/vnd.oasis"), ["workbook of Excel", "save it as CSV"]),
        ("a.zip", archive(a__csv=ACCENTS), ["is compressed", "unpack it"]),
        ("a.pq", b"PAR1\x15\x04\x15\x0c", ["holds Parquet", "name it .parquet"]),
        ("a.feather", b"ARROW1\0\0\xff", ["holds Arrow or Feather", "save it as"]),
        ("a.csv.bz2", bz2.compress(ACCENTS.encode()), ["is compressed", "unpack it"]),
        ("a.csv.gzip", gzip.compress(ACCENTS.encode()), ["is compressed", "unpack it", "name it .csv.gz"]),
        ("a.txt", ACCENTS.encode("latin-1"), ["not UTF-8", "save it as UTF-8"]),
        ("b.csv", ACCENTS.encode("utf-16"), ["not UTF-8", "save it as UTF-8"]),
        ("a.TXT", ACCENTS.encode("utf-16-le"), ["not UTF-8", "save it as UTF-8"]),
    ],
)
def test_files_of_another_kind(tmp_path, one_sentence, own, content, words, name):
    path = tmp_path / (own if name == "as it came" else name)
    path.write_bytes(content)
    one_sentence(lambda: load_interactions(path), str(path), *words)


@pytest.mark.parametrize("name", ["up.CSV", "up.CSV.GZ", "up.Csv.gZ", "up.PARQUET"])
def test_suffixes_in_capitals(tmp_path, ring_frame, name):
    if name.endswith("PARQUET"):
        ring_frame.to_parquet(tmp_path / name)
    else:
        text = ring_frame.to_csv(index=False).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    ring_frame.to_csv(tmp_path / "low.csv", index=False)
    frames = [load_interactions(tmp_path / which)[0] for which in (name, "low.csv")]
    pd.testing.assert_frame_equal(*frames, check_dtype=False)


def test_blanks_around_the_names_of_columns(tmp_path):
    """They go, but where two names would be one; ids keep theirs."""
    (tmp_path / "interactions.csv").write_text(" user_id, item_id ,\ttimestamp, shop\n007, a,1,x\n")
    (tmp_path / "items.csv").write_text("item_id, name\n a,Airport\n")
    frame, items = load_interactions(tmp_path)
    assert frame.to_dict("list") == {"user_id": ["007"], "item_id": [" a"], "timestamp": [1], "shop": ["x"]}
    assert items is not None and items.to_dict("list") == {"item_id": [" a"], "name": ["Airport"]}
    (tmp_path / "a.csv").write_bytes(b'user_id,"item_id\r",timestamp\r\nu,a,1\r\n')  # a line break is one too
    assert load_interactions(tmp_path / "a.csv")[0].columns.tolist() == ["user_id", "item_id", "timestamp"]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp, user_id\nu,a,1,x\n")
    assert load_interactions(tmp_path)[0].columns.tolist() == ["user_id", "item_id", "timestamp", " user_id"]


@pytest.mark.parametrize(
    "content, refused",
    [
        (b"sku,price\nx,1,2\n", None),  # whatever is wrong with what is no part of the data
        (b"", None),
        (workbook(), None),
        (b"old_item_id,price\nx,1\n", None),
        (b"\xef\xbb\xbfitem_id,name\na,Airport,x\n", "line 2"),
        (b"item_id;name\na;Airport\n", "semicolons"),
        ("name,item_id\nCafé,a\n".encode("latin-1"), "UTF-8"),
        ("item_id,name\na,Café\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_items_of_another_kind_beside_a_file(tmp_path, ring_frame, one_sentence, content, refused):
    """Not read, and said, where they have no item_id; in a folder that was named they are part of the data."""
    ring_frame.to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "items.csv").write_bytes(content)
    one_sentence(lambda: load_interactions(tmp_path), "items.csv")
    if refused:
        one_sentence(lambda: load_interactions(tmp_path / "interactions.csv"), "items.csv", refused)
        return
    account = prepare(tmp_path / "interactions.csv", Config().replace(k_core=2))[0].account
    assert account.described is None and account.unread == "items.csv"
    assert "items.csv beside the file has no column item_id, so it was not read." in str(account)


@pytest.mark.parametrize(
    "text, words",
    [
        ("item,name\na,Airport\n", ["no column item_id", "rename"]),
        ("item_id,name\na,Airport,x\nb,Bar,y\n", ["line 2", "is 3 and the header's is 2"]),
        ("item_id,name\na,Airport\n,Bar\n", ["line 3", "item_id is empty"]),
        ('item_id,name\n"a,Airport\nb",Bar\n', ["line 2", "holds a line break"]),
        ("item_id,name,item_id\na,Airport,b\n", ["'item_id' twice"]),
        ("", ["is empty", "header"]),
    ],
)
def test_bad_items(tmp_path, one_sentence, text, words):
    (tmp_path / "interactions.csv").write_text(HEAD + "u,a,1\n")
    (tmp_path / "items.csv").write_text(text)
    one_sentence(lambda: load_interactions(tmp_path), str(tmp_path / "items.csv"), *words)


@pytest.mark.parametrize(
    "columns, words",
    [
        ({"user_id": [["u"], ["v"]]}, ["user_id is of type list", "text or whole numbers"]),
        ({"item_id": [{"a": 1}, {"a": 2}]}, ["item_id is of type struct"]),
        ({"item_id": [1.0, 2.0]}, ["item_id is of type double"]),
        ({"item_id": [True, False]}, ["item_id is of type bool"]),
        ({"item_id": [b"a", b"b"]}, ["item_id is of type binary"]),
        ({"item_id": ["a", "b\nc"]}, ["row 2", "holds a line break"]),
        ({"item_id": ["a", "a\0"]}, ["row 2", "holds a line break or a NUL"]),
        ({"timestamp": [True, False]}, ["row 1", "'True'"]),
        ({"timestamp": [1.0, np.inf]}, ["row 2", "'inf'"]),
        ({"timestamp": [1.0, np.nan]}, ["row 2", "timestamp is empty"]),
        ({"timestamp": [datetime.time(18), datetime.time(19)]}, ["row 1", "'18:00:00'"]),
        ({"timestamp": [datetime.timedelta(1), datetime.timedelta(2)]}, ["row 1", "'1 days"]),
        ({"timestamp": [[1], [2]]}, ["row 1", "'[1]'"]),
        ({"timestamp": ["2012-04-03", "2012-04-03\0"]}, ["row 2"]),
    ],
)
def test_bad_parquet(tmp_path, one_sentence, columns, words):
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]} | columns)
    frame.to_parquet(tmp_path / "a.parquet")
    one_sentence(lambda: load_interactions(tmp_path / "a.parquet"), "a.parquet", *words)


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


def test_a_parquet_whose_column_names_are_no_text(tmp_path, one_sentence):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "shop": ["x"]}).to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"shop", b"sh\x98p"))
    one_sentence(lambda: load_interactions(path), "a.parquet", "can't be read")


def test_binary_file(tmp_path, one_sentence):
    (tmp_path / "bad.csv").write_bytes(bytes(range(128, 256)) * 5)
    one_sentence(lambda: load_interactions(tmp_path / "bad.csv"), "bad.csv", "can't be read")
