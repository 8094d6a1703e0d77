"""What a new method must beat: popularity, recency, first-order transitions and sequential rules.

Each is built from the training sequences and then called with a history batch (B, L), PAD on the left, to give scores
(B, |V|). A small share of popularity breaks the ties of items that a rule knows nothing about.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.graph import transition_counts
from dae4rec_core.method.model import PAD


def _popularity(dataset: Dataset, split: Split) -> np.ndarray:
    """Training counts of each item, scaled into [0, 1): a tie-breaker below any single count. (|V|,)"""
    counts = np.bincount(np.concatenate(split.training_sequences(dataset)), minlength=dataset.n_items)
    return counts / (counts.max() + 1)


class Popularity:
    """The most frequent items of training, the same for everybody."""

    def __init__(self, dataset: Dataset, split: Split):
        self.counts = torch.from_numpy(_popularity(dataset, split))

    def __call__(self, history: Tensor) -> Tensor:
        return self.counts.expand(len(history), -1)


class Recency:
    """The user's own last items, newest first, then popularity."""

    def __init__(self, dataset: Dataset, split: Split):
        self.counts = torch.from_numpy(_popularity(dataset, split))

    def __call__(self, history: Tensor) -> Tensor:
        scores = self.counts.repeat(len(history), 1)
        for place in range(history.shape[1]):  # oldest to newest, so that the newest visit decides
            rows = torch.nonzero(history[:, place] != PAD).squeeze(1)
            scores[rows, history[rows, place]] = 1.0 + place
        return scores


class SequentialRules:
    """Counts of "b within `window` steps after a", weighted by 1/distance, asked with the newest item.

    window = 1 is first-order Markov; symmetric adds the counts in the other direction, as the paper's graph does.
    """

    def __init__(self, dataset: Dataset, split: Split, window: int = 10, symmetric: bool = False):
        self.counts = transition_counts(split.training_sequences(dataset), dataset.n_items, window, symmetric)
        # two sums of 1, 1/2 .. 1/window differ by at least 1 / lcm(1 .. window), and popularity decides within less
        self.tie_breaker = _popularity(dataset, split) / (2 * math.lcm(*range(1, window + 1)))

    def __call__(self, history: Tensor) -> Tensor:
        return torch.from_numpy(self.counts[history[:, -1].numpy()].toarray() + self.tie_breaker)


def baselines(dataset: Dataset, split: Split) -> dict[str, Callable[[Tensor], Tensor]]:
    """All of them by name."""
    return {
        "popularity": Popularity(dataset, split),
        "recency": Recency(dataset, split),
        "first-order transitions": SequentialRules(dataset, split, window=1),
        "symmetric transitions": SequentialRules(dataset, split, window=1, symmetric=True),
        "sequential rules": SequentialRules(dataset, split, window=10),
    }
