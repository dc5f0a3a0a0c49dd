"""SAM 2 and SAM 2.1, and custom architectures of sam2's classes from a YAML file."""

from __future__ import annotations

from tasks.model.families.family import Family
from tasks.model.published import PUBLISHED

FAMILY = Family(
    name="sam2",
    title="SAM 2",
    architectures=tuple(PUBLISHED),
    build="tasks.model.sam2_model:build",
    dimensions="tasks.model.sam2_model:dimensions_of",
    graphs="tasks.model.sam2_graphs",
    predictor="tasks.inference.sam2_predictor:predictor_of",
    attention=("plain", "fused"),
)
