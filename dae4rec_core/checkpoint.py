"""A recommender as one file, `recommender.safetensors`: tensors, and in its header the configuration and item ids."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor, nn

from dae4rec_core.config import Config, choose_device
from dae4rec_core.distributed import world
from dae4rec_core.method.beyond import BeyondDAE4Rec, SharedCompensator
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.variants import make_model
from dae4rec_core.outputs import replacing
from dae4rec_core.recommender import Recommender

FORMAT = 2
FILE = "recommender.safetensors"
COUNTS = ("data", "indices", "indptr")  # the three arrays of a CSR matrix


def save(recommender: Recommender, folder: str | Path, half: bool = False, **facts: Any) -> None:
    """Write folder/recommender.safetensors, put in place by one rename; of several processes the first one writes.

    half: weights as float16, half the size, for checkpoints that live in a repository; counts stay as they are.
    facts: JSON values kept beside the configuration.
    """
    if world()[0] > 0:
        return
    tensors, header = _parts(recommender, half, **facts)
    with replacing(Path(folder) / FILE) as new:
        save_file(tensors, new, {"recommender": header})


def _parts(recommender: Recommender, half: bool, **facts: Any) -> tuple[dict[str, Tensor], str]:
    """Tensors and header of a file."""
    compensators: dict[int | str, nn.Module] = dict(sorted(recommender.compensators.items()))
    if recommender.shared is not None:
        compensators["shared"] = recommender.shared
    modules: dict[str, nn.Module] = {"model": recommender.model}
    modules |= {f"compensator.{name}": module for name, module in compensators.items()}
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
        "compensators": list(compensators),
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
    missing = [S for S in chosen if S not in recommender.compensators]
    if missing:
        trained = ", ".join(map(str, sorted(recommender.compensators))) or "no S"
        raise ValueError(
            f"No compensator was trained for S = {missing[0]} (there is one for {trained}); choose such an S."
        )
    few = Recommender(recommender.model, recommender.item_ids)
    few.compensators, few.shared = {S: recommender.compensators[S] for S in chosen}, recommender.shared
    tensors, header = _parts(few, half=not eight_bits)
    tensors = in_eight_bits(tensors) if eight_bits else tensors
    tensors["alpha_bar"] = recommender.model.alpha_bar
    with replacing(file) as new:
        save_file(tensors, new, {"recommender": header})
    return Path(file).stat().st_size


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (n, m) as int8 with a scale (n,) for each row, name.scale: half of float16's size. Others as float16.

    The rounding is at most 0.4% of a row's largest entry.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim == 2:
            scale = value.abs().amax(1).clamp(min=1e-12) / 127
            found |= {name: (value / scale[:, None]).round().to(torch.int8), f"{name}.scale": scale}
        else:
            found[name] = value.half() if value.is_floating_point() else value
    return found


def load(folder: str | Path, device: str | torch.device = "auto") -> Recommender:
    """Read what `save` wrote. Raises FileNotFoundError or ValueError with one sentence."""
    header, tensors = _read(Path(folder))
    device = choose_device(device)
    config = Config.from_dict(header["config"])
    model = make_model(len(header["item_ids"]), config)
    z_star = tensors["z_star"].float().to(device) if "z_star" in tensors else None
    recommender = Recommender(model, header["item_ids"], z_star)
    for name in header["compensators"]:
        if name == "shared":
            recommender.shared = SharedCompensator(config.model)
            compensator: nn.Module = recommender.shared
        else:
            compensator = recommender.compensators[name] = Compensator(config.model)
        _fill(compensator, f"compensator.{name}.", tensors, folder)
        compensator.to(device).eval()
    _fill(model, "model.", tensors, folder)
    if isinstance(model, BeyondDAE4Rec) and config.beyond.neighbours:
        missing = [f"counts.{name}" for name in COUNTS if f"counts.{name}" not in tensors]
        if missing:
            raise ValueError(f"The checkpoint in {folder} lacks its {missing[0]}; copy it again or train anew.")
        arrays = [tensors[f"counts.{name}"].numpy() for name in COUNTS]
        model.counts = sparse.csr_matrix(tuple(arrays), (model.n_items,) * 2)
    model.to(device).eval()
    return recommender


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors, checked."""
    file = folder / FILE
    if (folder / "recommender.json").is_file() and not file.is_file():
        raise ValueError(
            f"The checkpoint in {folder} is of format 1, from an older version of this project, whose model was "
            "another one; train again."
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint in {folder} ({FILE} is missing); make one with "
            f"`python -m dae4rec_core fit --out {folder}`."
        )
    try:
        with safe_open(file, "pt") as opened:
            header = json.loads((opened.metadata() or {}).get("recommender", "null"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"The checkpoint in {folder} is damaged ({error}); copy it again or train anew.") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"The checkpoint in {folder} is not of format {FORMAT}; copy it again or train anew.")
    missing = [name for name in ("config", "compensators", "item_ids") if name not in header]
    if missing:
        raise ValueError(f"The checkpoint in {folder} lacks its {missing[0]}; copy it again or train anew.")
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"The checkpoint in {folder} holds NaN or infinity in {', '.join(broken)}; train anew with a lower lr."
        )
    return header, tensors


def _fill(module: nn.Module, prefix: str, tensors: dict[str, Tensor], folder: str | Path) -> None:
    part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        raise ValueError(
            f"The checkpoint in {folder} does not fit its own configuration ({str(error).splitlines()[0]}); "
            "copy it again or train anew."
        ) from None
