"""How what one tracker answers about clips differs from what another does. Pure."""

from __future__ import annotations

from typing import Any

from tasks.inference.clips import Answers
from tasks.inference.metrics import mask_iou


def difference(found: Answers, expected: Answers) -> dict[str, Any]:
    """How answers to one clip differ; pure.

    :raises KeyError: when they are not answers to the same.
    """
    if found.keys() != expected.keys():
        raise KeyError(f"{len(found)} answers instead of {len(expected)}")
    frames: dict[tuple[int, int], list[float]] = {}
    scores, pointers, flips, ious = [], [], 0, []
    for key, answer in found.items():
        wanted = expected[key]
        ious.append(mask_iou(answer.mask, wanted.mask))
        frames.setdefault(key[:2], []).append(ious[-1])
        scores.append(abs(answer.score - wanted.score))
        largest = abs(wanted.pointer).max()
        pointers.append(float(abs(answer.pointer - wanted.pointer).max() / (largest or 1)))
        flips += (answer.score > 0) != (wanted.score > 0)
    return {
        "ious": ious,
        "by_frame": [
            {"step": step, "frame": frame, "iou": round(sum(each) / len(each), 6)}
            for (step, frame), each in frames.items()
        ],
        "score_error": max(scores),
        "pointer_error": max(pointers),
        "occlusion_flips": flips,
    }


def summary_of(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all clips together; pure."""
    ious = [iou for clip in clips for iou in clip.pop("ious")]
    return {
        "answers": len(ious),
        "mask_iou": {"mean": sum(ious) / len(ious), "worst": min(ious)},
        "score_error": max(clip["score_error"] for clip in clips),
        "pointer_error": max(clip["pointer_error"] for clip in clips),
        "occlusion_flips": sum(clip["occlusion_flips"] for clip in clips) / len(ious),
        "clips": clips,
    }
