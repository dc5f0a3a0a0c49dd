"""The families of models, as values: SAM 2, EdgeTAM, SAM 1."""
