"""How a command ends: by its work, or by one sentence on stderr and an exit status."""

import contextlib
import io
import os
import sys
from collections.abc import Callable

import torch.distributed as dist

from dae4rec_core.distributed import own_rank
from dae4rec_core.terminal import printable


def end_well(program: str, work: Callable[[], object], goes_on: bool) -> int:
    """Do a command's work and return its exit status; `program` stands before the sentence.

    goes_on: whether the same command, after Ctrl-C, goes on from what it saved.

    0: done. 2: bad input, a place that can't be written, or another process of the run that is gone. 130: stopped by
    Ctrl-C. 141: nobody reads the output any more, as behind `| head`. Every other error is a mistake of ours and keeps
    its traceback.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # closed, as a daemon has them
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 is shown \xe9 for what it lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        work()
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        after = "goes on from what was saved" if goes_on else "begins anew"
        status, sentence = 130, f"Stopped; what was there before stays, and the same command {after}."
    except BrokenPipeError:
        status, sentence = 141, "Nobody reads the output any more, so the command ended; what was saved stays."
        with contextlib.suppress(OSError, ValueError):  # or Python would complain once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        status, sentence = 2, str(error)
    except OSError as error:
        status, sentence = (
            2,
            str(error) if error.strerror is None else f"{error.filename or 'The output'}: {error.strerror}.",
        )
    except RuntimeError as error:
        if not (dist.is_available() and dist.is_initialized()):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        status, sentence = (
            2,
            f"This process ended beside others ({reason}); the same command goes on from what was saved.",
        )
    with contextlib.suppress(BrokenPipeError):
        who = f"{program}, process {own_rank()}" if own_rank() else program
        print(f"{who}: {printable(sentence)}", file=sys.stderr, flush=True)
    return status
