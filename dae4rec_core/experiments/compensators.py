"""Does a compensator need its S, its first input, its chain? What notebook 05 shows, as tidy rows for a trained model.

Given h, e^{tau_1} tells nothing about e^0, so an ideal compensator is E[e^0 | h]: it needs neither e^{tau_1} nor an S
of its own, and every answer below that is trained towards that mean has the same ideal. How far trained ones keep to it
is measured here.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dae4rec_core.data.dataset import Dataset, Examples, Split, held_out, training_examples, validation_sample
from dae4rec_core.experiments.evaluation import PARTS
from dae4rec_core.method.beyond import SharedCompensator
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.ranking import mean_metrics
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks, top_items
from dae4rec_core.streams import stream, weights_from
from dae4rec_core.training import COMPENSATOR_EXAMPLES, learn_last_step, own_answers, sample_e_tau1

LISTED = 10  # items of a list
SAMPLES = 16  # whose mean is taken


class Judge:
    """The held-out answers of a part, with h, and what is measured of predicted e^0."""

    def __init__(self, recommender: Recommender, dataset: Dataset, split: Split, part: str):
        self.model = recommender.model.eval()
        self.examples: Examples = held_out(dataset, split, part, self.model.config).to(self.model.device)
        self.h = self.model.condition(self.examples.history)  # (N, d)
        self.truth = self.model.clean(self.examples.target)  # (N, d)
        self.constant = (self.truth - self.truth.mean(0)).square().sum(1).mean()  # what the best constant misses

    def error(self, e_0: Tensor) -> dict[str, float]:
        """error: the mean squared distance to the truth, over that of the best constant."""
        return {"error": ((e_0 - self.truth).square().sum(1).mean() / self.constant).item()}

    def metrics(self, e_0: Tensor, other: Tensor | None = None) -> dict[str, float]:
        """METRICS, error and, given the answers from another first noise, overlap: the share of ten items in both."""
        query = self.model.query(e_0, self.examples.history, self.h)
        ranks = rank_by_blocks(query, self.model.item_vectors(), self.examples.target, self.examples.seen)
        found = mean_metrics(*ranks, self.model.n_items) | self.error(e_0)
        if other is not None:
            same = self.listed(e_0).unsqueeze(2) == self.listed(other).unsqueeze(1)  # (N, 10, 10)
            found["overlap"] = same.any(2).double().mean().item()
        return found

    def listed(self, e_0: Tensor) -> Tensor:
        """The ten best items (N, 10)."""
        query = self.model.query(e_0, self.examples.history, self.h)
        return top_items(query, self.model.item_vectors(), LISTED, self.examples.seen)[1]

    def sample(self, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """e^{tau_1} and f(e^{tau_1}, tau_1, h), (N, d) each, of a chain of S = steps jumps from fresh noise."""
        x_T = torch.randn(self.h.shape, generator=generator).to(self.h)
        tau = choose_tau(self.model.config.diffusion.timesteps, steps)
        return skip_step(self.model.predictor(self.h), x_T, self.h, self.model.alpha_bar, tau)


@torch.no_grad()
def compensator_rows(
    recommender: Recommender, dataset: Dataset, split: Split, steps: Sequence[int], parts: Sequence[str] = PARTS
) -> Iterator[dict]:
    """Rows with part, answer, seed, trained (the S of a compensator), used (the S of the chain) and what `Judge` finds.

    answer is one of
        f(e, tau_1, h)   the plain answer at S = used; at S = 1 it is f(x_T, T, h)
        c(e, h)          the compensator of S = trained behind a chain of S = used
        c(0, h)          the same with zeros in place of e^{tau_1}
        c(h)             the same network, trained and used with zeros there
        f(0, T, h)       f's own answer to no noise
        f(0, T, h) + r(h)   `SharedCompensator`
        f(e, tau_1, h) + r(h)   tried in its place: r on the plain answer at S = used, 1 or the configuration's
        mean of 16 f     the mean of SAMPLES plain answers at S = used, the configuration's
        f(e^t, t, h)     f's answer to the noised truth at t = used (its error alone)
    The first noises are others than those in training and in the choice of an epoch. About two minutes on one core for
    the town.
    """
    seed, S = recommender.model.config.train.seed, recommender.model.config.sampling_steps
    by_steps = sorted(recommender.compensators.items())
    alone = train_alone(recommender, dataset, split)
    shared = {steps: train_shared(recommender, dataset, split, steps) for steps in (None, 1, S)}
    for part in parts:
        judge, noise = Judge(recommender, dataset, split, part), stream(seed, "sampling")
        nothing = torch.zeros_like(judge.h)
        start = SharedCompensator.start(judge.model, judge.h)
        found: list[tuple[str, int | None, int | None, dict[str, float]]] = [
            ("c(h)", None, None, judge.metrics(alone(nothing, judge.h))),
            ("f(0, T, h)", None, None, judge.metrics(start)),
            ("f(0, T, h) + r(h)", None, None, judge.metrics(shared[None](start, judge.h))),
        ]
        for used in steps:
            (one, plain), (other, plain_too) = judge.sample(used, noise), judge.sample(used, noise)
            found.append(("f(e, tau_1, h)", None, used, judge.metrics(plain, plain_too)))
            if used in shared:
                added = shared[used](plain, judge.h), shared[used](plain_too, judge.h)
                found.append(("f(e, tau_1, h) + r(h)", None, used, judge.metrics(*added)))
            for trained, c in by_steps:
                found.append(("c(e, h)", trained, used, judge.metrics(c(one, judge.h), c(other, judge.h))))
        for trained, c in by_steps:
            found.append(("c(0, h)", trained, None, judge.metrics(c(nothing, judge.h))))
        mean = torch.stack([judge.sample(S, noise)[1] for _ in range(SAMPLES)]).mean(0)
        found.append((f"mean of {SAMPLES} f", None, S, judge.metrics(mean)))
        for t in noise_levels(judge.model.config.diffusion.timesteps):
            at = torch.full((1,), t, device=judge.h.device)
            eps = torch.randn(judge.h.shape, generator=noise).to(judge.h)
            e_t = add_noise(judge.truth, at, eps, judge.model.alpha_bar_float)
            found.append(("f(e^t, t, h)", None, t, judge.error(judge.model.denoiser(e_t, at, judge.h))))
        for answer, trained_at, used_at, measured in found:
            facts = {"part": part, "answer": answer, "seed": seed, "trained": trained_at, "used": used_at}
            yield facts | measured


def noise_levels(timesteps: int) -> list[int]:
    """The t at which f's answer to the noised truth is looked at: T, and T / 2, T / 4 and so on down to 1."""
    return sorted({max(1, timesteps >> n) for n in range(timesteps.bit_length())})


@torch.enable_grad()
def train_alone(recommender: Recommender, dataset: Dataset, split: Split) -> Compensator:
    """The paper's network, given zeros in place of e^{tau_1}, so that it sees h alone."""
    model, seed = recommender.model, recommender.model.config.train.seed
    order = stream(seed, "compensator", 0)
    train, validation = examples_for(recommender, dataset, split, order)
    h, h_judged = own_answers(model, train)[1], own_answers(model, validation)[1]
    with weights_from(seed, "compensator"):
        alone = Compensator(model.config.model).to(model.device)
    learning, judging = (torch.zeros_like(h), h), (torch.zeros_like(h_judged), h_judged)
    learn_last_step(model, alone, learning, judging, train, validation, order)
    return alone


@torch.enable_grad()
def train_shared(
    recommender: Recommender, dataset: Dataset, split: Split, steps: int | None = None
) -> SharedCompensator:
    """A SharedCompensator as `train_compensator` makes it; with steps it starts from the plain answers of a chain."""
    model, seed = recommender.model, recommender.model.config.train.seed
    order = stream(seed, "compensator", 0)
    train, validation = examples_for(recommender, dataset, split, order)
    if steps is None:
        learning, judging = own_answers(model, train), own_answers(model, validation)
    else:
        learning = plain_answers(model, train, steps, stream(seed, "compensator noise", steps))
        judging = plain_answers(model, validation, steps, stream(seed, "judging"))
    with weights_from(seed, "compensator"):
        shared = SharedCompensator(model.config.model).to(model.device)
    learn_last_step(model, shared, learning, judging, train, validation, order)
    return shared


def examples_for(
    recommender: Recommender, dataset: Dataset, split: Split, order: torch.Generator
) -> tuple[Examples, Examples]:
    """What a compensator learns from, thinned to COMPENSATOR_EXAMPLES, and what chooses its epoch."""
    config = recommender.model.config
    train, validation = training_examples(dataset, split, config), validation_sample(dataset, split, config)
    if len(train) > COMPENSATOR_EXAMPLES:
        train = train.select(torch.randperm(len(train), generator=order)[:COMPENSATOR_EXAMPLES])
    return train, validation


@torch.no_grad()
def plain_answers(model: DAE4Rec, examples: Examples, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """f(e^{tau_1}, tau_1, h) at the end of a chain of S = steps jumps, and h: two (N, d)."""
    e_tau1, h = sample_e_tau1(model, examples, steps, generator)
    tau_1 = torch.full((1,), choose_tau(model.config.diffusion.timesteps, steps)[0], device=h.device)
    return model.predictor(h)(e_tau1, tau_1, h), h
