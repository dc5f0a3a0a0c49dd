"""Builds sam2's model and gives it a checkpoint's weights, or made-up ones. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sam2.build_sam import build_sam2, build_sam2_video_predictor

from tasks.config.published import AUTO, EDGETAM, NATIVE_IMAGE_SIZE, PUBLISHED
from tasks.model import recognition, weights
from tasks.model.recognition import (
    Shapes,
    shapes_of,
    without_memory,
    without_misshapen_memory,
)
from tasks.model.weights import some
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor


def build_model(architecture: str, image_size: int | None = None, video: bool = False) -> SAM2Base:
    """sam2's model in evaluation mode on the CPU, with the weights it was initialized with.

    :param architecture: one of sam2's own, EdgeTAM, or the path of a YAML file.
    :param image_size: of one of these by name, another than 1024.
    :param video: as sam2's predictor for videos.
    :raises StageError: when the file describes no model that can be exported.
    """
    if architecture in PUBLISHED:
        other = [f"++model.image_size={image_size}"] if image_size else []
        build = build_sam2_video_predictor if video else build_sam2
        return build(
            PUBLISHED[architecture], ckpt_path=None, device="cpu", hydra_overrides_extra=other
        )
    if architecture == EDGETAM:
        from tasks.model import edgetam

        return edgetam.build(image_size or NATIVE_IMAGE_SIZE, video)
    from tasks.model import architecture as custom

    return custom.build(architecture, video)


def load_video_model(
    architecture: str, checkpoint: str | Path, image_size: int | None = None
) -> SAM2VideoPredictor:
    """sam2's predictor for videos with the weights of a checkpoint.

    :raises StageError: when the file is no such checkpoint, fits another architecture, or either
        has no memory of earlier frames.
    """
    predictor: SAM2VideoPredictor = load_model(architecture, checkpoint, image_size, video=True)
    predictor.fill_hole_area = 0  # on the CPU sam2 fills none, and warns of it
    return predictor


def load_model(
    architecture: str, checkpoint: str | Path, image_size: int | None = None, video: bool = False
) -> SAM2Base:
    """sam2's model with the weights of a checkpoint.

    :param architecture: `AUTO` for the one of sam2's that the weights are of.
    :param checkpoint: any file that `weights.read` reads.
    :raises StageError: when the file is no such checkpoint, or fits another architecture.
    """
    found = weights.read(checkpoint)
    shapes = shapes_of(found)
    architecture = recognized(architecture, checkpoint, shapes)
    model = build_model(architecture, image_size, video)
    own = shapes_of(model.state_dict())
    # A model that was made for images has no memory; the graphs do not hold it either.
    image_only = not all(
        any(name.startswith("memory_attention.") for name in names) for names in (own, shapes)
    )
    if image_only and video:
        raise StageError(
            f"{checkpoint} has no weights of a memory (memory_attention.…), which `video = true` "
            "needs: it was made for images. Leave `video` out, or give a checkpoint that tracks."
        )
    if image_only:
        own, shapes = without_memory(own), without_memory(shapes)
    fits = recognition.name_of(shapes)
    if not video:
        own, shapes = without_misshapen_memory(own, shapes)
    mismatch = state_dict_mismatch(own, shapes)
    if mismatch:
        hint = f" Its weights are those of {fits}." if fits not in (None, architecture) else ""
        hint += _frames_hint(own, shapes)
        raise StageError(f"{checkpoint} does not fit {architecture}: {mismatch}.{hint}")
    state = model.state_dict()
    used = {name: found[name] for name in shapes}
    unusable = [name for name in used if not _is_usable(used[name], state[name])]
    if unusable:
        raise StageError(
            f"{checkpoint} has weights that are no plain numbers: {some(unusable)}; expected "
            f"floating point, found {used[unusable[0]].dtype}. Save the model as it was before it "
            "was quantized or packed."
        )
    model.load_state_dict(used, strict=False)  # names were compared above
    _refuse_infinite(checkpoint, state)
    return model


def _frames_hint(own: Shapes, given: Shapes) -> str:
    """What to do about another number of remembered frames; empty where it is the same."""
    name = "maskmem_tpos_enc"
    if own.get(name) == given.get(name) or own.get(name, ())[1:] != given.get(name, ())[1:]:
        return ""
    frames = given[name][0]
    return (
        f" It remembers {frames} frames, not {own[name][0]}: put `num_maskmem: {frames}` in a YAML "
        "file as sam2's own and name that with `config`, or leave `video` out."
    )


def _is_usable(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a tensor can be copied to a weight as it is, but for its precision."""
    return (
        given.layout == torch.strided
        and not given.is_meta
        and given.is_floating_point() == own.is_floating_point()
    )


def _refuse_infinite(checkpoint: str | Path, state: weights.Weights) -> None:
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise StageError(
            f"{checkpoint} has weights that are NaN or infinite, in {len(bad)} of {len(state)} "
            f"tensors: {some(bad)}; expected numbers. Its training diverged, or the file is "
            "damaged: take an earlier checkpoint, or fetch it again."
        )


def recognized(architecture: str, checkpoint: str | Path, shapes: Shapes | None = None) -> str:
    """An architecture's name or file, of `AUTO` the one that the checkpoint's weights are of.

    :raises StageError: when they are of none of sam2's.
    """
    if architecture != AUTO:
        return architecture
    return recognition.recognize(checkpoint, shapes or shapes_of(weights.read(checkpoint)))


def state_dict_mismatch(own: Shapes, given: Shapes) -> str:
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
        parts.append(f"{len(missing)} missing keys ({some(sorted(missing))})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected keys ({some(sorted(unexpected))})")
    if misshapen:
        parts.append(f"{len(misshapen)} tensors of another shape ({some(misshapen)})")
    return "; ".join(parts)


def make_synthetic(architecture: str, seed: int, destination: str) -> dict[str, int]:
    """Write a checkpoint of random weights in the published format.

    A new model has many parameters that are all zero (positional embeddings and biases), behind
    which a broken export could hide; noise on top of the initialization leaves none.

    :returns: ``parameters``, how many numbers were written.
    """
    torch.manual_seed(seed)
    model = build_model(architecture)
    weights = model.state_dict()
    noise = torch.Generator().manual_seed(seed)
    for tensor in weights.values():
        if tensor.is_floating_point():  # batch norms count what they have seen
            tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.02)
    if architecture == EDGETAM:
        from tasks.model import edgetam

        edgetam.settle_batch_norms(model.image_encoder.trunk, noise)
    for name, tensor in weights.items():
        if "output_hypernetworks_mlps" in name and "layers.2" in name:
            tensor.mul_(20)  # mask logits of about ±10, as trained models have, not ±0.5
        if "pred_obj_score_head" in name and "layers.2" in name:
            # Of some frames the object is there, of others it is not.
            tensor.mul_(20).add_(1.5 if name.endswith("bias") else 0.0)
    # Written through a file object: given a path, torch puts the file's name in the bytes.
    with open(destination, "wb") as file:
        torch.save({"model": weights}, file)
    return {"parameters": sum(tensor.numel() for tensor in weights.values())}
