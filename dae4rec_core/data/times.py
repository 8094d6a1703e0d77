"""A column of times in Unix seconds: understood as a whole, or refused in one sentence."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

# a day at least, and minutes beside hours: what was cut off in the middle of a time is no time
ISO = r"\d{4}-?\d\d-?\d\d([T ]\d\d:?\d\d(:?\d\d(\.\d+)?)? ?(Z|UTC|[+-]\d\d(:?\d\d)?)?)?"
DATES = [f"{first}{mark}{second}{mark}%Y" for mark in "/.-" for first, second in (("%d", "%m"), ("%m", "%d"))]
DATES += ["%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y"]
CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p"]
FORMATS = [date + clock for date, clock in itertools.product(DATES, CLOCKS)]
FORMATS += ["%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT"]
WHOLE = r"\d{4}(?!.*:\d(?!\d))"  # pandas takes "now" in any format, and minutes of one digit, which nobody writes


def unix_seconds(stamps: pd.Series, path: Path) -> pd.Series:
    """Times as numbers, as ISO 8601, or all in one of FORMATS; the first of these that understands every row.

    stamps: none is missing; its index says where each stands, as "line" or "row" of `path`, in that word. Numbers
    are taken as they are. A time without a zone is UTC. Raises ValueError when a row is not understood or is infinite,
    when the days of all rows could be months, or when some numbers are seconds and others milliseconds.
    """
    if pd.api.types.is_numeric_dtype(stamps) and not pd.api.types.is_bool_dtype(stamps):
        readings = [stamps]
    elif pd.api.types.is_datetime64_any_dtype(stamps):
        readings = [_seconds(stamps)]
    else:
        readings = _readings(stamps.astype(str))
    unknown = [~np.isfinite(reading) for reading in readings]
    best = int(np.argmin([rows.sum() for rows in unknown]))
    if unknown[best].any():
        place = unknown[best].idxmax()
        others = ", nor can any other" if unknown[best].all() else " as the others are"
        raise ValueError(
            f"{path}, {stamps.index.name} {place}: timestamp {str(stamps[place])!r} can't be understood{others}; use "
            "Unix seconds or a date such as 2012-04-03 18:00 in all of them, without blanks around it."
        )
    if any(
        not reading.equals(readings[best]) for reading, rows in zip(readings, unknown, strict=True) if not rows.any()
    ):
        raise ValueError(
            f"{path}: timestamps such as {stamps.iloc[0]!r} can be read with the day first or with the month first, "
            "and no row tells which; write them as 2012-04-03."
        )
    seconds, finer = readings[best].between(1e8, 1e10), readings[best] >= 1e11  # 1973 to 2286; what isn't before 5138
    if seconds.any() and finer.any():
        one, other = stamps[finer], stamps[seconds]
        raise ValueError(
            f"{path}, {stamps.index.name} {one.index[0]}: timestamp {one.iloc[0]} looks like milliseconds or finer, "
            f"and {other.iloc[0]} like seconds; use one unit in all rows."
        )
    return readings[best]


def _readings(text: pd.Series) -> list[pd.Series]:
    """The column as numbers, else as ISO 8601, else in each format that the first row has; NaN where it isn't."""
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers.notna().all():
        return [numbers]
    iso = _seconds(text.where(text.str.fullmatch(ISO)).str.replace(r" ?UTC$", "Z", regex=True), "ISO8601")
    if iso.notna().all():
        return [iso]
    text = text.where(text.str.contains(WHOLE))
    formats = [form for form in FORMATS if _seconds(text.head(1), form).notna().all()]
    return [numbers, iso, *(_seconds(text, form) for form in formats)]


def _seconds(stamps: pd.Series, form: str | None = None) -> pd.Series:
    parsed = pd.to_datetime(stamps, errors="coerce", utc=True, format=form)
    parsed = parsed.where(parsed.dt.year.between(1678, 2261))  # what counts in nanoseconds; beyond them is no visit
    return (parsed - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(microseconds=1) / 1_000_000  # exact, which / isn't
