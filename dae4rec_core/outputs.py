"""Where results go: tried before the work, kept for one run at a time, and changed by one rename."""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from dae4rec_core.distributed import own_rank


@contextlib.contextmanager
def reserved(folder: str | Path, name: str = "") -> Iterator[None]:
    """Keep a folder, or one file in it, for this run alone, until the block ends; the folder is made where needed.

    The lock belongs to the operating system, which takes it from a process that dies. Of several processes of one run
    the first one holds it. A folder that was made and stayed empty goes again.
    Raises ValueError when another run holds it, or when nothing can be written there.
    """
    if own_rank() > 0:
        yield
        return
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder.")
    made, lock = not folder.exists(), FileLock(folder / f"{name}.lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"Another run is writing to {folder / name}; wait until it has ended, or write somewhere else."
        ) from None
    except OSError as error:
        raise ValueError(f"{folder / name} can't be written ({error.strerror}); choose a place that can be.") from None
    try:
        if name and (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a folder; give the name of a file.")
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            os.unlink(lock.lock_file)  # while it is held: who gets hold of it now sees that its name is gone
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """A path beside `file` to write to; when the block ends it is put in the file's place by one rename.

    A run that is killed here loses nothing, and what it leaves behind is removed by the next one that writes the file.
    Raises ValueError, with the old file as it was, when the disk is full or the place can't be written.
    """
    file = Path(file)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")  # other processes may write the same Z*
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob(f"{glob.escape(file.name)}.*.new"):
            if not psutil.pid_exists(int(left.suffixes[-2][1:])):
                left.unlink(missing_ok=True)
        new.touch()
        rights = new.stat().st_mode  # as this user's files have them; safetensors would keep them from all others
        yield new
        new.chmod(rights)
        new.replace(file)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(
            f"{file} can't be written ({reason}); what was there before is as it was. Make room, or choose another "
            "place, and start again."
        ) from None
    finally:
        new.unlink(missing_ok=True)
