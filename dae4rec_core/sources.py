"""The data sets of the paper, from their original files: where they are, how they are read, which filter comes near.

`python -m dae4rec_core data gowalla` downloads the original, reads it and writes data/gowalla/interactions.csv.gz,
which every other command and notebook takes as it is. Nothing is bundled: each set has terms of its own.

The readers were written from the formats' descriptions and are tested on small files of the same form. The originals
could not be fetched where this was made, so no count of theirs is quoted here; the command prints them beside Table 2.
"""

import hashlib
import math
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from dae4rec_core.data import filter_interactions

CORES = (3, 5, 10, 15, 20)
REPEATS = ("keep", "drop_consecutive", "first_visits")


@dataclass(frozen=True)
class Source:
    """One original data set.

    page: the official page. url: its file, or None where an account is needed. file: the name it has on disk. member:
    the part of an archive that is read. sha256: of the file, where one is known. terms: the licence as far as known.
    read: file -> interactions. paper: records, users and items of Table 2, or None.
    """

    title: str
    page: str
    url: str | None
    file: str
    member: str | None
    sha256: str | None
    terms: str
    read: Callable[[Path], pd.DataFrame]
    paper: tuple[int, int, int] | None


def read_gowalla(path: Path) -> pd.DataFrame:
    """SNAP's check-ins: user, UTC time, latitude, longitude, place; tabs, no header, newest first."""
    names = ["user_id", "timestamp", "latitude", "longitude", "item_id"]
    frame = _table(path, sep="\t", header=None, names=names, dtype=str)
    frame["timestamp"] = _seconds(frame["timestamp"], path, 1)
    return _numbers(frame, ["latitude", "longitude"], path, 1)[::-1]  # oldest first, also among equal times


def read_foursquare(path: Path) -> pd.DataFrame:
    """The University of Minnesota's checkins.dat: id | user_id | venue_id | latitude | longitude | created_at.

    A printed table: a header, a line of dashes, rows, and a last line that counts them. Coordinates are mostly empty.
    """
    names = ["id", "user_id", "item_id", "latitude", "longitude", "timestamp"]
    frame = _table(path, sep="|", header=None, names=names, dtype=str, skiprows=2)
    frame = frame.apply(lambda column: column.str.strip()).replace("", None)
    if str(frame["id"].iloc[-1]).startswith("("):
        frame = frame[:-1]
    frame["timestamp"] = _seconds(frame["timestamp"], path, 3)
    return _filled(frame, path, 3)[["user_id", "item_id", "timestamp"]]


def read_foursquare_city(path: Path) -> pd.DataFrame:
    """TSMC2014: user, venue, category id, category, latitude, longitude, minutes from UTC, UTC time; tabs, Latin-1."""
    names = ["user_id", "item_id", "category_id", "category", "latitude", "longitude", "offset", "timestamp"]
    frame = _table(path, sep="\t", header=None, names=names, dtype=str, encoding="latin-1", quoting=3)
    frame["timestamp"] = _seconds(frame["timestamp"], path, 1, "%a %b %d %H:%M:%S %z %Y")
    frame = _numbers(frame, ["latitude", "longitude"], path, 1)
    return frame[["user_id", "item_id", "timestamp", "category", "latitude", "longitude"]]


def read_retailrocket(path: Path) -> pd.DataFrame:
    """events.csv: timestamp (ms), visitorid, event, itemid, transactionid. Every event counts (our choice)."""
    frame = _table(path, dtype=str)
    missing = {"timestamp", "visitorid", "itemid"} - set(frame)
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(sorted(missing))}; "
            "give Retailrocket's events.csv, not another of its files."
        )
    frame = frame.rename(columns={"visitorid": "user_id", "itemid": "item_id"})
    frame = _numbers(frame[["user_id", "item_id", "timestamp"]], ["timestamp"], path, 2)
    return frame.assign(timestamp=frame["timestamp"] / 1000)


def read_online_retail(path: Path) -> pd.DataFrame:
    """Online Retail.xlsx: one invoice is a sequence, in the order of its lines, each article once (our choice).

    Kept: lines with a customer, a positive quantity and an article number; cancellations (invoice "C...") are not.
    """
    try:
        frame = pd.read_excel(path, engine="calamine", dtype={"InvoiceNo": str, "StockCode": str, "Description": str})
    except ImportError:
        raise ValueError(
            'Reading Excel files needs python-calamine; install it with pip install -e ".[data]" and start again.'
        ) from None
    except Exception as error:  # calamine has errors of its own
        raise ValueError(f"{path} can't be read as an Excel file ({_first_line(error)}); download it again.") from None
    bought = frame["CustomerID"].notna() & (frame["Quantity"] > 0) & ~frame["InvoiceNo"].str.startswith("C")
    frame = frame[bought & frame["StockCode"].str.match(r"\d{5}")].drop_duplicates(["InvoiceNo", "StockCode"])
    return pd.DataFrame(
        {
            "user_id": frame["InvoiceNo"],
            "item_id": frame["StockCode"],
            "timestamp": (frame["InvoiceDate"] - pd.Timestamp(0)) / pd.Timedelta(seconds=1),
            "description": frame["Description"].str.strip(),
        }
    )


SOURCES = {
    "foursquare": Source(
        "Foursquare check-ins of the University of Minnesota (Levandoski et al. 2012; Sarwat et al. 2014)",
        "https://archive.org/details/201309_foursquare_dataset_umn",
        "https://archive.org/download/201309_foursquare_dataset_umn/fsq.zip",
        "fsq.zip",
        "checkins.dat",
        None,
        "for research; its authors ask to be cited",
        read_foursquare,
        (303_000, 40_500, 17_200),
    ),
    "foursquare_nyc": Source(
        "Foursquare check-ins in New York (Yang et al. 2015), smaller, with categories",
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
        "http://www-public.imtbs-tsp.eu/~zhang_da/pub/dataset_tsmc2014.zip",
        "dataset_tsmc2014.zip",
        "dataset_TSMC2014_NYC.txt",
        None,
        "its authors ask to be cited",
        read_foursquare_city,
        None,
    ),
    "gowalla": Source(
        "Gowalla check-ins of SNAP (Cho et al. 2011)",
        "https://snap.stanford.edu/data/loc-gowalla.html",
        "https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        "loc-gowalla_totalCheckins.txt.gz",
        None,
        None,
        "its authors ask to be cited",
        read_gowalla,
        (934_100, 51_600, 33_300),
    ),
    "retailrocket": Source(
        "Retailrocket events (Zykov et al. 2022)",
        "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        None,
        "events.csv",
        None,
        None,
        "CC BY-NC-SA 4.0; Kaggle asks for an account",
        read_retailrocket,
        (549_000, 59_500, 27_500),
    ),
    "online_retail": Source(
        "UCI Online Retail (Chen, Sain and Guo 2012): not in the paper, free for everyone",
        "https://archive.ics.uci.edu/dataset/352/online+retail",
        "https://archive.ics.uci.edu/static/public/352/online+retail.zip",
        "online_retail.zip",
        "Online Retail.xlsx",
        "f5385cbb54bbebf7196389109c6b0621faab0c304e3702548165e71c84aede8b",
        "CC BY 4.0",
        read_online_retail,
        None,
    ),
}


def fetch(name: str, folder: str | Path) -> Path:
    """The original file of a data set in `folder`: the one that lies there, or a download with a progress bar.

    A download appears under its name only when it is complete and its checksum is right. Where no checksum is known,
    that of the first download is kept beside it as <file>.sha256 and every later use is checked against it. Raises
    ValueError with one sentence: what could not be had, and what to do by hand.
    """
    source, folder = SOURCES[name], Path(folder)
    file = folder / source.file
    note = file.with_name(file.name + ".sha256")
    known = source.sha256 or (note.read_text().split()[0] if note.is_file() else None)
    if not file.is_file():
        _download(source, name, folder, known)
    digest = _sha256(file)
    if known not in (None, digest):
        raise ValueError(
            f"{file} is not the file it should be (SHA-256 {digest[:12]}..., expected {known[:12]}...); "
            f"remove it{'' if source.sha256 else f' and {note.name}'} and start again."
        )
    if source.sha256 is None:
        note.write_text(f"{digest}  {file.name}\n")
    return file


def _download(source: Source, name: str, folder: Path, known: str | None) -> None:
    command = f"`python -m dae4rec_core data {name} --out {folder}`"
    by_hand = f"get {source.file} from {source.page}, put it into {folder} and run {command} again."
    if source.url is None:
        raise ValueError(f"{source.title}: the file needs an account, so {by_hand}")
    try:
        import pooch
        import requests
    except ImportError:
        raise ValueError('Downloading needs pooch; install it with pip install -e ".[data]" and start again.') from None
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("ERROR")  # it would tell the checksum of a file that has none; we keep it ourselves
    loader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        pooch.retrieve(source.url, known and f"sha256:{known}", source.file, folder, downloader=loader)
    except (requests.RequestException, OSError, ValueError) as error:
        host = source.url.split("/")[2]
        why = f"no connection to {host}" if isinstance(error, requests.ConnectionError) else _first_line(error)
        raise ValueError(f"{source.url} could not be downloaded ({why}); {by_hand}") from None


def unpack(archive: Path, member: str) -> Path:
    """Take one file out of a zip archive and lay it beside the archive; nothing else is written.

    Raises ValueError when the archive is damaged, lacks the member, or holds a name that leads out of its folder or a
    link: such an archive was made to do harm.
    """
    target = archive.with_name(PurePosixPath(member).name)
    part = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                path = PurePosixPath(info.filename.replace("\\", "/"))
                link = stat.S_ISLNK(info.external_attr >> 16)
                if link or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                    raise ValueError(
                        f"{archive} holds {info.filename!r}, which would be written outside its folder; "
                        "nothing was unpacked, download it again from the official page."
                    )
            found = [i for i in file.infolist() if PurePosixPath(i.filename).name == PurePosixPath(member).name]
            if not found:
                raise ValueError(f"{archive} holds no {member}; download it again from the official page.")
            free = shutil.disk_usage(archive.parent).free
            if found[0].file_size > free:
                raise ValueError(
                    f"{member} unpacks to {found[0].file_size / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free "
                    f"beside {archive}; make room and start again."
                )
            with file.open(found[0]) as packed, part.open("wb") as out:
                shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{archive} is damaged or incomplete ({_first_line(error)}); remove it and download it again."
        ) from None
    return part.replace(target)


def convert(name: str, out: str | Path, original: str | Path | None = None) -> Path:
    """Write out/interactions.csv.gz from a data set's original file, downloaded into `out` unless `original` is given.

    What was in `out` stays as it was unless everything went well. Returns the folder.
    """
    source, out = SOURCES[name], Path(out)
    file = fetch(name, out) if original is None else Path(original)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}; give the path of {source.file}.")
    if file.suffix == ".zip":
        file = unpack(file, source.member or source.file)
    frame = source.read(file)
    out.mkdir(parents=True, exist_ok=True)
    part = out / "interactions.part.csv.gz"
    frame.to_csv(part, index=False)
    part.replace(out / "interactions.csv.gz")
    return out


def compare_filters(frame: pd.DataFrame, paper: tuple[int, int, int]) -> pd.DataFrame:
    """Records, users and items after each k-core and treatment of repeats, nearest to a row of Table 2 first.

    Columns: k_core, repeats, records, users, items, average length, sparsity, distance. The distance is the mean of
    |log(ours / paper's)| over the three counts: 0.1 means about 10% off.
    """
    rows = []
    for repeats in REPEATS:
        for k_core in CORES:
            try:
                kept = filter_interactions(frame, k_core, repeats)
            except ValueError:  # nothing is left
                continue
            counts = len(kept), kept["user_id"].nunique(), kept["item_id"].nunique()
            pairs = len(kept.drop_duplicates(["user_id", "item_id"]))
            distance = sum(abs(math.log(a / b)) for a, b in zip(counts, paper, strict=True)) / 3
            sparsity = 1 - pairs / (counts[1] * counts[2])
            rows.append((k_core, repeats, *counts, counts[0] / counts[1], sparsity, distance))
    names = ["k_core", "repeats", "records", "users", "items", "average length", "sparsity", "distance"]
    return pd.DataFrame(rows, columns=names).sort_values("distance", ignore_index=True)


def _table(path: Path, **options) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **options)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} can't be read ({_first_line(error)}); it may be incomplete, so download it again."
        ) from None


def _seconds(stamps: pd.Series, path: Path, first_line: int, form: str = "ISO8601") -> pd.Series:
    parsed = pd.to_datetime(stamps, errors="coerce", utc=True, format=form)
    _complain(parsed.isna(), stamps, path, first_line, "time")
    return (parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)


def _numbers(frame: pd.DataFrame, columns: list[str], path: Path, first_line: int) -> pd.DataFrame:
    found = {name: pd.to_numeric(frame[name], errors="coerce") for name in columns}
    for name, values in found.items():
        _complain(values.isna(), frame[name], path, first_line, name)
    return _filled(frame.assign(**found), path, first_line)


def _filled(frame: pd.DataFrame, path: Path, first_line: int) -> pd.DataFrame:
    for name in ("user_id", "item_id"):
        _complain(frame[name].isna(), frame[name], path, first_line, name)
    return frame


def _complain(bad: pd.Series, values: pd.Series, path: Path, first_line: int, what: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise ValueError(
            f"{path}, line {row + first_line}: {what} {values.iloc[row]!r} can't be understood; "
            "give the original file, or mend that line."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
