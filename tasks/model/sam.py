"""SAM 1 and MobileSAM: models of segment-anything's classes with their initial weights."""

from __future__ import annotations

import contextlib
import io
import warnings

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam

from tasks.model.edgetam import settle_batch_norms
from tasks.model.published import MOBILE_SAM


def build(architecture: str, image_size: int | None = None, video: bool = False) -> Sam:
    """A model of SAM 1 in evaluation mode on the CPU, with its initial weights.

    It takes images of 1024 pixels, and does not track.

    MobileSAM's classes are those that samexporter 0.5.0 has in ``mobile_encoder``: the code of
    ``mobile_sam/modeling/tiny_vit_sam.py`` of ChaoningZhang/MobileSAM (2f77a48).
    """
    if architecture != MOBILE_SAM:
        return sam_model_registry[architecture]().eval()
    # It prints rates of learning, and puts its own models in timm's list, which warns.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from samexporter.mobile_encoder.setup_mobile_sam import setup_model

        return setup_model().eval()


def randomize(model: Sam, noise: torch.Generator) -> None:
    """Fit what random weights leave unfit: MobileSAM's batch norms, by `settle_batch_norms`."""
    if not isinstance(model.image_encoder, ImageEncoderViT):
        settle_batch_norms(model.image_encoder, noise, model.image_encoder.img_size)
