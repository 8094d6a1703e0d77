"""Each method as a distribution p(next item | history), held against the law of the town and against what came next.

Everything works on matrices of probabilities, a row a user: total variation, entropy and marginals need the law;
log-likelihood, calibration and lists need the answers alone, so they can be had on real data too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dae4rec_core.cloud import entropy, fit_width, probabilities, total_variation
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, Examples, Split, held_out
from dae4rec_core.experiments.baselines import Popularity, SequentialRules
from dae4rec_core.experiments.solvers import law_given_history, shares_of
from dae4rec_core.method.model import PAD, DAE4Rec, scores
from dae4rec_core.method.sampling import Predictor, choose_tau, skip_step
from dae4rec_core.ranking import hit_rate, ndcg, rank_of
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import without_seen
from dae4rec_core.streams import stream

LISTED = 10  # items of a list
BINS = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])  # of predicted probabilities
AT_ONCE = 2**15  # chains run at once
SMALL = 1e-12  # a probability of nothing, where a logarithm is taken

ProbabilitiesOf = Callable[[Examples], Tensor]  # from N examples to p(v | history), (N, |V|) float64


@dataclass(frozen=True)
class Bench:
    """What methods are judged on: validation answers to fit what is fitted, test answers, and what is known of them.

    law: p(next | history) of the test answers, (N, |V|), or None where nobody knows it. popularity: (|V|,), sums to 1.
    groups: codes of the items (|V|,), by the name of an attribute.
    """

    validation: Examples
    test: Examples
    law: Tensor | None
    popularity: Tensor
    groups: dict[str, np.ndarray]


def make_bench(data: str | Path, dataset: Dataset, split: Split, config: Config, users: int) -> Bench:
    """At most `users` answers of either part. data: the folder, for the law of a town."""
    validation, test = (held_out(dataset, split, part, config, limit=users) for part in ("validation", "test"))
    counts = np.bincount(np.concatenate(split.training_sequences(dataset)), minlength=dataset.n_items) + 1.0
    groups = {
        name: pd.factorize(dataset.attributes[name])[0]
        for name in ("category", "district")
        if name in dataset.attributes
    }
    law = law_given_history(data, dataset, split, test, config)
    return Bench(validation, test, law, torch.from_numpy(counts / counts.sum()), groups)


# ---- methods as distributions: each from examples to p(v | history) --------------------------------------------------


def softmax_of(recommender: Recommender) -> ProbabilitiesOf:
    """softmax of the scores that a list is made from, at S = 1 without a compensator: no cloud, a formula.

    The same examples get the same first noise, whatever was asked before.
    """

    def softmax(examples: Examples) -> Tensor:
        scorer = recommender.scorer(1, compensate=False)
        return scores(scorer.query(newest(recommender, examples)), scorer.items).double().softmax(1)

    return softmax


def newest(recommender: Recommender, examples: Examples) -> Tensor:
    """As much of the histories as the model sees: (N, L)."""
    return examples.history[:, -recommender.model.config.data.max_len :]


def draws_of(recommender: Recommender, steps: int, compensate: bool, draws: int) -> Callable[[Examples], Tensor]:
    """e^0 of `draws` chains for every example: (N, draws, d)."""

    def draw(examples: Examples) -> Tensor:
        noise, few = stream(0, "sampling"), max(1, AT_ONCE // draws)
        parts = newest(recommender, examples).split(few)
        return torch.cat([recommender.draw(part, draws, steps, compensate, noise) for part in parts])

    return draw


def counting(dataset: Dataset, split: Split) -> dict[str, ProbabilitiesOf]:
    """Popularity, first-order transitions and the user's own visits as they stand, each row divided by its sum."""
    popularity, transitions = Popularity(dataset, split), SequentialRules(dataset, split, window=1)

    def own_visits(examples: Examples) -> Tensor:
        visits = torch.where(examples.history == PAD, dataset.n_items, examples.history)
        return shares_of(visits, dataset.n_items + 1)[:, :-1]

    return {
        "popularity": lambda examples: normalized(popularity(examples.history)),
        "first-order transitions": lambda examples: normalized(transitions(examples.history)),
        "own visits": lambda examples: normalized(own_visits(examples)),
    }


def exact_f(prior: Tensor, items: Tensor, alpha_bar: Tensor) -> Predictor:
    """The best f there is for e^0 = e_v with probability p(v | h): sum_v p(v | e^t, h) e_v, by Bayes.

    prior: (B, |V|) log p(v | h) of each row of e^t; items: (|V|, d), e_v; alpha_bar: (T + 1,).
    """
    half = items.square().sum(1) / 2  # (|V|,)

    def f(e_t: Tensor, t: Tensor, _: Tensor) -> Tensor:
        level = alpha_bar[int(t)].item()
        evidence = (level**0.5 * e_t @ items.T - level * half) / (1 - level)
        return (prior + evidence).softmax(1) @ items

    return f


@torch.no_grad()
def draws_by_exact_f(model: DAE4Rec, log_p: Tensor, steps: int, draws: int) -> Tensor:
    """Shares of nearest items of chains whose f is exact for the law log_p (N, |V|): what a solver alone gets wrong."""
    items, noise = model.embedding.weight, stream(0, "sampling")
    tau, shares = choose_tau(model.config.diffusion.timesteps, steps), []
    for row in log_p.float():
        x_T = torch.randn(draws, items.shape[1], generator=noise)
        f = exact_f(row.expand(draws, -1), items, model.alpha_bar)
        e_0 = skip_step(f, x_T, x_T, model.alpha_bar, tau)[1]
        nearest = (e_0 @ items.T - items.square().sum(1) / 2).argmax(1)
        shares.append(shares_of(nearest.unsqueeze(0), len(items)))
    return torch.cat(shares)


def normalized(weights: Tensor) -> Tensor:
    """Rows that sum to 1; a row of zeros becomes even."""
    total = weights.double().sum(1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=SMALL), 1 / weights.shape[1])


# ---- what is measured of a distribution ------------------------------------------------------------------------------


def cloud_row(bench: Bench, on_validation: Tensor, on_test: Tensor) -> dict[str, float]:
    """Means over the test answers, from p(v | history) of both parts: (N, |V|) each.

    total variation, entropy in bits, marginals (total variation of the sums by group, and of the user's own items
    against the rest), where the law is known. log-likelihood: mean log p of the answers, in nats, where p is mixed with
    popularity by the weight at which the validation answers are likeliest (mixed: that weight), so that no answer
    is impossible. Lists of ten by p: HR@10, NDCG@10; coverage, the share of the catalogue that stands in some list;
    novelty, mean -log2 of the popularity of what is listed, in bits; kinds, the mean number of categories in a list.
    """
    on_validation, on_test = (
        of_unseen(p, part) for p, part in ((on_validation, bench.validation), (on_test, bench.test))
    )
    weight = mixing_weight(on_validation, bench)
    likelihood = log_likelihood(on_test, bench.test, bench, weight)
    row = {"log-likelihood": likelihood, "mixed": weight, "entropy": entropy(on_test).mean().item()}
    if bench.law is not None:
        row["total variation"] = total_variation(on_test, bench.law).mean().item()
        for name, codes in bench.groups.items():
            row[f"by {name}"] = total_variation(*(by_group(p, codes) for p in (on_test, bench.law))).mean().item()
        row["own items"] = (own_mass(on_test, bench.test) - own_mass(bench.law, bench.test)).abs().mean().item()
        row["mass on own items"] = own_mass(on_test, bench.test).mean().item()
    return row | list_metrics(on_test, bench)


def list_metrics(p: Tensor, bench: Bench) -> dict[str, float]:
    """Of lists of ten by p (N, |V|); ties are settled by popularity."""
    ranked = p + 1e-9 * bench.popularity
    better, tied = rank_of(ranked, bench.test.target, bench.test.seen)
    items = listed(ranked, bench.test)
    row = {
        "HR@10": hit_rate(better, tied, LISTED).mean().item(),
        "NDCG@10": ndcg(better, tied, LISTED).mean().item(),
        "coverage": len(items.unique()) / p.shape[1],
        "novelty": -bench.popularity[items].log2().mean().item(),
    }
    if "category" in bench.groups:
        kinds = torch.from_numpy(bench.groups["category"])[items]
        row["kinds"] = float(np.mean([len(set(row)) for row in kinds.tolist()]))
    return row


def listed(ranked: Tensor, examples: Examples) -> Tensor:
    """The first LISTED items by ranked (N, |V|), without those that are not ranked: (N, LISTED)."""
    return without_seen(ranked, examples.seen).topk(LISTED, dim=1).indices


def of_unseen(p: Tensor, examples: Examples) -> Tensor:
    """p with the items that are not ranked taken out, rows summing to 1 again: (N, |V|)."""
    return normalized(without_seen(p, examples.seen).clamp(min=0)) if examples.seen.numel() else p


def log_likelihood(p: Tensor, examples: Examples, bench: Bench, weight: float) -> float:
    """Mean log of (1 - weight) p(target) + weight popularity(target), in nats."""
    own = p[torch.arange(len(p)), examples.target]
    return ((1 - weight) * own + weight * bench.popularity[examples.target]).clamp(min=SMALL).log().mean().item()


def mixing_weight(p: Tensor, bench: Bench) -> float:
    """The weight of popularity at which the validation answers are likeliest; p: (N, |V|) of these."""
    found = minimize_scalar(
        lambda weight: -log_likelihood(p, bench.validation, bench, weight), bounds=(0, 1), method="bounded"
    )
    return float(found.x)


def sharpness(p: Tensor, bench: Bench) -> float:
    """The a at which p^a, rows summing to 1, makes the validation answers likeliest: 1 / a tempers a softmax."""

    def loss(log_a: float) -> float:
        return -log_likelihood(sharpened(p, np.exp(log_a)), bench.validation, bench, 1e-3)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded").x))


def sharpened(p: Tensor, a: float) -> Tensor:
    """p^a with rows that sum to 1."""
    return (a * p.clamp(min=SMALL).log()).softmax(1)


def by_group(p: Tensor, codes: np.ndarray) -> Tensor:
    """Sums of p (N, |V|) over the items of each group: (N, groups)."""
    return p @ torch.nn.functional.one_hot(torch.from_numpy(codes)).double()


def own_mass(p: Tensor, examples: Examples) -> Tensor:
    """What p (N, |V|) gives to the items of the history that the model sees: (N,)."""
    met = torch.zeros(p.shape[0], p.shape[1] + 1, dtype=torch.bool)
    met.scatter_(1, torch.where(examples.history == PAD, p.shape[1], examples.history), True)
    return (p * met[:, :-1]).sum(1)


def reliability(p: Tensor, examples: Examples) -> Iterator[dict[str, float]]:
    """For each of BINS, over all pairs of an answer and an item whose p is in it: how likely, and how often it came."""
    hit = torch.zeros_like(p, dtype=torch.bool).scatter_(1, examples.target.unsqueeze(1), True)
    place = torch.bucketize(p.contiguous(), torch.from_numpy(BINS[1:-1]), right=True)
    for n in range(len(BINS) - 1):
        inside = place == n
        if inside.any():
            yield {
                "from": BINS[n],
                "pairs": int(inside.sum()),
                "predicted": p[inside].mean().item(),
                "observed": hit[inside].double().mean().item(),
            }


@torch.no_grad()
def overlap(recommender: Recommender, examples: Examples, steps: int, compensate: bool) -> float:
    """The share of ten items that two lists have in common, each ranked by one draw, from two first noises."""
    lists = []
    for seed in (0, 1):
        scorer = recommender.scorer(steps, compensate, seed)
        lists.append(listed(scores(scorer.query(newest(recommender, examples)), scorer.items), examples))
    return (lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).any(2).double().mean().item()


# ---- rows ------------------------------------------------------------------------------------------------------------


def rows_of_probabilities(
    name: str, on_validation: Tensor, on_test: Tensor, bench: Bench, fitted: bool
) -> Iterator[tuple[dict, Tensor]]:
    """(row, p on test) as it is and, where fitted, tempered by `sharpness`."""
    yield {"method": name, "kind": "as it is", **cloud_row(bench, on_validation, on_test)}, on_test
    if fitted:
        a = sharpness(on_validation, bench)
        on_validation, on_test = sharpened(on_validation, a), sharpened(on_test, a)
        yield {"method": name, "kind": "tempered", "width": 1 / a, **cloud_row(bench, on_validation, on_test)}, on_test


def rows_of_draws(
    name: str, recommender: Recommender, bench: Bench, steps: int, compensate: bool, draws: int
) -> Iterator[tuple[dict, Tensor]]:
    """(row, p on test) of the nearest items of the draws, and of a kernel whose width is fitted on validation."""
    draw, model = draws_of(recommender, steps, compensate, draws), recommender.model
    e_validation, e_test = draw(bench.validation), draw(bench.test)
    shared = {"method": name, "S": steps, "compensator": compensate, "draws": draws}
    shared["overlap"] = overlap(recommender, bench.test, steps, compensate)
    fitted = fit_width(model, newest(recommender, bench.validation), e_validation, bench.validation.target)
    for kind, width in (("nearest", 0.0), ("kernel", fitted)):
        on_validation, on_test = (
            probabilities(model, newest(recommender, part), e_0, width).cpu()
            for part, e_0 in ((bench.validation, e_validation), (bench.test, e_test))
        )
        yield {**shared, "kind": kind, "width": width, **cloud_row(bench, on_validation, on_test)}, on_test
