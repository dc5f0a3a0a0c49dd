"""Pictures of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.commands import picture
from tasks.inference import clicks, painting
from tasks.inference.prompts import Prompt


def square(left: int, top: int, side: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_no_two_objects_of_an_image_have_the_same_colour() -> None:
    assert len(set(painting.COLORS)) >= clicks.CLICKS


def test_the_outline_of_a_mask_lies_inside_it() -> None:
    mask = square(10, 10, 10)
    assert painting.outline(mask).sum() == 36
    assert not (painting.outline(mask, 2) & ~mask).any()


def test_a_view_contains_both_masks_and_the_prompt() -> None:
    prompt = Prompt("clicks", ((0.2, 0.2), (0.55, 0.3)), (1, 0))
    left, top, right, bottom = painting.view_of([square(15, 15, 20), square(20, 10, 20)], prompt)
    assert left < 0.15
    assert top < 0.1
    assert right > 0.55
    assert bottom > 0.35
    assert right - left == pytest.approx(bottom - top)


def test_a_view_at_an_edge_stays_in_the_image() -> None:
    box = painting.view_of([square(0, 90, 10)], Prompt("click", ((0.05, 0.95),), (1,)), least=0.3)
    assert box == pytest.approx((0, 0.7, 0.3, 1))


def test_a_view_of_an_empty_mask_is_centred_on_the_prompt() -> None:
    box = painting.view_of([square(0, 0, 0)], Prompt("click", ((0.5, 0.5),), (1,)), least=0.2)
    assert box == pytest.approx((0.4, 0.4, 0.6, 0.6))


def test_the_view_of_a_box_that_fills_the_image_is_the_whole_image() -> None:
    assert painting.view_of([], Prompt("box", box=(0.0, 0.0, 1.0, 1.0))) == (0, 0, 1, 1)


def test_the_caption_of_the_picture_states_its_figures() -> None:
    assert picture.in_words(clicks=14, images=3, truth=0.891, pytorch=0.99996) == (
        "14 clicks on 3 drawn images: mean IoU with the true masks 0.89, with PyTorch's masks 1.000"
    )


def test_a_pair_of_masks_is_drawn_as_coloured_outlines_and_differences(
    tmp_path: Path,
) -> None:
    expected, found = (np.where(square(30 + shift, 30, 40), 5.0, -5.0) for shift in (0, 4))
    pair = painting.MaskPair(
        0.8,
        np.full((400, 400, 3), 90, np.uint8),
        Prompt("click", ((0.5, 0.5),), (1,)),
        expected.astype(np.float32),
        found.astype(np.float32),
    )
    painting.draw_pair(pair, str(tmp_path / "masks.png"))
    picture = np.array(Image.open(tmp_path / "masks.png"))
    outlines, apart = picture[:, : painting.PAIR_SIDE], picture[:, -painting.PAIR_SIDE :]
    for color in (painting.EXPECTED, painting.ACTUAL):
        assert (outlines == color).all(axis=-1).sum() > 500
        assert (apart == color).all(axis=-1).sum() > 2000
    assert (outlines == painting.DARK).all(axis=-1).any()


def test_differing_masks_are_drawn_side_by_side_with_their_differences(tmp_path: Path) -> None:
    one, other = square(20, 20, 30), square(20, 20, 60)
    prompt = Prompt("box", box=(0.2, 0.2, 0.8, 0.8))
    image = np.full((100, 100, 3), 100, np.uint8)
    pairs = [painting.MaskPair(0.25, image, prompt, one, other)] * 2
    painting.draw_pairs(pairs, ("a", "b"), str(tmp_path / "pairs.png"))
    drawn = np.array(Image.open(tmp_path / "pairs.png"))
    step, head = painting.PAIR_SIDE + painting.PAIR_GAP, painting.SMALL + 2 * painting.PAIR_GAP
    for row in range(2):
        # The colour of each panel at a point that is only in the second mask.
        y = head + row * (painting.PAIR_SIDE + head) + head + int(0.7 * painting.PAIR_SIDE)
        first, second, alone = drawn[y, int(0.7 * painting.PAIR_SIDE) :: step][:3]
        assert first.tolist() == [100, 100, 100]
        assert second.tolist() == [(100 + each) // 2 for each in painting.ACTUAL]
        assert alone.tolist() == list(painting.ACTUAL)
