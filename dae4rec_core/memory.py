"""What a training holds in memory, estimated before it begins, so that what can't fit is refused in a sentence."""

import psutil
import torch

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.variants import make_model

PROCESS = 0.6 * 2**30  # bytes of Python, the libraries, their threads' buffers and a batch's activations, measured
ROW = 150  # bytes of an interaction while the file is read and encoded, measured
JUDGED = 1024  # histories that are judged at once


def training_bytes(dataset: Dataset, split: Split, config: Config) -> float:
    """An estimate of what a training holds at most on a CPU, the sum of

    PROCESS and ROW x interactions, whatever is trained;
    examples: N x max_len x 8 bytes, and while they are made three more arrays of that size;
    parameters: 4 bytes each, five times: weights, gradients, Adam's two moments, the best epoch's copy; or what the
    graph auto-encoder held before them, if that is more: |V| x hidden x 4 bytes, seven times, measured;
    batch scores, with a ranking term: |V| x batch_size x 4 bytes, four times: products, with gains, log-softmax, its
    gradient.

    Not all of it is held at the same moment, and the table of neighbours that judges the compensator is left out. Short
    trainings of `improved` held 0.8 GiB on the town (the estimate is 15% lower), 1.2 on a town of 25,000 users and
    20,000 venues (equal), 1.9 on one of 100,000 users (24% higher), 1.2 on online_retail (14% lower).
    """
    n_examples = len(split.training_targets(dataset))
    examples = n_examples * config.data.max_len * 8
    with torch.device("meta"):  # shapes without memory
        parameters = 4 * sum(p.numel() for p in make_model(dataset.n_items, config).parameters())
    pretrains = config.diffusion.delta > 0 and config.diffusion.aime_target == "gae"
    auto_encoder = 7 * 4 * dataset.n_items * config.model.hidden if pretrains else 0
    batch_scores = 4 * dataset.n_items * min(config.train.batch_size, n_examples) if config.beyond.rank_weight else 0
    return PROCESS + ROW * len(dataset.items) + 4 * examples + max(5 * parameters, auto_encoder) + 4 * batch_scores


def check_memory(dataset: Dataset, split: Split, config: Config) -> None:
    """Raises ValueError where a training would hold more than this machine has, free or not.

    Beside `training_bytes`, what only unusual sizes make large: the attention of the histories that are judged at once,
    and what a sampler knows of each of the T steps.
    """
    sizes, length, timesteps = config.model, config.data.max_len, config.diffusion.timesteps
    attention = 4 * JUDGED * length * (length + sizes.dim)
    steps = 4 * timesteps * (2 * sizes.dim + sizes.hidden)
    needed, there = training_bytes(dataset, split, config) + attention + steps, psutil.virtual_memory().total
    if needed <= there:
        return
    name = config.furthest("max_len", "dim", "hidden", "depth", "timesteps", "batch_size")
    cause = f"{dataset.name} is large" if name is None else f"Config.{name} is {config.flat()[name]}"
    raise ValueError(
        f"{cause}, so training would hold about {needed / 2**30:,.0f} GiB, but this machine has {there / 2**30:,.0f}; "
        f"{'give less data or a smaller Config.dim' if name is None else 'give less'}."
    )
