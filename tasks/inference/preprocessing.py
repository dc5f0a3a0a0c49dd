"""From an image to the encoder's input, and from a mask's cells to the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.clients.contract import CANVAS_HEIGHT, PREPROCESSING, Resize

Floats = NDArray[np.float32]
MEAN: NDArray[np.float64] = np.array(PREPROCESSING["mean"])
STD: NDArray[np.float64] = np.array(PREPROCESSING["std"])


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the encoder's square input, whose side is ``size`` pixels.

    ``width`` and ``height`` are the image's own size, ``scaled_width`` and ``scaled_height`` its
    size at the input's top left; ``right`` and ``down`` are input pixels for one image pixel.
    """

    size: int
    width: int
    height: int
    resize: Resize

    @property
    def right(self) -> float:
        return self._scales[0]

    @property
    def down(self) -> float:
        return self._scales[1]

    @property
    def _scales(self) -> tuple[float, float]:
        right, down = self.size / self.width, self.rows / self.height
        return (right, down) if self.resize == "stretch" else (min(right, down),) * 2

    @property
    def rows(self) -> int:
        """The height of the input: the square's, or the canvas's."""
        return round(self.size * CANVAS_HEIGHT) if self.resize == "canvas" else self.size

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of large masks: the image's; or the canvas's, which is warped back."""
        return (self.rows, self.size) if self.resize == "canvas" else (self.height, self.width)

    @property
    def scaled_width(self) -> int:
        return max(1, round(self.width * self.right))

    @property
    def scaled_height(self) -> int:
        return max(1, round(self.height * self.down))


def preprocess(image: NDArray[np.uint8], place: Placement) -> Floats:
    """An RGB image (H, W, 3) as the encoder's input, zero outside the image.

    The input is (1, 3, S, S), normalized, or a canvas (height, S, 3) of RGB values from 0 to 255.
    """
    scaled = resized(image, place.scaled_height, place.scaled_width)
    if place.resize == "canvas":
        canvas = np.zeros((place.rows, place.size, 3), np.float32)
        canvas[: place.scaled_height, : place.scaled_width] = scaled
        return canvas
    tensor = np.zeros((1, 3, place.size, place.size), np.float32)
    normalized = ((scaled - MEAN) / STD).transpose(2, 0, 1)
    tensor[0, :, : place.scaled_height, : place.scaled_width] = normalized
    return tensor


def pixels_of(tensor: Floats, place: Placement) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) from which an encoder's input was made, where the image lies.

    If the input was not made from pixels in this way, normalizing the result gives other values.
    """
    values = tensor if place.resize == "canvas" else tensor[0].transpose(1, 2, 0) * STD + MEAN
    image = values[: place.scaled_height, : place.scaled_width]
    pixels: NDArray[np.uint8] = np.nan_to_num(np.rint(image)).clip(0, 255).astype("u1")
    return pixels


def coarse(image: NDArray[Any], count: int = 8) -> Floats:
    """The means of ``count`` × ``count`` parts of an image (H, W, C), 1 for white.

    They hardly depend on how the image was scaled.
    """
    rows = [part.mean(axis=0) for part in np.array_split(image.astype(np.float64), count)]
    parts = [[each.mean(axis=0) for each in np.array_split(row, count)] for row in rows]
    return np.divide(parts, 255, dtype=np.float32)


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """An image (H, W, C) at another size, linear and antialiased, like torchvision's Resize."""
    if image.shape[:2] == (height, width):
        return image.astype(np.float64)
    rows = _weights(image.shape[0], height) @ image.reshape(image.shape[0], -1).astype(np.float64)
    rows = rows.reshape(height, image.shape[1], -1)
    turned = rows.transpose(1, 0, 2).reshape(image.shape[1], -1)
    columns = _weights(image.shape[1], width) @ turned
    large: NDArray[np.float64] = columns.reshape(width, height, -1).transpose(1, 0, 2)
    return large


def _weights(count: int, result: int) -> NDArray[np.float64]:
    """(result, count): a triangle over the pixels that each new one covers."""
    scale = count / result
    reach = max(scale, 1.0)
    centers = (np.arange(result) + 0.5) * scale
    distance = (np.arange(count) + 0.5)[None] - centers[:, None]
    triangles = np.clip(1 - np.abs(distance) / reach, 0, None)
    weights: NDArray[np.float64] = triangles / triangles.sum(axis=1, keepdims=True)
    return weights


def masks_over(logits: Floats, place: Placement) -> Floats:
    """Masks (K, M, M) over the image (K, H, W), linear between the centres of cells, as in sam2.

    Cells outside the image are left out.
    """
    cells = logits.shape[-1] / place.size
    first, second, part = _between(place.height, place.scaled_height * cells, logits.shape[-2])
    tall: Floats = logits[:, first] * (1 - part)[:, None] + logits[:, second] * part[:, None]
    first, second, part = _between(place.width, place.scaled_width * cells, logits.shape[-1])
    large: Floats = tall[:, :, first] * (1 - part) + tall[:, :, second] * part
    return large


def _between(
    count: int, extent: float, limit: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """For pixels over ``extent`` of ``limit`` cells: two cells each, and how far from the first."""
    centers = np.clip((np.arange(count) + 0.5) * extent / count - 0.5, 0, limit - 1)
    first = np.floor(centers).astype(np.intp)
    return first, np.minimum(first + 1, limit - 1), (centers - first).astype(np.float32)
