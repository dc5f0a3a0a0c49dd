"""Draws clips with known objects: the ellipses on which trackers are proven."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEIGHT, WIDTH = 360, 480  # not square: frames are stretched


@dataclass(frozen=True)
class Clip:
    """RGB frames (T, H, W, 3), and for each pixel the number of its object (T, H, W).

    A number belongs to one object in all frames; 0 means no object: the ground, and things that
    hide objects. An object that is hidden, outside or absent has no pixels.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.integer]


class Ellipse(NamedTuple):
    """An ellipse in parts of the frame; ``turn`` is its rotation in radians."""

    x: float
    y: float
    width: float
    height: float
    turn: float


def passing_ellipses(time: float) -> list[Ellipse]:
    """Two that pass each other, and one that is outside at the right for the middle third."""
    away = 0.72 + 0.62 * math.sin(math.pi * time)
    return [
        Ellipse(0.2 + 0.5 * time, 0.55 + 0.1 * math.sin(6 * time), 0.16, 0.11, 2 * time),
        Ellipse(away, 0.4, 0.11, 0.13, 0.3),
        Ellipse(0.75 - 0.5 * time, 0.62, 0.08, 0.08, 0.0),
    ]


def slices(time: float) -> list[Ellipse]:
    """Slices through two ellipsoids."""
    return [
        Ellipse(0.3, 0.45, *_slice(0.2, time - 0.5), 0.4),
        Ellipse(0.66, 0.6, *_slice(0.16, time - 0.45), 1.1),
    ]


def _slice(radius: float, depth: float) -> tuple[float, float]:
    share = math.sqrt(max(0.0, 1 - (depth / 0.48) ** 2))
    return radius * share, 0.8 * radius * share


def draw(ellipses: Callable[[float], Sequence[Ellipse]], count: int, seed: int) -> Clip:
    """Draw frames of `HEIGHT` x `WIDTH` pixels.

    :param ellipses: the objects at a time from 0 to 1; a later one covers an earlier.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.reshape((HEIGHT, WIDTH), (2, 1, 1))
    ground = 60 + 25 * np.sin(5 * x + 2)[..., None] + 15 * np.cos(4 * y)[..., None]
    colors = random.uniform(90, 240, (len(ellipses(0)), 3))
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    labels = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for number in range(count):
        image = np.repeat(ground, 3, axis=2)
        for index, body in enumerate(ellipses(number / max(count - 1, 1))):
            if body.width <= 0 or body.height <= 0:
                continue
            across, down = x - body.x, y - body.y
            cosine, sine = math.cos(body.turn), math.sin(body.turn)
            distance = np.hypot(
                (across * cosine + down * sine) / body.width,
                (down * cosine - across * sine) / body.height,
            )
            inside = distance < 1
            labels[number][inside] = index + 1
            shade = (1.1 - 0.5 * distance + 0.1 * np.sin(40 * distance))[..., None]
            image = np.where(inside[..., None], colors[index] * shade, image)
        noisy = image + random.normal(0, 4, image.shape)
        frames[number] = np.clip(noisy, 0, 255).astype(np.uint8)
    return Clip(frames, labels)
