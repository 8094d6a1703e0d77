"""Wrong answers to the exercises of 00."""

import math


def longer_than_the_catalogue(n_items, k):
    return k / n_items


def with_replacement(n_items, k):
    return 1 - (1 - 1 / n_items) ** min(k, n_items)


def one_place_too_few(n_items, k):
    return min(k - 1, n_items) / n_items


def with_repeats(history, k):
    return history[::-1][:k]


def oldest_first(history, k):
    return list(dict.fromkeys(history))[:k]


def cut_before_repeats_go(history, k):
    return list(dict.fromkeys(reversed(history[-k:])))


def where_it_is_oldest(history, k):
    return list(dict.fromkeys(history))[::-1][:k]


def variance(hit_rate, n_users):
    return hit_rate * (1 - hit_rate) / n_users


def of_one_user(hit_rate, n_users):
    return math.sqrt(hit_rate * (1 - hit_rate))


def at_its_widest(hit_rate, n_users):
    return math.sqrt(0.25 / n_users)


def of_a_count(hit_rate, n_users):
    """Poisson's: right only where hits are rare."""
    return math.sqrt(hit_rate / n_users)


WRONG = {
    "check_chance_hit_rate": (longer_than_the_catalogue, with_replacement, one_place_too_few),
    "check_recency_list": (with_repeats, oldest_first, cut_before_repeats_go, where_it_is_oldest),
    "check_standard_error": (variance, of_one_user, at_its_widest, of_a_count),
}
