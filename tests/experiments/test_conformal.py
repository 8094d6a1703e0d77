"""Conformal sets: against split conformal prediction by NumPy's sort, and coverage where answers are exchangeable."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.experiments.conformal import LEVELS, STRANGENESS, ConformalSets, conformal_rows, inside, mass_above

ITEMS = 30


def drawn(users: int, seed: int, sharp: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Laws of so many users, and an answer drawn from each."""
    noise = torch.Generator().manual_seed(seed)
    p = (sharp * torch.randn(users, ITEMS, generator=noise)).double().softmax(1)
    return p, torch.multinomial(p, 1, generator=noise).squeeze(1)


def strange(p: np.ndarray, kind: str) -> np.ndarray:
    """By loops."""
    if kind == "1 - p":
        return 1 - p
    return np.array([[sum(q for q in row if q > value) for value in row] for row in p])


@pytest.mark.parametrize("kind", STRANGENESS)
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_sets_are_split_conformal_by_sorting(kind, level):
    before, target = drawn(37, 0)
    p, _ = drawn(20, 1)
    own = np.sort(strange(before.numpy(), kind)[np.arange(37), target])
    limit = own[math.ceil(38 * level) - 1]
    found = ConformalSets(before, target, strangeness=kind).sets(p, level)
    assert found.numpy().tolist() == (strange(p.numpy(), kind) <= limit + 1e-12).tolist()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [9, 19, 99, 999])
def test_a_set_ends_where_the_level_is_a_whole_rank(n, level):
    """Where (n + 1) x level is whole, 1 - level of floats is a hair off: the item of that rank is the last one."""
    p_values = torch.arange(1, n + 2, dtype=torch.double) / (n + 1)
    assert inside(p_values, level).sum() == math.ceil(round((n + 1) * level, 6))


@pytest.mark.parametrize("kind", STRANGENESS)
def test_coverage_is_the_level_even_for_a_bad_p_which_pays_in_length(kind):
    before, target = drawn(2000, 2)
    p, answer = drawn(2000, 3)
    sizes = []
    for wrong in (0.0, 0.9):  # as much of an even p mixed in, for both parts
        mixed = [
            (1 - wrong) * part.roll(1, 1) * (wrong > 0) + part * (wrong == 0) + wrong / ITEMS for part in (before, p)
        ]
        sets = ConformalSets(mixed[0], target, strangeness=kind).sets(mixed[1], 0.9)
        coverage = sets.gather(1, answer.unsqueeze(1)).double().mean().item()
        assert abs(coverage - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 2000 * 2)  # errors of both parts
        sizes.append(sets.sum(1).double().mean().item())
    assert sizes[0] < 0.8 * sizes[1]


def test_groups_calibrated_apart_are_each_covered():
    """One group's p is right, the other's is even: one guarantee over all covers neither as promised."""
    before, target = drawn(2000, 4, sharp=3.0)
    p, answer = drawn(2000, 5, sharp=3.0)
    groups = np.arange(2000) % 2
    for part in (before, p):
        part[1::2] = 1 / ITEMS + 1e-6 * torch.rand(1000, ITEMS, generator=torch.Generator().manual_seed(6)).double()
    found = pd.DataFrame(conformal_rows((before, target, groups), (p, answer, groups)))
    rows = found[(found["strangeness"] == "1 - p") & (found["level"] == 0.8)].set_index(["by group", "group"])
    for group in (0, 1):
        assert abs(rows.loc[(True, group), "coverage"] - 0.8) < 0.05
        assert abs(rows.loc[(False, group), "coverage"] - 0.8) > 0.08
    assert abs(rows.loc[(False, "all"), "coverage"] - 0.8) < 0.03
    assert len(found) == len(STRANGENESS) * 2 * len(LEVELS) * 3 and (rows["users"] == [2000, 1000, 1000] * 2).all()


def test_a_higher_level_holds_the_lower_one():
    before, target = drawn(100, 7)
    p, _ = drawn(50, 8)
    chosen = ConformalSets(before, target)
    sets = [chosen.sets(p, level) for level in LEVELS]
    assert all((low <= high).all() for low, high in zip(sets, sets[1:], strict=False))
    assert ConformalSets(before[:3], target[:3]).sets(p, 0.9).all()  # three answers can't promise 9 in 10: all items


def test_blocks_make_no_difference(monkeypatch):
    before, target = drawn(60, 9)
    p, _ = drawn(11, 10)
    groups, whole = np.arange(60) % 3, {}
    for cells in (2**24, 4 * ITEMS):
        monkeypatch.setattr("dae4rec_core.experiments.conformal.CELLS", cells)
        whole[cells] = ConformalSets(before, target, groups).sets(p, 0.7, np.arange(11) % 3)
    assert torch.equal(*whole.values())


def test_equally_likely_items_keep_their_order():
    p = torch.tensor([[0.25, 0.25, 0.5]]).double()
    torch.testing.assert_close(mass_above(p), torch.tensor([[0.5, 0.75, 0.0]]).double())


def test_bad_input_is_refused(one_sentence):
    p, target = drawn(20, 0)
    groups = np.zeros(20, dtype=int)
    one_sentence(lambda: ConformalSets(p, target[:5]), "20 rows", "5 targets")
    one_sentence(lambda: ConformalSets(p, target, groups[:3]), "3 groups")
    one_sentence(lambda: ConformalSets(p * torch.nan, target), "no numbers")
    one_sentence(lambda: ConformalSets(-p, target), "negative")
    chosen = ConformalSets(p, target)
    one_sentence(lambda: chosen.sets(p, 1.0), "level is 1.0", "such as 0.9")
    one_sentence(lambda: chosen.sets(p, 0.9, groups), "give them to both")
    one_sentence(lambda: ConformalSets(p, target, groups).sets(p, 0.9, groups + 4), "Group 4", "merge it")
