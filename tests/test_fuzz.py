"""Damaged files: each is read as it stands, or refused in one sentence; never a traceback, never something else.

What stands in a CSV file is read a second time, plainly, by its grammar. A trial's random numbers come from its number
alone, so that a failure can be made again. The trials take a few seconds here, and as long as told in `make fuzz`.
"""

import csv
import io
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.data.files import load_interactions

SECONDS = float(os.environ.get("FUZZ_SECONDS", 3))
LEAST = 40  # trials, however busy the machine is


def fuzz(trial: Callable[[np.random.Generator], str]) -> Counter[str]:
    """How often each outcome came, among the trials 0, 1, ... that fit into the time.

    trial: gets its own random numbers, returns an outcome, and raises whatever must not happen.
    """
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    while outcomes.total() < LEAST or time.monotonic() < end:
        number = outcomes.total()
        try:
            outcomes[trial(np.random.default_rng(number))] += 1
        except Exception as error:
            raise AssertionError(f"Trial {number} of {trial.__name__}: {error!r}") from error
    print(trial.__name__, dict(outcomes.most_common()))
    return outcomes


# ---- interactions and items as CSV -------------------------------------------------------------------

Row = tuple[str, str, float]
IDS = ["u1", "u2", "a", "b", "1", "001", "10", "NA", "null", "nan", "True", "2012", "é", "a,b", 'say "a"', " a"]
CLOCKS = ["inf", "-inf", "nan", "True", "18:00", "now", "today", "", " ", "NaT", "1e3", "03/04/2012", "13/04/2012"]
CLOCKS += ["04/13/2012", "2012-04-03", "2012-04", "2012", "20120403", "2012-04-03T18:00:00+02:00", "2012-13-04", "0x10"]
FORMS = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%d.%m.%Y", "%d %b %Y"]


def whole_table(rng: np.random.Generator) -> list[list[str]]:
    """A table of interactions, its header first: ids that look like other things, times of one kind."""
    header = ["user_id", "item_id", "timestamp", "shop", "note"][: rng.integers(3, 6)]
    moments = rng.integers(1_300_000_000, 1_400_000_000, size=rng.integers(2, 25))
    form = rng.choice(["seconds", "decimals", *FORMS])
    rows = [dict(zip(header[:2], rng.choice(IDS, 2), strict=True)) for _ in moments]
    for row, moment in zip(rows, moments.tolist(), strict=True):
        stamp = {"seconds": str(moment), "decimals": f"{moment}.25"}.get(form)
        row |= {"timestamp": stamp or datetime.fromtimestamp(moment, UTC).strftime(form)}
        row |= {"shop": str(rng.integers(9)), "note": rng.choice(["", "fine", "5, or 6", 'an "ill" one'])}
    if rng.random() < 0.3:
        rng.shuffle(header)
    return [header, *([row[name] for name in header] for row in rows)]


def damaged(table: list[list[str]], rng: np.random.Generator) -> bytes:
    """The table as a CSV file, with one to three damages, or with none."""

    def cells() -> None:
        row = table[rng.integers(len(table))]
        place = int(rng.integers(len(row))) if row else 0
        match rng.integers(6):
            case 0:
                row.insert(place, str(rng.choice([*IDS, ""])))
            case 1:
                del row[place : place + 1]
            case 2:
                rng.shuffle(row)
            case 3:
                row[place : place + 1] = [str(rng.choice([*CLOCKS, *IDS]))]
            case 4:  # every row a field longer than the header
                for other in table[1:]:
                    other.insert(place, "x")
            case 5:  # a column twice, or a needed one renamed
                table[0][place : place + 1] = [str(rng.choice([*table[0], "user_id", "timestamp", "x"]))]
        if rng.random() < 0.5 and "timestamp" in table[0] and len(table) > 1:
            row = table[rng.integers(1, len(table))]
            place = table[0].index("timestamp")
            row[place : place + 1] = [str(rng.choice(CLOCKS))]

    def characters(text: str) -> str:
        place = int(rng.integers(len(text) + 1))
        match rng.integers(7):
            case 0:  # inserted
                return text[:place] + str(rng.choice(list('",\n\r\0 \t;x1-\ufeff\x85'))) + text[place:]
            case 1:  # a pair of stray quotes
                other = int(rng.integers(len(text) + 1))
                a, b = sorted([place, other])
                return text[:a] + '"' + text[a:b] + '"' + text[b:]
            case 2:  # quotes around what lies between two commas, rows apart
                commas = [m.start() for m in re.finditer(r"[,\n]", text)] or [0]
                a, b = sorted(rng.choice(commas, 2).tolist())
                return text[: a + 1] + '"' + text[a + 1 : b] + '"' + text[b:]
            case 3:  # taken out
                return text[:place] + text[place + int(rng.integers(1, 12)) :]
            case 4:  # cut off
                return text[:place]
            case 5:  # a blank line, or one with blanks
                return re.sub("(?<=\n)", str(rng.choice(["\n", "  \n", "\t\n"])), text, count=1)
            case _:
                return text.replace("\n", str(rng.choice(["\r\n", "\r"])))

    def octets(data: bytes) -> bytes:
        place = int(rng.integers(len(data) + 1))
        return data[:place] + bytes([rng.integers(256)]) + data[place + int(rng.integers(2)) :]

    damages = rng.integers(3, size=rng.integers(4))
    for _ in range((damages == 0).sum()):
        cells()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=int(rng.integers(2))).writerows(table)
    found = text.getvalue()
    for _ in range((damages == 1).sum()):
        found = characters(found)
    data = found.encode()
    for _ in range((damages == 2).sum()):
        data = octets(data)
    return data


def plain_rows(data: bytes) -> list[list[str]] | None:
    """The fields of a CSV file by its grammar, header first, without blank lines; None where it breaks the grammar."""
    text, rows, place = data.decode().removeprefix("\ufeff"), [[]], 0
    field = re.compile(r'"((?:[^"]|"")*)"(?=[,\r\n]|\Z)|([^",\r\n][^,\r\n]*|)(?=[,\r\n]|\Z)')
    while place <= len(text):
        found = field.match(text, place)
        if found is None:
            return None
        rows[-1].append(found[2] if found[1] is None else found[1].replace('""', '"'))
        place = found.end()
        if text[place : place + 1] != ",":
            if len(rows[-1]) == 1 and found[0] == "":  # a blank line
                rows.pop()
            place += text[place : place + 2] == "\r\n"
            rows.append([])
        place += 1
    return rows[:-1]


def plain_times(stamps: list[str]) -> list[float] | None:
    """The times of a whole column in Unix seconds; None where it isn't of one kind, or could be of two."""
    if all(re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", stamp, re.ASCII) for stamp in stamps):
        found = [float(stamp) for stamp in stamps]
        mixed = any(1e8 <= stamp <= 1e10 for stamp in found) and any(stamp >= 1e11 for stamp in found)
        return found if all(map(math.isfinite, found)) and not mixed else None  # seconds and milliseconds
    iso = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?|\d{8}"
    readings = []
    for form in [None, *FORMS[3:], "%m/%d/%Y", "%d/%m/%Y %H:%M", "%m.%d.%Y"]:
        try:
            if form is None:
                moments = [datetime.fromisoformat(re.fullmatch(iso, stamp, re.ASCII)[0]) for stamp in stamps]
            else:
                moments = [datetime.strptime(stamp, form) for stamp in stamps]
            if any(not 1678 <= m.year <= 2261 for m in moments):
                continue
            readings.append([(m if m.tzinfo else m.replace(tzinfo=UTC)).timestamp() for m in moments])
        except (ValueError, TypeError):
            pass
    return readings[0] if readings and all(found == readings[0] for found in readings) else None


def plain_table(data: bytes, needed: list[str]) -> dict[str, list[str]] | None:
    """The needed columns of a CSV file as text, read as plainly as can be; None where it must be refused."""
    try:
        rows = plain_rows(data)
    except UnicodeDecodeError:
        return None
    if not rows or b"\0" in data:
        return None
    header, *rows = rows
    if len({name.strip() for name in header}) == len(set(header)):  # blanks around a name don't count
        header = [name.strip() for name in header]
    if not set(needed) <= set(header):
        return None
    if any(len(row) != len(header) for row in rows) or any(n > 1 and name for name, n in Counter(header).items()):
        return None
    found = {name: [row[header.index(name)] for row in rows] for name in needed}
    ids = [value for name, values in found.items() if name != "timestamp" for value in values]
    return found if all(value and "\n" not in value and "\r" not in value for value in ids) else None


def plain_interactions(data: bytes) -> list[Row] | None:
    """The interactions that stand in a CSV file; None where it must be refused."""
    table = plain_table(data, ["user_id", "item_id", "timestamp"])
    times = plain_times(table["timestamp"]) if table and table["timestamp"] else None
    return times and list(zip(table["user_id"], table["item_id"], times, strict=True))


def refused(path: Path) -> bool:
    """Whether the loader refuses; it must do so in one sentence that names the file."""
    try:
        load_interactions(path)
    except (ValueError, FileNotFoundError) as error:
        sentence = str(error)
        assert str(path.parent) in sentence and sentence.endswith(".") and "\n" not in sentence, sentence
        return True
    return False


@pytest.mark.slow
def test_damaged_interactions(tmp_path):
    path = tmp_path / "a.csv"

    def interactions(rng: np.random.Generator) -> str:
        table = whole_table(rng)
        text = io.StringIO()
        csv.writer(text).writerows(table)
        data = damaged(table, rng)
        path.write_bytes(data)
        original, expected = plain_interactions(text.getvalue().encode()), plain_interactions(data)
        if refused(path):
            assert expected is None, f"refused: {data!r}"
            return "refused in a sentence"
        frame, _ = load_interactions(path)
        found = [(str(u), str(i), float(t)) for u, i, t in frame[["user_id", "item_id", "timestamp"]].to_numpy()]
        assert found == expected, f"{found} is not what stands in {data!r}"
        return "read as before" if found == original else "read as the damaged file now says"

    outcomes = fuzz(interactions)
    assert {"refused in a sentence", "read as before"} <= set(outcomes)


@pytest.mark.slow
def test_damaged_items(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,a,1\n")

    def items(rng: np.random.Generator) -> str:
        names = ["item_id", "name", "note"][: rng.integers(1, 4)]
        rows = [[str(value) for value in rng.choice([*IDS, "x\ny"], len(names))] for _ in range(rng.integers(9))]
        data = damaged([names, *rows], rng)
        (tmp_path / "items.csv").write_bytes(data)
        expected = plain_table(data, ["item_id"])
        if refused(tmp_path):  # named by its folder, so that items.csv belongs to it
            assert expected is None or names == ["item_id"], f"refused: {data!r}"  # there a line of blanks is no row
            return "refused in a sentence"
        found = load_interactions(tmp_path)[1]
        assert {"item_id": found["item_id"].tolist()} == expected, f"{found} is not what stands in {data!r}"
        return "read"

    assert set(fuzz(items)) == {"read", "refused in a sentence"}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_damaged_binary_files(tmp_path, ending):
    """Gzip knows its checksum, Parquet as pandas writes it has none: it may be read as something else."""
    path = tmp_path / f"a.{ending}"

    def binary(rng: np.random.Generator) -> str:
        header, *rows = whole_table(rng)
        frame = pd.DataFrame(rows, columns=header)
        (frame.to_parquet if ending == "parquet" else frame.to_csv)(path, index=False)
        before = None if refused(path) else load_interactions(path)[0]  # days that could be months
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data if rng.random() < 0.8 else data[:place])
        if refused(path):
            return "refused in a sentence"
        if before is not None and load_interactions(path)[0].equals(before):
            return "read as before"
        assert ending == "parquet"
        return "read as the damaged file now says"

    assert fuzz(binary)["refused in a sentence"] > 0
