"""The effect of contrast settings on masks, in a real Chromium with a small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from playwright.sync_api import Browser, Page, expect
from project import Project

from tasks.commands import serve
from tasks.config import parse
from tasks.inference.preprocessing import Placement, preprocess
from tasks.inference.prompts import natural_image
from tasks.web import server

pytestmark = pytest.mark.slow

SIZE = 256
AT = (100, 140)
Mask = NDArray[np.bool_]


def pages(chromium: Browser, project: Project) -> Iterator[Page]:
    config = parse.load(project.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(
            """addEventListener('DOMContentLoaded', () => {
              window.phases = []
              const phase = document.querySelector('#phase')
              new MutationObserver(() => window.phases.push(phase.textContent))
                .observe(phase, { childList: true })
            })"""
        )
        page.goto(address)
        expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
        yield page
        page.close()


@pytest.fixture
def page(chromium: Browser, demo: Project) -> Iterator[Page]:
    yield from pages(chromium, demo)


@pytest.fixture
def tracking_page(chromium: Browser, video_model: Project) -> Iterator[Page]:
    yield from pages(chromium, video_model)


def click(page: Page) -> None:
    box = page.locator("#overlay").bounding_box()
    assert box
    x, y = (at / SIZE * box["width"] for at in AT)
    page.locator("#overlay").click(position={"x": x, "y": y})
    expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)


def mask(page: Page) -> Mask:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save mask").click()
    return np.array(Image.open(download.value.path()).convert("L")) > 0


def labels(page: Page) -> NDArray[np.uint16]:
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="Save labels").click()
    with Image.open(download.value.path()) as file:
        return np.stack([np.array(each) for each in ImageSequence.Iterator(file)])


def expected(demo: Project, picture: NDArray[np.uint8]) -> Mask:
    """onnxruntime's mask of a click."""
    encoder, decoder = (
        onnxruntime.InferenceSession(demo.root / f"public/demo/{part}.onnx")
        for part in ("encoder", "decoder")
    )
    image = preprocess(picture, Placement(SIZE, SIZE, SIZE, "stretch"))
    features = encoder.run(None, {"image": image})
    inputs: dict[str, Any] = dict(
        zip([output.name for output in encoder.get_outputs()], features, strict=True)
    )
    inputs["point_coords"] = np.array([[AT]], np.float32)
    inputs["point_labels"] = np.array([[1]], np.float32)
    inputs["mask_input"] = np.zeros((1, 1, SIZE // 4, SIZE // 4), np.float32)
    inputs["has_mask_input"] = np.zeros(1, np.float32)
    masks, scores = decoder.run(["masks", "iou_predictions"], inputs)
    logits = torch.from_numpy(masks[:, scores[0].argmax()][:, None])
    over = torch.nn.functional.interpolate(logits, (SIZE, SIZE), mode="bilinear")
    return np.asarray(over[0, 0].numpy() > 0)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def encoded(page: Page) -> int:
    """How often a frame was encoded."""
    count = page.evaluate("phases.filter((each) => each === 'Encoding the frame…').length")
    return int(count)


@pytest.mark.xdist_group("demo")
def test_the_model_sees_the_chosen_contrast_and_existing_masks_stay(
    page: Page, demo: Project, tmp_path: Path
) -> None:
    picture = natural_image(SIZE)
    Image.fromarray(picture).save(tmp_path / "cells.png")
    page.locator("#file").set_input_files(tmp_path / "cells.png")
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    click(page)
    before = mask(page)
    assert iou(before, expected(demo, picture)) > 0.98
    page.get_by_label("Black").fill("60")
    page.get_by_label("White").fill("140")
    expect(page.locator("#waiting")).to_be_hidden()  # it is shown until the encoding ends
    assert iou(mask(page), before) == 1
    page.get_by_role("button", name="New object").click()
    click(page)
    stretched = ((picture.astype(float) - 60) * 255 / 80).clip(0, 255).round().astype(np.uint8)
    assert iou(before, expected(demo, stretched)) < 0.95  # otherwise the test would show nothing
    assert iou(mask(page), expected(demo, stretched)) > 0.98


@pytest.mark.xdist_group("demo")
def test_a_slider_keeps_its_focus_while_keys_move_it(page: Page, tmp_path: Path) -> None:
    Image.fromarray(natural_image(SIZE)).save(tmp_path / "cells.png")
    page.locator("#file").set_input_files(tmp_path / "cells.png")
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    page.get_by_label("White").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#range")).to_have_text("0 is black, 250 is white.")
    assert page.evaluate("document.activeElement.id") == "white"


@pytest.mark.xdist_group("video")
def test_a_new_contrast_keeps_tracked_masks_and_encodes_frames_again(
    tracking_page: Page, tmp_path: Path
) -> None:
    page = tracking_page
    frames = [np.roll(natural_image(SIZE), 4 * index, axis=1) for index in range(3)]
    first, *others = (Image.fromarray(each) for each in frames)
    first.save(tmp_path / "cells.tif", save_all=True, append_images=others)
    page.locator("#file").set_input_files(tmp_path / "cells.tif")
    expect(page.locator("#status")).to_contain_text("frames. Click", timeout=60_000)
    click(page)
    page.get_by_role("button", name="Track on").click()
    expect(page.locator("#status")).to_contain_text("tracked", timeout=60_000)
    expect(page.locator("#waiting")).to_be_hidden()
    before = labels(page)
    page.locator("#slider").fill("2")
    expect(page.locator("#status")).to_contain_text("Frame 2 of 3")
    page.get_by_label("White").fill("120")
    expect(page.locator("#range")).to_contain_text("120 is white.")
    assert (labels(page) == before).all()
    count = encoded(page)
    click(page)
    assert encoded(page) == count + 1
    assert (labels(page)[[0, 2]] == before[[0, 2]]).all()
