"""sam2's model, its checkpoints, and what must change in it to be exported."""

# What a model is read and computed with.
PACKAGES = ("torch", "torchvision", "timm", "sam2", "safetensors", "omegaconf", "PyYAML")
