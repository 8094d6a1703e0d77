"""Files that hold far more than they seem to, or more than the memory takes, are refused before they are read."""

import gzip
import zipfile
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from dae4rec_core.data import sources
from dae4rec_core.data.files import load_interactions
from dae4rec_core.data.sizes import FOLD, ROOM

ROW = b"u,a,1\n"
MANY = ROW * (2 * ROOM // len(ROW))


@pytest.fixture
def unread(monkeypatch):
    """Nothing may be read as a table."""

    def read(*_, **__):
        raise AssertionError("it was read")

    for name in ("read_csv", "read_parquet", "read_excel"):
        monkeypatch.setattr(pd, name, read)


def bomb(path):
    """A file under 1% of what it holds."""
    if path.suffix.lower() == ".gz":
        path.write_bytes(gzip.compress(b"user_id,item_id,timestamp\n" + MANY))
    elif path.suffix.lower() == ".parquet":
        pd.DataFrame({"user_id": "u", "item_id": "a", "timestamp": [1] * (ROOM // 10)}).to_parquet(path)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name in ("checkins.dat", "venues.dat", "xl/worksheets/sheet1.xml"):
                file.writestr(name, MANY)
    assert path.stat().st_size < 2 * ROOM / FOLD
    return path


@pytest.mark.parametrize("name", ["interactions.csv.gz", "interactions.parquet", "a.CSV.GZ", "a.PARQUET"])
def test_a_bomb_is_no_data(tmp_path, unread, one_sentence, name):
    one_sentence(lambda: load_interactions(bomb(tmp_path / name)), name, "100 times its own size")
    if name.islower():  # in a folder the names are looked for as they are written
        one_sentence(lambda: load_interactions(tmp_path), name, "100 times its own size")


def test_a_bomb_beside_the_data(tmp_path, ring_csv, one_sentence):
    bomb(tmp_path / "items.csv.gz")
    one_sentence(lambda: load_interactions(ring_csv), "items.csv.gz", "100 times its own size")


@pytest.mark.parametrize(
    "reader, name", [("read_gowalla", "a.txt.gz"), ("read_retailrocket", "a.csv.gz"), ("read_online_retail", "a.xlsx")]
)
def test_a_bomb_is_no_original(tmp_path, unread, one_sentence, reader, name):
    file = bomb(tmp_path / name)
    one_sentence(lambda: getattr(sources, reader)(file), name, "100 times its own size")


def test_a_bomb_in_an_archive_is_not_unpacked(tmp_path, one_sentence):
    file = bomb(tmp_path / "fsq.zip")
    one_sentence(lambda: sources.convert("foursquare", tmp_path / "out", file), "fsq.zip", "100 times its own size")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name, file", [("foursquare", "fsq.zip"), ("gowalla", "loc-gowalla_totalCheckins.txt.gz")])
def test_a_bomb_put_there_by_hand_is_not_read_to_its_end(tmp_path, one_sentence, name, file):
    bomb(tmp_path / file)
    one_sentence(lambda: sources.fetch(name, tmp_path), file, "100 times its own size")
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_table_that_the_memory_does_not_hold(tmp_path, monkeypatch, ring_frame, one_sentence, suffix):
    """With 50 kB free; with 1 MB it is read."""
    file = tmp_path / f"ring{suffix}"
    ring_frame.to_parquet(file) if suffix == ".parquet" else ring_frame.to_csv(file, index=False)
    free = SimpleNamespace(available=50_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    one_sentence(lambda: load_interactions(file), file.name, "memory", "a part of it")
    free.available = 1_000_000
    assert len(load_interactions(file)[0]) == len(ring_frame)
