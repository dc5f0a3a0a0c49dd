"""EfficientTAM: SAM 2's decoder and memory behind a plain ViT, with one feature map."""

from __future__ import annotations

from dataclasses import replace

from tasks.model.families import sam2
from tasks.model.published import EFFICIENTTAM
from tasks.model.reference_package import EFFICIENT_TRACK_ANYTHING

FAMILY = replace(
    sam2.FAMILY,
    name="efficienttam",
    title="EfficientTAM",
    architectures=EFFICIENTTAM,
    build="tasks.model.efficienttam:build",
    layout="sam2, one map",
    compared_with=f"SAM2ImagePredictor of {EFFICIENT_TRACK_ANYTHING}",
    package=EFFICIENT_TRACK_ANYTHING,
)
