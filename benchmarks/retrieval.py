"""Exact top-k by blocks against FAISS, on made-up clustered embeddings: python benchmarks/retrieval.py"""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.method.model import Query
from dae4rec_core.retrieval import ItemIndex, recall, top_items


def clustered(items: int, dim: int, users: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Item embeddings (items, dim) in clusters of about 200, of uneven norm, and queries (users, dim) near items."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def draw(n: int, size: int) -> Tensor:
        return torch.randint(n, (size,), generator=generator)

    centres = normal(max(items // 200, 1), dim)
    vectors = centres[draw(len(centres), items)] + 0.5 * normal(items, dim)
    vectors *= torch.exp(0.25 * normal(items, 1))
    return vectors, vectors[draw(items, users)] + 0.5 * normal(users, dim)


def retrieval_table(items: int, dim: int, users: int, k: int, probes: tuple[int, ...] = (8, 32, 128)) -> pd.DataFrame:
    """Time, memory and recall@k of the exact search and of an ItemIndex at several `probes`.

    Columns: method, items, dim, build_s (seconds to build), index_MB (beside the embeddings themselves), users_per_s,
    recall (against the exact search). torch's number of threads holds for both.
    """
    vectors, queries = clustered(items, dim, users)
    query = Query(queries)

    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = call()
        return result, time.perf_counter() - start

    def row(method: str, build: float, size: float, seconds: float, found: Tensor) -> dict:
        figures = {"build_s": build, "index_MB": size, "users_per_s": users / seconds, "recall": recall(found, exact)}
        return {"method": method, "items": items, "dim": dim, **figures}

    (_, exact), seconds = timed(lambda: top_items(query, vectors, k))
    rows = [row("exact, by blocks", 0.0, 0.0, seconds, exact)]
    index, build = timed(lambda: ItemIndex(vectors))
    for number in probes:
        index.ivf.nprobe = number
        (_, found), seconds = timed(lambda: index.search(query, k))
        rows.append(row(f"FAISS, {number} probes", build, index.megabytes, seconds, found))
    return pd.DataFrame(rows)


def main() -> None:
    for dim in (64, 128):
        print(retrieval_table(1_000_000, dim, 1000, 10).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
