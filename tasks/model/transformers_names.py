"""The names that transformers gives the weights of SAM 2, as those that sam2 gives them.

Read from transformers 5.22's ``Sam2Model``, ``Sam2VideoModel``, ``EdgeTamModel`` and
``EdgeTamVideoModel``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# From transformers' names to sam2's, each in turn where it is found.
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
    # What only tracking uses.
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

_POINTS = "prompt_encoder.point_embed.weight"
# The same matrix is there under two names, or, of tied weights, under one of them.
GAUSSIAN = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
_GAUSSIAN_OF_SAM2 = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# A layer of a multilayer perceptron, where the first and the last have names.
_LAYER = re.compile(r"(.*)\.(proj_in|proj_out|layers\.(\d+))\.(weight|bias)")
_DOWNSAMPLER = re.compile(r"memory_encoder\.mask_downsampler\.(layers\.(\d+)\.(\w+)|final_conv)\.")


def are_of_transformers(names: Iterable[str]) -> bool:
    """Whether weights have transformers' names."""
    return any(name.startswith(("vision_encoder.", "mask_decoder.")) for name in names)


def to_sam2(names: Iterable[str]) -> dict[str, list[str]]:
    """sam2's names of each weight, in the order that the weight is cut into along its first axis.

    One name means that the weight is taken whole. A second copy of a weight has no name. Weights
    of the same one name are one there, put together in the alphabetical order of their own: keys
    before values.
    """
    names = list(names)
    last = _last_layers(names)
    found: dict[str, list[str]] = {}
    for name in names:
        if name in GAUSSIAN:
            seen = [_GAUSSIAN_OF_SAM2] in found.values()
            found[name] = [] if seen else [_GAUSSIAN_OF_SAM2]
        elif name == _POINTS:
            found[name] = [f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(4)]
        else:
            found[name] = [_renamed(_numbered(_downsampler(name), last))]
    return found


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _last_layers(names: Iterable[str]) -> dict[str, int]:
    """The number of the last layer of each perceptron: one above those that have numbers."""
    last: dict[str, int] = {}
    for name in names:
        match = _LAYER.fullmatch(name)
        if match is None:
            continue
        if match[2] == "proj_in":
            last[match[1]] = max(last.get(match[1], 0), 1)
        elif match[3] is not None:
            last[match[1]] = max(last.get(match[1], 0), int(match[3]) + 2)
    return last


def _numbered(name: str, last: dict[str, int]) -> str:
    """A perceptron's layer by its number."""
    match = _LAYER.fullmatch(name)
    if match is None or match[1] not in last:
        return name
    number = {"proj_in": 0, "proj_out": last[match[1]]}.get(match[2])
    if number is None:
        number = int(match[3]) + 1
    return f"{match[1]}.layers.{number}.{match[4]}"


def _downsampler(name: str) -> str:
    """A layer of the memory encoder's mask downsampler, which sam2 counts one by one.

    A convolution, its norm and an activation are three; the convolution at the end has no more.
    """
    match = _DOWNSAMPLER.match(name)
    if match is None:
        return name
    number = 3 * int(match[2]) + (match[3] == "layer_norm") if match[2] else 12
    return f"memory_encoder.mask_downsampler.encoder.{number}.{name[match.end() :]}"
