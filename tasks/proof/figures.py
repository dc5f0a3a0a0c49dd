"""What was measured, by report; `dataclasses.asdict` gives the keys of the report's JSON.

A figure that was not measured, or is not a finite number, is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.inference.checks import Figure


@dataclass(frozen=True)
class Ious:
    """The IoU of some masks with the expected ones."""

    mean: Figure
    worst: Figure


@dataclass(frozen=True)
class LowestIou:
    """The prompt of the lowest IoU, and how many pixels of the two masks differ."""

    prompt: str
    pixels: int


@dataclass(frozen=True)
class ExtremeImage:
    """An image of extreme values, and the outputs that are not finite: ``encoder image_embed``."""

    image: str
    not_finite: Sequence[str]


@dataclass(frozen=True)
class FidelityFigures:
    """How a variant's masks differ from PyTorch's, over so many ``images`` and ``prompts``.

    ``ranking_flips`` is the share of prompts whose masks are ranked otherwise, ``logit_error`` the
    mean over all masks, relative to their magnitude, ``score_error`` the largest. ``input_error``
    is the largest relative difference of logits for prompts with every value of every input;
    ``input_prompt`` the prompt that has it. ``extremes``: tried with values in half precision.
    """

    images: int
    prompts: int
    mask_iou: Ious
    ranking_flips: Figure
    logit_error: Figure
    input_error: Figure
    input_prompt: str
    score_error: Figure
    lowest: LowestIou
    extremes: Sequence[ExtremeImage] = ()


@dataclass(frozen=True)
class FrameIou:
    """The mean IoU of all objects on a frame."""

    step: int
    frame: int
    iou: Figure


@dataclass(frozen=True)
class ScriptIou:
    """The IoUs of one script, of each frame as it was tracked."""

    name: str
    by_frame: Sequence[FrameIou]


@dataclass(frozen=True)
class TrackingFigures:
    """How two trackers' answers differ; ``expected`` is how many ``answers`` there must be.

    Errors are the largest: of the object's score, of pointers, relative to the largest magnitude,
    of predicted IoUs, and of the mean magnitude of a mask's logits, relative to it.
    ``occlusion_flips`` is the share of answers of which one tracker alone sees the object.
    """

    answers: int
    expected: int
    mask_iou: Ious
    score_error: Figure
    pointer_error: Figure
    iou_error: Figure
    logit_error: Figure
    occlusion_flips: Figure
    clips: Sequence[ScriptIou]
