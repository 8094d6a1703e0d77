"""How large a file is inside, found out before it is read: a few kilobytes may hold more than any memory."""

import gzip
import zipfile
import zlib
from pathlib import Path

import psutil

FOLD = 100  # tables of interactions shrink three- to tenfold; gzip can reach a thousandfold
ROOM = 2**24  # bytes that do no harm, however small their file
# what reading costs at its peak, measured on rows of 6 to 71 bytes: 77 to 302 bytes a row
BYTES_A_ROW, BYTES_A_BYTE = 70, 4


def check_size(path: Path) -> None:
    """Raises ValueError for a table that holds far more than its file, or more than the free memory takes.

    path: CSV, CSV.GZ, Parquet or Excel. Text is run through once, which takes a tenth of the time that reading does. A
    damaged file is left to the reader, who says what is wrong.
    """
    free, ending = psutil.virtual_memory().available, path.suffix.lower()
    try:
        if ending == ".parquet":
            rows, columns = _parquet_shape(path)
            check_expansion(path, 8 * rows * columns)
            _check_memory(path, rows, 8 * rows * columns, free)
        elif ending == ".xlsx":
            with zipfile.ZipFile(path) as book:
                size = sum(info.file_size for info in book.infolist())
            check_expansion(path, size)
            _check_memory(path, 0, size, free)
        else:
            size = rows = 0
            with gzip.open(path) if ending == ".gz" else path.open("rb") as stream:
                while block := stream.read(2**20):
                    size, rows = size + len(block), rows + block.count(b"\n")
                    check_expansion(path, size)
                    _check_memory(path, rows, size, free)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return


def _parquet_shape(path: Path) -> tuple[int, int]:
    """Rows and columns, as the file's end states them. Raises OSError for a damaged one."""
    import pyarrow  # here, since an environment that reads CSV alone, as that of the peers, does without it
    from pyarrow import parquet

    try:
        about = parquet.read_metadata(path)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the second: the name of a column
        raise OSError(str(error)) from None
    return about.num_rows, about.num_columns


def check_expansion(path: Path, size: int) -> None:
    """Raises ValueError when a file that holds `size` bytes has to be made for harm."""
    if size > max(ROOM, FOLD * path.stat().st_size):
        raise ValueError(
            f"{path} holds more than {FOLD} times its own size, as no table of interactions does; get it again from "
            "where it comes from, or unpack it yourself if you trust it."
        )


def _check_memory(path: Path, rows: int, size: int, free: int) -> None:
    need = BYTES_A_ROW * rows + BYTES_A_BYTE * size
    if need > free:
        raise ValueError(
            f"{path} takes more than {need / 1e9:,.1f} GB of memory to read, and {free / 1e9:,.1f} GB are free; "
            "give a part of it, or more memory."
        )
