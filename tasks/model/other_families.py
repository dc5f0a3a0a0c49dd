"""Recognizes checkpoints of segmentation models that this build does not support; pure.

They are recognized by the names of their weights in the models' own code: HQ-SAM, SAM 3, and, for
both, transformers 5.22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SUPPORTED = "SAM 2, SAM 2.1, EdgeTAM, EfficientTAM, SAM 1 and MobileSAM"

# The first that fits: HQ-SAM has all weights of SAM 1 and more.
_NAMES = (
    ("HQ-SAM", r"mask_decoder\.h[fq]_token\."),
    ("SAM 3", r"\b(detector|detector_model)\..*backbone\.|\bvision_encoder\.neck\.fpn_layers\."),
    ("FastSAM", r"\bmodel\.\d+\.proto\."),
)


def family_of(names: Iterable[str]) -> str | None:
    """The family of a model by the names of its weights; None for one that may be supported."""
    names = list(names)
    for family, pattern in _NAMES:
        if any(map(re.compile(pattern).search, names)):
            return family
    return None


# A weight that no other family has, for each that is supported.
_OWN = (
    ("SAM 1", re.compile(r"^image_encoder\.(blocks\.\d|patch_embed\.|layers\.\d|neck\.\d\.)")),
    ("SAM 2", re.compile(r"^(image_encoder\.(trunk\.|neck\.convs\.)|sam_mask_decoder\.)")),
)


def examples_of_families(names: Iterable[str]) -> dict[str, str]:
    """A name for each family whose own code has such; EdgeTAM's count as SAM 2's."""
    names = list(names)
    matches = {family: filter(pattern.search, names) for family, pattern in _OWN}
    return {
        family: first for family, each in matches.items() if (first := next(each, None)) is not None
    }
