"""Drawn clips: they are seeded, objects keep their numbers, and objects come and go."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from demo_training.evaluate_tracking import Followed, return_of, summary
from demo_training.stack import stack
from demo_training.time_lapse import Body, moving, population, pushed, time_lapse
from tasks.drawing.clip import Clip


@pytest.mark.parametrize("draw", [time_lapse, stack])
def test_equal_seeds_give_equal_clips_and_different_seeds_differ(draw: type[Clip]) -> None:
    first, again, other = (draw(seed, 4, 96, 128) for seed in (5, 5, 6))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize("draw", [time_lapse, stack])
def test_a_clip_has_the_requested_length_and_size(draw: type[Clip]) -> None:
    clip = draw(3, 5, 96, 160)
    assert clip.frames.shape == (5, 96, 160, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.labels.shape == (5, 96, 160)


def test_an_object_keeps_its_number_as_it_moves() -> None:
    moved = []
    for seed in range(8):
        labels = time_lapse(seed, 6, 192, 192, scale=0.5).labels
        for number in range(1, labels.max() + 1):
            for before, after in zip(labels[:-1] == number, labels[1:] == number, strict=True):
                if min(before.sum(), after.sum()) > 200:
                    middles = (np.argwhere(mask).mean(axis=0) for mask in (before, after))
                    moved.append(float(np.linalg.norm(np.subtract(*middles))))
    assert len(moved) > 50
    assert np.mean(moved) > 0.5
    assert np.quantile(moved, 0.99) < 45  # less than the objects' width of about 100


def test_moving_bodies_push_each_other_aside_instead_of_overlapping() -> None:
    random = np.random.default_rng(4)
    bodies = population(random, 16, 512, 512, 0.5, "bright")
    moved = [moving(random, body) for body in bodies]

    def overlap(bodies: list[Body]) -> float:
        """The largest overlap of two bodies, as a share of the sum of their radii."""
        shares = []
        for first, second in combinations(bodies, 2):
            distances = np.hypot(*(first.middles - second.middles).T)
            shares.append(float(np.max(1 - distances / (first.radii + second.radii))))
        return max(shares)

    assert len(bodies) > 10
    assert overlap(moved) > 0.4
    assert overlap(pushed(moved)) < 0.25


def test_objects_of_time_lapses_disappear_and_return() -> None:
    returned = 0
    for seed in range(12):
        labels = time_lapse(seed, 16, 128, 128, scale=0.5).labels
        for number in range(1, labels.max() + 1):
            visible = "".join("01"[int(area > 0)] for area in (labels == number).sum(axis=(1, 2)))
            returned += "01" in visible.lstrip("0")
    assert returned >= 3


def test_an_object_of_a_stack_appears_and_vanishes_only_once() -> None:
    runs, changed = [], 0
    for seed in range(10):
        labels = stack(seed, 12, 128, 128, scale=0.4).labels
        for number in range(1, labels.max() + 1):
            visible = (labels == number).any(axis=(1, 2)).astype(int)
            if visible.any():
                runs.append(int((np.diff(visible, prepend=0) > 0).sum()))
                changed += not visible.all()
    assert changed > 10
    assert np.mean(np.array(runs) == 1) > 0.9  # others are partly covered


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ([2000, 0, 0, 1500], 1),
        ([2000, 300, 0, 1500], 2),
        ([2000, 300, 1500], None),  # never completely away
        ([2000, 0, 0, 900], None),  # too little of it comes back
        ([0, 0, 2000, 2000], None),  # it appears, and does not return
    ],
)
def test_return_of_finds_the_first_frame_without_an_object_that_comes_back(
    visible: list[int], expected: int | None
) -> None:
    assert return_of(np.array(visible)) == expected


def test_the_summary_skips_correctly_empty_frames_and_counts_refound_objects() -> None:
    followed = Followed(
        visible=np.array([2000, 0, 0, 1500, 1500]),
        found=np.array([2000, 0, 700, 0, 1200]),
        ious=np.array([0.9, 1.0, 0.0, 0.0, 0.6]),
    )
    found = summary([followed])
    assert found["iou"] == pytest.approx(0.2)  # over three frames: the second is correctly empty
    assert (found["iou_last"], found["iou_clicked"]) == (0.6, 0.9)
    assert (found["returning"], found["found_again"]) == (1, 1.0)
    assert found["there_or_not"] == 0.5
    assert found["by_frame"] == [0.9, None, 0.0, 0.0, 0.6]
