"""The judgement of verify: figures against tolerances, tensors against the contract."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.config.schema import Tolerances
from tasks.inference.contract import PREPROCESSING, GraphTensors, Tensor, contract, float32
from tasks.inference.images import natural_image
from tasks.inference.preprocessing import preprocess
from tasks.inference.prompts import PROMPTS, prompt_tensors
from tasks.proof.failures import Failure
from tasks.proof.judgement import exceeded, violations


def beyond_tolerance(figures: dict[str, object], tolerances: Tolerances) -> list[Failure]:
    return exceeded(figures, tolerances, "[verify]")


def figures(encoder: float | None = 0.0, masks: float | None = 0.0) -> dict[str, object]:
    return {
        "features": {"image_embed": encoder},
        "prompts": {"box": {"masks": masks, "scores": 0.0}},
    }


def test_figures_within_their_tolerances_pass() -> None:
    assert beyond_tolerance(figures(encoder=1e-4, masks=1e-3), Tolerances()) == []


def test_a_figure_beyond_its_tolerance_is_named_with_both() -> None:
    found = beyond_tolerance(figures(masks=0.5), Tolerances(masks=0.1))
    assert found == [Failure("masks", 0.5, 0.1, "[verify] mask_tolerance", prompt="box")]
    assert [str(each) for each in found] == [
        "masks of prompt 'box': differs by 0.5, [verify] mask_tolerance allows 0.1"
    ]


def test_not_a_number_is_never_within_a_tolerance() -> None:
    (failure,) = beyond_tolerance(figures(encoder=None), Tolerances(encoder=1e9))
    assert (failure.kind, failure.tensor, failure.found) == ("features", "image_embed", None)
    assert "differs by not a number" in str(failure)


def test_a_tensor_of_another_shape_a_missing_and_a_foreign_one_break_the_contract() -> None:
    expected = GraphTensors((float32("a", 1, 2), float32("b", 1)), ())
    found = GraphTensors((float32("a", 1, "n"), Tensor("c", "int64", (1,))), ())
    broken = violations({"decoder": expected}, {"decoder": found})
    assert [(each.kind, each.graph) for each in broken] == [
        ("other tensor", "decoder"),
        ("missing tensor", "decoder"),
        ("unknown tensor", "decoder"),
    ]
    assert [str(each) for each in broken] == [
        "decoder: expected a float32 (1, 2), found a float32 (1, n)",
        "decoder: expected b float32 (1), found no tensor of that name",
        "decoder: found c int64 (1), which the contract does not have",
    ]
    # The same of outputs.
    turned = [{"decoder": GraphTensors((), each.inputs)} for each in (expected, found)]
    assert violations(*turned) == broken


def test_the_contract_of_the_published_models_is_the_recipes() -> None:
    shapes = contract(image_size=1024, embed_dim=256, feature_channels=(32, 64), stride=16, masks=3)
    assert [str(tensor) for tensor in shapes["decoder"].inputs] == [
        "image_embed float32 (1, 256, 64, 64)",
        "high_res_feats_0 float32 (1, 32, 256, 256)",
        "high_res_feats_1 float32 (1, 64, 128, 128)",
        "point_coords float32 (1, num_points, 2)",
        "point_labels float32 (1, num_points)",
        "mask_input float32 (1, 1, 256, 256)",
        "has_mask_input float32 (1)",
    ]
    assert [str(tensor) for tensor in shapes["decoder"].outputs] == [
        "masks float32 (1, 3, 256, 256)",
        "iou_predictions float32 (1, 3)",
    ]


def test_the_prompts_cover_points_of_both_kinds_boxes_and_a_previous_mask() -> None:
    labels = {label for prompt in PROMPTS for label in prompt.labels}
    assert labels == {0, 1}
    assert {bool(prompt.box) for prompt in PROMPTS} == {True, False}
    assert any(prompt.box and prompt.points for prompt in PROMPTS)
    assert any(prompt.refines_mask for prompt in PROMPTS)


def test_a_box_becomes_its_two_corners_before_the_points() -> None:
    (prompt,) = [each for each in PROMPTS if each.box and each.points]
    coords, labels = prompt_tensors(prompt, 100)
    assert coords == pytest.approx(np.array([[[25, 35], [65, 75], [30, 40]]]))
    assert labels.tolist() == [[2, 3, 0]]


def test_the_mean_color_becomes_zero() -> None:
    image = np.full((4, 4, 3), PREPROCESSING["mean"])
    assert preprocess(image).shape == (1, 3, 4, 4)
    assert np.abs(preprocess(image)).max() < 1e-6


def test_the_test_image_is_the_same_every_time_and_has_structure() -> None:
    image = natural_image(128)
    assert np.array_equal(image, natural_image(128))
    assert image.std() > 20
