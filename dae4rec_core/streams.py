"""Random numbers: one seed, and from it a stream of its own for each purpose.

Two purposes never share numbers: E is not a copy of W_0, and what judges a model was not there when it was trained.
All streams but dropout's live on the CPU, so a run draws the same noise on every device.
"""

import contextlib
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

Purpose = Literal[
    "W_0",  # the graph auto-encoder's first weights
    "gae pairs",  # item pairs that a pretraining step looks at
    "model",  # E and all weights that L_Diff trains
    "order",  # of the examples in an epoch, and the item pairs of Eq. 10
    "noise",  # t, eps and x_T of a training step
    "dropout",
    "compensator",  # its first weights, the examples that it learns from, and their order
    "compensator noise",  # the x_T behind the e^{tau_1} that it learns from
    "judging",  # the x_T with which validation chooses an epoch
    "sampling",  # the x_T of a recommendation or of a test reading
]


def seed_of(seed: int, purpose: Purpose, *numbers: int) -> int:
    """A 64-bit seed for one purpose, and where there are many of its kind (epochs, processes) for one of them."""
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def stream(seed: int, purpose: Purpose, *numbers: int) -> torch.Generator:
    """A generator on the CPU, started from `seed_of`."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, *numbers))


def torch_stream(device: torch.device) -> torch.Generator:
    """The stream of torch's own that dropout draws from on a device."""
    if device.type == "cuda":
        torch.cuda.init()  # the streams are made then
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def torch_streams_kept(device: torch.device) -> contextlib.AbstractContextManager:
    """Torch's own streams, the CPU's and the device's, go on afterwards as if nothing had been drawn inside."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


@contextlib.contextmanager
def weights_from(seed: int, purpose: Purpose) -> Iterator[None]:
    """Modules made inside draw their first weights from this stream; torch's own stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, purpose))  # torch.manual_seed would reach CUDA's too
        yield
