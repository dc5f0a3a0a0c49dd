"""How what one tracker answers about clips differs from what another does. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.inference import checks
from tasks.inference.checks import Figure
from tasks.inference.clips import Answer, Answers
from tasks.inference.metrics import mask_iou, rounded


class Drift(NamedTuple):
    """How two answers differ; None for what is no finite number.

    ``pointer`` is relative to the largest magnitude of the expected one, ``logits`` to their mean
    magnitude; ``flip`` is 1 where only one of them says that the object is there.
    """

    iou: Figure
    score: Figure
    pointer: Figure
    predicted_iou: Figure
    logits: Figure
    flip: Figure


NOTHING = Drift(
    None, None, None, None, None, None
)  # of an answer that is missing, or that nobody expects


def drift(found: Answer | None, expected: Answer | None) -> Drift:
    """How an answer differs from the one that is expected; pure."""
    if found is None or expected is None:
        return NOTHING
    score = checks.finite(abs(found.score - expected.score))
    logits = _relative(abs(found.magnitude - expected.magnitude), expected.magnitude)
    pointer = checks.largest_difference(found.pointer, expected.pointer)
    return Drift(
        # A mask that was not made of numbers is none.
        iou=None if logits is None else mask_iou(found.mask, expected.mask),
        score=score,
        pointer=_relative(pointer, float(abs(expected.pointer).max())),
        predicted_iou=checks.finite(abs(found.predicted_iou - expected.predicted_iou)),
        logits=logits,
        flip=None if score is None else float((found.score > 0) != (expected.score > 0)),
    )


def _relative(difference: Figure, largest: float) -> Figure:
    return None if difference is None else checks.finite(difference / (largest or 1))


def difference(found: Answers, expected: Answers) -> dict[str, Any]:
    """How answers to one clip differ; pure. What only one of both answers differs in all."""
    frames: dict[tuple[int, int], list[Figure]] = {}
    drifts = []
    for key in {**expected, **found}:
        drifts.append(drift(found.get(key), expected.get(key)))
        frames.setdefault(key[:2], []).append(drifts[-1].iou)
    return {
        "drifts": drifts,
        "answers": len(found),
        "expected": len(expected),
        "by_frame": [
            {"step": step, "frame": frame, "iou": rounded(checks.mean(ious), 6)}
            for (step, frame), ious in frames.items()
        ],
        **_figures(drifts),
    }


def summary_of(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all clips together; pure."""
    drifts = [each for clip in clips for each in clip.pop("drifts")]
    ious = [each.iou for each in drifts]
    return {
        "answers": sum(clip["answers"] for clip in clips),
        "expected": sum(clip["expected"] for clip in clips),
        "mask_iou": {"mean": checks.mean(ious), "worst": checks.smallest(ious)},
        **_figures(drifts),
        "clips": clips,
    }


def _figures(drifts: list[Drift]) -> dict[str, Figure]:
    return {
        "score_error": checks.largest(each.score for each in drifts),
        "pointer_error": checks.largest(each.pointer for each in drifts),
        "iou_error": checks.largest(each.predicted_iou for each in drifts),
        "logit_error": checks.largest(each.logits for each in drifts),
        "occlusion_flips": checks.mean(each.flip for each in drifts),
    }
