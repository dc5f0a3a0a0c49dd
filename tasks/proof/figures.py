"""The measurements in each report; `dataclasses.asdict` gives the keys of the report's JSON.

A figure that was not measured, or is not a finite number, is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.inference.checks import Figure


@dataclass(frozen=True)
class Ious:
    """The IoU of masks with the expected masks."""

    mean: Figure
    worst: Figure


@dataclass(frozen=True)
class LowestIou:
    """The prompt with the lowest IoU, and the number of pixels that differ in the two masks."""

    prompt: str
    pixels: int


@dataclass(frozen=True)
class ExtremeImage:
    """An image of extreme values; outputs that are not finite, as in ``encoder image_embed``."""

    image: str
    not_finite: Sequence[str]


@dataclass(frozen=True)
class FidelityFigures:
    """The differences of a variant's masks from PyTorch's.

    ``images`` and ``prompts`` count them. ``ranking_flips`` is the share of prompts whose masks are
    ranked differently, ``logit_error`` the mean over all masks, relative to their magnitude,
    ``score_error`` the largest. ``input_error`` is the largest relative difference of logits for
    prompts that cover every value of every input; ``input_prompt`` is the prompt that has it.
    ``extremes`` are images tried with values in half precision.
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
    """The IoUs of one script, for each frame in tracking order."""

    name: str
    by_frame: Sequence[FrameIou]


@dataclass(frozen=True)
class TrackingFigures:
    """The differences of two trackers' answers; ``expected`` is the required number of ``answers``.

    Errors are the largest: of the object's score, of pointers, relative to the largest magnitude,
    of predicted IoUs, and of the mean magnitude of a mask's logits, relative to it.
    ``occlusion_flips`` is the share of answers in which only one tracker sees the object.
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
