"""Recognizes a published architecture by the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from tasks.model.published import EDGETAM, EFFICIENTTAM, MOBILE_SAM
from tasks.model.weights import some
from tasks.system.errors import StageError

Shapes = Mapping[str, tuple[int, ...]]

# The width and the number of blocks of each Hiera (table 12 of the SAM 2 paper, arXiv 2408.00714,
# and sam2's own configurations).
HIERAS = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base_plus", (144, 48): "large"}

# The same for SAM 1's ViTs (segment-anything 1.0, ``build_sam.py``).
VITS = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}

# The weights of a classifier, left in MobileSAM's encoder from its pretraining.
_CLASSIFIER = re.compile(r"image_encoder\.(norm_)?head\.")

# The width of EfficientTAM's ViTs (its own configurations).
EFFICIENT_VITS = {192: "efficienttam_ti", 384: "efficienttam_s"}

# Weights that only tracking uses.
_MEMORY = re.compile(
    r"(memory_attention|memory_encoder|spatial_perceiver|mask_downsample|obj_ptr_proj|"
    r"obj_ptr_tpos_proj)\.|(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
_BLOCK = re.compile(r"image_encoder\.(trunk\.)?blocks\.(\d+)\.")


def shapes_of(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def is_of_memory(name: str) -> bool:
    """Whether only tracking uses a weight; ``name`` is sam2's."""
    return _MEMORY.match(name) is not None


def without_classifier(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of the used weights; MobileSAM's files also have unused ones."""
    return {name: shape for name, shape in shapes.items() if not _CLASSIFIER.match(name)}


def without_memory(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that a model for images uses."""
    return {name: shape for name, shape in shapes.items() if not is_of_memory(name)}


def without_misshapen_memory(own: Shapes, shapes: Shapes) -> list[Shapes]:
    """A model's shapes and a checkpoint's, without memory weights whose shapes differ.

    The number of frames that a model remembers does not matter for images. The names of its memory
    weights still show its generation.
    """
    differing = {
        name for name in own if is_of_memory(name) and shapes.get(name, own[name]) != own[name]
    }
    return [{name: each[name] for name in each if name not in differing} for each in (own, shapes)]


def name_of(shapes: Shapes) -> str | None:
    """The published architecture of weights, named as in its own code; None for any other.

    SAM 2.1 differs from SAM 2 only in its memory; weights without a memory count as SAM 2.1's. All
    variants of an EfficientTAM have the same names and shapes.
    """
    embedding = "image_encoder.trunk.pos_embed"
    if embedding in shapes and f"{embedding}_window" not in shapes:  # a Hiera has both
        return EFFICIENT_VITS.get(_trunk(shapes)[1])
    if any(name.startswith("image_encoder.trunk.body.") for name in shapes):
        return EDGETAM
    if any(name.startswith("image_encoder.patch_embed.seq.") for name in shapes):
        return MOBILE_SAM
    kind, width, blocks = _trunk(shapes)
    if kind == "ViT":
        return VITS.get((width, blocks))
    size = HIERAS.get((width, blocks))
    if size is None:
        return None
    first = any(map(is_of_memory, shapes)) and "no_obj_embed_spatial" not in shapes
    return f"sam2{'' if first else '.1'}_hiera_{size}"


def variants_of(name: str) -> list[str]:
    """All architectures with the same weight names and shapes as one that `name_of` returned."""
    return [name, *(each for each in EFFICIENTTAM if each.startswith(f"{name}_"))]


def recognize(checkpoint: str | Path, shapes: Shapes) -> str:
    """The published architecture of weights.

    :raises StageError: when they fit no published architecture.
    """
    name = name_of(shapes)
    if name is None:
        kind, width, blocks = _trunk(shapes)
        what = f"a {kind} {width} wide with {blocks} blocks" if blocks else f"{len(shapes)} tensors"
        sizes = ", ".join(f"{size} ({w} wide, {n} blocks)" for (w, n), size in HIERAS.items())
        vits = ", ".join(f"{size} ({w} wide, {n} blocks)" for (w, n), size in VITS.items())
        raise StageError(
            f"{checkpoint} has weights of an unknown architecture: found {what} "
            f"({some(shapes)}). Supported are SAM 2's {sizes}, EdgeTAM, EfficientTAM, and SAM 1's "
            f"{vits} and vit_t. Describe an architecture of sam2's classes in a YAML file in "
            "sam2's format, and set `config` to that file."
        )
    return name


def _trunk(shapes: Shapes) -> tuple[str, int, int]:
    """An encoder's kind, width and number of blocks; zeros if there is no encoder."""
    blocks = [match for name in shapes if (match := _BLOCK.match(name))]
    trunk = "trunk." if any(match[1] for match in blocks) else ""
    width = shapes.get(f"image_encoder.{trunk}patch_embed.proj.weight", (0,))[0]
    return "Hiera" if trunk else "ViT", width, len({int(match[2]) for match in blocks})
