"""What decides where a method works: a few numbers measured on the training part of a data set."""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh
from scipy.special import gammaln

from dae4rec_core.data.dataset import Dataset, Split
from dae4rec_core.method.graph import steps_of, transition_counts

EIGENVALUES = 64
ROUNDING = 1e-9  # an eigenvalue of 0 comes out as far from it as this, on either side


def properties(dataset: Dataset, split: Split) -> dict[str, float]:
    """Measured properties of the training sequences, each without a unit unless said:

    returns: share of the interactions with something before them whose item the user had met before.
    self-transitions: share of the steps that go from an item to itself.
    density: share of the pairs of different items that are joined in the graph of Eq. 6.
    negative eigenvalues: see `negative_share`. asymmetry: see `asymmetry`.
    history length, interactions per item: mean numbers of training interactions of a user and of an item.
    """
    sequences = [sequence for sequence in split.training_sequences(dataset) if len(sequence)]
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    items = np.concatenate(sequences)
    met = np.ones(len(items), dtype=bool)
    met[np.unique(owner * dataset.n_items + items, return_index=True)[1]] = False  # the first meeting of each pair
    has_past = len(items) - len(sequences)
    steps = steps_of(sequences, 1)
    counts = transition_counts(sequences, dataset.n_items)
    joined = (counts + counts.T).tocsr()
    return {
        "returns": met.sum() / max(1, has_past),
        "self-transitions": float((steps[:, 0] == steps[:, 1]).mean()) if len(steps) else 0.0,
        "density": (joined.nnz - np.count_nonzero(joined.diagonal())) / (dataset.n_items * (dataset.n_items - 1)),
        "negative eigenvalues": negative_share(counts),
        "asymmetry": asymmetry(counts),
        "history length": len(items) / len(sequences),
        "interactions per item": len(items) / dataset.n_items,
    }


def negative_share(counts: sparse.csr_matrix, largest: int = EIGENVALUES) -> float:
    """Share of negative ones among the `largest` eigenvalues, by absolute value, of D^-1/2 (C + C') D^-1/2.

    The diagonal is left out: an item after itself is a return, which is counted apart. So the eigenvalues add up to 0,
    and counts without structure have about half of them below it (notebook 02).
    """
    symmetric = (counts + counts.T).tocsr()
    symmetric.setdiag(0)
    degree = np.asarray(symmetric.sum(1)).ravel()
    symmetric = symmetric[degree > 0][:, degree > 0]
    scale = sparse.diags(degree[degree > 0] ** -0.5)
    matrix = scale @ symmetric @ scale
    if largest >= matrix.shape[0] - 1:
        values = np.linalg.eigvalsh(matrix.toarray())
        values = values[np.argsort(-np.abs(values))][:largest]
    else:
        start = np.ones(matrix.shape[0])  # the same start, the same digits
        values = eigsh(matrix, k=largest, which="LM", v0=start, return_eigenvectors=False)
    return float((values < -ROUNDING).mean()) if len(values) else 0.0


def asymmetry(counts: sparse.csr_matrix) -> float:
    """How far the steps between two items prefer one direction: 0 as chance would have it, 1 never both ways, below 0
    where people go there and straight back.

    sum |c_ij - c_ji| over pairs of different items, less what a fair coin for each step gives, over the same for steps
    that all go one way. A pair with one step says nothing and adds nothing.
    """
    both = sparse.triu(counts + counts.T, k=1).tocoo()
    n = both.data
    gap = np.abs(np.asarray(counts[both.row, both.col] - counts[both.col, both.row]).ravel())
    half = np.floor((n - 1) / 2)
    # E|2B - n| for B ~ Binomial(n, 1/2) is n binom(n - 1, half) / 2^(n - 1)
    by_chance = n * np.exp(gammaln(n) - gammaln(half + 1) - gammaln(n - half) - (n - 1) * np.log(2))
    room = (n - by_chance).sum()
    return float((gap - by_chance).sum() / room) if room > 1e-9 else 0.0
