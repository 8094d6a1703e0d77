"""Wrong answers to the exercises of 10."""

import numpy as np

KNOBS = ("again", "returns knob", "users")


def all_visits_below(walks):
    known = sum(item in walk[:n] for walk in walks for n, item in enumerate(walk))
    return known / sum(len(walk) for walk in walks)


def known_to_anybody(walks):
    seen, known, total = set(), 0, 0
    for walk in walks:
        for n, item in enumerate(walk):
            known, total = known + (n > 0 and item in seen), total + (n > 0)
            seen.add(item)
    return known / total


def to_the_last_place_alone(walks):
    return sum(a == b for w in walks for a, b in zip(w, w[1:], strict=False)) / sum(len(w) - 1 for w in walks)


def not_scaled(towns, leads, here):
    far = np.linalg.norm(towns - here, axis=1)
    nearest = np.argsort(far)[:2]
    return np.average(leads[nearest], weights=1 / np.maximum(far[nearest], 1e-12))


def plain_mean(towns, leads, here):
    far = np.linalg.norm((towns - here) / towns.std(0), axis=1)
    return leads[np.argsort(far)[:2]].mean()


def nearest_alone(towns, leads, here):
    return leads[np.linalg.norm((towns - here) / towns.std(0), axis=1).argmin()]


def widest_single_town(towns, lead):
    return max(KNOBS, key=lambda knob: towns.groupby(knob)[lead].std().max())


def first_against_last_position(towns, lead):
    means = {knob: towns.groupby(knob)[lead].mean() for knob in KNOBS}
    return max(KNOBS, key=lambda knob: means[knob].iloc[-1] - means[knob].iloc[0])


def always_the_first(towns, lead):
    return KNOBS[0]


WRONG = {
    "check_share_of_returns": (all_visits_below, known_to_anybody, to_the_last_place_alone),
    "check_look_up": (not_scaled, plain_mean, nearest_alone),
    "check_strongest_knob": (widest_single_town, first_against_last_position, always_the_first),
}
