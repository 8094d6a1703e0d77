"""A recommender as one file, `recommender.safetensors`: tensors, and in its header the configuration and item ids."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dae4rec_core.checkpoint_file import COUNTS, FILE, FORMAT, blank, counts_of, modules_of, read, seal
from dae4rec_core.config import choose_device
from dae4rec_core.distributed import world
from dae4rec_core.method.beyond import BeyondDAE4Rec
from dae4rec_core.outputs import replacing
from dae4rec_core.recommender import Recommender


def save(recommender: Recommender, folder: str | Path, half: bool = False, **facts: Any) -> None:
    """Write folder/recommender.safetensors, put in place by one rename; of several processes the first one writes.

    half: weights as float16, half the size, for checkpoints that live in a repository; counts stay as they are.
    facts: JSON values kept beside the configuration.
    """
    if world()[0] > 0:
        return
    tensors, header = _parts(recommender, half, **facts)
    with replacing(Path(folder) / FILE) as new:
        save_file(tensors, new, {"recommender": seal(header, tensors)})


def _parts(recommender: Recommender, half: bool, **facts: Any) -> tuple[dict[str, Tensor], str]:
    """Tensors and header of a file."""
    modules = modules_of(recommender)
    weights = {f"{name}.{key}": value for name, part in modules.items() for key, value in part.state_dict().items()}
    if recommender.z_star is not None:
        weights["z_star"] = recommender.z_star
    kind = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to("cpu", kind).contiguous() for name, value in weights.items()}
    counts = getattr(recommender.model, "counts", None)
    if counts is not None:
        tensors |= {f"counts.{name}": torch.from_numpy(getattr(counts, name)) for name in COUNTS}
    header = {
        "format": FORMAT,
        "config": recommender.model.config.to_dict(),
        "compensators": [*sorted(recommender.compensators), *([] if recommender.shared is None else ["shared"])],
        "facts": facts,
        "item_ids": [str(item) for item in recommender.item_ids],
    }
    text = json.dumps(header, ensure_ascii=False)
    # where the locale isn't UTF-8, Python holds the bytes of a folder's name as surrogates
    return tensors, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def export(recommender: Recommender, file: str | Path, steps: Sequence[int] = (), eight_bits: bool = False) -> int:
    """Write what views/page/model.js reads: `save`'s file in float16, without Z*, and with alpha_bar. Its bytes.

    steps: the S whose compensators go along; none: that of the configuration. A shared one always does. eight_bits: as
    `in_eight_bits`. Raises ValueError for an S that has no compensator.
    """
    chosen = list(steps) or [S for S in [recommender.model.config.sampling_steps] if S in recommender.compensators]
    missing = [S for S in chosen if S not in recommender.compensators] if recommender.shared is None else []
    if missing:
        trained = ", ".join(map(str, sorted(recommender.compensators))) or "no S"
        raise ValueError(
            f"No compensator was trained for S = {missing[0]} (there is one for {trained}); choose such an S."
        )
    few = Recommender(recommender.model, recommender.item_ids)
    few.compensators = {S: own for S, own in recommender.compensators.items() if S in chosen}
    few.shared = recommender.shared
    tensors, header = _parts(few, half=not eight_bits)
    tensors = in_eight_bits(tensors) if eight_bits else tensors
    tensors["alpha_bar"] = recommender.model.alpha_bar
    with replacing(file) as new:
        save_file(tensors, new, {"recommender": header})
    return Path(file).stat().st_size


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (n, m) as int8 with a scale (n,) for each row, name.scale: half of float16's size.

    The rounding is at most 0.4% of a row's largest entry. Vectors come as float16, counts as they are.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim == 2:
            scale = value.abs().amax(1).clamp(min=1e-12) / 127
            found |= {name: (value / scale[:, None]).round().to(torch.int8), f"{name}.scale": scale}
        else:
            weights = value.is_floating_point() and not name.startswith("counts.")
            found[name] = value.half() if weights else value
    return found


def load(folder: str | Path, device: str | torch.device = "auto") -> Recommender:
    """Read what `save` wrote. Raises FileNotFoundError or ValueError with one sentence.

    The file may come from a stranger: it runs no code, it costs no more memory than its own size and a fixed share
    for T and max_len, and what a digest was written for comes back unchanged or not at all.
    """
    header, config, tensors = read(Path(folder))
    device = choose_device(device)
    recommender = blank(header, config)
    for name, module in modules_of(recommender).items():
        prefix = f"{name}."
        module.load_state_dict({key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)})
        module.to(device).eval()
    if "z_star" in tensors:
        recommender.z_star = tensors["z_star"].float().to(device)
    if "counts.data" in tensors and isinstance(recommender.model, BeyondDAE4Rec):
        recommender.model.counts = counts_of(tensors, recommender.model.n_items, Path(folder))
    return recommender


def facts(folder: str | Path) -> dict[str, Any]:
    """What `save` was given to keep beside the configuration."""
    return read(Path(folder))[0].get("facts", {})
