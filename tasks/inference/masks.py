"""Where to click on a mask, the box around it, and its inner pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def click_on(mask: Bools) -> tuple[float, float]:
    """A point that a user would click on a mask (H, W), in parts of the image."""
    row, column = interior_point(mask)
    return (column + 0.5) / mask.shape[1], (row + 0.5) / mask.shape[0]


def center(mask: Bools) -> tuple[float, float]:
    """The middle of a mask (H, W), x and y in parts of the image."""
    rows, columns = mask.nonzero()
    height, width = mask.shape
    return (float(columns.mean()) + 0.5) / width, (float(rows.mean()) + 0.5) / height


def box_of(mask: Bools) -> tuple[float, float, float, float]:
    """The box around a mask (H, W), in parts of the image: left, top, right, bottom.

    The edges are the indices of the outermost pixels, as in the boxes that sam2 was trained on.
    """
    rows, columns = mask.nonzero()
    height, width = mask.shape
    return (
        float(columns.min()) / width,
        float(rows.min()) / height,
        float(columns.max()) / width,
        float(rows.max()) / height,
    )


def interior_point(mask: Bools) -> tuple[int, int]:
    """Row and column of a pixel far from the mask's edge, which a user would click.

    The mask is eroded one layer of pixels at a time, until another layer would leave nothing.
    """
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    layer = mask[top : rows.max() + 1, left : columns.max() + 1]
    while (inner := eroded(layer)).any():
        layer = inner
    rows, columns = np.nonzero(layer)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[middle]) + top, int(columns[middle]) + left


def eroded(mask: Bools) -> Bools:
    """A mask without the pixels that touch its outside."""
    around = np.pad(mask, 1)
    left: Bools = mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return left
