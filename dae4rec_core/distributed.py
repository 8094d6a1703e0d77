"""Several processes, one run: `torchrun --nproc-per-node 2 -m dae4rec_core fit ...`.

Lightning Fabric joins the processes, gives each its device, averages gradients and sets mixed precision. It was chosen
over Hugging Face Accelerate because it is an object that is passed along, where Accelerate keeps one global state for
the whole process, so that a notebook could not use the CPU after the GPU.

Every process draws the same random numbers and works on its own share of each batch, of the tiles of the pair losses
and of the sampling for the compensator; all of them hold the same weights after every step.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from dae4rec_core.config import choose_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)  # with a process that doesn't answer; the first one validates alone meanwhile
STOPPED = 60  # seconds that a process of this machine may be stopped, as by SIGSTOP, before the run ends


def launch(device: str | torch.device = "auto") -> "Fabric":
    """Join the run that torchrun started, or be the only process.

    Mixed precision (bfloat16) is used on CUDA where the card has it. A process ends with its launcher.
    """
    from lightning_fabric import Fabric  # takes seconds to import, and only training needs it
    from lightning_fabric.strategies import DDPStrategy

    device = choose_device(device)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    everywhere = int(os.environ.get("WORLD_SIZE", 1))
    alone = [device.index or 0] if device.type == "cuda" else 1
    first = everywhere > 1 and not dist.is_initialized()
    if first:
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    # find_unused_parameters keeps the gradients' buckets as they are made: rebuilt after a start's first step, they
    # would be summed in another order, and a resumed run would differ in its last bits
    together = DDPStrategy(timeout=PATIENCE, find_unused_parameters=True) if everywhere > 1 else "auto"
    fabric = Fabric(
        accelerator=device.type,
        strategy=together,
        devices=local if everywhere > 1 else alone,
        num_nodes=everywhere // local,
        precision="bf16-mixed" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32-true",
    )
    fabric.launch()
    if first:
        atexit.register(leave)
    return fabric


def leave() -> None:
    """End gloo's threads while the interpreter still lives: one that let go of a tensor later would abort the process.

    Source: pytorch/pytorch#179291.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def end_with(parent: int) -> None:
    """Wait until the process that started this one is gone, or another that it started is stopped, and end too."""
    seconds = 0  # counted, since a clock goes on while this process is stopped itself, as all of a run are by Ctrl-Z
    while os.getppid() == parent and seconds < STOPPED:
        time.sleep(2)
        with contextlib.suppress(psutil.Error):  # one of them has ended
            stopped = [one.pid for one in psutil.Process(parent).children() if one.status() == psutil.STATUS_STOPPED]
            seconds = seconds + 2 if stopped else 0
    if seconds:
        text = f"dae4rec: Process {stopped[0]} of this run has been stopped for {seconds} seconds, so the run ends"
        print(f"{text}; the same command goes on from what was saved.", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def own_rank() -> int:
    """This process's rank, known before the processes have joined."""
    return int(os.environ.get("RANK", 0))


def world() -> tuple[int, int]:
    """This process's rank and how many processes there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_processes(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather(value: T) -> list[T]:
    """Every process's value, by rank."""
    found = [value] * world()[1]
    if dist.is_initialized():
        dist.all_gather_object(found, value)
    return found
