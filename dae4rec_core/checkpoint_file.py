"""The file of a checkpoint, read without trusting it: sizes are compared before anything is built or allocated."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from scipy import sparse
from torch import Tensor, nn

from dae4rec_core.config import Config
from dae4rec_core.method.beyond import BeyondDAE4Rec, SharedCompensator
from dae4rec_core.method.compensator import Compensator
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender
from dae4rec_core.terminal import printable

FORMAT = 2
FILE = "recommender.safetensors"
COUNTS = ("data", "indices", "indptr")  # the three arrays of a CSR matrix
PARTS = ("config", "compensators", "item_ids")
WEIGHTS, NUMBERS, INTEGERS = ("F16", "F32"), ("F32", "F64"), ("I32", "I64")  # what each may be, in safetensors' words
MEMORY = 2**29  # bytes that T and max_len may cost for one list; no tensor's shape need tell them

Shape = tuple[int, ...]
There = dict[str, tuple[str, Shape]]  # type and shape of every tensor, as the file's own header states them


def seal(header: str, tensors: dict[str, Tensor]) -> str:
    """The header with a digest of itself and of the tensors, by which damage to either is noticed."""
    content = json.loads(header)
    return json.dumps(content | {"digest": _digest(content, tensors)}, ensure_ascii=False)


def _digest(content: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps(content).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.numpy().data)
    return found.hexdigest()


def read(folder: Path) -> tuple[dict[str, Any], Config, dict[str, Tensor]]:
    """Header, configuration and tensors, which fit one another. Raises FileNotFoundError or ValueError."""
    file = folder / FILE
    if (folder / "recommender.json").is_file() and not file.is_file():
        raise ValueError(
            f"The checkpoint in {folder} is of format 1, from an older version of this project, whose model was "
            "another one; train again."
        )
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give the folder that holds it, where it is called {FILE}.")
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint in {folder} ({FILE} is missing); make one with "
            f"`python -m dae4rec_core fit --out {folder}`."
        )
    if not os.access(file, os.R_OK):
        raise ValueError(f"{file} may not be read by this user; change its rights.")
    try:
        with safe_open(file, "pt") as opened:
            header = _header((opened.metadata() or {}).get("recommender", "null"), folder)
            config = _config(header, folder)
            parts = {name: opened.get_slice(name) for name in opened.keys()}
            there = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
            wanted = _wanted(header, config, there, folder)
            tensors = {name: opened.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(folder, printable(str(error)))) from None
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"The checkpoint in {folder} holds NaN or infinity in {', '.join(broken)}; train anew with a lower lr."
        )
    if "digest" in header and header.pop("digest") != _digest(header, tensors):
        raise ValueError(_damaged(folder, "its digest is another one: ids, configuration or weights have changed"))
    return header, config, tensors


def blank(header: dict[str, Any], config: Config) -> Recommender:
    """A recommender with the parts that the header names, their weights not yet read."""
    recommender = Recommender(make_model(len(header["item_ids"]), config), header["item_ids"])
    for S in header["compensators"]:
        if S == "shared":
            recommender.shared = SharedCompensator(config.model)
        else:
            recommender.compensators[S] = Compensator(config.model)
    return recommender


def modules_of(recommender: Recommender) -> dict[str, nn.Module]:
    """Its model and compensators, by the names under which the file keeps their weights."""
    compensators: dict[int | str, nn.Module] = dict(sorted(recommender.compensators.items()))
    if recommender.shared is not None:
        compensators["shared"] = recommender.shared
    return {"model": recommender.model} | {f"compensator.{S}": module for S, module in compensators.items()}


def counts_of(tensors: dict[str, Tensor], n_items: int, folder: Path) -> sparse.csr_matrix:
    """The transition counts (|V|, |V|). Raises ValueError for indices out of range, which SciPy reads unchecked."""
    data, indices, indptr = (tensors[f"counts.{name}"].numpy() for name in COUNTS)
    if ((indptr < 0) | (indptr > len(data))).any():  # their differences may overflow, unseen by SciPy
        raise ValueError(_damaged(folder, "its counts' rows begin outside of them"))
    try:
        counts = sparse.csr_matrix((data, indices, indptr), (n_items, n_items))
        counts.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(_damaged(folder, f"its counts: {error}")) from None
    if (data < 0).any():
        raise ValueError(_damaged(folder, "its counts hold a negative one"))
    return counts


def _damaged(folder: Path, why: str) -> str:
    return f"The checkpoint in {folder} is damaged ({why}); copy it again or train anew."


def _unfit(folder: Path, why: str) -> str:
    return f"The checkpoint in {folder} does not fit its own configuration ({why}); copy it again or train anew."


def _header(text: str, folder: Path) -> dict[str, Any]:
    """The JSON, whose parts have the types that they should have."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number of 5,000 digits, or nested without end
        raise ValueError(_damaged(folder, printable(str(error)))) from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"The checkpoint in {folder} is not of format {FORMAT}; copy it again or train anew.")
    missing = [name for name in PARTS if name not in header]
    if missing:
        raise ValueError(f"The checkpoint in {folder} lacks its {missing[0]}; copy it again or train anew.")
    config, compensators, ids = (header[name] for name in PARTS)
    if not isinstance(config, dict):
        raise ValueError(_damaged(folder, "config is no object"))
    if not isinstance(compensators, list) or not all(type(S) is int and S > 0 or S == "shared" for S in compensators):
        raise ValueError(_damaged(folder, "compensators is no list of S"))
    if not isinstance(ids, list) or not ids or not all(isinstance(item, str) for item in ids):
        raise ValueError(_damaged(folder, "item_ids is no list of texts"))
    for name, values in (("compensators", compensators), ("item_ids", ids)):
        if len(set(values)) < len(values):
            raise ValueError(_damaged(folder, f"{name} holds one of them twice"))
    return header


def _config(header: dict[str, Any], folder: Path) -> Config:
    """The configuration, unless it can't be or asks for more memory than any list is worth."""
    try:
        config = Config.from_dict(header["config"])
    except ValueError as error:
        raise ValueError(f"The checkpoint in {folder} can't be used: {printable(str(error))}") from None
    sizes, T, L = config.model, config.diffusion.timesteps, config.data.max_len
    if 4 * (T * (sizes.hidden + 4 * sizes.dim) + 4 * L**2) > MEMORY:  # `Denoiser.given`, `AttentionCondition.fused`
        raise ValueError(
            f"The checkpoint in {folder} asks for more memory than one list may take, with timesteps (T) = {T}, "
            f"max_len = {L}, dim = {sizes.dim} and hidden = {sizes.hidden}; copy it again or train with smaller ones."
        )
    return config


def _wanted(header: dict[str, Any], config: Config, there: There, folder: Path) -> list[str]:
    """The tensors to read. Raises ValueError unless the file has those that the configuration asks for, and no others.

    Two shapes and the number of tensors bound every size; only then are the modules built, where nothing is allocated.
    """
    n_items, sizes = len(header["item_ids"]), config.model
    bounds: dict[str, Shape] = {
        "model.embedding.weight": (n_items, sizes.dim),
        "model.denoiser.first.weight": (sizes.hidden, 3 * sizes.dim),
    }
    if sizes.depth > len(there):
        bounds[f"model.denoiser.rest.{2 * sizes.depth}.weight"] = (sizes.dim, sizes.hidden)
    _compare(bounds, WEIGHTS, there, folder)
    with torch.device("meta"):
        recommender = blank(header, config)
    wanted = bounds | {
        f"{part}.{name}": tuple(value.shape)
        for part, module in modules_of(recommender).items()
        for name, value in module.state_dict().items()
    }
    if "z_star" in there:
        wanted["z_star"] = (n_items, sizes.dim)
    _compare(wanted, WEIGHTS, there, folder)
    counts: dict[str, Shape] = {}
    if isinstance(recommender.model, BeyondDAE4Rec) and (config.beyond.neighbours or "counts.data" in there):
        _, shape = there.get("counts.indices", ("", ()))
        _compare({"counts.data": shape[:1]}, NUMBERS, there, folder)
        counts = {"counts.indices": shape[:1], "counts.indptr": (n_items + 1,)}
        _compare(counts, INTEGERS, there, folder)
    names = [*wanted, *counts, "counts.data"] if counts else list(wanted)
    unknown = sorted(set(there) - set(names) - {"alpha_bar"})  # which an export adds
    if unknown:
        raise ValueError(_unfit(folder, f"{unknown[0]!r} belongs to no part of it"))
    return names


def _compare(wanted: dict[str, Shape], kinds: tuple[str, ...], there: There, folder: Path) -> None:
    for name, shape in wanted.items():
        if name not in there:
            raise ValueError(_unfit(folder, f"{name} is missing"))
        kind, found = there[name]
        if kind not in kinds or found != shape:
            raise ValueError(_unfit(folder, f"{name} is {kind} {found}, not {kinds[-1]} {shape}"))
