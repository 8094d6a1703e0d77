"""What holds for any interactions: the k-core, both splits and their examples, and the account of what was left out."""

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dae4rec_core.config import REPEATS, Config
from dae4rec_core.data.dataset import (
    encode,
    filter_before,
    filter_interactions,
    global_time,
    leave_last_out,
    prepare,
    training_examples,
)
from dae4rec_core.method.model import PAD

VISIT = st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcde"), st.integers(0, 12))
LOGS = st.lists(VISIT, min_size=6, max_size=60)
LATER_E = [*(("u", "ab"[time % 2], time) for time in range(10)), ("v", "e", 9)]  # e is unknown in training
RULES = {"k_core": st.integers(1, 3), "repeats": st.sampled_from(REPEATS)}
some = settings(max_examples=80, deadline=None)


def frame_of(log: list[tuple[str, str, int]]) -> pd.DataFrame:
    """A row a visit; `place` is its place in the file."""
    frame = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
    return frame.assign(place=range(len(frame)))


@some
@given(log=LOGS, k_core=st.integers(1, 4), order=st.randoms(use_true_random=False))
def test_the_core_is_what_any_peeling_leaves(log, k_core, order: random.Random):
    """Users and items with too few visits are taken away one by one, in any order; what stays is the k-core."""
    left = list(log)
    while True:
        counts = Counter(value for user, item, _ in left for value in (user, item))  # users and items share no name
        few = sorted(value for value, times in counts.items() if times < k_core)
        if not few:
            break
        gone = order.choice(few)
        left = [visit for visit in left if gone not in visit[:2]]
    if not left:
        with pytest.raises(ValueError, match="No interactions are left"):
            filter_interactions(frame_of(log), k_core)
        return
    found = filter_interactions(frame_of(log), k_core)
    assert sorted(zip(found["user_id"], found["item_id"], found["timestamp"], strict=True)) == sorted(left)
    keys = ["user_id", "timestamp", "place"]
    assert found[keys].apply(tuple, axis=1).is_monotonic_increasing  # by time, then as in the file


@some
@given(log=LOGS, **RULES)
def test_filtering_twice_changes_nothing(log, k_core, repeats):
    try:
        once = filter_interactions(frame_of(log), k_core, repeats)
    except ValueError:
        assume(False)
    pd.testing.assert_frame_equal(once, filter_interactions(once, k_core, repeats))
    for _, visits in once.groupby("user_id"):
        items = visits["item_id"].tolist()
        assert repeats != "first_visits" or len(set(items)) == len(items)
        assert repeats != "drop_consecutive" or all(a != b for a, b in zip(items, items[1:], strict=False))


@some
@given(log=LOGS, by_time=st.booleans(), **RULES)
def test_no_answer_is_in_training_and_none_comes_before_its_history(log, by_time, k_core, repeats):
    frame, cuts = frame_of(log), (6.0, 9.0)
    try:
        if by_time:
            dataset = encode(filter_before(frame, cuts[0], k_core, repeats)[0])
            split = global_time(dataset, cuts=cuts)
        else:
            dataset = encode(filter_interactions(frame, k_core, repeats))
            split = leave_last_out(dataset)
    except ValueError:
        assume(False)
    times, starts, ends = dataset.timestamps, dataset.offsets[:-1], dataset.offsets[1:]
    training = np.concatenate([np.arange(a, b) for a, b in zip(starts, split.train_end, strict=True)])
    answers = np.concatenate([split.validation, split.test])
    assert len({*training, *answers}) == len(training) + len(answers)  # each place is one of the three, once
    for a, b, end in zip(starts, split.train_end, ends, strict=True):
        assert (np.diff(times[a:end]) >= 0).all() and a <= b <= end
        own = answers[(answers >= a) & (answers < end)]
        assert (own >= b).all() and (own > a).all() and len(own) <= 2
    if by_time:
        assert (times[training] < cuts[0]).all() and (times[split.test] >= cuts[1]).all()
        assert ((times[split.validation] >= cuts[0]) & (times[split.validation] < cuts[1])).all()
        assert set(dataset.items) <= set(dataset.items[training])  # nothing of the future is in the catalogue
    else:
        assert len(training) + len(answers) == len(dataset.items)
        assert split.test.tolist() == [end - 1 for a, end in zip(starts, ends, strict=True) if end - a >= 3]
    if len(split.training_targets(dataset)):
        examples = training_examples(dataset, split, Config().replace(max_len=3))
        for user, history, target in zip(examples.user, examples.history.tolist(), examples.target, strict=True):
            own = dataset.items[starts[user] : split.train_end[user]].tolist()
            steps = [([PAD] * 3 + own[:n])[-3:] + [own[n]] for n in range(1, len(own))]
            assert [*history, int(target)] in steps


@settings(max_examples=50, deadline=None)
@given(log=LOGS, by_time=st.booleans(), described=st.sets(st.sampled_from("abz"), min_size=1), **RULES)
@example(log=LATER_E, by_time=True, described={"a"}, k_core=1, repeats="keep")
@pytest.mark.filterwarnings("ignore:The items.csv of")
def test_what_is_left_out_adds_up(tmp_path_factory, log, by_time, described, k_core, repeats):
    folder = tmp_path_factory.getbasetemp() / "account"
    folder.mkdir(exist_ok=True)
    frame_of(log).to_csv(folder / "interactions.csv", index=False)
    names = {item: f"shop {item}" for item in described}
    pd.DataFrame({"item_id": list(names), "name": list(names.values())}).to_csv(folder / "items.csv", index=False)
    split = "global_time" if by_time else "leave_last_out"
    try:
        dataset, split = prepare(folder, Config().replace(k_core=k_core, repeats=repeats, split=split))
    except ValueError:
        assume(False)
    account, visits = dataset.account, sorted(log, key=lambda visit: (visit[0], visit[2]))
    places = range(len(visits))
    repeated = {
        "keep": [],
        "drop_consecutive": [n for n in places if n and visits[n][:2] == visits[n - 1][:2]],
        "first_visits": [n for n in places if visits[n][:2] in [visit[:2] for visit in visits[:n]]],
    }
    assert account.loaded == len(log) and account.repeats == len(repeated[repeats])
    assert account.unknown == split.unknown
    assert account.loaded == account.repeats + account.core + account.unknown + len(dataset.items)
    assert account.core >= 0 and (account.core == 0 or k_core > 1 or by_time)
    assert account.users == len({visit[0] for visit in log}) - dataset.n_users
    assert account.items == len({visit[1] for visit in log}) - dataset.n_items
    assert account.single == sum(len(dataset.sequence(user)) == 1 for user in range(dataset.n_users))
    assert account.described == len(described & set(dataset.item_ids)) and account.unread is None
    assert [dataset.label(n) for n in range(dataset.n_items)] == [names.get(item, item) for item in dataset.item_ids]
    assert account.copies == len(log) - len(set(log))
    assert account.one_time == (len(log) > 1 and len({time for *_, time in log}) == 1)


def test_an_account_in_words(tmp_path):
    """It is said, and an items.csv of other items is warned of."""
    log = [(user, item, time) for user in "uvw" for time, item in enumerate("abcab")] + [("x", "z", 0), ("y", "a", 0)]
    frame_of(log).to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "items.csv").write_text("item_id,name\nA,Airport\n")
    with pytest.warns(UserWarning, match="describes none of its items; compare the item_id of both"):
        dataset, _ = prepare(tmp_path, Config().replace(k_core=1, repeats="first_visits"))
    assert str(dataset.account) == (
        "Of 17 interactions were left out: 6 repeats, 0 by the k-core and 0 with items unknown in training; 0 users "
        "and 0 items went. Users left with a single one, which has nothing to teach or test: 2. items.csv describes 0 "
        "of the items."
    )


def test_an_account_of_rounded_times_and_copied_rows(tmp_path):
    """As a spreadsheet leaves them: the order is the file's, and nothing is taken away."""
    log = [(user, item) for user in "uv" for item in "baca"]
    rows = "".join(f"{user},{item},1.6E+09\n" for user, item in log)
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    dataset, _ = prepare(tmp_path, Config().replace(k_core=1))
    assert dataset.item_ids[dataset.sequence(0)].tolist() == list("baca")
    assert str(dataset.account).endswith(
        " Interactions of the file that repeat another one's user, item and time: 2. All have the same timestamp, so "
        "that their order is that of the file."
    )
