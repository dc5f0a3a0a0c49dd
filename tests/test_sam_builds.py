"""MobileSAM through the whole build, and its deployed files in the programs that read them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, expect
from project import ROOT, Project, programs
from segment_anything import SamPredictor
from test_clients import mask_by_javascript

from tasks.commands import serve
from tasks.config import parse
from tasks.inference.metrics import mask_iou
from tasks.inference.prompts import natural_image
from tasks.model import load
from tasks.model.families.family import load_function
from tasks.model.families.sam import FAMILY
from tasks.web import server

pytestmark = pytest.mark.slow

CONFIGURATION = """
[build]
deploy = "public"
[browser]
enabled = true
webgpu = false
[models.mobile]
model_type = "vit_t"
url = "synthetic:"
folder = "sam_demo"
clients = ["nimbusimage", "transformers.js", "osam", "anylabeling"]
"""
CLICK = 430, 330  # on a body of the image
# The lowest IoU with PyTorch's mask: random weights draw masks of thin lines, and each program
# scales images and logits with its own library.
SCALED = 0.95


@pytest.fixture(scope="module")
def built(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("sam") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    public = project.root / "public"  # for tests that load the configuration from elsewhere
    project.configure(CONFIGURATION.replace('"public"', f'"{public}"'))
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(natural_image(600, 1000)).save(path)
    return path


@pytest.fixture(scope="module")
def expected(built: Project, image: Path) -> np.ndarray:
    """The masks (5, H, W) of a click in PyTorch: the best of three, the single one, the three."""
    model = load.load_model("vit_t", built.root / "build/checkpoints/mobile.pt")
    predictor = load_function(FAMILY.predictor)(model, "longest side")
    predictor.set_image(np.array(Image.open(image)))
    click = {"point_coords": np.array([CLICK]), "point_labels": np.array([1])}
    single, _, _ = predictor.predict(multimask_output=False, **click)
    three, scores, _ = predictor.predict(multimask_output=True, **click)
    return np.concatenate([three[scores.argmax()][None], single, three])


def test_every_client_gets_its_files(built: Project) -> None:
    for suffix, file, resize in (
        ("", "encoder.onnx", "longest side"),
        ("-osam", "encoder.onnx", "longest side"),
        ("-transformers.js", "onnx/vision_encoder.onnx", "longest side"),
        ("-anylabeling", "encoder.onnx", "canvas"),
    ):
        folder = built.root / f"public/sam_demo{suffix}"
        assert (folder / file).is_file()
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["model_type"] == "vit_t"
        assert manifest["preprocessing"]["resize"] == resize


@pytest.mark.parametrize("suffix", ["", "-transformers.js", "-osam", "-anylabeling"])
def test_the_browser_matches_onnxruntime(built: Project, suffix: str) -> None:
    report = json.loads((built.root / f"build/models/mobile{suffix}/browser.json").read_text())
    assert report["providers"]["wasm"]["mask_iou"] > 0.999
    assert report["failures"] == []


def run(
    program: str,
    name: str,
    folder: Path,
    image: Path,
    command: list[str],
    files: Sequence[str] = (),
) -> np.ndarray:
    (folder / name).write_text(program)
    arguments = [*command, name, *files, str(image), *map(str, CLICK)]
    subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
    mask: np.ndarray = np.array(Image.open(folder / "mask.png").convert("L")) > 0
    return mask


def test_samexporters_program_draws_pytorchs_mask(
    built: Project, image: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "sam_demo").symlink_to(built.root / "public/sam_demo")
    (program,) = programs("clients.md", "SAM 1", "python")
    mask = run(program, "program.py", tmp_path, image, [sys.executable])
    assert mask_iou(mask, expected[0]) > SCALED


def test_osams_program_draws_pytorchs_mask(
    built: Project, image: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "sam2_demo").symlink_to(built.root / "public/sam_demo-osam")
    (program,) = programs("clients.md", "osam", "python")
    program = program.replace('"sam2:tiny"', '"sam:100m"').replace("sam2:demo", "sam:demo")
    mask = run(program, "program.py", tmp_path, image, [sys.executable])
    assert mask_iou(mask, expected[0]) > SCALED


def test_the_programs_of_use_md_draw_pytorchs_mask(
    built: Project, image: Path, expected: np.ndarray, executable: str | None, tmp_path: Path
) -> None:
    files = built.root / "public/sam_demo"
    (program,) = programs("use.md", "Python", "python")
    mask = run(program, "program.py", tmp_path, image, [sys.executable], [str(files)])
    assert mask_iou(mask, expected[0]) > SCALED
    mask = mask_by_javascript(files, tmp_path, np.array(CLICK), image, executable)
    assert mask_iou(mask.reshape(mask_shape(image)), expected[0]) > 0.9  # a browser scales coarsely


def mask_shape(image: Path) -> tuple[int, int]:
    with Image.open(image) as opened:
        return opened.height, opened.width


class XAnyLabeling:
    """X-AnyLabeling 87da339, `anylabeling/services/auto_labeling/sam_onnx.py`, for a click."""

    def __init__(self, folder: Path) -> None:
        config = yaml.safe_load((folder / "x-anylabeling.yaml").read_text())
        assert config["type"] == "segment_anything"
        assert {"input_size", "max_width", "max_height"} <= config.keys()
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / config[f"{graph}_model_path"])
            for graph in ("encoder", "decoder")
        )

    def predict(self, image: np.ndarray, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """`encode`, `run_decoder` and `transform_masks`: the canvas, and logits over the image."""
        height, width = image.shape[:2]
        scale = min(1024 / width, 684 / height)
        matrix = np.array([[scale, 0, 0], [0, scale, 0], [0, 0, 1]])
        canvas = cv2.warpAffine(image, matrix[:2], (1024, 684), flags=cv2.INTER_LINEAR)
        (first,) = self.encoder.get_inputs()
        embedding = self.encoder.run(None, {first.name: canvas.astype(np.float32)})[0]
        feeds = {
            "image_embeddings": embedding,
            "point_coords": np.array([[[x * scale, y * scale], [0, 0]]], np.float32),
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array((684, 1024), np.float32),
        }
        masks, _, _ = self.decoder.run(None, feeds)
        return canvas, warped_back(masks[0, 0], scale, image)


def warped_back(logits: np.ndarray, scale: float, image: np.ndarray) -> np.ndarray:
    matrix = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    size = image.shape[1::-1]
    return np.asarray(cv2.warpAffine(logits, matrix, size, flags=cv2.INTER_LINEAR))


@pytest.mark.parametrize("height", [600, 1400])
def test_x_anylabeling_draws_the_mask_that_segment_anything_draws_on_its_canvas(
    built: Project, height: int
) -> None:
    image = natural_image(height, 1000)
    x, y = 430, 0.55 * height
    client = XAnyLabeling(built.root / "public/sam_demo-anylabeling")
    canvas, logits = client.predict(image, x, y)
    scale = min(1.024, 684 / height)
    model = load.load_model("vit_t", built.root / "build/checkpoints/mobile.pt")
    predictor = SamPredictor(model)
    predictor.set_image(canvas)
    click = {"point_coords": np.array([[x * scale, y * scale]]), "point_labels": np.array([1])}
    masks, scores, _ = predictor.predict(**click, multimask_output=True, return_logits=True)
    expected = warped_back(masks[scores.argmax()], scale, image)
    assert (expected > 0).any()
    assert mask_iou(logits > 0, expected > 0) > 0.999


@pytest.mark.parametrize("name", ["mobile", "mobile-anylabeling"])
def test_a_click_on_the_page_draws_a_mask(
    built: Project, chromium: Browser, image: Path, name: str
) -> None:
    config = parse.load(built.root / "config/models.toml")
    with server.serving(serve.application(config)) as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.get_by_label("Model").select_option(name)
        page.locator("#file").set_input_files(image)
        expect(page.locator("#status")).to_contain_text("Click what to segment", timeout=120_000)
        box = page.locator("#overlay").bounding_box()
        assert box
        x, y = CLICK[0] / 1000 * box["width"], CLICK[1] / 600 * box["height"]
        page.locator("#overlay").click(position={"x": x, "y": y})
        expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=120_000)
        page.close()
