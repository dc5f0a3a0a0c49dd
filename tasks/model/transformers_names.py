"""Translates transformers' names for weights into sam2's, and for SAM 1 into segment-anything's.

The names come from ``Sam2Model``, ``Sam2VideoModel``, ``EdgeTamModel``, ``EdgeTamVideoModel`` and
``SamModel`` of transformers 5.22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Replacements from transformers' names to sam2's, applied in turn.
_RENAMED = (
    (r"^vision_encoder\.backbone\.timm_model\.", "image_encoder.trunk.body."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"mask_embed\.conv1\.", "mask_downscaling.0."),
    (r"mask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"mask_embed\.conv2\.", "mask_downscaling.3."),
    (r"mask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"mask_embed\.conv3\.", "mask_downscaling.6."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"upscale_conv1\.", "output_upscaling.0."),
    (r"upscale_layer_norm\.", "output_upscaling.1."),
    (r"upscale_conv2\.", "output_upscaling.3."),
    # EdgeTAM's perceiver.
    (r"^spatial_perceiver\.latents_1d$", "spatial_perceiver.latents"),
    (r"^(spatial_perceiver\..*)\.layer_norm_input\.", r"\1.attn.norm_x."),
    (r"^(spatial_perceiver\..*)\.layer_norm_latents\.", r"\1.attn.norm_latents."),
    (r"^(spatial_perceiver\..*)\.layer_norm_self\.", r"\1.self_attn.norm."),
    (r"^(spatial_perceiver\..*)\.cross_attention\.", r"\1.attn."),
    (r"^(spatial_perceiver\..*)\.self_attention\.", r"\1.self_attn."),
    (r"^(spatial_perceiver\..*attn)\.q_proj\.", r"\1.to_q."),
    (r"^(spatial_perceiver\..*attn)\.o_proj\.", r"\1.to_out."),
    (r"^(spatial_perceiver\..*attn)\.[kv]_proj\.", r"\1.to_kv."),
    (r"^(spatial_perceiver\..*[._])mlp\.layer_norm\.", r"\1ff.0."),
    (r"^(spatial_perceiver\..*[._])mlp\.up_proj\.", r"\1ff.1."),
    (r"^(spatial_perceiver\..*[._])mlp\.down_proj\.", r"\1ff.3."),
    (r"^(memory_attention\..*)\.mlp\.up_proj\.", r"\1.linear1."),
    (r"^(memory_attention\..*)\.mlp\.down_proj\.", r"\1.linear2."),
    (r"\.o_proj\.", ".out_proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    # Only tracking uses these.
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"(\.fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d?)\.", r".norm\1."),
)

# For SAM 1, further replacements after these, to segment-anything's names.
_RENAMED_IN_SAM_1 = (
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^(prompt_encoder\.point_embed)\.", r"\1dings."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
)

_POINTS = "prompt_encoder.point_embed.weight"
# Two names for the same matrix; a file with tied weights has only one of them.
GAUSSIAN = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
_GAUSSIAN_OF_SAM2 = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# A layer of a multilayer perceptron; the first and the last are named, the others numbered.
_LAYER = re.compile(r"(.*)\.(proj_in|proj_out|layers\.(\d+))\.(weight|bias)")
_DOWNSAMPLER = re.compile(r"memory_encoder\.mask_downsampler\.(layers\.(\d+)\.(\w+)|final_conv)\.")


def are_of_transformers(names: Iterable[str]) -> bool:
    """Whether weights have transformers' names; segment-anything has ``image_encoder``."""
    roots = {name.partition(".")[0] for name in names}
    return "vision_encoder" in roots or ("mask_decoder" in roots and "image_encoder" not in roots)


def to_own(names: Iterable[str]) -> dict[str, list[str]]:
    """sam2's or segment-anything's names for each weight; see `to_sam2`."""
    names = list(names)
    translated = to_sam2(names)
    if not any(name.startswith("vision_encoder.layers.") for name in names):
        return translated
    return {name: [_in_sam_1(each) for each in parts] for name, parts in translated.items()}


def _in_sam_1(name: str) -> str:
    """segment-anything's name for a weight that would have this name in sam2."""
    for pattern, replacement in _RENAMED_IN_SAM_1:
        name = re.sub(pattern, replacement, name)
    return name


def to_sam2(names: Iterable[str]) -> dict[str, list[str]]:
    """sam2's names for each weight.

    A weight with several names is split along its first axis, one piece for each name. A second
    copy of a weight has no name. Weights with the same name are concatenated in the alphabetical
    order of their own names: keys before values.
    """
    names = list(names)
    last = _last_layers(names)
    translated: dict[str, list[str]] = {}
    for name in names:
        if name in GAUSSIAN:
            is_copy = [_GAUSSIAN_OF_SAM2] in translated.values()
            translated[name] = [] if is_copy else [_GAUSSIAN_OF_SAM2]
        elif name == _POINTS:
            translated[name] = [f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(4)]
        else:
            own = _numbered(_downsampler(name), last)
            for pattern, replacement in _RENAMED:
                own = re.sub(pattern, replacement, own)
            translated[name] = [own]
    return translated


def _last_layers(names: Iterable[str]) -> dict[str, int]:
    """The number of each perceptron's last layer."""
    last: dict[str, int] = {}
    for match in filter(None, map(_LAYER.fullmatch, names)):
        if match[2] != "proj_out":
            own = 1 if match[2] == "proj_in" else int(match[3]) + 2
            last[match[1]] = max(last.get(match[1], 0), own)
    return last


def _numbered(name: str, last: dict[str, int]) -> str:
    """The name of a perceptron's layer, with a number."""
    match = _LAYER.fullmatch(name)
    if match is None or match[1] not in last:
        return name
    number = {"proj_in": 0, "proj_out": last[match[1]]}.get(match[2])
    if number is None:
        number = int(match[3]) + 1
    return f"{match[1]}.layers.{number}.{match[4]}"


def _downsampler(name: str) -> str:
    """The name of a layer of the mask downsampler, with sam2's number.

    sam2 counts a convolution, its norm and its activation as three layers; the last convolution has
    neither norm nor activation.
    """
    match = _DOWNSAMPLER.match(name)
    if match is None:
        return name
    number = 3 * int(match[2]) + (match[3] == "layer_norm") if match[2] else 12
    return f"memory_encoder.mask_downsampler.encoder.{number}.{name[match.end() :]}"
