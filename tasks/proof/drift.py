"""Compares two trackers' answers to scripts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tasks.inference import checks
from tasks.inference.checks import Figure
from tasks.inference.metrics import mask_iou, rounded
from tasks.inference.scripts import Answer, Answers
from tasks.proof.figures import FrameIou, Ious, ScriptIou, TrackingFigures


class Drift(NamedTuple):
    """The differences of two answers; None for a figure that is not a finite number.

    ``pointer`` is relative to the largest magnitude of the expected pointer, ``logits`` to the mean
    magnitude of the expected logits; ``flip`` is 1 if only one answer has the object present.
    """

    iou: Figure = None
    score: Figure = None
    pointer: Figure = None
    predicted_iou: Figure = None
    logits: Figure = None
    flip: Figure = None


def drift(answer: Answer | None, expected: Answer | None) -> Drift:
    """The differences of an answer from the expected one; all None if either is missing."""
    if answer is None or expected is None:
        return Drift()
    score = checks.finite(abs(answer.score - expected.score))
    logits = _relative(abs(answer.magnitude - expected.magnitude), expected.magnitude)
    pointer = checks.largest_difference(answer.pointer, expected.pointer)
    return Drift(
        # Logits that are not numbers make no mask.
        iou=None if logits is None else mask_iou(answer.mask, expected.mask),
        score=score,
        pointer=_relative(pointer, float(abs(expected.pointer).max())),
        predicted_iou=checks.finite(abs(answer.predicted_iou - expected.predicted_iou)),
        logits=logits,
        flip=None if score is None else float((answer.score > 0) != (expected.score > 0)),
    )


def _relative(difference: Figure, largest: float) -> Figure:
    return None if difference is None else checks.finite(difference / (largest or 1))


def compare_answers(scripts: Mapping[str, tuple[Answers, Answers]]) -> TrackingFigures:
    """Compare answers with the expected answers, by the script's name."""
    drifts: list[Drift] = []
    clips = []
    for name, (answers, expected) in scripts.items():
        own = {key: drift(answers.get(key), expected.get(key)) for key in {**expected, **answers}}
        drifts += own.values()
        frames: dict[tuple[int, int], list[Figure]] = {}
        for (step, frame, _), each in own.items():
            frames.setdefault((step, frame), []).append(each.iou)
        by_frame = [FrameIou(*key, rounded(checks.mean(ious), 6)) for key, ious in frames.items()]
        clips.append(ScriptIou(name, by_frame))
    ious = [each.iou for each in drifts]
    return TrackingFigures(
        answers=sum(len(answers) for answers, _ in scripts.values()),
        expected=sum(len(expected) for _, expected in scripts.values()),
        mask_iou=Ious(checks.mean(ious), checks.smallest(ious)),
        score_error=checks.largest(each.score for each in drifts),
        pointer_error=checks.largest(each.pointer for each in drifts),
        iou_error=checks.largest(each.predicted_iou for each in drifts),
        logit_error=checks.largest(each.logits for each in drifts),
        occlusion_flips=checks.mean(each.flip for each in drifts),
        clips=clips,
    )
