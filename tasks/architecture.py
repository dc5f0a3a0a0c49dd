"""A custom architecture: a YAML file as sam2's own, from which hydra instantiates the model.

hydra calls whatever `_target_` names, so only classes of sam2 are let through; and what the encoder
and decoder files cannot hold is refused by its key, before any weights are read.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.child import StageError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

# What sam2's own builder adds to a configuration for prediction (sam2.build_sam.build_sam2).
POSTPROCESSING = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def build(path: str | Path) -> SAM2Base:
    """The model of a YAML file, in evaluation mode.

    :raises StageError: naming the file, the key, what was found and what is allowed.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    config = read(path)
    for key, target in targets(config, "model"):
        if not is_class_of_sam2(target):
            raise StageError(
                f"{path} {key}: found {target!r}; allowed: a class of sam2 "
                "(it would be called with what the file says)"
            )
    extra = config.get("sam_mask_decoder_extra_args") or {}
    config["sam_mask_decoder_extra_args"] = {**POSTPROCESSING, **extra}
    config["compile_image_encoder"] = False  # it is traced, not compiled
    try:
        model = instantiate(config)
    except InstantiationException as error:
        raise StageError(f"{path} does not describe a model: {_reason(error)}") from error
    refuse_what_cannot_be_exported(path, model)
    model.eval()
    return model


def read(path: str | Path) -> dict[str, Any]:
    """The `model` table of a YAML file, references in it resolved.

    :raises StageError: when the file is missing, no YAML or has no such table.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise StageError(f"there is no file {path}; `config` is relative to the project") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise StageError(f"{path} is not a readable YAML file: {error}") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "_target_" not in model:
        raise StageError(
            f"{path} model: found {type(model).__name__}; allowed: a table with a _target_, "
            "as in sam2's own configs/sam2.1/sam2.1_hiera_t.yaml"
        )
    return model


def targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` in a configuration, with its key."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "_target_":
                yield f"{key}.{name}", part
            else:
                yield from targets(part, f"{key}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from targets(part, f"{key}[{number}]")


def is_class_of_sam2(target: Any) -> bool:
    """Whether a name is that of a class which sam2 itself defines.

    A name that only begins with ``sam2.`` may lead through one of its modules to what that has
    imported, ``sam2.build_sam.torch.load`` for example.
    """
    from hydra.utils import get_object

    if not isinstance(target, str) or not target.startswith("sam2."):
        return False
    try:
        found = get_object(target)
    except Exception:  # hydra's own errors, and whatever an import raises
        return False
    return inspect.isclass(found) and found.__module__.startswith("sam2.")


def _reason(error: Exception) -> str:
    """hydra's error on one line: what was wrong, and with which key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key:").strip() for line in lines if "full_key:" in line]
    what = [line for line in lines if "full_key:" not in line]
    key = ".".join(["model", *keys])
    return f"{key}: {' '.join(what)}"


def refuse_what_cannot_be_exported(path: str | Path, model: SAM2Base) -> None:
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
