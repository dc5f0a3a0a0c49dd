"""The page of `doit serve`: absent objects, and which objects are tracked over which frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from test_page_tracking import (  # noqa: F401 (fixtures)
    COUNT,
    address,
    begin,
    click,
    deployed,
    frames,
    new_page,
    open_files,
    saved,
    saved_masks,
    show,
    stack,
    track,
)

from tasks.web import packages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("video")]  # the model is built once


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str) -> Page:  # noqa: F811
    return new_page(chromium, address)


@pytest.fixture
def page(opened: Page, stack: Path) -> Page:  # noqa: F811
    """The page with the newly opened stack, without prompts."""
    if opened.get_by_role("alert").is_visible():
        opened.get_by_role("button", name="Dismiss").click()
    open_files(opened, stack)
    return opened


def frames_of(page: Page, number: int = 1) -> list[int]:
    """The frames on which an object has pixels in the saved masks, also below other objects."""
    return sorted(frame for frame, each in saved_masks(page) if each == number)


def test_an_object_that_ends_is_absent_from_all_later_frames(page: Page) -> None:
    click(page, 160, 182)
    track(page, "Track on")
    assert frames_of(page) == [0, 1, 2, 3, 4]
    show(page, 2)
    ends = page.get_by_role("button", name="Ends here")
    ends.click()
    expect(page.locator("#status")).to_have_text("Object 1 ends here.")
    expect(ends).to_have_attribute("aria-pressed", "true")
    assert frames_of(page) == [0, 1, 2]
    assert [bool(each.any()) for each in saved(page)] == [True, True, True, False, False]
    show(page, 4)
    expect(page.locator("#objects .area")).to_have_text("–")
    show(page, 0)
    track(page, "Track on")
    assert frames_of(page) == [0, 1, 2]
    expect(page.locator("#slider")).to_have_value("3")  # the last tracked frame
    page.get_by_role("button", name="Undo").click()
    assert frames_of(page) == [0, 1, 2, 3, 4]


def test_an_object_marked_absent_on_a_frame_has_no_mask_there_but_is_tracked_beyond(
    page: Page,
) -> None:
    click(page, 160, 182)
    track(page, "Track on")
    show(page, 1)
    page.get_by_role("button", name="Not here").click()
    expect(page.locator("#status")).to_have_text("Object 1 is not on this frame.")
    assert frames_of(page) == [0, 2, 3, 4]
    show(page, 0)
    track(page, "Track on")
    assert frames_of(page) == [0, 2, 3, 4]
    show(page, 1)
    page.get_by_role("button", name="Not here").click()
    expect(page.locator("#status")).to_have_text("Object 1 may be there again.")
    show(page, 0)
    track(page, "Track on")
    assert frames_of(page) == [0, 1, 2, 3, 4]


def test_begins_here_removes_an_object_from_earlier_frames(page: Page) -> None:
    show(page, 4)
    click(page, 160, 182)
    track(page, "Track back")
    show(page, 3)
    page.get_by_role("button", name="Begins here").click()
    assert frames_of(page) == [3, 4]


def test_ticked_objects_are_tracked_over_the_chosen_frames(page: Page) -> None:
    show(page, 2)
    click(page, 50, 132)
    begin(page)
    click(page, 160, 182)
    page.get_by_label("Track Object 1").uncheck()
    page.get_by_label("First frame").fill("2")
    page.get_by_label("Last frame").fill("4")
    track(page, "Both ways")
    assert set(frames_of(page, 1)) <= {2}  # the frame of its click
    assert frames_of(page, 2) == [1, 2, 3]
    page.get_by_label("Track Object 2").uncheck()
    page.get_by_role("button", name="Track on").click()
    expect(page.get_by_role("alert")).to_contain_text("tick an object in the list")
    page.get_by_label("Track Object 1").check()
    show(page, 4)
    page.get_by_role("button", name="Track on").click()
    expect(page.get_by_role("alert")).to_contain_text("includes the shown frame, 5")


def test_axe_finds_nothing_serious_where_an_object_ends(page: Page) -> None:
    click(page, 160, 182)
    page.get_by_role("button", name="Ends here").click()
    page.add_script_tag(path=packages.FOLDER / "node_modules/axe-core/axe.min.js")
    for size in ({"width": 390, "height": 844}, {"width": 1280, "height": 800}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        violations = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [each for each in violations if each["impact"] in ("serious", "critical")] == []
