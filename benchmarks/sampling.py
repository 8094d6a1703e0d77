"""Recommending: users a second by S, with and without compensator, and how the time grows."""

from collections.abc import Sequence

import torch

from benchmarks.measure import seconds, slope
from dae4rec_core.config import PRESETS, Config, choose_device
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.model import DAE4Rec
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender

ITEMS, USERS, TIMESTEPS = 33_278, 1_000, 200
STEPS = (1, 2, 10, 50, TIMESTEPS // 2, TIMESTEPS)


def untrained(n_items: int, dim: int = 64, steps: Sequence[int] = STEPS) -> Recommender:
    """The time doesn't depend on what was learned."""
    torch.manual_seed(0)
    config, device = Config().replace(dim=dim, hidden=2 * dim, timesteps=TIMESTEPS, dropout=0.0), choose_device()
    recommender = Recommender(DAE4Rec(n_items, config).to(device), [str(i) for i in range(n_items)])
    for s in steps:
        recommender.compensators[s] = Compensator(config.model).to(device)
    return recommender


def histories(n_items: int, users: int) -> list[list[str]]:
    items = torch.randint(n_items, (users, 20), generator=torch.Generator().manual_seed(0))
    return [[str(i) for i in row] for row in items.tolist()]


def time_of(n_items: int = ITEMS, users: int = USERS, dim: int = 64, steps: int = 10, compensate: bool = True) -> float:
    """Seconds for ten recommendations to each user, from item ids to item ids."""
    recommender, known = untrained(n_items, dim, (steps,)), histories(n_items, users)
    return seconds(lambda: recommender.recommend_many(known, 10, steps, compensate))


def time_of_draws(preset: str, n_items: int = 10_000, draws: int = 1_000) -> float:
    """Seconds for the distribution over items after one history of 20, from so many draws at S = 10."""
    torch.manual_seed(0)
    model = make_model(n_items, PRESETS[preset].replace(neighbours=0.0)).to(choose_device())
    recommender, [known] = Recommender(model, [str(i) for i in range(n_items)]), histories(n_items, 1)
    return seconds(lambda: recommender.distribution(known, draws, 10))


def table() -> list[dict]:
    """Rows: what, setting, figure, unit."""
    rows: list[dict] = []

    def add(setting: str, what: str, figure: float, unit: str) -> None:
        rows.append({"part": "sampling", "setting": setting, "what": what, "figure": figure, "unit": unit})

    by_steps = {}
    for compensate in (False, True):
        how = "with compensator" if compensate else "without"
        for s in STEPS:
            taken = time_of(steps=s, compensate=compensate)
            by_steps[s, compensate] = taken
            add(f"S = {s}, {how}", f"{USERS:,} users over {ITEMS:,} items, d = 64", taken, "s")
            add(f"S = {s}, {how}", "users", USERS / taken, "1/s")
    add(
        "S",
        f"growth with S, {STEPS[2]} to {TIMESTEPS}",
        slope(STEPS[2:], [by_steps[s, True] for s in STEPS[2:]]),
        "exponent",
    )
    sizes = (8_000, 33_278, 133_112)
    add("|V|", "growth with items, S = 10", slope(sizes, [time_of(n_items=n) for n in sizes]), "exponent")
    users = (250, 1_000, 4_000)
    add("users", "growth with users, S = 10", slope(users, [time_of(users=u) for u in users]), "exponent")
    dims = (32, 64, 128, 256)
    add("d", "growth with d, S = 10", slope(dims, [time_of(dim=d) for d in dims]), "exponent")
    for preset in ("reference", "improved", "posterior"):
        add(f"{preset}, S = 10", "1,000 draws for one user over 10,000 items, d = 128", time_of_draws(preset), "s")
    return rows
