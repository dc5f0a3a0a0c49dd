"""Builds sam2's model and gives it a checkpoint's weights, or made-up ones. Imports torch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sam2.build_sam import build_sam2

from tasks.config.published import PUBLISHED
from tasks.engine.errors import StageError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


def build_model(architecture: str) -> SAM2Base:
    """sam2's model in evaluation mode on the CPU, with the weights it was initialized with.

    :param architecture: one of sam2's own, or the path of a YAML file.
    :raises StageError: when the file describes no model that can be exported.
    """
    if architecture in PUBLISHED:
        return build_sam2(PUBLISHED[architecture], ckpt_path=None, device="cpu")
    from tasks.model import architecture as custom

    return custom.build(architecture)


def load_model(architecture: str, checkpoint: str | Path) -> SAM2Base:
    """sam2's model with the weights of a checkpoint in the published format.

    :param checkpoint: a torch file holding ``{"model": state_dict}``.
    :raises StageError: when the file is no such checkpoint, or fits another architecture.
    """
    weights = read_checkpoint(checkpoint)
    model = build_model(architecture)
    own = model.state_dict()
    mismatch = state_dict_mismatch(
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
    )
    if mismatch:
        raise StageError(f"{checkpoint} does not fit {architecture}: {mismatch}")
    model.load_state_dict(weights)
    return model


def read_checkpoint(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint; only tensors are read, no code in it is ever run.

    :raises StageError: when the file is not a torch checkpoint with a state dict in "model".
    """
    expected = 'expected a torch checkpoint, {"model": state_dict}, as Meta publishes them'
    try:
        content = torch.load(
            checkpoint,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(checkpoint),  # the weights are read once, where they go
        )
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise StageError(
            f"{checkpoint} holds more than tensors, and loading that could run code: {reason} "
            f"({expected}). Save it again with torch.save({{'model': model.state_dict()}}, ...)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StageError(
            f"{checkpoint} cannot be read: {reason} ({expected}). "
            "It may be cut off: fetch or copy it again, then run the same command."
        ) from error
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in weights.values()
    ):
        found = f"keys {_some(map(str, content))}" if isinstance(content, dict) else type(content)
        raise StageError(f'{checkpoint} has no state dict under "model": found {found}; {expected}')
    return weights


def state_dict_mismatch(
    own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> str:
    """How the tensors of a checkpoint differ from those of a model, by name and shape.

    :returns: a phrase for people, empty when they fit.
    """
    missing = own.keys() - given.keys()
    unexpected = given.keys() - own.keys()
    misshapen = [
        f"{name} is {list(given[name])} instead of {list(own[name])}"
        for name in own
        if name in given and own[name] != given[name]
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing keys ({_some(sorted(missing))})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected keys ({_some(sorted(unexpected))})")
    if misshapen:
        parts.append(f"{len(misshapen)} tensors of another shape ({_some(misshapen)})")
    return "; ".join(parts)


def _some(names: Iterable[str], limit: int = 4) -> str:
    names = list(names)
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def make_synthetic(architecture: str, seed: int, destination: str) -> dict[str, int]:
    """Write a checkpoint of random weights in the published format.

    A new model has many parameters that are all zero (positional embeddings and biases), behind
    which a broken export could hide; noise on top of the initialization leaves none.

    :returns: ``parameters``, how many numbers were written.
    """
    torch.manual_seed(seed)
    weights = build_model(architecture).state_dict()
    noise = torch.Generator().manual_seed(seed)
    for tensor in weights.values():
        tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.02)
    for name, tensor in weights.items():
        if "output_hypernetworks_mlps" in name and "layers.2" in name:
            tensor.mul_(20)  # mask logits of about ±10, as trained models have, not ±0.5
    # Written through a file object: given a path, torch puts the file's name in the bytes.
    with open(destination, "wb") as file:
        torch.save({"model": weights}, file)
    return {"parameters": sum(tensor.numel() for tensor in weights.values())}
