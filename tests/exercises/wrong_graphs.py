"""Wrong answers to the exercises of 01."""

import numpy as np


def directed(sequences):
    return {(a, b) for s in sequences for a, b in zip(s, s[1:], strict=False) if a != b}


def with_loops(sequences):
    return {(min(a, b), max(a, b)) for s in sequences for a, b in zip(s, s[1:], strict=False)}


def across_users(sequences):
    """One long sequence of everybody."""
    s = [item for sequence in sequences for item in sequence]
    return {(min(a, b), max(a, b)) for a, b in zip(s, s[1:], strict=False) if a != b}


def all_pairs_of_a_user(sequences):
    return {(a, b) for s in sequences for a in s for b in s if a < b}


def answers_swapped(sequence):
    return (sequence[:-2], sequence[-1], sequence[-2]) if len(sequence) >= 3 else (sequence, None, None)


def answer_left_in_training(sequence):
    return (sequence[:-1], sequence[-2], sequence[-1]) if len(sequence) >= 3 else (sequence, None, None)


def two_items_are_enough(sequence):
    return (sequence[:-2], sequence[-2], sequence[-1]) if len(sequence) >= 2 else (sequence, None, None)


def short_users_dropped(sequence):
    return (sequence[:-2], sequence[-2], sequence[-1]) if len(sequence) >= 3 else ([], None, None)


def counts(scores, answers, k):
    """For each user: items above the answer, items tied with it."""
    mine = scores[np.arange(len(answers)), answers][:, None]
    return (scores > mine).sum(1), (scores == mine).sum(1)


def ties_first(scores, answers, k):
    above, _ = counts(scores, answers, k)
    return (above < k).mean()


def ties_last(scores, answers, k):
    above, tied = counts(scores, answers, k)
    return (above + tied <= k).mean()


def ties_in_the_middle(scores, answers, k):
    """A hit where the mean rank is at most k."""
    above, tied = counts(scores, answers, k)
    return (above + (tied + 1) / 2 <= k).mean()


def ties_by_place(scores, answers, k):
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return (ranked == answers[:, None]).any(1).mean()


WRONG = {
    "check_edge_set": (directed, with_loops, across_users, all_pairs_of_a_user),
    "check_split_user": (answers_swapped, answer_left_in_training, two_items_are_enough, short_users_dropped),
    "check_expected_hits": (ties_first, ties_last, ties_in_the_middle, ties_by_place),
}
