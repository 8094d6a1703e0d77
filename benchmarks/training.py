"""Training on the bundled town: examples a second, and where a step's time goes."""

import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import seconds
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data.dataset import Examples, prepare, training_examples, training_graph, validation_sample
from dae4rec_core.distributed import launch
from dae4rec_core.method.gae import pretrain_gae
from dae4rec_core.method.model import PAD, DAE4Rec
from dae4rec_core.streams import stream
from dae4rec_core.training import batch_of, batches, l_aime_of, train_diffusion

TOWN = Path(__file__).parents[1] / "data" / "town"


def table() -> list[dict]:
    """Rows: what, setting, figure, unit."""
    config = Config().replace(epochs=4, gae_steps=200)
    dataset, split = prepare(TOWN, config)
    train, validation = training_examples(dataset, split, config), validation_sample(dataset, split, config)
    graph, device = training_graph(dataset, split), choose_device()
    rows: list[dict] = []

    def add(what: str, figure: float, unit: str) -> None:
        rows.append({"part": "training", "setting": "town", "what": what, "figure": figure, "unit": unit})

    add(
        "pretraining step of the graph auto-encoder",
        seconds(lambda: pretrain_gae(graph, config, device)) / 200 * 1e3,
        "ms",
    )
    z_star = pretrain_gae(graph, config, device)
    moments: list[float] = []
    model = DAE4Rec(dataset.n_items, config).to(device)
    train_diffusion(model, train, validation, graph, z_star, [lambda event: moments.append(time.perf_counter())])
    epoch = (moments[-1] - moments[0]) / (len(moments) - 1)
    add("epoch, validation included", epoch, "s")
    add("training examples", len(train) / epoch, "1/s")
    for what, share in breakdown(model, train, z_star).items():
        add(f"share of a step: {what}", share, "of 1")
    return rows


def breakdown(model: DAE4Rec, train: Examples, z_star: Tensor) -> dict[str, float]:
    """Shares of one epoch's step time, each part waited for."""
    fabric = launch(model.device)
    config, spent = model.config, defaultdict[str, float](float)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr, fused=True)
    lengths, train = (train.history != PAD).sum(1), train.to(model.device)
    order, noises = stream(0, "order"), stream(0, "noise")
    clock = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal clock
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        spent[what] += time.perf_counter() - clock
        clock = time.perf_counter()

    for rows, length in batches(lengths, config.train.batch_size, order):
        noise = model.draw_noise(len(rows), noises).of(slice(None), model.device)
        history, target = batch_of(train, rows, length)
        lap("batch and noise")
        with fabric.autocast():
            l_diff = model(history, target, noise)
        lap("L_Diff, forward")
        l_aime = l_aime_of(model, z_star, order)
        lap("L_AIME with its gradient")
        optimizer.zero_grad(set_to_none=True)
        (l_diff + config.diffusion.delta * l_aime).backward()
        lap("backward")
        optimizer.step()
        lap("Adam")
    total = sum(spent.values())
    return {what: value / total for what, value in spent.items()}
