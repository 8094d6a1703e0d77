"""A trained model in use: generate e^0, score the catalogue, recommend, save and load."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from dae4rec_core.compensator import Compensator
from dae4rec_core.config import Config, choose_device
from dae4rec_core.data import PAD
from dae4rec_core.distributed import world
from dae4rec_core.graph import neighbours
from dae4rec_core.model import DAE4Rec
from dae4rec_core.retrieval import EmbeddingScorer, ItemIndex, top_items, top_scores
from dae4rec_core.sampling import choose_tau, markov_chain, skip_step

FORMAT = 1


class Recommender:
    """A model, its compensators by S, the original item ids, and Z* for those who want to look at it."""

    def __init__(self, model: DAE4Rec, item_ids, z_star: Tensor | None = None):
        self.model = model
        self.item_ids = np.asarray(item_ids, dtype=object)
        self.z_star = z_star
        self.compensators: dict[int, Compensator] = {}
        self.transitions: sparse.csr_matrix | None = None  # counts for Config.neighbours, from the training part

    @torch.no_grad()
    def generate(
        self,
        history: Tensor,
        steps: int | None = None,
        compensate: bool = True,
        x_T: Tensor | None = None,
        generator: torch.Generator | None = None,
        on_step=None,
    ) -> Tensor:
        """Sample e^0 by Eq. 15 in S = steps jumps, with c_phi as the last one or without: (B, L) -> (B, d).

        x_T: (B, d) the first noise; drawn from `generator` when absent. on_step: see `skip_step`.
        Raises ValueError when S is not in 1..T or has no trained compensator.
        """
        model = self.model.eval()
        steps = model.config.sampling_steps if steps is None else steps
        tau = choose_tau(model.config.timesteps, steps)
        if compensate and steps not in self.compensators:
            trained = ", ".join(map(str, sorted(self.compensators))) or "no S"
            raise ValueError(
                f"No compensator was trained for S = {steps} (there is one for {trained}); "
                "choose such an S, train one with train_compensator, or give compensate=False."
            )
        h = model.condition(history.to(model.device))
        if x_T is None:
            x_T = torch.randn(h.shape, generator=generator)
        e_tau1, e0 = skip_step(model.predictor(h), x_T.to(h), h, model.alpha_bar, tau, on_step=on_step)
        return self.compensators[steps].eval()(e_tau1, h) if compensate else e0

    def scorer(self, steps: int | None = None, compensate: bool = True, seed: int = 0) -> EmbeddingScorer:
        """From histories (B, L) to scores (B, |V|), or to the vectors (B, d) behind them (its `queries`): e^0 itself,
        unless the configuration goes beyond the paper. It has its own noise, started from `seed`.
        """
        generator = torch.Generator().manual_seed(seed)

        def queries(history: Tensor) -> Tensor:
            return self.model.query(self.generate(history, steps, compensate, generator=generator))

        return self._scorer(queries)

    def markov_scorer(self, seed: int = 0) -> EmbeddingScorer:
        """The same for the Markov chain of Eq. 3, all T steps: the paper's benchmark -BM."""
        generator = torch.Generator().manual_seed(seed)

        @torch.no_grad()
        def queries(history: Tensor) -> Tensor:
            model = self.model.eval()
            h = model.condition(history.to(model.device))
            x_T = torch.randn(h.shape, generator=generator).to(h)
            return model.query(markov_chain(model.predictor(h), x_T, h, model.alpha_bar, generator))

        return self._scorer(queries)

    def _scorer(self, queries) -> EmbeddingScorer:
        items = self.model.item_vectors().detach()
        beyond = self.model.returns is not None or self.transitions is not None
        return EmbeddingScorer(queries, items, self._bonus if beyond else None)

    @torch.no_grad()
    def _bonus(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """What `Returns` and the neighbours in the transition graph add to the scores of which items: two (B, M)."""
        items, gains = [], []
        history = history.to(self.model.device)
        if self.model.returns is not None:
            items.append(history)
            gains.append(self.model.bonus(history, self.model.eval().condition(history)))
        if self.transitions is not None:
            near, weight = neighbours(self.transitions, history.cpu())
            items.append(near.to(history.device))
            gains.append(self.model.config.neighbours * weight.to(history.device))
        return torch.cat(items, 1), torch.cat(gains, 1)

    def recommend(
        self,
        history: list,
        k: int = 10,
        steps: int | None = None,
        compensate: bool = True,
        exclude_seen: bool = False,
        seed: int = 0,
    ) -> pd.DataFrame:
        """The k best next items for a history of original item ids, oldest first; the user need not be known.

        Returns a table with columns item_id and score, best first; the same seed gives the same list.
        Raises ValueError for an empty history, an item that the catalogue lacks, or a k or S out of range.
        """
        found = self.recommend_many([history], k, steps, compensate, exclude_seen, seed)
        return found[["item_id", "score"]]

    def recommend_many(
        self,
        histories: list[list],
        k: int = 10,
        steps: int | None = None,
        compensate: bool = True,
        exclude_seen: bool = False,
        seed: int = 0,
        batch_size: int = 1024,
        index: ItemIndex | None = None,
    ) -> pd.DataFrame:
        """`recommend` for many users, batch_size at a time, without their scores of the whole catalogue.

        histories: lists of original item ids, oldest first. index: an ItemIndex of this model's item embeddings, for
        an approximate search; without one it is exact. Returns k rows a user: user (place in `histories`, from 0),
        rank (from 1), item_id, score. Raises ValueError as `recommend` does, and for an index of another shape.
        """
        if len(histories) == 0:
            raise ValueError("There are no histories; give at least one.")
        if index is not None and index.shape != tuple(self.model.embedding.weight.shape):
            raise ValueError(
                f"The index holds (items, d) = {index.shape}, but the model's embeddings are "
                f"{tuple(self.model.embedding.weight.shape)}; build it from model.item_vectors()."
            )
        scorer = self.scorer(steps, compensate, seed)
        if index is not None and scorer.bonus is not None:
            raise ValueError(
                "An index knows inner products only, and this model adds to some scores (returns or neighbours); "
                "leave the index out."
            )
        items, ends = self._encode(histories)
        values, found = [], []
        for start in range(0, len(histories), batch_size):
            rows = slice(start, start + batch_size)
            history = _newest(items, ends, rows, self.model.config.max_len)
            seen = _newest(items, ends, rows, np.diff(ends)[rows].max()) if exclude_seen else None
            if scorer.bonus is not None:
                best = top_scores(scorer(history), k, seen)
            elif index is None:
                best = top_items(scorer.queries(history), scorer.items, k, seen)
            else:
                best = index.search(scorer.queries(history), k, seen)
            values.append(best[0].cpu())
            found.append(best[1].cpu())
        return pd.DataFrame(
            {
                "user": np.repeat(np.arange(len(histories)), k),
                "rank": np.tile(np.arange(1, k + 1), len(histories)),
                "item_id": self.item_ids[torch.cat(found).flatten().numpy()],
                "score": torch.cat(values).flatten().numpy(),
            }
        )

    @cached_property
    def _catalogue(self) -> pd.Index:
        """Item ids as text, for looking up their indices."""
        return pd.Index(list(map(str, self.item_ids)), dtype=object)

    def _encode(self, histories: list[list]) -> tuple[np.ndarray, np.ndarray]:
        """Item indices of all histories behind one another, and where they begin and end: user u has ends[u:u+2]."""
        lengths = np.array([len(history) for history in histories])
        ends = np.concatenate([[0], lengths.cumsum()])
        items = self._catalogue.get_indexer([str(item) for history in histories for item in history])

        def name(user: int) -> str:
            return "history" if len(histories) == 1 else f"history of user {user}"

        if lengths.min() == 0:
            raise ValueError(f"The {name(lengths.argmin())} is empty; give at least one item id.")
        if items.min() < 0:
            first = (items < 0).argmax()
            user = np.searchsorted(ends, first, side="right") - 1
            place = first - ends[user]
            raise ValueError(
                f"Item {str(histories[user][place])!r} (place {place + 1} of the {name(user)}) is not in this "
                f"checkpoint's catalogue of {len(self.item_ids)} items, which look like {self.item_ids[0]!r}; "
                "remove it or train again."
            )
        return items, ends

    def save(self, folder: str | Path, half: bool = False, **facts) -> None:
        """Write weights.safetensors and recommender.json; `facts` (JSON values) are kept beside the configuration.

        Of several processes the first one writes.

        half: store float16, half the size, for checkpoints that live in a repository; `load` gives float32 either way.
        """
        if world()[0] > 0:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for steps, compensator in self.compensators.items():
            tensors |= {f"compensator.{steps}.{name}": v for name, v in compensator.state_dict().items()}
        if self.z_star is not None:
            tensors["z_star"] = self.z_star
        if self.transitions is not None:
            for name in ("data", "indices", "indptr"):
                tensors[f"transitions.{name}"] = torch.from_numpy(getattr(self.transitions, name))
        kind = torch.float16 if half else torch.float32
        save_file(
            {
                name: value.detach().to("cpu", kind if value.is_floating_point() else None).contiguous()
                for name, value in tensors.items()
            },
            folder / "weights.safetensors",
        )
        text = {
            "format": FORMAT,
            "config": self.model.config.to_dict(),
            "compensators": sorted(self.compensators),
            "facts": facts,
            "item_ids": [str(item) for item in self.item_ids],
        }
        (folder / "recommender.json").write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "Recommender":
        """Read what `save` wrote. Raises FileNotFoundError or ValueError with one sentence."""
        folder = Path(folder)
        for name in ("recommender.json", "weights.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"There is no checkpoint in {folder} ({name} is missing); make one with "
                    f"`python -m dae4rec_core fit --out {folder}`."
                )
        try:
            text = json.loads((folder / "recommender.json").read_text())
            tensors = load_file(folder / "weights.safetensors")
        except (json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"The checkpoint in {folder} is damaged ({error}); copy it again or train anew.") from None
        if not isinstance(text, dict) or text.get("format") != FORMAT:
            raise ValueError(f"The checkpoint in {folder} is not of format {FORMAT}; copy it again or train anew.")
        broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
        if broken:
            raise ValueError(
                f"The checkpoint in {folder} holds NaN or infinity in {', '.join(broken)}; train anew with a lower lr."
            )
        config = Config.from_dict(text["config"])
        device = choose_device(device)
        model = DAE4Rec(len(text["item_ids"]), config).to(device)
        recommender = cls(
            model, text["item_ids"], tensors["z_star"].float().to(device) if "z_star" in tensors else None
        )
        if config.neighbours:
            data, indices, indptr = (tensors[f"transitions.{name}"].numpy() for name in ("data", "indices", "indptr"))
            shape = (model.n_items,) * 2
            recommender.transitions = sparse.csr_matrix((data.astype(float), indices, indptr), shape)
        for steps in text["compensators"]:
            recommender.compensators[steps] = Compensator(config.dim, config.hidden, config.dropout, config.depth).to(
                device
            )
        modules = {"model.": model} | {f"compensator.{s}.": c for s, c in recommender.compensators.items()}
        for prefix, module in modules.items():
            part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            try:
                module.load_state_dict(part)
            except RuntimeError as error:
                raise ValueError(
                    f"The checkpoint in {folder} does not fit its own configuration ({str(error).splitlines()[0]}); "
                    "copy both of its files from the same run."
                ) from None
            module.eval()
        return recommender


def _newest(items: np.ndarray, ends: np.ndarray, rows: slice, width: int) -> Tensor:
    """The newest `width` items of some users' histories: (B, width) with PAD on the left. See `_encode`."""
    first, last = ends[:-1][rows], ends[1:][rows]
    back = last[:, None] + np.arange(-width, 0)
    return torch.from_numpy(np.where(back >= first[:, None], items[back.clip(min=0)], PAD))
