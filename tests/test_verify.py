"""The judgement of verify: figures against tolerances, tensors against the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import Resize

from tasks.clients.contract import PREPROCESSING, Dimensions, GraphTensors, Tensor, tensor
from tasks.clients.registry import CLIENTS
from tasks.config.checks import Tolerances
from tasks.inference.preprocessing import Placement, pixels_of, preprocess, resized
from tasks.inference.prompts import PROMPTS, Prompt, natural_image, prompt_tensors
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


def test_a_figure_beyond_its_tolerance_fails_with_both_values() -> None:
    found = beyond_tolerance(figures(masks=0.5), Tolerances(mask_tolerance=0.1))
    assert found == [Failure("masks", 0.5, 0.1, "[verify] mask_tolerance", prompt="box")]
    assert [str(each) for each in found] == [
        "masks of prompt 'box': differs by 0.5, [verify] mask_tolerance allows 0.1"
    ]


def test_not_a_number_is_never_within_a_tolerance() -> None:
    (failure,) = beyond_tolerance(figures(encoder=None), Tolerances(encoder_tolerance=1e9))
    assert (failure.kind, failure.tensor, failure.found) == ("features", "image_embed", None)
    assert "differs by not a number" in str(failure)


def test_missing_and_unknown_tensors_and_other_shapes_break_the_contract() -> None:
    expected = GraphTensors((tensor("a", 1, 2), tensor("b", 1)), ())
    found = GraphTensors((tensor("a", 1, "n"), Tensor("c", "int64", (1,))), ())
    broken = violations({"decoder": expected}, {"decoder": found})
    assert [(each.kind, each.graph) for each in broken] == [
        ("other tensor", "decoder"),
        ("missing tensor", "decoder"),
        ("unknown tensor", "decoder"),
    ]
    assert [str(each) for each in broken] == [
        "decoder: expected a float32 (1, 2), found a float32 (1, n)",
        "decoder: expected b float32 (1), found no tensor of that name",
        "decoder: found c int64 (1), which is not in the contract",
    ]
    # The same goes for outputs.
    turned = [{"decoder": GraphTensors((), each.inputs)} for each in (expected, found)]
    assert violations(*turned) == broken


def test_tensors_in_another_order_break_the_contract() -> None:
    expected = GraphTensors((tensor("a", 1), tensor("b", 1)), (tensor("c", 1), tensor("d", 1)))
    turned = GraphTensors(expected.inputs[::-1], expected.outputs[::-1])
    assert violations({"decoder": expected}, {"decoder": expected}) == []
    assert [str(each) for each in violations({"decoder": expected}, {"decoder": turned})] == [
        "decoder: expected tensors in the order a, b, found b, a",
        "decoder: expected tensors in the order c, d, found d, c",
    ]


PUBLISHED = Dimensions(image_size=1024, embed_dim=256, feature_channels=(32, 64), stride=16)


def shapes(client: str, graph: str, **options: Any) -> tuple[list[str], list[str]]:
    loads = CLIENTS[client]
    chosen = {"masks": loads.masks[0], "prompts": loads.prompts[0], **options}
    found = loads.contract(PUBLISHED, **chosen)[graph]
    return [str(each) for each in found.inputs], [str(each) for each in found.outputs]


def test_the_contract_of_the_published_models_matches_the_recipe() -> None:
    assert shapes("samexporter", "decoder", prompts="one") == (
        [
            "image_embed float32 (1, 256, 64, 64)",
            "high_res_feats_0 float32 (1, 32, 256, 256)",
            "high_res_feats_1 float32 (1, 64, 128, 128)",
            "point_coords float32 (1, num_points, 2)",
            "point_labels float32 (1, num_points)",
            "mask_input float32 (1, 1, 256, 256)",
            "has_mask_input float32 (1)",
        ],
        ["masks float32 (1, 3, 256, 256)", "iou_predictions float32 (1, 3)"],
    )


def test_the_contract_of_transformers_js_matches_its_model() -> None:
    assert shapes("transformers.js", "encoder") == (
        ["pixel_values float32 (1, 3, 1024, 1024)"],
        [
            "image_embeddings.0 float32 (1, 32, 256, 256)",
            "image_embeddings.1 float32 (1, 64, 128, 128)",
            "image_embeddings.2 float32 (1, 256, 64, 64)",
        ],
    )
    inputs, outputs = shapes("transformers.js", "decoder")
    assert inputs[:3] == [
        "input_points float32 (1, points_batch, num_points, 2)",
        "input_labels int64 (1, num_prompts, num_points)",
        "input_boxes float32 (1, num_boxes, 4)",
    ]
    assert outputs == [
        "iou_scores float32 (1, num_prompts, 3)",
        "pred_masks float32 (1, num_prompts, 3, 256, 256)",
        "object_score_logits float32 (1, num_prompts, 1)",
    ]


def test_the_contract_of_osam_has_masks_at_the_images_size() -> None:
    inputs, outputs = shapes("osam", "decoder")
    assert inputs[-1] == "orig_im_size int64 (2)"
    assert outputs == [
        "masks float32 (1, 4, height, width)",
        "scores float32 (1, 4)",
        "low_res_masks float32 (1, 4, 256, 256)",
    ]


SQUARE = Placement(100, 100, 100, "stretch")


def fed(prompts: Sequence[Prompt], client: str, place: Placement = SQUARE) -> dict[str, Any]:
    return {
        role: values.tolist()
        for role, values in prompt_tensors(prompts, place, CLIENTS[client]).items()
    }


def test_a_box_becomes_its_two_corners_before_the_points() -> None:
    (prompt,) = [each for each in PROMPTS if each.box and each.points]
    found = prompt_tensors([prompt], SQUARE, CLIENTS["samexporter"])
    assert found["point_coords"] == pytest.approx(np.array([[[25, 35], [65, 75], [30, 40]]]))
    assert found["point_labels"].tolist() == [[2, 3, 0]]


def test_a_box_stays_a_box_if_the_client_takes_boxes() -> None:
    boxes = [Prompt("one", box=(0.25, 0.5, 0.75, 1)), Prompt("two", box=(0, 0, 0.5, 0.5))]
    found = fed(boxes, "transformers.js")
    assert found["boxes"] == [[25, 50, 75, 100], [0, 0, 50, 50]]
    assert found["point_labels"] == [[], []]
    assert fed([Prompt("point", ((0.5, 0.5),), (1,))], "transformers.js")["boxes"] == []


def test_nimbusimages_padding_point_is_fed_only_without_a_box() -> None:
    point, box = Prompt("point", ((0.5, 0.5),), (1,)), Prompt("box", box=(0, 0, 0.5, 0.5))
    assert fed([point], "nimbusimage")["point_labels"] == [[1, -1]]
    assert fed([box], "nimbusimage")["point_labels"] == [[2, 3]]


def test_shorter_prompts_of_a_run_are_padded_and_all_or_none_have_boxes() -> None:
    one = Prompt("one", ((0.5, 0.5),), (1,))
    two = Prompt("two", ((0.1, 0.2), (0.3, 0.4)), (1, 0))
    assert fed([one, two], "samexporter")["point_labels"] == [[1, -1], [1, 0]]
    with pytest.raises(ValueError, match="all have a box, or all have none"):
        fed([one, Prompt("box", box=(0, 0, 1, 1))], "samexporter")


def test_points_are_placed_where_the_client_places_the_image() -> None:
    point = Prompt("point", ((0.5, 0.5),), (1,))
    stretched, placed = (Placement(100, 300, 100, each) for each in ("stretch", "longest side"))
    assert fed([point], "samexporter", stretched)["point_coords"] == [[[50, 50]]]
    (coords,) = prompt_tensors([point], placed, CLIENTS["samexporter"])["point_coords"]
    assert coords[0] == pytest.approx([50, 50 / 3])


@pytest.mark.parametrize(
    ("width", "height", "scaled"),
    [(2048, 1024, (1024, 512)), (1000, 1000, (684, 684)), (100, 1368, (50, 684))],
)
def test_an_image_fills_the_width_or_the_height_of_a_canvas(
    width: int, height: int, scaled: tuple[int, int]
) -> None:
    place = Placement(1024, width, height, "canvas")
    assert (place.scaled_width, place.scaled_height) == scaled
    assert place.right == place.down == scaled[1] / height
    assert place.full_size == (684, 1024)


def test_a_canvas_has_the_images_values_and_is_black_elsewhere() -> None:
    place = Placement(256, 171, 171, "canvas")
    image = np.random.default_rng(1).integers(0, 255, (171, 171, 3)).astype(np.uint8)
    canvas = preprocess(image, place)
    assert canvas.shape == (171, 256, 3)
    np.testing.assert_array_equal(canvas[:, :171], image)
    assert not canvas[:, 171:].any()
    np.testing.assert_array_equal(pixels_of(canvas, place), image)


def test_the_mean_color_and_the_padding_become_zero() -> None:
    image = np.full((4, 4, 3), PREPROCESSING["mean"])
    assert np.abs(preprocess(image, Placement(4, 4, 4, "stretch"))).max() < 1e-6
    wide = np.zeros((2, 4, 3), np.uint8)
    tensor = preprocess(wide, Placement(4, 4, 2, "longest side"))
    assert tensor.shape == (1, 3, 4, 4)
    assert (tensor[0, :, :2] < -1).all()
    assert not tensor[0, :, 2:].any()


@pytest.mark.parametrize(("height", "width"), [(40, 90), (64, 64), (200, 31)])
def test_images_are_resized_as_in_sam2(height: int, width: int) -> None:
    image = natural_image(height, width)
    expected = Resize((64, 64))(torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)))
    found = resized(image, 64, 64).transpose(2, 0, 1)
    assert found == pytest.approx(expected.numpy(), abs=1e-3)


def test_the_test_image_is_the_same_every_time_and_has_structure() -> None:
    image = natural_image(128)
    assert np.array_equal(image, natural_image(128))
    assert image.std() > 20
