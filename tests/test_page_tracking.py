"""The page of `doit serve` with stacks and videos, in a real Chromium with a model that tracks."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import coco
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from playwright.sync_api import Browser, FloatRect, Page, expect
from project import Project
from webm import write_webm

from demo_training.time_lapse import time_lapse
from tasks.clients.contract import TrackingConstants
from tasks.commands import serve
from tasks.config import parse
from tasks.config.models import TRACKING_GRAPHS
from tasks.inference.preprocessing import Placement, masks_over
from tasks.inference.prompts import Prompt
from tasks.inference.sessions import run_by_name
from tasks.inference.tracker import Tracker
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("video")]  # the model is built once

SIZE, COUNT = 256, 5
Labels = NDArray[np.uint16]


@pytest.fixture(scope="module")
def deployed(video_model: Project) -> Path:
    (model,) = parse.load(configured(video_model)).targets
    return model.deploy


def configured(project: Project) -> Path:
    return project.root / "config/models.toml"


@pytest.fixture(scope="module")
def address(video_model: Project) -> Iterator[str]:
    with server.serving(serve.application(parse.load(configured(video_model)))) as address:
        yield address


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """Frames of the encoder's own size, so that nothing is resampled."""
    return time_lapse(5, COUNT, SIZE, SIZE, 0.25).frames


@pytest.fixture(scope="module")
def stack(frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack(tmp_path_factory.mktemp("stack") / "cells.tif", frames)


def write_stack(path: Path, pages: Sequence[NDArray[Any]], **options: Any) -> Path:
    first, *others = (Image.fromarray(each) for each in pages)
    first.save(path, save_all=True, append_images=others, **options)
    return path


def new_page(chromium: Browser, address: str) -> Page:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    # The previous test leaves unsaved work.
    page.add_locator_handler(page.get_by_role("button", name="Discard"), lambda each: each.click())
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    return page


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str) -> Page:
    return new_page(chromium, address)


@pytest.fixture
def page(opened: Page, stack: Path) -> Page:
    """The page with the newly opened stack, without prompts."""
    if opened.get_by_role("alert").is_visible():
        opened.get_by_role("button", name="Dismiss").click()
    opened.get_by_label("Foreground").check()
    open_files(opened, stack)
    return opened


def open_files(page: Page, *files: Path) -> None:
    status = page.locator("#status")
    status.evaluate(
        "status => { status.textContent = '' }"
    )  # it may show the same text for the previous file
    page.locator("#file").set_input_files(files)
    expect(status).to_contain_text("frames. Click an object", timeout=60_000)


def area(page: Page) -> FloatRect:
    box = page.locator("#overlay").bounding_box()
    assert box
    return box


def click(page: Page, x: int, y: int) -> tuple[float, float]:
    """Click near a pixel and wait for the mask; returns the click in fractions of the frame."""
    box = area(page)
    at = round(x / SIZE * box["width"]), round(y / SIZE * box["height"])
    page.locator("#overlay").click(position={"x": at[0], "y": at[1]})
    expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)
    return at[0] / box["width"], at[1] / box["height"]


def begin(page: Page) -> None:
    page.get_by_role("button", name="New object").click()
    expect(page.locator("#status")).to_contain_text("click what to segment")


def show(page: Page, frame: int) -> None:
    """Scrub to a frame, counted from 0."""
    page.locator("#slider").fill(str(frame + 1))
    expect(page.locator("#status")).to_contain_text(f"Frame {frame + 1} of")


def track(page: Page, button: str) -> None:
    page.get_by_role("button", name=button).click()
    expect(page.locator("#status")).to_contain_text("tracked in", timeout=120_000)
    expect(page.get_by_role("alert")).to_be_hidden()


def download(page: Page, button: str, name: str) -> Path:
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name=button).click()
    assert download.value.suggested_filename == name
    return Path(download.value.path())


def saved(page: Page) -> Labels:
    """The labels of all frames that the page saves."""
    with Image.open(download(page, "Save labels", "cells-labels.tif")) as file:
        pages = [np.array(each) for each in ImageSequence.Iterator(file)]
    assert {each.dtype for each in pages} == {np.dtype(np.uint16)}
    return np.stack(pages)


def reference(deployed: Path, frames: Sequence[NDArray[np.uint8]]) -> Tracker:
    """The Python tracker over the same files."""
    video = json.loads((deployed / "manifest.json").read_text())["video"]
    constants = {each.name: video[each.name] for each in fields(TrackingConstants)}
    names = ("encoder", *TRACKING_GRAPHS)
    run = run_by_name({name: str(deployed / f"{name}.onnx") for name in names})
    return Tracker(run, TrackingConstants(**constants), frames)


def mask_of(low_res_masks: NDArray[np.float32]) -> NDArray[np.bool_]:
    return masks_over(low_res_masks[0], Placement(SIZE, SIZE, SIZE, "stretch"))[0] > 0


def saved_masks(page: Page) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """The masks that the page saves as COCO, by frame and object."""
    found = json.loads(download(page, "Save COCO", "cells-coco.json").read_text())
    return {
        (each["image_id"] - 1, each["track_id"]): mask
        for each, mask in zip(found["annotations"], coco.masks(found), strict=True)
    }


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def followed(chromium: Browser, address: str, stack: Path) -> Iterator[tuple[Page, list[Any]]]:
    """A page with two objects tracked from the first frame on, and the clicks on them."""
    page = new_page(chromium, address)
    open_files(page, stack)
    clicks = [click(page, 160, 182)]
    begin(page)
    clicks.append(click(page, 50, 132))
    track(page, "Track on")
    yield page, clicks
    page.close()


def test_tracking_matches_the_python_tracker(
    followed: tuple[Page, list[Any]], deployed: Path, frames: NDArray[np.uint8]
) -> None:
    page, clicks = followed
    masks = saved_masks(page)
    assert set(masks) == {(frame, number) for frame in range(COUNT) for number in (1, 2)}
    tracker = reference(deployed, frames)
    for number, at in enumerate(clicks, 1):
        tracker.prompt(0, number, Prompt(points=(at,), labels=(1,)))
    for frame, objects in tracker.track():
        for number, found in objects.items():
            assert iou(masks[frame, number], mask_of(found.low_res_masks)) > 0.99


def test_labels_and_coco_have_the_same_objects_on_each_frame(
    followed: tuple[Page, list[Any]],
) -> None:
    page, _ = followed
    labels, masks = saved(page), saved_masks(page)
    assert labels.shape == (COUNT, SIZE, SIZE)
    for frame in range(COUNT):
        assert ((labels[frame] > 0) == (masks[frame, 1] | masks[frame, 2])).all()
        for number in (1, 2):
            assert not (labels[frame] == number)[~masks[frame, number]].any()


def test_showing_a_frame_shows_its_masks(followed: tuple[Page, list[Any]]) -> None:
    page, _ = followed
    masks = saved_masks(page)
    for frame in range(COUNT):
        show(page, frame)
        for number in (1, 2):
            text = page.locator("#objects .area").nth(number - 1).inner_text()
            assert float(text.split()[0]) == pytest.approx(100 * masks[frame, number].mean(), abs=1)


def test_tracking_continues_from_a_correction_and_keeps_earlier_frames(
    page: Page, deployed: Path, frames: NDArray[np.uint8]
) -> None:
    tracker = reference(deployed, frames)
    show(page, 2)
    tracker.prompt(2, 1, Prompt(points=(click(page, 160, 182),), labels=(1,)))
    track(page, "Both ways")
    expected = dict(tracker.track(2)) | dict(tracker.track(2, reverse=True))
    show(page, 3)
    page.get_by_label("Background").check()
    corrected = tracker.prompt(3, 1, Prompt(points=(click(page, 60, 60),), labels=(0,)))
    track(page, "Track on")
    expected |= {3: {1: corrected}} | dict(tracker.track(4))
    labels = saved(page)
    for frame in range(COUNT):
        assert iou(labels[frame] == 1, mask_of(expected[frame][1].low_res_masks)) > 0.99


def test_undoing_a_correction_restores_the_tracked_mask(page: Page) -> None:
    show(page, COUNT - 2)
    click(page, 160, 182)
    track(page, "Track on")
    before = saved(page)[-1]
    page.get_by_label("Background").check()
    click(page, 160, 182)
    assert (saved(page)[-1] != before).any()
    page.get_by_role("button", name="Undo").click()
    assert (saved(page)[-1] == before).all()


def test_coco_has_the_frames_the_names_and_a_track_id_for_each_mask(page: Page) -> None:
    click(page, 160, 182)
    page.get_by_label("Name of object 1").fill("nucleus")
    show(page, 1)
    click(page, 160, 182)
    found = json.loads(download(page, "Save COCO", "cells-coco.json").read_text())
    assert [image["frame_index"] for image in found["images"]] == list(range(COUNT))
    assert [each["name"] for each in found["categories"]] == ["nucleus"]
    ids = [(each["id"], each["image_id"], each["track_id"]) for each in found["annotations"]]
    assert ids == [(1, 1, 1), (2, 2, 1)]


def test_cancelled_tracking_keeps_its_masks(page: Page) -> None:
    click(page, 160, 182)
    page.get_by_role("button", name="Track on").click()
    cancel = page.get_by_role("button", name="Cancel")
    expect(page.locator("#phase")).to_contain_text(f"of {COUNT} frames")
    expect(page.get_by_role("button", name="Both ways")).to_be_disabled()
    cancel.click()
    expect(page.locator("#status")).to_contain_text("then cancelled", timeout=60_000)
    expect(cancel).to_be_hidden()
    count = int(re.sub("One", "1", page.locator("#status").inner_text()).split()[0])
    assert count < COUNT
    assert [bool(each.any()) for each in saved(page)[count + 1 :]] == [False] * (COUNT - count - 1)


def test_keys_and_buttons_change_the_frame(page: Page, frames: NDArray[np.uint8]) -> None:
    status = page.locator("#status")
    page.locator("#overlay").focus()
    for key, frame in ((".", 2), (".", 3), (",", 2), ("End", COUNT), ("Home", 1)):
        page.keyboard.press(key)
        expect(status).to_have_text(f"Frame {frame} of {COUNT}.")
        assert (seen(page) == frames[frame - 1]).all()
    page.get_by_role("button", name="Frame after").click()
    expect(status).to_have_text(f"Frame 2 of {COUNT}.")
    assert page.locator("#slider").get_attribute("aria-valuetext") == f"2 of {COUNT}"


def seen(page: Page) -> NDArray[np.uint8]:
    """The displayed frame, RGB."""
    shape = page.locator("#picture canvas").evaluate("canvas => [canvas.height, canvas.width]")
    values = page.locator("#picture canvas").evaluate(
        """canvas => {
          const { width, height } = canvas
          const { data } = canvas.getContext('2d').getImageData(0, 0, width, height)
          return btoa(data.reduce((text, byte) => text + String.fromCharCode(byte), ''))
        }"""
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(*shape, 4)[..., :3]


def test_prompts_of_a_frame_reappear_when_it_is_shown_again(page: Page) -> None:
    click(page, 160, 182)
    first = page.locator("#objects .area").inner_text()
    show(page, 1)
    expect(page.locator("#objects .area")).to_have_text("–")
    show(page, 0)
    expect(page.locator("#objects .area")).to_have_text(first)


def test_a_16_bit_stack_is_scaled_to_the_range_of_all_its_pages(
    page: Page, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    pages = [(each[..., 0].astype(np.uint16) * 16 + 1000) for each in frames]
    open_files(page, write_stack(tmp_path / "deep.tif", pages, compression="tiff_deflate"))
    flat = np.stack(pages).reshape(COUNT, -1)
    # The page takes the median of three neighbours.
    middles = np.median([flat[:, :-2], flat[:, 1:-1], flat[:, 2:]], axis=0)
    low, high = np.percentile(middles, [0.1, 99.9])
    expected = ((pages[0] - low) / (high - low) * 255).clip(0, 255)
    assert np.abs(seen(page)[..., 1] - expected).max() < 3  # only some samples are counted


def test_several_images_open_as_frames_in_the_order_of_their_names(
    page: Page, tmp_path: Path
) -> None:
    grays = {"t10.png": 200, "t9.png": 90, "t2.tif": 20}
    for name, gray in grays.items():
        Image.new("L", (40, 30), gray).save(tmp_path / name)
    open_files(page, *(tmp_path / name for name in grays))
    for frame, gray in ((1, 90), (2, 200), (0, 20)):
        show(page, frame)
        assert (seen(page) == gray).all()


def test_a_tiff_of_one_page_opens_as_an_image(
    page: Page, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    page.locator("#file").set_input_files(write_stack(tmp_path / "one.tif", frames[:1]))
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
    expect(page.locator("#timeline")).to_be_hidden()
    assert (seen(page) == frames[0]).all()


def test_the_frames_of_a_video_are_read_one_by_one(page: Page, tmp_path: Path) -> None:
    grays = [30, 70, 110, 150, 190, 230]
    pictures = [np.full((48, 64, 3), gray, np.uint8) for gray in grays]
    write_webm(tmp_path / "film.webm", pictures, rate=10)
    open_files(page, tmp_path / "film.webm")
    expect(page.locator("#status")).to_contain_text("film.webm has 6 frames")
    for frame in (5, 0, 3):
        show(page, frame)
        assert np.abs(seen(page).mean() - grays[frame]) < 6, frame


def test_tracking_without_a_prompt_shows_an_error(page: Page) -> None:
    page.get_by_role("button", name="Track on").click()
    expect(page.get_by_role("alert")).to_contain_text("nothing to track yet: click an object")
    click(page, 160, 182)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_click_outside_the_image_shows_a_message(page: Page) -> None:
    frame, overlay = page.locator("#frame").bounding_box(), area(page)
    assert frame
    assert overlay["x"] - frame["x"] > 20
    page.mouse.click(frame["x"] + 5, frame["y"] + 50)
    expect(page.locator("#status")).to_have_text("That is outside the image: click inside it.")


def empty(folder: Path) -> list[Path]:
    (folder / "empty.tif").touch()
    return [folder / "empty.tif"]


def broken(folder: Path) -> list[Path]:
    path = write_stack(folder / "broken.tif", [np.zeros((64, 64), np.uint16)] * 4)
    path.write_bytes(path.read_bytes()[:-500])
    return [path]


def images_of_two_sizes(folder: Path) -> list[Path]:
    for name, width in (("a.png", 40), ("b.png", 50)):
        Image.new("L", (width, 30)).save(folder / name)
    return [folder / "a.png", folder / "b.png"]


def no_video(folder: Path) -> list[Path]:
    (folder / "film.mp4").write_bytes(b"no film" * 100)
    return [folder / "film.mp4"]


def video_among_images(folder: Path) -> list[Path]:
    write_webm(folder / "film.mp4", [np.zeros((30, 40, 3), np.uint8)], rate=10)
    return [*images_of_two_sizes(folder), folder / "film.mp4"]


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (empty, "empty.tif is empty."),
        (broken, "broken.tif is broken, or not a TIFF that this page can read"),
        (images_of_two_sizes, "one size: b.png has 50 × 30 pixels, a.png has 40 × 30."),
        (no_video, "film.mp4 is not an image, a TIFF or a video that this page can read"),
        (video_among_images, "film.mp4 is a video: open it by itself"),
    ],
)
def test_a_file_that_cannot_be_opened_shows_an_error_and_changes_nothing(
    page: Page, tmp_path: Path, write: Callable[[Path], list[Path]], sentence: str
) -> None:
    click(page, 160, 182)
    before = page.locator("#objects .area").inner_text()
    page.locator("#file").set_input_files(write(tmp_path))
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(page.locator("#waiting")).to_be_hidden()
    assert page.locator("#objects .area").inner_text() == before
    show(page, 1)
    show(page, 0)
    expect(page.locator("#objects .area")).to_have_text(before)


def test_a_model_that_cannot_track_shows_a_notice_and_segments_single_frames(
    chromium: Browser, deployed: Path, stack: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(deployed, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["video"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    folders = {
        "/models/images": folder,
        **packages.libraries(),
        "/": packages.PAGE,
    }
    app = server.application(folders, {"/models.json": lambda: ["images"]})
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        open_files(page, stack)
        expect(page.get_by_text("This model cannot track")).to_be_visible()
        expect(page.get_by_role("button", name="Track on")).to_be_hidden()
        show(page, 3)
        click(page, 160, 182)
        labels = saved(page)
        assert [bool(each.any()) for each in labels] == [False, False, False, True, False]
        page.close()


def test_the_database_of_a_closed_page_is_removed(
    chromium: Browser, address: str, stack: Path
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    kept = "indexedDB.databases().then((all) => all.map(({ name }) => name))"
    page.goto(address)
    open_files(page, stack)
    (first,) = page.evaluate(kept)
    page.reload()
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    page.wait_for_function(f"{kept}.then((names) => !names.includes('{first}'))")
    context.close()


def test_axe_finds_nothing_serious_with_a_stack(page: Page) -> None:
    click(page, 160, 182)
    track(page, "Track back")
    page.add_script_tag(path=packages.FOLDER / "node_modules/axe-core/axe.min.js")
    for size in ({"width": 1280, "height": 800}, {"width": 390, "height": 844}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        violations = page.evaluate("axe.run().then(({ violations }) => violations)")
        serious = [each for each in violations if each["impact"] in ("serious", "critical")]
        assert serious == []
    page.set_viewport_size({"width": 1280, "height": 800})
