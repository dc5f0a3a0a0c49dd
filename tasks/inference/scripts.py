"""Scripts of a user's actions on drawn clips: trackers run them, and their answers are compared.

The scripts have every way of prompting, and cases that are hard to track: objects that pass one
another, leave and return, a correction after tracking, and a stack followed from its middle.
PyTorch's answers are stored in the file ``tracking_reference.npz``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.clients.contract import Dimensions, Memory, TrackingConstants
from tasks.drawing.clip import draw, passing_ellipses, slices
from tasks.inference.masks import Bools, box_of, center
from tasks.inference.preprocessing import Placement, masks_over
from tasks.inference.prompts import Prompt
from tasks.inference.tracker import Result

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
    """Frames (T, H, W, 3), and the steps that a tracker runs one after another."""

    name: str
    frames: NDArray[np.uint8]
    steps: Sequence[PromptStep | TrackStep]


class Answer(NamedTuple):
    """An object on a frame: its mask (H, W), its object score, its pointer (C,).

    ``predicted_iou`` is the decoder's score of the mask, ``magnitude`` the mean magnitude of its
    logits.
    """

    mask: Bools
    score: float
    pointer: NDArray[np.float32]
    predicted_iou: float
    magnitude: float


# Keys are step, frame and object, in the order of a tracker's answers.
Key = tuple[int, int, int]
Answers = dict[Key, Answer]


def proof_scripts() -> list[Script]:
    """The scripts for comparing every model."""
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
        # Starting at the frame itself, sam2 would redraw it and forget the correction.
        TrackStep(corrected + 1),
    )
    return Script("time-lapse", clip.frames, steps)


def stack(frames: int = FRAMES) -> Script:
    """Slices through bodies, followed from the middle both ways, from a mask and from clicks.

    The first is also clicked on an earlier slice: tracking backwards from the middle uses that
    slice's memory at once, and its pointer after passing it.
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
    """Eight frames for slow trackers: all graphs, a correction, both directions.

    :param size: of the encoder's input; frames have this size, so that they need no scaling.
    """
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
    """A click on an object, and optionally one beside it."""
    return Prompt(points=(on,), labels=(1,)) if beside is None else Prompt("", (on, beside), (1, 0))


class ScriptRunner(Protocol):
    """Runs scripts for `run_script`: `Tracker`, or the tracker in a browser's page."""

    @property
    def constants(self) -> TrackingConstants: ...

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result: ...

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]: ...


def run_script(tracker: ScriptRunner, script: Script) -> Iterator[tuple[Key, Answer]]:
    """Run the steps of a script with a tracker; yields its `Answers` as they come."""
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


def collect(name: str, answers: Iterable[tuple[Key, Answer]], total: int | None = None) -> Answers:
    """Collect answers and print their number: PyTorch takes minutes at 1024 pixels."""
    collected: Answers = {}
    for key, answer in answers:
        collected[key] = answer
        print(f"{name}: {len(collected)}{f' of {total}' if total else ''} masks", flush=True)
    return collected


@dataclass(frozen=True)
class About:
    """The model that answered: its sizes, a tracker's constants, and the hashes of its files."""

    dimensions: Dimensions
    memory: Memory
    constants: TrackingConstants
    against: dict[str, str]


def write_answers(path: str, about: About, scripts: Mapping[str, Answers]) -> None:
    """Write answers by the script's name; masks are stored as bits."""
    arrays: dict[str, Any] = {}
    for name, answers in scripts.items():
        masks, scores, pointers, ious, magnitudes = zip(*answers.values(), strict=True)
        arrays[f"{name}/keys"] = np.array(list(answers), np.int64)
        arrays[f"{name}/masks"] = np.packbits(masks, axis=-1)
        arrays[f"{name}/width"] = masks[0].shape[-1]
        arrays[f"{name}/pointers"] = np.stack(pointers)
        arrays[f"{name}/numbers"] = np.array([scores, ious, magnitudes], np.float64)
    np.savez_compressed(path, about=json.dumps(asdict(about)), **arrays)


def read_answers(path: str) -> tuple[About, dict[str, Answers]]:
    """Read what `write_answers` wrote."""
    scripts: dict[str, Answers] = {}
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        for name in dict.fromkeys(each.split("/")[0] for each in file.files if "/" in each):
            width = int(file[f"{name}/width"])
            masks = np.unpackbits(file[f"{name}/masks"], axis=-1, count=width) > 0
            numbers = file[f"{name}/numbers"].tolist()
            answers = zip(masks, numbers[0], file[f"{name}/pointers"], *numbers[1:], strict=True)
            keys = map(tuple, file[f"{name}/keys"].tolist())
            scripts[name] = {key: Answer(*each) for key, each in zip(keys, answers, strict=True)}
    types = {"dimensions": Dimensions, "memory": Memory, "constants": TrackingConstants}
    values = {name: type_(**_tuples(about[name])) for name, type_ in types.items()}
    return About(**values, against=about["against"]), scripts


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Values from JSON, with lists turned into tuples."""
    return {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
