"""Checkers of 01: the edges of Eq. 6, the leave-last-out split, and hits where scores are tied."""

import itertools
import random

import networkx as nx
import numpy as np

from dae4rec_core.exercises.checker import Answer, checker

__all__ = ["check_edge_set", "check_split_user", "check_expected_hits"]


@checker
def check_edge_set(edge_set: Answer) -> None:
    draw = random.Random(0)
    worlds = [[[0, 1, 2]], [[2, 1], [1, 2]], [[3, 3]], [[0], []], [[0, 1], [2, 3]]]
    worlds += [[draw.choices(range(6), k=n) for n in (1, 4, 7)] for _ in range(5)]
    for sequences in worlds:
        graph: nx.Graph = nx.Graph()
        for sequence in sequences:
            nx.add_path(graph, sequence)
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
        expected = {(min(pair), max(pair)) for pair in graph.edges}
        found = {tuple(map(int, pair)) for pair in edge_set([list(sequence) for sequence in sequences])}
        assert found == expected, (
            f"the edges of {sequences} are {sorted(expected)}, each as (small, large); you have {sorted(found)}."
        )


@checker
def check_split_user(split_user: Answer) -> None:
    draw = random.Random(0)
    for length in (0, 1, 2, 3, 4, 9):
        sequence = draw.choices(range(9), k=length)
        training = list(sequence)
        answers = [training.pop(), training.pop()][::-1] if length >= 3 else [None, None]
        found = tuple(split_user(list(sequence)))
        assert len(found) == 3, "return three things: the training part, the validation answer, the test answer."
        assert list(found[0]) == training, f"the training part of {sequence} is {training}, you have {list(found[0])}."
        assert list(found[1:]) == answers, (
            f"the validation and the test answer of {sequence} are {answers}, you have {list(found[1:])}."
        )


@checker
def check_expected_hits(expected_hits: Answer) -> None:
    draw = np.random.default_rng(0)
    tables = [np.zeros((3, 4)), np.array([[3, 2, 2, 1], [0, 0, 5, 0]]), *draw.integers(0, 3, size=(4, 5, 5))]
    orders = [np.array(order) for order in itertools.permutations(range(5))]
    for scores in tables:
        answers = draw.integers(scores.shape[1], size=len(scores))
        for k in (1, 2, 4):
            # all ways to break ties: a stable sort after every shuffle of the items
            hits = []
            for order in [order[order < scores.shape[1]] for order in orders]:
                ranked = order[np.argsort(-scores[:, order], axis=1, kind="stable")]
                hits.append((ranked[:, :k] == answers[:, None]).any(1))
            expected = np.mean(hits)
            found = float(expected_hits(scores.copy(), answers.copy(), k))
            assert abs(found - expected) < 1e-9, (
                f"with the scores {scores.tolist()}, the answers {answers.tolist()} and k = {k}, the share of hits "
                f"over all ways to break ties is {expected:.4f}, you have {found:.4f}."
            )
