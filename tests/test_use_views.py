"""docs/use.md's functions for small objects in large images, on deployed files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from project import Project, programs

from tasks.inference.prompts import natural_image
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # the demo is built once

SIZE = 256
WIDTH, HEIGHT = 700, 400
# A click, and left and top of the view of 300 pixels around it: in the middle, and at two edges.
VIEWS = [((350, 210), (200, 60)), ((20, 390), (0, 100)), ((690, 5), (400, 0))]
LENGTH = 300


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(np.tile(natural_image(SIZE), (2, 3, 1))[:HEIGHT, :WIDTH]).save(path)
    return path


def placed(mask: NDArray[np.bool_], left: int, top: int) -> NDArray[np.bool_]:
    full = np.zeros((HEIGHT, WIDTH), bool)
    full[top : top + LENGTH, left : left + LENGTH] = mask
    return full


@pytest.mark.parametrize(("click", "corner"), VIEWS)
def test_in_python_a_view_has_the_same_mask_as_a_cropped_image(
    demo: Project,
    image: Path,
    click: tuple[int, int],
    corner: tuple[int, int],
    tmp_path: Path,
) -> None:
    (program,) = programs("use.md", "Python", "python")
    (tmp_path / "program.py").write_text(program)
    (left, top), folder = corner, demo.root / "public/demo"

    def mask(*args: object) -> NDArray[np.bool_]:
        command = [sys.executable, "program.py", folder, *args]
        subprocess.run([str(each) for each in command], cwd=tmp_path, check=True)
        with Image.open(tmp_path / "mask.png") as file:
            return np.array(file)

    view = tmp_path / "view.png"
    with Image.open(image) as whole:
        whole.crop((left, top, left + LENGTH, top + LENGTH)).save(view)
    alone = mask(view, click[0] - left, click[1] - top)
    found = mask(image, *click, LENGTH)
    assert alone.any()
    assert (found == placed(alone, left, top)).all()


def test_in_javascript_a_view_has_the_same_mask_as_a_cropped_image(
    demo: Project, image: Path, chromium: Browser, tmp_path: Path
) -> None:
    module, _ = programs("use.md", "JavaScript, in a browser", "js")
    (tmp_path / "program.js").write_text(module)
    (tmp_path / "index.html").write_text("<!doctype html><title>A page</title>")
    folders = {"/demo": demo.root / "public/demo", "/onnxruntime-web": packages.RUNTIME / "dist"}
    app = server.application({**folders, "/": tmp_path}, files={"/image.png": image})
    with server.serving(app) as address:
        page = chromium.new_page()
        page.goto(f"{address}/index.html")
        page.evaluate(
            """async () => {
              const { encode, load, segment, segmentInView } = await import('/program.js')
              const model = await load('/demo')
              const bitmap = await createImageBitmap(await (await fetch('/image.png')).blob())
              const inside = ({ data }) => Array.from(data).filter((_, i) => i % 4 === 3)
              window.inView = async (x, y, length) =>
                inside(await segmentInView(model, bitmap, x, y, length))
              window.alone = async (x, y, length, left, top) => {
                const view = await createImageBitmap(bitmap, left, top, length, length)
                return inside(await segment(model, await encode(model, view), x - left, y - top))
              }
            }"""
        )
        for click, (left, top) in VIEWS:
            found = page.evaluate("(args) => window.inView(...args)", [*click, LENGTH])
            alone = page.evaluate("(args) => window.alone(...args)", [*click, LENGTH, left, top])
            mask = np.array(alone, bool).reshape(LENGTH, LENGTH)
            assert mask.any()
            assert (np.array(found, bool).reshape(HEIGHT, WIDTH) == placed(mask, left, top)).all()
        page.close()
