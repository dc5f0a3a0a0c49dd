"""What a person does with drawn clips: trackers run these scripts, and are compared on them.

Every way of prompting is in them, and what tracking is hard for: objects that pass one another,
leave and return, a correction after tracking, and a stack that is followed from its middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tasks.drawing.clip import draw, passing_ellipses, slices
from tasks.inference.masks import box_of, center
from tasks.inference.preprocessing import Placement, masks_over
from tasks.inference.prompts import Prompt
from tasks.inference.tracker import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.clients.contract import TrackingConstants

    Bools = NDArray[np.bool_]

FRAMES = 24
SHORT = 8


@dataclass(frozen=True)
class PromptStep:
    """A prompt for an object on a frame."""

    frame: int
    number: int
    prompt: Prompt


@dataclass(frozen=True)
class TrackStep:
    """Track from a frame to the end, or in reverse to the beginning."""

    start: int
    reverse: bool = False


@dataclass(frozen=True)
class Script:
    """Frames (T, H, W, 3), and the steps that a tracker does one after another."""

    name: str
    frames: NDArray[np.uint8]
    steps: Sequence[PromptStep | TrackStep]


class Answer(NamedTuple):
    """An object on a frame: its mask (H, W), how surely it is there, its pointer (C,).

    ``predicted_iou`` is what the decoder says of its mask, ``magnitude`` the mean of its logits'.
    """

    mask: Bools
    score: float
    pointer: NDArray[np.float32]
    predicted_iou: float
    magnitude: float


# By step, frame and object, in the order in which a tracker answered.
Answers = dict[tuple[int, int, int], Answer]


def proof_scripts() -> list[Script]:
    """The scripts that every model is compared on."""
    return [time_lapse(), stack()]


def time_lapse(frames: int = FRAMES) -> Script:
    """Two objects pass each other, one leaves and returns; one is corrected on frame 9."""
    clip = draw(passing_ellipses, frames, seed=1)
    corrected = min(9, frames - 2)
    first, second = center(clip.labels[0] == 1), center(clip.labels[0] == 2)
    correction = clicks(on=center(clip.labels[corrected] == 1), beside=second)
    steps = (
        PromptStep(0, 1, clicks(on=first)),
        PromptStep(0, 2, Prompt(box=box_of(clip.labels[0] == 2))),
        TrackStep(0),
        PromptStep(corrected, 1, correction),
        # From the frame itself sam2 would draw it anew, and forget the correction.
        TrackStep(corrected + 1),
    )
    return Script("time-lapse", clip.frames, steps)


def stack(frames: int = FRAMES) -> Script:
    """Slices through bodies, followed from the middle both ways, from a mask and from clicks.

    The first is clicked on an earlier slice too: tracking down from the middle looks at that
    slice's memory at once, and at its pointer once it is passed.
    """
    clip = draw(slices, frames, seed=2)
    middle, earlier = frames // 2, frames // 6
    on = center(clip.labels[middle] == 2)
    steps = (
        PromptStep(middle, 1, Prompt(mask=clip.labels[middle] == 1)),
        PromptStep(earlier, 1, clicks(on=center(clip.labels[earlier] == 1))),
        PromptStep(middle, 2, clicks(on)),
        PromptStep(middle, 2, clicks(on, beside=center(clip.labels[middle] == 1))),
        TrackStep(middle, reverse=True),
        TrackStep(middle),
    )
    return Script("stack", clip.frames, steps)


def short(size: int) -> Script:
    """Eight frames for trackers that take their time: all graphs, a correction, both directions.

    :param size: of the encoder's input; frames are as large, so that nobody has to scale them.
    """
    import numpy as np
    from PIL import Image

    clip = draw(passing_ellipses, SHORT, seed=1)
    frames = [np.asarray(Image.fromarray(each).resize((size, size))) for each in clip.frames]

    def mask_of(frame: int, number: int) -> Bools:
        image = Image.fromarray((clip.labels[frame] == number).astype(np.uint8))
        return np.asarray(image.resize((size, size), Image.Resampling.NEAREST)) > 0

    correction = clicks(on=center(mask_of(5, 1)), beside=center(mask_of(5, 3)))
    steps = (
        PromptStep(0, 1, clicks(on=center(mask_of(0, 1)))),
        PromptStep(1, 2, Prompt(mask=mask_of(1, 2))),
        TrackStep(0),
        PromptStep(5, 1, correction),
        TrackStep(6),
        TrackStep(1, reverse=True),
    )
    return Script("short", np.stack(frames), steps)


def clicks(on: tuple[float, float], beside: tuple[float, float] | None = None) -> Prompt:
    """A click on an object, and perhaps one on what it is not."""
    return Prompt(points=(on,), labels=(1,)) if beside is None else Prompt("", (on, beside), (1, 0))


class ScriptRunner(Protocol):
    """What `run_script` runs a script with: `Tracker`, or the tracker in a browser's page."""

    @property
    def constants(self) -> TrackingConstants: ...

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result: ...

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]: ...


def run_script(
    tracker: ScriptRunner, script: Script
) -> Iterator[tuple[tuple[int, int, int], Answer]]:
    """Have a tracker do the steps of a script; its `Answers` as they come."""
    height, width = script.frames.shape[1:3]
    place = Placement(tracker.constants.image_size, width, height, "stretch")
    for step, each in enumerate(script.steps):
        if isinstance(each, PromptStep):
            result = tracker.prompt(each.frame, each.number, each.prompt)
            yield (step, each.frame, each.number), _answer(result, place)
            continue
        for frame, results in tracker.track(each.start, each.reverse):
            for number, result in results.items():
                yield (step, frame, number), _answer(result, place)


def _answer(result: Result, place: Placement) -> Answer:
    return Answer(
        masks_over(result.low_res_masks[0], place)[0] > 0,
        result.object_score,
        result.pointer[0],
        result.predicted_iou,
        float(abs(result.low_res_masks).mean()),
    )
