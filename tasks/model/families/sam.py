"""SAM 1, as in Meta's segment-anything 1.0 and in micro-sam, and MobileSAM, whose encoder is a
TinyViT.
"""

from __future__ import annotations

from tasks.model.families.family import Family
from tasks.model.published import SAM_1

FAMILY = Family(
    name="sam",
    title="SAM 1",
    architectures=SAM_1,
    build="tasks.model.sam:build",
    dimensions="tasks.model.sam_graphs:dimensions_of",
    graphs="tasks.model.sam_graphs",
    predictor="tasks.inference.sam_predictor:predictor_of",
    compared_with="SamPredictor",
    layout="sam",
    randomize="tasks.model.sam:randomize",
    too_large=("vit_h",),
    has_sizes=False,
    tracks=False,
)
