"""The page of `doit serve` with a large image: a click while zoomed segments only the view."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from project import Project
from test_page import undo_all

from tasks.commands import serve
from tasks.config import parse
from tasks.inference.preprocessing import Placement, preprocess
from tasks.inference.prompts import natural_image
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # the demo is built once

SIZE = 256
WIDTH, HEIGHT = 1536, 1280
Mask = NDArray[np.bool_]
CALLS = """
const post = Worker.prototype.postMessage
window.calls = []
Worker.prototype.postMessage = function (data, ...rest) {
  if (data.call === 'encode' || data.call === 'decode') {
    const { name, prompt, previous } = data.args
    window.calls.push({ call: data.call, name, prompt, isRefined: Boolean(previous) })
  }
  return post.call(this, data, ...rest)
}
"""


@pytest.fixture(scope="module")
def address(demo: Project) -> Iterator[str]:
    with server.serving(serve.application(parse.load(demo.root / "config/models.toml"))) as address:
        yield address


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    tile = natural_image(SIZE)
    return np.tile(tile, (HEIGHT // SIZE, WIDTH // SIZE, 1))


@pytest.fixture(scope="module")
def file(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.png"
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str) -> Page:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.add_init_script(CALLS)
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    return page


@pytest.fixture
def page(opened: Page, file: Path) -> Page:
    """The page with the newly opened large image."""
    opened.get_by_label("Foreground").check()
    opened.locator("#refine").uncheck()
    undo_all(opened)  # the page would ask before it discards objects
    forget_status(opened)
    opened.locator("#file").set_input_files(file)
    expect(opened.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    opened.evaluate("window.calls.length = 0")
    return opened


def forget_status(page: Page) -> None:
    page.locator("#status").evaluate("status => { status.textContent = '' }")


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """The screen position of a pixel of the image."""
    box = page.locator("#picture").bounding_box()
    assert box
    return box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]


def look_at(page: Page, x: float, y: float, factor: float = 6) -> None:
    """Show the whole image, then zoom in on one of its pixels."""
    page.locator("#zoom-fit").click()
    page.mouse.move(*on_screen(page, x, y))
    page.mouse.wheel(0, -np.log(factor) / 0.0015)
    expect(page.locator("#zoom-fit")).to_have_text(f"{100 * factor:.0f} %")


def click(page: Page, x: float, y: float) -> tuple[float, float]:
    """Click near a visible pixel and wait for the mask; returns the clicked pixel."""
    forget_status(page)
    to = [round(each) for each in on_screen(page, x, y)]
    page.mouse.click(*to)
    expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)
    box = page.locator("#picture").bounding_box()
    assert box
    right, down = to[0] - box["x"], to[1] - box["y"]
    return right / box["width"] * WIDTH, down / box["height"] * HEIGHT


def saved(page: Page) -> Mask:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save mask").click()
    with Image.open(download.value.path()) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        return np.array(picture.convert("L")) > 0


def calls(page: Page, which: str) -> list[dict[str, Any]]:
    return [each for each in page.evaluate("window.calls") if each["call"] == which]


def encoded(page: Page) -> list[str]:
    """The names of the views encoded since the image was opened."""
    return [each["name"] for each in calls(page, "encode")]


def box_of(name: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a view."""
    width, height, left, top = (int(each) for each in re.findall(r"\d+", name))
    return left, top, left + width, top + height


@pytest.fixture(scope="module")
def answer(demo: Project, image: NDArray[np.uint8]) -> Callable[..., Mask]:
    """onnxruntime's best mask of a view, encoded as an image of its own."""
    encoder, decoder = (
        onnxruntime.InferenceSession(
            demo.root / f"public/demo/{part}.onnx", providers=["CPUExecutionProvider"]
        )
        for part in ("encoder", "decoder")
    )
    names = [output.name for output in encoder.get_outputs()]

    def run(box: tuple[int, int, int, int], points: list[list[float]], labels: list[int]) -> Mask:
        left, top, right, bottom = box
        place = Placement(SIZE, right - left, bottom - top, "stretch")
        pixels = preprocess(image[top:bottom, left:right], place)
        features = dict(zip(names, encoder.run(None, {"image": pixels}), strict=True))
        scale = SIZE / np.array([right - left, bottom - top])
        inputs = {
            **features,
            "point_coords": np.array([(np.array(points) - [left, top]) * scale], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": np.zeros((1, 1, SIZE // 4, SIZE // 4), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        masks, scores = decoder.run(["masks", "iou_predictions"], inputs)
        best = torch.from_numpy(masks[:, [scores[0].argmax()]])
        size = (bottom - top, right - left)
        over = torch.nn.functional.interpolate(best, size, mode="bilinear", align_corners=False)
        full = np.zeros((HEIGHT, WIDTH), bool)
        full[top:bottom, left:right] = over[0, 0].numpy() > 0
        return full

    return run


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_click_while_zoomed_draws_the_mask_of_the_view_in_place(
    page: Page, answer: Callable[..., Mask]
) -> None:
    look_at(page, 1100, 400)
    expect(page.locator("#zoomed")).to_contain_text("The next click encodes this view separately")
    at = click(page, 1100, 400)
    (name,) = encoded(page)
    left, top, right, bottom = box_of(name)
    assert max(right - left, bottom - top) < WIDTH / 2
    expect(page.locator("#zoomed")).to_contain_text("This view is encoded separately")
    times = re.findall(r"([\d.]+) times as fine", page.locator("#zoomed").inner_text())
    assert float(times[0]) == pytest.approx(WIDTH / max(right - left, bottom - top), abs=0.06)
    mask = saved(page)
    # Chromium and Pillow scale the view differently, and random weights amplify the difference.
    assert iou(mask, answer((left, top, right, bottom), [[*at]], [1])) > 0.9
    mask[top:bottom, left:right] = False
    assert not mask.any()


@pytest.mark.parametrize("factor", [1, 1.3, 3, 8])
def test_points_reach_the_decoder_within_a_hundredth_of_a_pixel(page: Page, factor: float) -> None:
    if factor > 1:
        look_at(page, 1234.5, 321.4, factor)
    at = click(page, 1234.5, 321.4)
    (decoded,) = calls(page, "decode")
    (point,) = decoded["prompt"]["points"]
    left, top = (0, 0) if decoded["name"] == "the whole image" else box_of(decoded["name"])[:2]
    assert (decoded["name"] == "the whole image") == (factor < 2)
    assert (point["x"] + left, point["y"] + top) == pytest.approx(at, abs=0.01)


def test_recent_views_stay_encoded(page: Page) -> None:
    places = [(200, 250), (1300, 250), (200, 1000), (1300, 1000), (750, 640)]
    for place in places[:4]:
        look_at(page, *place)
        click(page, *place)
        click(page, place[0] + 5, place[1])
    assert len(encoded(page)) == 4
    look_at(page, *places[0])
    click(page, *places[0])
    assert len(encoded(page)) == 4
    look_at(page, *places[4])
    click(page, *places[4])
    look_at(page, *places[0])
    click(page, *places[0])
    assert len(encoded(page)) == 5  # the first view is still encoded, as it was used just before
    look_at(page, *places[1])
    click(page, *places[1])
    assert len(encoded(page)) == 6


def test_a_correction_in_another_view_keeps_the_mask_outside_that_view(page: Page) -> None:
    look_at(page, 400, 400)
    click(page, 400, 400)
    before = saved(page)
    look_at(page, 1100, 900)
    click(page, 1100, 900)
    _, name = encoded(page)
    left, top, right, bottom = box_of(name)
    after = saved(page)
    inside = np.zeros_like(after)
    inside[top:bottom, left:right] = True
    assert (after == before)[~inside].all()
    assert (after & inside).any()
    page.get_by_role("button", name="Undo").click()
    assert (saved(page) == before).all()


def test_a_mask_of_the_whole_image_can_be_corrected_while_zoomed(page: Page) -> None:
    click(page, 700, 600)
    before = saved(page)
    look_at(page, 700, 600)
    page.get_by_label("Background").check()
    click(page, 705, 605)
    left, top, right, bottom = box_of(encoded(page)[0])
    after = saved(page)
    inside = np.zeros_like(after)
    inside[top:bottom, left:right] = True
    assert (after == before)[~inside].all()
    assert (after != before)[inside].any()


def test_a_mask_drawn_while_zoomed_is_corrected_at_the_same_resolution_when_zoomed_out(
    page: Page,
) -> None:
    look_at(page, 700, 600)
    click(page, 700, 600)
    page.locator("#zoom-fit").click()
    expect(page.locator("#zoomed")).to_be_hidden()
    page.get_by_label("Background").check()
    click(page, 715, 600)
    first, second = calls(page, "decode")
    assert first["name"] == second["name"] != "the whole image"
    assert [each["foreground"] for each in second["prompt"]["points"]] == [True, False]


def test_changing_the_model_encodes_the_views_of_the_prompts_again(page: Page) -> None:
    look_at(page, 400, 400)
    click(page, 400, 400)
    look_at(page, 1100, 900)
    click(page, 1100, 900)
    before = saved(page)
    views = encoded(page)
    forget_status(page)
    page.locator("#model").dispatch_event("change")
    expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)
    assert encoded(page)[2:] == ["the whole image", *views]
    assert (saved(page) == before).all()


def test_frames_of_a_stack_are_encoded_whole(page: Page, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "second.png"
    other.write_bytes(file.read_bytes())
    page.locator("#file").set_input_files([file, other])
    expect(page.locator("#status")).to_contain_text("2 frames", timeout=60_000)
    page.evaluate("window.calls.length = 0")
    look_at(page, 400, 400)
    expect(page.locator("#zoomed")).to_be_hidden()
    click(page, 400, 400)
    assert encoded(page) == ["the whole image"]


def test_axe_finds_nothing_serious_while_zoomed(page: Page) -> None:
    look_at(page, 400, 400)
    page.add_script_tag(path=packages.FOLDER / "node_modules/axe-core/axe.min.js")
    for size in ({"width": 390, "height": 844}, {"width": 1280, "height": 800}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        violations = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [each for each in violations if each["impact"] in ("serious", "critical")] == []
