"""What was measured, by report; `dataclasses.asdict` gives the keys of the report's JSON.

A figure that was not measured, or is not a finite number, is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.inference.checks import Figure


@dataclass(frozen=True)
class MaskIou:
    """The IoU of some masks with the expected ones."""

    mean: Figure
    worst: Figure


@dataclass(frozen=True)
class LowestIou:
    """The prompt of the lowest IoU, and how many pixels of the two masks differ."""

    prompt: str
    pixels: int


@dataclass(frozen=True)
class FidelityFigures:
    """How a variant's masks differ from PyTorch's, over so many ``images`` and ``prompts``.

    ``ranking_flips`` is the share of prompts whose masks are ranked otherwise, ``logit_error`` the
    mean over all masks, relative to their magnitude, ``score_error`` the largest. ``input_error``
    is the largest relative difference of logits for prompts with every value of every input;
    ``input_prompt`` the prompt that has it.
    """

    images: int
    prompts: int
    mask_iou: MaskIou
    ranking_flips: Figure
    logit_error: Figure
    input_error: Figure
    input_prompt: str
    score_error: Figure
    lowest: LowestIou


@dataclass(frozen=True, kw_only=True)
class TrackingErrors:
    """How two trackers' answers differ; ``expected`` is how many ``answers`` there must be.

    All are the largest: of the object's score, of pointers, relative to the largest magnitude, of
    predicted IoUs, and of the mean magnitude of a mask's logits, relative to it. Only
    ``occlusion_flips`` is a share: of the answers of which one tracker alone sees the object.
    """

    answers: int
    expected: int
    score_error: Figure
    pointer_error: Figure
    iou_error: Figure
    logit_error: Figure
    occlusion_flips: Figure


@dataclass(frozen=True)
class FrameIou:
    """The mean IoU of all objects on a frame."""

    step: int
    frame: int
    iou: Figure


@dataclass(frozen=True, kw_only=True)
class ScriptFigures(TrackingErrors):
    """The figures of one script, with those of each frame as they were tracked."""

    name: str
    by_frame: Sequence[FrameIou]


@dataclass(frozen=True, kw_only=True)
class TrackingFigures(TrackingErrors):
    """The figures of all scripts together; ``clips`` are those of each."""

    mask_iou: MaskIou
    clips: Sequence[ScriptFigures]
