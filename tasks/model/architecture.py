"""A custom architecture: a YAML file as sam2's own, whose classes are constructed here.

The file is data. References within it (``${model.image_size}``) are resolved once; any other
interpolation is refused, for omegaconf would call what it names. A ``_target_`` is a class of sam2,
by the name that sam2 itself gives it. What the encoder and decoder files cannot hold is refused by
its key, before any weights are read.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.system.errors import StageError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

# What sam2's own builder adds to a configuration for prediction (sam2.build_sam.build_sam2).
POSTPROCESSING = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}

# What its builder for videos adds (build_sam2_video_predictor), but for holes, which it fills on
# CUDA alone.
VIDEO_POSTPROCESSING = {"binarize_mask_from_pts_for_mem_enc": True}

# A reference to a key of the same file; anything with a colon would call a resolver.
_REFERENCE = re.compile(r"\$\{\s*[\w.\[\]]+\s*\}")
_CLASS = re.compile(r"sam2\.modeling(\.[a-z_][a-z0-9_]*)+\.[A-Z]\w*")


def build(path: str | Path, video: bool = False) -> SAM2Base:
    """The model of a YAML file, in evaluation mode.

    :param video: as sam2's predictor for videos, which `sam2.build_sam` makes of the same file.
    :raises StageError: naming the file, the key, what was found and what is allowed.
    """
    table = read(path)
    extra = table.get("sam_mask_decoder_extra_args") or {}
    if not isinstance(extra, dict):
        raise StageError(
            f"{path} model.sam_mask_decoder_extra_args: found {extra!r}; allowed: a table"
        )
    table["sam_mask_decoder_extra_args"] = {**POSTPROCESSING, **extra}
    table["compile_image_encoder"] = False  # it is traced, not compiled
    # Every target is checked before the first is constructed.
    for key, part in tables_with_target(table, "model"):
        _class_of(path, key, part["_target_"])
        if part.get("weights_path") is not None:  # Hiera would open it, or fetch it
            raise StageError(
                f"{path} {key}.weights_path: found {part['weights_path']!r}; allowed: nothing "
                "(the weights are the checkpoint's)"
            )
    model = construct(path, "model", table)
    refuse_what_cannot_be_exported(path, model)
    if video:
        from sam2.sam2_video_predictor import SAM2VideoPredictor

        refuse_what_cannot_track(path, model)
        table = {**table, **VIDEO_POSTPROCESSING}
        del table["_target_"]
        model = SAM2VideoPredictor(**construct(path, "model", table))
    model.eval()
    return model


def read(path: str | Path) -> dict[str, Any]:
    """The `model` table of a YAML file, references in it resolved.

    :raises StageError: when the file is missing, no YAML, has no such table, or holds an
        interpolation that is more than a reference.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        loaded = OmegaConf.load(path)
        for key, text in _texts(OmegaConf.to_container(loaded, resolve=False), ""):
            if not _only_refers(text):
                raise StageError(
                    f"{path} {key}: found {text!r}; allowed: plain values, and references within "
                    "the file as ${model.image_size} (anything else could run what it names)"
                )
        content = OmegaConf.to_container(loaded, resolve=True)
    except RecursionError:
        raise StageError(f"{path} is not a readable YAML file: it contains itself") from None
    except FileNotFoundError:
        raise StageError(f"there is no file {path}; `config` is relative to the project") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise StageError(f"{path} is not a readable YAML file: {error}") from error
    for key, text in _texts(content, ""):
        if "${" in text:
            raise StageError(
                f"{path} {key}: found {text!r}; allowed: a reference as a value that stands for "
                "no other reference"
            )
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "_target_" not in model:
        raise StageError(
            f"{path} model: found {type(model).__name__}; allowed: a table with a _target_, "
            "as in sam2's own configs/sam2.1/sam2.1_hiera_t.yaml"
        )
    return model


def _only_refers(text: str) -> bool:
    """Whether every interpolation in a text is a reference, nested ones included."""
    while (shorter := _REFERENCE.sub("x", text)) != text:
        text = shorter
    return "${" not in text and not ("\\" in text and "$" in text)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text in a configuration with its key; keys are texts too."""
    if isinstance(value, dict):
        for name, part in value.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, str(name)
            yield from _texts(part, inner)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, f"{key}[{number}]")
    elif isinstance(value, str):
        yield key, value


def tables_with_target(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table that names a ``_target_``, with its key."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield key, value
        for name, part in value.items():
            yield from tables_with_target(part, f"{key}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from tables_with_target(part, f"{key}[{number}]")


def _class_of(path: str | Path, key: str, target: Any) -> type:
    """The class that a ``_target_`` names.

    A name that only begins with ``sam2.`` may lead through one of its modules to what that has
    imported, ``sam2.build_sam.torch.load`` for example: it must be the class's own name.

    :raises StageError: when it is none of sam2's.
    """
    if isinstance(target, str) and _CLASS.fullmatch(target):
        module, _, name = target.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            found = None
        if inspect.isclass(found) and f"{found.__module__}.{found.__qualname__}" == target:
            return found
    raise StageError(
        f"{path} {key}._target_: found {target!r}; allowed: a class of sam2 "
        "(it would be called with what the file says)"
    )


def construct(path: str | Path, key: str, value: Any) -> Any:
    """What a value of the file stands for: tables with a ``_target_`` become objects of sam2.

    :raises StageError: when a class does not take what its table says.
    """
    if isinstance(value, list):
        return [construct(path, f"{key}[{i}]", part) for i, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    parts = {name: construct(path, f"{key}.{name}", part) for name, part in value.items()}
    if "_target_" not in parts:
        return parts
    target = _class_of(path, key, parts.pop("_target_"))
    try:
        return target(**parts)
    except Exception as error:  # whatever a constructor raises at what it is given
        raise StageError(
            f"{path} does not describe a model: {key}: {target.__name__} does not take what the "
            f"file says: {type(error).__name__}: {error}"
        ) from error


def refuse_what_cannot_be_exported(path: str | Path, model: Any) -> None:
    """Check a model against what the encoder and decoder files are made of.

    :raises StageError: with the key.
    """
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck
    from sam2.modeling.sam2_base import SAM2Base

    def refuse(key: str, found: object, allowed: str) -> None:
        raise StageError(f"{path} model.{key}: found {found!r}; allowed: {allowed}")

    if not isinstance(model, SAM2Base):
        refuse("_target_", type(model).__name__, "sam2.modeling.sam2_base.SAM2Base")
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    if not isinstance(trunk, Hiera):
        refuse("image_encoder.trunk", type(trunk).__name__, "sam2's Hiera")
    if not isinstance(neck, FpnNeck):
        refuse("image_encoder.neck", type(neck).__name__, "sam2's FpnNeck")
    if not model.use_high_res_features_in_sam:
        refuse(
            "use_high_res_features_in_sam",
            False,
            "true (high_res_feats_0 and high_res_feats_1 are outputs of the encoder)",
        )
    if not model.directly_add_no_mem_embed:
        refuse("directly_add_no_mem_embed", False, "true (samexporter's encoder adds it)")
    levels = len(neck.convs) - model.image_encoder.scalp
    if levels != 3:
        refuse("image_encoder.scalp", model.image_encoder.scalp, "one that leaves 3 levels")
    patch = trunk.patch_embed.proj.stride[0]
    if model.backbone_stride != 4 * patch:
        refuse("backbone_stride", model.backbone_stride, f"{4 * patch}, the third level's")
    # The patches of a side must divide into windows of positions, and be halved for each stage.
    unit = patch * math.lcm(trunk.window_spec[0], 2 ** len(trunk.q_pool_blocks))
    if model.image_size % unit or model.image_size <= 0:
        refuse("image_size", model.image_size, f"a multiple of {unit}")


def refuse_what_cannot_track(path: str | Path, model: SAM2Base) -> None:
    """Check a model's memory against what the graphs that track are made of.

    :raises StageError: with the key.
    """
    from sam2.modeling.memory_attention import MemoryAttention
    from sam2.modeling.memory_encoder import MemoryEncoder
    from sam2.modeling.sam.transformer import RoPEAttention

    def require(key: str, found: object, holds: bool, allowed: str) -> None:
        if not holds:
            raise StageError(
                f"{path} model.{key}: found {found!r}; allowed with `video = true`: {allowed}"
            )

    def kind(part: object) -> str | None:
        return None if part is None else type(part).__name__

    memories = model.num_maskmem
    require("num_maskmem", memories, memories > 0, "1 or more: a model of 0 remembers no frame")
    attention, encoder = model.memory_attention, model.memory_encoder
    require(
        "memory_attention",
        kind(attention),
        isinstance(attention, MemoryAttention),
        "sam2.modeling.memory_attention.MemoryAttention",
    )
    require(
        "memory_encoder",
        kind(encoder),
        isinstance(encoder, MemoryEncoder),
        "sam2.modeling.memory_encoder.MemoryEncoder",
    )
    for key in (
        "use_obj_ptrs_in_encoder",
        "use_mask_input_as_output_without_sam",
    ):
        require(key, getattr(model, key), bool(getattr(model, key)), "true")
    key = "non_overlap_masks_for_mem_enc"
    require(key, getattr(model, key), not getattr(model, key), "false: objects are independent")
    require(
        "memory_attention.pos_enc_at_input",
        attention.pos_enc_at_input,
        bool(attention.pos_enc_at_input),
        "true",
    )
    for layer in attention.layers:
        for key, wanted in (
            ("pos_enc_at_attn", False),
            ("pos_enc_at_cross_attn_keys", True),
            ("pos_enc_at_cross_attn_queries", False),
        ):
            found = getattr(layer, key)
            allowed = str(wanted).lower()
            require(f"memory_attention.layer.{key}", found, bool(found) == wanted, allowed)
        activation = layer.activation_str
        require("memory_attention.layer.activation", activation, activation == "relu", "relu")
        for key, part in (
            ("self_attention", layer.self_attn),
            ("cross_attention", layer.cross_attn_image),
        ):
            name = f"memory_attention.layer.{key}"
            allowed = "sam2.modeling.sam.transformer.RoPEAttention"
            require(name, kind(part), isinstance(part, RoPEAttention), allowed)
            require(f"{name}.num_heads", part.num_heads, part.num_heads == 1, "1")
    width, memory_width = model.hidden_dim, model.mem_dim
    require(
        "memory_encoder.out_dim",
        memory_width,
        width % memory_width == 0,
        f"a divisor of {width}: pointers are told as so many tokens",
    )
