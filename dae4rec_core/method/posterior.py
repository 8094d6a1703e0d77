"""f as a mean over the catalogue: what Eq. 5 has as its best answer when e^0 can only be an item's vector (ours, 09).

By Bayes, p(v | e^t, h) is p(v | h) times the density of e^t around sqrt(abar_t) e_v, so the f with the least L_Diff is

    f(e^t, t, h) = sum_v p(v | e^t, t, h) e_v,
    p(v | e^t, t, h) = softmax_v( s_v + sqrt(abar_t) e^t . e_v / (1 - abar_t) )

on the sphere, where all |e_v| are equal. s_v are the scores of the ranking term for g(e^t, t, h), the network that is
f itself elsewhere: at t = T they are log p(v | h) up to a constant. Dieleman et al. (2022, Continuous diffusion for
categorical data, arXiv 2211.15089) call this score interpolation and train it by cross-entropy, as here.
"""

import math

import torch
from torch import Tensor

from dae4rec_core.method.beyond import BeyondDAE4Rec, rank_loss
from dae4rec_core.method.model import Query, StepNoise, scores
from dae4rec_core.method.sampling import Predictor
from dae4rec_core.method.schedule import add_noise

CELLS = 2**22  # logits held at once: 16 MB


class PosteriorDAE4Rec(BeyondDAE4Rec):
    """The model of `beyond` with the f above in place of an MLP's answer."""

    ranks_by_draw = False

    def diffusion_term(self, e_0: Tensor, noise: StepNoise, h: Tensor, history: Tensor, target: Tensor) -> Tensor:
        """-log p(target | e^t, t, h), the mean over the batch, in place of Eq. 5. e_0, h: (B, d); target: (B,)."""
        e_t = add_noise(e_0, noise.t, noise.eps, self.alpha_bar_float)
        prior = self.learned_query(self.denoiser(e_t, noise.t, h), history, h)
        return rank_loss(self.posterior(prior, e_t, noise.t), self.item_vectors(), target)

    def posterior(self, prior: Query, e_t: Tensor, t: Tensor) -> Query:
        """The query whose softmax is p(v | e^t, t, h): the prior's plus what e^t (B, d) says. t: (B,) or (1,)."""
        level = self.alpha_bar_float[t].unsqueeze(1)
        says = (self.config.model.dim * level).sqrt() / (1 - level) * e_t  # for e_v / |e_v|, where |e_v| = sqrt(d)
        return prior._replace(vectors=prior.vectors + says)

    def predictor(self, h: Tensor, history: Tensor | None = None) -> Predictor:
        """f for a sampler, given h (B, d) and the history (B, L), whose items may gain something."""
        if history is None:
            raise ValueError("The posterior's prior looks at the history itself; give predictor(h, history).")
        g, gains = super().predictor(h), self.learned_query(torch.zeros_like(h), history, h)
        items, length = self.item_vectors().detach(), math.sqrt(self.config.model.dim)
        at_once = max(1, CELLS // len(items))
        pieces = [slice(first, first + at_once) for first in range(0, len(h), at_once)]

        def f(e_t: Tensor, t: Tensor, _: Tensor) -> Tensor:
            query = self.posterior(gains._replace(vectors=self.direction(g(e_t, t, h))), e_t, t)
            return length * torch.cat([scores(query.of(rows), items).softmax(1) @ items for rows in pieces])

        return f

    def query(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """A list comes from p(v | h) itself, whatever e^0 was drawn: the query of g(0, T, h), with its neighbours."""
        last = torch.full((1,), self.config.diffusion.timesteps, device=h.device)
        return super().query(self.denoiser(torch.zeros_like(h), last, h), history, h)

    def assignment(self, e_0: Tensor, history: Tensor, h: Tensor) -> Query:
        """Which item a draw e^0 stands for: returns had their say when it was drawn; neighbours count in lists only."""
        return Query(e_0 / math.sqrt(self.config.model.dim))
