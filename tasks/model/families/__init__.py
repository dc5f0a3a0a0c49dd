"""The families of models, as values: SAM 2, EdgeTAM, EfficientTAM, SAM 1."""
