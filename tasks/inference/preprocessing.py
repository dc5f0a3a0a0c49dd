"""From an image to the encoder's input, and from a mask's cells to the image's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.inference.contract import PREPROCESSING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def preprocess(image: NDArray[np.uint8]) -> Floats:
    """An RGB image (S, S, 3) of the encoder's input size as its input (1, 3, S, S)."""
    import numpy as np

    mean, std = np.array(PREPROCESSING["mean"]), np.array(PREPROCESSING["std"])
    normalized: Floats = ((image - mean) / std).astype(np.float32)
    return normalized.transpose(2, 0, 1)[None]


def upsample(logits: Floats, size: int) -> Floats:
    """Masks (K, M, M) as (K, size, size), linear between the centres of cells, as sam2 does."""
    import numpy as np

    side = logits.shape[-1]
    centers = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    first = np.floor(centers).astype(int)
    second, part = np.minimum(first + 1, side - 1), (centers - first).astype(np.float32)
    rows = logits[:, first] * (1 - part)[:, None] + logits[:, second] * part[:, None]
    large: Floats = rows[:, :, first] * (1 - part) + rows[:, :, second] * part
    return large
