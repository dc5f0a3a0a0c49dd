"""Images of extreme values, for which half precision must not overflow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def extreme_images(size: int) -> dict[str, NDArray[np.uint8]]:
    """RGB images (size, size, 3), by names for people."""
    black = np.zeros((size, size, 3), np.uint8)
    pixel = black.copy()
    pixel[size // 2, size // 2] = 255
    squares = np.indices((size, size)).sum(axis=0) % 2 == 0
    return {
        "black": black,
        "white": black + 255,
        "checkerboard": np.where(squares[..., None], black, 255).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, black.shape, dtype=np.uint8),
        "one bright pixel": pixel,
    }
