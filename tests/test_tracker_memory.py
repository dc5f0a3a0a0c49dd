"""The Python tracker keeps in memory only what a frame uses, however long the video is."""

from __future__ import annotations

import errno
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.clients.contract import TrackingConstants
from tasks.inference import tracker as module
from tasks.inference.prompts import Prompt
from tasks.inference.tracker import Result, Tracker

CONSTANTS = TrackingConstants(64, 7, 1, 16, -1, True, True, (0, 1), True, False)
CELLS, CHANNELS, PLACES = 256, 8, 4096
CLICK = Prompt(points=((0.4, 0.3),), labels=(1,))
MIB = 2**20


def answers(graph: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Fake graphs with outputs as large as at 1024 pixels, which depend on all their inputs."""
    seed = sum(float(np.abs(each).sum(dtype=np.float64)) for each in feeds.values())
    value = np.float32(seed % 7 - 3)

    def full(*shape: int) -> NDArray[np.float32]:
        return np.full(shape, value, np.float32)

    if graph == "encoder":
        return {
            "image_embed": full(1, CHANNELS, 8, 8),
            "high_res_feats_0": full(1, CHANNELS, CELLS, CELLS),
            "high_res_feats_1": full(1, CHANNELS, 16, 16),
        }
    if graph == "memory_attention":
        return {"conditioned_embed": full(1, CHANNELS, 8, 8)}
    if graph == "memory_encoder":
        return {"memory": full(1, 64, PLACES)}
    return {
        "low_res_masks": full(1, 1, CELLS, CELLS),
        "object_score_logits": full(1, 1),
        "iou_predictions": full(1, 1),
        "object_pointer": full(1, 256),
    }


def frames(count: int) -> NDArray[np.uint8]:
    drawn = np.zeros((count, 8, 8, 3), np.uint8)
    drawn[:] = np.arange(count).reshape(-1, 1, 1, 1) % 251
    return drawn


def of_two_objects(count: int) -> Tracker:
    tracker = Tracker(answers, CONSTANTS, frames(count))
    tracker.prompt(0, 1, CLICK)
    tracker.prompt(1, 2, CLICK)
    return tracker


def test_tracking_400_frames_needs_only_the_memory_of_a_window_of_frames() -> None:
    """On each frame an object has a mask of 0.25 MiB and a memory of 1 MiB: 1,000 MiB in all."""
    tracker = of_two_objects(400)
    tracemalloc.start()
    try:
        for _ in tracker.track(0):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60 * MIB


def test_results_moved_out_of_memory_are_unchanged_when_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With corrections of early frames, in both directions, and a mask that is refined twice."""

    def played() -> list[tuple[int, int, Result]]:
        tracker = of_two_objects(40)
        seen = [(f, n, each) for f, found in tracker.track(0) for n, each in found.items()]
        for frame, number in ((5, 1), (5, 1), (20, 2), (1, 2)):
            seen.append((frame, number, tracker.prompt(frame, number, CLICK)))
        for start, reverse in ((6, False), (30, True)):
            track = tracker.track(start, reverse)
            seen += [(f, n, each) for f, found in track for n, each in found.items()]
        return seen

    released = played()
    monkeypatch.setattr(module.Tracker, "_looked_at", lambda self: 10**9)
    kept = played()
    assert len(released) == len(kept) == 40 * 2 + 4 + 34 * 2 + 31 * 2
    for (*where, one), (*there, other) in zip(released, kept, strict=True):
        assert where == there
        assert (one.object_score, one.predicted_iou) == (other.object_score, other.predicted_iou)
        assert np.array_equal(one.low_res_masks, other.low_res_masks)
        assert np.array_equal(one.pointer, other.pointer)


def test_prompts_on_every_frame_stay_in_memory_because_every_frame_uses_them() -> None:
    tracker = Tracker(answers, CONSTANTS, frames(30))
    for frame in range(30):
        tracker.prompt(frame, 1, CLICK)
    assert [frame for frame, _ in tracker.track(0)] == list(range(30))
    assert tracker._shelf._file is None


def test_a_full_disk_is_reported_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, place: int) -> None:
            pass

        def write(self, record: NDArray[np.float32]) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match=r"for each object on each frame: make room, or set TMPDIR"):
        list(of_two_objects(40).track(0))
