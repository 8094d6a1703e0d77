"""Interactions: read, validate, filter, encode, split, and turn into next-item examples."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.config import Config

COLUMNS = ["user_id", "item_id", "timestamp"]
PAD = -1  # fills the left of short histories; it is no item, so it can never be recommended


class Batch(NamedTuple):
    history: Tensor  # (B, L) item indices, newest last, PAD on the left
    target: Tensor  # (B,) item index of the next interaction


@dataclass(frozen=True)
class Examples:
    """Next-item examples: history (N, L) long with PAD on the left, target (N,), user (N,) row of Dataset.user_ids."""

    history: Tensor
    target: Tensor
    user: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows) -> "Examples":
        return Examples(self.history[rows], self.target[rows], self.user[rows])

    def to(self, device) -> "Examples":
        return Examples(self.history.to(device), self.target.to(device), self.user.to(device))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """Batches of at most `size`; the last one may be smaller, no example is dropped."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size) if order is None else order[start : start + size]
            yield Batch(self.history[rows], self.target[rows])


@dataclass(frozen=True)
class Dataset:
    """Encoded interactions, all users behind one another.

    items, timestamps: (N,), sorted by user, then time. User u owns positions offsets[u] .. offsets[u+1]-1.
    user_ids, item_ids: the original ids by index. attributes: a row an item, other columns as they came.
    """

    name: str
    items: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    attributes: pd.DataFrame

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    def sequence(self, user: int) -> np.ndarray:
        """All items of a user in time order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def user_index(self, user_id) -> int:
        """Row of an original user id. Raises ValueError when it is unknown or was filtered out."""
        found = np.flatnonzero(self.user_ids.astype(str) == str(user_id))
        if len(found) == 0:
            raise ValueError(
                f"User {user_id!r} is not in {self.name} (or was dropped by the filter); "
                f"known users look like {self.user_ids[0]!r}. Give one of them, or a history of items."
            )
        return int(found[0])

    def label(self, item: int) -> str:
        """What a reader calls an item: its name or description where there is one, else its id."""
        for column in ("name", "description"):
            if column in self.attributes and pd.notna(self.attributes[column].iloc[item]):
                return str(self.attributes[column].iloc[item])
        return str(self.item_ids[item])

    def statistics(self) -> dict[str, float]:
        """The columns of the paper's Table 2. Sparsity is 1 - distinct (user, item) pairs / (users x items)."""
        owner = np.repeat(np.arange(self.n_users), np.diff(self.offsets))
        pairs = len(np.unique(owner * self.n_items + self.items))
        return {
            "records": len(self.items),
            "users": self.n_users,
            "items": self.n_items,
            "average length": len(self.items) / self.n_users,
            "sparsity": 1 - pairs / (self.n_users * self.n_items),
        }


@dataclass(frozen=True)
class Split:
    """Which positions of a Dataset are training, and which are the answers of validation and test.

    train_end: (n_users,) training interactions of user u are positions offsets[u] .. train_end[u]-1.
    validation, test: positions of the items to be predicted, one a user at most.
    """

    train_end: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def training_sequences(self, dataset: Dataset) -> list[np.ndarray]:
        return [dataset.items[a:b] for a, b in zip(dataset.offsets[:-1], self.train_end, strict=True)]

    def training_targets(self, dataset: Dataset) -> np.ndarray:
        """Positions of all training interactions that have something before them."""
        position = np.arange(len(dataset.items))
        owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
        return position[(position > dataset.offsets[owner]) & (position < self.train_end[owner])]


def load_interactions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Read interactions, and item attributes where an items.csv lies beside them.

    path: a CSV (.csv, .csv.gz) or Parquet file with columns user_id, item_id, timestamp (a number or a date), or a
    folder that holds interactions.csv, .csv.gz or .parquet. Rows keep the file's order where timestamps are equal.
    Returns (interactions, items or None). Raises FileNotFoundError or ValueError with one sentence.
    """
    path = Path(path)
    if path.is_dir():
        names = ["interactions.csv", "interactions.csv.gz", "interactions.parquet"]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"Folder {path} holds none of {', '.join(names)}; put one there or name a file.")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path given as data.")
    frame = _validate(_read_table(path), path)
    beside = [path.with_name(name) for name in ("items.csv", "items.csv.gz") if path.with_name(name).is_file()]
    items = _read_table(beside[0]) if beside else None
    if items is not None and "item_id" not in items:
        raise ValueError(f"{beside[0]} has no column item_id (it has {', '.join(items.columns)}); rename one to it.")
    return frame, items


def _read_table(path: Path) -> pd.DataFrame:
    ids = {"user_id": "string", "item_id": "string"}  # "007" stays "007"
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            return frame.astype({name: kind for name, kind in ids.items() if name in frame})
        return pd.read_csv(path, dtype=ids)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; it needs a header {','.join(COLUMNS)} and rows below it.") from None
    except (ValueError, OSError, EOFError, zlib.error) as error:  # the last two: a damaged .gz
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} can't be read as a table ({why}); give CSV, CSV.GZ or Parquet.") from None


def _validate(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)} (it has {', '.join(map(str, frame.columns))}); "
            f"rename its columns to {', '.join(COLUMNS)}."
        )
    if frame.empty:
        raise ValueError(f"{path} has a header but no rows; add interactions.")
    for name in COLUMNS:
        if frame[name].isna().any():
            row = int(frame[name].isna().to_numpy().argmax()) + 2  # the header is line 1
            raise ValueError(f"{path}, line {row}: {name} is empty; fill it in or remove the line.")
    stamps = frame["timestamp"]
    if not pd.api.types.is_numeric_dtype(stamps):
        parsed = pd.to_datetime(stamps, errors="coerce", utc=True, format="mixed")
        if parsed.isna().any():
            row = int(parsed.isna().to_numpy().argmax())
            raise ValueError(
                f"{path}, line {row + 2}: timestamp {stamps.iloc[row]!r} can't be understood; "
                "use Unix seconds or a date such as 2012-04-03 18:00."
            )
        stamps = (parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return frame.assign(timestamp=stamps)


def filter_interactions(frame: pd.DataFrame, k_core: int = 5, repeats: str = "keep") -> pd.DataFrame:
    """Sort by user and time (stable), treat repeats, then keep the k-core.

    repeats: "keep"; "drop_consecutive" (an item directly after itself goes); "first_visits" (only a user's first
    interaction with an item stays). k_core: users and items with fewer interactions go, until none is left to go.
    Raises ValueError when nothing remains.
    """
    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    if repeats == "drop_consecutive":
        same = (frame["user_id"] == frame["user_id"].shift()) & (frame["item_id"] == frame["item_id"].shift())
        frame = frame[~same]
    elif repeats == "first_visits":
        frame = frame.drop_duplicates(["user_id", "item_id"])
    while True:
        enough = pd.Series(True, index=frame.index)
        for name in ("user_id", "item_id"):
            enough &= frame.groupby(name)[name].transform("size") >= k_core
        if enough.all():
            break
        frame = frame[enough]
    if frame.empty:
        raise ValueError(
            f"No interactions are left after the {k_core}-core filter (repeats={repeats}); "
            "lower k_core or give more data."
        )
    return frame.reset_index(drop=True)


def encode(frame: pd.DataFrame, items: pd.DataFrame | None = None, name: str = "data") -> Dataset:
    """Give users and items the indices 0.. in sorted order of their ids, and gather item attributes.

    frame: filtered interactions, sorted by user and time. items: optional attributes with an item_id column; other
    columns of `frame` count as attributes too, by their first value for each item.
    """
    user, user_ids = pd.factorize(frame["user_id"], sort=True)
    item, item_ids = pd.factorize(frame["item_id"], sort=True)
    order = np.argsort(user, kind="stable")
    extra = [column for column in frame.columns if column not in COLUMNS]
    attributes = frame.groupby("item_id")[extra].first()
    if items is not None:
        items = items.drop_duplicates("item_id").set_index("item_id")
        attributes = items.join(attributes[[c for c in extra if c not in items.columns]], how="outer")
    return Dataset(
        name=name,
        items=item[order].astype(np.int64),
        timestamps=frame["timestamp"].to_numpy()[order],
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user))]),
        user_ids=np.asarray(user_ids, dtype=object),
        item_ids=np.asarray(item_ids, dtype=object),
        attributes=attributes.reindex(item_ids).reset_index(drop=True),
    )


def leave_last_out(dataset: Dataset) -> Split:
    """Each user's last item is the test answer, the one before it the validation answer, the rest is training.

    Every user is tested, and no time stands between training and test: what others did after a user's test moment is
    in training. That flatters methods which can use it; `global_time` does not, but tests fewer users and meets items
    and users that training never saw. The literature (and this series) reports leave-last-out; a system that will be
    deployed should be judged by global_time. Users with fewer than three interactions are training only.
    Raises ValueError when no user has three.
    """
    ends = dataset.offsets[1:]
    long_enough = np.diff(dataset.offsets) >= 3
    if not long_enough.any():
        raise ValueError(
            f"No user of {dataset.name} has three interactions, so nothing can be held out; give longer histories."
        )
    last = ends[long_enough] - 1
    return Split(np.where(long_enough, ends - 2, ends), validation=last - 1, test=last)


def global_time(dataset: Dataset, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Cut at two moments for everybody: training before the first, validation up to the second, test after it.

    The answer of a period is a user's first interaction in it that has a history before it. Nothing of the future
    reaches training, as in a deployed system; see `leave_last_out` for what that changes. Shares are of all
    interactions. Raises ValueError when a period has no answer, as when timestamps are only positions in a sequence.
    """
    shares = [1 - validation_share - test_share, 1 - test_share]
    first_cut, second_cut = np.quantile(dataset.timestamps, shares)
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))

    def count_before(cut):
        return dataset.offsets[:-1] + np.bincount(owner[dataset.timestamps < cut], minlength=dataset.n_users)

    ends = [count_before(first_cut), count_before(second_cut), dataset.offsets[1:]]
    answers = [
        start[(start < stop) & (start > dataset.offsets[:-1])] for start, stop in zip(ends[:-1], ends[1:], strict=True)
    ]
    if min(map(len, answers)) == 0:
        raise ValueError(
            f"{dataset.name} has no user active on both sides of the time cuts; use leave_last_out or larger shares."
        )
    return Split(ends[0], *answers)


def make_examples(dataset: Dataset, targets: np.ndarray, max_len: int) -> Examples:
    """Next-item examples for the given target positions; the history is all that came before, newest max_len items."""
    owner = np.searchsorted(dataset.offsets, targets, side="right") - 1
    back = targets[:, None] + np.arange(-max_len, 0)  # (N, L) positions before the target
    history = np.where(back >= dataset.offsets[owner][:, None], dataset.items[back.clip(min=0)], PAD)
    return Examples(torch.from_numpy(history), torch.from_numpy(dataset.items[targets]), torch.from_numpy(owner))


def length_grouped_order(
    lengths: Tensor, batch_size: int, generator: torch.Generator, pool: int = 16
) -> tuple[Tensor, list[int]]:
    """A random order whose batches hold histories of like length, so that little of a batch is padding.

    Examples are shuffled and dealt into pools of `pool` batches; a pool is sorted by length and cut into batches, whose
    own order is random. lengths: (N,) real items of each history, on the CPU. Returns the order (N,) and the longest
    history of each batch of `batch_size` (the last batch may be smaller).
    """
    order = torch.randperm(len(lengths), generator=generator)
    order = torch.cat([rows[lengths[rows].argsort(stable=True)] for rows in order.split(pool * batch_size)])
    batches = list(order.split(batch_size))
    whole = len(batches) if len(batches[-1]) == batch_size else len(batches) - 1  # a smaller batch stays last
    shuffled = torch.randperm(whole, generator=generator).tolist() + list(range(whole, len(batches)))
    batches = [batches[i] for i in shuffled]
    return torch.cat(batches), [int(lengths[rows].max()) for rows in batches]


def pad_histories(histories: list, max_len: int) -> Tensor:
    """Lists of item indices -> (B, L) with PAD on the left, the newest max_len items of each."""
    rows = torch.full((len(histories), max_len), PAD, dtype=torch.long)
    for row, history in zip(rows, histories, strict=True):
        newest = torch.as_tensor(np.asarray(history)[-max_len:], dtype=torch.long)
        row[max_len - len(newest) :] = newest
    return rows


def prepare(path: str | Path, config: Config) -> tuple[Dataset, Split]:
    """Load, filter, encode and split by one configuration."""
    frame, items = load_interactions(path)
    path = Path(path)
    name = path.name if path.is_dir() else path.name.split(".")[0]
    if name == "interactions":  # the file of a folder named after the data
        name = path.resolve().parent.name
    dataset = encode(filter_interactions(frame, config.k_core, config.repeats), items, name)
    return dataset, {"leave_last_out": leave_last_out, "global_time": global_time}[config.split](dataset)
