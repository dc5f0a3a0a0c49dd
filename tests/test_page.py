"""The page of `doit serve`, used as a person would, in a real Chromium with a small model."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coco
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, Route, expect
from project import Project

from tasks.commands import serve
from tasks.config import parse
from tasks.inference.preprocessing import Placement, preprocess
from tasks.inference.prompts import natural_image
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # the demo is built once

SIZE = 256
# Polled on every animation frame: `expect` polls too rarely to see a small model encode.
ENCODES = "document.querySelector('#phase').textContent === 'Encoding the image…'"


@pytest.fixture(scope="module")
def address(demo: Project) -> Iterator[str]:
    config = parse.load(demo.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        yield address


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of the encoder's own size, so that nothing is resampled."""
    path = tmp_path_factory.mktemp("picture") / "cells.png"
    Image.fromarray(natural_image(SIZE)).save(path)
    return path


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str, picture: Path) -> Page:
    """The page with its model and an image opened; encoded once for all tests."""
    page = chromium.new_page()
    page.add_init_script(
        """addEventListener('DOMContentLoaded', () => {
          window.phases = []
          const phase = document.querySelector('#phase')
          new MutationObserver(() => window.phases.push(phase.textContent))
            .observe(phase, { childList: true })
        })"""
    )
    page.goto(address)
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    return page


@pytest.fixture
def page(opened: Page) -> Page:
    """The page without prompts or errors, with the whole image in view."""
    opened.set_viewport_size({"width": 1280, "height": 720})
    if opened.get_by_role("alert").is_visible():
        opened.get_by_role("button", name="Dismiss").click()
    undo_all(opened)
    expect(opened.locator("#objects li")).to_have_count(1)
    opened.locator("#refine").uncheck()
    opened.get_by_label("Foreground").check()
    opened.locator("#zoom-fit").click()
    return opened


def undo_all(page: Page) -> None:
    undo = page.get_by_role("button", name="Undo")
    while undo.is_enabled():
        undo.click()


def area(page: Page) -> FloatRect:
    box = page.locator("#overlay").bounding_box()
    assert box
    return box


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """The screen position of a point in fractions of the image, also while zoomed."""
    box = page.locator("#picture").bounding_box()
    assert box
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def click(page: Page, x: float, y: float, **options: Any) -> None:
    """Click at a point in fractions of the image, and wait for the mask."""
    box = area(page)
    position = {"x": x * box["width"], "y": y * box["height"]}
    page.locator("#overlay").click(position=position, **options)
    wait(page)


def wait(page: Page) -> None:
    expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=20_000)


def begin(page: Page) -> None:
    """Begin a new object."""
    page.get_by_role("button", name="New object").click()
    expect(page.locator("#status")).to_contain_text("click what to segment")


def three_objects(page: Page) -> None:
    """Click on three places, each for a new object."""
    click(page, 0.42, 0.55)
    begin(page)
    click(page, 0.75, 0.3)
    begin(page)
    click(page, 0.2, 0.2)


def shown(page: Page) -> tuple[int, float]:
    """Which mask is shown, and its predicted IoU."""
    found = re.match(r"Mask (\d) of 3: predicted IoU", page.locator("#status").inner_text())
    assert found
    return int(found[1]) - 1, float(page.locator("#score").inner_text())


def saved(page: Page) -> NDArray[np.bool_]:
    """The mask that the page saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save mask").click()
    assert download.value.suggested_filename == "cells-mask.png"
    picture = coco.labels(download.value.path())
    assert set(np.unique(picture)) <= {0, 255}
    return picture > 0


def saved_labels(page: Page) -> NDArray[np.uint8]:
    """The label image that the page saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save labels").click()
    assert download.value.suggested_filename == "cells-labels.png"
    return coco.labels(download.value.path())


def saved_coco(page: Page) -> dict[str, Any]:
    """The annotations that the page saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save COCO").click()
    assert download.value.suggested_filename == "cells-coco.json"
    found: dict[str, Any] = json.loads(download.value.path().read_text())
    return found


@pytest.fixture(scope="module")
def answer(demo: Project) -> Any:
    """onnxruntime's masks at the image's size, scores and logits for a prompt in pixels."""
    encoder, decoder = (
        onnxruntime.InferenceSession(
            demo.root / f"public/demo/{part}.onnx", providers=["CPUExecutionProvider"]
        )
        for part in ("encoder", "decoder")
    )
    names = [output.name for output in encoder.get_outputs()]
    image = preprocess(natural_image(SIZE), Placement(SIZE, SIZE, SIZE, "stretch"))
    features = dict(zip(names, encoder.run(None, {"image": image}), strict=True))

    def run(
        points: list[list[float]], labels: list[int], mask: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        empty = np.zeros((1, 1, SIZE // 4, SIZE // 4), np.float32)
        inputs = {
            **features,
            "point_coords": np.array([points], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": empty if mask is None else mask[None, None],
            "has_mask_input": np.array([mask is not None], np.float32),
        }
        masks, scores = decoder.run(["masks", "iou_predictions"], inputs)
        # As sam2 itself scales masks to the image's size.
        over = torch.nn.functional.interpolate(
            torch.from_numpy(masks), (SIZE, SIZE), mode="bilinear", align_corners=False
        )
        return over[0].numpy() > 0, scores[0], masks[0]

    return run


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_click_draws_the_same_mask_as_onnxruntime(page: Page, answer: Any) -> None:
    click(page, 0.42, 0.55)
    masks, scores, _ = answer([[0.42 * SIZE, 0.55 * SIZE]], [1])
    index, score = shown(page)
    assert index == scores.argmax()
    assert score == pytest.approx(scores.max(), abs=2e-3)
    # A click lands on a whole pixel of the screen, a little off the exact point.
    assert iou(saved(page), masks[index]) > 0.99


def test_a_right_click_adds_a_background_point(page: Page, answer: Any) -> None:
    click(page, 0.42, 0.55)
    click(page, 0.75, 0.3, button="right")
    masks, scores, _ = answer([[0.42 * SIZE, 0.55 * SIZE], [0.75 * SIZE, 0.3 * SIZE]], [1, 0])
    assert iou(saved(page), masks[scores.argmax()]) > 0.99


def test_a_drag_draws_a_box(page: Page, answer: Any) -> None:
    box = area(page)
    corners = [(0.65, 0.75), (0.25, 0.35)]  # from the bottom right
    (x0, y0), (x1, y1) = (
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners
    )
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move((x0 + x1) / 2, y0)
    page.mouse.move(x1, y1)
    page.mouse.up()
    wait(page)
    masks, scores, _ = answer([[0.25 * SIZE, 0.35 * SIZE], [0.65 * SIZE, 0.75 * SIZE]], [2, 3])
    assert iou(saved(page), masks[scores.argmax()]) > 0.99


def test_a_refinement_starts_from_the_displayed_mask(page: Page, answer: Any) -> None:
    click(page, 0.42, 0.55)
    page.get_by_role("radio", name="2:").check()
    page.locator("#refine").check()
    click(page, 0.55, 0.6)
    first, second = [0.42 * SIZE, 0.55 * SIZE], [0.55 * SIZE, 0.6 * SIZE]
    _, _, logits = answer([first], [1])
    masks, scores, _ = answer([first, second], [1, 1], logits[1])
    without, _, _ = answer([first, second], [1, 1])
    best = scores.argmax()
    assert iou(without[best], masks[best]) < 0.99  # otherwise the test would show nothing
    assert iou(saved(page), masks[best]) > 0.99


def test_each_of_the_three_masks_can_be_chosen(page: Page, answer: Any) -> None:
    click(page, 0.42, 0.55)
    masks, scores, _ = answer([[0.42 * SIZE, 0.55 * SIZE]], [1])
    for index in range(3):
        page.get_by_role("radio", name=f"{index + 1}:").check()
        assert shown(page) == (index, pytest.approx(scores[index], abs=2e-3))
        assert iou(saved(page), masks[index]) > 0.99


def test_undo_goes_back_one_prompt_at_a_time(page: Page) -> None:
    click(page, 0.42, 0.55)
    one = saved(page)
    click(page, 0.8, 0.2)
    assert iou(saved(page), one) < 0.999
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    expect(page.locator("#status")).to_have_text("Undone.")
    assert iou(saved(page), one) == 1
    undo.click()
    expect(undo).to_be_disabled()
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()


def test_points_and_boxes_can_be_placed_with_the_keyboard(page: Page, answer: Any) -> None:
    page.locator("#overlay").focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    wait(page)
    masks, scores, _ = answer([[0.4 * SIZE, 0.5 * SIZE]], [1])
    assert iou(saved(page), masks[scores.argmax()]) > 0.999

    page.locator("#overlay").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    wait(page)
    masks, scores, _ = answer([[0.4 * SIZE, 0.5 * SIZE], [0.5 * SIZE, 0.55 * SIZE]], [2, 3])
    assert iou(saved(page), masks[scores.argmax()]) > 0.999

    page.locator("#overlay").focus()
    page.keyboard.press("Backspace")
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()


def test_every_control_has_an_accessible_name(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas, progress')]
          .filter((element) => element.ariaHidden !== 'true')
          .filter((element) => !element.ariaLabel && !element.innerText?.trim()
            && !element.labels?.length)
          .map((element) => element.outerHTML)"""
    )
    assert nameless == []
    expect(page.get_by_role("status")).to_be_visible()


def test_loading_shows_the_download_progress(page: Page, demo: Project) -> None:
    sizes = [
        (demo.root / f"public/demo/{part}.onnx").stat().st_size for part in ("encoder", "decoder")
    ]
    total = f"{sum(sizes) / 2**20:.1f} MiB"
    phases = page.evaluate("window.phases")
    loading = [phase for phase in phases if phase.startswith("Loading")]
    assert len(loading) > 5
    assert loading[-1] == f"Loading {total} of {total}"
    assert phases.index("Encoding the image…") > phases.index("Creating the sessions…")


def segment(page: Page, side: int, least: float = 0) -> None:
    """Run Segment everything with this many clicks in each direction and these limits."""
    page.get_by_label("Clicks", exact=True).select_option(str(side))
    for limit in ("Least predicted IoU", "Least stability"):
        page.get_by_label(limit).fill(str(least))
    page.get_by_role("button", name="Segment everything").click()


def objects(page: Page) -> int:
    """The number of objects in the status message."""
    found = re.match(r"(\d+|One|No) objects? found by", page.locator("#status").inner_text())
    assert found
    return {"No": 0, "One": 1}[found[1]] if found[1].isalpha() else int(found[1])


def test_segment_everything_numbers_its_objects_and_saves_them_as_labels(page: Page) -> None:
    segment(page, 8)
    expect(page.locator("#status")).to_contain_text("found by 64 clicks", timeout=60_000)
    count = objects(page)
    assert count > 0
    assert "Segmenting 0 of 64 clicks" in page.evaluate("window.phases")
    labels = saved_labels(page)
    assert labels.shape == (SIZE, SIZE)
    assert 0 < labels.max() <= count
    found = saved_coco(page)
    assert len(found["annotations"]) == count
    for each, mask in zip(found["annotations"], coco.masks(found), strict=True):
        assert mask[labels == each["id"]].all()


def test_the_limits_filter_the_objects_of_segment_everything(page: Page) -> None:
    segment(page, 8)
    expect(page.locator("#status")).to_contain_text("found by 64 clicks", timeout=60_000)
    count = objects(page)
    page.get_by_label("Least predicted IoU").fill("1")
    expect(page.locator("#status")).to_contain_text("No objects found")
    expect(page.get_by_role("button", name="Save labels")).to_be_disabled()
    page.get_by_label("Least predicted IoU").fill("0")
    expect(page.locator("#status")).not_to_contain_text("No objects")
    assert objects(page) == count


def test_the_last_of_several_quick_limit_changes_applies(page: Page) -> None:
    segment(page, 8)
    expect(page.locator("#status")).to_contain_text("found by 64 clicks", timeout=60_000)
    page.get_by_label("Least predicted IoU").evaluate(
        """(input) => {
          for (const value of [0, 1]) {
            input.value = value
            input.dispatchEvent(new Event('input'))
          }
        }"""
    )
    expect(page.locator("#status")).to_contain_text("No objects found")


def test_segment_everything_can_be_cancelled(page: Page) -> None:
    segment(page, 32)
    cancel = page.get_by_role("button", name="Cancel")
    expect(page.get_by_role("button", name="Segment everything")).to_be_disabled()
    cancel.click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(cancel).to_be_hidden()
    click(page, 0.42, 0.55)
    shown(page)


def test_another_image_can_be_opened_while_a_mask_is_being_drawn(
    chromium: Browser, address: str, picture: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 150), "teal").save(tmp_path / "wide.png")
    page = chromium.new_page()
    page.goto(address)
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    page.locator("#overlay").click()
    page.locator("#file").set_input_files(tmp_path / "wide.png")
    page.get_by_role("button", name="Discard").click()
    page.wait_for_function("document.querySelector('#picture img').naturalWidth === 300")
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    page.locator("#overlay").click()
    wait(page)
    page.close()


def test_another_image_can_be_opened_while_segment_everything_runs(
    chromium: Browser, address: str, picture: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 150), "teal").save(tmp_path / "wide.png")
    page = chromium.new_page()
    page.goto(address)
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    segment(page, 32)
    expect(page.locator("#phase")).to_contain_text("of 1024 clicks")
    page.locator("#file").set_input_files(tmp_path / "wide.png")
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    expect(page.locator("#waiting")).to_be_hidden()
    click(page, 0.5, 0.5)
    page.close()


def test_the_model_can_be_changed_at_any_time_and_the_prompt_stays(
    chromium: Browser, demo: Project, picture: Path
) -> None:
    folder = demo.root / "public/demo"
    folders = {"/models/one": folder, "/models/two": folder}
    folders |= {"/onnxruntime-web": packages.RUNTIME / "dist", "/": packages.PAGE}
    app = server.application(folders, {"/models.json": lambda: ["one", "two"]})
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        model = page.get_by_label("Model")
        model.select_option("two")  # while the first is being opened
        page.locator("#file").set_input_files(picture)
        page.wait_for_function(ENCODES)
        model.select_option("one")  # while the image is being encoded
        expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
        page.locator("#overlay").click()
        model.select_option("two")  # while a mask is being drawn
        page.wait_for_function(ENCODES)
        expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.close()


def test_a_late_failure_of_a_deselected_model_shows_no_error(
    chromium: Browser, demo: Project
) -> None:
    folder = demo.root / "public/demo"
    folders = {"/models/one": folder, "/models/two": folder}
    folders |= {"/onnxruntime-web": packages.RUNTIME / "dist", "/": packages.PAGE}
    app = server.application(folders, {"/models.json": lambda: ["one", "two"]})
    with server.serving(app) as address:
        page = chromium.new_page()
        held: list[Route] = []
        page.route("**/manifest.json", lambda route: held.append(route))
        page.goto(address)
        page.get_by_label("Model").select_option("two")
        while len(held) < 2:
            page.wait_for_timeout(10)  # lets Playwright deliver the next request
        one, two = held
        with page.expect_response("**/models/one/manifest.json"):
            one.fulfill(status=500)
        two.continue_()
        expect(page.locator("#status")).to_contain_text("two is ready", timeout=60_000)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.close()


def test_an_image_that_arrives_late_does_not_replace_a_newer_one(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 150), "teal").save(tmp_path / "wide.png")
    page = chromium.new_page()
    held: list[Route] = []
    page.route("**/sample.svg", lambda route: held.append(route))
    page.goto(address)
    page.get_by_role("button", name="Sample").click()
    page.locator("#file").set_input_files(tmp_path / "wide.png")
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    with page.expect_response("**/sample.svg"):
        held[0].continue_()
    page.wait_for_timeout(100)
    assert page.locator("#picture img").evaluate("image => image.naturalWidth") == 300
    page.close()


def test_a_dropped_image_opens_with_its_own_aspect_ratio(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 150), "teal").save(tmp_path / "wide.png")
    page = chromium.new_page()
    page.goto(address)
    page.evaluate(
        """async (bytes) => {
          const transfer = new DataTransfer()
          transfer.items.add(new File([new Uint8Array(bytes)], 'wide.png', { type: 'image/png' }))
          document.querySelector('#stage').dispatchEvent(
            new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))
        }""",
        list((tmp_path / "wide.png").read_bytes()),
    )
    expect(page.locator("#overlay")).to_be_visible()
    box = area(page)
    assert box["width"] / box["height"] == pytest.approx(2, rel=0.02)
    page.close()


def test_the_sample_image_opens(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    page.goto(address)
    page.get_by_role("button", name="Sample").click()
    expect(page.locator("#overlay")).to_be_visible()
    page.close()


def test_a_file_that_is_not_an_image_is_reported_by_name(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page = chromium.new_page()
    page.goto(address)
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_contain_text("notes.png is not an image")
    page.close()


def test_a_browser_without_webgpu_shows_a_notice_and_uses_wasm(page: Page) -> None:
    expect(page.locator("#webgpu")).to_contain_text("This browser has no WebGPU")
    assert page.locator("#provider").input_value() == "wasm"
    assert page.locator("#provider option[value=webgpu]").is_disabled()


def test_a_model_is_fetched_only_once_until_its_hash_changes(
    chromium: Browser, demo: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo.root / "public/demo", folder)
    app = server.application(
        {
            "/models/mine": folder,
            "/onnxruntime-web": packages.RUNTIME / "dist",
            "/": packages.PAGE,
        },
        {"/models.json": lambda: ["mine"]},
    )
    with server.serving(app) as address:
        context = chromium.new_context()
        fetched: list[str] = []

        def visit() -> list[str]:
            fetched.clear()
            page = context.new_page()
            page.on("request", lambda request: fetched.append(request.url.split("/")[-1]))
            page.goto(address)
            expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
            page.close()
            return [name for name in fetched if name.endswith(".onnx")]

        assert visit() == ["encoder.onnx", "decoder.onnx"]
        assert visit() == []
        # Another file of the same name and size, with its hash in the manifest.
        changed = (folder / "decoder.onnx").read_bytes().replace(b"pytorch", b"PyTorch", 1)
        (folder / "decoder.onnx").write_bytes(changed)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["files"]["decoder.onnx"]["size"] == len(changed)
        manifest["files"]["decoder.onnx"]["sha256"] = hashlib.sha256(changed).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert visit() == ["decoder.onnx"]
        context.close()


def test_a_file_that_does_not_match_the_manifest_is_refused(
    chromium: Browser, demo: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo.root / "public/demo", folder)
    (folder / "encoder.onnx").write_text("<!doctype html><title>the application</title>")
    app = server.application(
        {"/models/mine": folder, "/": packages.PAGE}, {"/models.json": lambda: ["mine"]}
    )
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("mine cannot be used")
        expect(alert).to_contain_text("encoder.onnx: found an HTML page, expected an ONNX file")
        (folder / "encoder.onnx").write_bytes(b"half")
        page.reload()
        expect(alert).to_contain_text("encoder.onnx: found 4 bytes, but the manifest says")
        (folder / "encoder.onnx").unlink()
        page.reload()
        expect(alert).to_contain_text("encoder.onnx: HTTP 404")
        page.close()


def test_a_manifest_of_an_earlier_version_is_refused(
    chromium: Browser, demo: Project, tmp_path: Path
) -> None:
    manifest = json.loads((demo.root / "public/demo/manifest.json").read_text())
    for tensor in manifest["encoder"]["inputs"]:
        del tensor["role"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    app = server.application(
        {"/models/old": tmp_path, "/": packages.PAGE}, {"/models.json": lambda: ["old"]}
    )
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("deploy the model again")
        page.close()


def test_without_a_deployed_model_the_page_shows_the_command_to_run(chromium: Browser) -> None:
    with server.serving(
        server.application({"/": packages.PAGE}, {"/models.json": list})
    ) as address:
        page = chromium.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("uv run doit demo")
        page.close()


def test_each_object_keeps_its_own_prompt_and_mask(page: Page) -> None:
    click(page, 0.42, 0.55)
    first = saved(page)
    begin(page)
    click(page, 0.75, 0.3)
    assert iou(saved(page), first) < 0.99
    page.get_by_role("radio", name="Work on Object 1").check()
    wait(page)
    assert iou(saved(page), first) == 1


def test_undo_and_clear_leave_the_other_objects_alone(page: Page) -> None:
    three_objects(page)
    page.get_by_role("button", name="Undo").click()
    assert [each["id"] for each in saved_coco(page)["annotations"]] == [1, 2]
    page.get_by_role("radio", name="Work on Object 1").check()
    page.get_by_role("button", name="Clear").click()
    assert [each["id"] for each in saved_coco(page)["annotations"]] == [2]


def test_the_n_key_starts_a_new_object(page: Page) -> None:
    click(page, 0.42, 0.55)
    page.locator("#overlay").press("n")
    expect(page.get_by_role("radio", name="Work on Object 2")).to_be_checked()
    click(page, 0.75, 0.3)
    assert len(saved_coco(page)["annotations"]) == 2


def test_new_object_reuses_an_object_without_a_prompt(page: Page) -> None:
    begin(page)
    expect(page.locator("#objects li")).to_have_count(1)


def test_a_deleted_object_is_no_longer_saved_and_the_others_keep_their_numbers(page: Page) -> None:
    three_objects(page)
    page.get_by_role("button", name="Delete Object 2").click()
    expect(page.locator("#objects li")).to_have_count(2)
    assert [each["id"] for each in saved_coco(page)["annotations"]] == [1, 3]


def test_undo_restores_a_deleted_object(page: Page) -> None:
    three_objects(page)
    page.get_by_label("Name of object 2").fill("nucleus")
    page.get_by_label("Colour of nucleus").fill("#0077bb")
    before = saved_coco(page)
    page.get_by_role("button", name="Delete nucleus").click()
    expect(page.locator("#status")).to_have_text("nucleus is deleted. Undo brings it back.")
    page.keyboard.press("Control+z")
    expect(page.locator("#status")).to_have_text("nucleus is back.")
    expect(page.get_by_role("radio", name="Work on nucleus")).to_be_checked()
    expect(page.get_by_label("Colour of nucleus")).to_have_value("#0077bb")
    names = page.locator("#objects .name").evaluate_all("all => all.map((one) => one.value)")
    assert names == ["", "nucleus", ""]
    assert saved_coco(page) == before
    page.keyboard.press("Control+z")  # now the colour
    expect(page.get_by_label("Colour of nucleus")).not_to_have_value("#0077bb")
    page.keyboard.press("Control+z")  # and the name
    expect(page.get_by_label("Name of object 2")).to_have_value("")


def test_undo_restores_the_only_object(page: Page) -> None:
    click(page, 0.42, 0.55)
    mask = saved(page)
    page.get_by_role("button", name="Delete Object 1").click()
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#objects li")).to_have_count(1)
    assert iou(saved(page), mask) == 1


def test_undo_restores_a_cleared_prompt(page: Page) -> None:
    click(page, 0.42, 0.55)
    mask = saved(page)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()
    page.get_by_role("button", name="Undo").click()
    assert iou(saved(page), mask) == 1


def test_escape_cancels_a_box_before_it_clears_the_prompt(page: Page) -> None:
    click(page, 0.42, 0.55)
    image = page.locator("#overlay")
    for key in ("x", "Enter", "Escape"):
        image.press(key)
    saved(page)
    image.press("Escape")
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()


def test_escape_stops_segment_everything_and_clears_nothing(page: Page) -> None:
    click(page, 0.42, 0.55)
    segment(page, 32)
    expect(page.locator("#phase")).to_contain_text("of 1024 clicks")
    page.locator("#overlay").press("Escape")
    expect(page.locator("#status")).to_have_text("Cancelled.", timeout=20_000)
    saved(page)


def test_the_list_shows_each_object_with_its_own_colour_and_its_area(page: Page) -> None:
    three_objects(page)
    colors = page.locator("#objects .swatch").evaluate_all("all => all.map((one) => one.value)")
    assert len(set(colors)) == 3
    areas = page.locator("#objects .area").all_inner_texts()
    for text, each in zip(areas, saved_coco(page)["annotations"], strict=True):
        assert float(text.removesuffix(" %")) == pytest.approx(
            each["area"] / SIZE**2 * 100, abs=1.5
        )


def test_all_objects_are_saved_in_one_label_image(page: Page) -> None:
    click(page, 0.42, 0.55)
    first = saved(page)
    begin(page)
    click(page, 0.75, 0.3)
    labels = saved_labels(page)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (first[labels == 1]).all()


def test_all_objects_are_saved_in_one_coco_file(page: Page) -> None:
    click(page, 0.42, 0.55)
    page.get_by_label("Name of object 1").fill("nucleus")
    first = saved(page)
    begin(page)
    click(page, 0.75, 0.3)
    found = saved_coco(page)
    assert found["images"] == [{"id": 1, "file_name": "cells.png", "width": SIZE, "height": SIZE}]
    categories = {each["id"]: each["name"] for each in found["categories"]}
    names = [categories[each["category_id"]] for each in found["annotations"]]
    assert names == ["nucleus", "object"]
    masks = coco.masks(found)
    assert (masks[0] == first).all()
    for each, mask in zip(found["annotations"], masks, strict=True):
        rows, columns = np.nonzero(mask)
        left, top, width, height = each["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert each["area"] == len(rows)
        assert each["iscrowd"] == 0
        assert each["image_id"] == 1


def test_a_click_while_zoomed_reaches_the_decoder_at_the_right_place(
    page: Page, answer: Any
) -> None:
    box = area(page)
    x, y = box["x"] + 0.42 * box["width"], box["y"] + 0.55 * box["height"]
    page.mouse.move(x, y)
    for _ in range(5):
        page.mouse.wheel(0, -200)
    expect(page.locator("#zoom-fit")).to_have_text("448 %")
    page.mouse.down(button="middle")
    page.mouse.move(x + 60, y - 40)
    page.mouse.up(button="middle")
    page.mouse.click(*on_screen(page, 0.42, 0.55))
    wait(page)
    masks, scores, _ = answer([[0.42 * SIZE, 0.55 * SIZE]], [1])
    assert iou(saved(page), masks[scores.argmax()]) > 0.99


def test_a_box_while_zoomed_reaches_the_decoder_at_the_right_place(page: Page, answer: Any) -> None:
    box = area(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -400)
    expect(page.locator("#zoom-fit")).to_have_text("182 %")
    page.mouse.move(*on_screen(page, 0.35, 0.45))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 0.6, 0.65), steps=3)
    page.mouse.up()
    wait(page)
    masks, scores, _ = answer([[0.35 * SIZE, 0.45 * SIZE], [0.6 * SIZE, 0.65 * SIZE]], [2, 3])
    assert iou(saved(page), masks[scores.argmax()]) > 0.99


def test_points_keep_their_screen_size_while_zoomed(page: Page) -> None:
    def green() -> int:
        found: int = page.locator("#overlay").evaluate(
            """(canvas) => {
              const { width, height } = canvas
              const { data } = canvas.getContext('2d').getImageData(0, 0, width, height)
              let count = 0
              for (let i = 0; i < data.length; i += 4)
                count += data[i] === 18 && data[i + 1] === 161 && data[i + 2] === 80
              return count
            }"""
        )
        return found

    click(page, 0.42, 0.55)
    before = green()
    assert before > 50
    page.locator("#overlay").press("+")
    page.locator("#overlay").press("+")
    assert green() == pytest.approx(before, rel=0.15)


def test_keys_and_buttons_zoom(page: Page) -> None:
    shown = page.locator("#zoom-fit")
    page.locator("#overlay").press("+")
    expect(shown).to_have_text("125 %")
    page.get_by_role("button", name="Zoom in").click()
    expect(shown).to_have_text("156 %")
    page.locator("#overlay").press("-")
    expect(shown).to_have_text("125 %")
    page.locator("#overlay").press("0")
    expect(shown).to_have_text("100 %")


def test_masks_cover_the_whole_frame_after_the_window_grows(page: Page) -> None:
    for _ in range(6):
        page.locator("#overlay").press("+")
    box = area(page)
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down(button="middle")
    page.mouse.move(box["x"] + 2000, box["y"] + 2000)  # to the upper left corner
    page.mouse.up(button="middle")
    click(page, 0.5, 0.5)
    page.set_viewport_size({"width": 1400, "height": 820})
    frame = page.locator("#frame").bounding_box()
    assert frame
    assert area(page)["width"] == pytest.approx(frame["width"], abs=1)
    assert area(page)["height"] == pytest.approx(frame["height"], abs=1)


def test_dragging_with_space_held_moves_the_image_without_prompting(page: Page) -> None:
    for _ in range(3):
        page.locator("#overlay").press("+")
    before = page.locator("#picture").bounding_box()
    box = area(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(x + 50, y + 30)
    page.mouse.up()
    page.keyboard.up(" ")
    after = page.locator("#picture").bounding_box()
    assert before
    assert after
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((50, 30), abs=0.1)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_pinching_zooms_without_prompting(page: Page) -> None:
    box = area(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": x + distance, "y": y, "id": i} for i, distance in enumerate(apart)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -40)
    touch("touchStart", -40, 40)
    for distance in (60, 80):
        touch("touchMove", -distance, distance)
    touch("touchEnd")
    expect(page.locator("#zoom-fit")).to_have_text("200 %")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_masks_are_magenta_by_default_and_display_settings_are_kept(
    chromium: Browser, address: str, picture: Path
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    swatch = page.get_by_label("Colour of Object 1")
    expect(swatch).to_have_value("#ee3377")
    swatch.fill("#ee7733")
    page.get_by_label("Outline").uncheck()
    page.get_by_label("Opacity").fill("70")
    page.reload()
    expect(swatch).to_have_value("#ee7733")
    expect(page.get_by_label("Outline")).not_to_be_checked()
    expect(page.get_by_label("Opacity")).to_have_value("70")
    context.close()


def test_the_page_works_without_local_storage(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    page.add_init_script(
        """Object.defineProperty(window, 'localStorage', {
          get() { throw new DOMException('denied', 'SecurityError') } })"""
    )
    page.goto(address)
    page.get_by_label("Outline").uncheck()
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.close()


def test_an_error_disappears_after_the_next_successful_action(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_contain_text("notes.png is not an image")
    click(page, 0.42, 0.55)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_missing_model_in_the_url_is_reported_by_name(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    page.goto(f"{address}?model=nothing")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("No model “nothing” is deployed, so demo is shown.")
    expect(page.locator("#status")).to_contain_text("demo is ready", timeout=60_000)
    expect(alert).to_be_visible()
    page.close()


def test_a_model_that_no_browser_has_run_is_shown_as_not_proven(
    chromium: Browser, demo: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo.root / "public/demo", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["browser"] = None
    for variant in manifest["variants"]:
        variant.pop("browser", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    folders = {"/models/mine": folder, "/onnxruntime-web": packages.RUNTIME / "dist"}
    app = server.application({**folders, "/": packages.PAGE}, {"/models.json": lambda: ["mine"]})
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        expect(page.locator("#proof")).to_have_text(
            "Not proven in a browser: no browser has run these files."
        )
        expect(page.locator("#status")).to_contain_text(
            "mine is ready, but not proven in a browser", timeout=60_000
        )
        page.close()


def test_a_proven_model_shows_where_it_was_proven(page: Page) -> None:
    expect(page.locator("#proof")).to_contain_text("Proven on WASM in")


def test_messages_do_not_move_the_panel(page: Page, tmp_path: Path) -> None:
    def places() -> list[list[int]]:
        found: list[list[int]] = page.locator("aside > *, #tools, #activity, #frame").evaluate_all(
            "all => all.map((one) => [one.offsetTop, one.offsetWidth, one.offsetHeight])"
        )
        return found

    before = places()
    click(page, 0.42, 0.55)
    assert places() == before
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_be_visible()
    assert places() == before
    segment(page, 32)
    expect(page.locator("#waiting")).to_be_visible()
    assert places() == before
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    assert places() == before


def test_one_press_of_tab_focuses_the_image(page: Page) -> None:
    page.evaluate("document.activeElement.blur(), getSelection().removeAllRanges()")
    page.locator("body").click(position={"x": 2, "y": 2})  # an empty place
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "overlay"


def test_on_a_phone_the_image_and_the_tools_are_visible_without_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for part in ("#overlay", ".segments", "#undo", "#add", "#zoom-in", "#status"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)
    assert area(page)["width"] > 300
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    three_objects(page)
    assert page.evaluate("scrollY") == 0


def problems_of_access(page: Page) -> list[str]:
    """The serious and critical violations that axe-core finds, in both colour schemes."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=packages.FOLDER / "node_modules/axe-core/axe.min.js")
    found: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        violations = page.evaluate("axe.run().then(({ violations }) => violations)")
        found += [
            f"{scheme}: {each['id']}: {node['html']}"
            for each in violations
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
    page.emulate_media(color_scheme=None)
    return found


def test_axe_finds_nothing_serious_in_the_initial_page(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    assert problems_of_access(page) == []
    page.close()


def test_axe_finds_nothing_serious_with_three_objects(page: Page) -> None:
    three_objects(page)
    assert problems_of_access(page) == []


def test_axe_finds_nothing_serious_with_an_error(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_be_visible()
    assert problems_of_access(page) == []
