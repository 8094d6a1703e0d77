"""The network: item embeddings E, the attention condition h (Eq. 4), the denoiser f and its loss (Eq. 5), scores."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.method.losses import diffusion_loss
from dae4rec_core.method.sampling import Predictor
from dae4rec_core.method.schedule import add_noise, loss_weights, make_alpha_bar

PAD = -1  # fills the left of short histories; it is no item, so it can never be recommended


class Query(NamedTuple):
    """What the catalogue is scored with, for a batch of users.

    vectors: (B, d), multiplied with every item's vector. items, gains: (B, M) each or None, a few items of each user
    whose scores gain something (beyond the paper); filled with PAD and 0.
    """

    vectors: Tensor
    items: Tensor | None = None
    gains: Tensor | None = None

    def of(self, rows: slice) -> "Query":
        """The queries of some users."""
        if self.items is None or self.gains is None:
            return Query(self.vectors[rows])
        return Query(self.vectors[rows], self.items[rows], self.gains[rows])


class StepNoise(NamedTuple):
    """The random numbers of a training step.

    t: (B,) steps in 1..T. eps: (B, d) noise of Eq. 2. x_T: (B, d) pure noise and blind: (B,) who doesn't see h; both
    None in the paper's model, see `beyond`.
    """

    t: Tensor
    eps: Tensor
    x_T: Tensor | None = None
    blind: Tensor | None = None

    def of(self, rows: slice, device: torch.device) -> "StepNoise":
        """Those of some rows, on a device."""
        x_T = None if self.x_T is None else self.x_T[rows].to(device)
        blind = None if self.blind is None else self.blind[rows].to(device)
        return StepNoise(self.t[rows].to(device), self.eps[rows].to(device), x_T, blind)


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of the step (Vaswani et al. 2017): (B,) -> (B, dim); dim must be even."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angle = t.float().unsqueeze(-1) * frequency  # (B, dim / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class AttentionCondition(nn.Module):
    """h = sum over places of softmax(QK'/sqrt(d_k)) V (Eq. 4), padding masked.

    Our choices, each a switch: `positions`, learned and counted back from the newest item, are added to the embeddings;
    a `layer_norm` on h; aggregation "last" keeps the newest place's output in place of the sum; dropout on the features
    that V is made of.
    """

    def __init__(self, dim: int, max_len: int, aggregation: str, positions: bool, layer_norm: bool, dropout: float):
        super().__init__()
        self.w_q, self.w_k, self.w_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.positions = nn.Parameter(torch.randn(max_len, dim) * 0.1) if positions else None
        self.aggregation = aggregation
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim) if layer_norm else nn.Identity()

    def forward(self, e: Tensor, real: Tensor) -> Tensor:
        """Eq. 4, with our switches. e: (B, L, d); real: (B, L) True where there is an item. Returns h (B, d)."""
        outputs, _ = self.attend(e, real)  # (B, L, d)
        h = outputs[:, -1] if self.aggregation == "last" else (outputs * real.unsqueeze(-1)).sum(1)
        return self.norm(h)

    def attend(self, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(QK'/sqrt(d_k)) V and the softmax itself: (B, L, d) and (B, L, L)."""
        e = self._placed(e)
        q, k, v = self.w_q(e), self.w_k(e), self.w_v(e * self.dropout(torch.ones_like(e[:, :1])))
        weights = self._softmax(q @ k.transpose(1, 2) / math.sqrt(e.shape[-1]), real)
        return weights @ v, weights

    def fused(self, e: Tensor, real: Tensor) -> Tensor:
        """`forward` with fewer products: QK' = e (W_q'W_k) e', and W_v after the sum over places, not before it."""
        e = self._placed(e)
        asking = e[:, -1:] if self.aggregation == "last" else e
        logits = asking @ (self.w_q.weight.T @ self.w_k.weight / math.sqrt(e.shape[-1])) @ e.transpose(1, 2)
        weights = self._softmax(logits, real)
        if self.aggregation == "sum":
            weights = weights * real.unsqueeze(-1)  # what a padded place asks is no part of the sequence
        summed = (weights.sum(1, keepdim=True) @ e).squeeze(1)  # (B, d)
        return self.norm(self.w_v(self.dropout(summed)))

    def _placed(self, e: Tensor) -> Tensor:
        return e if self.positions is None else e + self.positions[-e.shape[1] :]

    def _softmax(self, logits: Tensor, real: Tensor) -> Tensor:
        return logits.masked_fill(~real.unsqueeze(1), -torch.inf).softmax(-1)


def mlp_after_first(hidden: int, dim: int, depth: int, dropout: float) -> nn.Sequential:
    """What follows the first layer of f and of c: GELUs, `depth` - 1 more hidden layers, an output of size d."""
    deeper = [layer for _ in range(depth - 1) for layer in (nn.Linear(hidden, hidden), nn.GELU())]
    return nn.Sequential(nn.GELU(), nn.Dropout(dropout), *deeper, nn.Linear(hidden, dim))


class Denoiser(nn.Module):
    """f(e^t, t, h): an MLP on the concatenation [e^t, time embedding, h] that predicts e^0 (Eq. 5).

    Our choice, a switch: a linear `shortcut` from h is added to the answer.
    """

    def __init__(self, dim: int, hidden: int, depth: int, dropout: float, shortcut: bool):
        super().__init__()
        self.dim = dim
        self.first = nn.Linear(3 * dim, hidden)
        self.rest = mlp_after_first(hidden, dim, depth, dropout)
        self.shortcut = nn.Linear(dim, dim) if shortcut else None

    def forward(self, e_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """e_t: (B, d); t: (B,) or (1,) steps in 1..T; h: (B, d). Returns the predicted e^0 (B, d)."""
        time = time_embedding(t, self.dim).expand(len(e_t), -1).to(e_t.dtype)
        answer = self.rest(self.first(torch.cat([e_t, time, h], dim=-1)))
        return answer if self.shortcut is None else answer + self.shortcut(h)

    def given(self, h: Tensor, timesteps: int) -> Predictor:
        """`forward` for a sampler that visits many steps with one h: what depends on h or t alone is computed once."""
        w_e, w_t, w_h = self.first.weight.chunk(3, dim=1)  # the first layer is W_e e^t + W_t t + W_h h + b
        times = time_embedding(torch.arange(timesteps + 1, device=h.device), self.dim).to(h.dtype) @ w_t.T
        from_h = F.linear(h, w_h, self.first.bias)  # (B, hidden)
        shortcut = 0 if self.shortcut is None else self.shortcut(h)
        return lambda e_t, t, _: self.rest(F.linear(e_t, w_e) + times[t] + from_h) + shortcut


class DAE4Rec(nn.Module):
    """Everything that L = L_Diff + delta L_AIME (Eq. 11) trains: E, the condition and the denoiser."""

    lambda_t: Tensor
    alpha_bar_float: Tensor
    ranks_by_draw = True  # whether a list depends on the e^0 that was drawn

    def __init__(self, n_items: int, config: Config):
        super().__init__()
        self.config = config
        sizes, timesteps = config.model, config.diffusion.timesteps
        self.alpha_bar = make_alpha_bar(config.diffusion.schedule, timesteps)  # float64 on the CPU, for samplers
        self.register_buffer("alpha_bar_float", self.alpha_bar.float(), persistent=False)
        lambda_t = loss_weights(config.diffusion.lambda_t, self.alpha_bar).float()
        self.register_buffer("lambda_t", lambda_t, persistent=False)
        self.embedding = nn.Embedding(n_items, sizes.dim)
        nn.init.normal_(self.embedding.weight, std=sizes.init_std)
        self.attention = AttentionCondition(
            sizes.dim, config.data.max_len, sizes.aggregation, sizes.positions, sizes.layer_norm, sizes.dropout
        )
        self.denoiser = Denoiser(sizes.dim, sizes.hidden, sizes.depth, sizes.dropout, sizes.shortcut)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def n_items(self) -> int:
        return self.embedding.num_embeddings

    def forward(self, history: Tensor, target: Tensor, noise: StepNoise) -> Tensor:
        """L_Diff of a batch (Eq. 5): noise the true next item, predict it back from e^t, t and h.

        history: (B, L) item indices, PAD on the left; target: (B,); noise: see `draw_noise`. Returns a scalar.
        """
        e_0 = self.clean(target)  # (B, d)
        e_t = add_noise(e_0, noise.t, noise.eps, self.alpha_bar_float)  # Eq. 2
        h = self.condition(history)  # (B, d), Eq. 4
        return diffusion_loss(e_0, self.denoiser(e_t, noise.t, h), self.lambda_t[noise.t])

    def draw_noise(self, size: int, generator: torch.Generator) -> StepNoise:
        """t uniform in 1..T and eps ~ N(0, I) for a batch, drawn on the CPU."""
        t = torch.randint(1, self.config.diffusion.timesteps + 1, (size,), generator=generator)
        return StepNoise(t, torch.randn(size, self.config.model.dim, generator=generator))

    def condition(self, history: Tensor) -> Tensor:
        """h of histories (B, L), PAD on the left, at least one item a row: (B, d)."""
        return self.attention.fused(self.embedding(history.clamp(min=0)), history != PAD)

    def clean(self, items: Tensor) -> Tensor:
        """e^0 = Enc(v): (B,) -> (B, d)."""
        return self.embedding(items)

    def predictor(self, h: Tensor, history: Tensor | None = None) -> Predictor:
        """f for a sampler, given h (B, d). history: (B, L), for models whose f looks at single items (beyond)."""
        return self.denoiser.given(h, self.config.diffusion.timesteps)

    def item_vectors(self) -> Tensor:
        """What a query is multiplied with to score the items: (|V|, d)."""
        return self.embedding.weight

    def query(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """A generated e^0 (B, d) as a query: itself."""
        return Query(e_0)

    def assignment(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """What tells which item a draw e^0 (B, d) stands for: the query of its list."""
        return self.query(e_0, history, h)


def scores(query: Query, items: Tensor) -> Tensor:
    """Inner product of each query with every item's vector (|V|, d), plus its gains: (B, |V|).

    `retrieval` holds the same by blocks of items, for large catalogues.
    """
    found = F.linear(query.vectors, items)
    if query.items is None or query.gains is None:
        return found
    return found.scatter_add(1, query.items.clamp(min=0), query.gains.to(found))
