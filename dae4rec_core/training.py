"""The loop: graph -> Z* -> L_Diff + delta L_AIME with validation and early stopping -> compensator."""

import ctypes
import json
import platform
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dae4rec_core.baselines import SequentialRules
from dae4rec_core.compensator import Compensator, compensator_loss
from dae4rec_core.config import Config
from dae4rec_core.data import PAD, Dataset, Examples, Split, length_grouped_order, make_examples
from dae4rec_core.distributed import launch, sum_over_processes, world
from dae4rec_core.events import Event, report
from dae4rec_core.gae import pretrain_gae
from dae4rec_core.graph import ItemGraph, adjacency, training_graph
from dae4rec_core.losses import diffusion_loss
from dae4rec_core.model import DAE4Rec
from dae4rec_core.pairwise import similarity_loss
from dae4rec_core.ranking import evaluate
from dae4rec_core.recommender import Recommender
from dae4rec_core.retrieval import add_bonus
from dae4rec_core.sampling import choose_tau, skip_step
from dae4rec_core.schedule import add_noise, loss_weights

VALIDATION_USERS = 5_000  # enough for early stopping: the standard error of HR@10 is below 0.7 points
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
COMPENSATOR_EXAMPLES = 50_000  # each needs a pass through the whole sampler, so a large set is thinned


def fit(
    dataset: Dataset,
    split: Split,
    config: Config,
    device: str = "auto",
    callbacks: list[Callable[[Event], None]] = (),
    state: str | Path | None = None,
    z_star: Tensor | None = None,
) -> Recommender:
    """Train DAE4Rec from nothing and return a recommender with a compensator for S = config.sampling_steps.

    Only training interactions reach the graph, the losses and the compensator; validation answers choose the epoch;
    test answers are not read. A `z_star` that was pretrained before is used as it is. With `state`, a folder, the
    diffusion stage is saved there after every epoch and a later call with the same arguments resumes it. Started by
    torchrun, all processes work on the one run. Reports stages "gae", "diffusion" and "compensator".
    """
    device, (_, processes) = launch(device).device, world()
    if config.batch_size % processes:
        raise ValueError(
            f"A batch of {config.batch_size} can't be shared evenly by {processes} processes; "
            "choose a Config.batch_size that their number divides."
        )
    train = make_examples(dataset, split.training_targets(dataset), config.max_len)
    validation = validation_sample(dataset, split, config)
    graph = training_graph(dataset, split)
    if z_star is None:
        z_star = pretrain_gae(graph, config, device, callbacks)
    torch.manual_seed(config.seed)
    model = DAE4Rec(dataset.n_items, config).to(device)
    train_diffusion(model, train, validation, z_star, graph, callbacks, state)
    recommender = Recommender(model, dataset.item_ids, z_star)
    if config.neighbours:
        recommender.transitions = SequentialRules(dataset, split, symmetric=True).counts
    train_compensator(recommender, train, validation, config.sampling_steps, callbacks)
    return recommender


def validation_sample(dataset: Dataset, split: Split, config: Config) -> Examples:
    """Validation examples, thinned evenly to VALIDATION_USERS."""
    every = max(1, len(split.validation) // VALIDATION_USERS)
    return make_examples(dataset, split.validation[::every][:VALIDATION_USERS], config.max_len)


def train_diffusion(
    model: DAE4Rec,
    train: Examples,
    validation: Examples,
    z_star: Tensor,
    graph: ItemGraph,
    callbacks: list[Callable[[Event], None]] = (),
    state: str | Path | None = None,
) -> None:
    """Train E, the condition and the denoiser on L = L_Diff + delta L_AIME (Eq. 11); leaves the best epoch's weights.

    Validation ranks by f(x_T, T, h), the sampler at S = 1: the cheapest reading of the model. Training stops after
    config.patience epochs without a better NDCG@10. Raises ValueError when the loss is no longer a number.
    """
    config, fabric = model.config, launch(model.device)
    device, (rank, processes) = fabric.device, world()
    _keep_freed_memory()
    lengths = (train.history != PAD).sum(1)
    train = train.to(device)
    rest = [p for name, p in model.named_parameters() if name != "embedding.weight"]
    optimizer = torch.optim.Adam(
        [{"params": [model.embedding.weight], "lr": config.lr_embedding}, {"params": rest, "lr": config.lr}], fused=True
    )
    target = adjacency(graph).to(device) if config.aime_target == "graph" else z_star
    progress = _Progress(model, optimizer, train, state)
    step_loss, optimizer = fabric.setup(_DiffusionStep(model), optimizer)

    for epoch in range(progress.epoch + 1, config.epochs + 1):
        if progress.stale > config.patience:
            break
        # every process draws the same order, steps, noise and pairs; dropout alone differs from one to the next
        order_and_pairs = torch.Generator().manual_seed(_mix_seed(config.seed, epoch))
        noise = torch.Generator(device).manual_seed(_mix_seed(config.seed, epoch))
        torch.manual_seed(_mix_seed(config.seed, epoch) + rank)
        model.train()
        l_diff_sum, l_aime_sum = torch.zeros(2, device=device)
        order, longest = length_grouped_order(lengths, config.batch_size, order_and_pairs)
        for rows, length in zip(order.to(device).split(config.batch_size), longest, strict=True):
            size = len(rows)
            t = torch.randint(1, config.timesteps + 1, (size,), device=device, generator=noise)
            eps = torch.randn(size, config.dim, device=device, generator=noise)
            hidden = torch.zeros(size, dtype=torch.bool, device=device)
            if config.unconditional:
                hidden = torch.rand(size, device=device, generator=noise) < config.unconditional
            x_T = torch.randn(size, config.dim, device=device, generator=noise) if config.rank_weight else eps
            share = slice(rank, None, processes) if size >= processes else slice(None)
            mine = rows[share]
            batch = train.history[mine, -length:], train.target[mine]
            l_diff = step_loss(*batch, t[share], eps[share], hidden[share], x_T[share])
            # gradients are averaged over processes; a share that is smaller than the others' weighs less
            l_diff = l_diff * (len(mine) * processes / size if size >= processes else 1.0)
            l_aime = torch.zeros((), device=device)
            if config.delta > 0:
                l_aime = similarity_loss(
                    model.embedding.weight,
                    target,
                    config.aime_pairs,
                    order_and_pairs,
                    config.pair_tile,
                    config.pair_precision,
                )
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(l_diff + config.delta * l_aime)
            optimizer.step()
            l_diff_sum += l_diff.detach() * size
            l_aime_sum += l_aime.detach() * size
        sum_over_processes(l_diff_sum)
        l_diff, l_aime = l_diff_sum.item() / processes / len(train), l_aime_sum.item() / len(train)
        if l_diff != l_diff:
            raise ValueError(f"The loss became NaN in epoch {epoch}; lower Config.lr or Config.delta and start again.")
        scorer = Recommender(model, []).scorer(1, compensate=False)
        metrics = fabric.broadcast(evaluate(scorer, validation) if rank == 0 else None)
        progress.keep(epoch, metrics["NDCG@10"])
        figures = {
            "L_Diff": l_diff,
            "L_AIME": l_aime,
            "norm of E": model.embedding.weight.detach().norm(dim=1).mean().item(),
            "HR@10": metrics["HR@10"],
            "NDCG@10": metrics["NDCG@10"],
        }
        last = epoch == config.epochs or progress.stale > config.patience
        report(callbacks, Event("diffusion", epoch, epoch if last else config.epochs, figures))
    progress.restore_best()


def _keep_freed_memory() -> None:
    """Ask glibc to keep what is freed: a tenth of an epoch on the town.

    By default a step's largest tensors go back to the system and are faulted in again, page by page, at the next step.
    Other systems' allocators are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value that is accepted


class _DiffusionStep(nn.Module):
    """L_Diff of a batch, with the ranking term where there is one, as one forward pass, so that a wrapper can average
    its gradients over processes."""

    def __init__(self, model: DAE4Rec):
        super().__init__()
        self.model = model
        self.register_buffer("alpha_bar", model.alpha_bar.float().to(model.device), persistent=False)
        weights = loss_weights(model.config.lambda_t, model.alpha_bar).float().to(model.device)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, history: Tensor, target: Tensor, t: Tensor, eps: Tensor, hidden: Tensor, x_T: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        e0 = model.clean(target)  # (B, d)
        h = model.condition(history)
        shown = h if model.nothing is None else torch.where(hidden.unsqueeze(1), model.nothing, h)
        prediction = model.denoiser(add_noise(e0, t, eps, self.alpha_bar), t, shown)
        loss = diffusion_loss(e0.float(), prediction.float(), self.weights[t])
        if config.rank_weight:
            guess = model.denoiser(x_T, torch.full((1,), config.timesteps, device=x_T.device), h)
            loss = loss + config.rank_weight * rank_loss(model, guess, history, h, target)
        return loss


def rank_loss(model: DAE4Rec, e0: Tensor, history: Tensor, h: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the answers among all items, given predicted e^0 (B, d): beyond the paper, see notebook 08."""
    scores = model.scores(e0)
    if model.returns is not None:
        scores = add_bonus(scores, history, model.bonus(history, h))
    return F.cross_entropy(scores.float(), target)


def _mix_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch, so that a resumed run draws what an unbroken one would have drawn."""
    return seed * 100_003 + epoch * 1_009


class _Progress:
    """Best weights, patience, and what a resumed run needs to go on as if it had never stopped."""

    def __init__(self, model, optimizer, train: Examples, folder: str | Path | None):
        self.model, self.optimizer = model, optimizer
        self.folder = Path(folder) if folder is not None else None
        self.data = zlib.crc32(torch.column_stack([train.history, train.target]).cpu().numpy().tobytes())
        self.epoch, self.stale, self.best_figure = 0, 0, -1.0
        self.best = self._weights()
        if self.folder is not None and (self.folder / "state.safetensors").is_file():
            self._load()

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def keep(self, epoch: int, figure: float) -> None:
        self.epoch, self.stale = epoch, self.stale + 1
        if figure > self.best_figure:
            self.best_figure, self.stale, self.best = figure, 0, self._weights()
        if self.folder is not None and world()[0] == 0:
            self._save()

    def restore_best(self) -> None:
        self.model.load_state_dict(self.best)
        self.model.eval()

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self._weights().items()}
        tensors |= {f"best.{k}": v.clone() for k, v in self.best.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{k}": v.detach().cpu().clone() for k, v in values.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "epoch": self.epoch,
            "stale": self.stale,
            "best_figure": self.best_figure,
            "config": self.model.config.to_dict(),
            "data": self.data,
        }
        # one file, put in place by one rename: a run that is killed here loses nothing
        save_file(tensors, self.folder / "state.safetensors.new", metadata={"facts": json.dumps(facts)})
        (self.folder / "state.safetensors.new").replace(self.folder / "state.safetensors")

    def _load(self) -> None:
        with safe_open(self.folder / "state.safetensors", "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        saved = Config.from_dict(facts["config"])
        if saved.replace(epochs=self.model.config.epochs) != self.model.config:
            raise ValueError(
                f"The run saved in {self.folder} used another configuration; give its own, or another state folder."
            )
        if facts.get("data") != self.data:
            raise ValueError(
                f"The run saved in {self.folder} was trained on other data; give its own, or another state folder."
            )

        def part(prefix):
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.epoch, self.stale, self.best_figure = facts["epoch"], facts["stale"], facts["best_figure"]
        self.best = part("best.")
        self.model.load_state_dict(part("model."))
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in part("adam.").items():
            number, key = name.split(".")
            adam.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": adam})


def train_compensator(
    recommender: Recommender,
    train: Examples,
    validation: Examples,
    steps: int,
    callbacks: list[Callable[[Event], None]] = (),
) -> None:
    """Train c_phi for S = steps on Eq. 16, with everything else frozen, and hand it to the recommender.

    e^{tau_1} is sampled once for each training example (at most COMPENSATOR_EXAMPLES of them) by Eq. 15; the epoch with
    the best validation NDCG@10 is kept.
    """
    model, config = recommender.model, recommender.model.config
    device = model.device
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    if len(train) > COMPENSATOR_EXAMPLES:
        train = train.select(torch.randperm(len(train), generator=generator)[:COMPENSATOR_EXAMPLES])
    e_tau1, h = last_noisy(model, train, steps, generator)
    train = train.to(device)
    model.requires_grad_(False)
    e0 = model.clean(train.target)
    compensator = Compensator(config.dim, config.hidden, config.dropout, config.depth).to(device)
    optimizer = torch.optim.Adam(compensator.parameters(), lr=config.lr, fused=True)

    # validation is sampled once too, with the noise of recommender.scorer; its examples stand for their row numbers
    e_judged, h_judged = last_noisy(model, validation, steps, torch.Generator().manual_seed(0), batch_size=1024)
    numbers = torch.arange(len(validation)).unsqueeze(1)
    rows_to_judge = Examples(numbers, validation.target, validation.user)

    @torch.no_grad()
    def score_row(numbers: Tensor) -> Tensor:
        rows = numbers[:, 0].to(device)
        scores = model.scores(compensator.eval()(e_judged[rows], h_judged[rows]))
        if model.returns is None:
            return scores
        history = validation.history[numbers[:, 0]].to(device)
        return add_bonus(scores, history, model.bonus(history, h_judged[rows]))

    best_figure, best = -1.0, None
    for epoch in range(1, config.compensator_epochs + 1):
        compensator.train()
        total = torch.zeros((), device=device)
        for rows in torch.randperm(len(train), generator=generator).to(device).split(config.batch_size):
            prediction = compensator(e_tau1[rows], h[rows])
            loss = compensator_loss(e0[rows], prediction)
            if config.rank_weight:
                answers = train.target[rows]
                loss = loss + config.rank_weight * rank_loss(model, prediction, train.history[rows], h[rows], answers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        metrics = evaluate(score_row, rows_to_judge)
        if metrics["NDCG@10"] > best_figure:
            best_figure = metrics["NDCG@10"]
            best = {name: value.detach().clone() for name, value in compensator.state_dict().items()}
        figures = {"L_Com": total.item() / len(train), "HR@10": metrics["HR@10"], "NDCG@10": metrics["NDCG@10"]}
        report(callbacks, Event("compensator", epoch, config.compensator_epochs, figures))
    if best is not None:
        compensator.load_state_dict(best)
    model.requires_grad_(True)
    recommender.compensators[steps] = compensator.eval()


@torch.no_grad()
def last_noisy(
    model: DAE4Rec, examples: Examples, steps: int, generator: torch.Generator, batch_size: int = 2048
) -> tuple[Tensor, Tensor]:
    """e^{tau_1} of Eq. 15 from fresh noise, and h, for every example: two (N, d) tensors on the model's device.

    Processes share the batches and receive all of them.
    """
    model.eval()
    tau = choose_tau(model.config.timesteps, steps)
    e_tau1 = torch.zeros(len(examples), model.config.dim, device=model.device)
    h = torch.zeros_like(e_tau1)
    rank, processes = world()
    for number, batch in enumerate(examples.batches(batch_size)):
        x_T = torch.randn(len(batch.target), model.config.dim, generator=generator)
        if number % processes == rank:
            rows = slice(number * batch_size, number * batch_size + len(batch.target))
            h[rows] = model.condition(batch.history.to(model.device))
            e_tau1[rows] = skip_step(model.predictor(h[rows]), x_T.to(h), h[rows], model.alpha_bar, tau)[0]
    sum_over_processes(e_tau1, h)
    return e_tau1, h
