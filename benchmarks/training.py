"""Training on the bundled town: examples a second, and where a step's time goes."""

import time
from collections import defaultdict
from pathlib import Path

import torch

from benchmarks.measure import seconds
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data import length_grouped_order, make_examples, prepare
from dae4rec_core.distributed import launch
from dae4rec_core.gae import pretrain_gae
from dae4rec_core.graph import training_graph
from dae4rec_core.model import DAE4Rec
from dae4rec_core.pairwise import similarity_loss
from dae4rec_core.training import _DiffusionStep, train_diffusion, validation_sample

TOWN = Path(__file__).parents[1] / "data" / "town"


def table() -> list[dict]:
    """Rows: what, setting, figure, unit."""
    config = Config(epochs=4, gae_steps=200)
    dataset, split = prepare(TOWN, config)
    train = make_examples(dataset, split.training_targets(dataset), config.max_len)
    validation, graph, device = (
        validation_sample(dataset, split, config),
        training_graph(dataset, split),
        choose_device(),
    )
    rows = []

    def add(what, figure, unit):
        rows.append({"part": "training", "setting": "town", "what": what, "figure": figure, "unit": unit})

    add(
        "pretraining step of the graph auto-encoder",
        seconds(lambda: pretrain_gae(graph, config, device)) / 200 * 1e3,
        "ms",
    )
    z_star = pretrain_gae(graph, config, device)
    moments = []
    model = DAE4Rec(dataset.n_items, config).to(device)
    train_diffusion(model, train, validation, z_star, graph, [lambda event: moments.append(time.perf_counter())])
    epoch = (moments[-1] - moments[0]) / (len(moments) - 1)
    add("epoch, validation included", epoch, "s")
    add("training examples", len(train) / epoch, "1/s")
    for what, share in breakdown(model, train, z_star).items():
        add(f"share of a step: {what}", share, "of 1")
    return rows


def breakdown(model: DAE4Rec, train, z_star) -> dict[str, float]:
    """Shares of one epoch's step time, each part waited for."""
    fabric = launch(model.device)
    config, spent = model.config, defaultdict(float)
    step = _DiffusionStep(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    lengths, train, draw = (train.history >= 0).sum(1), train.to(model.device), torch.Generator().manual_seed(0)
    order, longest = length_grouped_order(lengths, config.batch_size, draw)
    order = order.to(model.device)
    clock = time.perf_counter()

    def lap(what):
        nonlocal clock
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        spent[what] += time.perf_counter() - clock
        clock = time.perf_counter()

    for rows, length in zip(order.split(config.batch_size), longest, strict=True):
        t = torch.randint(1, config.timesteps + 1, (len(rows),), device=model.device)
        eps = torch.randn(len(rows), config.dim, device=model.device)
        history, target = train.history[rows, -length:], train.target[rows]
        lap("batch and noise")
        with fabric.autocast():
            l_diff = step(history, target, t, eps, torch.zeros_like(t, dtype=torch.bool), eps)
        lap("L_Diff, forward")
        l_aime = similarity_loss(model.embedding.weight, z_star, config.aime_pairs, draw)
        lap("L_AIME with its gradient")
        optimizer.zero_grad(set_to_none=True)
        (l_diff + config.delta * l_aime).backward()
        lap("backward")
        optimizer.step()
        lap("Adam")
    total = sum(spent.values())
    return {what: value / total for what, value in spent.items()}
