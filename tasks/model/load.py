"""Builds a model with a checkpoint's weights, or writes a checkpoint of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tasks.model import recognition, weights
from tasks.model.families.family import load_function
from tasks.model.families.registry import family_of
from tasks.model.published import AUTO
from tasks.model.recognition import (
    Shapes,
    shapes_of,
    without_classifier,
    without_memory,
    without_misshapen_memory,
)
from tasks.model.weights import some
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor


def build_model(architecture: str, image_size: int | None = None, video: bool = False) -> Any:
    """A model of an architecture in evaluation mode on the CPU, with its initial weights.

    :param architecture: a named architecture, or the path of a YAML file.
    :param image_size: in pixels; replaces the architecture's own.
    :param video: make the architecture's predictor for videos.
    :raises StageError: when the model cannot be exported.
    """
    build = load_function(family_of(architecture).build)
    return build(architecture, image_size, video)


def load_video_model(
    architecture: str, checkpoint: str | Path, image_size: int | None = None
) -> SAM2VideoPredictor:
    """sam2's predictor for videos with the weights of a checkpoint; raises as `load_model`."""
    predictor: SAM2VideoPredictor = load_model(architecture, checkpoint, image_size, video=True)
    predictor.fill_hole_area = 0  # on the CPU sam2 fills no holes, and warns about it
    return predictor


def load_model(
    architecture: str, checkpoint: str | Path, image_size: int | None = None, video: bool = False
) -> Any:
    """A model with the weights of a checkpoint.

    :param architecture: `AUTO` for the published architecture that the weights belong to.
    :param checkpoint: any file that `weights.read` reads.
    :raises StageError: when the file cannot be read, fits another architecture, or lacks the memory
        weights that a video needs.
    """
    content = weights.read(checkpoint)
    shapes: Shapes = without_classifier(shapes_of(content))
    _refuse_other_family(checkpoint, architecture, shapes)
    if architecture == AUTO:
        architecture = recognition.recognize(checkpoint, shapes)
    model = build_model(architecture, image_size, video)
    own: Shapes = without_classifier(shapes_of(model.state_dict()))
    # A model made for images has no memory, and graphs for images do not need one.
    image_only = not all(
        any(name.startswith("memory_attention.") for name in names) for names in (own, shapes)
    )
    if image_only and video:
        raise StageError(
            f"{checkpoint} has no memory weights (memory_attention.…), which `video = true` needs: "
            "it was made for images. Remove `video`, or use a checkpoint that tracks."
        )
    if image_only:
        own, shapes = without_memory(own), without_memory(shapes)
    fits = recognition.name_of(shapes)
    if not video:
        own, shapes = without_misshapen_memory(own, shapes)
    mismatch = state_dict_mismatch(own, shapes)
    if mismatch:
        is_other = fits is not None and not f"{architecture}_".startswith(f"{fits}_")
        hint = f" Its weights fit {fits}." if is_other else ""
        hint += _frames_hint(own, shapes)
        raise StageError(f"{checkpoint} does not fit {architecture}: {mismatch}.{hint}")
    state = model.state_dict()
    used = {name: content[name] for name in shapes}
    unusable = [name for name in used if not _is_usable(used[name], state[name])]
    if unusable:
        raise StageError(
            f"{checkpoint} has weights that are not plain numbers: {some(unusable)}; expected "
            f"floating point, found {used[unusable[0]].dtype}. Save the model from before it was "
            "quantized or packed."
        )
    model.load_state_dict(used, strict=False)  # names were compared above
    model.eval()  # when MobileSAM's attention makes a table of its weights
    _refuse_infinite(checkpoint, state)
    return model


def _refuse_other_family(checkpoint: str | Path, architecture: str, shapes: Shapes) -> None:
    """:raises StageError: when the weights' family has other tensors than the table's family."""
    name = recognition.name_of(shapes)
    if name is None or family_of(name).layout == family_of(architecture).layout:
        return
    variants = recognition.variants_of(name)[1:]
    others = (
        f" Weights of {', '.join(variants)} look the same: use the right name." if variants else ""
    )
    raise StageError(
        f"{checkpoint} has weights of {family_of(name).title} ({name}), not of "
        f'{family_of(architecture).title}: put `model_type = "{name}"` in the table.{others}'
    )


def _frames_hint(own: Shapes, shapes: Shapes) -> str:
    """How to load a checkpoint with a different number of remembered frames; empty if equal."""
    name = "maskmem_tpos_enc"
    if own.get(name) == shapes.get(name) or own.get(name, ())[1:] != shapes.get(name, ())[1:]:
        return ""
    frames = shapes[name][0]
    return (
        f" It remembers {frames} frames, not {own[name][0]}: write a YAML file in sam2's format "
        f"with `num_maskmem: {frames}` and set `config` to it, or remove `video`."
    )


def _is_usable(tensor: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a weight can hold a tensor's values, rounded to the weight's precision."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and tensor.is_floating_point() == weight.is_floating_point()
    )


def _refuse_infinite(checkpoint: str | Path, state: weights.Weights) -> None:
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise StageError(
            f"{checkpoint} has weights that are NaN or infinite, in {len(bad)} of {len(state)} "
            f"tensors: {some(bad)}; expected finite numbers. The training diverged, or the file is "
            "damaged: use an earlier checkpoint, or fetch it again."
        )


def recognized(architecture: str, checkpoint: str | Path) -> str:
    """The architecture; for `AUTO` the published architecture of the checkpoint's weights.

    :raises StageError: when the weights fit no published architecture.
    """
    if architecture != AUTO:
        return architecture
    return recognition.recognize(checkpoint, shapes_of(weights.read(checkpoint)))


def state_dict_mismatch(own: Shapes, shapes: Shapes) -> str:
    """How a checkpoint's names and shapes differ from a model's, for people; empty if they fit."""
    missing = own.keys() - shapes.keys()
    unexpected = shapes.keys() - own.keys()
    misshapen = [
        f"{name} is {list(shapes[name])} instead of {list(own[name])}"
        for name in own
        if name in shapes and own[name] != shapes[name]
    ]
    differences = {
        "missing keys": sorted(missing),
        "unexpected keys": sorted(unexpected),
        "tensors of another shape": misshapen,
    }
    return "; ".join(
        f"{len(names)} {what} ({some(names)})" for what, names in differences.items() if names
    )


def make_synthetic(architecture: str, seed: int, destination: str) -> dict[str, int]:
    """Write a checkpoint of random weights in the published format.

    A new model has many parameters that are all zero (positional embeddings and biases), which
    could hide a broken export; noise on top of the initialization makes them nonzero.

    :returns: ``parameters``, the number of weights written.
    """
    torch.manual_seed(seed)
    model = build_model(architecture)
    state = model.state_dict()
    noise = torch.Generator().manual_seed(seed)
    for tensor in state.values():
        if tensor.is_floating_point():  # batch norms have integer counters
            tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.02)
    if randomize := family_of(architecture).randomize:
        load_function(randomize)(model, noise)
    for name, tensor in state.items():
        if "output_hypernetworks_mlps" in name and "layers.2" in name:
            tensor.mul_(20)  # gives mask logits of about ±10, as in trained models, not ±0.5
        if "pred_obj_score_head" in name and "layers.2" in name:
            # Some frames then have the object, and others do not.
            tensor.mul_(20).add_(1.5 if name.endswith("bias") else 0.0)
    # Written through a file object: with a path, torch puts the file's name in the bytes.
    with open(destination, "wb") as file:
        torch.save({"model": state}, file)
    return {"parameters": sum(tensor.numel() for tensor in state.values())}
