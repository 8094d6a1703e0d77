"""Interactions and item attributes from files: read and validate."""

import zlib
from pathlib import Path

import pandas as pd

from dae4rec_core.data.sizes import check_size

COLUMNS = ["user_id", "item_id", "timestamp"]
IDS = ["user_id", "item_id"]


def load_interactions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Read interactions, and item attributes where an items.csv lies beside them.

    path: a CSV (.csv, .csv.gz) or Parquet file with columns user_id, item_id, timestamp (a number or a date), or a
    folder that holds interactions.csv, .csv.gz or .parquet. Rows keep the file's order where timestamps are equal.
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
    frame = _validate(_read_table(path), path)
    beside = [path.with_name(name) for name in ("items.csv", "items.csv.gz") if path.with_name(name).is_file()]
    items = _read_table(beside[0]) if beside else None
    if items is not None and "item_id" not in items:
        raise ValueError(f"{beside[0]} has no column item_id (it has {', '.join(items.columns)}); rename one to it.")
    return frame, items


def _read_table(path: Path) -> pd.DataFrame:
    """A table whose ids are text as it stands in the file: "007" and "NA" are ids, only an empty field is missing."""
    check_size(path)
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            ids = frame[frame.columns.intersection(IDS)]
        else:
            frame = pd.read_csv(path, encoding="utf-8", dtype=dict.fromkeys(IDS, str))
            if not isinstance(frame.index, pd.RangeIndex):  # pandas takes a first field without a name as the index
                raise ValueError("its rows are longer than its header")
            # read again, since pandas can't leave "NA" and "null" alone in some columns only
            ids = pd.read_csv(path, encoding="utf-8", usecols=lambda name: name in IDS, dtype=str, na_filter=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; it needs a header {','.join(COLUMNS)} and rows below it.") from None
    except (ValueError, OSError, EOFError, zlib.error) as error:  # the last two: a damaged .gz
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} can't be read as a table ({why}); give CSV, CSV.GZ or Parquet.") from None
    for name in ids.columns:
        frame[name] = ids[name].astype("string").replace({"": pd.NA})
    return frame


def _validate(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The same with timestamps in Unix seconds; raises ValueError for a missing column, value or time."""
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)} (it has {', '.join(map(str, frame.columns))}); "
            f"rename its columns to {', '.join(COLUMNS)}."
        )
    if frame.empty:
        raise ValueError(f"{path} has a header but no rows; add interactions.")
    for name in COLUMNS:
        if frame[name].isna().any():
            row = int(frame[name].isna().to_numpy().argmax()) + 2  # the header is line 1
            raise ValueError(f"{path}, line {row}: {name} is empty; fill it in or remove the line.")
    stamps = frame["timestamp"]
    if not pd.api.types.is_numeric_dtype(stamps):
        parsed = pd.to_datetime(stamps, errors="coerce", utc=True, format="mixed")
        if parsed.isna().any():
            row = int(parsed.isna().to_numpy().argmax())
            raise ValueError(
                f"{path}, line {row + 2}: timestamp {stamps.iloc[row]!r} can't be understood; "
                "use Unix seconds or a date such as 2012-04-03 18:00."
            )
        stamps = (parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return frame.assign(timestamp=stamps)
