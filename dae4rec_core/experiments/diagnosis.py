"""What a data set is like before anything is trained on it, each finding in one plain sentence.

Sizes, times, duplicates, returns, homophily, density, what could leak, what counting alone reaches, what to try first,
and what a training would cost here. Everything but the last is a property of the data; test answers are counted, never
ranked.
"""

import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch

from dae4rec_core.config import PRESETS, Config, choose_device
from dae4rec_core.data.dataset import Dataset, Split, held_out, prepare, training_examples, training_graph
from dae4rec_core.data.files import COLUMNS, load_interactions
from dae4rec_core.data.properties import properties
from dae4rec_core.experiments import maps
from dae4rec_core.experiments.baselines import baselines
from dae4rec_core.memory import training_bytes
from dae4rec_core.method.gae import pretrain_gae
from dae4rec_core.method.graph import ItemGraph, steps_of
from dae4rec_core.method.losses import total_loss
from dae4rec_core.method.variants import make_model
from dae4rec_core.ranking import evaluate
from dae4rec_core.streams import stream
from dae4rec_core.training import aime_target, batch_of, l_aime_of

ASKED = 2_000  # validation users that the baselines are asked about
CELLS = 2**26  # scores that a baseline may hold at once: half a GB in float64
GROUPS = (2, 200)  # an attribute with so many different values counts as a category, if it puts two items in each
TIMED_STEPS = 4  # of pretraining, after one that warms up, and of training, whose first one warms up
DAY = 86_400

# From where on a number of the data changes the advice. STRONG and DENSE rest on results/: where the best rule reached
# 30% on a real set, improved was ahead of it by 6% to 22%; of the two data sets on which similarity="counts" was tried,
# the one with 12.6% of the pairs of items joined gained, the one with 0.7% did not.
STRONG = 0.3  # HR@10 of a rule of counting
DENSE = 0.05  # share of the pairs of items that are joined
OFTEN = 0.1  # share of returns
LATE = 0.1  # share of the training interactions after the median test answer
FEW = 1_000  # training examples
OFF_THE_MAP = 1.5  # standard deviations of the towns to the nearest one; from a town to the next it is at most 1.1


class Finding(NamedTuple):
    """One line of the diagnosis: a name for machines, the value, and the sentence for people."""

    name: str
    value: float | str
    sentence: str


def diagnose(path: str | Path, config: Config, device: str | torch.device = "auto") -> list[Finding]:
    """All findings on a file or folder of interactions, as `prepare` reads it with this configuration.

    Raises FileNotFoundError or ValueError, in one sentence, as `prepare` does.
    """
    place = choose_device(device)
    frame, dataset, split, graph = read(path, config)
    found = [
        *as_loaded(frame),
        *after_filter(frame, dataset, config),
        *structure(dataset, split, of_visits(frame)),
        *leaks(dataset, split, config),
        *counting(dataset, split, config),
    ]
    facts = {finding.name: finding.value for finding in found}
    return [*found, *on_the_map(facts), *advice(facts, config), *costs(dataset, split, graph, config, place)]


def read(path: str | Path, config: Config) -> tuple[pd.DataFrame, Dataset, Split, ItemGraph]:
    """The interactions as they stand in the file, as `prepare` reads them, and the graph of their training part.

    Raises FileNotFoundError or ValueError, in one sentence that names the file, when there is nothing to diagnose.
    """
    frame, _ = load_interactions(path)
    if frame["user_id"].nunique() == 1:
        raise ValueError(
            f"{path} holds interactions of one user only ({frame['user_id'].iloc[0]}); "
            "add those of others, from whom there is something to learn."
        )
    try:
        dataset, split = prepare(path, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    graph = training_graph(dataset, split)
    if len(graph.edges) == 0:
        raise ValueError(
            f"{path} has no user with two different items one after the other in training (after the "
            f"{config.data.k_core}-core filter: users: {dataset.n_users:,}, items: {dataset.n_items:,}); "
            "give longer histories or lower k_core."
        )
    return frame, dataset, split, graph


def as_loaded(frame: pd.DataFrame) -> list[Finding]:
    """Sizes, times and duplicates of the interactions as they stand in the file."""
    rows, users, items = len(frame), frame["user_id"].nunique(), frame["item_id"].nunique()
    found = [
        Finding("rows", rows, f"The file holds {rows:,} interactions of {users:,} users with {items:,} items."),
    ]
    moments, unit = in_seconds(frame["timestamp"])
    ordered = frame.assign(timestamp=moments).sort_values(["user_id", "timestamp"], kind="stable")
    gaps = ordered.groupby("user_id")["timestamp"].diff().dropna()
    if moments.max() < DAY:
        found.append(
            Finding("timestamps", "positions", "The timestamps look like positions in a sequence, not like moments.")
        )
    elif len(gaps):
        days, span = gaps.median() / DAY, (moments.max() - moments.min()) / DAY
        found.append(
            Finding(
                "median gap in days",
                float(days),
                f"It spans {span:,.0f} days{unit}; half of the gaps between a user's visits are below {days:.2g} days.",
            )
        )
    ties = float((gaps == 0).mean()) if len(gaps) else 0.0
    found.append(
        Finding(
            "ties",
            ties,
            f"{ties:.1%} of a user's next interactions have the same timestamp as the one before; there the file's "
            "order decides.",
        )
    )
    doubled = float(frame.duplicated(["user_id", "item_id", "timestamp"]).mean())
    found.append(
        Finding("duplicates", doubled, f"{doubled:.1%} of the rows repeat another with the same user, item and time.")
    )
    return found


def in_seconds(timestamps: pd.Series) -> tuple[pd.Series, str]:
    """Times as the file has them, in seconds, and what they were taken for where that is something else."""
    if timestamps.between(19_000_101, 21_001_231).all():
        days = pd.to_datetime(timestamps.astype("int64").astype(str), format="%Y%m%d", errors="coerce")
        if days.notna().all():
            return (days - pd.Timestamp(0)).dt.total_seconds(), " (its timestamps read as dates, YYYYMMDD)"
    for least, name in ((1e17, "nanoseconds"), (1e14, "microseconds"), (1e11, "milliseconds")):
        if timestamps.min() >= least:  # as seconds they would lie past the year 5138
            return timestamps / (least / 1e8), f" (its timestamps read as {name})"
    return timestamps, ""


def after_filter(frame: pd.DataFrame, dataset: Dataset, config: Config) -> list[Finding]:
    """What the k-core and the rule for repeats leave."""
    kept = len(dataset.items) / len(frame)
    return [
        Finding(
            "kept",
            kept,
            f"After the {config.data.k_core}-core filter (repeats: {config.data.repeats}) {kept:.1%} of the "
            f"interactions are left: {len(dataset.items):,} of {dataset.n_users:,} users with {dataset.n_items:,} "
            "items.",
        )
    ]


def of_visits(frame: pd.DataFrame) -> set[str]:
    """Columns of interactions that say nothing of an item: it has several values of them, or lists."""

    def of_items(column: str) -> bool:
        try:
            return bool(frame.groupby("item_id")[column].nunique().max() <= 1)
        except TypeError:  # what can't be hashed
            return False

    return {column for column in frame.columns if column not in COLUMNS and not of_items(column)}


def structure(dataset: Dataset, split: Split, of_visits: Collection[str] = ()) -> list[Finding]:
    """`properties`, and how often a step to another item stays within its kind.

    of_visits: columns of Dataset.attributes that are no kinds of items.
    """
    facts, examples = properties(dataset, split), len(split.training_targets(dataset))
    found = [
        Finding(
            "history length",
            facts["history length"],
            f"A user has {facts['history length']:.1f} training interactions on average.",
        ),
        Finding(
            "interactions per item",
            facts["interactions per item"],
            f"An item has {facts['interactions per item']:.1f} training interactions on average.",
        ),
        Finding("training examples", examples, f"A training has {examples:,} next items to learn from."),
        Finding(
            "returns",
            facts["returns"],
            f"{facts['returns']:.1%} of the next items to learn from are items that the user had met before.",
        ),
        Finding(
            "self-transitions",
            facts["self-transitions"],
            f"{facts['self-transitions']:.1%} of the steps go from an item to itself.",
        ),
        Finding(
            "density",
            facts["density"],
            f"{facts['density']:.2%} of the pairs of items are neighbours in the transition graph.",
        ),
        Finding(
            "negative eigenvalues",
            facts["negative eigenvalues"],
            "Of the 64 largest eigenvalues, by size, of the normalised counts of steps "
            f"{facts['negative eigenvalues']:.0%} are negative (about half where steps don't look at kinds of items, "
            "fewer where they stay with one).",
        ),
        Finding(
            "asymmetry",
            facts["asymmetry"],
            f"The steps between two items prefer one direction by {facts['asymmetry']:.2f} (0: as a fair coin would, "
            "1: never both ways, below 0: there and straight back).",
        ),
    ]
    steps = steps_of([s for s in split.training_sequences(dataset) if len(s)], 1)
    steps = steps[steps[:, 0] != steps[:, 1]]
    for name, values in dataset.attributes.drop(columns=list(of_visits), errors="ignore").items():
        codes, kinds = pd.factorize(values)
        if not GROUPS[0] <= len(kinds) <= min(GROUPS[1], dataset.n_items / 2):
            continue
        known = (codes[steps] >= 0).all(1)
        if not known.any():
            continue
        left, right = codes[steps[known]].T
        same = float((left == right).mean())
        shares = (
            np.bincount(left, minlength=len(kinds)) / len(left),
            np.bincount(right, minlength=len(kinds)) / len(left),
        )
        chance = float(shares[0] @ shares[1])
        found.append(
            Finding(
                f"same {name}",
                same,
                f"{same:.1%} of the steps to another item stay within the same {name}; by chance it would be "
                f"{chance:.1%}.",
            )
        )
    return found


def leaks(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """What a test could know that a system in use would not."""
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    training = np.arange(len(dataset.items)) < split.train_end[owner]
    moment = float(np.median(dataset.timestamps[split.test]))
    later = float((dataset.timestamps[training] > moment).mean())
    repeated = float((dataset.items[split.test] == dataset.items[split.test - 1]).mean())
    whole = pd.Series([tuple(dataset.sequence(user)) for user in range(dataset.n_users)])
    twins = float(whole.duplicated(keep=False).mean())
    return [
        Finding(
            "training after the test",
            later,
            f"{later:.1%} of the training interactions happened after the median test answer (split: "
            f"{config.data.split}).",
        ),
        Finding(
            "answer repeats the last item",
            repeated,
            f"{repeated:.1%} of the test answers are the very item before them, which a rule of one line finds.",
        ),
        Finding("twins", twins, f"{twins:.1%} of the users share their whole sequence with another user."),
    ]


def counting(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """HR@10 of the baselines on validation: what a model has to beat."""
    examples = held_out(dataset, split, "validation", config, limit=ASKED)
    batch = max(1, min(1024, CELLS // dataset.n_items))
    reached = {name: evaluate(scorer, examples, batch)["HR@10"] for name, scorer in baselines(dataset, split).items()}
    best = max(reached, key=reached.__getitem__)
    listed = ", ".join(f"{name} {value:.1%}" for name, value in reached.items())
    return [
        *(Finding(f"HR@10 of {name}", value, "") for name, value in reached.items()),
        Finding(
            "best counting",
            best,
            f"Of the rules that count, {best} is best here, with a validation HR@10 of {reached[best]:.1%} "
            f"({listed}; {len(examples):,} users); item-kNN, which needs another library, is not among them.",
        ),
    ]


def on_the_map(facts: dict[str, float | str]) -> list[Finding]:
    """The nearest of the towns that `experiments.maps` compares methods on, and what was measured there.

    facts: the values of the findings so far, by name.
    """
    here = pd.DataFrame([{name: float(facts[name]) for name in maps.CAUSES}])
    lookup = maps.Lookup(maps.towns_of(maps.measured()))
    [towns], [far], guess = lookup.neighbours(here), lookup.distance(here), lookup.predict(here).iloc[0]
    nearest = towns.iloc[0]
    ratio, against = 2 ** guess["improved over counting"], 2 ** guess["improved over SASRec"]
    warning = (
        "" if far <= OFF_THE_MAP else f" That is far ({far:.1f} standard deviations of the towns): trust it little."
    )
    reached = float(facts[f"HR@10 of {facts['best counting']}"])
    bound = f" Not here: counting reaches {reached:.1%}, and no list more than 100%." if ratio * reached > 1 else ""
    return [
        Finding(
            "nearest town",
            f"again {nearest['again']:g}, returns {nearest['returns knob']:g}, {nearest['users']:g} people",
            f"Of the towns with knobs (notebook 10) these data are nearest to the one with returns "
            f"{nearest['returns']:.0%}, negative eigenvalues {nearest['negative eigenvalues']:.0%} and "
            f"{nearest['interactions per item']:.0f} interactions an item.{warning}",
        ),
        Finding(
            "expected over counting",
            ratio,
            f"There, and in the town that is next nearest, improved reached {ratio:.2f} times the HR@10 of the best of "
            f"five rules of counting and {against:.2f} times that of SASRec.{bound}",
        ),
    ]


def advice(facts: dict[str, float | str], config: Config) -> list[Finding]:
    """Which preset to try first and why, and what else these data ask for.

    facts: the values of the findings so far, by name. What is said of the presets was measured, see results/table.md
    and results/similarity.csv.
    """
    best = facts["best counting"]
    reached, returns, density, later, examples = (
        float(facts[name])
        for name in (f"HR@10 of {best}", "returns", "density", "training after the test", "training examples")
    )
    why = (
        f"it learns what a return is worth, and {returns:.1%} of the next items to learn from are returns here"
        if returns >= OFTEN
        else f"its ranking term asks which item comes next, also where only {returns:.1%} of them are returns, as here"
    )
    found = [
        Finding(
            "preset",
            "improved",
            f"Try the preset improved first: it was ahead of reference on every real data set of results/; {why}.",
        )
    ]
    if density >= DENSE:
        found.append(
            Finding(
                "similarity",
                "counts",
                f"To study the paper's method take reference (letter is the paper as printed), also with --similarity "
                f"counts: {density:.1%} of the pairs of items are joined here, and on the town, with 12.6%, it lifted "
                "validation HR@10 from 23.7% to 29.3%.",
            )
        )
    else:
        found.append(
            Finding(
                "similarity",
                "graph",
                f"To study the paper's method take reference (letter is the paper as printed); with {density:.2%} of "
                "the pairs of items joined, expect little of --similarity counts, which changed nothing on gowalla's "
                "first visits, with 0.7%.",
            )
        )
    if reached >= STRONG:
        found.append(
            Finding(
                "strong counting",
                reached,
                "Counting is a strong rival here: on the real data sets of results/ where the best of these rules "
                f"reached a test HR@10 of 30% or more, improved was ahead of that rule by 6% to 22%, and {best} "
                f"reaches {reached:.1%} here.",
            )
        )
    if examples < FEW:
        found.append(
            Finding(
                "few examples",
                examples,
                f"With {examples:,.0f} next items to learn from, fewer than {FEW:,}, counting will be hard to beat.",
            )
        )
    if config.data.repeats == "keep" and returns >= OFTEN:
        found.append(
            Finding(
                "repeats",
                "first_visits",
                f"If you want to recommend what is new to a user, ask with --repeats first_visits: now {returns:.1%} "
                "of the next items to learn from are returns, and a list can score by naming what the user knows.",
            )
        )
    if config.data.split == "leave_last_out" and facts.get("timestamps") != "positions" and later >= LATE:
        found.append(
            Finding(
                "split",
                "global_time",
                f"To judge what will be deployed, use --split global_time: now {later:.1%} of the training "
                "interactions come from after the median test answer, and then none will.",
            )
        )
    return found


def costs(dataset: Dataset, split: Split, graph: ItemGraph, config: Config, device: torch.device) -> list[Finding]:
    """Time and memory of a training on this machine, and what this diagnosis has held."""
    data = {"k_core": config.data.k_core, "repeats": config.data.repeats, "split": config.data.split}
    presets = {name: PRESETS[name].replace(**data) for name in ("improved", "reference")}
    seconds = {name: training_seconds(dataset, split, graph, preset, device) for name, preset in presets.items()}
    memory, held = training_bytes(dataset, split, presets["improved"]) / 2**30, peak_bytes() / 2**30
    return [
        *(
            Finding(
                f"seconds of {name}",
                value,
                f"Training {name} takes about {_duration(value)} here ({device}) if all its epochs are run; early "
                "stopping mostly ends sooner.",
            )
            for name, value in seconds.items()
        ),
        Finding("memory of improved in GiB", memory, f"Training improved on a CPU holds about {memory:.1f} GiB."),
        Finding("memory in GiB", held, f"This diagnosis, with its timed steps, has held {held:.1f} GiB at most."),
    ]


def peak_bytes() -> int:
    """What this process has held at most."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has no such module

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def training_seconds(dataset: Dataset, split: Split, graph: ItemGraph, config: Config, device: torch.device) -> float:
    """An upper estimate of the seconds that pretraining and all epochs take, from a few real steps of each."""
    train = training_examples(dataset, split, config)
    seconds, z_star = 0.0, None
    if config.diffusion.delta > 0:
        pretrain_gae(graph, config.replace(gae_steps=1), device)  # warms up: a process's first Adam imports for seconds
        start = time.perf_counter()
        z_star = pretrain_gae(graph, config.replace(gae_steps=TIMED_STEPS), device)
        seconds += (time.perf_counter() - start) / TIMED_STEPS * config.gae.steps
    model = make_model(dataset.n_items, config).to(device)
    target = aime_target(config, graph, z_star, device)
    noises, laps = stream(0, "noise"), []
    optimizer = torch.optim.Adam(model.parameters())
    rows = torch.randperm(len(train), generator=stream(0, "order"))
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        batch = rows[torch.randint(len(rows), (min(config.train.batch_size, len(rows)),), generator=noises)]
        history, answer = (part.to(device) for part in batch_of(train, batch, config.data.max_len))
        noise = model.draw_noise(len(batch), noises).of(slice(None), device)
        loss = total_loss(model(history, answer, noise), l_aime_of(model, target, noises), config.diffusion.delta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU
        laps.append(time.perf_counter() - start)
    steps = -(-len(train) // config.train.batch_size) * config.train.epochs
    return seconds + min(laps[1:]) * steps


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
