"""Lists of variable length that hold the next item 9 times in 10: split conformal prediction (Vovk et al. 2005).

Any p(v | history) orders the items; how far down the true ones stand on validation answers says how far a list must
reach. Of n validation answers, the set at a level holds all items that are no stranger than the ceil((n + 1) level)-th
of the true ones, the least strange first. If test answers were exchangeable with validation answers, the set would hold
the answer with at least that probability, whatever p is; a bad p pays with longer sets. Here they are not quite: a
user's test answer comes one step after the validation answer. Coverage on test is therefore measured, never assumed.

`crepes` (Boström 2022) does the counting, also group by group (Mondrian), so that each group has its own guarantee.
"""

from collections.abc import Iterator

import numpy as np
import torch
from crepes import ConformalClassifier
from torch import Tensor

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CELLS = 2**24  # p-values held at once: 128 MB


def one_minus_p(p: Tensor) -> Tensor:
    """1 - p(v | history): the least sets on average (Sadinle, Lei, Wasserman 2019). p and result: (N, |V|)."""
    return 1 - p


def mass_above(p: Tensor) -> Tensor:
    """The mass of the items that are likelier than v: long sets for users who are hard to tell, short ones for others.

    Romano, Sesia, Candes 2020, without their random tie-breaking. p and result: (N, |V|).
    """
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    return torch.empty_like(p).scatter_(1, order, ordered.cumsum(1) - ordered)


STRANGENESS = {"1 - p": one_minus_p, "mass above": mass_above}


class ConformalSets:
    """Sets of items at any level, calibrated on held-out answers.

    p: (N, |V|) p(v | history) of validation answers; target: (N,) these answers; groups: (N,) whole numbers, or None
    for one guarantee over all. strangeness: a name of STRANGENESS. Raises ValueError for shapes that don't belong
    together, or numbers that are no probabilities.
    """

    def __init__(self, p: Tensor, target: Tensor, groups: np.ndarray | None = None, strangeness: str = "1 - p"):
        _check(p, groups, target)
        self.strangeness, self.known = STRANGENESS[strangeness], None if groups is None else set(groups.tolist())
        own = self.strangeness(p).gather(1, target.unsqueeze(1)).squeeze(1)
        self.classifier = ConformalClassifier()
        self.classifier.fit(own.double().numpy(), bins=groups)

    def p_values(self, p: Tensor, groups: np.ndarray | None = None) -> Tensor:
        """The share of true items, of validation and this one, that are at least as strange: (N, |V|).

        p: (N, |V|); groups: (N,), those of the calibration. Raises ValueError for groups that were not calibrated.
        """
        _check(p, groups)
        if (groups is None) != (self.known is None):
            raise ValueError("Groups were given either here or in the calibration; give them to both or to neither.")
        if groups is not None and self.known is not None:
            strangers = sorted(set(groups.tolist()) - self.known)
            if strangers:
                raise ValueError(f"Group {strangers[0]} has no validation answers; leave it out or merge it.")
        at_once, found = max(1, CELLS // p.shape[1]), []
        for start in range(0, len(p), at_once):
            rows = slice(start, start + at_once)
            alphas = self.strangeness(p[rows]).double().numpy()
            found.append(self.classifier.predict_p(alphas, None if groups is None else groups[rows], smoothing=False))
        return torch.from_numpy(np.concatenate(found))

    def sets(self, p: Tensor, level: float, groups: np.ndarray | None = None) -> Tensor:
        """Which items are in each user's set at a level such as 0.9: (N, |V|) booleans, see `inside`.

        p and groups as in `p_values`. Raises ValueError for a level outside 0..1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; give a number between 0 and 1, such as 0.9.")
        return inside(self.p_values(p, groups), level)


def inside(p_values: Tensor, level: float) -> Tensor:
    """p-value > 1 - level, where 1 - 0.9 counts as 0.1: the next p-value is at least 1 / (n + 1) away."""
    return p_values > 1 - level + 1e-9


def conformal_rows(
    before: tuple[Tensor, Tensor, np.ndarray], after: tuple[Tensor, Tensor, np.ndarray]
) -> Iterator[dict]:
    """How sets calibrated on validation answers do on test answers, for each strangeness, with and without groups.

    before, after: (p (N, |V|), target (N,), groups (N,)) of validation and test. Rows of strangeness, by group (whether
    each group was calibrated apart), level, group ("all" or its number), users, coverage, mean size, median size.
    """
    p, target, groups = after
    for strangeness in STRANGENESS:
        for by_group in (False, True):
            chosen = ConformalSets(*before[:2], before[2] if by_group else None, strangeness)
            p_values = chosen.p_values(p, groups if by_group else None)
            for level in LEVELS:
                sets = inside(p_values, level)
                held = sets.gather(1, target.unsqueeze(1)).squeeze(1).numpy()
                size = sets.sum(1).numpy()
                for group in ("all", *np.unique(groups).tolist()):
                    members = np.full(len(p), True) if group == "all" else groups == group
                    yield {
                        "strangeness": strangeness,
                        "by group": by_group,
                        "level": level,
                        "group": group,
                        "users": int(members.sum()),
                        "coverage": float(held[members].mean()),
                        "mean size": float(size[members].mean()),
                        "median size": float(np.median(size[members])),
                    }


def _check(p: Tensor, groups: np.ndarray | None, target: Tensor | None = None) -> None:
    for name, other in (("groups", groups), ("targets", target)):
        if other is not None and len(other) != len(p):
            raise ValueError(f"There are {len(p)} rows of probabilities, but {len(other)} {name}; give as many.")
    if not (p >= 0).all():  # also refuses NaN
        raise ValueError("Some probabilities are negative or no numbers; give p(v | history), rows summing to 1.")
