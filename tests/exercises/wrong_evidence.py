"""Wrong answers to the exercises of 06."""

import math

import torch


def bounds_at_the_cut_offs(more, k, m):
    return more / math.log2(m + 1), more / math.log2(k + 1)


def bounds_without_one(more, k, m):
    return more / math.log2(m), more / math.log2(k + 1)


def bounds_swapped(more, k, m):
    return more / math.log2(k + 2), more / math.log2(m + 1)


def bounds_with_natural_logarithm(more, k, m):
    return more / math.log(m + 1), more / math.log(k + 2)


def resamples(values, generator):
    return values[torch.randint(0, len(values), (5000, len(values)), generator=generator)].mean(1)


def ends(means, low=0.025, high=0.975):
    return means.quantile(low), means.quantile(high)


def unpaired(ours, theirs, generator):
    """Draws the users of the two methods apart."""
    again = resamples(ours, generator) - resamples(theirs, generator)
    return ((ours - theirs).mean(), *ends(again))


def without_replacement(ours, theirs, generator):
    gap = ours - theirs
    return (gap.mean(), *ends(torch.stack([gap[torch.randperm(len(gap), generator=generator)].mean()] * 2)))


def ninety_percent(ours, theirs, generator):
    gap = ours - theirs
    return (gap.mean(), *ends(resamples(gap, generator), 0.05, 0.95))


def spread_of_users(ours, theirs, generator):
    """Where 95% of the users lie, not 95% of the means."""
    gap = ours - theirs
    return (gap.mean(), *ends(gap))


def theirs_minus_ours(ours, theirs, generator):
    gap = theirs - ours
    return (gap.mean(), *ends(resamples(gap, generator)))


def mean_of_readings(readings, noise, generator):
    return (noise * torch.randn(10_000, readings, generator=generator)).mean()


def best_of_all_papers(readings, noise, generator):
    return (noise * torch.randn(10_000, readings, generator=generator)).amax(0).mean()


def standard_error_of_the_mean(readings, noise, generator):
    return (noise / readings**0.5 * torch.randn(10_000, readings, generator=generator)).amax(1).mean()


def best_size(readings, noise, generator):
    return (noise * torch.randn(10_000, readings, generator=generator)).abs().amax(1).mean()


def grows_like_its_bound(readings, noise, generator):
    return noise * math.sqrt(2 * math.log(readings))


WRONG = {
    "check_gain_bounds": (
        bounds_at_the_cut_offs,
        bounds_without_one,
        bounds_swapped,
        bounds_with_natural_logarithm,
    ),
    "check_paired_interval": (
        unpaired,
        without_replacement,
        ninety_percent,
        spread_of_users,
        theirs_minus_ours,
    ),
    "check_gain_of_best": (
        mean_of_readings,
        best_of_all_papers,
        standard_error_of_the_mean,
        best_size,
        grows_like_its_bound,
    ),
}
