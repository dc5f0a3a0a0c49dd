"""Recognizes checkpoints of segmentation models that this build does not support; pure.

They are recognized by the names of their weights, as in the models' own code: HQ-SAM, SAM 3, and
for both transformers 5.22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SUPPORTED = "SAM 2, SAM 2.1, EdgeTAM, EfficientTAM, SAM 1 and MobileSAM"

# The first match counts: HQ-SAM has all weights of SAM 1 and more.
_NAMES = (
    ("HQ-SAM", r"mask_decoder\.h[fq]_token\."),
    ("SAM 3", r"\b(detector|detector_model)\..*backbone\.|\bvision_encoder\.neck\.fpn_layers\."),
    ("FastSAM", r"\bmodel\.\d+\.proto\."),
)


def family_of(names: Iterable[str]) -> str | None:
    """The unsupported family of a model, by its weights' names; None if it may be supported."""
    names = list(names)
    for family, pattern in _NAMES:
        if any(map(re.compile(pattern).search, names)):
            return family
    return None


# For each supported family, weights that no other family has.
_OWN = (
    ("SAM 1", re.compile(r"^image_encoder\.(blocks\.\d|patch_embed\.|layers\.\d|neck\.\d\.)")),
    ("SAM 2", re.compile(r"^(image_encoder\.(trunk\.|neck\.convs\.)|sam_mask_decoder\.)")),
)


def examples_of_families(names: Iterable[str]) -> dict[str, str]:
    """For each family with such weights, one of their names; EdgeTAM counts as SAM 2."""
    names = list(names)
    matches = {family: filter(pattern.search, names) for family, pattern in _OWN}
    return {
        family: first for family, each in matches.items() if (first := next(each, None)) is not None
    }
