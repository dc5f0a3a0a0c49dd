"""Paints masks and prompts on pictures, in colours that colour-blind people can tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tasks.inference.masks import Bools, box_of, eroded
from tasks.inference.preprocessing import Floats
from tasks.inference.prompts import Box, Prompt

Color = tuple[int, int, int]

# Masataka Okabe and Kei Ito, "Color Universal Design" (2008), without black; neighbours differ
# most.
COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (0, 158, 115),
)
# The outlines of two compared masks, also in the report's legend.
EXPECTED, ACTUAL = COLORS[1], COLORS[3]
DARK, QUIET = (20, 20, 20), (85, 85, 85)

# The sizes of a sheet, in pixels. It is legible at a width of 1000 pixels, as in a README.
WIDTH, MARGIN, GAP, COLUMNS = 1600, 40, 20, 3
SIDE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS  # of each panel
TOPS = (190, 190 + SIDE + 60)  # of its rows
LARGE, MEDIUM, SMALL = 42, 28, 26  # font sizes

# The sizes of a picture of two masks, in pixels.
PAIR_SIDE, PAIR_GAP = 400, 8
NAME = 28  # the largest number of letters in a mask's name


def paint(canvas: NDArray[np.float32], mask: Bools, color: Color, rim: int = 3) -> None:
    """Tint a mask (S, S) on an image (S, S, 3), and draw its rim, ``rim`` pixels wide."""
    canvas[mask] = canvas[mask] * 0.5 + np.array(color) * 0.5
    canvas[outline(mask, rim)] = color


def outline(mask: Bools, width: int = 1) -> Bools:
    """The outermost pixels of a mask."""
    inner = mask
    for _ in range(width):
        inner = eroded(inner)
    return mask & ~inner


def mark(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float = 6, wanted: bool = True
) -> None:
    """Draw a click: a disc, or a cross for the background."""
    if wanted:
        around = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(around, fill=DARK, outline="white", width=max(2, round(radius / 3)))
        return
    for color, width in (("white", round(radius)), (DARK, round(radius / 2))):
        for turn in (-1, 1):
            ends = (x - radius, y - turn * radius, x + radius, y + turn * radius)
            pen.line(ends, fill=color, width=width)


def write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: float, **options: Any
) -> None:
    """Write with pillow's own font, because not every machine has another."""
    pen.text(at, text, font=ImageFont.load_default(size), **options)


def panel_of(
    image: NDArray[np.uint8], masks: Iterable[Bools], true: Iterable[Bools]
) -> Image.Image:
    """A panel of a sheet: an image (H, W, 3) with masks (H, W) and the outlines of true masks."""
    canvas = image.astype(np.float32)
    for color, mask in zip(COLORS, masks, strict=False):
        paint(canvas, mask, color, rim=6)
    for mask in true:
        canvas[outline(mask, 3)] = 255
    panel = Image.fromarray(canvas.astype(np.uint8))
    return panel.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def sheet(
    title: str, panels: Sequence[tuple[str, Image.Image]], summary: str, click: str
) -> Image.Image:
    """Two rows of labelled panels with a summary, for the demo model.

    :param click: the legend's text for a click.
    """
    bottom = TOPS[-1] + SIDE
    picture = Image.new("RGB", (WIDTH, bottom + 130), "white")
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, 24), title, LARGE, fill=DARK)
    note = "Demo model, trained for this project; published weights do better."
    write(pen, (MARGIN, 84), note, MEDIUM, fill=QUIET)
    for place, (label, panel) in enumerate(panels):
        left, top = MARGIN + place % COLUMNS * (SIDE + GAP), TOPS[place // COLUMNS]
        write(pen, (left, top - 12), label, MEDIUM, fill=DARK, anchor="ls")
        picture.paste(panel, (left, top))
    write(pen, (MARGIN, bottom + 20), f"{summary}.", MEDIUM, fill=DARK)
    middle = bottom + 90
    mark(pen, MARGIN + 9, middle, radius=9)
    write(pen, (MARGIN + 30, middle), click, SMALL, fill=QUIET, anchor="lm")
    pen.rectangle((740, middle - 14, 796, middle + 14), fill=COLORS[0])
    pen.line((740, middle, 796, middle), fill="white", width=3)
    write(pen, (812, middle), "the true outline", SMALL, fill=QUIET, anchor="lm")
    return picture


class MaskPair(NamedTuple):
    """A prompt about an image (S, S, 3), two masks (M, M) or their logits, and the masks' IoU."""

    iou: float
    image: NDArray[np.uint8]
    prompt: Prompt
    expected: Floats | Bools
    actual: Floats | Bools


def draw_pair(pair: MaskPair, path: str) -> None:
    """Paint the part of an image around two masks: both outlines, then where only one covers."""
    part = _part_of(pair)
    outlines = part.image.copy()
    outlines[outline(part.expected, 5)] = EXPECTED
    outlines[outline(part.actual, 2)] = ACTUAL
    _row([_with_prompt(outlines, part), _apart(part)]).save(path)


def draw_pairs(pairs: Sequence[MaskPair], names: tuple[str, str], path: str) -> None:
    """Paint a row for each pair: both masks, named at the top, then where only one covers."""
    head = SMALL + 2 * PAIR_GAP
    width, height = 3 * PAIR_SIDE + 2 * PAIR_GAP, PAIR_SIDE + head
    picture = Image.new("RGB", (width, head + len(pairs) * height), "white")
    pen = ImageDraw.Draw(picture)
    columns = range(0, width, PAIR_SIDE + PAIR_GAP)
    for left, name, color in zip(
        columns, (*names, "only one"), (EXPECTED, ACTUAL, DARK), strict=True
    ):
        shown = name if len(name) <= NAME else f"…{name[1 - NAME :]}"  # paths differ at the end
        write(pen, (left, PAIR_GAP), shown, SMALL, fill=DARK)
        pen.line((left, head - 3, left + PAIR_SIDE, head - 3), fill=color, width=5)
    for number, pair in enumerate(pairs):
        part, top = _part_of(pair), head + number * height
        panels = [_apart(part)]
        for mask, color in ((part.actual, ACTUAL), (part.expected, EXPECTED)):
            canvas = part.image.copy()
            paint(canvas, mask, color)
            panels.insert(0, _with_prompt(canvas, part))
        label = f"{pair.prompt.name}, IoU {pair.iou:.4f}"
        write(pen, (0, top + PAIR_GAP), label, SMALL, fill=DARK)
        picture.paste(_row(panels), (0, top + head))
    picture.save(path)


class _Part(NamedTuple):
    """The shown part of a pair's image (S, S, 3) and of its masks (S, S)."""

    prompt: Prompt
    view: Box
    image: Floats
    expected: Bools
    actual: Bools


def _part_of(pair: MaskPair) -> _Part:
    """The part around both masks and the prompt."""
    view = view_of([pair.expected > 0, pair.actual > 0], pair.prompt)

    def cut(image: Image.Image) -> NDArray[Any]:
        left, top, right, bottom = (image.width * each for each in view)
        box = left, top, right, bottom
        size = PAIR_SIDE, PAIR_SIDE
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box))

    def inside(mask: Floats | Bools) -> Bools:
        logits = mask - np.float32(0.5) if mask.dtype == bool else mask
        return np.asarray(cut(Image.fromarray(logits)) > 0)

    image = cut(Image.fromarray(pair.image)).astype(np.float32)
    return _Part(pair.prompt, view, image, inside(pair.expected), inside(pair.actual))


def _apart(part: _Part) -> Image.Image:
    """A gray panel with the pixels that only one mask covers, in the colour of that mask."""
    gray = np.repeat(part.image.mean(axis=-1, keepdims=True), 3, axis=-1) * 0.4
    gray[outline(part.expected | part.actual)] = 255
    gray[part.expected & ~part.actual] = EXPECTED
    gray[part.actual & ~part.expected] = ACTUAL
    return Image.fromarray(gray.astype(np.uint8))


def _with_prompt(canvas: Floats, part: _Part) -> Image.Image:
    """A panel with the prompt's clicks and box."""
    panel = Image.fromarray(canvas.astype(np.uint8))
    scale = PAIR_SIDE / (part.view[2] - part.view[0])
    mark_prompt(ImageDraw.Draw(panel), part.prompt, part.view, scale)
    return panel


def _row(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels side by side."""
    step = PAIR_SIDE + PAIR_GAP
    picture = Image.new("RGB", (len(panels) * step - PAIR_GAP, PAIR_SIDE), "white")
    for number, panel in enumerate(panels):
        picture.paste(panel, (number * step, 0))
    return picture


def mark_prompt(pen: ImageDraw.ImageDraw, prompt: Prompt, view: Box, scale: float) -> None:
    """Draw a prompt's clicks and its box.

    :param view: the shown part of the image: left, top, right, bottom, as in a prompt.
    :param scale: the width of the whole image in pixels of the drawing.
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
