"""The network: item embeddings E, the attention condition h (Eq. 4) and the denoiser f (Eq. 5)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.data import PAD
from dae4rec_core.schedule import make_alpha_bar


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of the step (Vaswani et al. 2017): (B,) -> (B, dim); dim must be even."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angle = t.float().unsqueeze(-1) * frequency  # (B, dim / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class AttentionCondition(nn.Module):
    """h = aggregate over positions of softmax(QK'/sqrt(d_k)) V (Eq. 4), padding masked.

    aggregation "sum" adds the outputs of all positions, as the paper does; "last" keeps the newest position's output.
    Our choices: learned positions (counted back from the newest item) added to the embeddings, and a LayerNorm on h so
    that a sum over 20 outputs has the scale of a sum over one.
    """

    def __init__(self, dim: int, max_len: int, positions: bool, aggregation: str, dropout: float):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.positions = nn.Parameter(torch.randn(max_len, dim) * 0.1) if positions else None
        self.aggregation = aggregation
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def attend(self, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """e: (B, L, d); real: (B, L) True where there is an item. Returns outputs (B, L, d), weights (B, L, L)."""
        e, weights = self._weights(e, real)
        return weights @ (e @ self._query_key_value()[2].T), weights

    def forward(self, e: Tensor, real: Tensor) -> Tensor:
        """Returns h (B, d)."""
        e, weights = self._weights(e, real)
        if self.aggregation == "sum":
            weights = weights * real.unsqueeze(-1)  # the query of a padded place is no part of the sequence
        # the sum of the outputs, sum_a sum_b w_ab W_v e_b, with W_v taken out: one product a user, not one a place
        summed = (weights.sum(1, keepdim=True) @ e).squeeze(1)  # (B, d)
        return self.norm(self.dropout(summed) @ self._query_key_value()[2].T)

    def _query_key_value(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.qkv.weight.chunk(3)

    def _weights(self, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """e with positions, and softmax(QK'/sqrt(d_k)) (B, L or 1, L)."""
        if self.positions is not None:
            e = e + self.positions[-e.shape[1] :]
        w_q, w_k, _ = self._query_key_value()
        queries = e[:, -1:] if self.aggregation == "last" else e
        # Q K' = e (W_q' W_k) e': one projection instead of two
        logits = queries @ (w_q.T @ w_k / math.sqrt(e.shape[-1])) @ e.transpose(1, 2)
        return e, logits.masked_fill(~real.unsqueeze(1), -torch.inf).softmax(-1)


class Returns(nn.Module):
    """What is added to the score of an item in the user's own history: w_k + (U h)_k for an item at place k.

    w_k is a number a place, U (L, d); both start at 0. Not in the paper: where people return, their own items are the
    commonest answers; where they never do, the weights turn negative and the seen items drop out.
    """

    def __init__(self, dim: int, max_len: int):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(max_len))
        self.gate = nn.Linear(dim, max_len, bias=False)
        nn.init.zeros_(self.gate.weight)

    def forward(self, real: Tensor, h: Tensor) -> Tensor:
        """real: (B, L) True where there is an item; h: (B, d). Returns a bonus for each place, 0 for padding. (B, L)"""
        return (self.place + self.gate(h))[:, -real.shape[1] :] * real


class Denoiser(nn.Module):
    """f(e^t, t, h): an MLP on the concatenation [e^t, time embedding, h], predicting e^0 (Eq. 5).

    The first layer is written as W_e e^t + W_t t + W_h h, which is the same as W [e^t, t, h].
    """

    def __init__(self, dim: int, hidden: int, dropout: float, depth: int = 2):
        super().__init__()
        self.from_noisy = nn.Linear(dim, hidden)
        self.from_time = nn.Linear(dim, hidden, bias=False)
        self.from_condition = nn.Linear(dim, hidden, bias=False)
        deeper = [layer for _ in range(depth - 1) for layer in (nn.Linear(hidden, hidden), nn.GELU())]
        self.out = nn.Sequential(nn.GELU(), nn.Dropout(dropout), *deeper, nn.Linear(hidden, dim))
        self.shortcut = nn.Linear(dim, dim)
        self.dim = dim

    def forward(self, noisy: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """noisy: (B, d) e^t; t: (B,) or (1,) steps in 1..T; h: (B, d). Returns the predicted e^0 (B, d)."""
        return self._mix(noisy, self._time(t), self.from_condition(h), self.shortcut(h))

    def given(self, h: Tensor, timesteps: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """f for a sampler that visits many steps with one h: what depends on h alone or on t alone is computed once."""
        times = self._time(torch.arange(timesteps + 1, device=h.device))  # (T + 1, hidden)
        condition, shortcut = self.from_condition(h), self.shortcut(h)
        return lambda noisy, t, _: self._mix(noisy, times[t], condition, shortcut)

    def _time(self, t: Tensor) -> Tensor:
        return self.from_time(time_embedding(t, self.dim).to(self.from_time.weight.dtype))

    def _mix(self, noisy: Tensor, time: Tensor, condition: Tensor, shortcut: Tensor) -> Tensor:
        return shortcut + self.out(self.from_noisy(noisy) + time + condition)


class DAE4Rec(nn.Module):
    """Everything that L = L_Diff + delta L_AIME trains: E, the condition and the denoiser."""

    def __init__(self, n_items: int, config: Config):
        super().__init__()
        self.config = config
        self.alpha_bar = make_alpha_bar(config.schedule, config.timesteps)  # float64 on the CPU: coefficients only
        self.embedding = nn.Embedding(n_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_std)
        self.attention = AttentionCondition(
            config.dim, config.max_len, config.positions, config.aggregation, config.dropout
        )
        self.denoiser = Denoiser(config.dim, config.hidden, config.dropout, config.depth)
        self.returns = Returns(config.dim, config.max_len) if config.returns else None
        self.nothing = nn.Parameter(torch.zeros(config.dim)) if config.unconditional else None  # stands for a hidden h

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def n_items(self) -> int:
        return self.embedding.num_embeddings

    def condition(self, history: Tensor) -> Tensor:
        """history: (B, L) item indices, PAD on the left, at least one item a row. Returns h (B, d)."""
        real = history != PAD
        return self.attention(self.embedding(history.clamp(min=0)), real)

    def predictor(self, h: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """f for a sampler, given h; with guidance, (1 + w) f(e^t, t, h) - w f(e^t, t, nothing)."""
        f, w = self.denoiser.given(h, self.config.timesteps), self.config.guidance
        if not w:
            return f
        unguided = self.denoiser.given(self.nothing.expand_as(h), self.config.timesteps)
        return lambda noisy, t, _: (1 + w) * f(noisy, t, None) - w * unguided(noisy, t, None)

    def clean(self, items: Tensor) -> Tensor:
        """e^0 of items: (B,) -> (B, d). On the sphere it has length sqrt(d), as noise has, and L_Diff can't move E."""
        e = self.embedding(items)
        return math.sqrt(self.config.dim) * F.normalize(e.detach(), dim=-1) if self.on_sphere else e

    def item_vectors(self) -> Tensor:
        """What a query is multiplied with to score the items: E, or E / |E| on the sphere. (|V|, d)"""
        e = self.embedding.weight
        return F.normalize(e, dim=-1) if self.on_sphere else e

    def query(self, e0: Tensor) -> Tensor:
        """What item vectors are multiplied with: e^0 as it is, or a unit vector over the temperature on the sphere."""
        return F.normalize(e0, dim=-1) / self.config.temperature if self.on_sphere else e0

    def scores(self, e0: Tensor) -> Tensor:
        """Inner product of a generated e^0 with every item, or their cosine on the sphere: (B, d) -> (B, |V|)."""
        return F.linear(self.query(e0), self.item_vectors())

    def bonus(self, history: Tensor, h: Tensor) -> Tensor:
        """What `Returns` adds to the scores of the items in the history. (B, L)"""
        return self.returns(history != PAD, h)

    @property
    def on_sphere(self) -> bool:
        return self.config.geometry == "sphere"
