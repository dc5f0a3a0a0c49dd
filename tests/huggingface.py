"""transformers' own PyTorch implementations of SAM 2 and EdgeTAM, with the weights of sam2's
model."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    EdgeTamConfig,
    EdgeTamMaskDecoderConfig,
    EdgeTamModel,
    EdgeTamPromptEncoderConfig,
    EdgeTamVisionConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    TimmWrapperConfig,
)

from tasks.model.edgetam import RepVit

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

# transformers has these only in its video model.
VIDEO = re.compile(
    r"(memory_attention|memory_encoder|spatial_perceiver|mask_downsample|obj_ptr_proj"
    r"|obj_ptr_tpos_proj)\.|(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)

# From sam2's names to transformers'; each pattern that matches applies, in this order.
NAMES = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.body\.", "vision_encoder.backbone.timm_model."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
)
POINT = "prompt_encoder.point_embeddings.{}.weight"
LAYER = re.compile(r"(.*)\.layers\.(\d+)\.(weight|bias)")


def build(model: SAM2Base) -> Sam2Model | EdgeTamModel:
    """transformers' model of the same architecture, with the weights of sam2's.

    :raises RuntimeError: when a weight has no counterpart in transformers, or the reverse.
    """
    assert model.sam_mask_decoder.iou_prediction_head.sigmoid_output  # transformers always has it
    weights = renamed(model.state_dict())
    if not model.sam_mask_decoder.pred_obj_scores:
        weights |= without_object_score(model.hidden_dim)
    # transformers keeps this matrix twice.
    weights["shared_image_embedding.positional_embedding"] = weights[
        "prompt_encoder.shared_embedding.positional_embedding"
    ]
    config = config_of(model)
    kind = EdgeTamModel if isinstance(config, EdgeTamConfig) else Sam2Model
    built = kind(config).eval()
    built.load_state_dict(weights)
    if not model.sam_mask_decoder.pred_obj_scores:
        built.mask_decoder.transformer = WithoutFirstToken(built.mask_decoder.transformer)
    return built


def config_of(model: SAM2Base) -> Sam2Config | EdgeTamConfig:
    """transformers' configuration for the architecture of sam2's model."""
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    prompts, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    lateral = neck.convs[0].conv
    if isinstance(trunk, RepVit):
        whole, of_vision = EdgeTamConfig, EdgeTamVisionConfig
        of_prompts, of_decoder = EdgeTamPromptEncoderConfig, EdgeTamMaskDecoderConfig
        backbone = TimmWrapperConfig(
            architecture="repvit_m1",
            model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        )
    else:
        whole, of_vision = Sam2Config, Sam2VisionConfig
        of_prompts, of_decoder = Sam2PromptEncoderConfig, Sam2MaskDecoderConfig
        backbone = hiera_config_of(model)
    grid = model.image_size // model.backbone_stride
    layer = decoder.transformer.layers[0]
    attention = layer.cross_attn_token_to_image
    return whole(
        vision_config=of_vision(
            backbone_config=backbone,
            backbone_channel_list=list(trunk.channel_list),
            backbone_feature_sizes=[[grid * scale, grid * scale] for scale in (4, 2, 1)],
            fpn_hidden_size=lateral.out_channels,
            fpn_kernel_size=lateral.kernel_size[0],
            fpn_stride=lateral.stride[0],
            fpn_padding=lateral.padding[0],
            fpn_top_down_levels=list(neck.fpn_top_down_levels),
            num_feature_levels=len(neck.convs) - model.image_encoder.scalp,
        ),
        prompt_encoder_config=of_prompts(
            hidden_size=prompts.embed_dim,
            image_size=model.image_size,
            patch_size=model.backbone_stride,
            mask_input_channels=prompts.mask_downscaling[3].out_channels,
        ),
        mask_decoder_config=of_decoder(
            hidden_size=decoder.transformer_dim,
            mlp_dim=layer.mlp.layers[0].out_features,
            num_hidden_layers=decoder.transformer.depth,
            num_attention_heads=attention.num_heads,
            attention_downsample_rate=attention.embedding_dim // attention.internal_dim,
            num_multimask_outputs=decoder.num_multimask_outputs,
            iou_head_depth=decoder.iou_prediction_head.num_layers,
            iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
        ),
    )


def hiera_config_of(model: SAM2Base) -> Sam2HieraDetConfig:
    """transformers' configuration for the trunk of sam2's model."""
    trunk = model.image_encoder.trunk
    ends = [trunk.blocks[end] for end in trunk.stage_ends]
    first = trunk.blocks[0].mlp.layers[0]
    patch = trunk.patch_embed.proj
    before = [-1, *trunk.stage_ends]
    return Sam2HieraDetConfig(
        hidden_size=patch.out_channels,
        image_size=[model.image_size, model.image_size],
        patch_kernel_size=list(patch.kernel_size),
        patch_stride=list(patch.stride),
        patch_padding=list(patch.padding),
        query_stride=list(trunk.q_stride),
        window_positional_embedding_background_size=list(trunk.pos_embed.shape[-2:]),
        num_query_pool_stages=len(trunk.q_pool_blocks),
        blocks_per_stage=[after - end for end, after in pairwise(before)],
        embed_dim_per_stage=[block.dim_out for block in ends],
        num_attention_heads_per_stage=[block.attn.num_heads for block in ends],
        window_size_per_stage=list(trunk.window_spec),
        global_attention_blocks=list(trunk.global_att_blocks),
        mlp_ratio=first.out_features / first.in_features,
    )


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """sam2's weights of an image model under transformers' names."""
    found = {}
    for name, tensor in weights.items():
        if VIDEO.match(name):
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    found["prompt_encoder.point_embed.weight"] = torch.cat(
        [found.pop(POINT.format(label)) for label in range(4)]
    )
    return with_named_ends(found)


def with_named_ends(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the first and last layer of each multilayer perceptron; the rest have numbers."""
    layers = {name: match for name in weights if (match := LAYER.fullmatch(name))}
    last: dict[str, int] = {}
    for match in layers.values():
        last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    found = dict(weights)
    for name, match in layers.items():
        number = int(match[2])
        place = {0: "proj_in", last[match[1]]: "proj_out"}.get(number, f"layers.{number - 1}")
        found[f"{match[1]}.{place}.{match[3]}"] = found.pop(name)
    return found


def without_object_score(width: int) -> dict[str, Tensor]:
    """Weights of a head that always outputs 10, as sam2 does for a model without a head."""
    head = "mask_decoder.pred_obj_score_head"
    return {
        "mask_decoder.obj_score_token.weight": torch.zeros(1, width),
        f"{head}.proj_in.weight": torch.zeros(width, width),
        f"{head}.proj_in.bias": torch.zeros(width),
        f"{head}.layers.0.weight": torch.zeros(width, width),
        f"{head}.layers.0.bias": torch.zeros(width),
        f"{head}.proj_out.weight": torch.zeros(1, width),
        f"{head}.proj_out.bias": torch.full((1,), 10.0),
    }


class WithoutFirstToken(nn.Module):
    """The decoder's transformer, run without the object score's token.

    sam2 has models without that token, transformers does not.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, point_embeddings: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
        tokens, image = self.transformer(point_embeddings=point_embeddings[:, :, 1:], **rest)
        return nn.functional.pad(tokens, (0, 0, 1, 0)), image
