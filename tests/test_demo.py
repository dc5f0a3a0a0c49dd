"""The demo model: it is built offline, and segments the clicked object for every client."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from project import ROOT, Project

from tasks.clients.registry import CLIENTS
from tasks.config import parse
from tasks.config.schema import Configuration
from tasks.drawing.scenes import Scene, scene
from tasks.inference import truth
from tasks.inference.masks import interior_point
from tasks.inference.metrics import mask_iou
from tasks.inference.painting import MARGIN, SIDE, TOPS
from tasks.web import packages, server

pytestmark = pytest.mark.slow

VIDEO = "[models.demo-video]\n"


class FirstRun(NamedTuple):
    """The build of the demo models: its project, its output, and the manifest that it deployed."""

    project: Project
    output: str
    manifest: str

    def line_of(self, task: str) -> str:
        """The output line of a task."""
        (line,) = [each for each in self.output.splitlines() if each.startswith(f"{task} ")]
        return line


def clone(root: Path) -> Project:
    """The project with its own configuration, but tracking uses smaller images and skips the
    browser, which takes minutes and is tested with another model.
    """
    project = Project(root, cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    in_smaller_images(project.root / "demo/sam2_demo_video.yaml")
    text = (ROOT / "config/models.toml").read_text()
    text = text.replace(VIDEO, VIDEO + "browser = false\n")
    project.configure(text + "\n[browser]\nwebgpu = false\n")
    return project


def in_smaller_images(architecture: Path) -> None:
    """Change an architecture to images of 512 pixels."""
    text = architecture.read_text()
    assert "image_size: 1024" in text
    text = text.replace("image_size: 1024", "image_size: 512")
    architecture.write_text(text.replace("feat_sizes: [64, 64]", "feat_sizes: [32, 32]"))


def without_video(text: str) -> str:
    """The configuration without the demo model that tracks."""
    before, found, after = text.partition(VIDEO)
    assert found
    return before + after[after.index("\n[") :]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first_run(
    executable: str | None, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> FirstRun:
    """Both demo models as in the project's own configuration, the first for both clients."""
    project = clone(tmp_path_factory.mktemp("demo") / "project")
    tasks = ("demo", "deploy:demo-transformers.js", "demo-video")
    outcome = project.doit("run", f"cache={cache}", *tasks)
    assert outcome.status == 0, outcome.output
    manifest = project.root / "build/demo/sam2_demo/manifest.json"
    return FirstRun(project, outcome.output, manifest.read_text())


@pytest.fixture(scope="module")
def built(first_run: FirstRun) -> Project:
    return first_run.project


@pytest.fixture(scope="module")
def varied(built: Project) -> Project:
    """The first demo model in every precision and format."""
    keys = 'variants = ["fp32", "fp16", "q8", "q4", "q4f16"]\nbrowser = false\n'
    configured = without_video((built.root / "config/models.toml").read_text())
    text = configured.replace("[models.demo]\n", f"[models.demo]\n{keys}")
    (built.root / "config/varied.toml").write_text(text)
    outcome = built.build("config=config/varied.toml", "deploy:demo")
    assert outcome.status == 0, outcome.output
    assert not outcome.ran & {"export:demo", "simplify:demo", "verify:demo"}
    return built


@pytest.fixture(scope="module")
def files(built: Project) -> Path:
    return built.root / "build/demo/sam2_demo"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path]:
    """A held-out scene of nuclei, and its image file."""
    path = tmp_path_factory.mktemp("scene") / "nuclei.png"
    found = scene(21)
    Image.fromarray(found.image).save(path)
    return found, path


def large_objects(found: Scene) -> list[Any]:
    """The masks of the scene's objects that are wider than a few mask cells."""
    areas = np.bincount(found.labels.ravel())
    return [found.labels == n for n, area in enumerate(areas) if n and area > 4000]


def test_the_demo_is_deployed_for_nimbusimage_and_transformers_js(files: Path) -> None:
    assert (files / "encoder.ort").is_file()
    other = files.with_name("sam2_demo-transformers.js")
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["client"] == "transformers.js"
    proof = manifest["browser"]
    assert proof["runtime"].startswith("transformers.js ")
    assert proof["providers"]["wasm"]["proven"] is True
    assert {"one point", "box", "box and point", "3rd of 3"} <= set(
        proof["providers"]["wasm"]["prompts"]
    )


def test_the_manifest_states_the_cost_of_not_stretching_an_image(files: Path) -> None:
    cost = json.loads((files / "manifest.json").read_text())["verification"]["not_square"]
    assert cost["resize"] == "longest side"
    assert 0 < cost["mask_iou_with_stretched"]["worst"] < cost["mask_iou_with_stretched"]["mean"]
    assert cost["iou_with_truth"].keys() == {"longest side", "stretch"}


def test_the_manifest_shows_that_the_demo_is_trained_and_how_well(files: Path) -> None:
    manifest = json.loads((files / "manifest.json").read_text())
    assert manifest["checkpoint"]["synthetic"] is False
    iou = manifest["verification"]["truth"]["iou"]
    assert iou["1 click"] > 0.85
    assert iou["box"] > 0.85
    assert iou["1 click"] < iou["2 clicks"] < iou["3 clicks"]
    assert manifest["verification"]["truth"]["score_correlation"] > 0.5
    assert manifest["browser"]["providers"]["wasm"]["proven"] is True
    assert manifest["browser"]["providers"]["wasm"]["mask_iou"] >= 0.999
    shapes = {each["name"]: each["shape"] for each in manifest["decoder"]["inputs"]}
    assert shapes["image_embed"][2:] == [64, 64]
    assert manifest["decoder"]["outputs"][0]["shape"] == [1, 3, 256, 256]


def test_each_corrective_click_improves_the_masks(files: Path) -> None:
    graphs = str(files / "encoder.onnx"), str(files / "decoder.onnx")
    client = CLIENTS["nimbusimage"]
    others = range(6, 18)  # than `verify` measures; 58 objects
    found = truth.measure(truth.Segmenter(*graphs, client), scene, others, 5)
    iou = found["iou"]
    assert 0.85 < iou["1 click"] < iou["2 clicks"] < iou["3 clicks"]
    assert iou["box"] > 0.9
    assert found["score_correlation"] > 0.5


def test_the_demo_ends_with_a_picture_of_pytorchs_masks_above_onnxs(built: Project) -> None:
    picture = Image.open(built.root / "build/demo/demo.png")
    assert picture.width == 1600
    upper, lower = (np.array(picture)[top : top + SIDE, MARGIN:-MARGIN].astype(int) for top in TOPS)
    assert upper.std() > 30  # not blank
    assert np.mean(np.abs(upper - lower).max(axis=-1) > 8) < 0.001
    assert built.build("demo").ran == set()


def test_the_last_line_gives_the_figures_for_the_picture(
    first_run: FirstRun,
) -> None:
    line = first_run.line_of("demo")
    found = re.search(
        r"15 clicks on 3 drawn images: mean IoU with the true masks (0\.\d\d), "
        r"with PyTorch's masks (1\.000); see build/demo/demo\.png",
        line,
    )
    assert found, line
    assert float(found[1]) > 0.8


def test_the_tracking_demo_ends_with_a_filmstrip_of_objects_clicked_once(
    first_run: FirstRun,
) -> None:
    line = first_run.line_of("demo-video")
    found = re.search(
        r"(\d) objects, each clicked once, followed through 24 frames: "
        r"mean IoU with the true masks (0\.\d\d); see build/demo/track\.png",
        line,
    )
    assert found, line
    assert int(found[1]) >= 4
    assert float(found[2]) > 0.6
    assert Image.open(first_run.project.root / "build/demo/track.png").width == 1600


def test_a_click_on_the_page_gives_the_mask_of_the_clicked_object(
    built: Project, drawn: tuple[Scene, Path], executable: str | None
) -> None:
    found, path = drawn
    config = parse.load(built.root / "config/models.toml", deploy=str(built.root))
    ious = []
    for served in page_with(built, config, executable, path):
        for true in large_objects(found)[:3]:
            row, column = interior_point(true)
            area = served.locator("#overlay").bounding_box()
            assert area
            scale = area["width"] / 1024
            served.locator("#overlay").click(position={"x": column * scale, "y": row * scale})
            expect(served.locator("#status")).to_contain_text("predicted IoU")
            with served.expect_download() as download:
                served.get_by_role("button", name="Save mask").click()
            mask = np.array(Image.open(download.value.path()).convert("L")) > 0
            ious.append(mask_iou(mask, true))
            served.get_by_role("button", name="Clear").click()
    assert np.mean(ious) > 0.8, ious


def test_segment_everything_on_the_page_finds_the_objects_in_the_image(
    built: Project, drawn: tuple[Scene, Path], executable: str | None
) -> None:
    found, path = drawn
    config = parse.load(built.root / "config/models.toml", deploy=str(built.root))
    for page in page_with(built, config, executable, path):
        page.get_by_role("button", name="Segment everything").click()
        expect(page.locator("#status")).to_contain_text("found by 256 clicks", timeout=120_000)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save labels").click()
        labels = np.array(Image.open(download.value.path()).convert("L"))
    masks = [labels == number for number in range(1, labels.max() + 1)]
    ious = [max(mask_iou(mask, true) for mask in masks) for true in large_objects(found)]
    assert np.mean(np.array(ious) > 0.7) > 0.5, ious
    # And little else: each mask lies on objects.
    true = found.labels > 0
    inside = [(mask & true).sum() / mask.sum() for mask in masks if mask.any()]
    assert np.mean(inside) > 0.8, inside


def page_with(
    built: Project, config: Configuration, executable: str | None, image: Path
) -> Iterator[Any]:
    """The page with the demo model and an image opened."""
    (model,) = [each for each in config.targets if each.name == "demo"]
    folders = {
        "/models/demo": built.root / model.deploy,
        "/onnxruntime-web": packages.RUNTIME / "dist",
        "/": packages.PAGE,
    }
    app = server.application(folders, {"/models.json": lambda: ["demo"]})
    with server.serving(app) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable)
        page = chromium.new_page()
        page.goto(address)
        page.locator("#file").set_input_files(image)
        expect(page.locator("#status")).to_contain_text("Encoded in", timeout=60_000)
        yield page
        chromium.close()


def test_samexporters_own_client_gives_the_mask_of_the_clicked_object(
    files: Path, drawn: tuple[Scene, Path], tmp_path: Path
) -> None:
    found, path = drawn
    ious = []
    for number, true in enumerate(large_objects(found)[:3]):
        row, column = interior_point(true)
        prompt = [{"type": "point", "data": [column, row], "label": 1}]
        (tmp_path / "prompt.json").write_text(json.dumps(prompt))
        output = tmp_path / f"{number}.png"
        command = [sys.executable, "-m", "samexporter.inference", "--sam_variant", "sam2"]
        command += ["--encoder_model", str(files / "encoder.onnx")]
        command += ["--decoder_model", str(files / "decoder.onnx")]
        command += ["--image", str(path), "--prompt", str(tmp_path / "prompt.json")]
        subprocess.run([*command, "--output", str(output)], check=True, capture_output=True)
        # It paints the mask, and a disc at the click, which is inside the object.
        painted = (np.array(Image.open(output)) != found.image).any(axis=-1)
        ious.append(mask_iou(painted, true))
    assert np.mean(ious) > 0.8, ious


@pytest.mark.parametrize(
    ("name", "keys", "file"),
    [
        ("q8", 'variants = ["q8"]\nformats = ["ort"]\nmasks = "best"', "encoder_quantized.ort"),
        ("single", 'masks = "single"\nattention = "fused"', "encoder.onnx"),
    ],
)
def test_the_demo_picture_is_drawn_with_any_option(
    tmp_path: Path, name: str, keys: str, file: str
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    in_smaller_images(project.root / "demo/sam2_demo.yaml")
    configured = (ROOT / "config/models.toml").read_text()
    text = configured.replace("[models.demo]\n", f"[models.demo]\n{keys}\nbrowser = false\n")
    both = 'clients = ["nimbusimage", "transformers.js"]'  # which take 1024 pixels
    assert both in text
    text = text.replace(both, 'client = "samexporter"')
    project.configure(text.replace("truth_iou = 0.85", "truth_iou = 0.5"))
    outcome = project.build("demo")
    assert outcome.status == 0, outcome.output
    assert Image.open(project.root / "build/demo/demo.png").width == 1600
    assert (project.root / "build/demo/sam2_demo" / file).is_file()


@pytest.mark.parametrize(
    ("name", "mean", "share"),
    [("fp16", 0.995, 0.51), ("q8", 0.97, 0.32), ("q4", 0.93, 0.5), ("q4f16", 0.93, 0.32)],
)
def test_a_variant_is_near_pytorch_and_as_small_as_promised(
    varied: Project, name: str, mean: float, share: float
) -> None:
    folder = varied.root / "build/models/demo"
    report = json.loads((folder / f"fidelity.{name}.json").read_text())
    assert report["mask_iou"]["mean"] >= mean
    assert report["mask_iou"]["worst"] >= report["mask_iou"]["mean"] - 0.1
    manifest = json.loads((varied.root / "build/demo/sam2_demo/manifest.json").read_text())
    entry = next(each for each in manifest["variants"] if each["name"] == name)
    assert entry["deployed"]
    sizes = {file: each["size"] for file, each in manifest["files"].items()}
    small = sizes[entry["files"]["encoder"]] + sizes[entry["files"]["decoder"]]
    assert small <= share * (sizes["encoder.onnx"] + sizes["decoder.onnx"])


def test_half_precision_is_near_pytorch_and_half_as_large(built: Project) -> None:
    configured = without_video((built.root / "config/models.toml").read_text())
    text = re.sub(r"(?m)^(clients|webgpu) = .*$", "", configured)
    keys = 'variants = ["fp32", "half"]\nbrowser = false\n'
    text = text.replace("[models.demo]\n", f"[models.demo]\n{keys}")
    (built.root / "config/half.toml").write_text(text)
    outcome = built.build("config=config/half.toml", "fidelity:demo:half")
    assert outcome.status == 0, outcome.output
    folder = built.root / "build/models/demo"
    report = json.loads((folder / "fidelity.half.json").read_text())
    assert report["mask_iou"]["mean"] >= 0.995
    assert report["mask_iou"]["worst"] >= 0.95
    assert [each["not_finite"] for each in report["extremes"]] == [[]] * 5
    sizes = [sum(f.stat().st_size for f in folder.glob(f"*coder{s}.onnx")) for s in ("", "_half")]
    assert sizes[1] <= 0.51 * sizes[0]


@pytest.mark.parametrize("name", ["q8", "q4f16.ort"])
def test_a_variant_runs_in_the_browser_and_agrees_with_onnxruntime(
    varied: Project, name: str
) -> None:
    text = (varied.root / "config/varied.toml").read_text().replace("browser = false", "")
    text = text.replace("[models.demo]\n", '[models.demo]\nformats = ["onnx", "ort"]\n')
    (varied.root / "config/browsers.toml").write_text(text)
    outcome = varied.build("config=config/browsers.toml", f"browser:demo:{name}")
    assert outcome.status == 0, outcome.output
    report = json.loads((varied.root / f"build/models/demo/browser.{name}.json").read_text())
    assert report["passed"], report["failures"]
    assert report["providers"]["wasm"]["mask_iou"] > 0.9


def test_training_again_begins_with_the_same_losses(tmp_path: Path) -> None:
    output = tmp_path / "again.pt"
    command = [sys.executable, "-m", "demo_training.train", "--steps", "3", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    again = json.loads(output.with_suffix(".losses.json").read_text())["losses"]
    recorded = json.loads((ROOT / "demo/sam2_demo.losses.json").read_text())["losses"]
    assert len(recorded) == 100
    assert again == pytest.approx(recorded[:3], rel=1e-3)


def test_the_demo_checkpoint_is_small_and_in_half_precision() -> None:
    import torch

    file = ROOT / "demo/sam2_demo.pt"
    assert file.stat().st_size <= 16_000_000
    weights = torch.load(file, weights_only=True)["model"]
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_the_tracking_checkpoint_adds_memory_and_changes_no_other_weight() -> None:
    import torch

    from demo_training.train_memory import MEMORY

    images, video = (
        torch.load(ROOT / f"demo/{name}.pt", weights_only=True)["model"]
        for name in ("sam2_demo", "sam2_demo_video")
    )
    assert (ROOT / "demo/sam2_demo_video.pt").stat().st_size <= 16_000_000
    needed = {name: weight for name, weight in images.items() if not name.startswith(MEMORY)}
    assert len(needed) > 200
    assert all(torch.equal(video[name], weight) for name, weight in needed.items())


def test_continued_memory_training_changes_only_memory_weights(tmp_path: Path) -> None:
    import torch

    from demo_training.train_memory import MEMORY

    before, output = ROOT / "demo/sam2_demo_video.pt", tmp_path / "again.pt"
    command = [sys.executable, "-m", "demo_training.train_memory", "--begin", str(before)]
    command += ["--phase", "3", "--steps", "1", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    old, new = (torch.load(file, weights_only=True)["model"] for file in (before, output))
    changed = {name for name, weight in old.items() if not torch.equal(weight, new[name])}
    assert any(name.startswith("memory_attention.") for name in changed)
    assert all(name.startswith(MEMORY) for name in changed)


# --- shared -------------------------------------------------------------------------------------


def test_a_second_clone_that_trusts_the_cache_runs_no_child_process(
    first_run: FirstRun, cache: Path, tmp_path: Path
) -> None:
    other = clone(tmp_path / "project")
    text = (other.root / "config/models.toml").read_text()
    other.configure(text + f'[cache]\nurl = "{cache}"\nproofs = true\nwrite = false\n')
    outcome = other.build("demo")
    assert outcome.status == 0, outcome.output
    logs = {path.stem for path in (other.root / "build/logs").glob("*.log")}
    assert logs == set()  # no child process ran
    deployed = other.root / "build/demo/sam2_demo/manifest.json"
    assert deployed.read_text() == first_run.manifest


def test_a_poisoned_decoder_from_the_cache_is_caught_and_not_deployed(
    built: Project, cache: Path, tmp_path: Path
) -> None:
    poisoned = tmp_path / "cache"
    shutil.copytree(cache, poisoned)
    path = min(  # the other model's entry also has the tracking graphs
        (poisoned / "v1/entries/simplify").glob("*.json"),
        key=lambda each: len(json.loads(each.read_text())["outputs"]),
    )
    entry = json.loads(path.read_text())
    right = entry["outputs"][1]["sha256"]
    model = onnx.load(poisoned / "v1/files" / right[:2] / right)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * 1.05).tobytes()
    content = model.SerializeToString()
    wrong = hashlib.sha256(content).hexdigest()
    place = poisoned / "v1/files" / wrong[:2] / wrong
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)
    entry["outputs"][1] = {"sha256": wrong, "size": len(content)}
    path.write_text(json.dumps(entry))

    other = clone(tmp_path / "project")
    outcome = other.doit("run", f"cache={poisoned}", "deploy:demo")
    assert outcome.status != 0
    assert "outputs differ from PyTorch; not deployed" in outcome.output
    assert f"came from the cache {poisoned} (simplify:demo" in outcome.output
    assert not (other.root / "build/demo").exists()

    assert other.doit("run", f"cache={poisoned}", "-a", "simplify:demo").status == 0
    assert json.loads(path.read_text())["outputs"][1]["sha256"] == right
