"""What is ours, not the paper's: ranking term, sphere, returns, neighbours (notebook 08); Z* from counts (02); one
compensator for all S (05); and DreamRec's guidance.

`DAE4Rec` and the files beside it hold the paper and nothing else. `variants.make_model` takes the subclass here when a
configuration asks for anything of it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from dae4rec_core.config import Config, ModelConfig
from dae4rec_core.events import KEEPS_NOTHING, Callback, Event, Keeper, report
from dae4rec_core.method.graph import csr_tensor
from dae4rec_core.method.losses import diffusion_loss
from dae4rec_core.method.model import PAD, DAE4Rec, Query, StepNoise, mlp_after_first, scores
from dae4rec_core.method.pairwise import count_loss
from dae4rec_core.method.sampling import Predictor
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.streams import stream, weights_from

NEIGHBOUR_WINDOW = 10  # steps that the neighbours' counts look ahead, as sequential rules do


class Returns(nn.Module):
    """What is added to the score of an item in the user's own history: w_k + (U h)_k for an item at place k.

    w_k is a number a place, U (L, d); both start at 0. Where people return, their own items are the commonest answers;
    where they never do, the weights turn negative and the seen items drop out.
    """

    def __init__(self, dim: int, max_len: int):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(max_len))
        self.gate = nn.Linear(dim, max_len, bias=False)
        nn.init.zeros_(self.gate.weight)

    def forward(self, real: Tensor, h: Tensor) -> Tensor:
        """real: (B, L) True where there is an item; h: (B, d). Returns a gain for each place, 0 for padding. (B, L)"""
        return (self.place + self.gate(h))[:, -real.shape[1] :] * real


class BeyondDAE4Rec(DAE4Rec):
    """DAE4Rec with the switches of `BeyondConfig`.

    counts: (|V|, |V|) symmetric transition counts of the training part, which `neighbours` needs; set by `fit`.
    """

    def __init__(self, n_items: int, config: Config):
        super().__init__(n_items, config)
        self.counts: sparse.csr_matrix | None = None
        self.returns = Returns(config.model.dim, config.data.max_len) if config.beyond.returns else None
        blind = config.beyond.unconditional > 0
        self.nothing = nn.Parameter(torch.zeros(config.model.dim)) if blind else None  # stands for an h that isn't seen

    def forward(self, history: Tensor, target: Tensor, noise: StepNoise) -> Tensor:
        """L_Diff, where the blind see `nothing` in place of h, plus gamma times the ranking term. A scalar."""
        e_0 = self.clean(target)  # (B, d)
        h = self.condition(history)  # (B, d)
        loss = self.diffusion_term(e_0, noise, h, history, target)
        if noise.x_T is None:
            return loss
        last = torch.full((1,), self.config.diffusion.timesteps, device=h.device)
        return loss + self.ranking_term(self.denoiser(noise.x_T, last, h), history, h, target)

    def diffusion_term(self, e_0: Tensor, noise: StepNoise, h: Tensor, history: Tensor, target: Tensor) -> Tensor:
        """L_Diff (Eq. 5) of answers e_0 (B, d). h: (B, d); history: (B, L); target: (B,). A scalar."""
        e_t = add_noise(e_0, noise.t, noise.eps, self.alpha_bar_float)
        if self.nothing is not None and noise.blind is not None:
            h = torch.where(noise.blind.unsqueeze(1), self.nothing, h)
        return diffusion_loss(e_0, self.denoiser(e_t, noise.t, h), self.lambda_t[noise.t])

    def ranking_term(self, e_0: Tensor, history: Tensor, h: Tensor, target: Tensor) -> Tensor:
        """gamma times the cross-entropy of the answers among all items, given predicted e^0 (B, d). A scalar.

        The neighbours' counts are left out: they hold the answers of the training part themselves.
        """
        return self.config.beyond.rank_weight * rank_loss(
            self.learned_query(e_0, history, h), self.item_vectors(), target
        )

    def draw_noise(self, size: int, generator: torch.Generator) -> StepNoise:
        noise, beyond = super().draw_noise(size, generator), self.config.beyond
        if beyond.rank_weight:
            noise = noise._replace(x_T=torch.randn(noise.eps.shape, generator=generator))
        if beyond.unconditional:
            noise = noise._replace(blind=torch.rand(size, generator=generator) < beyond.unconditional)
        return noise

    @property
    def on_sphere(self) -> bool:
        return self.config.beyond.geometry == "sphere"

    def clean(self, items: Tensor) -> Tensor:
        """e^0 of items: (B,) -> (B, d). On the sphere it has length sqrt(d), as noise has, and no gradient."""
        e = self.embedding(items)
        return math.sqrt(self.config.model.dim) * F.normalize(e.detach(), dim=-1) if self.on_sphere else e

    def predictor(self, h: Tensor, history: Tensor | None = None) -> Predictor:
        """f for a sampler, given h; with guidance, (1 + w) f(e^t, t, h) - w f(e^t, t, nothing)."""
        f, w = super().predictor(h), self.config.beyond.guidance
        if not w or self.nothing is None:
            return f
        unguided = super().predictor(self.nothing.expand_as(h))
        return lambda e_t, t, h: (1 + w) * f(e_t, t, h) - w * unguided(e_t, t, h)

    def item_vectors(self) -> Tensor:
        """E, or E / |E| on the sphere: (|V|, d)."""
        e = self.embedding.weight
        return F.normalize(e, dim=-1) if self.on_sphere else e

    def query(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """`learned_query`, and what the neighbours of the newest items gain."""
        query, weight = self.learned_query(e_0, history, h), self.config.beyond.neighbours
        if not weight:
            return query
        if self.counts is None:
            raise ValueError("Config.neighbours needs the transition counts of the training part; set model.counts.")
        items, gains = (part.to(self.device) for part in neighbours(self.counts, history.cpu()))
        gains = weight * gains
        if query.items is None or query.gains is None:
            return Query(query.vectors, items, gains)
        return Query(query.vectors, torch.cat([query.items, items], 1), torch.cat([query.gains, gains], 1))

    def direction(self, e_0: Tensor) -> Tensor:
        """What the items' vectors are multiplied with: e^0, or a unit vector over the temperature on the sphere."""
        return F.normalize(e_0, dim=-1) / self.config.beyond.temperature if self.on_sphere else e_0

    def learned_query(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """`direction`, and what `Returns` adds to the user's own items."""
        vectors = self.direction(e_0)
        if self.returns is None:
            return Query(vectors)
        return Query(vectors, history, self.returns(history != PAD, h))


def rank_loss(query: Query, items: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the answers among all items. items: (|V|, d); target: (B,). Returns a scalar."""
    return F.cross_entropy(scores(query, items).float(), target)


def neighbours(counts: sparse.csr_matrix, history: Tensor) -> tuple[Tensor, Tensor]:
    """Items next to the newest three of each history, and log(1 + c): the paper's graph forgets how often.

    c = sum_k counts[v_k] / k over the newest three items v_1, v_2, v_3. counts: (|V|, |V|); history: (B, L), PAD on the
    left. Returns items and gains, two (B, M), filled with PAD and 0.
    """
    newest, back = history[:, -3:].unique(dim=0, return_inverse=True)  # many draws for one user are one history
    total = sparse.csr_matrix((len(newest), counts.shape[1]))
    for k in range(1, newest.shape[1] + 1):
        items = newest[:, -k].numpy()
        total = total + sparse.diags((items != PAD) / k) @ counts[items.clip(min=0)]
    total = total.tocsr()
    total.eliminate_zeros()
    filled = np.arange(max(1, int(np.diff(total.indptr).max()))) < np.diff(total.indptr)[:, None]  # (B, M)
    found, gains = np.full(filled.shape, PAD), np.zeros(filled.shape, dtype=np.float32)
    found[filled], gains[filled] = total.indices, np.log1p(total.data)
    return torch.from_numpy(found)[back], torch.from_numpy(gains)[back]


def pretrain_counts(
    counts: sparse.csr_matrix,
    config: Config,
    device: torch.device | str = "cpu",
    callbacks: Sequence[Callback] = (),
    keeper: Keeper = KEEPS_NOTHING,
) -> Tensor:
    """Z* (|V|, d) from how often each step was taken, and without the averaging of Eq. 7: each item's vector is free.

    Minimises -1/|V| sum_ij [ w c_ij log s(x_ij) + log(1 - s(x_ij)) ], x_ij = z_i . z_j, whose best similarities are
    S_ij = w c_ij / (1 + w c_ij). w = |V|^2 / sum c, so that both sides count the same, as in the balanced Eq. 9.
    counts: (|V|, |V|), symmetric; a step from an item to itself is a step like any other. Steps, learning rate, item
    pairs and reports are those of `pretrain_gae`.
    """
    settings, n = config.gae, counts.shape[0]
    with weights_from(config.train.seed, "W_0"):
        z = nn.Parameter((0.1 * torch.randn(n, config.model.dim)).to(device))
    weights = csr_tensor(counts * (n**2 / counts.sum())).to(device)
    pairs, tiles = stream(config.train.seed, "gae pairs"), (config.train.pair_tile, config.train.pair_precision)
    optimizer = torch.optim.Adam([z], lr=settings.lr, fused=True)
    every = max(1, settings.steps // 100)
    done = keeper.resume({"z": z, "adam": optimizer, "pairs": pairs})
    for step in range(done + 1, settings.steps + 1):
        loss = count_loss(z, weights, settings.pairs, pairs, *tiles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        keeper.save(step)
        if step % every == 0 or step == settings.steps:
            report(callbacks, Event("gae", step, settings.steps, {"loss per pair": loss.item() / n}))
    return z.detach()


class SharedCompensator(nn.Module):
    """c(h) = f(0, T, h) + r(h): one compensator for every S, which starts from f's own answer and needs no chain.

    Given h, e^{tau_1} tells nothing about e^0, so an ideal c is E[e^0 | h] at every S (notebook 05), and Eq. 5 already
    trains f(x_T, T, h) towards it; zeros, the mean of x_T, take the noise out of that answer. r is an MLP whose last
    layer starts at 0: before training, c is f's own answer.
    """

    def __init__(self, sizes: ModelConfig):
        super().__init__()
        self.first = nn.Linear(sizes.dim, sizes.hidden)
        self.rest = mlp_after_first(sizes.hidden, sizes.dim, sizes.depth, sizes.dropout)
        for parameter in self.rest[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, start: Tensor, h: Tensor) -> Tensor:
        """start: f(0, T, h), see `start`; it stands where Eq. 16 has e^{tau_1}. h: (B, d). Returns e^0 (B, d)."""
        return start + self.rest(self.first(h))

    @staticmethod
    def start(model: DAE4Rec, h: Tensor) -> Tensor:
        """f's own answer f(0, T, h) for h (B, d), with guidance where there is any: (B, d)."""
        last = torch.full((1,), model.config.diffusion.timesteps, device=h.device)
        return model.predictor(h)(torch.zeros_like(h), last, h)
