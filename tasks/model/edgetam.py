"""EdgeTAM: SAM 2.1's neck, prompt encoder and decoder behind a RepViT trunk.

Settings and parameter names come from EdgeTAM's repository (facebookresearch/EdgeTAM,
``sam2/configs/edgetam.yaml``), so its checkpoint fits. `tasks.model.edgetam_memory` has the parts
of its memory that sam2 lacks.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.architecture import POSTPROCESSING, VIDEO_POSTPROCESSING
from tasks.model.edgetam_memory import GRID, EdgeTamVideoPredictor, LatentAttention, Perceiver
from tasks.model.published import NATIVE_IMAGE_SIZE
from tasks.system.errors import StageError

WIDTH, MEMORY_WIDTH = 256, 64
STRIDE = 16  # image pixels for each place of the embedding

# Arguments of sam2's model; EfficientTAM's configurations have the same.
SETTINGS: dict[str, Any] = {
    "num_maskmem": 7,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "add_tpos_enc_to_obj_ptrs": False,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "sam_mask_decoder_extra_args": POSTPROCESSING,
}


class RepVit(nn.Module):
    """timm's RepViT-M1 as a trunk: the features of its four stages, finest first.

    An image (1, 3, H, W) gives maps of 48, 96, 192 and 384 channels, at 1/4, 1/8, 1/16 and 1/32 of
    its size.
    """

    def __init__(self) -> None:
        super().__init__()
        # Never pretrained: the weights come from the checkpoint.
        body: Any = timm.create_model(
            "repvit_m1", pretrained=False, features_only=True, out_indices=(0, 1, 2, 3)
        )
        self.body = body
        # sam2 names the coarsest first.
        self.channel_list: list[int] = body.feature_info.channels()[::-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.body(image)
        return features


def build(architecture: str, image_size: int | None = None, video: bool = False) -> SAM2Base:
    """EdgeTAM in evaluation mode, with its initial weights.

    :param architecture: ignored, as there is only one.
    :param image_size: in pixels, instead of 1024.
    :param video: make sam2's predictor for videos.
    :raises StageError: when the memory cannot be divided into windows at that image size.
    """
    image_size = image_size or NATIVE_IMAGE_SIZE
    if video and image_size % (STRIDE * GRID):
        raise StageError(
            f"image_size: found {image_size}; allowed with `video = true` for EdgeTAM: a multiple "
            f"of {STRIDE * GRID}, because its memory is read in {GRID} × {GRID} windows"
        )
    trunk = RepVit()
    neck = FpnNeck(
        PositionEmbeddingSine(num_pos_feats=WIDTH, normalize=True, scale=None, temperature=10000),
        d_model=WIDTH,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    kind, extra = (EdgeTamVideoPredictor, VIDEO_POSTPROCESSING) if video else (SAM2Base, {})
    model = kind(
        image_encoder=ImageEncoder(trunk, neck, scalp=1),
        memory_attention=memory_attention(
            LatentAttention(WIDTH, 1, kv_in_dim=MEMORY_WIDTH), image_size // STRIDE, layers=2
        ),
        memory_encoder=memory_encoder(),
        image_size=image_size,
        use_high_res_features_in_sam=True,
        **SETTINGS,
        **extra,
    )
    model.spatial_perceiver = Perceiver(MEMORY_WIDTH)
    model.eval()
    return model


def memory_attention(cross_attention: RoPEAttention, side: int, layers: int) -> MemoryAttention:
    """sam2's memory attention, with a different attention to memories.

    :param side: the number of places on each side of the embedding.
    :param layers: the number of layers; sam2 has four.
    """
    layer = MemoryAttentionLayer(
        activation="relu",
        cross_attention=cross_attention,
        d_model=WIDTH,
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(WIDTH, 1, feat_sizes=(side, side)),
    )
    return MemoryAttention(WIDTH, pos_enc_at_input=True, layer=layer, num_layers=layers)


def memory_encoder() -> MemoryEncoder:
    """sam2's memory encoder; SAM2Base takes the size of its memory embeddings from it."""
    return MemoryEncoder(
        out_dim=MEMORY_WIDTH,
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=WIDTH, kernel_size=7, padding=3), num_layers=2),
        position_encoding=PositionEmbeddingSine(num_pos_feats=MEMORY_WIDTH),
    )


def randomize(model: SAM2Base, noise: torch.Generator) -> None:
    """Fit the batch norms to random weights; see `settle_batch_norms`."""
    settle_batch_norms(model.image_encoder.trunk, noise)


@torch.no_grad()
def settle_batch_norms(trunk: nn.Module, noise: torch.Generator, size: int = 256) -> None:
    """Fit the batch norms to random weights, with the statistics of one run on an image.

    With a new norm's mean of 0 and variance of 1, features would vanish over some sixty layers; and
    the norm that ends each residual branch is nearly zero, so the branch would have no effect.

    :param size: height and width of the image, in pixels.
    """
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.add_(torch.randn(module.weight.shape, generator=noise), alpha=0.2)
            module.momentum = 1.0  # use only the statistics of the next run
    # Coarse and fine structures at once, as in photographs.
    coarse, fine = (torch.randn(1, 3, side, side, generator=noise) for side in (16, size))
    image = functional.interpolate(coarse, size=(size, size), mode="bicubic") + fine / 4
    trunk.train()
    trunk(image)
    trunk.eval()
