"""A trained model in use: a history to a query, a query to a list."""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.arguments import listed, switch, whole
from dae4rec_core.cloud import check_width, probabilities
from dae4rec_core.config import free_bytes
from dae4rec_core.data.dataset import newest_items
from dae4rec_core.method.beyond import SharedCompensator
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.model import PAD, DAE4Rec, Query
from dae4rec_core.method.sampling import OnStep, choose_tau, markov_chain, skip_step
from dae4rec_core.ranking import QueryScorer
from dae4rec_core.retrieval import ItemIndex, check_seen, top_items, without_seen
from dae4rec_core.streams import Purpose, stream

# Users whose lists are made at once, on the CPU and elsewhere. Products of another shape may round differently, so one
# user alone is served among as many copies; and so may rows at other places in memory, unless each begins at a multiple
# of 64 bytes, 16 numbers of float32.
SERVED, SERVED_ELSEWHERE = 64, 1024
ALIGNED = 16
CHAIN = 8 * 4  # bytes of a chain for each of d + hidden numbers, at most; measured: 7 to 12 KB where they are 128 + 256


class Recommender:
    """A model, its compensators by S, the original item ids, and Z* (|V|, d) where one was pretrained.

    shared: one compensator for every S, in place of those by S (beyond the paper).
    """

    def __init__(self, model: DAE4Rec, item_ids: Sequence | np.ndarray, z_star: Tensor | None = None):
        self.model = model
        self.item_ids = np.asarray(item_ids, dtype=object)
        self.z_star = z_star
        self.compensators: dict[int, Compensator] = {}
        self.shared: SharedCompensator | None = None

    def compensator_for(self, steps: int) -> Compensator | SharedCompensator | None:
        """The compensator that ends a chain of S = steps jumps, None where none was trained."""
        return self.compensators.get(steps) if self.shared is None else self.shared

    @torch.no_grad()
    def generate(
        self,
        history: Tensor,
        steps: int | None = None,
        compensate: bool = True,
        x_T: Tensor | None = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sample e^0 for histories (B, L), PAD on the left, by Eq. 15 in S = steps jumps: (B, d).

        L is at most max_len, and every history has an item. The last step is c_phi, or with compensate=False the
        denoiser. x_T: the first noise, (B, d) or (1, d) for all; drawn from `generator` when absent. on_step: see
        `skip_step`, for each step of the denoiser. A shared compensator needs no chain, so none is run and x_T changes
        nothing. Raises ValueError when S is not in 1..T or has no trained compensator, for another shape, an empty
        history, and a compensate that is neither True nor False.
        """
        history = self._checked(history)
        expected = (len(history), self.model.config.model.dim)
        if x_T is not None and tuple(x_T.shape) not in (expected, (1, expected[1])):
            raise ValueError(
                f"x_T has shape {tuple(x_T.shape)}; give (B, d) = {expected}, or (1, d) for all histories."
            )
        compensate = switch("compensate", compensate, True)
        h = self.model.eval().condition(history)
        return self._sample(h, history, steps, compensate, x_T, generator, on_step)

    def _checked(self, history: Tensor) -> Tensor:
        """Histories (B, L) on the model's device. Raises ValueError for another shape and for one without items."""
        longest = self.model.config.data.max_len
        if history.ndim != 2 or history.shape[1] > longest or not (history != PAD).any(1).all():
            raise ValueError(
                f"history has shape {tuple(history.shape)}; give (B, L) with L up to max_len = {longest} and an "
                "item in every row."
            )
        return history.to(self.model.device)

    def _sample(
        self,
        h: Tensor,
        history: Tensor,
        steps: int | None,
        compensate: bool,
        x_T: Tensor | None,
        generator: torch.Generator | None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """`generate` from h (B, d) of the histories (B, L); an x_T of (1, d) stands for all of them."""
        model = self.model
        steps = model.config.sampling_steps if steps is None else whole("steps", steps)
        tau = choose_tau(model.config.diffusion.timesteps, steps)
        compensator = self.compensator_for(steps) if compensate else None
        if compensate and compensator is None:
            trained = ", ".join(map(str, sorted(self.compensators)))
            there = f"there is one for {trained}; choose such an S" if trained else "there is none for any S"
            raise ValueError(
                f"No compensator was trained for S = {steps} ({there}); train one with train_compensator, in a command "
                f"by fit --steps {steps} with the rest as before, or go without: compensate=False, in a command "
                "--no-compensator."
            )
        if isinstance(compensator, SharedCompensator):
            return compensator.eval()(compensator.start(model, h), h)
        x_T = torch.randn(h.shape, generator=generator) if x_T is None else x_T.expand_as(h)
        last, f = None if compensator is None else compensator.eval(), model.predictor(h, history)
        return skip_step(f, x_T.to(h), h, model.alpha_bar, tau, on_step=on_step, last=last)[1]

    @torch.no_grad()
    def draw(
        self,
        history: Tensor,
        draws: int,
        steps: int | None = None,
        compensate: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`draws` samples of e^0 for every history (B, L), each from a first noise of its own: (B, draws, d).

        All chains run at once; they hold a few numbers of size B x draws x (d + hidden). Raises as `generate` does, for
        fewer than one draw, and for more than fit into free memory.
        """
        draws, sizes = whole("draws", draws, least=1), self.model.config.model
        compensate, history = switch("compensate", compensate, False), self._checked(history)
        needed, free = len(history) * draws * CHAIN * (sizes.dim + sizes.hidden), free_bytes(self.model.device)
        if needed > free:
            raise ValueError(
                f"draws is {draws:,}, which takes up to {needed / 2**30:,.1f} GiB at once, but {free / 2**30:,.1f} are "
                "free; give fewer."
            )
        h, history = (part.repeat_interleave(draws, 0) for part in (self.model.eval().condition(history), history))
        return self._sample(h, history, steps, compensate, None, generator).unflatten(0, (-1, draws))

    def distribution(
        self,
        history: Sequence,
        draws: int = 1000,
        steps: int | None = None,
        compensate: bool = False,
        width: float = 0.0,
        seed: int = 0,
        skip_unknown: bool = False,
    ) -> pd.Series:
        """How likely each item comes next, according to many draws of e^0: probabilities by item id, likeliest first.

        history: original item ids, oldest first. A draw counts for its nearest item; with a width above 0, for all
        items near it, see `cloud.probabilities`; `cloud.fit_width` finds the width. A compensator removes the cloud,
        which is why it is left out here. skip_unknown and what it raises: as `recommend`.
        """
        check_width(width)
        noise = stream(whole("seed", seed, least=0), "sampling")
        items, ends = self._encode([history], switch("skip_unknown", skip_unknown, False))
        newest = newest_items(items, ends[:-1], ends[1:], self.model.config.data.max_len)
        e_0 = self.draw(newest, draws, steps, compensate, noise)
        found = probabilities(self.model, newest, e_0, width)[0].cpu()
        order = found.argsort(descending=True, stable=True).numpy()
        return pd.Series(found.numpy()[order], pd.Index(self.item_ids[order], name="item_id"), name="probability")

    def scorer(
        self,
        steps: int | None = None,
        compensate: bool = True,
        seed: int = 0,
        purpose: Purpose = "sampling",
        shared_noise: bool = False,
    ) -> QueryScorer:
        """From histories to queries, with x_T from a stream of its own: what `ranking` judges and lists come from.

        shared_noise: everybody gets the stream's first x_T, so that a list doesn't depend on the user's place; without
        it each history gets the next one. No chain is run for a model whose lists don't depend on it (`ranks_by_draw`).
        Raises ValueError for an S, a seed or a compensate that can't be.
        """
        compensate = switch("compensate", compensate, True)
        generator = stream(whole("seed", seed, least=0), purpose)
        x_T = torch.randn(1, self.model.config.model.dim, generator=generator) if shared_noise else None
        if not self.model.ranks_by_draw:
            if steps is not None:
                choose_tau(self.model.config.diffusion.timesteps, whole("steps", steps))  # refuses what no chain has
            return self._scorer(lambda h, _: torch.zeros_like(h))
        return self._scorer(lambda h, history: self._sample(h, history, steps, compensate, x_T, generator))

    def markov_scorer(self, seed: int = 0) -> QueryScorer:
        """The same by the Markov chain of Eq. 3, all T steps: the paper's benchmark -BM."""
        generator, model = stream(whole("seed", seed, least=0), "sampling"), self.model

        def sample(h: Tensor, history: Tensor) -> Tensor:
            x_T = torch.randn(h.shape, generator=generator).to(h)
            return markov_chain(model.predictor(h, history), x_T, h, model.alpha_bar, generator)

        return self._scorer(sample)

    def _scorer(self, sample: Callable[[Tensor, Tensor], Tensor]) -> QueryScorer:
        """sample: from h (B, d) and histories (B, L) to e^0 (B, d)."""

        @torch.no_grad()
        def query(history: Tensor) -> Query:
            history = history.to(self.model.device)
            h = self.model.eval().condition(history)
            return self.model.query(sample(h, history), history, h)

        return QueryScorer(query, self.model.item_vectors().detach())

    def recommend(
        self,
        history: Sequence,
        k: int = 10,
        steps: int | None = None,
        compensate: bool | None = None,
        exclude_seen: bool | None = None,
        seed: int = 0,
        draws: int | None = None,
        width: float = 0.0,
        exclude: Sequence = (),
        skip_unknown: bool = False,
    ) -> pd.DataFrame:
        """The k best next items for a history of original item ids, oldest first; the user need not be known.

        history: a list, tuple, array, Series or Index. compensate: end the chain with the compensator; None does so
        except with draws, whose cloud it would remove.
        exclude_seen: leave out the items of the history; None does so where the model was trained on first visits.
        exclude: ids of items that are not to be listed, sold out perhaps; warns of those that the catalogue lacks.
        skip_unknown: read a history without the items that the catalogue lacks, as they come after a training.
        draws: rank by how likely each item is according to so many draws, see `distribution`, which says what width is;
        the score is then that probability. Returns a table with columns item_id and score, best first; the same seed
        gives the same list.
        Raises ValueError for a history that is empty or has no order, an item that the catalogue lacks, and a k, S,
        seed, draws, width or switch of another kind or out of range.
        """
        found = self.recommend_many(
            [history], k, steps, compensate, exclude_seen, seed, None, draws, width, exclude, skip_unknown
        )
        return found[["item_id", "score"]]

    def recommend_many(
        self,
        histories: Sequence[Sequence],
        k: int = 10,
        steps: int | None = None,
        compensate: bool | None = None,
        exclude_seen: bool | None = None,
        seed: int = 0,
        index: ItemIndex | None = None,
        draws: int | None = None,
        width: float = 0.0,
        exclude: Sequence = (),
        skip_unknown: bool = False,
    ) -> pd.DataFrame:
        """`recommend` for many users, without their scores of the whole catalogue.

        Each gets the list that `recommend` gives, bit for bit on one machine, whoever else asks and in whatever order:
        all start from the same first noise, and SERVED of them are always taken together. With draws it goes user by
        user, so that the chains of one user are held at a time.

        histories: lists of original item ids, oldest first. index: an ItemIndex of this model's item vectors, for
        an approximate search; without one it is exact. exclude: listed for nobody. Returns k rows a user: user (place
        in `histories`, from 0), rank (from 1), item_id, score. Raises ValueError as `recommend` does, for an index of
        another shape, and for an index beside draws.
        """
        histories = listed("histories", histories, "histories, each a list of item ids")
        if len(histories) == 0:
            raise ValueError("There are no histories; give at least one.")
        k = whole("k", k)
        check_width(width)
        if index is not None and index.shape != tuple(self.model.embedding.weight.shape):
            raise ValueError(
                f"The index holds (items, d) = {index.shape}, but the model's embeddings are "
                f"{tuple(self.model.embedding.weight.shape)}; build it from recommender.model.item_vectors()."
            )
        if index is not None and draws is not None:
            raise ValueError("Draws count for their nearest items, which an index only guesses; give index or draws.")
        data, sizes = self.model.config.data, self.model.config.model
        exclude_seen = switch("exclude_seen", exclude_seen, data.repeats == "first_visits")
        compensate = switch("compensate", compensate, draws is None)
        scorer = self.scorer(steps, compensate, seed, shared_noise=True)
        items, ends = self._encode(histories, switch("skip_unknown", skip_unknown, False))
        unlisted = self._unlisted(exclude)
        if exclude_seen:
            self._check_room(items, ends, unlisted.cpu().numpy(), k)
        values, found = [], []
        served = 1 if draws is not None else SERVED if self.model.device.type == "cpu" else SERVED_ELSEWHERE
        copies = ALIGNED // math.gcd(ALIGNED, sizes.dim, sizes.hidden)  # rows from an aligned one to the next
        for start in range(0, len(histories), served):
            users = np.arange(start, start + served).clip(max=len(histories) - 1)  # the last one fills the last batch
            bounds = ends[users], ends[users + 1]
            newest, seen = newest_items(items, *bounds, data.max_len), unlisted.expand(len(users), -1)
            if exclude_seen:
                own = newest_items(items, *bounds, int((bounds[1] - bounds[0]).max())).to(self.model.device)
                seen = torch.cat([own, seen], dim=1)
            if draws is not None:
                e_0 = self.draw(newest, draws, steps, compensate, stream(seed, "sampling"))
                best = self._likeliest(newest, e_0, width, k, seen)
            else:
                query = scorer.query(newest.repeat_interleave(copies, 0)).of(slice(None, None, copies))
                best = top_items(query, scorer.items, k, seen) if index is None else index.search(query, k, seen)
            values.append(best[0][: len(histories) - start].cpu())
            found.append(best[1][: len(histories) - start].cpu())
        return pd.DataFrame(
            {
                "user": np.repeat(np.arange(len(histories)), k),
                "rank": np.tile(np.arange(1, k + 1), len(histories)),
                "item_id": self.item_ids[torch.cat(found).flatten().numpy()],
                "score": torch.cat(values).flatten().numpy(),
            }
        )

    @torch.no_grad()
    def _likeliest(self, history: Tensor, e_0: Tensor, width: float, k: int, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The k likeliest items of each history (B, L) by its draws (B, N, d): probabilities and items, (B, k) each.

        Most items are nearest to no draw; among those, and all that are equally likely, the query of the mean draw
        decides.
        """
        likely = probabilities(self.model, history, e_0, width)
        check_seen(seen, k, likely.shape[1])
        history = history.to(self.model.device)
        mean = self.model.query(e_0.mean(1), history, self.model.condition(history))
        order = top_items(mean, self.model.item_vectors(), likely.shape[1])[1]  # (B, |V|)
        best, places = without_seen(likely, seen).gather(1, order).sort(dim=1, descending=True, stable=True)
        return best[:, :k], order.gather(1, places[:, :k])

    @cached_property
    def _catalogue(self) -> pd.Index:
        """Item ids as text, for looking up their indices."""
        return _texts(list(self.item_ids))

    def _unlisted(self, exclude: Sequence) -> Tensor:
        """Indices of the items to exclude. Warns of ids that the catalogue lacks."""
        ids = _texts(listed("items to exclude", exclude, "item ids"))
        places = self._catalogue.get_indexer(ids)
        unknown = ids[places < 0]
        if len(unknown):
            warnings.warn(
                f"Of {len(ids)} items to exclude {len(unknown)} are not in this checkpoint's catalogue, "
                f"{unknown[0]!r} for example, and change nothing.",
                stacklevel=3,
            )
        return torch.from_numpy(places[places >= 0]).to(self.model.device)

    def _check_room(self, items: np.ndarray, ends: np.ndarray, unlisted: np.ndarray, k: int) -> None:
        """Raises ValueError when the own items of somebody, and those that nobody is shown, leave less than k."""
        n_items = len(self.item_ids)
        lengths = np.diff(ends)
        for user in np.flatnonzero(lengths + len(unlisted) > n_items - k):
            left = n_items - len(np.union1d(items[ends[user] : ends[user + 1]], unlisted))
            if left < k:
                raise ValueError(
                    f"k is {k}, but the {_who(user, len(lengths))} leaves only {left} of {n_items} items to recommend; "
                    "give a smaller k, list seen items too (exclude_seen=False) or leave this user out."
                )

    def _encode(self, histories: Sequence[Sequence], skip_unknown: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Item indices of all histories behind one another, and where they begin and end: user u has ends[u:u+2].

        skip_unknown: without the items that the catalogue lacks.
        """
        n = len(histories)
        histories = [listed(_who(user, n), history, "item ids, oldest first") for user, history in enumerate(histories)]
        lengths = np.array([len(history) for history in histories])
        ends = np.concatenate([[0], lengths.cumsum()])
        items = self._catalogue.get_indexer(_texts([item for history in histories for item in history]))

        if lengths.min() == 0:
            raise ValueError(f"The {_who(lengths.argmin(), n)} is empty; give at least one item id.")
        if skip_unknown:
            lengths = np.add.reduceat(items >= 0, ends[:-1])
            if lengths.min() == 0:
                raise ValueError(
                    f"The {_who(lengths.argmin(), n)} has no item of this checkpoint's catalogue; leave this user out."
                )
            items, ends = items[items >= 0], np.concatenate([[0], lengths.cumsum()])
        if items.min() < 0:
            first = int((items < 0).argmax())
            user = int(np.searchsorted(ends, first, side="right")) - 1
            place = first - ends[user]
            raise ValueError(
                f"Item {str(histories[user][place])!r} (place {place + 1} of the {_who(user, n)}) is not in this "
                f"checkpoint's catalogue of {len(self.item_ids)} items, which look like {self.item_ids[0]!r}; "
                "remove it, skip all such items (skip_unknown=True, in a command --skip-unknown) or train again."
            )
        return items, ends


def _who(user: Any, users: int) -> str:
    return "history" if users == 1 else f"history of user {user}"


def _texts(ids: list) -> pd.Index:
    """Ids as the catalogue is asked for them, lone surrogates too."""
    return pd.Index([str(item) for item in ids], dtype=object)
