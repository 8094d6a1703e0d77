"""What the models look like inside: norms and spectrum of E, the error of f against t, what h decides, p(e^0 | h).

Writes results/understand.csv (model, what, x, value, rules), measured on validation histories of one data set. Models:
the reference configuration with delta = 0 and with its own delta, and the improved one.
"""

from pathlib import Path

import pandas as pd
import torch

from dae4rec_core.data.dataset import Examples, held_out, training_examples
from dae4rec_core.method.schedule import add_noise
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import stream
from dae4rec_core.training import fit
from results import grid

DATA, FILTER = "gowalla", "raw"
MODELS = {"delta = 0": ("reference", {"delta": 0.0}), "full": ("reference", {}), "improved": ("improved", {})}
USERS, NOISES = 2_000, 16

Rows = list[tuple[str, float, float]]  # what, x, value


def write(folder: Path) -> pd.DataFrame:
    """Train the three models with seed 0 and measure them."""
    dataset, split = grid.load(DATA, FILTER, folder)
    rows = []
    for name, (preset, changes) in MODELS.items():
        unit = grid.Unit("understand", DATA, FILTER, name, 0, preset, changes)
        config = grid.config_of(unit, dataset, split)
        recommender = fit(dataset, split, config, z_star=grid.z_star_of(dataset, split, config))
        examples = held_out(dataset, split, "validation", config, limit=USERS)
        trained_on = training_examples(dataset, split, config)
        trained_on = trained_on.select(slice(None, None, max(1, len(trained_on) // USERS)))
        found = measure(recommender, examples) + last_step(recommender, trained_on, examples)
        rows += [{"model": name, "what": what, "x": x, "value": value} for what, x, value in found]
    table = pd.DataFrame(rows).assign(rules=grid.RULES)
    table.to_csv(grid.FOLDER / "understand.csv", index=False, float_format="%.5g", encoding="utf-8")
    return table


@torch.no_grad()
def measure(recommender: Recommender, examples: Examples) -> Rows:
    """(what, x, value) of one model:

    norm: share x of the items have a shorter E. singular value: the x-th of E, over the first. error: of f at step x T,
    E||e^0 - f(e^t, t, h)||^2 over E||e^0 - mean||^2; 1 is what guessing the mean gives. decided by h: share of the
    variance of e^0 sampled in S = x steps that is between users rather than between noises. width: the root of what is
    left of ||e^0 - f(x_T, T, h)||^2, over the median distance of an item to its nearest neighbour.
    """
    model = recommender.model.eval()
    e = model.embedding.weight
    norms, singular = e.norm(dim=1).sort().values, torch.linalg.svdvals(e)
    found: Rows = [("norm", i / 20, norms[min(len(norms) - 1, i * len(norms) // 20)].item()) for i in range(21)]
    found += [("singular value", i + 1, (value / singular[0]).item()) for i, value in enumerate(singular)]

    generator = stream(0, "sampling")
    history, h = examples.history, model.condition(examples.history.to(model.device))
    e_0 = model.clean(examples.target.to(model.device))  # (B, d)
    spread = (e_0 - e_0.mean(0)).square().sum(1).mean()
    timesteps = model.config.diffusion.timesteps
    for t in sorted({max(1, round(timesteps * share / 20)) for share in range(21)}):
        steps = torch.full((len(e_0),), t, device=model.device)
        noise = torch.randn(e_0.shape, generator=generator).to(e_0)
        error = (e_0 - model.denoiser(add_noise(e_0, steps, noise, model.alpha_bar_float), steps, h)).square().sum(1)
        found.append(("error", t / timesteps, (error.mean() / spread).item()))

    for s in (s for s in (1, 2, 5, 10, 20, 50) if s <= timesteps):
        samples = torch.stack(
            [recommender.generate(history, s, compensate=False, generator=generator) for _ in range(NOISES)]
        )  # (NOISES, B, d)
        within = samples.var(0).sum(1).mean()
        total = samples.flatten(0, 1).var(0).sum()
        found.append(("decided by h", s, (1 - within / total).item()))

    x_T = torch.randn(e_0.shape, generator=generator).to(e_0)
    mean = model.denoiser(x_T, torch.full((1,), timesteps, device=model.device), h)
    items = model.clean(torch.arange(model.n_items, device=model.device))  # (|V|, d)
    nearest = torch.cdist(items, items).fill_diagonal_(torch.inf).amin(1).median()
    found.append(("width", 0, ((e_0 - mean).square().sum(1).mean().sqrt() / nearest).item()))
    return found


@torch.no_grad()
def last_step(recommender: Recommender, trained_on: Examples, examples: Examples) -> Rows:
    """Squared error of the sampled e^0 over the variance of e^0, on training histories (x = 0) and on others (x = 1).

    The compensator learns from e^{tau_1} of training users, whose answers f has learnt; the gap between the two is what
    it can't see.
    """
    found: Rows = []
    for x, chosen in enumerate((trained_on, examples)):
        e_0 = recommender.model.clean(chosen.target.to(recommender.model.device))
        spread = (e_0 - e_0.mean(0)).square().sum(1).mean()
        for what, compensate in (("last step", False), ("last step, compensated", True)):
            sampled = recommender.generate(chosen.history, grid.S, compensate, generator=stream(0, "sampling"))
            found.append((what, float(x), ((e_0 - sampled).square().sum(1).mean() / spread).item()))
    return found
