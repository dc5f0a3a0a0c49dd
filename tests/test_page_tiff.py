"""Channels, slices and time of a TIFF in the page of `doit serve`, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from project import Project
from test_page_tracking import click, configured, download, new_page, open_files, seen, show, track

from demo_training.time_lapse import time_lapse
from tasks.commands import serve
from tasks.config import parse
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("video")]  # the model is built once

SIZE, COUNT = 256, 4
TALL: Any = {"width": 1280, "height": 1600}
Array = NDArray[Any]


@pytest.fixture(scope="module")
def address(video_model: Project) -> Iterator[str]:
    with server.serving(serve.application(parse.load(configured(video_model)))) as address:
        yield address


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str) -> Page:
    page = new_page(chromium, address)
    page.set_viewport_size(TALL)  # so that the row of channels takes no space from the image
    return page


@pytest.fixture
def page(opened: Page) -> Page:
    if opened.get_by_role("alert").is_visible():
        opened.get_by_role("button", name="Dismiss").click()
    return opened


@pytest.fixture(scope="module")
def frames() -> Array:
    """A time-lapse of few shades, so that every way to count them gives the same range."""
    return time_lapse(5, COUNT, SIZE, SIZE, 0.25).frames[..., 0].astype("u2") // 16 * 160 + 100


def with_neighbours(frames: Array, axes: str) -> Array:
    """The time-lapse as the last channel and slice of a stack, beside others of the same shades."""
    stack = frames[:, None, None]
    if "Z" in axes:
        stack = np.concatenate([stack[..., ::-1, :], stack], 1)
    stack = np.concatenate([stack[..., ::-1] // 3, stack], 2)
    return stack if "Z" in axes else stack[:, 0]


def write(path: Path, pixels: Array, axes: str) -> Path:
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": f"{axes}YX"})
    return path


def choose(page: Page, act: Callable[[], object], ready: str = "frames. Click an object") -> None:
    """Choose a slice or a channel, and wait until the model is ready for it."""
    status = page.locator("#status")
    status.evaluate("status => { status.textContent = '' }")
    act()
    expect(status).to_contain_text(ready, timeout=60_000)


def choose_channel(page: Page, name: str, ready: str = "frames. Click an object") -> None:
    choose(page, lambda: page.get_by_label("Channel", exact=True).select_option(name), ready)


def choose_slice(page: Page, number: int) -> None:
    choose(page, lambda: page.get_by_label("Slice", exact=True).fill(str(number)))


def labels(page: Page, name: str) -> Array:
    return tifffile.imread(download(page, "Save labels", name))


def tracked(page: Page) -> Array:
    click(page, 160, 182)
    track(page, "Track on")
    return labels(page, "cells-labels.tif")


@pytest.mark.parametrize("axes", ["TC", "TZC"])
def test_a_channel_of_a_stack_is_tracked_like_a_stack_of_only_that_channel(
    page: Page, frames: Array, tmp_path: Path, axes: str
) -> None:
    open_files(page, write(tmp_path / "cells.tif", frames, "T"))
    expected = tracked(page)
    assert all(each.any() for each in expected)
    open_files(page, write(tmp_path / "cells.tif", with_neighbours(frames, axes), axes))
    choose_channel(page, "Channel 2")
    if "Z" in axes:
        choose_slice(page, 2)
    np.testing.assert_array_equal(tracked(page), expected)


def scaled(pixels: Array) -> Array:
    low, high = np.percentile(pixels, [0.1, 99.9], method="nearest")
    return ((pixels - low) / (high - low) * 255).clip(0, 255)


def test_each_channel_has_its_own_range_in_gray_and_as_a_colour(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    stack = with_neighbours(frames, "TC")
    open_files(page, write(tmp_path / "cells.tif", stack, "TC"))
    show(page, 1)
    assert np.abs(seen(page) - scaled(stack[:, 0])[1][..., None]).max() <= 1
    choose_channel(page, "Several, as colours")
    magenta, green = scaled(stack[:, 0])[1], scaled(stack[:, 1])[1]
    assert np.abs(seen(page) - np.stack([magenta, green, magenta], -1)).max() <= 1
    choose(page, lambda: page.get_by_label("Blue").select_option("none"))
    assert np.abs(seen(page) - np.stack([magenta, green, 0 * green], -1)).max() <= 1


def test_slices_are_frames_in_a_stack_without_time(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    open_files(page, write(tmp_path / "cells.tif", frames, "Z"))
    expect(page.locator("#frame-number")).to_have_text(f"1 of {COUNT}")
    expect(page.get_by_role("group", name="Slice and channels")).to_be_hidden()


def test_masks_stay_when_another_channel_is_shown(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    open_files(page, write(tmp_path / "cells.tif", with_neighbours(frames, "TC"), "TC"))
    choose_channel(page, "Channel 2")
    before = tracked(page)
    choose_channel(page, "Channel 1", "predicted IoU")
    expect(page.locator("#objects .area")).not_to_have_text("–")
    np.testing.assert_array_equal(labels(page, "cells-labels.tif"), before)


def test_a_click_segments_the_displayed_channel(page: Page, frames: Array, tmp_path: Path) -> None:
    ready = "Click what to segment"

    def clicked(path: Path, channel: str = "") -> Array:
        choose(page, lambda: page.locator("#file").set_input_files(path), ready)
        if channel:
            choose_channel(page, channel, ready)
        click(page, 160, 182)
        return np.array(Image.open(download(page, "Save labels", "cell-labels.png")))

    alone = clicked(write(tmp_path / "cell.tif", frames[0], ""))
    channels = write(tmp_path / "cell.tif", with_neighbours(frames, "TC")[0], "C")
    np.testing.assert_array_equal(clicked(channels, "Channel 2"), alone)
    assert (clicked(channels) != alone).any()


def test_several_files_of_several_channels_open_as_frames(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    stack = with_neighbours(frames, "TC")
    paths = [write(tmp_path / f"t{time}.tif", each, "C") for time, each in enumerate(stack)]
    open_files(page, *paths)
    choose_channel(page, "Channel 2")
    show(page, 2)
    assert np.abs(seen(page)[..., 0] - scaled(frames)[2]).max() <= 1
    write(paths[3], stack[3, 0], "")
    page.locator("#file").set_input_files(paths)
    expect(page.get_by_role("alert")).to_contain_text(
        "Files must have the same number of channels and slices: t3.tif has 1 and 1, "
        "t0.tif 2 and 1."
    )


def test_pages_of_another_size_are_skipped_with_a_message(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (frames[0], frames[1], frames[0, ::2, ::2].copy()):
            tiff.write(pixels, photometric="minisblack", metadata=None)
    open_files(page, path)
    expect(page.locator("#frame-number")).to_have_text("1 of 2")
    expect(page.get_by_role("alert")).to_contain_text("One page of another size is not shown")


def test_a_two_channel_time_lapse_is_corrected_and_saved_and_its_labels_open_again(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    open_files(page, write(tmp_path / "cells.tif", with_neighbours(frames, "TC"), "TC"))
    choose_channel(page, "Channel 2")
    before = tracked(page)
    show(page, 2)
    click(page, 50, 132)
    track(page, "Track on")
    path = download(page, "Save labels", "cells-labels.tif")
    again = tmp_path / "again.tif"
    again.write_bytes(path.read_bytes())
    expected = tifffile.imread(again)
    np.testing.assert_array_equal(expected[:2], before[:2])
    assert (expected[2:] != before[2:]).any((1, 2)).all()
    open_files(page, again)
    np.testing.assert_array_equal(seen(page)[..., 0] > 127, expected[0] == 1)


@pytest.mark.parametrize("kind", ["ycbcr", "rgb", "gray", "tables"])
def test_jpeg_in_a_tiff_is_shown_as_tifffile_reads_it(
    page: Page, tmp_path: Path, kind: str
) -> None:
    y, x = np.mgrid[:240, :320]
    waves = [127 + 127 * np.sin(x / (5 + 3 * i) + i) * np.cos(y / (9 - 2 * i)) for i in range(3)]
    colors = np.stack(waves, -1).astype("u1")
    path = tmp_path / "slide.tif"
    options: dict[str, Any] = {"compression": "jpeg", "tile": (64, 64)}
    if kind == "gray":
        tifffile.imwrite(path, colors[..., 0], photometric="minisblack", **options)
    elif kind == "tables":  # libtiff shares the tables of all strips
        Image.fromarray(colors).save(path, compression="jpeg", quality=80)
    elif kind == "rgb":
        rgb = {"compressionargs": {"outcolorspace": "rgb"}, "subsampling": (1, 1)}
        tifffile.imwrite(path, colors, photometric="rgb", **options, **rgb)
    else:
        tifffile.imwrite(path, colors, photometric="rgb", **options)
    choose(page, lambda: page.locator("#file").set_input_files(path), "Click what to segment")
    expected = tifffile.imread(path)
    shown = seen(page).astype(int)
    assert np.abs(shown - (expected[..., None] if kind == "gray" else expected)).max() <= 1


def test_axe_finds_nothing_serious_with_slices_and_colours(
    page: Page, frames: Array, tmp_path: Path
) -> None:
    open_files(page, write(tmp_path / "cells.tif", with_neighbours(frames, "TZC"), "TZC"))
    choose_channel(page, "Several, as colours")
    page.add_script_tag(path=packages.FOLDER / "node_modules/axe-core/axe.min.js")
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        violations = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [each for each in violations if each["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size(TALL)
