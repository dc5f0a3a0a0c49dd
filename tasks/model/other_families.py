"""Recognizes checkpoints of segmentation models that this build does not support; pure.

They are recognized by the names of their weights in the models' own code: segment-anything 1.0,
MobileSAM (ce9ce32), HQ-SAM, SAM 3, EfficientTAM (PyPI's efficient-track-anything 1.0), and, for the
first, second and fourth, transformers 5.22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SUPPORTED = "SAM 2, SAM 2.1 and EdgeTAM"

# The first that fits: HQ-SAM has all weights of SAM 1 and more.
_NAMES = (
    ("HQ-SAM", r"mask_decoder\.h[fq]_token\."),
    ("SAM 3", r"\b(detector|detector_model)\..*backbone\.|\bvision_encoder\.neck\.fpn_layers\."),
    ("MobileSAM", r"\bimage_encoder\.patch_embed\.seq\.\d"),
    ("SAM 1", r"\b(image_encoder\.blocks|vision_encoder\.layers)\.\d+\.attn\.rel_pos_h$"),
    ("FastSAM", r"\bmodel\.\d+\.proto\."),
)
_HIERA_OR_VIT = re.compile(r"\bimage_encoder\.trunk\.(pos_embed|pos_embed_window)$")


def family_of(names: Iterable[str]) -> str | None:
    """The family of a model by the names of its weights; None for one that may be supported."""
    names = list(names)
    for family, pattern in _NAMES:
        if any(map(re.compile(pattern).search, names)):
            return family
    embeddings = {match[1] for name in names if (match := _HIERA_OR_VIT.search(name))}
    # sam2's Hiera has both, the plain ViT of EfficientTAM one.
    return "EfficientTAM" if embeddings == {"pos_embed"} else None
