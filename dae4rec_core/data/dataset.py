"""Interactions: filter, encode, split, and turn into next-item examples."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dae4rec_core.config import Config
from dae4rec_core.data.files import COLUMNS, IDS, LABELS, items_beside, load_interactions
from dae4rec_core.method.graph import ItemGraph, transition_graph
from dae4rec_core.method.model import PAD

VALIDATION_USERS = 5_000  # enough for early stopping: the standard error of HR@10 is at most 0.71 points
NOTHING_SEEN = torch.empty(0, 0, dtype=torch.long)


@dataclass(frozen=True)
class Examples:
    """Next-item examples, one a row.

    history: (N, L) long, item indices, newest last, PAD on the left. target: (N,) item index of the next interaction.
    user: (N,) row of Dataset.user_ids. seen: (N, M) long, items that are not ranked for this user, filled with PAD;
    M = 0, the default, leaves nothing out.
    """

    history: Tensor
    target: Tensor
    user: Tensor
    seen: Tensor = NOTHING_SEEN

    def __post_init__(self) -> None:
        if self.seen is NOTHING_SEEN:
            object.__setattr__(self, "seen", self.target.new_empty(len(self), 0))

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows: Tensor | slice) -> "Examples":
        return Examples(self.history[rows], self.target[rows], self.user[rows], self.seen[rows])

    def to(self, device: torch.device | str) -> "Examples":
        return Examples(*(part.to(device) for part in (self.history, self.target, self.user, self.seen)))


@dataclass(frozen=True)
class Account:
    """What became of the interactions of a file: loaded = repeats + core + unknown + those of the Dataset.

    repeats: left out by the rule for repeats, in the file as it stands. core: left out by the k-core, with the repeats
    that it made. unknown: see Split. users, items: how many have nothing left. single: users left with one interaction,
    who neither teach nor test. described: items that items.csv has a row for; None where none was read. unread: the
    name of an items.csv beside the file that has no column item_id. copies: interactions of the file with the user,
    item and time of an earlier one, left in unless the rule for repeats says otherwise. one_time: whether all
    interactions of the file have the same time.
    """

    loaded: int
    repeats: int
    core: int
    unknown: int
    users: int
    items: int
    single: int
    described: int | None
    unread: str | None
    copies: int
    one_time: bool

    def __str__(self) -> str:
        """One sentence on what was left out, and others where there is more to say."""
        text = (
            f"Of {self.loaded:,} interactions were left out: {self.repeats:,} repeats, {self.core:,} by the k-core "
            f"and {self.unknown:,} with items unknown in training; {self.users:,} users and {self.items:,} items went."
        )
        if self.single:
            text += f" Users left with a single one, which has nothing to teach or test: {self.single:,}."
        if self.described is not None:
            text += f" items.csv describes {self.described:,} of the items."
        if self.unread:
            text += f" {self.unread} beside the file has no column item_id, so it was not read."
        if self.copies:
            text += f" Interactions of the file that repeat another one's user, item and time: {self.copies:,}."
        if self.one_time:
            text += " All have the same timestamp, so that their order is that of the file."
        return text


@dataclass(frozen=True)
class Dataset:
    """Encoded interactions, all users behind one another.

    items, timestamps: (N,), sorted by user, then time. User u owns positions offsets[u] .. offsets[u+1]-1.
    user_ids, item_ids: the original ids by index. attributes: a row an item, other columns as they came.
    account: what was left out of the file, where `prepare` read one.
    """

    name: str
    items: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    attributes: pd.DataFrame
    account: Account | None = None

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    def sequence(self, user: int) -> np.ndarray:
        """All items of a user in time order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def user_index(self, user_id: object) -> int:
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
        for column in LABELS:
            if column in self.attributes and pd.notna(self.attributes[column].iloc[item]):
                return str(self.attributes[column].iloc[item])
        return str(self.item_ids[item])

    def statistics(self) -> dict[str, float]:
        """The columns of the paper's Table 2. Sparsity is 1 - records / (users x items), as in its three rows."""
        return {
            "records": len(self.items),
            "users": self.n_users,
            "items": self.n_items,
            "average length": len(self.items) / self.n_users,
            "sparsity": 1 - len(self.items) / (self.n_users * self.n_items),
        }


@dataclass(frozen=True)
class Split:
    """Which positions of a Dataset are training, and which are the answers of validation and test.

    train_end: (n_users,) training interactions of user u are positions offsets[u] .. train_end[u]-1.
    validation, test: positions of the items to be predicted, one a user at most. unknown: interactions after the
    training period that were left out because their item is not in the catalogue (`prepare` with global_time).
    """

    train_end: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    unknown: int = 0

    def training_sequences(self, dataset: Dataset) -> list[np.ndarray]:
        """Each user's training items in time order."""
        return [dataset.items[a:b] for a, b in zip(dataset.offsets[:-1], self.train_end, strict=True)]

    def training_targets(self, dataset: Dataset) -> np.ndarray:
        """Positions of all training interactions that have something before them."""
        position = np.arange(len(dataset.items))
        owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
        return position[(position > dataset.offsets[owner]) & (position < self.train_end[owner])]


def filter_interactions(frame: pd.DataFrame, k_core: int = 5, repeats: str = "keep") -> pd.DataFrame:
    """Sort by user and time (stable), treat repeats and keep the k-core, until neither takes anything away.

    repeats: "keep"; "drop_consecutive" (an item directly after itself goes, also where the k-core took what lay
    between); "first_visits" (only a user's first interaction with an item stays). k_core: users and items with fewer
    interactions go. Raises ValueError when nothing remains.
    """
    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    while True:
        frame = _without_repeats(frame, repeats)
        enough = pd.Series(True, index=frame.index)
        for name in IDS:
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


def _without_repeats(frame: pd.DataFrame, repeats: str) -> pd.DataFrame:
    """See filter_interactions; frame is sorted by user and time."""
    if repeats == "drop_consecutive":
        visit = frame[IDS].to_numpy()
        same = np.zeros(len(frame), dtype=bool)
        same[1:] = (visit[1:] == visit[:-1]).all(1)
        return frame[~same]
    if repeats == "first_visits":
        return frame.drop_duplicates(IDS)
    return frame


def encode(frame: pd.DataFrame, items: pd.DataFrame | None = None, name: str = "data") -> Dataset:
    """Give users and items the indices 0.. in sorted order of their ids, and gather item attributes.

    frame: filtered interactions, each user's in order of time. items: optional attributes with an item_id column; other
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
    in training. That flatters methods which can use it; `global_time` does not, but tests fewer users and meets some
    that training never saw. The literature (and this series) reports leave-last-out; a system that will be
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


def time_cuts(timestamps: np.ndarray, validation_share: float = 0.1, test_share: float = 0.1) -> tuple[float, float]:
    """The moments at which validation and test begin, so that these shares of the timestamps lie behind them."""
    first, second = np.quantile(timestamps, [1 - validation_share - test_share, 1 - test_share])
    return float(first), float(second)


def filter_before(frame: pd.DataFrame, cut: float, k_core: int, repeats: str) -> tuple[pd.DataFrame, int]:
    """`filter_interactions` on what came before `cut`, followed by the later interactions with the items it kept.

    The k-core looks at nothing later, and later users need no minimum. Returns the interactions, sorted by user and
    time, and how many later ones were left out because their item is not among those kept. Raises ValueError when
    nothing came before the cut, or nothing of it remains.
    """
    frame = _without_repeats(frame.sort_values(["user_id", "timestamp"], kind="stable"), repeats)
    past = frame["timestamp"] < cut
    if not past.any():
        raise ValueError(
            "No interaction comes before the first time cut, as when all have one time; use leave_last_out."
        )
    training, later = filter_interactions(frame[past], k_core, repeats), frame[~past]
    known = later["item_id"].isin(training["item_id"])
    kept = pd.concat([training, later[known]]).sort_values(["user_id", "timestamp"], kind="stable")
    return _without_repeats(kept, repeats).reset_index(drop=True), int((~known).sum())


def global_time(
    dataset: Dataset,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    cuts: tuple[float, float] | None = None,
) -> Split:
    """Cut at two moments for everybody: training before the first, validation up to the second, test after it.

    The answer of a period is a user's first interaction in it that has a history before it. Shares are of the
    dataset's interactions; `cuts`, the two moments themselves, stand in their place. Nothing of the future reaches
    training, as in a deployed system, when the dataset comes from `prepare`: there the k-core and the catalogue are
    the training period's, and later interactions with other items, which nobody could recommend, are left out and
    counted in Split.unknown. Raises ValueError when a period has no answer, as when timestamps are only positions in
    a sequence.
    """
    first_cut, second_cut = cuts or time_cuts(dataset.timestamps, validation_share, test_share)
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))

    def count_before(cut: float) -> np.ndarray:
        return dataset.offsets[:-1] + np.bincount(owner[dataset.timestamps < cut], minlength=dataset.n_users)

    ends = [count_before(first_cut), count_before(second_cut), dataset.offsets[1:]]
    validation, test = (
        start[(start < stop) & (start > dataset.offsets[:-1])] for start, stop in zip(ends[:-1], ends[1:], strict=True)
    )
    if len(validation) == 0 or len(test) == 0:
        raise ValueError(
            f"{dataset.name} has no user active on both sides of the time cuts; use leave_last_out or larger shares."
        )
    return Split(ends[0], validation, test)


def training_graph(dataset: Dataset, split: Split) -> ItemGraph:
    """The item transition graph (Eq. 6) of the training sequences alone."""
    return transition_graph(split.training_sequences(dataset), dataset.n_items)


def make_examples(dataset: Dataset, targets: np.ndarray, max_len: int, exclude_seen: bool = False) -> Examples:
    """Next-item examples for target positions (N,); the history is all that came before, newest max_len items.

    exclude_seen: the items of the whole history, however long, are not ranked; right only where none is an answer.
    """
    owner = np.searchsorted(dataset.offsets, targets, side="right") - 1
    start = dataset.offsets[owner]
    longest = int((targets - start).max(initial=0)) if exclude_seen else 0
    history, seen = (newest_items(dataset.items, start, targets, width) for width in (max_len, longest))
    return Examples(history, torch.from_numpy(dataset.items[targets]), torch.from_numpy(owner), seen)


def newest_items(items: np.ndarray, first: np.ndarray, end: np.ndarray, width: int) -> Tensor:
    """The newest `width` of the items at positions first .. end - 1, for each of N users: (N, width), PAD on the left.

    items: of all users, behind one another. first, end: (N,) positions in it.
    """
    back = end[:, None] + np.arange(-width, 0)
    return torch.from_numpy(np.where(back >= first[:, None], items[back.clip(min=0)], PAD))


def training_examples(dataset: Dataset, split: Split, config: Config) -> Examples:
    """Every training interaction with something before it, as a target. Raises ValueError when there is none."""
    targets = split.training_targets(dataset)
    if len(targets) == 0:
        raise ValueError(
            f"{dataset.name} has no user with two training interactions, so there is no next item to learn from; "
            "give longer histories."
        )
    return make_examples(dataset, targets, config.data.max_len)


def held_out(dataset: Dataset, split: Split, part: str, config: Config, limit: int | None = None) -> Examples:
    """The answers of part "validation" or "test", with histories of config.data.max_len.

    Where only first visits count, no answer is an item of its history, so these items are not ranked; on other data
    every item is. limit: at most so many answers, taken evenly from all of them. Raises ValueError for another part and
    for one without answers.
    """
    if part not in ("validation", "test"):
        raise ValueError(f"There are no held-out answers {part!r}; choose validation or test.")
    targets = split.validation if part == "validation" else split.test
    if len(targets) == 0:
        raise ValueError(
            f"The split of {dataset.name} has no {part} answers; make one by leave_last_out or global_time."
        )
    if limit is not None and len(targets) > limit:
        targets = targets[np.arange(limit) * (len(targets) - 1) // max(1, limit - 1)]  # the first and the last are in
    return make_examples(dataset, targets, config.data.max_len, exclude_seen=config.data.repeats == "first_visits")


def validation_sample(dataset: Dataset, split: Split, config: Config) -> Examples:
    """The validation answers, thinned evenly to VALIDATION_USERS."""
    return held_out(dataset, split, "validation", config, limit=VALIDATION_USERS)


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


def prepare(path: str | Path, config: Config) -> tuple[Dataset, Split]:
    """Load, filter, encode and split by one configuration; Dataset.account says what was left out.

    With leave_last_out the filter sees all interactions, with global_time only the training period's, see
    `filter_before`; there the shares that `time_cuts` takes are of the interactions as loaded, so that what happens
    after the first cut can't move it. Warns where an items.csv describes no item. Raises FileNotFoundError or
    ValueError with one sentence.
    """
    if not isinstance(config, Config):
        raise ValueError(f"config is {config!r}; give a Config, for example PRESETS['reference'] of config.py.")
    loaded, items = load_interactions(path)
    path, data = Path(path), config.data
    name = path.name if path.is_dir() else path.name.split(".")[0]
    if name == "interactions":  # the file of a folder named after the data
        name = path.resolve().parent.name
    if data.split == "global_time":
        cuts = time_cuts(loaded["timestamp"].to_numpy())
        frame, unknown = filter_before(loaded, cuts[0], data.k_core, data.repeats)
        dataset = encode(frame, items, name)
        split = replace(global_time(dataset, cuts=cuts), unknown=unknown)
    else:
        dataset = encode(filter_interactions(loaded, data.k_core, data.repeats), items, name)
        split = leave_last_out(dataset)
    beside = items_beside(path)
    unread = beside.name if beside is not None and items is None else None
    account = _account(loaded, items, unread, dataset, split.unknown, data.repeats)
    if account.described == 0:
        why = "compare the item_id of both" if items is not None and len(items) else "it has a header but no rows"
        warnings.warn(f"The items.csv of {name} describes none of its items; {why}.", stacklevel=2)
    return replace(dataset, account=account), split


def _account(
    loaded: pd.DataFrame, items: pd.DataFrame | None, unread: str | None, dataset: Dataset, unknown: int, rule: str
) -> Account:
    ordered = loaded.sort_values(["user_id", "timestamp"], kind="stable") if rule == "drop_consecutive" else loaded
    repeats = len(loaded) - len(_without_repeats(ordered, rule))  # the other rules need no order to be counted
    return Account(
        loaded=len(loaded),
        repeats=repeats,
        core=len(loaded) - repeats - unknown - len(dataset.items),
        unknown=unknown,
        users=loaded["user_id"].nunique() - dataset.n_users,
        items=loaded["item_id"].nunique() - dataset.n_items,
        single=int((np.diff(dataset.offsets) == 1).sum()),
        described=None if items is None else int(pd.Series(dataset.item_ids).isin(items["item_id"]).sum()),
        unread=unread,
        copies=int(loaded.duplicated(COLUMNS).sum()),
        one_time=len(loaded) > 1 and loaded["timestamp"].nunique() == 1,
    )
