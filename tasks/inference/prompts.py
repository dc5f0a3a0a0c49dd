"""Prompts that a user could give, an image for them, and their tensors for a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.clients.client import Client, PromptPart
from tasks.clients.contract import POINT_LABELS
from tasks.inference.preprocessing import Placement

Points = tuple[tuple[float, float], ...]
Box = tuple[float, float, float, float]

PADDING, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = (
    POINT_LABELS[name]
    for name in ("padding", "background", "foreground", "box_top_left", "box_bottom_right")
)


@dataclass(frozen=True)
class Prompt:
    """Points, a box, a mask. Coordinates are fractions of the image, 0 to 1 inside it.

    ``refines`` names the earlier prompt whose best mask is the mask input. If ``mask_counts`` is
    false, that mask is sent with a ``has_mask_input`` of 0, and must change nothing. A tracker also
    takes an object's ``mask`` (H, W) instead of points and a box.
    """

    name: str = ""
    points: Points = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    refines: str | None = None
    mask_counts: bool = True
    mask: NDArray[np.bool_] | None = field(default=None, compare=False)

    @property
    def has_mask(self) -> bool:
        """Whether a mask counts."""
        return self.refines is not None and self.mask_counts

    def in_pixels(self, width: float, height: float) -> Prompt:
        """The prompt with coordinates in pixels of an image."""
        points = tuple((x * width, y * height) for x, y in self.points)
        if self.box is None:
            return replace(self, points=points)
        left, top, right, bottom = self.box
        box = (left * width, top * height, right * width, bottom * height)
        return replace(self, points=points, box=box)

    def with_corners(self) -> tuple[list[tuple[float, float]], list[int]]:
        """Points and labels, with the box's corners first."""
        if self.box is None:
            return list(self.points), list(self.labels)
        corners = [self.box[:2], self.box[2:], *self.points]
        return corners, [TOP_LEFT, BOTTOM_RIGHT, *self.labels]

    def without_padding(self) -> tuple[Points, tuple[int, ...]]:
        """Points and labels for PyTorch, without the padding that only fills a row."""
        some = [pair for pair in zip(self.points, self.labels, strict=True) if pair[1] != PADDING]
        return tuple(point for point, _ in some), tuple(label for _, label in some)


def scattered(count: int) -> Points:
    """Points all over the image, far from each other: multiples of irrational steps."""
    return tuple(
        (0.05 + 0.9 * ((0.37 + 0.618034 * i) % 1), 0.05 + 0.9 * ((0.61 + 0.754878 * i) % 1))
        for i in range(count)
    )


def labels_of(count: int) -> tuple[int, ...]:
    """Alternating clicks on an object and beside it; the first is on it."""
    return tuple(BACKGROUND if i % 2 else FOREGROUND for i in range(count))


def clicks(name: str, count: int, **further: Any) -> Prompt:
    """A prompt of ``count`` scattered points."""
    return Prompt(name, scattered(count), labels_of(count), **further)


BOX: Box = (0.25, 0.35, 0.65, 0.75)
THREE = scattered(3)

# The prompts of `verify` and of the browser's proof, one per run.
PROMPTS = (
    Prompt("one point", ((0.42, 0.55),), (1,)),
    Prompt("points", ((0.42, 0.55), (0.30, 0.62), (0.80, 0.20)), (1, 1, 0)),
    Prompt("box", box=BOX),
    Prompt("box and point", ((0.30, 0.40),), (0,), box=BOX),
    Prompt("previous mask", ((0.42, 0.55), (0.55, 0.60)), (1, 1), refines="one point"),
)

# Further prompts for a decoder that takes many, each group in one run.
AT_ONCE = (
    (
        Prompt("1st of 3", ((0.42, 0.55), (0.30, 0.62)), (1, 0)),
        Prompt("2nd of 3", ((0.75, 0.30), (0.30, 0.62)), (1, 1)),
        Prompt("3rd of 3", ((0.15, 0.20), (0.42, 0.55)), (0, 1)),
    ),
    (
        Prompt("1st of 2 boxes", box=BOX),
        Prompt("2nd of 2 boxes", box=(0.60, 0.15, 0.90, 0.45)),
    ),
)

# Together with those above, these cover every value of every input of a decoder, alone and beside
# others, in groups whose prompts can share a run: points, boxes, masks, masks that do not count,
# only masks.
EVERY_VALUE = (
    (
        clicks("two points", 2),
        clicks("five points", 5),
        clicks("twelve points", 12),
        Prompt("background point", scattered(1), (BACKGROUND,)),
        Prompt("top left corner alone", scattered(1), (TOP_LEFT,)),
        Prompt("bottom right corner alone", scattered(1), (BOTTOM_RIGHT,)),
        Prompt("corners as points", ((0.2, 0.3), (0.7, 0.8)), (TOP_LEFT, BOTTOM_RIGHT)),
        Prompt("padding first", THREE, (PADDING, FOREGROUND, BACKGROUND)),
        Prompt("padding in the middle", THREE, (FOREGROUND, PADDING, BACKGROUND)),
        Prompt("padding last", THREE, (FOREGROUND, BACKGROUND, PADDING)),
        Prompt("points on the border", ((0, 0), (1, 0.4), (0.6, 1), (0, 0.7)), labels_of(4)),
        Prompt("points outside", ((-0.1, 0.4), (0.5, 1.2)), labels_of(2)),
        Prompt("a point far outside", ((4.0, -3.5), (0.4, 0.5)), (FOREGROUND, FOREGROUND)),
    ),
    (
        Prompt("box beside a padding point", THREE[:1], (PADDING,), BOX),
        Prompt("box and five points", scattered(5), labels_of(5), BOX),
        Prompt("box around the image", box=(-0.2, -0.1, 1.3, 1.2)),
        Prompt("box and points outside", ((1.1, -0.2),), (FOREGROUND,), (-0.3, 0.2, 0.5, 1.4)),
    ),
    (
        clicks("point and mask of a box", 1, refines="box"),
        clicks("twelve points and their mask", 12, refines="twelve points"),
        Prompt("padding and mask", THREE[:2], (PADDING, BACKGROUND), refines="five points"),
        Prompt("mask alone beside points", THREE[:1], (PADDING,), refines="one point"),
    ),
    (
        clicks("point and a mask for all", 1, refines="box"),
        clicks("three points and a mask for all", 3, refines="box"),
    ),
    (Prompt("box and its mask", box=BOX, refines="box"),),
    (
        clicks("mask that does not count", 2, refines="one point", mask_counts=False),
        clicks("another that does not", 5, refines="box", mask_counts=False),
    ),
    (Prompt("mask alone", refines="one point"), Prompt("box's mask alone", refines="box")),
    (Prompt("mask beside a padding point", ((0.3, 0.6),), (PADDING,), refines="five points"),),
)

# All of them; each comes after those whose masks it refines.
EVERY_PROMPT = (
    *PROMPTS,
    *(prompt for group in (*AT_ONCE, *EVERY_VALUE) for prompt in group),
)

# Boxes of several sizes, all over the image.
BOXES = tuple(
    Prompt(f"box {n}", box=(max(x - r, 0), max(y - r, 0), min(x + r, 1), min(y + r, 1)))
    for n, ((x, y), r) in enumerate(zip(scattered(8), (0.05, 0.1, 0.15, 0.25) * 2, strict=True))
)

# The largest number of prompts in a run, because a decoder has all of them in memory.
MOST_AT_ONCE = 8


def parts_of(prompts: Sequence[Prompt]) -> set[PromptPart]:
    """The parts of the prompts of one run."""
    parts: set[PromptPart] = set()
    labels = {label for each in prompts for label in each.labels}
    if labels & {BACKGROUND, FOREGROUND}:
        parts.add("point")
    if any(each.box for each in prompts):
        parts.add("box")
    if any(each.refines for each in prompts):
        parts.add("mask")
    if PADDING in labels:
        parts.add("padding label")
    if labels & {TOP_LEFT, BOTTOM_RIGHT}:
        parts.add("corner label")
    if len({len(each.labels) for each in prompts}) > 1:
        parts.add("prompts of different lengths")
    return parts


def answerable(prompts: Iterable[Prompt], client: Client) -> tuple[Prompt, ...]:
    """The prompts that a client can send, one per run."""
    return tuple(each for each in prompts if not parts_of([each]) & client.never_sends.keys())


def sent_at_once(client: Client) -> tuple[tuple[Prompt, ...], ...]:
    """The groups of `AT_ONCE` that a client can send."""
    return tuple(each for each in AT_ONCE if not parts_of(each) & client.never_sends.keys())


@dataclass(frozen=True)
class Runs:
    """The runs of a decoder: one for each prompt of ``alone``, then one for each group."""

    alone: tuple[Prompt, ...]
    at_once: tuple[tuple[Prompt, ...], ...] = ()

    def __iter__(self) -> Iterator[tuple[Prompt, ...]]:
        yield from ((each,) for each in self.alone)
        yield from self.at_once

    @property
    def prompts(self) -> list[Prompt]:
        """All of them, in order."""
        return [prompt for run in self for prompt in run]


def runs_of_every_value(client: Client, many: bool) -> Runs:
    """Prompts with every value of every input that a client can send, in as few runs as possible.

    :param many: whether the decoder takes many prompts in a run.
    """
    alone = answerable(PROMPTS, client)
    groups = [answerable(group, client) for group in EVERY_VALUE]
    if not many:
        return Runs((*alone, *(prompt for group in groups for prompt in group)))
    at_once = list(sent_at_once(client))
    for group in groups:
        several = [group[i : i + MOST_AT_ONCE] for i in range(0, len(group), MOST_AT_ONCE)]
        for each in several:
            if parts_of(each) & client.never_sends.keys():
                alone += each
            else:
                at_once.append(each)
    return Runs(alone, tuple(at_once))


def natural_image(height: int, width: int | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """A seeded RGB image (height, width, 3) without true masks, square by default.

    It shows shaded bodies on a ground with a natural spectrum: the amplitude of natural images
    falls off about as 1/frequency (Field, 1987). `PROMPTS` click on the bodies.
    """
    width = width or height
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1 / max(height, width)
    image = np.empty((height, width, 3))
    for channel in range(3):
        spectrum = np.fft.fft2(random.standard_normal((height, width))) / frequency
        texture = np.fft.ifft2(spectrum).real
        image[..., channel] = 110 + 25 * texture / texture.std()
    y, x = np.mgrid[0:height, 0:width] / np.reshape((height, width), (2, 1, 1))
    for center_x, center_y, radius in ((0.42, 0.55, 0.17), (0.75, 0.3, 0.1), (0.15, 0.2, 0.07)):
        distance = np.hypot(x - center_x, (y - center_y) * 1.2) / radius
        shade = np.clip(1.3 - distance, 0, 1)[..., None]
        color = random.uniform(60, 230, 3)
        image = np.where(distance[..., None] < 1, color * (0.6 + 0.4 * shade), image)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def prompt_tensors(
    prompts: Sequence[Prompt], place: Placement, client: Client
) -> dict[str, NDArray[Any]]:
    """The tensors that a client feeds for prompts about an image, by role.

    ``point_coords (P, N, 2)`` are in pixels of the encoder's input; ``point_labels (P, N)`` are -1
    where a prompt has fewer points than others. A box is two corners before the points; or it is in
    ``boxes (Q, 4)``, if the client's decoder takes these. Q is P, or 0 without boxes.

    :raises ValueError: when some prompts have a box and others do not.
    """
    width, height = place.width * place.right, place.height * place.down
    boxes = [each.box for each in prompts if each.box is not None]
    if boxes and len(boxes) != len(prompts):
        raise ValueError("expected prompts of one run that all have a box, or all have none")
    apart = "boxes" in client.decoder.inputs
    rows = []
    for each in prompts:
        points, labels = replace(each, box=None if apart else each.box).with_corners()
        if each.box is None and client.padding_point:
            points.append((0, 0))
            labels.append(PADDING)
        rows.append((points, labels))
    most = max(len(labels) for _, labels in rows)
    coords = np.zeros((len(rows), most, 2), np.float32)
    codes = np.full((len(rows), most), PADDING, np.float32)
    for row, (points, labels) in enumerate(rows):
        coords[row, : len(points)] = np.reshape(points, (-1, 2)) * (width, height)
        codes[row, : len(labels)] = labels
    tensors: dict[str, NDArray[Any]] = {"point_coords": coords, "point_labels": codes}
    if apart:
        scale = (width, height, width, height)
        tensors["boxes"] = (np.reshape(boxes, (-1, 4)) * scale).astype(np.float32)
    return tensors
