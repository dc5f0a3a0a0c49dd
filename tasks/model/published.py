"""The named architectures: of SAM 2, SAM 2.1, EdgeTAM, EfficientTAM and SAM 1."""

from __future__ import annotations

from collections.abc import Mapping

# The architecture is recognized from the weights.
AUTO = "auto"

# In pixels; see `native_image_size`.
NATIVE_IMAGE_SIZE = 1024

# Each with sam2's own configuration file.
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

# sam2 has no configuration file for it (`tasks.model.edgetam`).
EDGETAM = "edgetam"

# SAM 1's architectures (`tasks.model.sam`), MobileSAM last.
MOBILE_SAM = "vit_t"
SAM_1 = ("vit_b", "vit_l", "vit_h", MOBILE_SAM)

# sam2 has no configuration files for these either (`tasks.model.efficienttam`). Names as in their
# own repository.
EFFICIENTTAM = tuple(
    f"efficienttam_{trunk}{variant}"
    for trunk in ("s", "ti")
    for variant in ("", "_1", "_2", "_512x512")
)


def native_image_size(architecture: str) -> int:
    """The image size of an architecture's published weights, in pixels on each side."""
    return 512 if architecture.endswith("_512x512") else NATIVE_IMAGE_SIZE
