"""Interactions and item attributes from files: read and validate."""

import csv
import gzip
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dae4rec_core.data.sizes import check_size
from dae4rec_core.data.times import ISO, unix_seconds

COLUMNS = ["user_id", "item_id", "timestamp"]
IDS = ["user_id", "item_id"]
LABELS = ["name", "description"]  # what a reader calls an item
NUMBER = r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?"
# how files begin that are often given in the place of a CSV file, and what is said of them
KINDS = {
    rb"\xd0\xcf\x11\xe0|PK\x03\x04.*?(\[Content_Types\]|_rels/|docProps/|xl/work|mimetypeapplication/)": (
        "is a workbook of Excel or of a program like it; save it as CSV"
    ),
    rb"\x1f\x8b": "is compressed, as its first bytes say; unpack it, or name it .csv.gz",
    rb"PK\x03\x04|BZh\d1AY|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd": "is compressed, as its first bytes say; unpack it",
    rb"PAR1[^\n]*?[\0-\x08\x0e-\x1f]": "holds Parquet, as its first bytes say; name it .parquet",
    rb"ARROW1|FEA1": "holds Arrow or Feather; save it as Parquet or CSV",
    rb"\xff\xfe|\xfe\xff|.?\0": "can't be read as a table, since its text is not UTF-8; save it as UTF-8",
    rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"': "holds JSON, which is no table; give CSV, CSV.GZ or Parquet",
}


def load_interactions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Read interactions, and item attributes where an items.csv lies beside them.

    path: a CSV (.csv, .csv.gz) or Parquet file with columns user_id, item_id, timestamp (see `unix_seconds`), or a
    folder that holds interactions.csv, .csv.gz or .parquet. Ids are text as it stands in the file: "007" and "NA" are
    ids, only an empty field is missing. Rows keep the file's order where timestamps are equal. An items.csv without
    item_id is refused in a folder that was named, and left unread beside a file, where it may belong to something else.
    Returns (interactions, items or None). Raises FileNotFoundError or ValueError with one sentence.
    """
    path = Path(path)
    beside, folder = items_beside(path), path.is_dir()
    if folder:
        names = ["interactions.csv", "interactions.csv.gz", "interactions.parquet"]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"Folder {path} holds none of {', '.join(names)}; put one there or name a file.")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path given as data.")
    frame = _read_table(path, COLUMNS)
    if frame.empty:
        raise ValueError(f"{path} has a header but no rows; add interactions.")
    frame["timestamp"] = unix_seconds(frame["timestamp"], path)
    if beside is None or not (folder or _may_have_item_id(beside)):
        return frame.reset_index(drop=True), None
    return frame.reset_index(drop=True), _read_table(beside, ["item_id"]).reset_index(drop=True)


def items_beside(path: Path) -> Path | None:
    """The items.csv or items.csv.gz in a folder, or beside a file."""
    folder = path if path.is_dir() else path.parent
    return next((folder / name for name in ("items.csv", "items.csv.gz") if (folder / name).is_file()), None)


def _may_have_item_id(path: Path) -> bool:
    """Does the first line name item_id, in whatever form? A damaged file may, and is left to the reader."""
    try:
        start = _first_bytes(path).replace(b"\0", b"").removeprefix(b"\xef\xbb\xbf")  # without what UTF-16 puts in
        return bool(re.match(rb"[^\n]*\bitem_id\b", start.lstrip()))
    except (OSError, EOFError, zlib.error):
        return True


def _read_table(path: Path, needed: list[str]) -> pd.DataFrame:
    """A table with the columns `needed`, nothing missing in them; its index says on which line or row each stands."""
    check_size(path)
    try:
        frame = (_read_parquet if path.suffix.lower() == ".parquet" else _read_csv)(path, needed)
    except UnicodeDecodeError:
        raise ValueError(f"{path} can't be read as a table, since its text is not UTF-8; save it as UTF-8.") from None
    except (OSError, EOFError, zlib.error) as error:  # zlib's: a damaged .gz
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} can't be read as a table ({why}); give CSV, CSV.GZ or Parquet.") from None
    for name in needed:
        values = frame[name]
        if name in IDS:
            broken = values.str.contains("[\n\r\0]", na=False)
            if broken.any():
                raise ValueError(
                    f"{path}, {_first(broken)}: {name} {values[broken].iloc[0]!r} holds a line break or a NUL; "
                    "a stray quote may have swallowed what follows, so mend the quotes or the id."
                )
        if values.isna().any():
            raise ValueError(f"{path}, {_first(values.isna())}: {name} is empty; fill it in or remove the line.")
    return frame


def _first(bad: pd.Series) -> str:
    """Where the first of the bad rows stands: "line 3"."""
    return f"{bad.index.name} {bad.idxmax()}"


def _first_bytes(path: Path) -> bytes:
    with _opener(path)(path, "rb") as file:
        return file.read(2**16)


def _opener(path: Path) -> Callable:
    return gzip.open if path.suffix.lower() == ".gz" else open


def _read_csv(path: Path, needed: list[str]) -> pd.DataFrame:
    start = _first_bytes(path)
    for beginning, what in KINDS.items():
        if re.match(beginning, start, re.DOTALL):
            raise ValueError(f"{path} {what}.")
    lines, names = _lines_of_rows(path, needed)
    types = {written: str for written, name in names.items() if name in IDS + LABELS}
    try:
        with _opener(path)(path, "rb") as file:  # low_memory would guess the type of a column piece by piece
            frame = pd.read_csv(file, encoding="utf-8", dtype=types, low_memory=False, float_precision="round_trip")
        # read again, since pandas can't leave "NA" and "null" alone in some columns only
        with _opener(path)(path, "rb") as file:
            ids = pd.read_csv(file, encoding="utf-8", usecols=types.__contains__, dtype=str, na_filter=False)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} can't be read as a table ({error}); mend its quotes.") from None
    if len(frame) != len(lines):  # one column only, where a line of blanks is a row for one of them
        raise ValueError(f"{path} can't be read as a table (a line holds only blanks); remove such lines.")
    frame, ids = frame.rename(columns=names), ids.rename(columns=names)
    for name in ids.columns:
        frame[name] = ids[name].astype("string").replace({"": pd.NA})
    return frame.set_axis(pd.Index(lines, name="line"))


def _lines_of_rows(path: Path, needed: list[str]) -> tuple[array, dict[str, str]]:
    """On which line of a CSV file each row begins, and the name of each column, by the header as written.

    Raises ValueError unless the header has the columns `needed` and all rows are as long as it. The csv module looks at
    the file before pandas, which would take the first field of longer rows for an index, fill shorter ones, stop at a
    NUL and accept stray quotes, all in silence.
    """
    lines, header, end = array("q"), None, 0
    names: dict[str, str] = {}
    with _opener(path)(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            for row in rows:
                line, end = end + 1, rows.line_num
                if "\0" in "".join(row):
                    raise ValueError(f"{path}, line {line}: it holds a NUL character; remove it.")
                if header is None:
                    if row:  # blank lines are skipped
                        header, names = row, _column_names(row, line, path, needed)
                elif len(row) == len(header):
                    lines.append(line)
                elif row:
                    raise ValueError(
                        f"{path}, line {line}: its number of fields is {len(row)} and the header's is {len(header)}; "
                        "leave nothing out between commas, and put a field that holds a comma in quotes."
                    )
        except csv.Error as error:
            raise ValueError(f"{path}, line {end + 1}: its quotes don't match ({error}); mend them.") from None
    if header is None:
        raise ValueError(f"{path} is empty; it needs a header {','.join(needed)} and rows below it.")
    return lines, names


def _column_names(header: list[str], line: int, path: Path, needed: list[str]) -> dict[str, str]:
    """The name of each column by what the header holds: without blanks around it, unless that would make two alike.

    Raises ValueError when a name needed is missing or stands there twice.
    """
    names = {written: written.strip() for written in header}
    if len(set(names.values())) < len(names):
        names = {written: written for written in header}
    if set(needed).isdisjoint(names.values()):
        _check_header(header, f"{path}, line {line}", needed)
    _check_names([names[written] for written in header], path, needed)
    return names


def _check_header(row: list[str], place: str, needed: list[str]) -> None:
    """Raises ValueError when a first line without any of the names needed is plainly something else than a header."""
    if row[0].lstrip().startswith(("sep=", "#")):
        raise ValueError(f"{place}: {','.join(row)!r} is a note and no header; remove this line.")
    for mark, what in ((";", "semicolons"), ("\t", "tabs")):
        if len(row) == 1 and mark in row[0]:
            raise ValueError(f"{place}: its columns are separated by {what}; save the file with commas between them.")
    for number, field in enumerate(row, 1):
        if re.fullmatch(f"{NUMBER}|{ISO}", field.strip()):
            raise ValueError(
                f"{place}: it looks like data, since field {number}, {field!r}, is a number or a time; put a "
                f"header line with {','.join(needed)} above it."
            )


def _read_parquet(path: Path, needed: list[str]) -> pd.DataFrame:
    """A Parquet file whose ids are text or whole numbers."""
    import pyarrow as pa  # here, as in `sizes`
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path).replace_schema_metadata()  # without what pandas noted there, which may be damaged
        table.validate(full=True)  # text that is no UTF-8 would fail wherever it is used
        frame = table.to_pandas()
    except pa.ArrowException as error:
        raise OSError(str(error) or type(error).__name__) from None
    _check_names(table.schema.names, path, needed)
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if field.name in IDS and not (text or pa.types.is_integer(kind)):
            raise ValueError(f"{path}: {field.name} is of type {kind}; make it text or whole numbers.")
    for name in frame.columns.intersection(IDS):
        frame[name] = frame[name].astype("string").replace({"": pd.NA})
    return frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="row"))


def _check_names(names: list[str], path: Path, needed: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise ValueError(f"{path} has the column {twice[0]!r} twice; remove one or rename it.")
    missing = [name for name in needed if name not in names]
    if missing:
        has = ", ".join(name if name.isprintable() and name == name.strip() else repr(name) for name in names)
        raise ValueError(
            f"{path} has no column {', '.join(missing)} (it has {has}); rename its columns to {', '.join(needed)}."
        )
