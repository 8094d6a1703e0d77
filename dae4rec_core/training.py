"""The whole training: graph -> Z* -> L = L_Diff + delta L_AIME with validation and early stopping -> compensator."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import (
    Dataset,
    Examples,
    Split,
    length_grouped_order,
    training_examples,
    training_graph,
    validation_sample,
)
from dae4rec_core.distributed import launch, sum_over_processes, world
from dae4rec_core.events import KEEPS_NOTHING, Callback, Event, Keeper, report
from dae4rec_core.memory import check_memory
from dae4rec_core.method.beyond import NEIGHBOUR_WINDOW, BeyondDAE4Rec, SharedCompensator, pretrain_counts
from dae4rec_core.method.compensator import Compensator, compensator_loss
from dae4rec_core.method.gae import pretrain_gae
from dae4rec_core.method.graph import ItemGraph, adjacency, transition_counts
from dae4rec_core.method.losses import total_loss
from dae4rec_core.method.model import PAD, DAE4Rec
from dae4rec_core.method.pairwise import similarity_loss
from dae4rec_core.method.sampling import choose_tau, skip_step
from dae4rec_core.method.variants import make_model
from dae4rec_core.outputs import reserved
from dae4rec_core.ranking import evaluate, mean_metrics
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import rank_by_blocks
from dae4rec_core.state import (
    EarlyStopping,
    begun,
    check_state,
    compensator_file,
    diffusion_stage,
    load_finished,
    save_finished,
    tensors_of,
    z_star_file,
)
from dae4rec_core.streams import seed_of, stream, torch_stream, torch_streams_kept, weights_from

COMPENSATOR_EXAMPLES = 50_000  # each needs a pass through the whole sampler, so a large set is thinned
EXPLODED = 1e6  # so many times what an answer of zeros costs is no loss of a training that works
RAN_AWAY = 100  # so many times the median length is no e^{tau_1} that f has learned to answer


class Exploded(ValueError):
    """A training whose numbers have left all bounds: one sentence that says which field to lower."""


def fit(
    dataset: Dataset,
    split: Split,
    config: Config,
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
    state: str | Path | None = None,
    z_star: Tensor | None = None,
    network: Callable[[int, Config], DAE4Rec] | None = None,
) -> Recommender:
    """Train DAE4Rec from nothing and return a recommender with a compensator for S = config.sampling_steps.

    Only training interactions reach the graph, the losses and the compensator; validation answers choose the epoch;
    test answers are not read. Z* is pretrained where Eq. 10 needs it, unless `z_star` (|V|, d) is given; where Eq. 10
    doesn't, at delta = 0 or with another target, a given one changes nothing and is kept. With `state`, a folder, every
    stage is saved there at least once a minute and at its end, and a later call with the same arguments goes on from it
    to the same bits, doing again nothing that is done; meanwhile no other run may use the folder.
    network: makes the model from |V| and the configuration; give a subclass of DAE4Rec to try a change of your own;
    none: `make_model`.
    Started by torchrun, all processes work on the one run. Reports stages "gae", "diffusion" and "compensator".
    Raises Exploded when a loss does; ValueError when there is nothing to train on or to choose an epoch by, when the
    split or z_star is another data set's, when z_star holds no finite floats, when the machine's memory can't hold it,
    when the batch can't be shared evenly by the processes, and when the state is another run's, damaged, in use, or
    can't be written.
    """
    place, (_, processes) = launch(device).device, world()
    if config.train.batch_size % processes:
        raise ValueError(
            f"A batch of {config.train.batch_size} can't be shared evenly by {processes} processes; "
            "choose a Config.batch_size that their number divides."
        )
    check_split(dataset, split)
    wanted = (dataset.n_items, config.model.dim)
    # the last two dimensions: an experiment of one's own may have a table for each side of an edge
    if z_star is not None and not (isinstance(z_star, Tensor) and tuple(z_star.shape[-2:]) == wanted):
        what = f"of shape {tuple(z_star.shape)}" if isinstance(z_star, Tensor) else f"a {type(z_star).__name__}"
        raise ValueError(f"z_star is {what}; give a tensor of (items, d) = {wanted}, or None to have it pretrained.")
    if z_star is not None and not (z_star.is_floating_point() and z_star.isfinite().all()):
        raise ValueError("z_star holds NaN, infinity or no floats; give finite floats, such as those of `pretrained`.")
    check_memory(dataset, split, config)
    train, validation = training_examples(dataset, split, config), validation_sample(dataset, split, config)
    graph = training_graph(dataset, split)
    with torch_streams_kept(place), contextlib.nullcontext() if state is None else reserved(state):
        check_state(state, config, train, validation, graph)
        if z_star is None and config.diffusion.delta > 0 and config.diffusion.aime_target == "gae":
            z_star = pretrained(graph, config, place, callbacks, state)
        z_star = None if z_star is None else z_star.to(place)
        with weights_from(config.train.seed, "model"):
            model = (network or make_model)(dataset.n_items, config).to(place)
        if isinstance(model, BeyondDAE4Rec) and config.beyond.neighbours:
            sequences = split.training_sequences(dataset)
            model.counts = transition_counts(sequences, dataset.n_items, NEIGHBOUR_WINDOW, symmetric=True)
        train_diffusion(model, train, validation, graph, z_star, callbacks, state)
        recommender = Recommender(model, dataset.item_ids, z_star)
        train_compensator(recommender, train, validation, config.sampling_steps, callbacks, state)
    return recommender


def check_split(dataset: Dataset, split: Split) -> None:
    """Raises ValueError unless all positions lie where a split of this data set has them."""
    first, end, stop = dataset.offsets[:-1], dataset.offsets[1:], split.train_end
    answers = np.concatenate([split.validation, split.test])
    fits = stop.shape == end.shape and ((first <= stop) & (stop <= end)).all()
    if fits and ((answers >= 0) & (answers < len(dataset.items))).all():
        owner = np.searchsorted(dataset.offsets, answers, side="right") - 1
        if (answers >= stop[owner]).all():  # no answer is learned from
            return
    raise ValueError(
        f"The split is not one of {dataset.name}, which has {dataset.n_users:,} users and {len(dataset.items):,} "
        "interactions; give the split that `prepare` returned with it, or make one with leave_last_out or global_time."
    )


def pretrained(
    graph: ItemGraph,
    config: Config,
    device: torch.device | str = "cpu",
    callbacks: Sequence[Callback] = (),
    folder: str | Path | None = None,
) -> Tensor:
    """Z* (|V|, d): what `folder` holds for this graph and configuration, else a pretraining, kept there.

    That is `pretrain_gae`, or `pretrain_counts` with config.beyond.similarity = "counts". Raises Exploded when
    that ends in numbers of no use.
    """
    file = None if folder is None else z_star_file(folder, graph, config)
    kept = load_finished(file)
    if kept is not None:
        return kept["z_star"].to(device)
    if config.beyond.similarity == "counts":
        if graph.counts is None:
            raise ValueError("Config.similarity 'counts' needs a graph that knows them; use transition_graph.")
        z_star = pretrain_counts(graph.counts, config, device, callbacks, begun(file))
    else:
        z_star = pretrain_gae(graph, config, device, callbacks, begun(file))
    if not z_star.abs().max() < EXPLODED:  # "not" also finds NaN
        raise Exploded("Z* holds NaN or numbers above a million; lower Config.gae_lr or Config.pos_weight.")
    save_finished({"z_star": z_star.detach().cpu().contiguous()}, file)
    return z_star.to(device)


def train_diffusion(
    model: DAE4Rec,
    train: Examples,
    validation: Examples,
    graph: ItemGraph,
    z_star: Tensor | None,
    callbacks: Sequence[Callback] = (),
    state: str | Path | None = None,
) -> None:
    """Train E, the condition and the denoiser on L = L_Diff + delta L_AIME (Eq. 11); leaves the best epoch's weights.

    Validation ranks by f(x_T, T, h), the sampler at S = 1: the cheapest reading of the model. config.train.patience
    epochs in a row without a better NDCG@10 end the training. Raises Exploded when the loss does, and ValueError when
    the state has seen more epochs than the configuration asks for.
    """
    config, fabric, (rank, processes) = model.config, launch(model.device), world()
    settings, seed, delta = config.train, config.train.seed, config.diffusion.delta
    lengths = (train.history != PAD).sum(1)
    target = aime_target(config, graph, z_star, model.device)
    optimizer = torch.optim.Adam(
        [
            {"params": [model.embedding.weight], "lr": settings.lr_embedding},
            {"params": [p for name, p in model.named_parameters() if name != "embedding.weight"], "lr": settings.lr},
        ],
        fused=True,
    )
    stopping = EarlyStopping(settings.patience)
    pairs, noises, dropout = torch.Generator(), torch.Generator(), torch_stream(model.device)
    sums = torch.zeros(2, device=model.device)  # L_Diff and L_AIME of the epoch so far
    keeper = diffusion_stage(state, model, train, validation, graph, z_star)
    done = keeper.resume(  # batches of an epoch that was begun
        {"model": model, "adam": optimizer, "stopping": stopping, "pairs": pairs, "noises": noises},
        {"dropout": dropout, "sums": sums},
    )
    if max(stopping.epoch, min(done, 1)) > settings.epochs:
        raise ValueError(
            f"The run saved in {state} has trained {max(1, stopping.epoch)} epochs, and Config.epochs is "
            f"{settings.epochs}; ask for as many at least, or write somewhere else."
        )
    train = train.to(model.device)
    l_diff_of, optimizer = fabric.setup(model, optimizer)

    for epoch in range(stopping.epoch + 1, settings.epochs + 1):
        if stopping.stop:
            break
        order = stream(seed, "order", epoch)
        todo = list(batches(lengths, settings.batch_size, order))
        if done == 0:
            # every process draws the same order, noise and item pairs; dropout alone differs from one to the next
            pairs.set_state(order.get_state())
            noises.manual_seed(seed_of(seed, "noise", epoch))
            dropout.manual_seed(seed_of(seed, "dropout", epoch, rank))
            sums.zero_()
        model.train()
        for rows, length in todo[done:]:
            noise = model.draw_noise(len(rows), noises)
            mine, weight = share_of(len(rows), rank, processes)
            l_diff = weight * l_diff_of(*batch_of(train, rows[mine], length), noise.of(mine, model.device))
            l_aime = l_aime_of(model, target, pairs)
            optimizer.zero_grad()
            fabric.backward(total_loss(l_diff, l_aime, delta))
            optimizer.step()
            sums[0] += l_diff.detach() * len(rows)
            sums[1] += l_aime.detach() * len(rows)
            done += 1
            keeper.save(done)
        sum_over_processes(sums[0])
        l_diff_mean, l_aime_mean = sums[0].item() / processes / len(train), sums[1].item() / len(train)
        check_loss(model, "L_Diff", l_diff_mean, epoch)
        scorer = Recommender(model, []).scorer(1, compensate=False, seed=seed, purpose="judging")
        metrics = fabric.broadcast(evaluate(scorer, validation) if rank == 0 else {})
        stopping.keep(epoch, metrics["NDCG@10"], model)
        done = 0
        keeper.save(done, now=True)
        found = {
            "L_Diff": l_diff_mean,
            "L_AIME": l_aime_mean,
            "norm of E": model.embedding.weight.detach().norm(dim=1).mean().item(),
            "HR@10": metrics["HR@10"],
            "NDCG@10": metrics["NDCG@10"],
        }
        last = epoch == settings.epochs or stopping.stop
        report(callbacks, Event("diffusion", epoch, epoch if last else settings.epochs, found))
    stopping.restore(model)


def check_loss(model: DAE4Rec, name: str, loss: float, epoch: int, chains: Tensor | None = None) -> None:
    """Raises Exploded for a mean loss that is no number, or EXPLODED times what an e^0 of zeros would cost.

    That is lambda_t |e^0|^2, with the |e^0| of the first epoch, and gamma log |V| for the ranking term. L_Com has no
    lambda_t and the same bound; its message tells what zeros cost it without one. chains: e^{tau_1} (N, d), what a
    compensator learns from. One that ran away, RAN_AWAY times as long as the median, is told: the compensator didn't
    make it, so none of its settings is named.
    """
    config = model.config
    length = 1.0 if config.beyond.geometry == "sphere" else max(config.model.init_std, 0.1)
    zeros, weight = config.model.dim * length**2, max(1.0, model.lambda_t.mean().item())
    if loss < EXPLODED * (weight * zeros + config.beyond.rank_weight * math.log(model.n_items)):
        return
    cost = weight * zeros if name == "L_Diff" else zeros
    found = f"{name} explodes: it is {loss:.3g} in epoch {epoch}, where zeros would cost about {cost:.3g};"
    if chains is not None:
        lengths = chains.norm(dim=1).nan_to_num(math.inf)
        away = int((lengths > RAN_AWAY * lengths.median()).sum())
        if away:
            raise Exploded(
                f"{found} {away:,} of {len(lengths):,} sampled chains ran away, to an e^{{tau_1}} up to "
                f"{lengths.max() / lengths.median():.3g} times as long as the median; give another Config.seed, or "
                "Config.compensator_epochs 0, and start again."
            )
    field = config.furthest("lr", "lr_embedding", "delta", "init_std") or "lr"
    raise Exploded(f"{found} lower Config.{field}, which is {config.flat()[field]}, and start again.")


def batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Rows of each batch of an epoch and its longest history, see `length_grouped_order`."""
    order, longest = length_grouped_order(lengths, batch_size, generator)
    yield from zip(order.split(batch_size), longest, strict=True)


def batch_of(train: Examples, rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Histories (B, length) and targets (B,) of some rows."""
    rows = rows.to(train.target.device)
    return train.history[rows, -length:], train.target[rows]


def share_of(size: int, rank: int, processes: int) -> tuple[slice, float]:
    """A process's rows of a batch, and what its mean weighs, since gradients are averaged over processes."""
    if size < processes:  # the last, smallest batch: everyone takes all of it
        return slice(None), 1.0
    mine = slice(rank, None, processes)
    return mine, len(range(size)[mine]) * processes / size


def aime_target(config: Config, graph: ItemGraph, z_star: Tensor | None, device: torch.device) -> Tensor | None:
    """What Eq. 10 draws E towards: Z* (|V|, d), or A as sparse CSR (the paper's -C_ground); None at delta = 0."""
    if config.diffusion.delta == 0:
        return None
    if config.diffusion.aime_target == "graph":
        return adjacency(graph).to(device)
    if z_star is None:
        raise ValueError("Eq. 10 needs Z*; give z_star, for example from `pretrained`.")
    return z_star


def l_aime_of(model: DAE4Rec, target: Tensor | None, pairs: torch.Generator) -> Tensor:
    """L_AIME (Eq. 10) of a step, a scalar; 0 without a target."""
    if target is None:
        return torch.zeros((), device=model.device)
    config = model.config
    tiles = config.train.pair_tile, config.train.pair_precision
    return similarity_loss(model.embedding.weight, target, config.diffusion.aime_pairs, pairs, *tiles)


def train_compensator(
    recommender: Recommender,
    train: Examples,
    validation: Examples,
    steps: int,
    callbacks: Sequence[Callback] = (),
    state: str | Path | None = None,
) -> None:
    """Train c_phi for S = steps on Eq. 16, with everything else frozen, and hand it to the recommender.

    e^{tau_1} is sampled once for each training example (at most COMPENSATOR_EXAMPLES of them) by Eq. 15; the epoch with
    the best validation NDCG@10 is kept, judged on first noises that training didn't see. With compensator_epochs = 0
    none is made. Where the configuration asks for a shared one, that is trained, whatever S is. state: a folder that
    keeps it, and what leads to it. The caller's random numbers go on. Raises Exploded when the loss does, ValueError
    for an S that is not in 1..T and for a state that is another run's, damaged, or can't be written.
    """
    model, settings, seed = recommender.model, recommender.model.config.train, recommender.model.config.train.seed
    if settings.compensator_epochs == 0:
        return
    shared = model.config.beyond.compensator == "shared"
    file = None if state is None else compensator_file(state, model, train, validation, None if shared else steps)
    with weights_from(seed, "compensator"):
        compensator = (SharedCompensator if shared else Compensator)(model.config.model).to(model.device)
    kept = load_finished(file)
    if kept is not None:
        compensator.load_state_dict(kept)
        compensator.eval()
    else:
        order = stream(seed, "compensator", 0 if shared else steps)
        if len(train) > COMPENSATOR_EXAMPLES:
            train = train.select(torch.randperm(len(train), generator=order)[:COMPENSATOR_EXAMPLES])
        if shared:
            learning, judging = own_answers(model, train), own_answers(model, validation)
        else:
            noises = stream(seed, "compensator noise", steps), stream(seed, "judging")
            learning = sample_e_tau1(model, train, steps, noises[0], keeper=begun(file, "learning"))
            judging = sample_e_tau1(model, validation, steps, noises[1], keeper=begun(file, "judging"))
        with torch_streams_kept(model.device):
            learn_last_step(model, compensator, learning, judging, train, validation, order, callbacks, begun(file))
        save_finished(tensors_of(compensator), file)
    if isinstance(compensator, SharedCompensator):
        recommender.shared = compensator
    else:
        recommender.compensators[steps] = compensator


def learn_last_step(
    model: DAE4Rec,
    compensator: Compensator | SharedCompensator,
    learning: tuple[Tensor, Tensor],
    judging: tuple[Tensor, Tensor],
    train: Examples,
    validation: Examples,
    order: torch.Generator,
    callbacks: Sequence[Callback] = (),
    keeper: Keeper = KEEPS_NOTHING,
) -> None:
    """Train a compensator on Eq. 16 with the model frozen; leaves the weights of the best epoch by validation NDCG@10.

    learning, judging: its two inputs, e^{tau_1} or what stands in its place and h, (N, d) each, for the training and
    the validation examples. Epoch 0 takes part where it is an answer already: f's own, for a SharedCompensator.
    """
    settings, device = model.config.train, model.device
    train, validation = train.to(device), validation.to(device)
    optimizer = torch.optim.Adam(compensator.parameters(), lr=settings.lr, fused=True)
    stopping = EarlyStopping(settings.compensator_epochs)  # all epochs are run
    torch.manual_seed(seed_of(settings.seed, "dropout"))
    if isinstance(compensator, SharedCompensator):
        stopping.keep(0, judge_compensator(model, compensator, *judging, validation)["NDCG@10"], compensator)
    parts = {"compensator": compensator, "adam": optimizer, "stopping": stopping, "order": order}
    done = keeper.resume({**parts, "dropout": torch_stream(device)})

    for epoch in range(done + 1, settings.compensator_epochs + 1):
        compensator.train()
        total = torch.zeros((), device=device)
        for rows in torch.randperm(len(train), generator=order).to(device).split(settings.batch_size):
            e_tau1, h = (part[rows] for part in learning)
            with frozen(model):
                loss = compensator_objective(model, compensator, e_tau1, h, train.history[rows], train.target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        l_com = total.item() / len(train)
        check_loss(model, "L_Com", l_com, epoch, None if isinstance(compensator, SharedCompensator) else learning[0])
        metrics = judge_compensator(model, compensator, *judging, validation)
        stopping.keep(epoch, metrics["NDCG@10"], compensator)
        keeper.save(epoch)
        found = {"L_Com": l_com, "HR@10": metrics["HR@10"], "NDCG@10": metrics["NDCG@10"]}
        report(callbacks, Event("compensator", epoch, settings.compensator_epochs, found))
    stopping.restore(compensator)


@contextlib.contextmanager
def frozen(model: DAE4Rec) -> Iterator[None]:
    """What is computed inside sends no gradient to the model's weights, which are as before after it."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def compensator_objective(
    model: DAE4Rec,
    compensator: Compensator | SharedCompensator,
    e_tau1: Tensor,
    h: Tensor,
    history: Tensor,
    target: Tensor,
) -> Tensor:
    """Eq. 16 of a batch; beyond the paper, also the ranking term. A scalar."""
    prediction = compensator(e_tau1, h)
    loss = compensator_loss(model.clean(target), prediction)
    if isinstance(model, BeyondDAE4Rec) and model.config.beyond.rank_weight:
        loss = loss + model.ranking_term(prediction, history, h, target)
    return loss


@torch.no_grad()
def judge_compensator(
    model: DAE4Rec, compensator: Compensator | SharedCompensator, e_tau1: Tensor, h: Tensor, examples: Examples
) -> dict[str, float]:
    """METRICS of the examples, whose e^{tau_1} and h (N, d) were sampled before."""
    query = model.query(compensator.eval()(e_tau1, h), examples.history, h)
    ranks = rank_by_blocks(query, model.item_vectors(), examples.target, examples.seen)
    return mean_metrics(*ranks, model.n_items)


@torch.no_grad()
def own_answers(model: DAE4Rec, examples: Examples, batch_size: int = 2048) -> tuple[Tensor, Tensor]:
    """What a SharedCompensator starts from, f(0, T, h), and h for every example: two (N, d) on the model's device."""
    parts = examples.history.to(model.device).split(batch_size)
    h = torch.cat([model.eval().condition(part) for part in parts])
    return SharedCompensator.start(model, h), h


@torch.no_grad()
def sample_e_tau1(
    model: DAE4Rec,
    examples: Examples,
    steps: int,
    generator: torch.Generator,
    batch_size: int = 2048,
    keeper: Keeper = KEEPS_NOTHING,
) -> tuple[Tensor, Tensor]:
    """e^{tau_1} of Eq. 15 from fresh noise, and h, for every example: two (N, d) tensors on the model's device.

    Processes share the batches and receive all of them.
    """
    model.eval()
    tau = choose_tau(model.config.diffusion.timesteps, steps)
    e_tau1 = torch.zeros(len(examples), model.config.model.dim, device=model.device)
    h = torch.zeros_like(e_tau1)
    rank, processes = world()
    done = keeper.resume({"noise": generator}, {"e_tau1": e_tau1, "h": h})
    for number, rows in list(enumerate(torch.arange(len(examples)).split(batch_size)))[done:]:
        x_T = torch.randn(len(rows), model.config.model.dim, generator=generator)
        if number % processes == rank:
            h[rows] = model.condition(examples.history[rows].to(model.device))
            f, there = model.predictor(h[rows]), lambda e_tau1, _: e_tau1
            e_tau1[rows], _ = skip_step(f, x_T.to(h), h[rows], model.alpha_bar, tau, last=there)
        if (number + 1) % processes == 0:  # everybody has done one more
            keeper.save(number + 1)
    sum_over_processes(e_tau1, h)
    return e_tau1, h
