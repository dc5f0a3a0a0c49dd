"""The architectures that have a name: SAM 2's and SAM 2.1's, EdgeTAM and EfficientTAM's."""

from __future__ import annotations

from collections.abc import Mapping

# The architecture that the weights themselves tell.
AUTO = "auto"

# In pixels; see `native_image_size`.
NATIVE_IMAGE_SIZE = 1024

# With sam2's own configuration of each.
PUBLISHED: Mapping[str, str] = {
    "sam2_hiera_tiny": "configs/sam2/sam2_hiera_t.yaml",
    "sam2_hiera_small": "configs/sam2/sam2_hiera_s.yaml",
    "sam2_hiera_base_plus": "configs/sam2/sam2_hiera_b+.yaml",
    "sam2_hiera_large": "configs/sam2/sam2_hiera_l.yaml",
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}

# Of which sam2 has no configuration (`tasks.model.edgetam`).
EDGETAM = "edgetam"

# Those of SAM 1 (`tasks.model.sam`), MobileSAM last.
MOBILE_SAM = "vit_t"
SAM_1 = ("vit_b", "vit_l", "vit_h", MOBILE_SAM)

# Of which it has none either, by the names of their repository's own (`tasks.model.efficienttam`).
EFFICIENTTAM = tuple(
    f"efficienttam_{trunk}{variant}"
    for trunk in ("s", "ti")
    for variant in ("", "_1", "_2", "_512x512")
)


def native_image_size(architecture: str) -> int:
    """The pixels on each side of the images that an architecture's published weights are for."""
    return 512 if architecture.endswith("_512x512") else NATIVE_IMAGE_SIZE
