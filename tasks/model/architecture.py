"""Builds a custom architecture from a YAML file in the format of sam2's own files.

The file is data. References within it (``${model.image_size}``) are resolved once; any other
interpolation is refused, because omegaconf would call the function that it names. A ``_target_``
must be a class of sam2, by its own name there. An architecture that cannot be exported is refused
with the offending key, before any weights are read.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.memory_encoder import MemoryEncoder
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor
from yaml import YAMLError

from tasks.system.errors import StageError

# sam2's own builder adds these to a configuration (sam2.build_sam.build_sam2).
POSTPROCESSING = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}

# sam2's builder for videos adds these (build_sam2_video_predictor). Its fill_hole_area is left out,
# because it fills holes only on CUDA.
VIDEO_POSTPROCESSING = {"binarize_mask_from_pts_for_mem_enc": True}

# A reference to a key of the same file. With a colon it would call a resolver.
_REFERENCE = re.compile(r"\$\{\s*[\w.\[\]]+\s*\}")
_CLASS = re.compile(r"sam2\.modeling(\.[a-z_][a-z0-9_]*)+\.[A-Z]\w*")

# A key, its value, whether the graphs support that value, and the values that they support.
Rule = tuple[str, object, bool, str]


def refusal(
    path: str | Path, key: str, value: object, allowed: str, condition: str = ""
) -> StageError:
    """The error for a value of the file; ``condition`` says when it applies."""
    return StageError(f"{path} {key}: found {value!r}; allowed{condition}: {allowed}")


def build(path: str | Path, video: bool = False) -> SAM2Base:
    """The model of a YAML file, in evaluation mode.

    :param video: make sam2's predictor for videos, as `sam2.build_sam` does from the same file.
    :raises StageError: with the file, the key, its value and the allowed values.
    """
    table = read(path)
    extra = table.get("sam_mask_decoder_extra_args") or {}
    if not isinstance(extra, dict):
        raise refusal(path, "model.sam_mask_decoder_extra_args", extra, "a table")
    table["sam_mask_decoder_extra_args"] = {**POSTPROCESSING, **extra}
    table["compile_image_encoder"] = False  # the encoder is traced, not compiled
    # Check every target before constructing the first.
    for key, part in parts_of(table, "model"):
        if not isinstance(part, dict) or "_target_" not in part:
            continue
        _class_of(path, key, part["_target_"])
        if part.get("weights_path") is not None:  # Hiera would open or download it
            allowed = "nothing (the weights come from the checkpoint)"
            raise refusal(path, f"{key}.weights_path", part["weights_path"], allowed)
    model = construct(path, "model", table)
    check(path, export_rules(model))
    if video:
        check(path, tracking_rules(model), " with `video = true`")
        table = {**table, **VIDEO_POSTPROCESSING}
        del table["_target_"]
        model = SAM2VideoPredictor(**construct(path, "model", table))
    model.eval()
    return model


def read(path: str | Path) -> dict[str, Any]:
    """The `model` table of a YAML file, with its references resolved.

    :raises StageError: when the file is missing or not YAML, has no such table, or has an
        interpolation that is more than a reference.
    """
    try:
        loaded = OmegaConf.load(path)
        for key, text in parts_of(OmegaConf.to_container(loaded, resolve=False), ""):
            if isinstance(text, str) and not _only_refers(text):
                allowed = (
                    "plain values, and references within the file such as ${model.image_size} "
                    "(anything else could run code)"
                )
                raise refusal(path, key, text, allowed)
        content = OmegaConf.to_container(loaded, resolve=True)
    except RecursionError:
        raise StageError(f"{path} is not a readable YAML file: it contains itself") from None
    except FileNotFoundError:
        raise StageError(f"there is no file {path}; `config` is relative to the project") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise StageError(f"{path} is not a readable YAML file: {error}") from error
    for key, text in parts_of(content, ""):
        if isinstance(text, str) and "${" in text:
            allowed = "a reference to a value that is not itself a reference"
            raise refusal(path, key, text, allowed)
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


def parts_of(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """A value of the file and all values within it, each with its key; also the names of keys."""
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, str(name)
            yield from parts_of(part, inner)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from parts_of(part, f"{key}[{number}]")


def _class_of(path: str | Path, key: str, target: Any) -> type:
    """The class that a ``_target_`` names.

    It must be the class's own name: a name that only begins with ``sam2.`` could lead to something
    that a module of sam2 imports, as ``sam2.build_sam.torch.load`` does.

    :raises StageError: when it names anything else.
    """
    if isinstance(target, str) and _CLASS.fullmatch(target):
        module, _, name = target.rpartition(".")
        with suppress(ImportError):
            named = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(named) and f"{named.__module__}.{named.__qualname__}" == target:
                return named
    allowed = "a class of sam2 (it would be called with the file's values)"
    raise refusal(path, f"{key}._target_", target, allowed)


def construct(path: str | Path, key: str, value: Any) -> Any:
    """A value of the file, with each table that has a ``_target_`` turned into an object of sam2.

    :raises StageError: when a class refuses its arguments.
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
    except Exception as error:  # a constructor can raise anything
        raise StageError(
            f"{path} does not describe a model: {key}: {target.__name__} does not accept the "
            f"file's values: {type(error).__name__}: {error}"
        ) from error


def check(path: str | Path, rules: Iterable[Rule], condition: str = "") -> None:
    """Check rules in turn, until one fails.

    :param condition: says when the rules apply.
    :raises StageError: with the key, its value and the allowed values.
    """
    for key, value, holds, allowed in rules:
        if not holds:
            raise refusal(path, f"model.{key}", value, allowed, condition)


def export_rules(model: Any) -> Iterator[Rule]:
    """The rules for exporting encoder and decoder; later rules rely on earlier ones."""
    base = "sam2.modeling.sam2_base.SAM2Base"
    yield "_target_", _class_name(model), isinstance(model, SAM2Base), base
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    yield "image_encoder.trunk", _class_name(trunk), isinstance(trunk, Hiera), "sam2's Hiera"
    yield "image_encoder.neck", _class_name(neck), isinstance(neck, FpnNeck), "sam2's FpnNeck"
    reasons = {
        "use_high_res_features_in_sam": "high_res_feats_0 and high_res_feats_1 are outputs of the "
        "encoder",
        "directly_add_no_mem_embed": "samexporter's encoder adds it",
    }
    for key, reason in reasons.items():
        yield key, getattr(model, key), bool(getattr(model, key)), f"true ({reason})"
    scalp = model.image_encoder.scalp
    yield "image_encoder.scalp", scalp, len(neck.convs) - scalp == 3, "a value that leaves 3 levels"
    patch, stride = trunk.patch_embed.proj.stride[0], model.backbone_stride
    allowed = f"{4 * patch}, the third level's"
    yield "backbone_stride", stride, stride == 4 * patch, allowed
    # The patches of a side must divide into windows of positions, and halve for each stage.
    unit = patch * math.lcm(trunk.window_spec[0], 2 ** len(trunk.q_pool_blocks))
    size = model.image_size
    yield "image_size", size, size > 0 and size % unit == 0, f"a multiple of {unit}"


def tracking_rules(model: SAM2Base) -> Iterator[Rule]:
    """The rules for exporting the tracking graphs; later rules rely on earlier ones."""

    def must_be(key: str, part: object, type_: type) -> Rule:
        allowed = f"{type_.__module__}.{type_.__qualname__}"
        return key, _class_name(part), isinstance(part, type_), allowed

    def flag(key: str, value: object, allowed: bool, reason: str = "") -> Rule:
        return key, value, bool(value) == allowed, f"{str(allowed).lower()}{reason}"

    memories = model.num_maskmem
    yield "num_maskmem", memories, memories > 0, "1 or more: with 0 the model remembers no frame"
    attention = model.memory_attention
    yield must_be("memory_attention", attention, MemoryAttention)
    yield must_be("memory_encoder", model.memory_encoder, MemoryEncoder)
    for key in ("use_obj_ptrs_in_encoder", "use_mask_input_as_output_without_sam"):
        yield flag(key, getattr(model, key), True)
    key = "non_overlap_masks_for_mem_enc"
    yield flag(key, getattr(model, key), False, ": objects are independent")
    yield flag("memory_attention.pos_enc_at_input", attention.pos_enc_at_input, True)
    for layer in attention.layers:
        name = "memory_attention.layer"
        yield flag(f"{name}.pos_enc_at_attn", layer.pos_enc_at_attn, False)
        keys, queries = "pos_enc_at_cross_attn_keys", "pos_enc_at_cross_attn_queries"
        yield flag(f"{name}.{keys}", getattr(layer, keys), True)
        yield flag(f"{name}.{queries}", getattr(layer, queries), False)
        activation = layer.activation_str
        yield f"{name}.activation", activation, activation == "relu", "relu"
        attentions = {"self_attention": layer.self_attn, "cross_attention": layer.cross_attn_image}
        for key, part in attentions.items():
            yield must_be(f"{name}.{key}", part, RoPEAttention)
            yield f"{name}.{key}.num_heads", part.num_heads, part.num_heads == 1, "1"
    width, memory_width = model.hidden_dim, model.mem_dim
    allowed_width = f"a divisor of {width}: pointers are split into tokens of this width"
    yield "memory_encoder.out_dim", memory_width, width % memory_width == 0, allowed_width


def _class_name(part: object) -> str | None:
    return None if part is None else type(part).__name__
