"""The models, their checkpoints, and the patches that make them exportable."""

from typing import Literal

# The packages that read and compute a model.
PACKAGES = ("torch", "torchvision", "timm", "sam2", "safetensors", "omegaconf", "PyYAML")

# How the encoder's attention is written.
AttentionKind = Literal["plain", "fused"]
