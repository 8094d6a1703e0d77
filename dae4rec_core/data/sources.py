"""The data sets of the paper, from their original files: where they are, how they are read, which filter comes near.

`python -m dae4rec_core data gowalla` downloads the original, reads it and writes data/gowalla/interactions.csv.gz,
which every other command and notebook takes as it is. Nothing is bundled: each set has terms of its own.

The readers were written from the formats' descriptions and are tested on small files of the same form. The originals
could not be fetched where this was made, so no count of theirs is quoted here; the command prints them beside Table 2.
"""

import dataclasses
import functools
import gzip
import hashlib
import math
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from dae4rec_core.config import REPEATS
from dae4rec_core.data.dataset import encode, filter_interactions
from dae4rec_core.data.files import COLUMNS, IDS
from dae4rec_core.data.sizes import check_expansion, check_size

CORES = (3, 5, 10, 15, 20)
EVENTS = ("view", "addtocart", "transaction")
LARGEST = 2**30  # bytes of a download: no original comes near it
# a file cut short, a wrong byte, and (RuntimeError) a password or an unknown compression
DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)
ONLY_EMPTY: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}  # "NA" and "null" are ids like others


@dataclasses.dataclass(frozen=True)
class Source:
    """One original data set.

    page: the official page. url: its file, or None where an account is needed. file: the name it has on disk.
    members: the parts of a zip archive that are read, the interactions first. sha256: of the file, where it is known.
    terms: the licence as far as known. read: file -> interactions, with columns user_id, item_id (strings), timestamp
    (Unix seconds) and what is known of the items. paper: its row of Table 2 as printed (records, users, items, average
    length, sparsity), or None. k_core, repeats: the filter that we would try first; the paper names none.
    """

    title: str
    page: str
    url: str | None
    file: str
    members: tuple[str, ...]
    sha256: str | None
    terms: str
    read: Callable[[Path], pd.DataFrame]
    paper: tuple[float, ...] | None = None
    k_core: int = 5
    repeats: str = "keep"


def read_gowalla(path: Path) -> pd.DataFrame:
    """SNAP's check-ins: user, UTC time, latitude, longitude, place; tabs, no header, newest first."""
    names = ["user_id", "timestamp", "latitude", "longitude", "item_id"]
    frame = _table(path, sep="\t", header=None, names=names)
    frame["timestamp"] = _seconds(frame["timestamp"], path, 1)
    return _numbers(frame, ["latitude", "longitude"], path, 1)[::-1]  # oldest first, also among equal times


def read_foursquare(path: Path) -> pd.DataFrame:
    """The University of Minnesota's checkins.dat: id | user_id | venue_id | latitude | longitude | created_at.

    A printed table: a header, a line of dashes, rows, and a last line that counts them. Its own coordinates are mostly
    empty; those of the venues come from venues.dat (id | latitude | longitude) where it lies beside.
    """
    frame = _dump(path, ["id", "user_id", "item_id", "latitude", "longitude", "timestamp"])
    frame["timestamp"] = _seconds(frame["timestamp"], path, 3)
    frame = _filled(frame, path, 3)[COLUMNS]
    if not path.with_name("venues.dat").is_file():
        return frame
    venues = _dump(path.with_name("venues.dat"), ["item_id", "latitude", "longitude"]).drop_duplicates("item_id")
    for name in ("latitude", "longitude"):
        venues[name] = pd.to_numeric(venues[name], errors="coerce")  # a venue without a place is still a venue
    return frame.merge(venues, how="left", on="item_id")


def read_foursquare_city(path: Path) -> pd.DataFrame:
    """TSMC2014: user, venue, category id, category, latitude, longitude, minutes from UTC, UTC time; tabs, Latin-1."""
    names = ["user_id", "item_id", "category_id", "category", "latitude", "longitude", "offset", "timestamp"]
    frame = _table(path, sep="\t", header=None, names=names, encoding="latin-1", quoting=3)
    frame["timestamp"] = _seconds(frame["timestamp"], path, 1, "%a %b %d %H:%M:%S %z %Y")
    frame = _numbers(frame, ["latitude", "longitude"], path, 1)
    return frame[[*COLUMNS, "category", "latitude", "longitude"]]


def read_retailrocket(path: Path, events: tuple[str, ...] = EVENTS) -> pd.DataFrame:
    """events.csv: timestamp (ms), visitorid, event, itemid, transactionid. `events` are those that count."""
    frame = _table(path)
    _require(frame, ["timestamp", "visitorid", "event", "itemid"], path, "events.csv")
    frame = frame.rename(columns={"visitorid": "user_id", "itemid": "item_id"})
    _complain(~frame["event"].isin(EVENTS), frame["event"], path, 2, "event")
    frame = _numbers(frame, ["timestamp"], path, 2)
    frame = frame.loc[frame["event"].isin(events), COLUMNS]
    return frame.assign(timestamp=frame["timestamp"] / 1000)


def read_online_retail(path: Path) -> pd.DataFrame:
    """Online Retail.xlsx: one invoice is a sequence, in the order of its lines, each article once (our choice).

    Kept: lines with a customer, a positive quantity and an article number; cancellations (invoice "C...") are not.
    """
    check_size(path)
    try:
        text = dict.fromkeys(["InvoiceNo", "StockCode", "Description"], str)
        frame = pd.read_excel(path, engine="calamine", dtype=text, **ONLY_EMPTY)
    except ImportError:
        raise ValueError(
            'Reading Excel files needs python-calamine; install it with pip install -e ".[data]" and start again.'
        ) from None
    except Exception as error:  # calamine has errors of its own
        raise ValueError(f"{path} can't be read as an Excel file ({_first_line(error)}); download it again.") from None
    names = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID"]
    _require(frame, names, path, "Online Retail.xlsx")
    frame = frame.rename(columns={"InvoiceNo": "user_id", "StockCode": "item_id"})
    frame = _numbers(frame, ["Quantity"], path, 2)
    bought = frame["CustomerID"].notna() & (frame["Quantity"] > 0) & ~frame["user_id"].str.startswith("C")
    frame = frame[bought & frame["item_id"].str.match(r"\d{5}")].drop_duplicates(["user_id", "item_id"])
    frame["timestamp"] = _seconds(frame["InvoiceDate"], path, 2)
    return frame[COLUMNS].assign(description=frame["Description"].str.strip())


SOURCES = {
    "foursquare": Source(
        "Foursquare check-ins of the University of Minnesota (Levandoski et al. 2012; Sarwat et al. 2014)",
        "https://archive.org/details/201309_foursquare_dataset_umn",
        "https://archive.org/download/201309_foursquare_dataset_umn/fsq.zip",
        "fsq.zip",
        ("checkins.dat", "venues.dat"),
        None,
        "for research; its authors ask to be cited",
        read_foursquare,
        (303_000, 40_500, 17_200, 7.47, 0.9996),
    ),
    "foursquare_nyc": Source(
        "Foursquare check-ins in New York (Yang et al. 2015), smaller, with categories",
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
        "https://www-public.imtbs-tsp.eu/~zhang_da/pub/dataset_tsmc2014.zip",
        "dataset_tsmc2014.zip",
        ("dataset_TSMC2014_NYC.txt",),
        None,
        "its authors ask to be cited",
        read_foursquare_city,
    ),
    "gowalla": Source(
        "Gowalla check-ins of SNAP (Cho et al. 2011)",
        "https://snap.stanford.edu/data/loc-gowalla.html",
        "https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        "loc-gowalla_totalCheckins.txt.gz",
        (),
        None,
        "its authors ask to be cited",
        read_gowalla,
        (934_100, 51_600, 33_300, 18.10, 0.9995),
        # nearest of what others published: LightGCN's 10-core, 1,027,370 records, 29,858 users, 40,981 items
        10,
        "first_visits",
    ),
    "retailrocket": Source(
        "Retailrocket events (Zykov et al. 2022)",
        "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        None,
        "events.csv",
        ("events.csv",),
        None,
        "CC BY-NC-SA 4.0; Kaggle asks for an account",
        read_retailrocket,
        (549_000, 59_500, 27_500, 9.23, 0.9997),
    ),
    "online_retail": Source(
        "UCI Online Retail (Chen, Sain and Guo 2012): not in the paper, free for everyone",
        "https://archive.ics.uci.edu/dataset/352/online+retail",
        "https://archive.ics.uci.edu/static/public/352/online+retail.zip",
        "online_retail.zip",
        ("Online Retail.xlsx",),
        "f5385cbb54bbebf7196389109c6b0621faab0c304e3702548165e71c84aede8b",
        "CC BY 4.0",
        read_online_retail,
    ),
}
SOURCES["foursquare_tky"] = dataclasses.replace(
    SOURCES["foursquare_nyc"],
    title="Foursquare check-ins in Tokyo (Yang et al. 2015), smaller, with categories",
    members=("dataset_TSMC2014_TKY.txt",),
)
SOURCES["retailrocket_views"] = dataclasses.replace(
    SOURCES["retailrocket"],
    title="Retailrocket events (Zykov et al. 2022), views only",
    read=functools.partial(read_retailrocket, events=("view",)),
)


def fetch(name: str, folder: str | Path) -> Path:
    """The original file of a data set in `folder`: the one that lies there, or a download with a progress bar.

    A download appears under its name only when it is complete, at most LARGEST bytes long and its checksum is right.
    Where no checksum is pinned, since we know of no publisher's page that states one (all but UCI's file), the first
    file is trusted: it comes by https from the publisher's server or from your own hands, it is read to its end, and
    its checksum is kept beside it as <file>.sha256; every later use is checked against that. Raises ValueError with one
    sentence: what could not be had, and what to do by hand.
    """
    source, folder = SOURCES[name], Path(folder)
    file = folder / source.file
    note = file.with_name(file.name + ".sha256")
    known = source.sha256 or (note.read_text(encoding="utf-8").split()[0] if note.is_file() else None)
    command = f"`python -m dae4rec_core data {name} --out {folder}`"
    by_hand = f"get {source.file} from {source.page}, put it into {folder} and run {command} again."
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as temporary:
        found = file if file.is_file() else _download(source, known, Path(temporary), by_hand)
        digest = _sha256(found)
        if known not in (None, digest):
            raise ValueError(
                f"{file} is not the file it should be (SHA-256 {digest[:12]}..., expected {known[:12]}...); "
                f"remove it{'' if source.sha256 else f' and {note.name}'} and start again."
            )
        if known is None:
            try:
                _read_to_the_end(found)
            except DAMAGED as error:
                raise ValueError(f"{file} is damaged or incomplete ({_first_line(error)}); {by_hand}") from None
            note.write_text(f"{digest}  {file.name}\n", encoding="utf-8")
        return found.replace(file)


def _download(source: Source, known: str | None, folder: Path, by_hand: str) -> Path:
    if source.url is None:
        raise ValueError(f"{source.title}: the file needs an account, so {by_hand}")
    try:
        import pooch
        import requests
        from tqdm import tqdm
    except ImportError:
        raise ValueError('Downloading needs pooch; install it with pip install -e ".[data]" and start again.') from None
    pooch.get_logger().setLevel("ERROR")  # it would tell the checksum of a file that has none; we keep it ourselves

    class Bar(tqdm):
        """Pooch's progress bar, which also stops what is too large, announced or not."""

        def __bool__(self) -> bool:  # pooch asks; tqdm would say no where the length isn't announced
            return True

        def update(self, n: float | None = 1) -> bool | None:
            if max(self.n + (n or 0), self.total or 0) > LARGEST:
                raise requests.RequestException(f"it is larger than {LARGEST:,} bytes, as no original is")
            return super().update(n)

    try:
        with Bar(ncols=79, unit="B", unit_scale=True) as bar:
            loader = pooch.HTTPDownloader(progressbar=bar, timeout=30)
            return Path(pooch.retrieve(source.url, known and f"sha256:{known}", source.file, folder, downloader=loader))
    except requests.ConnectionError:
        why = f"no connection to {source.url.split('/')[2]}"
    except requests.exceptions.ChunkedEncodingError:
        why = "it broke off before its announced end"
    except requests.RequestException as error:
        why = _first_line(error)
    except ValueError:
        why = "its checksum is not the expected one"
    raise ValueError(f"{source.url} could not be downloaded ({why}); {by_hand}")


def _read_to_the_end(file: Path) -> None:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            check_expansion(file, sum(info.file_size for info in archive.infolist()))
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum inside it is wrong")
    elif file.suffix == ".gz":
        with gzip.open(file) as stream:
            while stream.read(2**20):
                check_expansion(file, stream.tell())


def unpack(archive: Path, members: tuple[str, ...], folder: Path) -> list[Path]:
    """Take some files out of a zip archive, from whatever folder inside it, and lay them into `folder`.

    Raises ValueError when the archive is damaged, lacks a member or would expand beyond all measure.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            inside = {PurePosixPath(info.filename).name: info for info in file.infolist() if not info.is_dir()}
            missing = [name for name in members if name not in inside]
            if missing:
                raise ValueError(f"{archive} holds no {missing[0]}; get it again from the official page.")
            check_expansion(archive, sum(inside[name].file_size for name in members))
            for name in members:
                inside[name].filename = name  # where it goes, without its folders
                file.extract(inside[name], folder)
    except DAMAGED as error:
        raise ValueError(
            f"{archive} is damaged or incomplete ({_first_line(error)}); remove it and download it again."
        ) from None
    return [folder / name for name in members]


def convert(name: str, out: str | Path, original: str | Path | None = None) -> Path:
    """Write out/interactions.csv.gz from a data set's original file, downloaded into `out` unless `original` is given.

    original: the file as its page offers it, or the part of it that is read (see Source.members). What was in `out`
    stays as it was unless everything went well, and nothing is written elsewhere. Returns the folder. Raises ValueError
    or FileNotFoundError with one sentence.
    """
    source, out = SOURCES[name], Path(out)
    if original is not None and not Path(original).is_file():
        raise FileNotFoundError(f"There is no file {original}; give the path of {source.file}.")
    try:
        file = fetch(name, out) if original is None else Path(original)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="convert-", dir=out) as temporary:
            folder = Path(temporary)
            if file.suffix == ".zip":
                file = unpack(file, source.members or (source.file,), folder)[0]
            table = folder / "interactions.csv.gz"
            quick = {"method": "gzip", "compresslevel": 1}  # more effort takes thrice as long for a few percent
            source.read(file).to_csv(table, index=False, encoding="utf-8", compression=quick)
            table.replace(out / "interactions.csv.gz")
    except OSError as error:
        raise ValueError(
            f"{out} can't be written ({_first_line(error)}); make room or give another folder with --out."
        ) from None
    return out


def beside_table_2(frame: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Our statistics after the source's own filter beside its row of Table 2.

    Rows: records, users, items, average length, sparsity. Columns: paper, ours, difference (ours / paper's - 1; for the
    sparsity in its own points). Raises ValueError when the filter leaves nothing.
    """
    ours = pd.Series(encode(filter_interactions(frame[COLUMNS], source.k_core, source.repeats)).statistics())
    paper = pd.Series(source.paper, ours.index, dtype=float)
    difference = ours / paper - 1
    difference["sparsity"] = ours["sparsity"] - paper["sparsity"]
    return pd.DataFrame({"paper": paper, "ours": ours, "difference": difference})


def compare_filters(frame: pd.DataFrame, paper: tuple[float, ...]) -> pd.DataFrame:
    """Records, users and items after each k-core and treatment of repeats, nearest to a row of Table 2 first.

    Columns: k_core, repeats, records, users, items, average length, sparsity, distance. The distance is the mean of
    |log(ours / paper's)| over the three counts: 0.1 means about 10% off.
    """
    codes = {name: pd.factorize(frame[name])[0] for name in IDS}  # numbers sort faster than strings
    frame = frame[COLUMNS].assign(**codes)
    rows = []
    for repeats in REPEATS:
        for k_core in CORES:
            try:
                facts = encode(filter_interactions(frame, k_core, repeats)).statistics()
            except ValueError:  # nothing is left
                continue
            counts = zip(list(facts.values())[:3], paper[:3], strict=True)
            distance = sum(abs(math.log(ours / theirs)) for ours, theirs in counts) / 3
            rows.append({"k_core": k_core, "repeats": repeats, **facts, "distance": distance})
    if not rows:
        raise ValueError(
            f"No interactions are left after even the {CORES[0]}-core filter; give the whole original file."
        )
    return pd.DataFrame(rows).sort_values("distance", ignore_index=True)


def _table(path: Path, encoding: str = "utf-8", **options: Any) -> pd.DataFrame:
    check_size(path)
    try:
        frame = pd.read_csv(path, dtype=str, encoding=encoding, skip_blank_lines=False, **ONLY_EMPTY, **options)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} can't be read ({_first_line(error)}); it may be incomplete, so remove it and get it again."
        ) from None
    if not isinstance(frame.index, pd.RangeIndex):  # what pandas makes of rows that are longer than their names
        raise ValueError(f"{path} has more columns than the original file; give the original.")
    frame = frame.dropna(how="all")  # blank lines; the index still counts them
    if frame.empty:
        raise ValueError(f"{path} holds no rows; it may be incomplete, so remove it and get it again.")
    return frame


def _dump(path: Path, names: list[str]) -> pd.DataFrame:
    frame = _table(path, sep="|", header=None, names=names, skiprows=2)
    frame = frame.apply(lambda column: column.str.strip()).replace("", None)
    return frame[~frame[names[0]].str.startswith("(", na=False)]  # the last line: (1021970 rows)


def _require(frame: pd.DataFrame, names: list[str], path: Path, original: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; give the original {original}, not another file.")


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
    for name in IDS:
        _complain(frame[name].isna(), frame[name], path, first_line, name)
    return frame


def _complain(bad: pd.Series, values: pd.Series, path: Path, first_line: int, what: str) -> None:
    if bad.any():
        row = int(bad.index[bad][0])
        why = "is empty" if pd.isna(values[row]) else f"{values[row]!r} can't be understood"
        raise ValueError(f"{path}, line {row + first_line}: {what} {why}; give the original file, or mend that line.")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
