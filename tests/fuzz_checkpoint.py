"""Checkpoints damaged in every way that we could think of: each must end in a list or in one sentence.

`python tests/fuzz_checkpoint.py --seconds 3600` goes on for an hour; test_checkpoint.py runs some seconds of it.
Each file is tried in a process of its own, so that a crash, a loop without end and a memory without bound are seen.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from scipy import sparse

from dae4rec_core import checkpoint
from dae4rec_core.__main__ import main
from dae4rec_core.config import Config
from dae4rec_core.method.beyond import BeyondDAE4Rec, SharedCompensator
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender

ITEMS = [f"i{n:02d}" for n in range(30)]
COMMAND = ["recommend", "--history", "i03", "i04", "-k", "20"]
MEMORY, SECONDS = 2**30, 20  # what a trial may take

SMALL = dict(k_core=2, max_len=5, dim=16, hidden=32, timesteps=10, steps=5)
OURS = dict(rank_weight=1.0, returns=True, neighbours=1.0, delta=0.0, geometry="sphere")
CONFIGS = {
    "paper": SMALL,
    "ours": SMALL | OURS | dict(unconditional=0.1, guidance=0.5),
    "shared": SMALL | dict(compensator="shared"),
    "posterior": SMALL | OURS | dict(denoiser="posterior", compensator_epochs=0),
}

SIZES = [-1, 0, 1, 3, 7, 31, 10**4, 10**6, 10**7, 10**9, 2**31, 2**40, 2**63, 2**64, 10**30, 10**400]
NUMBERS = [-0.5, 0.5, 1e30, 1e300, 1e-300, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", "x", "i03", "shared", "5", "\x1b[2J\x1b]0;x\x07", "a\nb", "\x9b31m", "\ud800", "\u202e", "x" * 10**5]
NESTED: list[Any] = [None, True, False, [], {}, [None], {"a": 1}, [[1, 2], [3]]]
VALUES = [*SIZES, *NUMBERS, *TEXTS, *NESTED]


def bases() -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Sound checkpoints, untrained: header and tensors."""
    for fields in CONFIGS.values():
        config = Config().replace(**fields)
        model = make_model(len(ITEMS), config)
        recommender = Recommender(model, ITEMS, torch.randn(30, 16))
        if isinstance(model, BeyondDAE4Rec):
            model.counts = sparse.csr_matrix(sparse.random(30, 30, 0.1, random_state=0))
        if config.beyond.compensator == "shared":
            recommender.shared = SharedCompensator(config.model)
        else:
            recommender.compensators = {S: Compensator(config.model) for S in (2, 5)}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(recommender, folder, data="ring")
            with safe_open(Path(folder) / checkpoint.FILE, "pt") as file:
                yield file.metadata()["recommender"], {name: file.get_tensor(name) for name in file.keys()}


# ---- damage --------------------------------------------------------------------------------------


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in nested lists and dicts; of a long list only some."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))[:3]
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


def damage_tree(rng: random.Random, tree: Any) -> Any:
    """Nested JSON with one place changed: value, type, nesting, key, length or order."""
    holder, key = rng.choice(places(tree) or [([tree], 0)])
    value = holder[key]
    kind = rng.randrange(9)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice([text for text in TEXTS if text])] = holder.pop(key)
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = rng.choice(VALUES)
    elif kind == 3:
        holder[key] = rng.choice([[value], {"a": value}, str(value), [value, value]])
    elif kind == 4 and isinstance(value, list) and value:
        holder[key] = rng.choice(
            [value[::-1], value[1:], value + value[:1], value * 50, value[:1], sorted(map(str, value))]
        )
    elif kind == 5 and isinstance(value, int | float):
        holder[key] = rng.choice([value + 1, value * 2, -value, float(value), value * 10**4])
    elif kind == 6:
        other, where = rng.choice(places(tree))
        holder[key] = json.loads(json.dumps(other[where]))
    else:
        holder[key] = rng.choice(VALUES)
    return tree


def damage_text(rng: random.Random, text: str) -> str:
    """Text with something cut, put in, repeated or nested without end."""
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    b = min(b, a + 50)
    new = ["", text[a:b] * 2, rng.choice('{}[]",:0\\'), "[" * 10**5, '{"a":' * 10**4, "9" * 5000, "\0", "NaN", "1e999"]
    return text[:a] + rng.choice(new) + text[b:]


def damage_tensors(rng: random.Random, tensors: dict[str, torch.Tensor]) -> None:
    """One tensor with another type, shape, name or other numbers, or gone."""
    names = [name for name in tensors if name.startswith("counts")]  # what only they can break is worth more trials
    name = rng.choice(names if names and rng.random() < 0.4 else list(tensors))
    old = tensors[name]
    fresh = torch.randint(-(2**31), 2**31, old.shape, generator=torch.Generator().manual_seed(rng.randrange(2**32)))
    kinds = [torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: old.to(rng.choice(kinds)),
        lambda: fresh.to(old.dtype),
        lambda: old.flatten(),
        lambda: old.unsqueeze(0),
        lambda: old.T.contiguous() if old.dim() == 2 else old.reshape(-1).flip(0),
        lambda: old.reshape(-1)[:-1],
        lambda: torch.cat([old.reshape(-1), old.reshape(-1)]),
        lambda: old.reshape(-1)[:0],
        lambda: torch.zeros((), dtype=old.dtype),
        lambda: old.reshape(-1).flip(0).reshape(old.shape),
        lambda: old * rng.choice([-1, 0, 100]),
        lambda: (old.float() * rng.choice([1e20, 3e38, float("nan"), float("inf")])).to(old.dtype),
        lambda: old + rng.choice([-1, 1, 40]),
    ]
    kind = rng.randrange(len(changes) + 2)
    if kind < len(changes):
        tensors[name] = changes[kind]().contiguous()
    elif kind == len(changes):
        del tensors[name]
    else:
        tensors[rng.choice([*TEXTS[:-1], name + ".more", "model.x\x1b[1m"]).replace("\ud800", "?")] = tensors.pop(name)


def damage_bytes(rng: random.Random, raw: bytes) -> bytes:
    """The file itself with bytes changed, cut, added; or its own header changed as a tree or as a text."""
    kind = rng.randrange(7)
    if kind < 3:
        (length,) = struct.unpack("<Q", raw[:8])
        text = raw[8 : 8 + length].decode(errors="replace")
        if kind < 2:
            text = json.dumps(damage_tree(rng, json.loads(text)))
        else:
            text = damage_text(rng, text)
        new = text.encode(errors="replace")
        return struct.pack("<Q", len(new)) + new + raw[8 + length :]
    if kind == 3:
        return struct.pack("<Q", rng.choice([0, 1, len(raw), 2**20, 2**27, 2**40, 2**63, 2**64 - 1])) + raw[8:]
    if kind == 4:
        return raw[: rng.randrange(len(raw))]
    if kind == 5:
        return raw + rng.randbytes(rng.randrange(1, 100))
    found = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 10, 1000])):
        found[rng.randrange(min(len(raw), rng.choice([8, 3000, len(raw)])))] = rng.randrange(256)
    return bytes(found)


def damaged(rng: random.Random, sound: list[tuple[str, dict[str, torch.Tensor]]]) -> bytes:
    """A checkpoint's bytes with one to three things changed."""
    text, tensors = rng.choice(sound)
    tensors, header = dict(tensors), json.loads(text)
    if rng.random() < 0.8:
        header.pop("digest", None)  # else the digest would notice before anything else does
    kinds = [rng.randrange(10) for _ in range(rng.choice([1, 1, 2, 3]))]
    for kind in kinds:
        if kind < 5:
            header = damage_tree(rng, header)
        elif kind < 7 and tensors:
            damage_tensors(rng, tensors)
    text = json.dumps(header)
    if 7 in kinds:
        text = damage_text(rng, text)
    raw = save(tensors, {"recommender": text})
    return damage_bytes(rng, raw) if 8 in kinds or 9 in kinds else raw


# ---- what comes of it ----------------------------------------------------------------------------


def outcome(folder: Path, options: list[str]) -> str:
    """Of the command that recommends from the checkpoint in `folder`: "list", "sentence", or what went wrong."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*COMMAND, "--checkpoint", str(folder), *options])
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "dae4rec_core" in frame.filename][-1]
        return f"{type(error).__name__} at {Path(ours.filename).name}:{ours.name}: {str(error)[:100]!r}"
    printed, said = out.getvalue(), err.getvalue()
    if not all(line.isprintable() for line in (printed + said).split("\n")):
        return "control codes"
    if status == 0:
        numbers = [line.split()[-1] for line in printed.splitlines()[1:]]
        return (
            "list"
            if len(numbers) == 20 and not said and np.isfinite(list(map(float, numbers))).all()
            else "a wrong list"
        )
    return "sentence" if printed == "" and said.count("\n") == 1 and said.endswith(".\n") else "no sentence"


def tried(raw: bytes, folder: Path, options: list[str]) -> str:
    """`outcome` of a file, in a process of its own: also a signal, too long, or too much memory."""
    (folder / checkpoint.FILE).write_bytes(raw)
    report = folder / "outcome"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 4 * MEMORY, -1))  # so that this machine stays well
        report.write_text(outcome(folder, options), encoding="utf-8", errors="replace")
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "endless" if name == "SIGALRM" else f"crash by {name}"
    found = report.read_text(encoding="utf-8")
    return found if used.ru_maxrss * 1024 < MEMORY else f"memory ({found})"


def attack(trials: int | None = None, seconds: float | None = None, seed: int = 0) -> Counter[str]:
    """How often each outcome came, of so many files or of as many as fit into some seconds."""
    torch.manual_seed(seed)
    sound, found, start = list(bases()), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        number = 0
        while number != trials and (seconds is None or time.monotonic() - start < seconds):
            rng = random.Random(f"{seed} {number}")
            options = rng.choice([[], ["--no-compensator"]])
            result = tried(damaged(rng, sound), Path(place), options)
            if result not in ("list", "sentence"):
                print(f"trial {number}: {result}", flush=True)
            found[result] += 1
            number += 1
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts = attack(options.trials, options.seconds, options.seed)
    print("\n".join(f"{number:6d} {name}" for name, number in counts.most_common()))
    sys.exit(set(counts) - {"list", "sentence"} != set())
