"""Readers of the original formats, downloads and archives, on small files that the tests make."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import math
import stat
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from dae4rec_core.__main__ import main
from dae4rec_core.config import Config
from dae4rec_core.data import sources
from dae4rec_core.data.dataset import filter_interactions, prepare
from dae4rec_core.data.files import load_interactions
from dae4rec_core.data.sources import (
    SOURCES,
    beside_table_2,
    compare_filters,
    convert,
    fetch,
    unpack,
)
from dae4rec_core.views.plots import coordinates

GOWALLA = (  # newest first, as SNAP writes it; the first user's two visits at 12:00:00 are in that order too
    "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
    "0\t2010-10-18T12:00:00Z\t30.2691029532\t-97.7493953705\t420315\n"
    "0\t2010-10-18T12:00:00Z\t30.2557309927\t-97.7633857727\t316637\n"
    "196514\t2010-07-24T13:45:06Z\t53.3648119\t-2.2723465833\t145064\n"
)
FOURSQUARE = (
    "   id    | user_id | venue_id |      latitude       |      longitude      |     created_at      \n"
    "---------+---------+----------+---------------------+---------------------+---------------------\n"
    "  984301 | 2041916 |     5222 |                     |                     | 2012-04-21 17:39:01\n"
    "  984222 |   15824 |     5201 |          38.8951118 |         -77.0363658 | 2012-04-21 17:43:47\n"
    "(2 rows)\n"
    "\n"
)
VENUES = (
    "   id    |       latitude        |       longitude       \n"
    "---------+-----------------------+-----------------------\n"
    "    5201 |            45.5405832 |           -73.5965186\n"
    "    5222 |                       |                      \n"
    "    5201 |            46.8138783 |           -71.2079809\n"
    "(3 rows)\n"
    "\n"
)
CITY = (
    "470\t49bbd6c0f964a520f4531fe3\t4bf58dd8d48988d127951735\tArts & Crafts Store\t40.719810375488535\t"
    "-74.00258103213994\t-240\t"
    "Tue Apr 03 18:00:09 +0000 2012\n"
    "979\t4a43c0aef964a520c6a61fe3\t4bf58dd8d48988d1df941735\tCaf\xe9\t40.60679958140643\t-74.04416981025437\t-240\t"
    "Tue Apr 03 18:00:25 +0000 2012\n"
)
EVENTS = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,257597,view,355908,\n"
    "1433224214164,992329,addtocart,248676,\n"
    "1433221999827,111016,transaction,318965,4000\n"
)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    raw = text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def archive(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def seconds(text: str) -> float:
    return pd.Timestamp(text, tz="UTC").timestamp()


# ---- readers -----------------------------------------------------------------------------------


def test_gowalla(tmp_path):
    """Oldest first, so that equal times keep the order in which they happened."""
    frame = sources.read_gowalla(write(tmp_path / "checkins.txt.gz", GOWALLA))
    assert frame["item_id"].tolist() == ["145064", "316637", "420315", "22847"]
    assert frame["user_id"].tolist() == ["196514", "0", "0", "0"]
    assert frame["timestamp"].iloc[-1] == seconds("2010-10-19 23:55:27")
    assert frame["latitude"].iloc[0] == 53.3648119 and frame["longitude"].iloc[0] == -2.2723465833


def test_foursquare_of_minnesota(tmp_path):
    frame = sources.read_foursquare(write(tmp_path / "checkins.dat", FOURSQUARE))
    assert frame.to_dict("list") == {
        "user_id": ["2041916", "15824"],
        "item_id": ["5222", "5201"],
        "timestamp": [seconds("2012-04-21 17:39:01"), seconds("2012-04-21 17:43:47")],
    }


def test_foursquare_takes_the_coordinates_of_the_venues(tmp_path):
    """Those of venues.dat, the first of them, not the check-in's own; a venue without a place, or unknown there, keeps
    its check-ins."""
    write(tmp_path / "venues.dat", VENUES)
    stray = FOURSQUARE.replace(
        "(2 rows)", "  984315 | 1764391 |     5299 |        |        | 2012-04-21 17:35:46\n(3 rows)"
    )
    frame = sources.read_foursquare(write(tmp_path / "checkins.dat", stray))
    assert frame["item_id"].tolist() == ["5222", "5201", "5299"]
    assert frame["latitude"].isna().tolist() == [True, False, True]
    assert (frame["latitude"].iloc[1], frame["longitude"].iloc[1]) == (45.5405832, -73.5965186)


def test_foursquare_new_york(tmp_path):
    frame = sources.read_foursquare_city(write(tmp_path / "nyc.txt", CITY, "latin-1"))
    assert frame["category"].tolist() == ["Arts & Crafts Store", "Café"]
    assert frame["timestamp"].tolist() == [seconds("2012-04-03 18:00:09"), seconds("2012-04-03 18:00:25")]
    assert frame["latitude"].iloc[1] == pytest.approx(40.60679958140643)


def test_retailrocket(tmp_path):
    frame = sources.read_retailrocket(write(tmp_path / "events.csv", EVENTS))
    assert frame["user_id"].tolist() == ["257597", "992329", "111016"]
    assert frame["item_id"].tolist() == ["355908", "248676", "318965"]
    assert frame["timestamp"].iloc[0] == pytest.approx(seconds("2015-06-02 05:02:12.117"), abs=1e-3)


def test_retailrocket_with_views_only(tmp_path):
    file = write(tmp_path / "events.csv", EVENTS)
    assert SOURCES["retailrocket_views"].read(file)["item_id"].tolist() == ["355908"]
    assert sources.read_retailrocket(file, ("addtocart", "transaction"))["item_id"].tolist() == ["248676", "318965"]


def retail_workbook(path: Path) -> Path:
    """A workbook as UCI's: a cancellation, a gift without a customer, postage, a repeated line."""
    book = openpyxl.Workbook()
    header = "InvoiceNo StockCode Description Quantity InvoiceDate UnitPrice CustomerID Country".split()
    day, uk = pd.Timestamp("2010-12-01 08:26").to_pydatetime(), "United Kingdom"
    lines = [
        [536365, "85123A", "WHITE HANGING HEART T-LIGHT HOLDER ", 6, day, 2.55, 17850, uk],
        [536365, 71053, "WHITE METAL LANTERN", 6, day, 3.39, 17850, uk],
        [536365, "85123A", "WHITE HANGING HEART T-LIGHT HOLDER ", 1, day, 2.55, 17850, uk],
        [536365, "POST", "POSTAGE", 1, day, 18.0, 17850, uk],
        ["C536379", 22086, "returned", -1, day, 2.95, 14527, uk],
        [536380, 22087, "without a customer", 2, day, 2.95, None, uk],
        [536381, 22088, "negative", -2, day, 2.95, 14527, uk],
    ]
    for line in [header, *lines]:
        book.active.append(line)
    book.save(path)
    return path


def test_online_retail(tmp_path):
    frame = sources.read_online_retail(retail_workbook(tmp_path / "Online Retail.xlsx"))
    assert frame["user_id"].tolist() == ["536365"] * 2
    assert frame["item_id"].tolist() == ["85123A", "71053"]
    assert frame["description"].tolist() == ["WHITE HANGING HEART T-LIGHT HOLDER", "WHITE METAL LANTERN"]
    assert frame["timestamp"].iloc[0] == seconds("2010-12-01 08:26")


def test_ids_that_pandas_takes_for_missing_are_ids(tmp_path):
    """In every reader whose ids are text."""
    day = "2012-04-21T17:39:01Z"
    gowalla = write(tmp_path / "g.txt", f"NA\t{day}\t1\t2\tnull\n")
    minnesota = write(tmp_path / "m.dat", FOURSQUARE.replace(" 15824 ", "NA").replace("5222", "null"))
    city = write(tmp_path / "c.txt", CITY.replace("470\t49bbd6c0f964a520f4531fe3", "nan\tNone"), "latin-1")
    rocket = write(tmp_path / "r.csv", EVENTS.replace("257597", "null").replace("355908", "NA"))
    found = [
        sources.read_gowalla(gowalla).iloc[0],
        sources.read_foursquare(minnesota).iloc[0],
        sources.read_foursquare(minnesota).iloc[1],
        sources.read_foursquare_city(city).iloc[0],
        sources.read_retailrocket(rocket).iloc[0],
    ]
    assert [(row["user_id"], row["item_id"]) for row in found] == [
        ("NA", "null"),
        ("2041916", "null"),
        ("NA", "5201"),
        ("nan", "None"),
        ("null", "NA"),
    ]
    write(tmp_path / "events.csv", EVENTS.replace("257597", "null").replace("355908", "NA"))
    written, _ = load_interactions(convert("retailrocket", tmp_path / "out", tmp_path / "events.csv"))
    assert written["user_id"].iloc[0] == "null" and written["item_id"].iloc[0] == "NA"


def test_an_article_that_excel_readers_take_for_missing_is_no_error(tmp_path):
    """ "NA" is an article number like "POST": none of five digits, so it is left out."""
    file = retail_workbook(tmp_path / "Online Retail.xlsx")
    book = openpyxl.load_workbook(file)
    book.active["B5"] = "NA"
    book.save(file)
    assert sources.read_online_retail(file)["item_id"].tolist() == ["85123A", "71053"]


@pytest.mark.parametrize(
    "reader, name, text, words",
    [
        ("read_gowalla", "a.txt", GOWALLA + "7\tyesterday\t1\t2\t3\n", ["line 5", "'yesterday'"]),
        ("read_gowalla", "a.txt", GOWALLA + "7\t2010-07-24T13:45:06Z\tnorth\t2\t3\n", ["line 5", "'north'"]),
        ("read_gowalla", "a.txt", GOWALLA + "7\t2010-07-24T13:45:06Z\t1\t2\n", ["line 5", "item_id"]),
        ("read_foursquare", "a.dat", FOURSQUARE.replace("2012-04-21 17:43:47", "soon"), ["line 4", "'soon'"]),
        ("read_foursquare", "a.dat", FOURSQUARE.replace(" 15824", "      "), ["line 4", "user_id"]),
        ("read_foursquare_city", "a.txt", CITY.replace("Tue Apr 03 18:00:25", "Tue 25"), ["line 2", "'Tue 25"]),
        ("read_foursquare_city", "a.txt", CITY.replace("Tue Apr 03", "Apr 03"), ["line 1", "'Apr 03"]),
        ("read_foursquare_city", "a.txt", CITY.replace("40.60679958140643", "north"), ["line 2", "latitude 'north'"]),
        ("read_gowalla", "a.txt", "\n" + GOWALLA + "\n7\tsoon\t1\t2\t3\n", ["line 7", "'soon'"]),  # blank lines count
        ("read_gowalla", "a.txt", "1\t" + GOWALLA.split("\n")[0] + "\n", ["more columns"]),
        ("read_gowalla", "a.txt", "", ["no rows"]),
        ("read_foursquare", "a.dat", "\n".join(FOURSQUARE.split("\n")[:2]), ["a.dat", "incomplete"]),
        ("read_foursquare", "a.dat", "something else\n", ["a.dat", "incomplete"]),
        ("read_retailrocket", "a.csv", EVENTS.replace("addtocart", "stare"), ["line 3", "event 'stare'"]),
        ("read_retailrocket", "a.csv", EVENTS.replace("1433224214164", "noon"), ["line 3", "'noon'"]),
        ("read_retailrocket", "a.csv", "timestamp,itemid,property,value\n1,2,3,4\n", ["visitorid", "events.csv"]),
        ("read_retailrocket", "a.csv", "", ["a.csv", "get it again"]),
    ],
)
def test_a_bad_line_is_named(tmp_path, one_sentence, reader, name, text, words):
    file = write(tmp_path / name, text)
    one_sentence(lambda: getattr(sources, reader)(file), str(file), *words)


def test_a_truncated_gz_is_one_sentence(tmp_path, one_sentence):
    file = write(tmp_path / "checkins.txt.gz", GOWALLA * 2_000)
    file.write_bytes(file.read_bytes()[:-200])
    one_sentence(lambda: sources.read_gowalla(file), "checkins.txt.gz", "incomplete", "get it again")


def test_a_damaged_workbook_is_one_sentence(tmp_path, one_sentence):
    file = write(tmp_path / "Online Retail.xlsx", "no workbook")
    one_sentence(lambda: sources.read_online_retail(file), "Excel", "download it again")


@pytest.mark.parametrize(
    "cell, value, words",
    [
        ("A1", "Invoice", ["no column InvoiceNo", "Online Retail.xlsx"]),
        ("D3", "six", ["line 3", "Quantity 'six'"]),
        ("E3", "some day", ["line 3", "time 'some day'"]),
    ],
)
def test_a_workbook_with_a_wrong_cell(tmp_path, one_sentence, cell, value, words):
    file = retail_workbook(tmp_path / "Online Retail.xlsx")
    book = openpyxl.load_workbook(file)
    book.active[cell] = value
    book.save(file)
    one_sentence(lambda: sources.read_online_retail(file), *words)


# ---- downloads ---------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if "endless" in self.path:
            return self.endless()
        if "truncated" not in self.path:
            return super().do_GET()
        self.send_response(200)
        if "silent" not in self.path:
            self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(gzip.compress(GOWALLA.encode())[:-10])

    def endless(self):
        self.send_response(200)
        if "silent" not in self.path:
            self.send_header("Content-Length", str(10**15))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while True:
                self.wfile.write(bytes(2**16))

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """An address whose files are those of tmp_path/site; a path with "truncated" breaks off, "silent" or announced."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Handler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def source(monkeypatch, url, sha256=None, name="gowalla"):
    changed = dataclasses.replace(SOURCES[name], url=url, sha256=sha256)
    monkeypatch.setitem(SOURCES, name, changed)
    return changed


def test_a_download_lies_under_its_name_with_its_checksum(tmp_path, server, monkeypatch, capsys):
    content = write(tmp_path / "site" / "g.gz", GOWALLA).read_bytes()
    source(monkeypatch, f"{server}/g.gz")
    file = fetch("gowalla", tmp_path / "new" / "out")
    assert file.name == "loc-gowalla_totalCheckins.txt.gz" and file.read_bytes() == content
    note = (tmp_path / "new" / "out" / f"{file.name}.sha256").read_text()
    assert note.split() == [hashlib.sha256(content).hexdigest(), file.name]
    assert "100%" in capsys.readouterr().err  # the progress bar
    (tmp_path / "site" / "g.gz").unlink()
    assert fetch("gowalla", tmp_path / "new" / "out") == file  # the second time nothing is downloaded


def test_a_file_that_changed_is_refused(tmp_path, server, monkeypatch, one_sentence):
    write(tmp_path / "site" / "g.gz", GOWALLA)
    source(monkeypatch, f"{server}/g.gz")
    file = fetch("gowalla", tmp_path / "out")
    file.write_bytes(file.read_bytes() + b"x")
    one_sentence(lambda: fetch("gowalla", tmp_path / "out"), "not the file it should be", "remove it")


@pytest.mark.parametrize(
    "path, sha256, word",
    [
        ("truncated.gz", None, "broke off"),
        ("truncated-silent.gz", None, "damaged or incomplete"),
        ("page.html", None, "damaged or incomplete"),  # a notice in the place of the file
        ("missing.gz", None, "404"),
        ("g.gz", "0" * 64, "checksum"),
        ("endless.gz", None, "larger than 1,048,576 bytes"),
        ("endless-silent.gz", None, "larger than 1,048,576 bytes"),
    ],
)
def test_a_download_that_fails_loses_nothing(tmp_path, server, monkeypatch, one_sentence, path, sha256, word):
    monkeypatch.setattr(sources, "LARGEST", 2**20)
    write(tmp_path / "site" / "g.gz", GOWALLA)
    write(tmp_path / "site" / "page.html", "<p>We are moving.")
    source(monkeypatch, f"{server}/{path}", sha256)
    out = tmp_path / "out"
    out.mkdir()
    (out / "interactions.csv.gz").write_bytes(b"what was there before")
    text = one_sentence(lambda: convert("gowalla", out), word, "data gowalla", str(out))
    assert text.count(". ") == 0
    assert "snap.stanford.edu/data/loc-gowalla.html" in text
    assert [p.name for p in out.iterdir()] == ["interactions.csv.gz"]
    assert (out / "interactions.csv.gz").read_bytes() == b"what was there before"


def test_a_broken_file_put_there_by_hand_does_not_stand_in_the_way_of_a_good_one(tmp_path, one_sentence):
    file = write(tmp_path / "loc-gowalla_totalCheckins.txt.gz", GOWALLA)
    good = file.read_bytes()
    file.write_bytes(good[:-10])
    one_sentence(lambda: fetch("gowalla", tmp_path), "damaged or incomplete", "snap.stanford.edu", str(file))
    assert file.read_bytes() == good[:-10] and list(tmp_path.iterdir()) == [file]
    file.write_bytes(good)
    assert fetch("gowalla", tmp_path) == file
    assert hashlib.sha256(good).hexdigest() in file.with_name(f"{file.name}.sha256").read_text()


def test_an_archive_put_there_by_hand_is_read_to_its_end(tmp_path, one_sentence):
    """A wrong byte in a member that we don't read is a damaged file all the same."""
    members = {"checkins.dat": FOURSQUARE, "venues.dat": VENUES, "ratings.dat": "5 stars"}
    with zipfile.ZipFile(tmp_path / "fsq.zip", "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    raw = (tmp_path / "fsq.zip").read_bytes()
    (tmp_path / "fsq.zip").write_bytes(raw.replace(b"5 stars", b"1 stars"))
    one_sentence(lambda: fetch("foursquare", tmp_path), "damaged or incomplete", "checksum", "archive.org")
    assert [p.name for p in tmp_path.iterdir()] == ["fsq.zip"]


def test_without_the_optional_packages(tmp_path, one_sentence, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    one_sentence(lambda: fetch("gowalla", tmp_path), "pooch", '".[data]"')
    workbook = retail_workbook(tmp_path / "Online Retail.xlsx")
    one_sentence(lambda: sources.read_online_retail(workbook), "python-calamine", '".[data]"')


def test_no_original_comes_in_the_clear():
    assert [source.url for source in SOURCES.values() if source.url and not source.url.startswith("https://")] == []


def test_without_a_connection(tmp_path, monkeypatch, one_sentence):
    source(monkeypatch, "http://127.0.0.1:9/g.gz")
    one_sentence(lambda: fetch("gowalla", tmp_path), "no connection to 127.0.0.1:9", "loc-gowalla_totalCheckins.txt.gz")


def test_a_file_behind_an_account(tmp_path, one_sentence):
    one_sentence(lambda: fetch("retailrocket", tmp_path), "account", "events.csv", "kaggle.com", "data retailrocket")


# ---- archives ----------------------------------------------------------------------------------


def test_only_the_members_asked_for_are_unpacked(tmp_path):
    members = {"umn/checkins.dat": FOURSQUARE, "umn/users.dat": "other", "umn/venues.dat": VENUES, "checkins.dat/": ""}
    file = archive(tmp_path / "fsq.zip", **members)
    (tmp_path / "in").mkdir()
    found = unpack(file, ("checkins.dat", "venues.dat"), tmp_path / "in")
    assert [path.read_text() for path in found] == [FOURSQUARE, VENUES]
    assert sorted(tmp_path.rglob("*")) == sorted([*found, file, tmp_path / "in"])


@pytest.mark.parametrize("root", ["../", "a/../../", "/var/../", "..\\", "C:\\", "in/"])
def test_an_archive_that_points_outside_writes_nothing_there(tmp_path, root):
    """Neither what is read nor what isn't; the members that are read are found under a strange path too."""
    members = {f"{root}checkins.dat": FOURSQUARE, f"{root}venues.dat": VENUES, f"{root}evil.txt": "evil"}
    if "\\" in root:  # a name of its own on Linux, so that the members must stand beside it
        members |= {"checkins.dat": FOURSQUARE, "venues.dat": VENUES}
    file = archive(tmp_path / "fsq.zip", **members)
    (tmp_path / "in").mkdir()
    found = unpack(file, ("checkins.dat", "venues.dat"), tmp_path / "in")
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == [file, *found]
    assert [path.parent for path in found] == [tmp_path / "in"] * 2
    assert len(load_interactions(convert("foursquare", tmp_path / "out", file))[0]) == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["interactions.csv.gz"]
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    """It becomes a file that holds the name of what it points to."""
    file, secret = tmp_path / "fsq.zip", write(tmp_path / "secret", "secret")
    with zipfile.ZipFile(file, "w") as target:
        link = zipfile.ZipInfo("checkins.dat")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, str(secret))
    (tmp_path / "in").mkdir()
    (found,) = unpack(file, ("checkins.dat",), tmp_path / "in")
    assert not found.is_symlink() and found.read_text() == str(secret)


def test_a_damaged_archive_loses_nothing(tmp_path, one_sentence):
    """Nor does a file of the user's that lies beside it under a member's name."""
    before = write(tmp_path / "checkins.dat", "from an earlier day")
    members = {"checkins.dat": FOURSQUARE * 500, "venues.dat": VENUES}
    file = archive(tmp_path / "fsq.zip", **members)
    good = file.read_bytes()

    def damaged(raw, *words):
        file.write_bytes(raw)
        one_sentence(lambda: convert("foursquare", tmp_path, file), "fsq.zip", *words)

    damaged(good[:60] + bytes(10) + good[70:], "damaged", "download it again")
    damaged(good[: len(good) // 2], "damaged")
    locked = bytearray(good)
    locked[6] = locked[good.index(b"PK\x01\x02") + 8] = 1  # the flag of a password
    damaged(bytes(locked), "damaged", "password")
    damaged(archive(file, **{"checkins.dat": FOURSQUARE, ".": ""}).read_bytes(), "holds no venues.dat")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkins.dat", "fsq.zip"]
    file.write_bytes(archive(file, **{**members, "checkins.dat": FOURSQUARE}).read_bytes())
    assert len(load_interactions(convert("foursquare", tmp_path, file))[0]) == 2
    assert before.read_text() == "from an earlier day"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkins.dat", "fsq.zip", "interactions.csv.gz"]


# ---- from the original to a data set -----------------------------------------------------------


def test_conversion_ends_in_what_the_rest_reads(tmp_path, ring_frame):
    """The ring written as SNAP writes it, converted, filtered and split: the ring's own counts."""
    stamps = pd.to_datetime(ring_frame["timestamp"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = ring_frame["user_id"] + "\t" + stamps + "\t1.5\t2.5\t" + ring_frame["item_id"] + "\n"
    original = write(tmp_path / "original.txt.gz", "".join(lines[::-1]))
    out = convert("gowalla", tmp_path / "data" / "gowalla", original)
    dataset, split = prepare(out, Config().replace(k_core=2))
    ring_frame.to_csv(tmp_path / "direct.csv", index=False)
    expected, _ = prepare(tmp_path / "direct.csv", Config().replace(k_core=2))
    assert dataset.statistics() == expected.statistics()
    np.testing.assert_array_equal(dataset.items, expected.items)
    places = coordinates(dataset)  # what the maps of the notebooks look for
    assert places is not None and np.unique(places, axis=0).tolist() == [[2.5, 1.5]]
    assert len(split.test) == dataset.n_users == 60


def test_a_conversion_that_fails_keeps_the_old_one(tmp_path, one_sentence):
    good, bad = write(tmp_path / "good.csv", EVENTS), write(tmp_path / "bad.csv", EVENTS.replace("992329", ""))
    out = convert("retailrocket", tmp_path / "out", good)
    before = (out / "interactions.csv.gz").read_bytes()
    one_sentence(lambda: convert("retailrocket", out, bad), "bad.csv, line 3", "user_id")
    one_sentence(lambda: convert("retailrocket", out, tmp_path / "none.csv"), "no file", "events.csv")
    one_sentence(lambda: convert("retailrocket", out, write(tmp_path / "empty.csv", EVENTS[:47])), "no rows")
    assert (out / "interactions.csv.gz").read_bytes() == before and len(list(out.iterdir())) == 1


def test_a_full_disk_keeps_the_old_conversion(tmp_path, one_sentence, monkeypatch):
    original = write(tmp_path / "events.csv", EVENTS)
    out = convert("retailrocket", tmp_path / "out", original)
    before = (out / "interactions.csv.gz").read_bytes()

    def half(frame, path, **options):
        path.write_bytes(before[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    one_sentence(lambda: convert("retailrocket", out, original), "No space left", "make room")
    assert [p.name for p in out.iterdir()] == ["interactions.csv.gz"]
    assert (out / "interactions.csv.gz").read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path, one_sentence):
    original, taken = write(tmp_path / "events.csv", EVENTS), write(tmp_path / "taken", "a file")
    for file in (original, None):
        one_sentence(lambda: convert("retailrocket", taken, file), "taken", "can't be written", "--out")
    assert taken.read_text() == "a file"


def test_zip_is_unpacked_on_the_way(tmp_path):
    tokyo = CITY.split("\n")[0] + "\n"
    members = {"NYC": CITY, "TKY": tokyo}
    members = {f"dataset_tsmc2014/dataset_TSMC2014_{city}.txt": text for city, text in members.items()}
    file = archive(tmp_path / "tsmc.zip", **members)
    for name, rows in (("foursquare_nyc", 2), ("foursquare_tky", 1)):
        frame, _ = load_interactions(convert(name, tmp_path / name, file))
        assert len(frame) == rows


def test_filters_are_compared_with_table_2(ring_frame):
    """Nearest first; the filter that made the row has distance 0; a doubling of one count of three is log(2) / 3."""
    kept = filter_interactions(ring_frame, 10, "first_visits")
    paper = len(kept), kept["user_id"].nunique(), kept["item_id"].nunique()
    table = compare_filters(ring_frame, paper)
    assert table["distance"].is_monotonic_increasing and not table.duplicated(["k_core", "repeats"]).any()
    assert list(table.loc[0, ["k_core", "repeats", "distance"]]) == [10, "first_visits", 0]
    assert list(table.loc[0, ["records", "users", "items"]]) == list(paper)
    assert table.loc[0, "average length"] == pytest.approx(paper[0] / paper[1])
    assert table.loc[0, "sparsity"] == pytest.approx(1 - paper[0] / (paper[1] * paper[2]))
    doubled = compare_filters(ring_frame, (2 * paper[0], *paper[1:])).query(
        "k_core == 10 and repeats == 'first_visits'"
    )
    assert doubled["distance"].item() == pytest.approx(math.log(2) / 3)
    assert set(table["repeats"]) == {"keep", "drop_consecutive", "first_visits"}


def test_too_little_for_any_filter(ring_frame, one_sentence):
    one_sentence(lambda: compare_filters(ring_frame[:2], (1, 1, 1)), "3-core", "whole original")


def test_our_counts_stand_beside_the_papers(ring_frame):
    """Counted here with pandas alone; the ring's own filter keeps everything."""
    users, items = ring_frame["user_id"].nunique(), ring_frame["item_id"].nunique()
    changed = dataclasses.replace(SOURCES["gowalla"], k_core=1, repeats="keep", paper=(100, 50, 60, 2.0, 0.5))
    table = beside_table_2(ring_frame, changed)
    assert table.index.tolist() == ["records", "users", "items", "average length", "sparsity"]
    expected = [len(ring_frame), users, items, len(ring_frame) / users, 1 - len(ring_frame) / users / items]
    assert table["ours"].tolist() == pytest.approx(expected)
    assert table.loc["users", "difference"] == pytest.approx(60 / 50 - 1)
    assert table.loc["items", "difference"] == pytest.approx(30 / 60 - 1)
    assert table.loc["sparsity", "difference"] == pytest.approx(expected[-1] - 0.5)


def test_table_2_agrees_with_itself():
    """Average length is records over users and sparsity 1 - records over cells, to the paper's own rounding."""
    for name in ("foursquare", "gowalla", "retailrocket"):
        records, users, items, length, sparsity = SOURCES[name].paper or ()
        assert records / users == pytest.approx(length, abs=0.015)
        assert 1 - records / (users * items) == pytest.approx(sparsity, abs=0.00006)


def test_the_command(tmp_path, capsys):
    original = write(tmp_path / "events.csv", EVENTS + EVENTS.split("\n", 1)[1] * 11)
    command = ["data", "retailrocket", "--file", str(original), "--out", str(tmp_path / "rr"), "--table2"]
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Trust: your own file is taken as it is." in out
    assert "CC BY-NC-SA" in out and "36 interactions written" in out and "--k-core 5 --repeats keep" in out
    assert "records 549,000 36 -100.0%" in out and "average length 9.23 12 +30.0%" in out
    assert out.count(" keep ") >= 3  # the grid: 3-, 5- and 10-core leave all
    assert main(["data", "foursquare_nyc", "--out", str(tmp_path / "x"), "--file", str(tmp_path / "no.zip")]) == 2
    assert "no file" in capsys.readouterr().err
    assert main(["data", "online_retail", "--out", str(tmp_path / "x"), "--table2"]) == 2  # before anything is fetched
    assert "no row for online_retail" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "sha256, words",
    [(None, "is known, so the first file is taken as it comes"), ("0" * 64, "SHA-256 000000000000...")],
)
def test_the_command_says_what_is_trusted(monkeypatch, tmp_path, capsys, sha256, words):
    """Before anything is fetched."""
    source(monkeypatch, "http://127.0.0.1:9/g.gz", sha256)
    assert main(["data", "gowalla", "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().out


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, counts", [("gowalla", (71_703, 7_720, 3_140)), ("foursquare_nyc", (147_938, 1_083, 5_135))]
)
def test_real_check_ins_written_in_the_original_format(real_data, tmp_path, name, counts):
    """A local slice in the form of its original gives the counts that are noted beside the slice."""
    frame, _ = load_interactions(real_data / name)
    when = pd.to_datetime(frame["timestamp"], unit="s", utc=True)
    if name == "gowalla":
        columns = [
            frame["user_id"],
            when.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            frame["lat"],
            frame["lon"],
            frame["item_id"],
        ]
    else:
        zone = pd.Series("-240", frame.index)
        columns = [frame["user_id"], frame["item_id"], zone, frame["category"], frame["lat"], frame["lon"], zone]
        columns.append(when.dt.strftime("%a %b %d %H:%M:%S +0000 %Y"))
    original = tmp_path / "original.txt"
    lines = pd.concat(columns, axis=1)[:: -1 if name == "gowalla" else 1]
    lines.to_csv(original, sep="\t", header=False, index=False, encoding="latin-1", quoting=3)
    dataset, _ = prepare(convert(name, tmp_path / "out", original), Config())
    expected, _ = prepare(real_data / name, Config())
    facts = dataset.statistics()
    assert (facts["records"], facts["users"], facts["items"]) == counts
    np.testing.assert_array_equal(dataset.items, expected.items)
    assert coordinates(dataset) == pytest.approx(coordinates(expected), abs=1e-6)  # one slice rounds them in items.csv
