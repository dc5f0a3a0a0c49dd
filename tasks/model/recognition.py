"""Recognizes the published architecture of weights by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from tasks.model.weights import some
from tasks.system.errors import StageError

Shapes = Mapping[str, tuple[int, ...]]

# The width and the number of blocks of each Hiera (table 12 of the SAM 2 paper, arXiv 2408.00714,
# and sam2's own configurations).
HIERAS = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base_plus", (144, 48): "large"}

# The weights that only tracking uses.
_MEMORY = re.compile(
    r"(memory_attention|memory_encoder|spatial_perceiver|mask_downsample|obj_ptr_proj|"
    r"obj_ptr_tpos_proj)\.|(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
_BLOCK = re.compile(r"image_encoder\.trunk\.blocks\.(\d+)\.")


def shapes_of(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def is_of_memory(name: str) -> bool:
    """Whether only tracking uses a weight, by sam2's name."""
    return _MEMORY.match(name) is not None


def without_memory(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of a model for images."""
    return {name: shape for name, shape in shapes.items() if not is_of_memory(name)}


def without_misshapen_memory(own: Shapes, shapes: Shapes) -> list[Shapes]:
    """A model's shapes and a checkpoint's, without weights of memory whose shapes differ.

    The number of frames that a model remembers does not matter to images. The names of its memory
    still show its generation.
    """
    differing = {
        name for name in own if is_of_memory(name) and shapes.get(name, own[name]) != own[name]
    }
    return [{name: each[name] for name in each if name not in differing} for each in (own, shapes)]


def name_of(shapes: Shapes) -> str | None:
    """The published architecture of weights with sam2's names; None for any other.

    SAM 2.1 differs from SAM 2 in its memory alone: weights without one count as SAM 2.1's.
    """
    if any(name.startswith("image_encoder.trunk.body.") for name in shapes):
        return "edgetam"
    size = HIERAS.get(_trunk(shapes))
    if size is None:
        return None
    first = any(map(is_of_memory, shapes)) and "no_obj_embed_spatial" not in shapes
    return f"sam2{'' if first else '.1'}_hiera_{size}"


def recognize(checkpoint: str | Path, shapes: Shapes) -> str:
    """The published architecture of weights.

    :raises StageError: when they belong to another.
    """
    name = name_of(shapes)
    if name is None:
        width, blocks = _trunk(shapes)
        what = f"a Hiera {width} wide with {blocks} blocks" if blocks else f"{len(shapes)} tensors"
        sizes = ", ".join(f"{size} ({w} wide, {n} blocks)" for (w, n), size in HIERAS.items())
        raise StageError(
            f"{checkpoint} has weights of an unknown architecture: found {what} "
            f"({some(shapes)}); known are {sizes} and EdgeTAM. Describe it in a YAML file as "
            "sam2's own, and name that with `config`."
        )
    return name


def _trunk(shapes: Shapes) -> tuple[int, int]:
    """The width and the number of blocks of a Hiera; zeros where there is none."""
    blocks = {int(match[1]) for name in shapes if (match := _BLOCK.match(name))}
    return shapes.get("image_encoder.trunk.patch_embed.proj.weight", (0,))[0], len(blocks)
