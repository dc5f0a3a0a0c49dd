"""sam2's model, its checkpoints, and the patches that make it exportable."""

# The packages that read and compute a model.
PACKAGES = ("torch", "torchvision", "timm", "sam2", "safetensors", "omegaconf", "PyYAML")
