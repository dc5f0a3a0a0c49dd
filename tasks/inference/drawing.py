"""Masks and prompts on pictures, in colours that colour-blind people can tell apart too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tasks.inference.truth import box_of, eroded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageDraw import ImageDraw

    from tasks.inference.prompts import Prompt

    Bools = NDArray[np.bool_]

Color = tuple[int, int, int]
# Left, top, right, bottom.
Box = tuple[float, float, float, float]

# Masataka Okabe and Kei Ito, "Color Universal Design" (2008), without black; beside each other
# are two that differ most.
COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (0, 158, 115),
)
# Of the outlines that are compared; the report's legend has them too.
EXPECTED, FOUND = COLORS[1], COLORS[3]
DARK: Color = (20, 20, 20)


def paint(canvas: NDArray[np.float32], mask: Bools, color: Color, rim: int = 3) -> None:
    """Tint a mask (S, S) on an image (S, S, 3), and draw its rim of so many pixels."""
    import numpy as np

    canvas[mask] = canvas[mask] * 0.5 + np.array(color) * 0.5
    canvas[outline(mask, rim)] = color


def outline(mask: Bools, width: int = 1) -> Bools:
    """The outermost pixels of a mask."""
    inner = mask
    for _ in range(width):
        inner = eroded(inner)
    rim: Bools = mask & ~inner
    return rim


def mark(pen: ImageDraw, x: float, y: float, radius: float = 6, wanted: bool = True) -> None:
    """Draw a click: a disc, or a cross where it says what to leave out."""
    if wanted:
        around = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(around, fill=DARK, outline="white", width=max(2, round(radius / 3)))
        return
    for color, width in (("white", round(radius)), (DARK, round(radius / 2))):
        for turn in (-1, 1):
            ends = (x - radius, y - turn * radius, x + radius, y + turn * radius)
            pen.line(ends, fill=color, width=width)


def mark_prompt(pen: ImageDraw, prompt: Prompt, view: Box, scale: float) -> None:
    """Draw a prompt's clicks and its box.

    :param view: the part of the image that is shown, in parts of the image as a prompt has them.
    :param scale: how many pixels of the drawing the whole image would take.
    """

    def shown(x: float, y: float) -> tuple[float, float]:
        return (x - view[0]) * scale, (y - view[1]) * scale

    if prompt.box is not None:
        corners = [*shown(*prompt.box[:2]), *shown(*prompt.box[2:])]
        pen.rectangle(corners, outline="white", width=4)
        pen.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], None, DARK)
    for point, label in zip(prompt.points, prompt.labels, strict=True):
        mark(pen, *shown(*point), radius=8, wanted=label == 1)


def view_of(masks: Iterable[Bools], prompt: Prompt, least: float = 0.1) -> Box:
    """The square around masks (M, M) and a prompt, with a margin, inside the image; pure.

    :param least: the shortest side.
    :returns: left, top, right and bottom in parts of the image.
    """
    boxes = [box_of(mask) for mask in masks if mask.any()]
    boxes += [prompt.box] if prompt.box else []
    boxes += [(x, y, x, y) for x, y in prompt.points]
    left, top = (min(each[side] for each in boxes) for side in (0, 1))
    right, bottom = (max(each[side] for each in boxes) for side in (2, 3))
    side = min(1.0, max(least, 1.3 * max(right - left, bottom - top)))
    x, y = (
        min(max(0.0, (low + high - side) / 2), 1 - side)
        for low, high in ((left, right), (top, bottom))
    )
    return x, y, x + side, y + side


def write(pen: ImageDraw, at: tuple[float, float], text: str, size: float, **options: Any) -> None:
    """Write with the font that pillow brings, as not every machine has another."""
    from PIL import ImageFont

    pen.text(at, text, font=ImageFont.load_default(size), **options)
