"""Three errors of a chain of S steps: to the fine solver, to the law behind the data, and to the ranking.

They are three questions. How near is the answer to that of the chain of all T steps from the same x_T? How like the law
p(next item | history) is a cloud of answers for one user? What is a list worth that is ranked by one answer?
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dae4rec_core.cloud import entropy, probabilities, total_variation
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import Dataset, Examples, Split, held_out
from dae4rec_core.data.town import load_town_law
from dae4rec_core.experiments.baselines import Popularity, SequentialRules
from dae4rec_core.method.model import PAD, DAE4Rec, Query
from dae4rec_core.method.sampling import choose_tau, choose_tau_by_snr, skip_step
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.ranking import hit_rate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks, top_items
from dae4rec_core.streams import stream

WAYS = (("t", 1), ("log-SNR", 1), ("log-SNR", 2))  # what tau is even in, and the order of the solver
LISTED = 10  # items of a list
USERS, DRAWS = 100, 256  # of the clouds: so many users, and answers for each
AT_ONCE = 16  # draws of all users: more chains at once would leave the CPU's cache


@torch.no_grad()
def solver_rows(
    recommender: Recommender,
    data: str | Path,
    dataset: Dataset,
    split: Split,
    steps: Sequence[int],
    users: int = USERS,
    draws: int = DRAWS,
) -> Iterator[dict]:
    """A row for every S and way of WAYS (at S = T the first way only), judged on the test answers of all users.

    distance: the mean |e^0 - fine| over the mean |fine|, where fine is the answer of all T steps in order 1 from the
    same x_T. same: the share of the fine list's ten items that are listed. HR@10: of that list. missed: see
    `missed_share`, the same in every row. Where the law is known, also total variation and entropy of a cloud, `draws`
    answers (a multiple of 16) for each of `users` users: see `cloud_metrics`. About a minute on one core for the town
    and S up to 20.
    """
    model, config = recommender.model.eval(), recommender.model.config
    alpha_bar, T = model.alpha_bar, config.diffusion.timesteps
    tests = held_out(dataset, split, "test", config).to(model.device)
    few = held_out(dataset, split, "test", config, limit=users).to(model.device)
    law = law_given_history(data, dataset, split, few, config)
    catalogue = model.item_vectors()  # what a list is ranked with, (|V|, d)

    h, h_few = model.condition(tests.history), model.condition(few.history).repeat(AT_ONCE, 1)
    f, f_few = model.predictor(h, tests.history), model.predictor(h_few, few.history.repeat(AT_ONCE, 1))
    noise = stream(0, "sampling")
    x_T = torch.randn(h.shape, generator=noise).to(h)  # (N, d)
    x_few = torch.randn(draws // AT_ONCE, *h_few.shape, generator=noise).to(h)  # (draws / 16, 16 users, d)

    def list_of(e_0: Tensor) -> tuple[Query, Tensor]:
        query = model.query(e_0, tests.history, h)
        return query, top_items(query, catalogue, LISTED, tests.seen)[1]

    def errors_of(tau: list[int], order: int) -> dict[str, float]:
        e_0 = skip_step(f, x_T, h, alpha_bar, tau, order=order)[1]
        query, items = list_of(e_0)
        hits = hit_rate(*rank_by_blocks(query, catalogue, tests.target, tests.seen), LISTED)
        row = {
            "distance": ((e_0 - fine).norm(dim=1).mean() / fine.norm(dim=1).mean()).item(),
            "same": (items.unsqueeze(2) == fine_items.unsqueeze(1)).any(2).double().mean().item(),
            "HR@10": hits.mean().item(),
        }
        if law is None:
            return row
        cloud = torch.cat([skip_step(f_few, x, h_few, alpha_bar, tau, order=order)[1] for x in x_few])
        by_user = cloud.view(draws, len(few), -1).transpose(0, 1)  # (users, draws, d)
        return row | cloud_metrics(probabilities(model, few.history, by_user, width=0).cpu(), law)

    fine = skip_step(f, x_T, h, alpha_bar, choose_tau(T, T))[1]
    fine_items = list_of(fine)[1]
    missed = missed_share(model, tests, h)
    found: dict[tuple, dict[str, float]] = {}  # with few steps, two ways are often one chain
    for S in steps:
        for spacing, order in WAYS if S < T else WAYS[:1]:
            tau = choose_tau(T, S) if spacing == "t" else choose_tau_by_snr(alpha_bar, S)
            chain = tuple(tau), order if S > 2 else 1  # order 2 needs two jumps
            if chain not in found:
                found[chain] = errors_of(tau, chain[1])
            facts = {"method": "DAE4Rec", "seed": config.train.seed, "S": S, "spacing": spacing, "order": order}
            yield facts | found[chain] | {"missed": missed}


def missed_share(model: DAE4Rec, examples: Examples, h: Tensor) -> float:
    """How much f misses where it is handed almost everything: E|e^0 - f(e^1, 1, h)|^2 over the variance of e^0.

    A solver can't mend it. h: (B, d) of the examples.
    """
    e_0, t = model.clean(examples.target), torch.ones(1, dtype=torch.long, device=h.device)
    eps = torch.randn(h.shape, generator=stream(0, "judging")).to(h)
    e_1 = add_noise(e_0, t.expand(len(h)), eps, model.alpha_bar_float)
    error = (model.predictor(h)(e_1, t, h) - e_0).square().sum(1).mean()
    return (error / (e_0 - e_0.mean(0)).square().sum(1).mean()).item()


def reference_rows(
    data: str | Path, dataset: Dataset, split: Split, config: Config, users: int = USERS, draws: int = DRAWS
) -> Iterator[dict]:
    """What those clouds are to be held against, for the same users: rows with total variation and entropy alone.

    The law itself, as many draws from it, and three counts as distributions: the user's own visits (in the history that
    the model sees), first-order transitions from the newest item, popularity. Nothing where the law is unknown.
    """
    few = held_out(dataset, split, "test", config, limit=users)
    law = law_given_history(data, dataset, split, few, config)
    if law is None:
        return
    own = torch.multinomial(law, draws, replacement=True, generator=stream(0, "judging"))  # (users, draws)
    visits = torch.where(few.history == PAD, dataset.n_items, few.history)
    methods = {
        "the law": law,
        "the law's own draws": shares_of(own, dataset.n_items),
        "own visits": shares_of(visits, dataset.n_items + 1)[:, :-1],
        "first-order transitions": SequentialRules(dataset, split, window=1)(few.history),
        "popularity": Popularity(dataset, split)(few.history),
    }
    for name, weights in methods.items():
        yield {"method": name, **cloud_metrics(weights / weights.sum(1, keepdim=True), law)}


def law_given_history(
    data: str | Path, dataset: Dataset, split: Split, examples: Examples, config: Config, part: str = "test"
) -> Tensor | None:
    """p(next item | history) of examples of a part, "validation" or "test": (B, |V|) float64 on the CPU, rows sum to 1.

    None where nobody knows it: elsewhere than in a town folder, and where a rule for repeats took visits out of the
    histories. (The k-core may have taken some too.)
    The law knows the hour of the last visit and all that came before it, which the model doesn't.
    """
    if not (Path(data) / "town.json").is_file() or config.data.repeats != "keep":
        return None
    targets = split.validation if part == "validation" else split.test
    law, owner = load_town_law(data), np.searchsorted(dataset.offsets, targets, side="right") - 1
    position = dict(zip(owner.tolist(), targets.tolist(), strict=True))
    pasts = [slice(dataset.offsets[user], position[user]) for user in examples.user.tolist()]
    venues = law.index_of(dataset.item_ids)  # the town's number of each item
    found = law.next_given_history([(venues[dataset.items[past]], dataset.timestamps[past]) for past in pasts])
    return torch.from_numpy(found[:, venues] / found[:, venues].sum(1, keepdims=True))


def shares_of(items: Tensor, n_items: int) -> Tensor:
    """How often each of n_items is among items (B, n): (B, n_items) float64, rows sum to 1."""
    counts = torch.zeros(len(items), n_items, dtype=torch.float64)
    return counts.scatter_add(1, items, torch.ones(items.shape, dtype=torch.float64)) / items.shape[1]


def cloud_metrics(shares: Tensor, law: Tensor) -> dict[str, float]:
    """Means over users of the total variation from the law and of the entropy in bits; shares, law: (B, |V|)."""
    return {
        "total variation": total_variation(shares, law).mean().item(),
        "entropy": entropy(shares).mean().item(),
    }
