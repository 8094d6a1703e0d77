"""Recommenders from kept libraries, run in an environment of their own: SASRec, GRU4Rec, item-kNN.

    python results/peers.py METHOD INPUT.npz OUTPUT.npz '{"seed": 0, ...}'

SASRec and GRU4Rec are RecBole's model classes (whose pinned companions don't fit ours, hence the environment; its own
quick start does not run on today's packages), item-kNN is implicit's. They train as DAE4Rec does, on the same answers
with the same stopping rule: validation NDCG@10, with `patience`. INPUT holds the training sequences and the histories
of validation and test, written by `grid.write_peer_input`; OUTPUT receives, for each tested user, how many items score
above the answer and how many share its score (itself included).
"""

import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import torch
from scipy import sparse

PAD = -1
VALIDATION_USERS = 5_000


def main(method: str, source: str, out: str, parameters: str) -> None:
    """Train, rank the full catalogue, write `{part}_better`, `{part}_tied` and the facts of the run."""
    torch.set_num_threads(1)
    data, settings = np.load(source), json.loads(parameters)
    torch.manual_seed(settings["seed"])
    start = time.perf_counter()
    score, facts = item_knn(data, settings) if method == "item-kNN" else recbole(method, data, settings)
    facts["seconds"] = time.perf_counter() - start
    ranks = {}
    for part in ("validation", "test"):
        better, tied = ranks_of(score, data, part, slice(None))
        ranks |= {f"{part}_better": better, f"{part}_tied": tied}
    np.savez_compressed(out, facts=json.dumps(facts), **ranks)


def ranks_of(score, data, part: str, chosen: slice) -> tuple[np.ndarray, np.ndarray]:
    """Items above each answer, and items level with it (itself included), by `score` (B, L) -> (B, |V|).

    Items in `{part}_seen` are never ranked.
    """
    history, target, seen = (data[f"{part}_{name}"][chosen] for name in ("history", "target", "seen"))
    better, tied = [], []
    for rows in np.array_split(np.arange(len(target)), max(1, len(target) // 1024)):
        scores = np.array(score(history[rows]), dtype=np.float32)
        users, places = np.nonzero(seen[rows] != PAD)
        scores[users, seen[rows][users, places]] = -np.inf
        own = scores[np.arange(len(rows)), target[rows]][:, None]
        better.append((scores > own).sum(1))
        tied.append((scores == own).sum(1))
    return np.concatenate(better).astype(np.int32), np.concatenate(tied).astype(np.int32)


def validation_ndcg(score, data) -> float:
    """Mean NDCG@10 over at most VALIDATION_USERS; ties count against the answer."""
    every = max(1, len(data["validation_target"]) // VALIDATION_USERS)
    better, tied = ranks_of(score, data, "validation", slice(None, None, every))
    rank = better + tied
    return float(np.where(rank <= 10, 1 / np.log2(rank + 1), 0).mean())


class Stopping:
    """Keeps the best epoch's weights; `stale` counts the epochs since."""

    def __init__(self):
        self.best, self.figure, self.epoch, self.stale = None, -1.0, 0, 0

    def keep(self, epoch: int, figure: float, module) -> None:
        self.stale += 1
        if figure > self.figure:
            self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}
            self.figure, self.epoch, self.stale = figure, epoch, 0


def recbole_model(method: str, n_items: int, settings: dict):
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


def recbole(method: str, data, settings: dict):
    """Train one of RecBole's model classes on every position of the training sequences; returns its scorer and facts.

    Both are causal, so that one pass over a sequence gives the prediction at each of its places. RecBole takes the
    last one, in `gather_indexes`; in training we take them all: the same loss over all prefixes at a tenth of the cost.
    """
    model = recbole_model(method, int(data["n_items"]), settings)
    take_last, take_all = model.gather_indexes, lambda output, _: output
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    windows = training_windows(data, settings["max_len"])
    lengths = torch.tensor([len(window) - 1 for window in windows])

    @torch.no_grad()
    def score(rows: np.ndarray) -> np.ndarray:
        model.eval()
        model.gather_indexes = take_last
        items, length = right_padded(rows[:, -settings["max_len"] :])
        return model.full_sort_predict({"item_list": items, "length": length})[:, 1:].numpy()

    stopping = Stopping()
    for epoch in range(1, settings["epochs"] + 1):
        model.train()
        model.gather_indexes = take_all
        for rows in batches_of_like_length(lengths, settings["batch_size"]):
            batch = torch.nn.utils.rnn.pad_sequence([windows[row] for row in rows.tolist()], batch_first=True)
            inputs, answers = batch[:, :-1], batch[:, 1:]
            real = answers > 0
            logits = model(inputs, real.sum(1))[real] @ model.item_embedding.weight.T
            optimizer.zero_grad(set_to_none=True)
            model.loss_fct(logits, answers[real]).backward()
            optimizer.step()
        stopping.keep(epoch, validation_ndcg(score, data), model)
        if stopping.stale >= settings["patience"]:
            break
    model.load_state_dict(stopping.best)
    return score, {"epoch": stopping.epoch}


def training_windows(data, max_len: int) -> list[torch.Tensor]:
    """Training sequences in RecBole's item numbers (from 1), cut into windows of max_len answers; the item before each
    answer is in the same window."""
    windows = []
    for items in np.split(data["train_items"] + 1, data["train_offsets"][1:-1]):
        items = torch.from_numpy(items)
        windows += [items[start : start + max_len + 1] for start in range(0, len(items) - 1, max_len)]
    return windows


def batches_of_like_length(lengths: torch.Tensor, positions: int) -> list[torch.Tensor]:
    """Rows in batches of about `positions` answers and of like length, in random order."""
    order = torch.randperm(len(lengths))
    order = order[torch.argsort(lengths[order], stable=True)]
    batch = lengths[order].cumsum(0) // positions
    batches = order.split(torch.unique_consecutive(batch, return_counts=True)[1].tolist())
    return [batches[number] for number in torch.randperm(len(batches)).tolist()]


def right_padded(history: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """RecBole's form: item numbers from 1, zeros behind the newest item; and the lengths."""
    order = np.argsort(history == PAD, axis=1, kind="stable")
    return torch.from_numpy(np.take_along_axis(history, order, 1) + 1), torch.from_numpy((history != PAD).sum(1))


def item_knn(data, settings: dict):
    """implicit's CosineRecommender: the nearest items, by cosine of their users, of everything in the history."""
    from implicit.nearest_neighbours import CosineRecommender

    n_items = int(data["n_items"])
    users = np.repeat(np.arange(len(data["train_offsets"]) - 1), np.diff(data["train_offsets"]))
    counts = sparse.csr_matrix(
        (np.ones(len(users)), (users, data["train_items"])), shape=(len(data["train_offsets"]) - 1, n_items)
    )
    model = CosineRecommender(K=settings["neighbours"], num_threads=1)
    model.fit(counts, show_progress=False)
    near = model.similarity.tolil()
    if not settings["itself"]:
        near.setdiag(0)
    near = near.tocsr()

    def score(history: np.ndarray) -> np.ndarray:
        rows, places = np.nonzero(history != PAD)
        seen = sparse.csr_matrix((np.ones(len(rows)), (rows, history[rows, places])), shape=(len(history), n_items))
        return (seen @ near).toarray()

    return score, {}


if __name__ == "__main__":
    main(*sys.argv[1:])
