"""EfficientTAM: a plain ViT before SAM 2's decoder and memory, without high-resolution features.

Settings and parameter names come from its repository (yformer/EfficientTAM, abcd061,
``efficient_track_anything/configs/efficienttam/*.yaml``), so its checkpoints fit. PyPI's
efficient-track-anything 1.0 has its classes, in an earlier sam2 that is also named ``sam2``. This
module has the classes that sam2 lacks, under the same names. A process that imports the package as
its sam2 (`tasks.model.reference_package`) builds the model from the package's classes only.
"""

from __future__ import annotations

import importlib
import math
from contextlib import suppress
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.backbones.image_encoder import ImageEncoder
from sam2.modeling.backbones.utils import PatchEmbed
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.architecture import VIDEO_POSTPROCESSING
from tasks.model.edgetam import (
    MEMORY_WIDTH,
    SETTINGS,
    STRIDE,
    WIDTH,
    memory_attention,
    memory_encoder,
)
from tasks.model.edgetam_memory import rotated
from tasks.model.published import native_image_size
from tasks.system.errors import StageError

# The width and the number of heads of each trunk.
TRUNKS = {"s": (384, 6), "ti": (192, 3)}
DEPTH, WINDOW = 12, 14
WHOLE = (2, 5, 8, 11)  # blocks that attend to the whole map, not to windows
PRETRAINED = 14  # places on each side of the positional embedding

POOL = 2  # variants 1 and 2 merge this many places of a memory on each side
SHIFT = math.log(POOL * POOL)  # added to the logit of a key that stands for four


class ViT(nn.Module):
    """The trunk: an image (1, 3, H, W) gives one map, (1, embed_dim, H / 16, W / 16).

    sam2's Hiera blocks have the same names and settings as the package's own blocks.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        kernel = (STRIDE, STRIDE)
        self.patch_embed = PatchEmbed(kernel, stride=kernel, padding=(0, 0), embed_dim=embed_dim)
        # The first belongs to a class token, which images do not have.
        self.pos_embed = nn.Parameter(torch.zeros(1, PRETRAINED * PRETRAINED + 1, embed_dim))
        self.blocks = nn.ModuleList(
            MultiScaleBlock(
                embed_dim, embed_dim, num_heads, window_size=0 if number in WHOLE else WINDOW
            )
            for number in range(DEPTH)
        )
        self.channel_list = [embed_dim]

    def places(self) -> Tensor:
        """The positional embedding as a map, (1, embed_dim, 14, 14)."""
        channels = self.pos_embed[0, 1:].transpose(0, 1)
        return channels.reshape(1, -1, PRETRAINED, PRETRAINED)

    def forward(self, image: Tensor) -> list[Tensor]:
        x: Tensor = self.patch_embed(image)
        places = functional.interpolate(self.places(), size=x.shape[1:3], mode="bicubic")
        x = x + places.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]


class ViTDetNeck(nn.Module):
    """Two convolutions after a trunk, each with a norm.

    :param neck_norm: LN in all configurations.
    """

    def __init__(
        self,
        position_encoding: nn.Module,
        d_model: int,
        backbone_channel_list: list[int],
        neck_norm: str,
    ) -> None:
        super().__init__()
        self.position_encoding = position_encoding
        self.backbone_channel_list = backbone_channel_list
        self.d_model = d_model
        layers = nn.Sequential()
        layers.add_module("conv_1x1", nn.Conv2d(backbone_channel_list[0], d_model, 1, bias=False))
        layers.add_module("norm_0", LayerNorm2d(d_model))
        layers.add_module("conv_3x3", nn.Conv2d(d_model, d_model, 3, padding=1, bias=False))
        layers.add_module("norm_1", LayerNorm2d(d_model))
        self.convs = nn.ModuleList([layers])

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """One map (1, C, S, S), and the encoding of its places."""
        features = self.convs[0](maps[0])
        return [features], [self.position_encoding(features)]


class EfficientRoPEAttention1(RoPEAttention):  # type: ignore[misc] # sam2 is not typed
    """An image's places attend to memories; with several memories, four places form one key.

    `SHIFT` is added to the logits of such keys.
    """

    shifts_channels = False

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """Attend with queries (B, S * S, C) to keys and values (B, M * S * S + P, D).

        :param num_k_exclude_rope: P, the number of pointer tokens at the end.
        """
        batch, places, width = q.shape
        side = math.isqrt(places)
        turns = self.compute_cis(end_x=side, end_y=side)
        counts = [k.shape[1] - num_k_exclude_rope, num_k_exclude_rope]
        keys, pointer_keys = self.k_proj(k).split(counts, dim=1)
        values, pointer_values = self.v_proj(v).split(counts, dim=1)
        keys = rotated(keys.reshape(batch, -1, places, width), turns)
        bias = None
        if keys.shape[1] > 1:
            keys, values = pooled(keys, side), pooled(values, side)
            if self.shifts_channels:
                keys = keys + SHIFT
            else:
                pooled_bias = torch.full([counts[0] // POOL**2], SHIFT)
                bias = torch.cat([pooled_bias, torch.zeros(num_k_exclude_rope)])
        keys = torch.cat([keys.reshape(batch, -1, width), pointer_keys], dim=1)
        values = torch.cat([values.reshape(batch, -1, width), pointer_values], dim=1)
        queries = rotated(self.q_proj(q)[:, None], turns)[:, 0]
        mixed = functional.scaled_dot_product_attention(queries, keys, values, bias)
        result: Tensor = self.out_proj(mixed)
        return result


class EfficientRoPEAttention2(EfficientRoPEAttention1):
    """The same, except that `SHIFT` is added to each channel of these keys."""

    shifts_channels = True


def pooled(maps: Tensor, side: int) -> Tensor:
    """The means of 2 × 2 places: maps of N * S * S places and D channels, in any axes, become
    (N, S * S / 4, D); S is the side.
    """
    half, width = side // POOL, int(maps.shape[-1])
    means = maps.reshape(-1, half, POOL, half, POOL, width).mean((2, 4))
    return means.reshape(-1, half * half, width)


# The attention to memories of the variants that differ from sam2.
POOLING = {"1": EfficientRoPEAttention1, "2": EfficientRoPEAttention2}


def build(architecture: str, image_size: int | None = None, video: bool = False) -> SAM2Base:
    """An EfficientTAM in evaluation mode, with its initial weights.

    :param architecture: a name of `published.EFFICIENTTAM`.
    :param image_size: in pixels, instead of the architecture's own.
    :param video: make sam2's predictor for videos.
    :raises StageError: when memories cannot be pooled at that image size.
    """
    trunk, _, variant = architecture.removeprefix("efficienttam_").partition("_")
    size = image_size or native_image_size(architecture)
    if video and variant in POOLING and size % (STRIDE * POOL):
        raise StageError(
            f"image_size: found {size}; allowed with `video = true` for {architecture}: a multiple "
            f"of {STRIDE * POOL}, because it merges {POOL} × {POOL} places of its memory"
        )
    width, heads = TRUNKS[trunk]
    encoding = PositionEmbeddingSine(num_pos_feats=WIDTH, normalize=True, scale=None)
    neck = of_package(ViTDetNeck, "backbones.image_encoder")(
        encoding, d_model=WIDTH, backbone_channel_list=[width], neck_norm="LN"
    )
    vit = of_package(ViT, "backbones.vitdet")(embed_dim=width, num_heads=heads)
    attention = of_package(POOLING.get(variant, RoPEAttention), "sam.transformer")
    side = size // STRIDE
    cross_attention = attention(
        WIDTH, 1, kv_in_dim=MEMORY_WIDTH, rope_k_repeat=True, feat_sizes=(side, side)
    )
    kind, extra = (SAM2VideoPredictor, VIDEO_POSTPROCESSING) if video else (SAM2Base, {})
    model: SAM2Base = kind(
        image_encoder=ImageEncoder(vit, neck),
        memory_attention=memory_attention(cross_attention, side, layers=4),
        memory_encoder=memory_encoder(),
        image_size=size,
        use_high_res_features_in_sam=False,
        **SETTINGS,
        **extra,
    )
    model.eval()
    return model


def of_package(own: Any, module: str) -> Any:
    """The class of the same name in this process's sam2, if that is the package; else ``own``."""
    with suppress(ImportError):
        return getattr(importlib.import_module(f"sam2.modeling.{module}"), own.__name__, own)
    return own
