"""Builds sam2's model from a published architecture or from a YAML file."""

from __future__ import annotations

from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base

from tasks.clients.contract import Dimensions
from tasks.model import architecture as custom
from tasks.model.published import PUBLISHED


def build(architecture: str, image_size: int | None = None, video: bool = False) -> SAM2Base:
    """sam2's model in evaluation mode on the CPU, with its initial weights.

    :param architecture: one of sam2's own, or the path of a YAML file.
    :param image_size: in pixels, instead of 1024; not used with a file.
    :param video: make sam2's predictor for videos.
    :raises StageError: when the file's model cannot be exported.
    """
    if architecture not in PUBLISHED:
        return custom.build(architecture, video)
    size = [f"++model.image_size={image_size}"] if image_size else []
    build_published = build_sam2_video_predictor if video else build_sam2
    name = PUBLISHED[architecture]
    return build_published(name, ckpt_path=None, device="cpu", hydra_overrides_extra=size)


def dimensions_of(model: SAM2Base) -> Dimensions:
    """The dimensions of sam2's model."""
    decoder = model.sam_mask_decoder
    details = (decoder.conv_s0, decoder.conv_s1) if decoder.use_high_res_features else ()
    return Dimensions(
        image_size=model.image_size,
        embed_dim=model.sam_prompt_encoder.embed_dim,
        feature_channels=tuple(each.out_channels for each in details),
        stride=model.backbone_stride,
        masks=decoder.num_multimask_outputs,
    )
