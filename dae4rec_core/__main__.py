"""The command line, python -m dae4rec_core COMMAND; `build_parser` lists the commands."""

# ruff: noqa: E402
import signal

INTERRUPT = signal.getsignal(signal.SIGINT)
if __name__ == "__main__" and INTERRUPT is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below ends the command, and says nothing

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch

from dae4rec_core import checkpoint
from dae4rec_core.commands import end_well
from dae4rec_core.config import FIELDS, PRESETS, Config, kind_of
from dae4rec_core.data.dataset import Dataset, Split, prepare
from dae4rec_core.data.files import load_interactions
from dae4rec_core.data.sources import SOURCES, Source, beside_table_2, compare_filters, convert
from dae4rec_core.data.town import AGAIN, RETURNS, write_town
from dae4rec_core.distributed import own_rank
from dae4rec_core.events import ProgressBar
from dae4rec_core.experiments.artifacts import ARTIFACTS, make_artifacts
from dae4rec_core.experiments.evaluation import (
    PARTS,
    baseline_rows,
    ceiling_rows,
    model_rows,
    summary,
    sweep,
    tidy,
)
from dae4rec_core.outputs import replacing, reserved
from dae4rec_core.ranking import METRICS
from dae4rec_core.recommender import Recommender
from dae4rec_core.state import checksum
from dae4rec_core.terminal import printable
from dae4rec_core.training import fit

TOWN = "data/town"
DATA_HELP = "CSV, CSV.GZ or Parquet with user_id, item_id, timestamp; or a folder with interactions.csv[.gz]"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input ends with one sentence on stderr and exit status 2, see `commands.end_well`."""
    options = build_parser().parse_args(arguments)
    if own_rank() > 0:  # torchrun starts one of these for each process; the first one tells the results
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    warnings.formatwarning = lambda message, *_, **__: f"dae4rec: {message}\n"  # a sentence, without our source line

    def work() -> None:
        if getattr(options, "data", None) is not None:
            check_given(options.data)
        options.command(options)

    return end_well("dae4rec", work, goes_on=options.command in (fit_command, artifacts_command))


class Parser(argparse.ArgumentParser):
    """argparse's, which says in one sentence what is wrong, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        """End with the sentence on stderr and exit status 2."""
        unread = re.fullmatch(r"argument (\S+): invalid (int|float) value: (.+)", message)
        if unread:
            option, kind, text = unread.groups()
            several = ", several with blanks between them" if "," in text else ""
            message = f"{option} is {text}; give {'a whole number' if kind == 'int' else 'a number'}{several}"
        self.exit(2, f"dae4rec: {message}; see {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = Parser(
        prog="python -m dae4rec_core",
        description="Next-item recommendation by diffusion: train, measure and use DAE4Rec on your interactions.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], None], help: str, data: bool = True, config: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=function)
        if data:
            sub.add_argument("--data", default=TOWN, help=f"{DATA_HELP} (default: the bundled town)")
        if config:
            sub.add_argument("--device", default="auto", help="auto, cuda or cpu (default: auto)")
            add_config_options(sub)
        return sub

    sub = command("run", run, "Train from nothing, print a table of results and ten users' recommendations.")
    sub.add_argument("--out", default="runs/latest", help="folder for the checkpoint (default: runs/latest)")

    sub = command("fit", fit_command, "Train and save a checkpoint; started again, it resumes where it stopped.")
    sub.add_argument("--out", default="runs/latest", help="folder for the checkpoint (default: runs/latest)")

    sub = command(
        "evaluate", evaluate_command, "Measure a checkpoint on its validation and test answers.", config=False
    )
    sub.add_argument("--checkpoint", required=True, help="folder written by fit or run")
    sub.add_argument("-S", type=int, nargs="+", default=None, help="sampling steps to measure (default: as trained)")
    sub.add_argument("--markov", action="store_true", help="also the full Markov chain of T steps")

    sub = command(
        "recommend", recommend_command, "Recommend for a history of items, or for a known user.", config=False
    )
    sub.add_argument("--checkpoint", required=True, help="folder written by fit or run")
    sub.add_argument(
        "--history",
        nargs="+",
        action="extend",
        help="item ids, oldest first; the user need not be known. Those that begin with - come one by one: "
        "--history=-a --history=-b",
    )
    sub.add_argument("--user", help="a user of --data, instead of --history; after = if it begins with -")
    sub.set_defaults(data=None)  # a history needs none; where it is given, items are shown with their names
    sub.add_argument("-k", type=int, default=10, help="how many items (default: 10)")
    sub.add_argument("-S", type=int, default=None, help="sampling steps (default: as trained)")
    sub.add_argument("--no-compensator", action="store_true", help="end with the denoiser instead")
    sub.add_argument(
        "--draws", type=int, help="rank by how likely each item is, according to so many draws; without a compensator"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the first noise (default: 0)")
    sub.add_argument("--exclude", nargs="+", action="extend", default=[], help="item ids that are not to be listed")
    sub.add_argument(
        "--skip-unknown", action="store_true", help="read a history without the items that came after the training"
    )

    sub = command("export", export_command, "Write a checkpoint for the page's model, in float16.", config=False)
    sub.add_argument("--checkpoint", required=True, help="folder written by fit or run")
    sub.add_argument("--out", required=True, help="the file to write, such as model.safetensors")
    sub.add_argument("-S", type=int, nargs="+", default=[], help="compensators that go along (default: as trained)")

    sub = command("sweep", sweep_command, "Baselines and DAE4Rec for every delta, S and seed, as one tidy CSV.")
    sub.add_argument("--deltas", type=float, nargs="+", default=[0.0, 10.0], help="values of delta (default: 0 10)")
    sub.add_argument("-S", type=int, nargs="+", default=[1, 2, 10], help="sampling steps (default: 1 2 10)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    sub.add_argument("--markov", action="store_true", help="also the full Markov chain of T steps")
    sub.add_argument("--parts", nargs="+", default=["test"], choices=["validation", "test"], help="(default: test)")
    sub.add_argument("--out", default="runs/sweep.csv", help="where the table goes (default: runs/sweep.csv)")

    sub = command(
        "artifacts", artifacts_command, "Make the checkpoint and sweeps that the notebooks load.", config=False
    )
    sub.add_argument("--device", default="auto", help="auto, cuda or cpu (default: auto)")
    sub.add_argument("--out", default=str(ARTIFACTS), help=f"parent folder (default: {ARTIFACTS})")

    sub = command("diagnose", diagnose_command, "Say what your data is like, what to try first and what it would cost.")
    sub.add_argument("--json", action="store_true", help="print the findings as JSON")

    help = "Fetch a data set of the paper, or UCI Online Retail, and convert its original file."
    sub = command("data", data_command, help, data=False, config=False)
    sub.add_argument("name", choices=SOURCES, help="which one: " + ", ".join(SOURCES))
    sub.add_argument("--file", help="the original file, if you have it; else it is looked for in --out or downloaded")
    sub.add_argument("--out", default=None, help="folder for the converted data (default: data/NAME)")
    sub.add_argument("--table2", action="store_true", help="also compare filters with the paper's Table 2 (minutes)")

    sub = command("town", town_command, "Write the bundled simulated town.", data=False, config=False)
    sub.add_argument("--seed", type=int, default=7, help="(default: 7)")
    sub.add_argument("--venues", type=int, default=600, help="100 to 1,000,000 (default: 600)")
    sub.add_argument("--users", type=int, default=5000, help="(default: 5000)")
    sub.add_argument("--again", type=float, default=AGAIN, help=f"weight of the same category next (default: {AGAIN})")
    sub.add_argument("--returns", type=float, default=RETURNS, help=f"share of returns (default: {RETURNS})")
    sub.add_argument("--out", default="data/town", help="folder (default: data/town)")
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """One option a field of Config, with its explanation; those not given keep the preset's value."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="reference",
        help="a named configuration to start from (default: reference)",
    )
    defaults = Config().flat()
    for name, (_, item) in FIELDS.items():
        kind, optional = kind_of(item)
        default = "none" if defaults[name] is None else defaults[name]
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_reader(kind, optional),
            default=argparse.SUPPRESS,
            dest=name,
            metavar=kind.__name__.upper(),
            help=f"{item.metadata['help']} (default: {default})".replace("%", "%%"),
        )


def _reader(kind: type, optional: bool) -> Callable[[str], Any]:
    """How an option's text is read: "none" is None where that is allowed."""

    def read(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        return true_or_false(text) if kind is bool else kind(text)

    read.__name__ = kind.__name__  # argparse names it when the text can't be read
    return read


def true_or_false(text: str) -> bool:
    """A switch as the command line gives it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def config_of(options: argparse.Namespace) -> Config:
    """The preset, changed by the options that were given."""
    given = {name: value for name, value in vars(options).items() if name in FIELDS}
    return PRESETS[options.preset].replace(**given)


def run(options: argparse.Namespace) -> None:
    """Train from nothing, print the table of results and ten users' recommendations."""
    config = config_of(options)
    if (Path(options.out) / "state").is_dir():
        raise ValueError(f"{options.out} holds a run of `fit`, which `run` would replace; give another --out.")
    check_replaceable(Path(options.out) / checkpoint.FILE, b'"recommender"', "checkpoint")
    dataset, split = prepare(options.data, config)
    print(describe(dataset, split))
    with reserved(options.out):
        recommender = fit(dataset, split, config, options.device, [ProgressBar()])
        checkpoint.save(recommender, options.out, data=dataset.name, learned=learned(dataset, split))
    rows = [*baseline_rows(dataset, split, config), *ceiling_rows(options.data, dataset, split, config)]
    rows += model_rows(recommender, dataset, split, [config.sampling_steps])
    seen = "seen items left out" if config.data.repeats == "first_visits" else "seen items included"
    print(f"\nTest ({config.data.split}): each answer is ranked among all {dataset.n_items} items, {seen}\n")
    print(table_text(tidy(rows, dataset.name)))
    print(f"\nRecommendations for ten users (checkpoint in {options.out})")
    index = {item: n for n, item in enumerate(dataset.item_ids)}
    for place in split.test[:: max(1, len(split.test) // 10)][:10]:
        user = int(np.searchsorted(dataset.offsets, place, side="right")) - 1
        history, answer = dataset.items[dataset.offsets[user] : place], dataset.items[place]
        left = dataset.n_items - (len(set(history)) if config.data.repeats == "first_visits" else 0)
        if len(history) == 0 or left == 0:
            continue
        compensate = recommender.compensator_for(config.sampling_steps) is not None
        found = recommender.recommend(dataset.item_ids[history].tolist(), k=min(5, left), compensate=compensate)
        after = ", ".join(dataset.label(item) for item in history[-3:])
        print("\n" + printable(f"  user {dataset.user_ids[user]}, after {after}"))
        for item in found["item_id"]:
            print(printable(f"    {'->' if index[item] == answer else '  '} {dataset.label(index[item])}"))
        print(printable(f"       really next: {dataset.label(answer)}"))


def fit_command(options: argparse.Namespace) -> None:
    """Train, or go on with a stopped run, and save the checkpoint."""
    config = config_of(options)
    check_replaceable(Path(options.out) / checkpoint.FILE, b'"recommender"', "checkpoint")
    dataset, split = prepare(options.data, config)
    print(describe(dataset, split))
    with reserved(options.out):
        recommender = fit(dataset, split, config, options.device, [ProgressBar()], Path(options.out) / "state")
        checkpoint.save(recommender, options.out, data=dataset.name, learned=learned(dataset, split))
    print(f"Checkpoint written to {options.out}.")


def evaluate_command(options: argparse.Namespace) -> None:
    """Measure a checkpoint as it is; nothing is trained."""
    recommender = checkpoint.load(options.checkpoint)
    config = recommender.model.config
    dataset, split = prepare(options.data, config)
    check_catalogue(recommender, dataset, options)
    if checkpoint.facts(options.checkpoint).get("learned", learned(dataset, split)) != learned(dataset, split):
        raise ValueError(
            f"The checkpoint in {options.checkpoint} has learned from other interactions than {options.data} holds, "
            "maybe from those that would be its answers here; give the data that it was trained on."
        )
    steps = once(options.S or []) or sorted(recommender.compensators) or [config.sampling_steps]
    rows = list(baseline_rows(dataset, split, config))
    rows += model_rows(recommender, dataset, split, steps, markov=options.markov)
    for part in PARTS:
        print(f"{part}\n{table_text(tidy(rows, dataset.name), part)}\n")
    without = [s for s in steps if recommender.compensator_for(s) is None]
    if without:
        more = " `sweep` trains one for each S." if config.train.compensator_epochs else ""
        print(
            f"No compensator was trained for S = {', '.join(map(str, without))}: measured with the denoiser's last "
            f"step alone.{more}"
        )


def recommend_command(options: argparse.Namespace) -> None:
    """Print one list."""
    recommender = checkpoint.load(options.checkpoint)
    if (options.history is None) == (options.user is None):
        raise ValueError("Give either --history ITEM ITEM ... or --user ID, so that there is one history to go on.")
    history, dataset = options.history, None
    if options.user is not None or options.data is not None:
        options.data = options.data or TOWN
        check_given(options.data)
        dataset, _ = prepare(options.data, recommender.model.config)
        if not options.skip_unknown:
            check_catalogue(recommender, dataset, options)
    if dataset is not None and options.user is not None:
        history = dataset.item_ids[dataset.sequence(dataset.user_index(options.user))].tolist()
    compensate = False if options.no_compensator else None
    found = recommender.recommend(
        history,
        options.k,
        options.S,
        compensate,
        seed=options.seed,
        draws=options.draws,
        exclude=options.exclude,
        skip_unknown=options.skip_unknown,
    )
    if dataset is not None:
        index = {item: n for n, item in enumerate(dataset.item_ids)}
        names = [dataset.label(index[item]) if item in index else item for item in found["item_id"]]
        if names != found["item_id"].tolist():  # which are all it has
            found["name"] = [printable(name) for name in names]
    found["item_id"] = found["item_id"].map(printable)
    print(found.to_string(index=False, float_format="%.3f"))


def export_command(options: argparse.Namespace) -> None:
    """Write the file and say how large it is."""
    out = Path(options.out)
    check_replaceable(out, b'"recommender"', "exported model")
    if out.name == checkpoint.FILE:
        raise ValueError(f"{out} is a checkpoint's name; give another --out.")
    with reserved(out.parent, out.name):
        size = checkpoint.export(checkpoint.load(options.checkpoint, "cpu"), out, options.S)
    print(f"{options.out}: {size / 1024:,.0f} KiB")


def sweep_command(options: argparse.Namespace) -> None:
    """Train for every delta and seed, measure at every S, write the table."""
    for one, several in (("delta", "--deltas"), ("seed", "--seeds"), ("steps", "-S")):
        if one in vars(options):
            raise ValueError(f"A sweep goes through several; give {several} in place of --{one}.")
    config = config_of(options)
    dataset, split = prepare(options.data, config)
    out = Path(options.out)
    check_replaceable(out, b"data,part,method,", "table of a sweep")
    growing = out.with_name(f"{out.name}.part")
    check_replaceable(growing, b"data,part,method,", "table of a sweep")

    def keep(rows: pd.DataFrame) -> None:
        with replacing(growing) as new:
            rows.to_csv(new, index=False, encoding="utf-8")

    print(f"The table grows in {growing}, and is put in place at the end.", flush=True)
    with reserved(out.parent, out.name):
        table = sweep(
            dataset,
            split,
            config,
            once(options.deltas),
            once(options.S),
            once(options.seeds),
            options.device,
            options.parts,
            options.markov,
            callbacks=[ProgressBar()],
            on_rows=keep,
        )
        growing.replace(out)
    for part in once(options.parts):
        print(f"{part}\n{summary(table, part).to_string(index=False, float_format='%.4f')}\n")
    print(f"Table written to {out}.")


def artifacts_command(options: argparse.Namespace) -> None:
    """Make what the notebooks load, and the overview picture."""
    from dae4rec_core.views.plots import write_overview  # here, since matplotlib takes a third of a second to import

    folder = make_artifacts(options.data, options.out, options.device, [ProgressBar()])
    dataset, _ = prepare(options.data, Config())
    write_overview(dataset, folder)


def diagnose_command(options: argparse.Namespace) -> None:
    """One sentence a finding, or all of them as JSON."""
    from dae4rec_core.experiments.diagnosis import diagnose  # here, since scikit-learn takes a second to import

    found = diagnose(options.data, config_of(options), options.device)
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=1))
    else:
        print("\n".join(printable(finding.sentence) for finding in found if finding.sentence))


def data_command(options: argparse.Namespace) -> None:
    """Fetch and convert an original data set."""
    source = SOURCES[options.name]
    if options.table2 and source.paper is None:
        raise ValueError(f"Table 2 has no row for {options.name}; leave --table2 out.")
    out = Path(options.out or f"data/{options.name}")
    for theirs in (*out.glob("interactions.*"), *out.glob("items.csv")):  # would be replaced, or read in place of ours
        raise ValueError(f"{theirs} is there; remove it or give another --out.")
    print(f"{source.title}\n{source.page}\nTerms: {source.terms}\nTrust: {trust_in(source, options.file)}")
    folder = convert(options.name, out, options.file)
    frame, _ = load_interactions(folder)
    wanted = f"--k-core {source.k_core} --repeats {source.repeats}"
    print(f"{len(frame):,} interactions written to {folder}; use them with --data {folder} {wanted}.")
    if options.table2 and source.paper is not None:
        print(f"\nTable 2 of the paper and ours with {wanted} (our choice, the paper names no filter)")
        table = beside_table_2(frame, source)
        table["difference"] = table["difference"].map("{:+.1%}".format)
        print(table.to_string(float_format=lambda x: f"{x:,.0f}" if x >= 1000 else f"{x:.4g}"))
        print("\nOther filters, the nearest first")
        print(compare_filters(frame, source.paper).to_string(index=False, float_format="%.4g"))


def trust_in(source: Source, given: str | None) -> str:
    """Why the original is taken for what it should be."""
    if given is not None:
        return "your own file is taken as it is."
    if source.sha256 is not None:
        return f"only the file with SHA-256 {source.sha256[:12]}... is taken."
    return (
        "no checksum of its publisher is known, so the first file is taken as it comes; its SHA-256 is kept beside "
        "it, and no other file is taken later."
    )


def town_command(options: argparse.Namespace) -> None:
    """Write the simulated town, into a folder of its own."""
    out = Path(options.out)
    check_replaceable(out / "town.json", b'"n_venues"', "town")
    if not (out / "town.json").exists():
        for theirs in (path for name in ("interactions", "items", "users") for path in out.glob(f"{name}.*")):
            raise ValueError(f"{theirs} is there and is no town's; give another --out.")
    write_town(options.out, options.venues, options.users, options.seed, options.again, options.returns)
    print(f"Town written to {options.out}.")


def check_given(data: str) -> None:
    """Raises ValueError where data is the default and this folder has none."""
    if data == TOWN and not Path(TOWN).exists():
        raise ValueError(f"Give --data FILE; the default, the bundled town, is not here ({TOWN} is missing).")


def once(values: list[Any]) -> list[Any]:
    """The values without repeats, which would count one training as several."""
    return list(dict.fromkeys(values))


def learned(dataset: Dataset, split: Split) -> int:
    """A checksum of the training sequences."""
    return checksum(*(torch.from_numpy(sequence) for sequence in split.training_sequences(dataset)))


def check_catalogue(recommender: Recommender, dataset: Dataset, options: argparse.Namespace) -> None:
    """Raises ValueError for data whose items are not the checkpoint's."""
    if [str(item) for item in dataset.item_ids] != recommender.item_ids.tolist():
        raise ValueError(
            f"{options.data} and the checkpoint in {options.checkpoint} have different catalogues; "
            "give with --data the data that it was trained on, or where only items came later, `recommend` with "
            "--skip-unknown."
        )


def check_replaceable(file: Path, mark: bytes, kind: str) -> None:
    """Raises ValueError for a file that is there and doesn't hold, at its beginning, what marks our own kind."""
    if file.is_file():
        with file.open("rb") as stream:
            if mark not in stream.read(2**20):
                raise ValueError(f"{file} is there and is no {kind}; give another --out.")


def describe(dataset: Dataset, split: Split) -> str:
    """One line on the size of a data set, and one on what was left out of its file."""
    facts = dataset.statistics()
    return (
        f"{printable(dataset.name)}: {facts['records']:,} interactions, {facts['users']:,} users, "
        f"{facts['items']:,} items, average length {facts['average length']:.1f}; {len(split.test):,} users are tested"
        f"\n{dataset.account}"
    )


def table_text(table: pd.DataFrame, part: str = "test") -> str:
    """The rows of one part of a tidy table, in percent."""
    test = table[table["part"] == part].copy()
    setting = [
        "" if pd.isna(s) else f" S={s if s == 'markov' else int(s)}{' + compensator' if compensated is True else ''}"
        for s, compensated in zip(test["S"], test["compensator"], strict=True)
    ]
    test["method"] = test["method"] + setting
    test[list(METRICS)] *= 100
    return test[["method", *METRICS]].to_string(index=False, float_format="%.2f")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, INTERRUPT)
    sys.exit(main())
