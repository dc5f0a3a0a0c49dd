"""Comparison with known masks: clicks, IoU, scores against IoUs; and the drawn scenes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.config.checks import Tolerances
from tasks.drawing.scenes import Scene, scene
from tasks.inference import metrics, preprocessing, truth
from tasks.inference.masks import interior_point
from tasks.inference.prompts import Prompt
from tasks.proof.failures import Failure
from tasks.proof.judgement import verify_failures
from tasks.system.errors import StageError


def disc(size: int, row: int, column: int, radius: int) -> truth.Bools:
    y, x = np.mgrid[:size, :size]
    found: truth.Bools = np.hypot(y - row, x - column) <= radius
    return found


def test_a_click_is_far_from_the_edge_of_the_mask() -> None:
    assert interior_point(disc(64, 20, 40, 9)) == (20, 40)


def test_a_click_is_on_the_object_even_if_its_centre_is_not() -> None:
    ring = disc(64, 32, 32, 20) & ~disc(64, 32, 32, 10)
    row, column = interior_point(ring)
    assert ring[row, column]
    assert 13 <= np.hypot(row - 32, column - 32) <= 17


def test_an_object_of_one_pixel_at_the_images_edge_can_be_clicked() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 7] = True
    assert interior_point(mask) == (0, 7)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90)])
def test_masks_are_enlarged_as_in_torch(height: int, width: int) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 16, 16)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (height, width), mode="bilinear", align_corners=False
    )
    place = preprocessing.Placement(64, width, height, "stretch")
    found = preprocessing.masks_over(logits, place)
    assert found == pytest.approx(expected[0].numpy(), abs=1e-5)


def test_only_the_cells_of_the_image_in_a_padded_mask_are_enlarged() -> None:
    logits = np.full((1, 16, 16), -1, np.float32)
    logits[:, :8] = 1  # the upper half, where a 2:1 image lies
    place = preprocessing.Placement(64, 100, 50, "longest side")
    assert preprocessing.masks_over(logits, place).shape == (1, 50, 100)
    assert (preprocessing.masks_over(logits, place)[:, :-4] > 0).all()


def test_iou_is_intersection_over_union_and_1_for_two_empty_masks() -> None:
    one, other = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert metrics.mask_iou(one, other) == pytest.approx(1 / 3)
    assert metrics.mask_iou(one & False, other & False) == 1


def test_rank_correlation_depends_on_order_only_and_averages_the_ranks_of_ties() -> None:
    one = np.array([0.1, 0.2, 0.3, 0.4])
    assert metrics.rank_correlation(one, one**3) == pytest.approx(1)
    assert metrics.rank_correlation(one, -one) == pytest.approx(-1)
    assert metrics.rank_correlation(one, np.array([1, 1, 2, 2])) == pytest.approx(0.894, abs=1e-3)


class Perfect(truth.Segmenter):
    """Answers a prompt on an object with its true mask and a high score."""

    def __init__(self) -> None:
        self.size = 256

    def set_image(self, image: NDArray[np.uint8]) -> None:
        self.labels = next(s.labels for s in self.scenes if s.image is image)

    scenes: ClassVar[list[Scene]] = []

    def predict(self, prompt: Prompt, mask: truth.Floats | None = None) -> truth.Answer:
        corners = [prompt.box[:2], prompt.box[2:]] if prompt.box else []
        points = [*corners, *prompt.points]
        x, y = (int(256 * sum(each[axis] for each in points) / len(points)) for axis in (0, 1))
        if prompt.labels == (1,):
            x, y = (int(256 * each) for each in points[0])
        true = self.labels == (self.labels[y, x] or -1)
        masks = np.stack([true, np.zeros_like(true)])
        return truth.Answer(masks, np.array([0.9, 0.1], np.float32), masks.astype(np.float32))


def draw(seed: int, size: int) -> Scene:
    labels = np.zeros((size, size), np.int32)
    labels[disc(size, 80 + seed, 60, 20)] = 1
    labels[disc(size, 180, 170, 30)] = 2
    found = Scene(np.zeros((size, size, 3), np.uint8), labels)
    Perfect.scenes.append(found)
    return found


def test_true_masks_have_an_iou_of_1_and_scores_that_rank_them() -> None:
    found = truth.measure(Perfect(), draw, range(3), 2)
    assert (found["images"], found["objects"]) == (3, 6)
    assert found["iou"]["1 click"] == 1
    assert found["iou"]["box"] == 1
    assert found["score_correlation"] > 0.9


def test_swapped_axes_lower_the_iou() -> None:
    class Swapped(Perfect):
        def predict(self, prompt: Prompt, mask: Any = None) -> truth.Answer:
            points = tuple((y, x) for x, y in prompt.points)
            return super().predict(replace(prompt, points=points), mask)

    assert truth.measure(Swapped(), draw, range(3), 2)["iou"]["1 click"] < 0.6


def test_a_missing_function_is_reported_by_name() -> None:
    with pytest.raises(StageError, match=r"tasks.drawing.scenes has no function scenery"):
        truth.load("tasks.drawing.scenes:scenery")
    assert truth.load("tasks.drawing.scenes:scene") is scene


def test_a_model_that_segments_too_badly_fails_with_both_figures() -> None:
    def failures(known: dict[str, Any] | None) -> list[Failure]:
        prompt = {"masks": 0.0, "scores": 0.0}
        differences = {"features": {"image_embed": 0.0}, "prompts": {"box": prompt}}
        report = {"violations": [], "differences": differences, "truth": known}
        return verify_failures(report, Tolerances(), 0.5)

    (failure,) = failures({"iou": {"1 click": 0.4}})
    assert (failure.kind, failure.found, failure.allowed) == ("truth iou", 0.4, 0.5)
    assert str(failure) == "IoU with the true masks from one click: 0.4, truth_iou requires 0.5"
    assert failures({"iou": {"1 click": 0.6}}) == []
    assert failures(None) == []


def test_equal_seeds_give_equal_scenes_and_different_seeds_different_ones() -> None:
    one, again, other = scene(4, 256), scene(4, 256), scene(5, 256)
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", range(8))
def test_objects_of_a_scene_differ_in_colour_from_their_surroundings(seed: int) -> None:
    drawn = scene(seed, 512)
    assert drawn.image.shape == (512, 512, 3)
    assert drawn.image.dtype == np.uint8
    inside = drawn.labels > 0
    assert inside.any()
    means = [drawn.image[part].mean(axis=0) for part in (inside, ~inside)]
    assert np.abs(means[0] - means[1]).max() > 4
