"""Work on a stack on the page: tracking, confirming, saving, opening and restoring it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import coco
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from playwright.sync_api import Browser, Page, expect
from project import Project
from test_page_tracking import begin, click, download, open_files, show, track, write_stack
from test_page_work import crash, question

from demo_training.time_lapse import time_lapse
from tasks.commands import serve
from tasks.config import parse
from tasks.web import server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("video")]  # the model is built once

SIZE, COUNT = 256, 5


@pytest.fixture(scope="module")
def address(video_model: Project) -> Iterator[str]:
    config = parse.load(video_model.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        yield address


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = time_lapse(5, COUNT, SIZE, SIZE, 0.25).frames
    return write_stack(tmp_path_factory.mktemp("stack") / "cells.tif", frames)


@pytest.fixture
def page(chromium: Browser, address: str, stack: Path) -> Iterator[Page]:
    """The page with the stack, in its own browser context."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(address)
    open_files(page, stack)
    yield page
    context.close()


def labels_of(page: Page) -> NDArray[np.uint16]:
    with Image.open(download(page, "Save labels", "cells-labels.tif")) as file:
        return np.stack([np.array(each) for each in ImageSequence.Iterator(file)])


def two_tracked(page: Page) -> None:
    click(page, 160, 182)
    begin(page)
    click(page, 50, 132)
    track(page, "Track on")


def test_coco_of_a_stack_has_a_file_name_and_the_objects_of_each_frame(
    page: Page,
) -> None:
    two_tracked(page)
    path = download(page, "Save COCO", "cells-coco.json")
    data = coco.read(path)
    names = [each["file_name"] for each in data.loadImgs(data.getImgIds())]
    assert names == [f"cells-{number:04}.png" for number in range(1, COUNT + 1)]
    labels = labels_of(page)
    for each in data.loadAnns(data.getAnnIds()):
        frame = labels[each["image_id"] - 1]
        assert data.annToMask(each)[frame == each["track_id"]].all()


@pytest.mark.parametrize("button", ["Save labels", "Save COCO"])
def test_saved_masks_of_a_stack_open_as_the_same_objects(
    page: Page, stack: Path, tmp_path: Path, button: str
) -> None:
    two_tracked(page)
    before = labels_of(page)
    name = "cells-labels.tif" if button == "Save labels" else "cells-coco.json"
    path = tmp_path / name
    path.write_bytes(download(page, button, name).read_bytes())
    open_files(page, stack)
    page.locator("#open-masks").set_input_files(path)
    expect(page.locator("#status")).to_have_text(f"2 objects opened from {name}.")
    assert (labels_of(page) == before).all()
    show(page, 2)
    begin(page)
    click(page, 100, 30)
    track(page, "Track on")  # only the new object; the others stay
    after = labels_of(page)
    assert (after[:2] == before[:2]).all()
    assert 3 in after[2]


def test_undoing_a_click_on_another_frame_shows_that_frame(page: Page) -> None:
    show(page, 3)
    click(page, 160, 182)
    show(page, 0)
    page.keyboard.press("Control+z")
    expect(page.locator("#slider")).to_have_value("4")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.keyboard.press("Control+y")
    assert [bool(each.any()) for each in labels_of(page)] == [False, False, False, True, False]


def test_changing_the_model_after_tracking_asks_for_confirmation(
    chromium: Browser, address: str, stack: Path
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    model = page.get_by_label("Model", exact=True)
    expect(model).not_to_have_value("")  # the page fetches the models' names
    name = model.input_value()
    page.close()

    context.route("**/models.json", lambda route: route.fulfill(body=json.dumps([name, "two"])))
    page = context.new_page()
    page.goto(address)
    open_files(page, stack)
    click(page, 160, 182)
    track(page, "Track on")
    model = page.get_by_label("Model", exact=True)
    model.select_option("two")
    expect(question(page)).to_contain_text("the tracked masks are lost")
    page.get_by_role("button", name="Keep working").click()
    expect(model).to_have_value(name)
    before = labels_of(page)
    assert all(each.any() for each in before)  # and now it is saved
    model.select_option("two")
    expect(page.get_by_role("alert")).to_contain_text("two cannot be used", timeout=60_000)
    context.close()


def test_tracked_masks_are_restored_after_a_crash(page: Page, address: str) -> None:
    two_tracked(page)
    show(page, 3)
    before = labels_of(page)
    page.get_by_label("Name of object 1").fill("nucleus")
    crash(page)
    again = page.context.new_page()
    again.goto(address)
    again.get_by_role("button", name="Restore").click(timeout=60_000)
    expect(again.locator("#status")).to_contain_text("Restored: 2 objects", timeout=60_000)
    expect(again.locator("#slider")).to_have_value("4")
    assert (labels_of(again) == before).all()
    again.wait_for_function("indexedDB.databases().then((all) => all.length === 1)")
