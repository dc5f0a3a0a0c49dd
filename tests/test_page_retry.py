"""How the page of `doit serve` loads files and models again that failed at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from project import Project
from webm import write_webm

from tasks.commands import serve
from tasks.config import parse
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("images")]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """The page without a model."""
    folders = {**packages.libraries(), "/": packages.PAGE}
    app = server.application(folders, {"/models.json": list})
    with server.serving(app) as address:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("No model is deployed")
        yield page
        context.close()


def test_the_sample_opens_when_the_browser_is_online_again(page: Page) -> None:
    page.context.set_offline(True)
    page.get_by_role("button", name="Sample").click()
    expect(page.get_by_role("alert")).to_contain_text("Is the server of this page running")
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_text("sample.svg is open.")
    expect(page.get_by_role("alert")).not_to_contain_text("Is the server")


def test_a_file_opens_once_its_reader_can_be_loaded(page: Page, tmp_path: Path) -> None:
    write_webm(tmp_path / "film.webm", [np.full((48, 64, 3), 200, np.uint8)] * 3, rate=10)
    page.context.set_offline(True)
    page.locator("#file").set_input_files(tmp_path / "film.webm")
    expect(page.get_by_role("alert")).to_contain_text("Is the server of this page running")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_text("film.webm is open.")


def test_a_broken_file_offers_no_retry(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Dismiss").click()
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_contain_text("notes.png is not an image")
    assert page.get_by_role("button", name="Try again").count() == 0


def test_retrying_lists_a_newly_deployed_model(chromium: Browser) -> None:
    models: list[str] = []
    folders = {**packages.libraries(), "/": packages.PAGE}
    app = server.application(folders, {"/models.json": lambda: models})
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("No model is deployed")
        models.append("mine")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_contain_text("mine cannot be used")
        page.close()


@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("missing", ["models.json", "manifest.json", "encoder.onnx"])
def test_a_model_that_failed_to_load_can_be_retried(
    chromium: Browser, demo: Project, missing: str
) -> None:
    config = parse.load(demo.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        page = chromium.new_page()
        page.route(f"**/{missing}", lambda route: route.abort())
        page.goto(address)
        expect(page.get_by_role("alert")).to_be_visible(timeout=60_000)
        page.unroute(f"**/{missing}")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#status")).to_contain_text("is ready", timeout=60_000)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.close()
