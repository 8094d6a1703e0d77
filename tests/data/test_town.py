"""The simulated town: same bytes every time, a law that sums to one, an exact posterior."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dae4rec_core.data import town

BUNDLED = Path(__file__).parents[2] / "data" / "town"


def read(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.fixture(scope="module", params=[{}, {"again": 6.0, "returns": 0.5}], ids=["bundled knobs", "other knobs"])
def small(request):
    """A town of 100 venues with its users and walks."""
    law = town.make_law(100, seed=3, **request.param)
    rng = np.random.default_rng(11)
    users = town.draw_users(law, 8000, rng)
    return law, users, town.simulate(law, users, rng)


def some_histories(law, users, interactions, count):
    grouped = interactions.groupby("user_id")
    for user in users["user_id"].iloc[:count]:
        visits = grouped.get_group(user)
        yield law.index_of(visits["item_id"]), visits["timestamp"].to_numpy()


def test_bundled_town_is_regenerated_byte_for_byte(tmp_path):
    town.write_town(tmp_path)
    names = ["interactions.csv.gz", "items.csv", "town.json", "users.csv.gz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert read(tmp_path / name) == read(BUNDLED / name), name
    assert sum((BUNDLED / name).stat().st_size for name in names) < 1_000_000


def test_headers_of_packed_files_hold_no_time_and_no_name(tmp_path):
    town.write_town(tmp_path, 100, 20, seed=1)
    header = (tmp_path / "users.csv.gz").read_bytes()[:8]
    assert header[3] == 0 and header[4:8] == bytes(4)


def test_files_and_law_agree():
    law = town.load_town_law(BUNDLED)
    items = pd.read_csv(BUNDLED / "items.csv")
    assert items["name"].is_unique and list(items["item_id"]) == list(law.item_ids)
    assert (np.array(town.CATEGORIES)[law.category] == items["category"]).all()
    assert (np.array(law.districts)[law.district] == items["district"]).all()
    np.testing.assert_array_equal(law.xy, items[["x", "y"]])


@pytest.mark.parametrize(("venues", "users", "seed"), [(100, 1, 0), (100, 1, 10), (237, 60, 5), (30_000, 40, 2)])
def test_sizes_are_arguments(venues, users, seed):
    interactions, items, law = town.make_town(venues, users, seed)
    assert len(items) == law.n_venues == venues and items["name"].is_unique
    by_user = interactions.groupby("user_id")
    assert by_user.ngroups == users and by_user.size().between(5, 40).all()
    assert (by_user["timestamp"].diff().dropna() > 0).all()
    assert interactions["item_id"].isin(items["item_id"]).all()


def test_names_that_are_used_up_are_numbered():
    """300 cafes in one district, for which there are 120 names."""
    law = town.make_law(300, seed=1)
    names = town.item_table(replace(law, district=0 * law.district, category=0 * law.category))["name"]
    assert names.is_unique and names.str.extract(r" (No\. .*),")[0].value_counts(dropna=False).to_dict() == {
        np.nan: 120,
        "No. 2": 120,
        "No. 3": 60,
    }


def test_users_walk_in_groups_as_they_walk_at_once(small):
    """In groups of 7: everybody once, in order, 5 to 40 visits each, and rows numbered through."""
    law, users, _ = small
    walks = town.simulate(law, users.iloc[:50], np.random.default_rng(0), chunk=7)
    assert walks["user_id"].unique().tolist() == users["user_id"].tolist()[:50]
    assert walks.groupby("user_id").size().between(5, 40).all()
    assert walks.index.tolist() == list(range(len(walks)))


@pytest.mark.slow
def test_a_million_venues():
    law = town.make_law(1_000_000, seed=1)
    rng = np.random.default_rng(0)
    users = town.draw_users(law, 30, rng)
    walks = town.simulate(law, users, rng)
    assert walks["user_id"].nunique() == 30
    visits = walks[walks["user_id"] == "u00001"]
    history = (law.index_of(visits["item_id"]), visits["timestamp"].to_numpy())
    assert law.next_given_history([history]).sum() == pytest.approx(1, abs=1e-9)


def test_law_sums_to_one_for_histories_of_any_length(small):
    law, users, interactions = small
    full = list(some_histories(law, users, interactions, 40))
    histories = [(i[:n], t[:n]) for i, t in full for n in (1, 2, len(i))]
    latents = users.iloc[:40].loc[np.repeat(np.arange(40), 3)]
    own = (latents[name] for name in ("persona", "home", "eta"))
    given_latents = law.next_given_latents(histories, *own)
    given_history = law.next_given_history(histories)
    for probabilities in (given_latents, given_history):
        assert (probabilities > 0).all()
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(law.posterior(histories).sum((1, 2, 3)), 1, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_simulated_last_visits_follow_the_law(small):
    """Observed minus expected counts of last visits in three groupings: chi-square, z < 4."""
    law, users, interactions = small
    latents = users.set_index("user_id")
    items, times = law.index_of(interactions["item_id"]), interactions["timestamp"].to_numpy()
    shapes = {
        "venue": (100,),
        "second order and return": (10, 10, 2),
        "last slot, last district, home, next district": (4, 4, 4, 4),
    }
    observed = {name: np.zeros(shape) for name, shape in shapes.items()}
    expected = {(name, k): np.zeros(shape) for name, shape in shapes.items() for k in (0, 1)}
    variance = {key: np.zeros_like(value) for key, value in expected.items()}
    lengths = interactions.groupby("user_id").size()
    ends = lengths.cumsum()
    for ids, target, *laws in town.town_ceiling(law, users, interactions):
        for b, user in enumerate(ids):
            end = ends[user] - 1
            past = items[end + 1 - lengths[user] : end]
            slot, home = town.slot_of(times[end - 1]), latents.at[user, "home"]
            seen = np.isin(np.arange(100), past).astype(int)
            groups = {
                "venue": (np.arange(100),),
                "second order and return": (law.category[past[-2]], law.category, seen),
                "last slot, last district, home, next district": (slot, law.district[past[-1]], home, law.district),
            }
            for name, group in groups.items():
                cells = np.ravel_multi_index(np.broadcast_arrays(*group), shapes[name])
                observed[name].flat[cells[target[b]]] += 1
                kinds, member = np.unique(cells, return_inverse=True)
                for k, given in enumerate(laws):
                    p = np.bincount(member, given[b])
                    expected[name, k].flat[kinds] += p
                    variance[name, k].flat[kinds] += p * (1 - p)
    for (name, k), mean in expected.items():
        filled = mean > 5
        error = (observed[name] - mean)[filled]
        chi2, n = (error**2 / variance[name, k][filled]).sum(), filled.sum()
        assert n >= 90 and abs(chi2 - n) / np.sqrt(2 * n) < 4, (name, k, chi2, n)


def by_hand(law, past, slot, persona, home, eta):
    """(V,) the law of the module's first docstring, written out venue by venue."""
    weights = np.empty(law.n_venues)
    anchor = home if slot == 0 or not past else law.district[past[-1]]
    for j in range(law.n_venues):
        c = law.category[j]
        c1 = law.category[past[-1]] if past else -1
        c2 = law.category[past[-2]] if len(past) > 1 else -1
        weights[j] = (
            law.near[anchor, law.district[j]]
            * law.follows[slot, c1, c]
            * law.second[c2, c]
            * law.taste[persona, c]
            * law.popularity[j]
        )
    result = weights / weights.sum()
    if past:
        share = np.bincount(past, minlength=law.n_venues) / len(past)
        result = eta * share + (1 - eta) * result
    return result


def test_posterior_and_next_agree_with_brute_force(small):
    law, users, interactions = small
    items, times = next(some_histories(law, users, interactions, 1))
    items, times = np.append(items[:4], items[1]), times[:5]  # with a return
    slots = town.slot_of(times)
    posterior = np.zeros((len(law.taste), len(law.districts), len(law.etas)))
    answer = np.zeros(law.n_venues)
    for z in np.ndindex(posterior.shape):
        latent = (z[0], z[1], law.etas[z[2]])
        posterior[z] = np.prod([by_hand(law, list(items[:t]), slots[t], *latent)[items[t]] for t in range(len(items))])
        own = sum(law.next_slot[slots[-1], s] * by_hand(law, list(items), s, *latent) for s in range(4))
        given = law.next_given_latents([(items, times)], [z[0]], [z[1]], [latent[2]])[0]
        np.testing.assert_allclose(given, own, rtol=1e-10)
        answer += posterior[z] * own
    answer /= posterior.sum()
    posterior /= posterior.sum()
    np.testing.assert_allclose(law.posterior([(items, times)])[0], posterior, rtol=1e-10)
    np.testing.assert_allclose(law.next_given_history([(items, times)])[0], answer, rtol=1e-10)


def test_the_posterior_of_a_long_history_is_no_division_of_nothing_by_nothing(small):
    """600 visits, the same ones again and again, whose probability is below what float64 can hold."""
    law, users, interactions = small
    items, times = next(some_histories(law, users, interactions, 1))
    long = law.posterior([(np.tile(items, 600 // len(items)), np.tile(times, 600 // len(items)))])
    assert np.isfinite(long).all() and long.sum() == pytest.approx(1)
    assert long.max() > law.posterior([(items, times)]).max()


def test_the_ceiling_leaves_out_what_was_seen(small):
    """On first visits: the law on the filtered history, by hand, ranked among the venues that are not in it."""
    law, users, interactions = small
    first = interactions[interactions["user_id"] < "u00061"].drop_duplicates(["user_id", "item_id"])
    latents = users.set_index("user_id")
    plain, found = (
        {row[0]: row[1:] for part in town.town_ceiling(law, users, first, 25, seen) for row in zip(*part, strict=True)}
        for seen in (False, True)
    )
    assert list(plain) == list(found) and len(found) > 50
    users_of_parts = [part[0].tolist() for part in town.town_ceiling(law, users, first, 25)]
    assert sum(users_of_parts, []) == list(found) and [len(part) for part in users_of_parts[:-1]] == [25, 25]
    for user, (target, *scores) in found.items():
        visits = first[first["user_id"] == user]
        items, times = law.index_of(visits["item_id"]), visits["timestamp"].to_numpy()
        assert target == plain[user][0] == items[-1]
        past, unseen = list(items[:-1]), np.setdiff1d(np.arange(law.n_venues), items[:-1])
        latent = [latents.at[user, name] for name in ("persona", "home", "eta")]
        slot = town.slot_of(times[-2])
        by_slot = [law.next_slot[slot, s] * by_hand(law, past, s, *latent) for s in range(4)]
        given_history = law.next_given_history([(items[:-1], times[:-1])])[0]
        for expected, without, scored in zip((sum(by_slot), given_history), plain[user][1:], scores, strict=True):
            np.testing.assert_allclose(scored[unseen], expected[unseen], rtol=1e-9)
            assert (scored[past] == -np.inf).all() and np.isfinite(scored[target])
            np.testing.assert_allclose(without, expected, rtol=1e-9)


def test_slots_follow_their_table(small):
    law, _, interactions = small
    slot = town.slot_of(interactions["timestamp"])
    same = interactions["user_id"].to_numpy()[1:] == interactions["user_id"].to_numpy()[:-1]
    seen = np.zeros((4, 4))
    np.add.at(seen, (slot[:-1][same], slot[1:][same]), 1)
    np.testing.assert_allclose(seen / seen.sum(1, keepdims=True), law.next_slot, atol=0.015)
    assert town.slot_of(np.array([1_704_088_800 + 6 * 3600 - 1]))[0] == 0  # 11:59:59 is morning


def test_the_knobs_do_what_they_say(tmp_path):
    """Same category next and returns, in towns that differ in one knob; the folder brings its own law back."""

    def shares(**knobs):
        interactions, items, law = town.make_town(100, 3000, seed=3, **knobs)
        visits, users = law.index_of(interactions["item_id"]), interactions["user_id"].to_numpy()
        follows = users[1:] == users[:-1]
        same = law.category[visits[1:]] == law.category[visits[:-1]]
        return same[follows].mean(), interactions.duplicated(["user_id", "item_id"]).mean()

    usual, alike, away = shares(), shares(again=6.0), shares(returns=0.0)
    assert alike[0] > 3 * usual[0] and alike[0] > 0.3
    assert away[1] < 0.5 * usual[1]
    town.write_town(tmp_path, 100, 20, seed=3, again=6.0, returns=0.33)
    law, again = town.make_law(100, 3, 6.0, 0.33), town.load_town_law(tmp_path)
    for name in ("follows", "second", "etas"):
        np.testing.assert_array_equal(getattr(law, name), getattr(again, name))
    assert set(pd.read_csv(tmp_path / "users.csv.gz")["eta"]) <= set(law.etas)


@pytest.mark.parametrize("knobs", [{"again": 0.0}, {"again": np.nan}, {"returns": 0.7}, {"returns": -0.1}])
def test_impossible_knobs_are_refused_in_one_sentence(knobs):
    with pytest.raises(ValueError, match=r"^(again|returns) is .*; give a number .*\.$"):
        town.make_law(100, 7, **knobs)


@pytest.mark.parametrize("arguments", [(99, 10, 7), (1_000_001, 10, 7), (600, 0, 7), (600, 10, -1), (600.5, 10, 7)])
def test_bad_sizes_are_refused_in_one_sentence(arguments, tmp_path):
    with pytest.raises(ValueError, match=r"^(n_venues|n_users|seed) is .*; give .*\.$"):
        town.write_town(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_bad_histories_latents_and_ids_are_refused(small, tmp_path):
    law, users, interactions = small
    now = np.array([town.FIRST_MORNING])
    good = [(np.array([5]), now)]
    for bad in (
        [],
        [(np.array([], int), now[:0])],
        [(np.array([1, 2]), now)],
        [(np.array([100]), now)],
        [(np.array([-1]), now)],
    ):
        with pytest.raises(ValueError, match="give|index"):
            law.next_given_history(bad)
    eta = law.etas[0]
    for latent in ([7], [0], [eta]), ([0], [4], [eta]), ([0], [0], [eta + 0.05]):
        with pytest.raises(ValueError, match="latent"):
            law.next_given_latents(good, *latent)
    with pytest.raises(ValueError, match="'v9999' is no venue"):
        law.index_of(["v0001", "v9999"])
    with pytest.raises(ValueError, match="'u00001' of interactions is missing"):
        next(town.town_ceiling(law, users.iloc[1:], interactions))
    with pytest.raises(FileNotFoundError, match="write_town"):
        town.load_town_law(tmp_path)
