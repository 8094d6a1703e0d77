"""Checkers of 06: what a results table can and can't say, and a bootstrap by hand."""

import math

import torch

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_possible", "check_share_ahead"]


@checker
def check_possible(possible: Answer) -> None:
    for ranks in ([1, 5, 12, 30], [11, 11, 11], [20, 19, 2], [40]):
        hits = [sum(rank <= k for rank in ranks) / len(ranks) for k in (10, 20)]
        gain = [sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k) / len(ranks) for k in (10, 20)]
        assert possible(*hits, *gain) is True, (
            f"users with the answers at ranks {ranks} exist, so their row is possible."
        )
        between = hits[1] - hits[0]  # all of them at rank 20 add least to NDCG, all at rank 11 most
        least, most = between / math.log2(21), between / math.log2(12)
        for change, why in ((least - 0.001, "too little"), (most + 0.001, "too much")):
            row = (*hits, gain[0], gain[0] + change)
            assert possible(*row) is False, (
                f"HR {hits[0]:.2f}, {hits[1]:.2f} and NDCG {row[2]:.3f}, {row[3]:.3f}: "
                f"NDCG grows by {change:.3f}, {why} for the hits between rank 11 and 20."
            )


@checker
def check_share_ahead(share_ahead: Answer) -> None:
    ours, theirs = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])
    rows = torch.tensor([[0, 1, 2, 3], [1, 1, 2, 2], [1, 1, 1, 0], [2, 2, 1, 2]])
    found = float(share_ahead(ours, theirs, rows))
    assert found != 0.75, "a tie is not ahead: count only the resamples whose difference is above 0."
    assert abs(found - 0.5) < 1e-6, f"two of these four resamples are ahead, a share of 0.5; you have {found:g}."
    assert float(share_ahead(theirs, ours, rows)) == 0, "with the methods swapped nobody is ahead."
