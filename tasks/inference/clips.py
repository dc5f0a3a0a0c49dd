"""Drawn clips and what a person does with them: what trackers are asked, and compared on.

Every way of prompting is in them, and what tracking is hard for: objects that pass one another,
leave and return, a correction after tracking, and a stack that is followed from its middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tasks.inference.preprocessing import Placement, masks_over
from tasks.inference.tracker import Prompt, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.clients.contract import TrackingConstants

    Floats = NDArray[np.float32]

FRAMES = 24
SHORT = 8
HEIGHT, WIDTH = 360, 480  # not square: frames are stretched


@dataclass(frozen=True)
class Ask:
    """A prompt for an object on a frame."""

    frame: int
    number: int
    prompt: Prompt


@dataclass(frozen=True)
class Follow:
    """Track from a frame to the end, or in reverse to the beginning."""

    start: int
    reverse: bool = False


@dataclass(frozen=True)
class Clip:
    """Frames (T, H, W, 3), and what is done one after another."""

    name: str
    frames: NDArray[np.uint8]
    steps: Sequence[Ask | Follow]


class Answer(NamedTuple):
    """An object on a frame: its mask (H, W), how surely it is there, its pointer (C,).

    ``predicted_iou`` is what the decoder says of its mask, ``magnitude`` the mean of its logits'.
    """

    mask: NDArray[np.bool_]
    score: float
    pointer: Floats
    predicted_iou: float
    magnitude: float


# Answers by step, frame and object, in the order in which they were given.
Answers = dict[tuple[int, int, int], Answer]


def clips(frames: int = FRAMES) -> list[Clip]:
    """The clips that every model is asked about."""
    return [time_lapse(frames), stack(frames)]


def time_lapse(frames: int = FRAMES) -> Clip:
    """Two objects pass each other, one leaves and returns; one is corrected on frame 9."""

    pixels, labels = draw(passing_bodies, frames, seed=1)
    corrected = min(9, frames - 2)
    first, second = center(labels[0] == 1), center(labels[0] == 2)
    steps = (
        Ask(0, 1, Prompt(points=[first], labels=[1])),
        Ask(0, 2, Prompt(box=box_of(labels[0] == 2))),
        Follow(0),
        Ask(corrected, 1, Prompt(points=[center(labels[corrected] == 1), second], labels=[1, 0])),
        # From the frame itself sam2 would draw it anew, and forget what was said of it.
        Follow(corrected + 1),
    )
    return Clip("time-lapse", pixels, steps)


def stack(frames: int = FRAMES) -> Clip:
    """Slices through bodies, followed from the middle both ways, from a mask and from clicks.

    The first is clicked on an earlier slice too: of that its memory is looked at from the middle on
    down, and its pointer not before it was passed.
    """

    def bodies(time: float) -> list[Body]:
        return [
            Body(0.3, 0.45, *_slice(0.2, time - 0.5), 0.4),
            Body(0.66, 0.6, *_slice(0.16, time - 0.45), 1.1),
        ]

    pixels, labels = draw(bodies, frames, seed=2)
    middle, earlier = frames // 2, frames // 6
    on = center(labels[middle] == 2)
    steps = (
        Ask(middle, 1, Prompt(mask=labels[middle] == 1)),
        Ask(earlier, 1, Prompt(points=[center(labels[earlier] == 1)], labels=[1])),
        Ask(middle, 2, Prompt(points=[on], labels=[1])),
        Ask(middle, 2, Prompt(points=[on, center(labels[middle] == 1)], labels=[1, 0])),
        Follow(middle, reverse=True),
        Follow(middle),
    )
    return Clip("stack", pixels, steps)


def short(size: int) -> Clip:
    """Eight frames for trackers that take their time: all graphs, a correction, both directions.

    :param size: of the encoder's input; frames are as large, so that nobody has to scale them.
    """
    import numpy as np
    from PIL import Image

    pixels, labels = draw(passing_bodies, SHORT, seed=1)
    frames = np.stack([np.asarray(Image.fromarray(each).resize((size, size))) for each in pixels])

    def mask_of(frame: int, number: int) -> NDArray[np.bool_]:
        image = Image.fromarray((labels[frame] == number).astype(np.uint8))
        return np.asarray(image.resize((size, size), Image.Resampling.NEAREST)) > 0

    on = center(mask_of(0, 1))
    steps = (
        Ask(0, 1, Prompt(points=[on], labels=[1])),
        Ask(1, 2, Prompt(mask=mask_of(1, 2))),
        Follow(0),
        Ask(5, 1, Prompt(points=[center(mask_of(5, 1)), center(mask_of(5, 3))], labels=[1, 0])),
        Follow(6),
        Follow(1, reverse=True),
    )
    return Clip("short", frames, steps)


class Body(NamedTuple):
    """An ellipse, in parts of the frame; turned by so many radians."""

    x: float
    y: float
    width: float
    height: float
    turn: float


def passing_bodies(time: float) -> list[Body]:
    """Two that pass each other, and one that is out at the right from a third to two thirds."""
    away = 0.72 + 0.62 * math.sin(math.pi * time)
    return [
        Body(0.2 + 0.5 * time, 0.55 + 0.1 * math.sin(6 * time), 0.16, 0.11, 2 * time),
        Body(away, 0.4, 0.11, 0.13, 0.3),
        Body(0.75 - 0.5 * time, 0.62, 0.08, 0.08, 0.0),
    ]


def _slice(radius: float, depth: float) -> tuple[float, float]:
    """The radii of an ellipsoid's slice; nothing is left of it where it ends."""
    share = math.sqrt(max(0.0, 1 - (depth / 0.48) ** 2))
    return radius * share, 0.8 * radius * share


def draw(
    bodies: Callable[[float], Sequence[Body]], count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames (T, H, W, 3) and the number of the object at each pixel (T, H, W), 0 for none.

    :param bodies: the objects at a time from 0 to 1; a later one covers an earlier.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.reshape((HEIGHT, WIDTH), (2, 1, 1))
    ground = 60 + 25 * np.sin(5 * x + 2)[..., None] + 15 * np.cos(4 * y)[..., None]
    colors = random.uniform(90, 240, (len(bodies(0)), 3))
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    labels = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for number in range(count):
        image = np.repeat(ground, 3, axis=2)
        for index, body in enumerate(bodies(number / max(count - 1, 1))):
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
    return frames, labels


def center(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle of a mask (H, W), x and y in pixels."""
    import numpy as np

    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask (H, W), in pixels."""
    import numpy as np

    rows, columns = np.nonzero(mask)
    return (
        float(columns.min()),
        float(rows.min()),
        float(columns.max()) + 1,
        float(rows.max()) + 1,
    )


class Follower(Protocol):
    """What `play` plays with: `Tracker` here, or the one in a browser's page."""

    @property
    def constants(self) -> TrackingConstants:
        """Of the model."""

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result:
        """As `Tracker.prompt`."""

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]:
        """As `Tracker.track`."""


def play(tracker: Follower, clip: Clip) -> Iterator[tuple[tuple[int, int, int], Answer]]:
    """Do with a tracker what is done with a clip; what it answers, as it does."""
    import numpy as np

    height, width = clip.frames.shape[1:3]
    place = Placement(tracker.constants.image_size, width, height, "stretch")

    def answer(result: Result) -> Answer:
        mask = masks_over(result.low_res_masks[0], place)[0] > 0
        return Answer(
            mask,
            result.object_score,
            result.pointer[0],
            result.predicted_iou,
            float(np.abs(result.low_res_masks).mean()),
        )

    for step, each in enumerate(clip.steps):
        if isinstance(each, Ask):
            result = tracker.prompt(each.frame, each.number, each.prompt)
            yield (step, each.frame, each.number), answer(result)
            continue
        for frame, found in tracker.track(each.start, each.reverse):
            for number, result in found.items():
                yield (step, frame, number), answer(result)
