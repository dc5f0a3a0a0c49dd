"""Work on the page of `doit serve`: correcting, saving, confirming and restoring it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coco
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Error, Page, expect
from project import Project
from pycocotools import mask as run_lengths
from pycocotools.cocoeval import COCOeval
from test_page import (
    area,
    begin,
    click,
    problems_of_access,
    saved,
    saved_coco,
    saved_labels,
    segment,
    three_objects,
    undo_all,
    wait,
)

from tasks.commands import serve
from tasks.config import parse
from tasks.inference.prompts import natural_image
from tasks.web import server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # the demo is built once

SIZE = 256


@pytest.fixture(scope="module")
def address(demo: Project) -> Iterator[str]:
    config = parse.load(demo.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        yield address


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "cells.png"
    Image.fromarray(natural_image(SIZE)).save(path)
    return path


@pytest.fixture(scope="module")
def other(picture: Path) -> Path:
    Image.new("RGB", (300, 150), "teal").save(picture.with_name("wide.png"))
    return picture.with_name("wide.png")


def opened_page(chromium: Browser, address: str, picture: Path) -> Page:
    page = chromium.new_page()
    page.goto(address)
    open_image(page, picture)
    return page


def open_image(page: Page, picture: Path) -> None:
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str, picture: Path) -> Page:
    return opened_page(chromium, address, picture)


@pytest.fixture
def page(opened: Page) -> Page:
    """The page without prompts, with masks and marks shown."""
    opened.set_viewport_size({"width": 1280, "height": 720})
    undo_all(opened)
    for box in ("Masks", "Marks"):
        opened.get_by_label(box, exact=True).check()
    opened.get_by_label("COCO as run-lengths only").uncheck()
    opened.get_by_label("Foreground").check()
    return opened


def chosen(page: Page) -> str:
    """The number of the current object."""
    return page.locator("#objects li.current .number").inner_text()


def ids(page: Page) -> list[int]:
    return [each["id"] for each in saved_coco(page)["annotations"]]


def alone(page: Page, number: int) -> tuple[float, float]:
    """A point, in fractions of the image, in the middle of a place that only this object covers."""
    found = saved_coco(page)
    masks = dict(zip(ids(page), coco.masks(found), strict=True))
    left = np.pad(masks.pop(number), 1)
    for mask in masks.values():
        left &= ~np.pad(mask, 1)
    places = np.argwhere(left)
    while len(inner := np.argwhere(left := eroded(left))):
        places = inner
    y, x = places[0] - 1
    return (x + 0.5) / SIZE, (y + 0.5) / SIZE


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for axis in (0, 1):
        mask = mask & np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask


def press(page: Page, x: float, y: float, **options: Any) -> None:
    """Click at a point in fractions of the image, without waiting for a result."""
    box = area(page)
    page.locator("#overlay").click(
        position={"x": x * box["width"], "y": y * box["height"]}, **options
    )


# Saving.


def precision(truth: dict[str, Any], folder: Path, iou_type: str) -> float:
    """pycocotools' AP of a prediction that equals the annotations."""
    (folder / "truth.json").write_text(json.dumps(truth))
    predicted = [
        {
            "image_id": each["image_id"],
            "category_id": each["category_id"],
            "bbox": each["bbox"],
            "score": 1.0,
            "segmentation": encoded(mask),
        }
        for each, mask in zip(truth["annotations"], coco.masks(truth), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.read(folder / "truth.json")
        evaluation = COCOeval(data, data.loadRes(predicted), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    found = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**found, "counts": found["counts"].decode()}


@pytest.mark.parametrize("runs", [False, True])
def test_a_perfect_prediction_has_an_ap_of_1(page: Page, tmp_path: Path, runs: bool) -> None:
    three_objects(page)
    page.get_by_label("COCO as run-lengths only").set_checked(runs)
    found = saved_coco(page)
    kinds = {type(each["segmentation"]) for each in found["annotations"]}
    assert not runs or kinds == {dict}
    for iou_type in ("segm", "bbox"):
        assert precision(found, tmp_path, iou_type) == 1


def test_coco_has_exactly_the_pixels_of_the_saved_mask(page: Page) -> None:
    click(page, 0.42, 0.55)
    (mask,) = coco.masks(saved_coco(page))
    assert (mask == saved(page)).all()


# Opening saved files.


def open_masks(page: Page, path: Path) -> None:
    page.locator("#open-masks").set_input_files(path)
    expect(page.locator("#status")).to_contain_text(f"opened from {path.name}")


def download(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_saved_coco_opens_as_the_same_objects(page: Page, tmp_path: Path) -> None:
    three_objects(page)
    page.get_by_label("Name of object 2").fill("nucleus")
    before = saved_coco(page)
    path = download(page, "Save COCO", tmp_path)
    undo_all(page)
    open_masks(page, path)
    assert saved_coco(page) == before
    undo_all(page)
    expect(page.get_by_role("button", name="Save COCO")).to_be_disabled()


def test_saved_labels_open_as_the_same_objects_and_can_be_corrected(
    page: Page, tmp_path: Path
) -> None:
    three_objects(page)
    page.get_by_role("button", name="Delete Object 2").click()
    before = saved_labels(page)
    path = download(page, "Save labels", tmp_path)
    undo_all(page)
    open_masks(page, path)
    assert ids(page) == [1, 3]
    assert (saved_labels(page) == before).all()
    first = saved(page)
    page.get_by_label("Background").check()
    click(page, 0.1, 0.9)
    assert (saved(page) != first).any()
    page.get_by_role("button", name="Undo").click()
    assert (saved(page) == first).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_300_labels_of_another_program_are_opened_and_saved_with_16_bits(
    page: Page, tmp_path: Path, ending: str
) -> None:
    labels = np.zeros((SIZE, SIZE), np.uint16)
    for number in range(300):
        labels[12 * (number // 20) + 5 :, 12 * (number % 20) + 5 :] = number + 1
    Image.fromarray(labels).save(tmp_path / f"labels.{ending}")
    open_masks(page, tmp_path / f"labels.{ending}")
    again = saved_labels(page)
    assert again.dtype == np.uint16
    assert (again == labels).all()
    assert len(saved_coco(page)["annotations"]) == 300


def test_masks_of_another_size_are_refused_and_change_nothing(page: Page, tmp_path: Path) -> None:
    click(page, 0.42, 0.55)
    Image.fromarray(np.ones((20, 10), np.uint8)).save(tmp_path / "labels.png")
    page.locator("#open-masks").set_input_files(tmp_path / "labels.png")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("labels.png cannot be opened as masks. Its masks have 10 × 20")
    page.get_by_role("button", name="Dismiss").click()
    assert ids(page) == [1]


def test_labels_in_colours_are_refused_because_their_numbers_would_be_lost(
    page: Page, tmp_path: Path
) -> None:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[20:60, 20:60] = 7
    tifffile.imwrite(
        tmp_path / "lut.tif",
        labels,
        photometric="palette",
        colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) * 85,
    )
    page.locator("#open-masks").set_input_files(tmp_path / "lut.tif")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(
        "lut.tif cannot be opened as masks. Expected labels in one channel"
    )
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#objects li")).to_have_count(1)


# Objects of "Segment everything".


def everything(page: Page) -> int:
    """Segment everything; returns the number of objects."""
    segment(page, 8)
    expect(page.locator("#status")).to_contain_text("found by 64 clicks", timeout=60_000)
    return page.locator("#objects li").count()


def test_objects_of_segment_everything_can_be_deleted_corrected_and_kept(page: Page) -> None:
    count = everything(page)
    assert count > 2
    page.get_by_role("button", name="Delete Object 2", exact=True).click()
    assert 2 not in ids(page)
    page.get_by_role("radio", name="Work on Object 3", exact=True).check()
    before = saved(page)
    page.get_by_label("Background").check()
    click(page, 0.42, 0.55)
    assert (saved(page) != before).any()
    assert len(ids(page)) == count - 1


def test_segment_everything_adds_no_duplicates_of_existing_objects(page: Page) -> None:
    count = everything(page)
    segment(page, 8)
    expect(page.locator("#status")).to_contain_text("No objects found by 64 clicks")
    assert page.locator("#objects li").count() == count


def test_undo_removes_all_objects_of_segment_everything(page: Page) -> None:
    click(page, 0.42, 0.55)
    everything(page)
    page.get_by_role("button", name="Undo").click()
    assert ids(page) == [1]


def test_the_limits_have_no_effect_after_an_object_was_edited(page: Page) -> None:
    everything(page)
    page.get_by_role("button", name="Delete Object 2", exact=True).click()
    before = ids(page)
    page.get_by_label("Least predicted IoU").fill("1")
    expect(page.locator("#status")).to_contain_text("segment everything again")
    assert ids(page) == before


# Undo, and which object a click belongs to.


def test_undo_reverts_the_last_action_even_on_an_object_that_is_not_chosen(page: Page) -> None:
    three_objects(page)
    page.get_by_role("radio", name="Work on Object 1").check()
    page.get_by_role("button", name="Undo").click()
    assert ids(page) == [1, 2]
    assert chosen(page) == "3"


def test_redo_repeats_undone_actions(page: Page) -> None:
    three_objects(page)
    before = saved_coco(page)
    undo, redo = (page.get_by_role("button", name=name) for name in ("Undo", "Redo"))
    expect(redo).to_be_disabled()
    for _ in range(3):
        undo.click()
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    redo.click()
    expect(redo).to_be_disabled()
    assert saved_coco(page) == before


def test_a_click_on_the_mask_of_another_object_chooses_that_object(page: Page) -> None:
    click(page, 0.42, 0.55)
    begin(page)
    click(page, 0.75, 0.3)
    x, y = alone(page, 1)
    before = saved_coco(page)
    press(page, x, y)
    expect(page.locator("#status")).to_contain_text("Object 1 is chosen.")
    assert chosen(page) == "1"
    assert saved_coco(page) == before


def test_a_shift_click_on_another_mask_adds_a_point(page: Page) -> None:
    click(page, 0.42, 0.55)
    begin(page)
    click(page, 0.75, 0.3)
    x, y = alone(page, 1)
    before = saved_coco(page)["annotations"]
    press(page, x, y, modifiers=["Shift"])
    wait(page)
    assert chosen(page) == "2"
    after = saved_coco(page)["annotations"]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_first_click_of_a_new_object_adds_a_point_on_any_mask(page: Page) -> None:
    click(page, 0.42, 0.55)
    x, y = alone(page, 1)
    begin(page)
    click(page, x, y)
    assert chosen(page) == "2"
    assert len(page.locator("#objects .area").all_inner_texts()) == 2


def test_keys_work_with_the_focus_anywhere_but_in_a_text_field(page: Page) -> None:
    click(page, 0.42, 0.55)
    page.get_by_role("button", name="Segment everything").focus()
    page.keyboard.press("b")
    expect(page.get_by_label("Background")).to_be_checked()
    page.keyboard.press("f")
    page.get_by_label("Name of object 1").fill("")
    page.keyboard.type("fbnxh")
    expect(page.get_by_label("Name of object 1")).to_have_value("fbnxh")
    expect(page.get_by_label("Foreground")).to_be_checked()
    expect(page.get_by_label("Masks", exact=True)).to_be_checked()
    expect(page.locator("#objects li")).to_have_count(1)
    page.get_by_label("Outline").focus()
    page.keyboard.press("Backspace")
    expect(page.get_by_label("Name of object 1")).to_have_value("")


def painted(page: Page) -> NDArray[np.bool_]:
    """The pixels on which something is drawn over the image."""
    found = page.locator("#overlay").evaluate(
        """(canvas) => {
          const { width, height } = canvas
          const { data } = canvas.getContext('2d').getImageData(0, 0, width, height)
          return [...data.filter((_, i) => i % 4 === 3)]
        }"""
    )
    return np.array(found) > 0


def test_masks_and_marks_can_be_hidden_and_a_click_shows_masks_again(page: Page) -> None:
    click(page, 0.42, 0.55)
    both = painted(page).sum()
    page.get_by_label("Marks", exact=True).uncheck()
    mask = painted(page).sum()
    assert 0 < mask <= both
    page.get_by_label("Masks", exact=True).uncheck()
    assert not painted(page).any()
    page.keyboard.press("h")
    assert painted(page).sum() == both
    page.keyboard.press("h")
    assert not painted(page).any()
    press(page, 0.75, 0.3)
    wait(page)
    expect(page.get_by_label("Masks", exact=True)).to_be_checked()
    assert painted(page).any()


# Nothing is lost.


def question(page: Page) -> Any:
    return page.get_by_role("dialog")


def test_opening_another_image_asks_for_confirmation(
    chromium: Browser, address: str, picture: Path, other: Path
) -> None:
    page = opened_page(chromium, address, picture)
    click(page, 0.42, 0.55)
    before = saved(page)
    for answer in ("Keep working", "Escape"):
        page.locator("#file").set_input_files(other)
        expect(question(page)).to_contain_text("Not saved: One object on cells.png.")
        if answer == "Escape":
            page.keyboard.press(answer)
        else:
            page.get_by_role("button", name=answer).click()
        expect(question(page)).to_be_hidden()
        assert (saved(page) == before).all()
    page.locator("#file").set_input_files(other)
    page.get_by_role("button", name="Discard").click()
    page.wait_for_function("document.querySelector('#picture img').naturalWidth === 300")
    page.close()


def test_saved_or_undone_work_needs_no_confirmation(
    chromium: Browser, address: str, picture: Path, other: Path
) -> None:
    page = opened_page(chromium, address, picture)
    click(page, 0.42, 0.55)
    saved_coco(page)
    open_image(page, other)
    click(page, 0.5, 0.5)
    undo_all(page)
    open_image(page, picture)
    click(page, 0.42, 0.55)
    saved_labels(page)
    page.get_by_role("radio", name="2:").check()
    page.locator("#file").set_input_files(other)
    expect(question(page)).to_be_visible()  # another mask is an unsaved change
    page.close()


def test_leaving_a_page_with_unsaved_work_asks_for_confirmation(
    chromium: Browser, address: str, picture: Path
) -> None:
    page = opened_page(chromium, address, picture)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.accept()))
    page.reload()
    assert dialogs == []
    open_image(page, picture)
    click(page, 0.42, 0.55)
    page.reload()
    assert dialogs == ["beforeunload"]
    page.close()


def test_a_mask_that_is_still_being_decoded_is_saved_too(
    chromium: Browser, address: str, picture: Path
) -> None:
    page = opened_page(chromium, address, picture)
    click(page, 0.42, 0.55)
    page.get_by_role("button", name="New object").click()
    with page.expect_download() as download:
        page.locator("#overlay").evaluate(
            """overlay => {
                overlay.focus()
                overlay.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))
                document.getElementById('save-coco').click()
            }"""
        )
    assert len(json.loads(download.value.path().read_text())["annotations"]) == 2
    page.close()


def crash(page: Page) -> None:
    """End the page's process, as a lack of memory would."""
    with page.expect_event("crash"), contextlib.suppress(Error):
        page.goto("chrome://crash")


def test_the_last_state_is_restored_after_a_crash(
    chromium: Browser, address: str, picture: Path
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    open_image(page, picture)
    three_objects(page)
    page.get_by_role("radio", name="3:").check()
    page.locator("#refine").check()
    page.get_by_label("Background").check()
    click(page, 0.25, 0.25)
    before = saved_coco(page)
    page.get_by_label("Name of object 2").fill("nucleus")
    crash(page)

    page = context.new_page()
    page.goto(address)
    expect(question(page)).to_contain_text("3 objects on cells.png", timeout=60_000)
    assert problems_of_access(page) == []
    page.get_by_role("button", name="Restore").click()
    expect(page.locator("#status")).to_contain_text("Restored: 3 objects", timeout=60_000)
    after = saved_coco(page)
    for one, again in zip(before["annotations"], after["annotations"], strict=True):
        assert one["segmentation"] == again["segmentation"]
    assert [each["name"] for each in after["categories"]] == ["object", "nucleus"]
    page.close()

    page = context.new_page()  # the work is saved now
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
    open_image(page, picture)
    expect(question(page)).to_be_hidden()
    context.close()


def test_work_discarded_after_a_crash_is_not_offered_again(
    chromium: Browser, address: str, picture: Path
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    open_image(page, picture)
    click(page, 0.42, 0.55)
    crash(page)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Discard").click(timeout=60_000)
    page.wait_for_function("indexedDB.databases().then((all) => all.length === 1)")
    context.close()


def test_on_a_phone_the_controls_fit_and_axe_finds_nothing_serious(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    three_objects(page)
    for part in ("#undo", "#redo", "#add", "#zoom-in", "#status"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert problems_of_access(page) == []
