"""How everything here is timed: median of repeats after a warm-up, memory in a process of its own."""

import json
import multiprocessing
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import torch


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median wall time of a call after one that warms up; a GPU is waited for."""
    return statistics.median(_times(call, repeats))


def _times(call: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Growth as an exponent: the slope of log(time) over log(size), least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def in_own_process(function: Callable[..., dict], *arguments: Any) -> dict:
    """Run function(*arguments) in a fresh process and return its dictionary, so that peaks of memory don't mix."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        found = json.loads(receiver.recv_bytes())
    except EOFError:
        raise RuntimeError(
            f"{function.__name__}{arguments} ended without a result; it may have run out of memory."
        ) from None
    process.join()
    return found


def _report(sender: Connection, function: Callable[..., dict], arguments: tuple) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    sender.send_bytes(json.dumps(function(*arguments)).encode())


def peak_mib(call: Callable[[], object]) -> float:
    """Memory that a call needs at most above what was in use before it: on the GPU where there is one, else resident
    memory of this process, looked at every millisecond."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    peak = max(peak, process.memory_info().rss)
    done.set()
    watcher.join()
    return (peak - before) / 2**20


def machine() -> dict[str, str]:
    """What the figures belong to."""
    chip = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            chip = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{chip}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
