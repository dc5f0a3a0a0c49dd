"""Reads the weights of a checkpoint, whatever it was written by, under sam2's names.

What a file is, its content tells, never its name. Only tensors are read: nothing in a file is ever
run.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.engine.errors import StageError
from tasks.model import transformers_names

Weights = dict[str, torch.Tensor]

# Where trainers keep the state dict in the file that they write.
CONTAINERS = ("model", "state_dict", "model_state", "model_state_dict")
EXPECTED = (
    "expected SAM 2's weights: a torch file with a state dict, bare or under "
    f"{', '.join(CONTAINERS)}, or a safetensors file"
)

# A compiled module has this in the names of its weights, one that was trained in parallel `module.`
# before them.
_COMPILED = "_orig_mod."
_ROOTS = re.compile(r"(image_encoder|vision_encoder|sam_mask_decoder|mask_decoder)\.")
_ADAPTER = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)\.")

# What begins a file that is something else.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches what it points to"),
    (b"<", "a page of HTML or XML; the address must be that of the file itself"),
    (b"{", "JSON"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x89HDF", "HDF5"),
)


def read(checkpoint: str | Path) -> Weights:
    """The state dict of a checkpoint, under sam2's names.

    :raises StageError: when the file has no such weights, with what was found in it.
    """
    path = Path(checkpoint)
    with path.open("rb") as file:
        start = file.read(64)
    if _is_safetensors(start):
        weights = _read_safetensors(path)
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        weights = _read_torch(path)
    else:
        found = next((what for magic, what in _OTHERS if start.lstrip().startswith(magic)), None)
        raise StageError(
            f"{path} is no checkpoint: found {found or f'a file that begins with {start[:8]!r}'}; "
            f"{EXPECTED}"
        )
    return with_names_of_sam2(path, weights)


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes with the length of a header in JSON, and then that."""
    return start[5:9] == b"\0\0\0{"


def _read_safetensors(path: Path) -> Weights:
    """All tensors, mapped into memory: they are read when they are used."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StageError(
            f"{path} is a damaged safetensors file: {error}. It may be cut off: fetch or copy it "
            "again, then run the same command."
        ) from error


def _read_torch(path: Path) -> Weights:
    try:
        content = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),  # the weights are read once, where they go
        )
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise StageError(
            f"{path} holds more than tensors, and loading that could run code: {reason} "
            f"({EXPECTED}). Save it again with torch.save({{'model': model.state_dict()}}, ...)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StageError(
            f"{path} cannot be read: {reason} ({EXPECTED}). "
            "It may be cut off: fetch or copy it again, then run the same command."
        ) from error
    found = _state_dict(content)
    if found is None:
        keys = f"keys {some(map(str, content))}" if isinstance(content, dict) else type(content)
        raise StageError(f"{path} has no state dict: found {keys}; {EXPECTED}")
    return found


def _state_dict(content: Any) -> Weights | None:
    """The state dict in what a torch file holds."""
    if not isinstance(content, dict):
        return None
    for weights in (*(content.get(key) for key in CONTAINERS), content):
        if isinstance(weights, dict) and weights and _only_tensors(weights):
            return dict(weights)
    return None


def _only_tensors(weights: dict[Any, Any]) -> bool:
    return all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in weights.items()
    )


def with_names_of_sam2(path: Path, weights: Mapping[str, torch.Tensor]) -> Weights:
    """Weights without the prefixes of wrappers, under sam2's names.

    :raises StageError: when they are an adapter's.
    """
    if any(_ADAPTER.search(name) for name in weights):
        raise StageError(
            f"{path} holds a LoRA adapter, which is nothing without the model it was trained "
            "beside. Merge it with PEFT's merge_and_unload(), and save the model."
        )
    weights = {name.replace(_COMPILED, ""): tensor for name, tensor in weights.items()}
    prefix = _common_prefix(weights)
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    if not transformers_names.are_of_transformers(weights):
        return dict(weights)
    found: Weights = {}
    joined: dict[str, list[str]] = {}
    for name, parts in transformers_names.to_sam2(weights).items():
        if len(parts) == 1:
            joined.setdefault(parts[0], []).append(name)
        else:
            found |= dict(zip(parts, torch.split(weights[name], 1), strict=False))
    for whole, names in joined.items():
        pieces = [weights[name] for name in sorted(names)]
        found[whole] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return found


def _common_prefix(names: Iterable[str]) -> str:
    """What a wrapper has put before the names of all of a model's weights."""
    names = list(names)
    prefixes = {name[: match.start()] for name in names if (match := _ROOTS.search(name))}
    prefix = min(prefixes, key=len, default="")
    return prefix if all(name.startswith(prefix) for name in names) else ""


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first of several names, and how many more there are."""
    names = list(names)
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
