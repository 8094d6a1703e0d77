"""Interactions and item attributes from files: read and validate."""

import csv
import gzip
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dae4rec_core.data.sizes import check_size
from dae4rec_core.data.times import unix_seconds

COLUMNS = ["user_id", "item_id", "timestamp"]
IDS = ["user_id", "item_id"]


def load_interactions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Read interactions, and item attributes where an items.csv lies beside them.

    path: a CSV (.csv, .csv.gz) or Parquet file with columns user_id, item_id, timestamp (see `unix_seconds`), or a
    folder that holds interactions.csv, .csv.gz or .parquet. Ids are text as it stands in the file: "007" and "NA" are
    ids, only an empty field is missing. Rows keep the file's order where timestamps are equal.
    Returns (interactions, items or None). Raises FileNotFoundError or ValueError with one sentence.
    """
    path = Path(path)
    if path.is_dir():
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
    beside = [path.with_name(name) for name in ("items.csv", "items.csv.gz") if path.with_name(name).is_file()]
    items = _read_table(beside[0], ["item_id"]).reset_index(drop=True) if beside else None
    return frame.reset_index(drop=True), items


def _read_table(path: Path, needed: list[str]) -> pd.DataFrame:
    """A table with the columns `needed`, nothing missing in them; its index says on which line or row each stands."""
    check_size(path)
    try:
        frame = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:  # zlib's: a damaged .gz
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} can't be read as a table ({why}); give CSV, CSV.GZ or Parquet.") from None
    missing = [name for name in needed if name not in frame]
    if missing:
        has = ", ".join(name if name.isprintable() else repr(name) for name in map(str, frame.columns))
        raise ValueError(
            f"{path} has no column {', '.join(missing)} (it has {has}); rename its columns to {', '.join(needed)}."
        )
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


def _read_csv(path: Path) -> pd.DataFrame:
    lines = _lines_of_rows(path)
    try:  # low_memory would guess the type of a column piece by piece
        frame = pd.read_csv(
            path, encoding="utf-8", dtype=dict.fromkeys(IDS, str), low_memory=False, float_precision="round_trip"
        )
        # read again, since pandas can't leave "NA" and "null" alone in some columns only
        ids = pd.read_csv(path, encoding="utf-8", usecols=lambda name: name in IDS, dtype=str, na_filter=False)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} can't be read as a table ({error}); mend its quotes.") from None
    if len(frame) != len(lines):  # one column only, where a line of blanks is a row for one of them
        raise ValueError(f"{path} can't be read as a table (a line holds only blanks); remove such lines.")
    for name in ids.columns:
        frame[name] = ids[name].astype("string").replace({"": pd.NA})
    return frame.set_axis(pd.Index(lines, name="line"))


def _lines_of_rows(path: Path) -> array:
    """On which line of a CSV file each row begins; raises ValueError unless all are as long as the header.

    The csv module looks at the file before pandas, which would take the first field of longer rows for an index, fill
    shorter ones, stop at a NUL and accept stray quotes, all in silence.
    """
    lines, header, end = array("q"), None, 0
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            for row in rows:
                line, end = end + 1, rows.line_num
                if "\0" in "".join(row):
                    raise ValueError(f"{path}, line {line}: it holds a NUL character; remove it.")
                if header is None:
                    header = row or None  # blank lines are skipped
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
        raise ValueError(f"{path} is empty; it needs a header {','.join(COLUMNS)} and rows below it.")
    _check_names(header, path)
    return lines


def _read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file whose ids are text or whole numbers."""
    import pyarrow as pa  # here, as in `sizes`
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path).replace_schema_metadata()  # without what pandas noted there, which may be damaged
        table.validate(full=True)  # text that is no UTF-8 would fail wherever it is used
        frame = table.to_pandas()
    except pa.ArrowException as error:
        raise OSError(str(error) or type(error).__name__) from None
    _check_names(table.schema.names, path)
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if field.name in IDS and not (text or pa.types.is_integer(kind)):
            raise ValueError(f"{path}: {field.name} is of type {kind}; make it text or whole numbers.")
    for name in frame.columns.intersection(IDS):
        frame[name] = frame[name].astype("string").replace({"": pd.NA})
    return frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="row"))


def _check_names(names: Iterable[str], path: Path) -> None:
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise ValueError(f"{path} has the column {twice[0]!r} twice; remove one or rename it.")
