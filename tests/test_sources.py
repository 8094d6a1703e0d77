"""Readers of the original formats, downloads and archives, on small files that the tests make."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import stat
import threading
import zipfile
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from dae4rec_core import sources
from dae4rec_core.__main__ import main
from dae4rec_core.config import Config
from dae4rec_core.data import load_interactions, prepare
from dae4rec_core.sources import SOURCES, compare_filters, convert, fetch, unpack

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
    "  984222 |   15824 |     5222 |          38.8951118 |         -77.0363658 | 2012-04-21 17:43:47\n"
    "(2 rows)\n"
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


def write(path: Path, text: str, encoding="utf-8") -> Path:
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
        "item_id": ["5222", "5222"],
        "timestamp": [seconds("2012-04-21 17:39:01"), seconds("2012-04-21 17:43:47")],
    }


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


@pytest.mark.parametrize(
    "reader, name, text, words",
    [
        ("read_gowalla", "a.txt", GOWALLA + "7\tyesterday\t1\t2\t3\n", ["line 5", "'yesterday'"]),
        ("read_gowalla", "a.txt", GOWALLA + "7\t2010-07-24T13:45:06Z\tnorth\t2\t3\n", ["line 5", "'north'"]),
        ("read_gowalla", "a.txt", GOWALLA + "7\t2010-07-24T13:45:06Z\t1\t2\n", ["line 5", "item_id"]),
        ("read_foursquare", "a.dat", FOURSQUARE.replace("2012-04-21 17:43:47", "soon"), ["line 4", "'soon'"]),
        ("read_foursquare", "a.dat", FOURSQUARE.replace(" 15824", "      "), ["line 4", "user_id"]),
        ("read_foursquare_city", "a.txt", CITY.replace("Tue Apr 03 18:00:25", "Tue 25"), ["line 2", "'Tue 25"]),
        ("read_retailrocket", "a.csv", EVENTS.replace("1433224214164", "noon"), ["line 3", "'noon'"]),
        ("read_retailrocket", "a.csv", "timestamp,itemid,property,value\n1,2,3,4\n", ["visitorid", "events.csv"]),
        ("read_retailrocket", "a.csv", "", ["a.csv", "download it again"]),
    ],
)
def test_a_bad_line_is_named(tmp_path, one_sentence, reader, name, text, words):
    file = write(tmp_path / name, text)
    one_sentence(lambda: getattr(sources, reader)(file), *words)


def test_a_truncated_gz_is_one_sentence(tmp_path, one_sentence):
    file = write(tmp_path / "checkins.txt.gz", GOWALLA * 2_000)
    file.write_bytes(file.read_bytes()[:-200])
    one_sentence(lambda: sources.read_gowalla(file), "checkins.txt.gz", "incomplete", "download it again")


def test_a_damaged_workbook_is_one_sentence(tmp_path, one_sentence):
    file = write(tmp_path / "Online Retail.xlsx", "no workbook")
    one_sentence(lambda: sources.read_online_retail(file), "Excel", "download it again")


# ---- downloads ---------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if "truncated" not in self.path:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"only the beginning")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """An address whose files are those of tmp_path/site; a path with "truncated" breaks off."""
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
    file = fetch("gowalla", tmp_path / "out")
    assert file.name == "loc-gowalla_totalCheckins.txt.gz" and file.read_bytes() == content
    note = (tmp_path / "out" / f"{file.name}.sha256").read_text()
    assert note.split() == [hashlib.sha256(content).hexdigest(), file.name]
    assert "100%" in capsys.readouterr().err  # the progress bar
    (tmp_path / "site" / "g.gz").unlink()
    assert fetch("gowalla", tmp_path / "out") == file  # the second time nothing is downloaded


def test_a_file_that_changed_is_refused(tmp_path, server, monkeypatch, one_sentence):
    write(tmp_path / "site" / "g.gz", GOWALLA)
    source(monkeypatch, f"{server}/g.gz")
    file = fetch("gowalla", tmp_path / "out")
    file.write_bytes(file.read_bytes() + b"x")
    one_sentence(lambda: fetch("gowalla", tmp_path / "out"), "not the file it should be", "remove it")


@pytest.mark.parametrize(
    "path, sha256, word",
    [
        ("truncated.gz", None, "IncompleteRead"),
        ("missing.gz", None, "404"),
        ("g.gz", "0" * 64, "hash"),
    ],
)
def test_a_download_that_fails_loses_nothing(tmp_path, server, monkeypatch, one_sentence, path, sha256, word):
    write(tmp_path / "site" / "g.gz", GOWALLA)
    source(monkeypatch, f"{server}/{path}", sha256)
    out = tmp_path / "out"
    out.mkdir()
    (out / "interactions.csv.gz").write_bytes(b"what was there before")
    text = one_sentence(lambda: convert("gowalla", out), "could not be downloaded", word, "data gowalla", str(out))
    assert "snap.stanford.edu/data/loc-gowalla.html" in text
    assert [p.name for p in out.iterdir()] == ["interactions.csv.gz"]
    assert (out / "interactions.csv.gz").read_bytes() == b"what was there before"


def test_without_a_connection(tmp_path, monkeypatch, one_sentence):
    source(monkeypatch, "http://127.0.0.1:9/g.gz")
    one_sentence(lambda: fetch("gowalla", tmp_path), "no connection to 127.0.0.1:9", "loc-gowalla_totalCheckins.txt.gz")


def test_a_file_behind_an_account(tmp_path, one_sentence):
    one_sentence(lambda: fetch("retailrocket", tmp_path), "account", "events.csv", "kaggle.com", "data retailrocket")


# ---- archives ----------------------------------------------------------------------------------


def test_one_member_is_unpacked(tmp_path):
    file = archive(tmp_path / "fsq.zip", **{"umn/checkins.dat": FOURSQUARE, "umn/users.dat": "other"})
    found = unpack(file, "checkins.dat")
    assert found == tmp_path / "checkins.dat" and found.read_text() == FOURSQUARE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkins.dat", "fsq.zip"]


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_an_archive_that_leads_outside_is_refused(tmp_path, one_sentence, name):
    (tmp_path / "in").mkdir()
    file = archive(tmp_path / "in" / "fsq.zip", **{"checkins.dat": FOURSQUARE, name: "evil"})
    one_sentence(lambda: unpack(file, "checkins.dat"), "outside its folder", "nothing was unpacked")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [file]


def test_an_archive_with_a_link_is_refused(tmp_path, one_sentence):
    file = tmp_path / "fsq.zip"
    with zipfile.ZipFile(file, "w") as target:
        link = zipfile.ZipInfo("checkins.dat")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, "/etc/passwd")
    one_sentence(lambda: unpack(file, "checkins.dat"), "outside its folder")


def test_a_damaged_archive_loses_nothing(tmp_path, one_sentence):
    before = write(tmp_path / "checkins.dat", "from an earlier day")
    file = archive(tmp_path / "fsq.zip", **{"checkins.dat": FOURSQUARE * 500})
    raw = bytearray(file.read_bytes())
    raw[60:70] = bytes(10)
    file.write_bytes(raw)
    one_sentence(lambda: unpack(file, "checkins.dat"), "damaged", "download it again")
    file.write_bytes(raw[: len(raw) // 2])
    one_sentence(lambda: unpack(file, "checkins.dat"), "damaged")
    one_sentence(lambda: unpack(archive(file, other="x"), "checkins.dat"), "holds no checkins.dat")
    assert before.read_text() == "from an earlier day"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkins.dat", "fsq.zip"]


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, one_sentence, monkeypatch):
    file = archive(tmp_path / "fsq.zip", **{"checkins.dat": FOURSQUARE})
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: sources.shutil._ntuple_diskusage(100, 90, 10))
    one_sentence(lambda: unpack(file, "checkins.dat"), "make room")


# ---- from the original to a data set -----------------------------------------------------------


def test_conversion_ends_in_what_the_rest_reads(tmp_path, ring_frame):
    """The ring written as SNAP writes it, converted, filtered and split: the ring's own counts."""
    stamps = pd.to_datetime(ring_frame["timestamp"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = ring_frame["user_id"] + "\t" + stamps + "\t1.5\t2.5\t" + ring_frame["item_id"] + "\n"
    original = write(tmp_path / "original.txt.gz", "".join(lines[::-1]))
    out = convert("gowalla", tmp_path / "gowalla", original)
    dataset, split = prepare(out, Config(k_core=2))
    direct = ring_frame.to_csv(tmp_path / "direct.csv", index=False)
    expected, _ = prepare(tmp_path / "direct.csv", Config(k_core=2))
    assert direct is None and dataset.statistics() == expected.statistics()
    assert (dataset.items == expected.items).all()
    assert (dataset.attributes["latitude"] == 1.5).all()


def test_a_conversion_that_fails_keeps_the_old_one(tmp_path, one_sentence):
    good, bad = write(tmp_path / "good.csv", EVENTS), write(tmp_path / "bad.csv", EVENTS.replace("992329", ""))
    out = convert("retailrocket", tmp_path / "out", good)
    before = (out / "interactions.csv.gz").read_bytes()
    one_sentence(lambda: convert("retailrocket", out, bad), "bad.csv, line 3", "user_id")
    one_sentence(lambda: convert("retailrocket", out, tmp_path / "none.csv"), "no file", "events.csv")
    assert (out / "interactions.csv.gz").read_bytes() == before


def test_zip_is_unpacked_on_the_way(tmp_path):
    file = archive(tmp_path / "tsmc.zip", **{"dataset_tsmc2014/dataset_TSMC2014_NYC.txt": CITY})
    frame, _ = load_interactions(convert("foursquare_nyc", tmp_path / "nyc", file))
    assert len(frame) == 2


def test_filters_are_compared_with_table_2(ring_frame):
    """Nearest first; the exact row has distance 0, and the counts are pandas' own."""
    drop = ring_frame[ring_frame["item_id"] != ring_frame["item_id"].shift()]
    paper = len(ring_frame), ring_frame["user_id"].nunique(), ring_frame["item_id"].nunique()
    table = compare_filters(ring_frame, paper)
    assert table["distance"].is_monotonic_increasing
    best = table.iloc[0]
    assert (best["repeats"], best["distance"]) == ("keep", 0)
    assert best["average length"] == pytest.approx(paper[0] / paper[1])
    assert len(drop) <= paper[0] and set(table["repeats"]) == {"keep", "drop_consecutive", "first_visits"}


def test_table_2_agrees_with_itself():
    """The paper's average lengths are its records over its users (to the rounding of its own figures)."""
    for name, length in (("foursquare", 7.47), ("gowalla", 18.10), ("retailrocket", 9.23)):
        records, users, _ = SOURCES[name].paper
        assert records / users == pytest.approx(length, abs=0.02)


def test_the_command(tmp_path, capsys):
    original = write(tmp_path / "events.csv", EVENTS + EVENTS.split("\n", 1)[1] * 11)
    command = ["data", "retailrocket", "--file", str(original), "--out", str(tmp_path / "rr"), "--table2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "CC BY-NC-SA" in out and "36 interactions written" in out and "Table 2: 549,000 records" in out
    assert main(["data", "foursquare_nyc", "--out", str(tmp_path / "x"), "--file", str(tmp_path / "no.zip")]) == 2
    assert "no file" in capsys.readouterr().err
