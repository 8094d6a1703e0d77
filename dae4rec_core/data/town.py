"""A small town whose next-venue law is known, so that the best possible score is known too.

p(next = j | history, hour slot s, user) = eta * share_j + (1 - eta) * product_j, where
share_j is j's share of the user's earlier visits, and product_j is proportional to

    near[anchor, district_j] * follows[s, c1, category_j] * second[c2, category_j]
        * taste[persona, category_j] * popularity_j

c1, c2: categories of the last venue and of the one before it. anchor: the last venue's district,
or the home when s is morning. A first visit starts from home and has no share (eta counts as 0).
Two knobs make other towns: `again`, the weight of the same category once more (far below 1 in the bundled town, where
people who go on nearly always change the kind of venue; above 1 they stay with it), and `returns`, the mean of eta.
product_j depends on j through its cell (district, category) and popularity alone, so we draw the
category, the district, then the venue, and need no sum over venues.
"""

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

SLOTS = ["morning", "midday", "evening", "night"]  # six hours each, morning begins at 06:00 UTC
SLOT_SECONDS = 6 * 3600
FIRST_MORNING = 1_704_088_800  # 2024-01-01 06:00 UTC, in unix seconds
GAPS = np.array(
    [
        [0.70, 0.15, 0.05, 0.10],  # GAPS[s, g-1]: the next visit is g slots after s
        [0.70, 0.10, 0.15, 0.05],
        [0.50, 0.30, 0.15, 0.05],
        [0.60, 0.25, 0.10, 0.05],
    ]
)
SKIPPED_DAYS = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 5])  # whole days leave the slot as it is
ETAS = np.array([0.10, 0.25, 0.40])  # returning habit: share of visits that repeat an earlier one
RETURNS = 0.25  # their mean

CATEGORIES = ["cafe", "gym", "office", "bar", "museum", "park", "market", "cinema", "restaurant", "library"]
HOURS = np.array(
    [  # how a category suits a slot; columns are CATEGORIES
        [6.0, 4.0, 6.0, 0.1, 0.5, 3.0, 3.0, 0.1, 0.3, 1.0],
        [2.0, 0.5, 4.0, 0.2, 4.0, 3.0, 3.0, 0.3, 5.0, 4.0],
        [0.5, 4.0, 0.3, 4.0, 0.5, 1.0, 3.0, 4.0, 6.0, 2.0],
        [0.2, 0.5, 0.1, 9.0, 0.1, 0.3, 0.2, 6.0, 3.0, 0.1],
    ]
)
AFTER = {  # last category -> favoured next ones; others weigh 1
    "cafe": {"office": 8, "museum": 3},
    "gym": {"cafe": 8, "market": 3},
    "office": {"restaurant": 8, "gym": 3},
    "bar": {"cinema": 4, "cafe": 4},
    "museum": {"park": 8, "cafe": 3},
    "park": {"market": 6, "library": 4},
    "market": {"restaurant": 4, "cinema": 6},
    "cinema": {"bar": 8, "gym": 3},
    "restaurant": {"bar": 4, "library": 6},
    "library": {"museum": 6, "office": 4},
}
SECOND = {  # category before the last one -> what it still asks for, whatever came between
    "cafe": "library",
    "gym": "restaurant",
    "office": "bar",
    "bar": "park",
    "museum": "cinema",
    "park": "cafe",
    "market": "gym",
    "cinema": "market",
    "restaurant": "office",
    "library": "museum",
}
SECOND_WEIGHT = 20.0
AGAIN = 0.2  # weight of the same category once more, one or two visits later
PERSONAS = {  # tastes; categories not named weigh 1
    "early riser": {"gym": 4, "cafe": 4, "park": 2, "bar": 0.2},
    "night owl": {"bar": 5, "cinema": 4, "gym": 0.2, "office": 0.5},
    "bookworm": {"library": 6, "museum": 3, "cafe": 2, "gym": 0.3},
    "hard worker": {"office": 6, "gym": 2, "museum": 0.2, "park": 0.5},
    "gourmet": {"restaurant": 5, "market": 4, "bar": 2, "office": 0.3},
    "stroller": {"park": 6, "market": 2, "museum": 2, "cinema": 0.3},
    "culture lover": {"museum": 5, "cinema": 5, "library": 2, "market": 0.3},
}
REACH_KM = 0.9  # near falls to a quarter at this distance
POPULARITY_EXPONENT = 0.45  # popularity of the r-th most popular venue is r ** -exponent

ADJECTIVES = """Drowsy Jolly Crooked Gilded Hungry Whistling Velvet Humble Dizzy Copper Merry
Sleepy Wandering Grumpy Polite Floating Curious Patient Tipsy Thoughtful Singing Backward Lucky
Stubborn Midnight Bashful Rambling Honest Peculiar Cheerful""".split()
NOUNS = {
    "cafe": "Teapot Crumpet Saucer Bean",
    "gym": "Dumbbell Treadmill Kettlebell Headstand",
    "office": "Stapler Inkwell Paperclip Deadline",
    "bar": "Badger Barrel Olive Nightcap",
    "museum": "Fossil Teaspoon-Collection Mammoth Amphora",
    "park": "Duck Acorn Bench Hedgehog",
    "market": "Turnip Basket Cabbage Pumpkin",
    "cinema": "Projector Popcorn Intermission Matinee",
    "restaurant": "Ladle Dumpling Noodle Pretzel",
    "library": "Bookmark Footnote Comma Inkblot",
}
STREETS = """Mill Heron Copper Lantern Bramble Harbour Cobble Willow Orchard Tannery Foundry
Thistle Beacon Quarry Saddle Barley Otter Pebble Juniper Chimney""".split()
WAYS = """Row Quay Lane Square Hill Yard Steps Green Gate Wharf Court Bend Rise Market Terrace
Corner Bridge Alley Crescent Fields""".split()

History = tuple[np.ndarray, np.ndarray]  # venue indices (n,), unix seconds (n,), oldest first


def slot_of(timestamps: np.ndarray) -> np.ndarray:
    """Hour slot 0..3 (SLOTS) of unix seconds, of any shape."""
    return (np.asarray(timestamps) - FIRST_MORNING) // SLOT_SECONDS % 4


@dataclass(frozen=True)
class TownLaw:
    """The law of a town: V venues, K districts, C categories, P personas.

    centres (K, 2), xy (V, 2): km. district, category: (V,) codes. popularity: (V,), any scale.
    near: (K, K). follows: (4, C+1, C). second: (C+1, C). taste: (P, C). Row C of follows and
    second stands for "nothing yet". next_slot: (4, 4), rows sum to 1. etas: (E,), returning habits.
    """

    seed: int
    districts: list[str]
    centres: np.ndarray
    xy: np.ndarray
    district: np.ndarray
    category: np.ndarray
    popularity: np.ndarray
    near: np.ndarray
    follows: np.ndarray
    second: np.ndarray
    taste: np.ndarray
    next_slot: np.ndarray
    etas: np.ndarray

    @property
    def n_venues(self) -> int:
        return len(self.popularity)

    @property
    def item_ids(self) -> np.ndarray:
        """(V,) strings "v0001", ...; position i is venue index i."""
        return _ids("v", self.n_venues)

    def index_of(self, item_ids: Sequence[str] | np.ndarray | pd.Series) -> np.ndarray:
        """Venue indices of item ids. Raises ValueError for an id that the town lacks."""
        index = pd.Index(self.item_ids).get_indexer(np.asarray(item_ids, dtype=object))
        if (index < 0).any():
            unknown = str(np.asarray(item_ids)[index < 0][0])
            raise ValueError(f"Item {unknown!r} is no venue of this town; use ids like 'v0001'.")
        return index

    def cell_popularity(self) -> np.ndarray:
        """(K, C): summed popularity of each district's venues of each category."""
        cells = self.district * len(CATEGORIES) + self.category
        size = len(self.districts) * len(CATEGORIES)
        return np.bincount(cells, self.popularity, size).reshape(-1, len(CATEGORIES))

    def reach(self) -> np.ndarray:
        """(K, C): popularity of each category, weighed by nearness: the normaliser."""
        return self.near @ self.cell_popularity()

    def posterior(self, histories: Sequence[History]) -> np.ndarray:
        """(B, P, K, E) posterior of (persona, home, eta) given each history, by Bayes, exactly.

        The prior is uniform and slots do not depend on the user, so it is the normalised product
        of the visits' probabilities, the first visit's included. Raises as next_given_latents.
        """
        items, slots, length = self._pad(histories)
        reach = self.reach()  # (K, C)
        homes = np.arange(len(self.districts))
        log = np.zeros((len(items), len(self.taste), len(homes), len(self.etas)))
        for t in range(items.shape[1]):
            b = np.flatnonzero(t < length)
            j, s = items[b, t], slots[b, t]
            past = items[b, :t]
            weight = self._weights(s, past)  # (b, P, C)
            if t == 0:
                anchor = np.broadcast_to(homes, (len(b), len(homes)))  # (b, K), by home
                eta, share = np.zeros(len(self.etas)), np.zeros(len(b))
            else:
                last = self.district[past[:, -1]]
                anchor = np.where((s == 0)[:, None], homes, last[:, None])
                eta, share = self.etas, (past == j[:, None]).mean(1)
            total = np.einsum("bpc,bhc->bph", weight, reach[anchor])
            near = self.near[anchor, self.district[j][:, None]] * self.popularity[j][:, None]
            product = weight[np.arange(len(b)), :, self.category[j]][:, :, None] * near[:, None]
            product = (product / total)[..., None]  # (b, P, K, 1)
            log[b] += np.log(eta * share[:, None, None, None] + (1 - eta) * product)
        odds = np.exp(log - log.max(axis=(1, 2, 3), keepdims=True))
        return odds / odds.sum(axis=(1, 2, 3), keepdims=True)

    def next_given_history(self, histories: Sequence[History]) -> np.ndarray:
        """(B, V) p(next | history alone): the posterior mean of next_given_latents.

        The next visit's slot is integrated over. Memory is B * max(V, P*K*E) numbers, so call
        it with a few hundred histories at a time. Raises as next_given_latents.
        """
        return self._next(histories, self.posterior(histories))

    def next_given_latents(
        self, histories: Sequence[History], persona: ArrayLike, home: ArrayLike, eta: ArrayLike
    ) -> np.ndarray:
        """(B, V) p(next | history, persona, home, eta), the next visit's slot integrated over.

        histories: B pairs (venue indices, unix seconds). persona, home: (B,) codes.
        eta: (B,), each one of etas. Raises ValueError for an empty or ill-shaped history, a
        venue index outside 0..V-1, or a latent that the town lacks.
        """
        persona, home = np.asarray(persona), np.asarray(home)
        level = np.abs(np.asarray(eta)[:, None] - self.etas).argmin(1)
        shape = (len(histories), len(self.taste), len(self.districts), len(self.etas))
        if (
            not np.allclose(self.etas[level], eta)
            or (persona < 0).any()
            or (home < 0).any()
            or (persona >= shape[1]).any()
            or (home >= shape[2]).any()
        ):
            raise ValueError(
                f"A latent is not of this town; give personas 0..{shape[1] - 1}, "
                f"homes 0..{shape[2] - 1} and etas out of {self.etas.tolist()}."
            )
        certain = np.zeros(shape)
        certain[np.arange(shape[0]), persona, home, level] = 1
        return self._next(histories, certain)

    def _next(self, histories: Sequence[History], belief: np.ndarray) -> np.ndarray:
        """(B, V): the law averaged over belief (B, P, K, E) and over the next slot."""
        items, slots, length = self._pad(histories)
        rows = np.arange(len(items))
        last_slot = slots[rows, length - 1]
        before_last = np.where(length > 1, items[rows, length - 2], -1)
        past = np.stack([before_last, items[rows, length - 1]], axis=1)  # (B, 2)
        last = self.district[past[:, 1]]
        reach = self.reach()
        new = (belief * (1 - self.etas)).sum(-1)  # (B, P, K): p(persona, home, and not a return)
        cells = np.zeros((len(items), *reach.shape))  # (B, K, C): density of the product law per unit of popularity
        for s in range(4):
            slot = np.full(len(items), s)
            weight = self._weights(slot, past)  # (B, P, C)
            p_slot = self.next_slot[last_slot, s][:, None, None]
            if s == 0:  # in the morning one starts from home
                total = np.einsum("bpc,hc->bph", weight, reach)
                mixed = np.einsum("bph,bpc->bhc", new / total, weight)  # (B, K, C)
                cells = cells + p_slot * np.einsum("bhc,hk->bkc", mixed, self.near, optimize=True)
            else:
                total = np.einsum("bpc,bc->bp", weight, reach[last])
                mixed = np.einsum("bp,bpc->bc", new.sum(-1) / total, weight)  # (B, C)
                cells = cells + p_slot * self.near[last][:, :, None] * mixed[:, None]
        result = cells[:, self.district, self.category] * self.popularity
        returning = (belief.sum((1, 2)) @ self.etas) / length  # (B,) for each earlier visit
        owner, visit = np.nonzero(np.arange(items.shape[1]) < length[:, None])
        np.add.at(result, (owner, items[owner, visit]), returning[owner])
        return result

    def _weights(self, slot: np.ndarray, past: np.ndarray) -> np.ndarray:
        """(B, P, C) category part of the law; past (B, n): venue indices, -1 for nothing yet."""
        none = np.full(len(slot), len(CATEGORIES))
        known = np.append(self.category, len(CATEGORIES))  # so that index -1 means "nothing yet"
        c1 = known[past[:, -1]] if past.shape[1] > 0 else none
        c2 = known[past[:, -2]] if past.shape[1] > 1 else none
        return (self.follows[slot, c1] * self.second[c2])[:, None] * self.taste

    def _pad(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Histories as items (B, L), slots (B, L), length (B,), filled up on the right."""
        if len(histories) == 0:
            raise ValueError("No history was given; give a list of (items, timestamps) pairs.")
        for row, (items, timestamps) in enumerate(histories):
            if len(items) == 0 or len(items) != len(timestamps):
                raise ValueError(
                    f"History {row} has {len(items)} items and {len(timestamps)} timestamps; "
                    "give at least one, and as many of either."
                )
            if np.min(items) < 0 or np.max(items) >= self.n_venues:
                raise ValueError(
                    f"History {row} has a venue index outside 0..{self.n_venues - 1}; "
                    "get indices from law.index_of(item_ids)."
                )
        length = np.array([len(items) for items, _ in histories])
        padded = np.zeros((2, len(length), length.max()), dtype=np.int64)
        filled = np.arange(length.max()) < length[:, None]
        padded[0][filled] = np.concatenate([items for items, _ in histories])
        padded[1][filled] = slot_of(np.concatenate([times for _, times in histories]))
        return padded[0], padded[1], length


def make_law(n_venues: int, seed: int, again: float = AGAIN, returns: float = RETURNS) -> TownLaw:
    """The law of a town of n_venues (100..1,000,000); the same arguments give the same law.

    again: weight of the same category once more, above 0. returns: mean of the returning habits, 0 to 0.6.
    Raises ValueError for other sizes or knobs, or a negative seed.
    """
    _check("n_venues", n_venues, 100, 1_000_000)
    _check("seed", seed, 0, 2**32 - 1)
    if not 0 < again < np.inf:
        raise ValueError(f"again is {again!r}; give a number above 0.")
    if not 0 <= returns <= 0.6:
        raise ValueError(f"returns is {returns!r}; give a number from 0 to 0.6.")
    rng = np.random.default_rng([seed, 0])
    k, n = min(max(round(n_venues / 25), 4), 400), len(CATEGORIES)
    side = int(np.ceil(np.sqrt(k)))
    grid = np.stack(np.divmod(rng.permutation(side * side)[:k], side), axis=1)
    centres = (grid + 0.6 * rng.random((k, 2))).round(2)  # about one district a square km
    streets = [f"{street} {way}" for street in STREETS for way in WAYS]
    district, category = rng.integers(k, size=n_venues), rng.integers(n, size=n_venues)
    distance2 = ((centres[:, None] - centres) ** 2).sum(-1)
    after, second = np.ones((n + 1, n)), np.ones((n + 1, n))
    for c, name in enumerate(CATEGORIES):
        after[c, c] = second[c, c] = again
        second[c, CATEGORIES.index(SECOND[name])] = SECOND_WEIGHT
        for favoured, weight in AFTER[name].items():
            after[c, CATEGORIES.index(favoured)] = weight
    taste = [[likes.get(name, 1.0) for name in CATEGORIES] for likes in PERSONAS.values()]
    next_slot = np.stack([np.roll(GAPS[s], s + 1) for s in range(4)])
    return TownLaw(
        seed=seed,
        districts=[streets[i] for i in rng.permutation(len(streets))[:k]],
        centres=centres,
        xy=(centres[district] + 0.6 * rng.random((n_venues, 2)) - 0.3).round(2),
        district=district,
        category=category,
        popularity=(1.0 + rng.permutation(n_venues)) ** -POPULARITY_EXPONENT,
        near=1 / (1 + distance2 / REACH_KM**2) ** 2,
        follows=HOURS[:, None] * after,
        second=second,
        taste=np.array(taste),
        next_slot=next_slot,
        etas=(ETAS * (returns / RETURNS)).round(2),  # as users.csv.gz keeps them
    )


def draw_users(law: TownLaw, n_users: int, rng: np.random.Generator) -> pd.DataFrame:
    """user_id, persona (code), home (district code) and eta, each drawn uniformly.

    Raises ValueError when n_users < 1.
    """
    _check("n_users", n_users, 1, 100_000_000)
    return pd.DataFrame(
        {
            "user_id": _ids("u", n_users, width=5),
            "persona": rng.integers(len(law.taste), size=n_users),
            "home": rng.integers(len(law.districts), size=n_users),
            "eta": law.etas[rng.integers(len(law.etas), size=n_users)],
        }
    )


def simulate(law: TownLaw, users: pd.DataFrame, rng: np.random.Generator, chunk: int = 8192) -> pd.DataFrame:
    """Walk every user through town, 5 to 40 visits each; `chunk` users at a time bound memory.

    Returns user_id, item_id, timestamp (unix seconds), by user, then time.
    """
    n = len(CATEGORIES)
    cell_popularity = law.cell_popularity()
    reach = law.reach()
    to_district = np.cumsum(law.near[:, None] * cell_popularity.T, axis=2)  # (K, C, K)
    by_cell = np.argsort(law.district * n + law.category, kind="stable")
    popularity_sum = np.cumsum(law.popularity[by_cell])
    first = np.searchsorted((law.district * n + law.category)[by_cell], np.arange(len(law.districts) * n + 1))
    before = np.append(0, popularity_sum)[first]  # popularity of all earlier cells

    def draw(cumulative: np.ndarray) -> np.ndarray:
        mark = rng.random((len(cumulative), 1)) * cumulative[:, -1:]
        return (cumulative <= mark).sum(1)

    parts, item_ids = [], law.item_ids
    for start in range(0, len(users), chunk):
        group = users.iloc[start : start + chunk]
        persona, home, eta = (group[name].to_numpy() for name in ("persona", "home", "eta"))
        length = 5 + np.minimum(rng.geometric(1 / 8.2, len(group)) - 1, 35)
        items = np.full((len(group), length.max()), -1)
        clock = np.zeros_like(items)  # slots since the first morning
        clock[:, 0] = rng.integers(4 * 60, size=len(group))
        for t in range(length.max()):
            b = np.flatnonzero(t < length)
            if t > 0:
                gap = 1 + draw(np.cumsum(GAPS[clock[b, t - 1] % 4], axis=1))
                days = SKIPPED_DAYS[rng.integers(len(SKIPPED_DAYS), size=len(b))]
                clock[b, t] = clock[b, t - 1] + gap + 4 * days
            slot = clock[b, t] % 4
            from_home = (slot == 0) | (t == 0)
            anchor = np.where(from_home, home[b], law.district[items[b, t - 1]])
            weight = law._weights(slot, items[b, :t])[np.arange(len(b)), persona[b]]
            c = draw(np.cumsum(weight * reach[anchor], axis=1))
            cell = draw(to_district[anchor, c]) * n + c
            mark = before[cell] + rng.random(len(b)) * (before[cell + 1] - before[cell])
            place = np.searchsorted(popularity_sum, mark, side="right")
            new = by_cell[np.clip(place, first[cell], first[cell + 1] - 1)]
            again = items[b, (rng.random(len(b)) * t).astype(int)]
            items[b, t] = np.where(rng.random(len(b)) < eta[b] * (t > 0), again, new)
        owner, visit = np.nonzero(items >= 0)
        seconds = 60 * rng.integers(SLOT_SECONDS // 60, size=len(owner))  # whole minutes
        parts.append(
            pd.DataFrame(
                {
                    "user_id": group["user_id"].to_numpy()[owner],
                    "item_id": item_ids[items[owner, visit]],
                    "timestamp": FIRST_MORNING + SLOT_SECONDS * clock[owner, visit] + seconds,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def item_table(law: TownLaw) -> pd.DataFrame:
    """item_id, name (unique), category, district, x, y (km): one row a venue."""
    cells = pd.Series(law.district * len(CATEGORIES) + law.category)
    rank = cells.groupby(cells).cumcount().to_numpy()
    names = []
    for cell, nth in zip(cells, rank, strict=True):
        k, c = divmod(int(cell), len(CATEGORIES))
        nouns = NOUNS[CATEGORIES[c]].split()
        combinations = len(ADJECTIVES) * len(nouns)
        # 37 shares no factor with their number, so a cell's names differ until all are used up
        pick = (37 * int(nth) + 53 * k + 17 * c) % combinations
        number = "" if nth < combinations else f" No. {nth // combinations + 1}"
        adjective, noun = ADJECTIVES[pick // len(nouns)], nouns[pick % len(nouns)]
        names.append(f"The {adjective} {noun}{number}, {law.districts[k]}")
    return pd.DataFrame(
        {
            "item_id": law.item_ids,
            "name": names,
            "category": np.array(CATEGORIES)[law.category],
            "district": np.array(law.districts)[law.district],
            "x": law.xy[:, 0],
            "y": law.xy[:, 1],
        }
    )


def make_town(
    n_venues: int, n_users: int, seed: int, again: float = AGAIN, returns: float = RETURNS
) -> tuple[pd.DataFrame, pd.DataFrame, TownLaw]:
    """(interactions, items, law); see simulate, item_table, make_law. Raises as make_law."""
    interactions, items, _, law = _everything(n_venues, n_users, seed, again, returns)
    return interactions, items, law


def write_town(
    out_dir: str | Path,
    n_venues: int = 600,
    n_users: int = 5000,
    seed: int = 7,
    again: float = AGAIN,
    returns: float = RETURNS,
) -> None:
    """Write interactions.csv.gz, items.csv, users.csv.gz (latents) and town.json to out_dir.

    The same arguments write the same text. Raises as make_law.
    """
    interactions, items, users, law = _everything(n_venues, n_users, seed, again, returns)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in [("interactions.csv.gz", interactions), ("items.csv", items), ("users.csv.gz", users)]:
        data = frame.to_csv(index=False, lineterminator="\n", float_format="%.2f").encode()
        if name.endswith(".gz"):  # no file name and no time in the header
            packed = io.BytesIO()
            with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
                file.write(data)
            data = packed.getvalue()
        (out / name).write_bytes(data)
    about = {
        "n_venues": n_venues,
        "n_users": n_users,
        "seed": seed,
        "slots": SLOTS,
        "etas": law.etas.tolist(),
        "personas": list(PERSONAS),
        "districts": law.districts,
    }
    if (again, returns) != (AGAIN, RETURNS):
        about |= {"again": again, "returns": returns}
    (out / "town.json").write_bytes((json.dumps(about, indent=1) + "\n").encode())


def load_town_law(directory: str | Path) -> TownLaw:
    """Rebuild the law from a folder's town.json. Raises FileNotFoundError where there is none."""
    path = Path(directory) / "town.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; write a town there with write_town.")
    about = json.loads(path.read_text(encoding="utf-8"))
    return make_law(about["n_venues"], about["seed"], about.get("again", AGAIN), about.get("returns", RETURNS))


def town_ceiling(
    law: TownLaw, users: pd.DataFrame, interactions: pd.DataFrame, chunk: int = 256, exclude_seen: bool = False
) -> Iterator[tuple[np.ndarray, ...]]:
    """The true law for each user's last visit, `chunk` users at a time, in order of user_id.

    users: user_id, persona, home, eta. interactions: as make_town's; a user with one visit is
    left out. Yields (user_ids (B,), target (B,) venue indices, given_latents (B, V),
    given_history (B, V)). Raises ValueError for a user or an item that the town lacks.

    A history is what `interactions` holds: where a filter took visits out, these are scores of
    the law on the filtered history, which is not all that the law walked by. exclude_seen: the
    venues of the user's own history score -inf, as they must on first visits, where none of them
    can be the answer; without it the scores are probabilities and sum to 1.
    """
    ordered = interactions.sort_values(["user_id", "timestamp"], kind="stable")
    items, times = law.index_of(ordered["item_id"]), ordered["timestamp"].to_numpy()
    ids, starts = np.unique(ordered["user_id"].to_numpy(str), return_index=True)
    ends = np.append(starts[1:], len(items))
    kept = np.flatnonzero(ends - starts > 1)
    latents = users.set_index("user_id")
    strangers = np.setdiff1d(ids, users["user_id"].to_numpy(str))
    if len(strangers):
        name = str(strangers[0])
        raise ValueError(f"User {name!r} of interactions is missing in users; add the row.")
    for rows in (kept[i : i + chunk] for i in range(0, len(kept), chunk)):
        past = [slice(starts[row], ends[row] - 1) for row in rows]
        histories = [(items[span], times[span]) for span in past]
        own = latents.loc[ids[rows]]
        given_latents = law.next_given_latents(histories, own["persona"], own["home"], own["eta"])
        given_history = law.next_given_history(histories)
        if exclude_seen:
            owner = np.repeat(np.arange(len(rows)), [len(seen) for seen, _ in histories])
            seen = np.concatenate([seen for seen, _ in histories])
            given_latents[owner, seen] = given_history[owner, seen] = -np.inf
        yield ids[rows], items[ends[rows] - 1], given_latents, given_history


def _everything(
    n_venues: int, n_users: int, seed: int, again: float, returns: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, TownLaw]:
    """(interactions, items, users, law), the users' draws apart from the law's own."""
    law = make_law(n_venues, seed, again, returns)
    rng = np.random.default_rng([seed, 1])
    users = draw_users(law, n_users, rng)
    return simulate(law, users, rng), item_table(law), users, law


def _ids(letter: str, count: int, width: int = 4) -> np.ndarray:
    width = max(width, len(str(count)))
    return np.array([f"{letter}{i:0{width}d}" for i in range(1, count + 1)], dtype=object)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int | np.integer) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; give a whole number from {low} to {high}.")
