"""Builds SAM 1 and MobileSAM from segment-anything's classes, with initial weights."""

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
    """A SAM 1 model in evaluation mode on the CPU, with its initial weights.

    It takes images of 1024 pixels, and does not track.

    MobileSAM's classes come from ``mobile_encoder`` of samexporter 0.5.0, which has the code of
    ``mobile_sam/modeling/tiny_vit_sam.py`` of ChaoningZhang/MobileSAM (2f77a48).
    """
    if architecture != MOBILE_SAM:
        return sam_model_registry[architecture]().eval()
    # The import prints learning rates, and registers models in timm, which warns.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from samexporter.mobile_encoder.setup_mobile_sam import setup_model

        return setup_model().eval()


def randomize(model: Sam, noise: torch.Generator) -> None:
    """Fit MobileSAM's batch norms to random weights; see `settle_batch_norms`."""
    if not isinstance(model.image_encoder, ImageEncoderViT):
        settle_batch_norms(model.image_encoder, noise, model.image_encoder.img_size)
