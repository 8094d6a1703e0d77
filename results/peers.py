"""Recommenders from kept libraries, run in an environment of their own: SASRec, GRU4Rec, eSASRec, item-kNN.

    PYTHONPATH=. .venv-peers/bin/python -m results.peers METHOD INPUT.npz OUTPUT.npz '{"seed": 0, ...}'

SASRec and GRU4Rec are RecBole's model classes (its pinned companions don't fit ours, hence the environment; its own
quick start does not run on today's packages). They learn from the same answers as DAE4Rec, each with the same items
before it. eSASRec is RecTools' by default, so it learns from the newest items of each user; item-kNN is implicit's.
All stop by the same `EarlyStopping` on the same validation answers, and are judged by the same `ranking`. INPUT is
written by `write_task`. OUTPUT receives, for each answer, how many items score above it and how many share its score,
itself included.
"""

import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, Examples, Split, held_out, validation_sample
from dae4rec_core.distributed import end_with
from dae4rec_core.method.beyond import NEIGHBOUR_WINDOW, Returns, neighbours
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.method.model import PAD
from dae4rec_core.ranking import evaluate, ranks
from dae4rec_core.state import EarlyStopping
from dae4rec_core.streams import seed_of, stream, weights_from

# chosen on validation by an earlier search, see search.csv; in the main table `search.chosen` takes their place
PEER_SETTINGS: dict[str, dict[str, Any]] = {
    "SASRec": {"dim": 64, "dropout": 0.1, "lr": 6e-4, "batch_size": 512, "max_len": 50},
    "GRU4Rec": {"dim": 128, "dropout": 0.5, "lr": 1e-3, "batch_size": 512, "max_len": 50},
}
# how much of the history counts depends on whether people return
KNN_SETTINGS: dict[str, dict[str, Any]] = {
    "raw": {"neighbours": 266, "max_len": 20},
    "first visits": {"neighbours": 50, "max_len": 1},
}

SAMPLE = "sample"  # the validation answers that choose an epoch, see `validation_sample`
FIELDS = ("history", "target", "user", "seen")  # of Examples

Score = Callable[[Tensor], Tensor]  # histories (B, L), PAD on the left, to the scores of all items (B, |V|)


@dataclass(frozen=True)
class Task:
    """What a method learns from and is judged on. examples: SAMPLE and the parts that are wanted, by name."""

    n_items: int
    sequences: list[np.ndarray]  # training items of each user, oldest first
    examples: dict[str, Examples]


def write_task(
    path: Path, dataset: Dataset, split: Split, config: Config, parts: Sequence[str], limit: int | None = None
) -> None:
    """The task as arrays in one file. parts: of "validation" and "test", judged at the end beside SAMPLE.

    limit: at most so many answers of each part.
    """
    examples = {part: held_out(dataset, split, part, config, limit) for part in parts}
    examples[SAMPLE] = validation_sample(dataset, split, config)
    arrays = {f"{part}.{name}": getattr(chosen, name).numpy() for part, chosen in examples.items() for name in FIELDS}
    sequences = split.training_sequences(dataset)
    arrays["items"] = np.concatenate(sequences)
    arrays["ends"] = np.cumsum([len(sequence) for sequence in sequences])
    np.savez(path, n_items=np.array(dataset.n_items), **arrays)


def read_task(path: str | Path) -> Task:
    """What `write_task` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    parts = {name.split(".")[0] for name in arrays if "." in name}
    examples = {
        part: Examples(*(torch.from_numpy(arrays[f"{part}.{name}"]) for name in FIELDS)) for part in sorted(parts)
    }
    return Task(int(arrays["n_items"]), np.split(arrays["items"], arrays["ends"][:-1]), examples)


def main(method: str, source: str, out: str, parameters: str) -> None:
    """Train, rank the full catalogue, write `{part}_better`, `{part}_tied` and the facts of the run.

    Where the settings ask for scores, `{part}_scores` (N, |V|) float32 too.
    """
    torch.set_num_threads(1)
    task, settings = read_task(source), json.loads(parameters)
    start = time.perf_counter()
    if method == "item-kNN":
        score, facts = item_knn(task, settings)
    elif method == "eSASRec":
        score, facts = esasrec(task, settings)
    else:
        score, facts = recbole(method.split(",")[0], task, settings)
    facts["seconds"] = time.perf_counter() - start
    begun = time.process_time()
    evaluate(score, task.examples[SAMPLE])
    facts["users_per_second"] = len(task.examples[SAMPLE]) / (time.process_time() - begun)
    facts["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB, at most so far
    found: dict[str, Any] = {"facts": json.dumps(facts)}
    for part, examples in task.examples.items():
        better, tied, _ = ranks(score, examples)
        found |= {f"{part}_better": better.int().numpy(), f"{part}_tied": tied.int().numpy()}
        if settings.get("scores") and part != SAMPLE:
            found[f"{part}_scores"] = torch.cat([score(rows) for rows in examples.history.split(1024)]).numpy()
    np.savez_compressed(out, **found)


def recbole_model(method: str, n_items: int, settings: dict[str, Any]) -> Any:
    """RecBole's SASRec (Kang & McAuley 2018) or GRU4Rec (Hidasi et al. 2016; Tan et al. 2016), full cross-entropy."""
    if method == "SASRec":
        from recbole.model.sequential_recommender.sasrec import SASRec as Model
    else:
        from recbole.model.sequential_recommender.gru4rec import GRU4Rec as Model
    config = {
        "USER_ID_FIELD": "user",
        "ITEM_ID_FIELD": "item",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "length",
        "NEG_PREFIX": "negative_",
        "MAX_ITEM_LIST_LENGTH": settings["max_len"],
        "device": "cpu",
        "loss_type": "CE",
        "hidden_size": settings["dim"],
        "embedding_size": settings["dim"],  # GRU4Rec
        "num_layers": 1,
        "dropout_prob": settings["dropout"],
        "n_layers": 2,  # SASRec
        "n_heads": 2,
        "inner_size": 2 * settings["dim"],
        "hidden_dropout_prob": settings["dropout"],
        "attn_dropout_prob": settings["dropout"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
    }
    return Model(config, SimpleNamespace(num=lambda field: n_items + 1))  # 0 is their padding


def recbole(method: str, task: Task, settings: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
    """Train one of RecBole's model classes on every training answer; returns its scorer and facts.

    Both are causal, so that one pass over a sequence gives the prediction at each of its places. RecBole takes the
    last one, in `gather_indexes`; in training we take all that count, see `training_windows`.

    settings: those of `recbole_model`, lr, batch_size, seed, epochs, patience; where `seconds` of the processor are
    given, the training ends with the epoch that reaches them. With `gains`, a control: the scores gain what those of
    the improved DAE4Rec do, `Returns` learned with the model and `neighbours` when it is judged.
    """
    seed, start = settings["seed"], time.process_time()
    with weights_from(seed, "model"):
        model = recbole_model(method, task.n_items, settings)
        if settings.get("gains"):
            model.returns = Returns(settings["dim"], settings["max_len"])
    counts_of_steps = transition_counts(task.sequences, task.n_items, NEIGHBOUR_WINDOW, symmetric=True)
    take_last, take_all = model.gather_indexes, lambda output, _: output
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    windows = training_windows(task.sequences, settings["max_len"])
    lengths = torch.tensor([len(items) for items, _ in windows])
    counts = torch.tensor([int((answers > 0).sum()) for _, answers in windows])

    def logits(outputs: Tensor, history: Tensor) -> Tensor:
        """Of all items and, first, the padding: (N, 1 + |V|). history: (N, L) item numbers, 0 on the left."""
        found = outputs @ model.item_embedding.weight.T
        return found.scatter_add(1, history, model.returns(history > 0, outputs)) if settings.get("gains") else found

    @torch.no_grad()
    def score(history: Tensor) -> Tensor:
        model.eval()
        model.gather_indexes = take_last
        found = logits(model(*right_padded(history)), history + 1)[:, 1:]
        if settings.get("gains"):
            near, gains = neighbours(counts_of_steps, history)
            found.scatter_add_(1, near.clamp(min=0), gains)
        return found

    stopping, curve = EarlyStopping(settings["patience"]), []  # seconds and NDCG@10 after each epoch
    for epoch in range(1, settings["epochs"] + 1):
        order = stream(seed, "order", epoch)
        torch.manual_seed(seed_of(seed, "dropout", epoch))
        model.train()
        model.gather_indexes = take_all
        for rows in batches_of_like_length(lengths, counts, settings["batch_size"], order):
            items, answers = (
                torch.nn.utils.rnn.pad_sequence([windows[row][place] for row in rows.tolist()], batch_first=True)
                for place in (0, 1)
            )  # (B, L) each
            counted = answers > 0
            outputs = model(items, (items > 0).sum(1))[counted]
            optimizer.zero_grad(set_to_none=True)
            model.loss_fct(logits(outputs, histories(items)[counted]), answers[counted]).backward()
            optimizer.step()
        curve.append((time.process_time() - start, evaluate(score, task.examples[SAMPLE])["NDCG@10"]))
        stopping.keep(epoch, curve[-1][1], model)
        if stopping.stop or time.process_time() - start >= settings.get("seconds", math.inf):
            break
    stopping.restore(model)
    facts = {"epoch": stopping.epoch - stopping.stale, "epochs": stopping.epoch, "curve": curve}
    return score, facts | {"cpu_seconds": time.process_time() - start}


def histories(items: Tensor) -> Tensor:
    """What each place of right-padded rows (B, L) sees, 0 on the left: (B, L, L)."""
    length = items.shape[1]
    return torch.nn.functional.pad(items, (length - 1, 0)).unfold(1, length, 1)


def esasrec(task: Task, settings: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
    """RecTools' eSASRec (Tikhonovich et al. 2025, arXiv 2508.06450): SASRec with LiGR layers.

    All values are those that RecTools ships, but for settings' max_len, seed, epochs and patience. The softmax runs
    over all items: its authors sample some of them to spare a large catalogue, and ours has 2,600 at most.
    """
    import pandas as pd
    import pytorch_lightning as lightning
    from rectools.dataset import Dataset as Interactions
    from rectools.models import SASRecModel
    from rectools.models.nn.transformers.ligr import LiGRLayers

    users = np.repeat(np.arange(len(task.sequences)), [len(sequence) for sequence in task.sequences])
    items, order = np.concatenate(task.sequences), pd.to_datetime(np.arange(len(users)), unit="s")
    table = pd.DataFrame({"user_id": users, "item_id": items, "weight": 1, "datetime": order})
    stopping = EarlyStopping(settings["patience"])

    @torch.no_grad()
    def score(history: Tensor) -> Tensor:
        network = model.torch_model.eval()
        known = np.array(model.data_preparator.item_id_map.external_ids[1:], dtype=int)  # their 0 is the padding
        numbers = torch.zeros(task.n_items + 1, dtype=torch.long)  # PAD, -1, reads the last one
        numbers[known] = torch.arange(1, len(known) + 1)
        vectors = network.item_model.get_all_embeddings()
        history = torch.nn.functional.pad(history, (settings["max_len"] - history.shape[1], 0), value=PAD)
        last = network.encode_sessions({"x": numbers[history]}, vectors)[:, -1]
        scores = torch.full((len(history), task.n_items), torch.finfo().min)  # of items that no training answer has
        scores[:, known] = last @ vectors[1:].T
        return scores

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            stopping.keep(stopping.epoch + 1, evaluate(score, task.examples[SAMPLE])["NDCG@10"], module.torch_model)
            module.train()
            trainer.should_stop = stopping.stop

        def __deepcopy__(self, memo: dict) -> "Stop":
            return self  # RecTools copies its trainer before it uses it

    def trainer() -> Any:
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing"), False)
        return lightning.Trainer(max_epochs=settings["epochs"], accelerator="cpu", callbacks=[Stop()], **quiet)

    lightning.seed_everything(settings["seed"])
    model = SASRecModel(
        session_max_len=settings["max_len"],
        transformer_layers_type=LiGRLayers,
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    model.fit(Interactions.construct(table))
    stopping.restore(model.torch_model)
    return score, {"epoch": stopping.epoch - stopping.stale, "epochs": stopping.epoch}


def training_windows(sequences: Sequence[np.ndarray], max_len: int) -> list[tuple[Tensor, Tensor]]:
    """Windows of at most max_len items, and for each place of a window the item that came next: two (L,) tensors.

    Items are in RecBole's numbers (from 1); an answer of 0 does not count. A causal model predicts the answer at a
    place from the items up to that place, and of every answer of the training part these are the newest max_len items
    before it, as in `training_examples`. So the first max_len answers of a sequence share one window, and each later
    answer has a window of its own, in which it alone counts.
    """
    windows = []
    for sequence in sequences:
        items = torch.from_numpy(sequence).long() + 1
        if len(items) > 1:
            windows.append((items[:-1][:max_len], items[1:][:max_len]))
        for place in range(max_len + 1, len(items)):
            answers = torch.zeros(max_len, dtype=torch.long)
            answers[-1] = items[place]
            windows.append((items[place - max_len : place], answers))
    return windows


def batches_of_like_length(lengths: Tensor, counts: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Rows in batches of about `size` answers and of like length, in random order.

    lengths, counts: (N,) items and answers of each window.
    """
    order = torch.randperm(len(lengths), generator=generator)
    order = order[torch.argsort(lengths[order], stable=True)]
    batch = counts[order].cumsum(0) // size
    batches = order.split(torch.unique_consecutive(batch, return_counts=True)[1].tolist())
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


def right_padded(history: Tensor) -> tuple[Tensor, Tensor]:
    """RecBole's form of histories (B, L): item numbers from 1 with zeros behind the newest item, and lengths (B,)."""
    order = (history == PAD).int().argsort(dim=1, stable=True)
    return history.gather(1, order) + 1, (history != PAD).sum(1)


def item_knn(task: Task, settings: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
    """implicit's CosineRecommender: the nearest items, by cosine of their users, of everything in the history."""
    from implicit.nearest_neighbours import CosineRecommender

    users = np.repeat(np.arange(len(task.sequences)), [len(sequence) for sequence in task.sequences])
    items = np.concatenate(task.sequences)
    counts = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=(len(task.sequences), task.n_items))
    model = CosineRecommender(K=settings["neighbours"], num_threads=1)
    model.fit(counts, show_progress=False)
    near = model.similarity.tolil()
    if not settings["itself"]:
        near.setdiag(0)
    near = near.tocsr()

    def score(history: Tensor) -> Tensor:
        rows, places = (history != PAD).nonzero(as_tuple=True)
        items = history[rows, places].numpy()
        known = sparse.csr_matrix((np.ones(len(rows)), (rows.numpy(), items)), shape=(len(history), task.n_items))
        return torch.from_numpy((known @ near).toarray()).float()

    return score, {}


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()  # a killed run leaves none behind
    main(*sys.argv[1:])
