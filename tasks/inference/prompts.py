"""Prompts: what a person could give, and the tensors that the decoder takes for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prompt:
    """Points, a box, a previous mask. Coordinates are 0 to 1."""

    name: str
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    refines_mask: bool = False  # the best mask of the first prompt


# What `verify` and the browser's proof ask about their image.
PROMPTS = (
    Prompt("one point", ((0.42, 0.55),), (1,)),
    Prompt("points", ((0.42, 0.55), (0.30, 0.62), (0.80, 0.20)), (1, 1, 0)),
    Prompt("box", box=(0.25, 0.35, 0.65, 0.75)),
    Prompt("box and point", ((0.30, 0.40),), (0,), box=(0.25, 0.35, 0.65, 0.75)),
    Prompt("previous mask", ((0.42, 0.55), (0.55, 0.60)), (1, 1), refines_mask=True),
)


def prompt_tensors(prompt: Prompt, size: int) -> tuple[Floats, Floats]:
    """``point_coords (1, N, 2)`` in pixels and ``point_labels (1, N)``; a box's corners first."""
    import numpy as np

    corners = np.reshape(prompt.box or (), (-1, 2))
    points = np.reshape(prompt.points, (-1, 2))
    coords = np.concatenate([corners, points]) * size
    labels = [2, 3][: len(corners)] + list(prompt.labels)
    return coords[None].astype(np.float32), np.array([labels], np.float32)
