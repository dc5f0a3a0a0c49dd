"""The files of each client, deployed by one build, and loaded as that client loads them.

samexporter and osam run themselves, and the programs in docs/clients.md run unchanged. For
X-AnyLabeling, NimbusImage and transformers.js, the tests feed what these programs feed, and cite
their source. The answers are compared with sam2's own predictor, and with PyTorch transformers'
model with the same weights (tests/huggingface.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deployed_folder
import huggingface
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from conftest import give_up
from numpy.typing import NDArray
from PIL import Image
from project import ROOT, Project, programs

from tasks.drawing.scenes import scene
from tasks.inference.masks import interior_point
from tasks.inference.metrics import mask_iou
from tasks.inference.painting import PAIR_GAP, PAIR_SIDE
from tasks.inference.sam2_predictor import predictor_of
from tasks.model import load
from tasks.web import chromium, packages, server

pytestmark = pytest.mark.slow

Array = NDArray[Any]

CLIENTS = ("samexporter", "osam", "transformers.js", "anylabeling", "nimbusimage")
CONFIGURATION = f"""
[build]
deploy = "public"
[browser]
enabled = false
[models.demo]
config = "demo/sam2_demo.yaml"
url = "demo/sam2_demo.pt"
folder = "sam2_demo"
clients = {json.dumps(CLIENTS)}
"""

# The largest allowed differences from PyTorch, as for `verify` in config/models.toml.
MASKS, SCORES, FEATURES = 1e-3, 1e-4, 1e-4
SIZE = 1024


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of each client."""
    project = Project(tmp_path_factory.mktemp("clients") / "project", cheap=False)
    project.configure(CONFIGURATION)
    first, *further = CLIENTS
    tasks = ["deploy:demo", *(f"deploy:demo-{client}" for client in further)]
    outcome = project.build(*tasks)
    assert outcome.status == 0, outcome.output

    def folder(client: str) -> Path:
        suffix = "" if client == first else f"-{client}"
        return project.root / f"public/sam2_demo{suffix}"

    return folder


@dataclass(frozen=True)
class Picture:
    """An image (H, W, 3), and the masks (H, W) of its large objects, the largest last."""

    image: NDArray[np.uint8]
    objects: list[NDArray[np.bool_]]

    @property
    def clicks(self) -> Array:
        """A point (x, y) on each object (O, 2)."""
        return np.array([interior_point(true)[::-1] for true in self.objects], np.float32)

    @property
    def boxes(self) -> Array:
        """The box of each object, (O, 4)."""
        found = []
        for true in self.objects:
            rows, columns = true.nonzero()
            found.append([columns.min(), rows.min(), columns.max(), rows.max()])
        return np.array(found, np.float32)


@pytest.fixture(scope="module")
def picture() -> Picture:
    """Drawn nuclei, twice as wide as high."""
    drawn = scene(21, SIZE)
    image, labels = drawn.image[256:768], drawn.labels[256:768]
    areas = np.bincount(labels.ravel())
    numbers = [n for n in np.argsort(areas) if n and areas[n] > 4000]
    return Picture(np.ascontiguousarray(image), [labels == number for number in numbers])


@pytest.fixture(scope="module")
def image_file(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(picture.image).save(path)
    return path


class Answer:
    """sam2's four masks (4, M, M) for a prompt, their scores (4,), the object's score.

    They are taken inside the decoder, because the predictor does not return all of them.
    """

    def __init__(self, masks: Array, scores: Array, object_score: float) -> None:
        self.all_masks, self.all_scores = masks, scores
        self.masks, self.scores, self.object_score = masks[1:], scores[1:], object_score

    @property
    def best(self) -> Array:
        """The mask with the highest score of the three."""
        mask: Array = self.masks[self.scores.argmax()]
        return mask


class Reference:
    """sam2's predictor, for the picture."""

    def __init__(self, model: Any, image: NDArray[np.uint8]) -> None:
        self.model = model
        self.predictor = predictor_of(model)
        self.predictor.set_image(image)
        self.pixels = self.predictor._transforms(image)[None]
        self.stretch = np.array([SIZE / image.shape[1], SIZE / image.shape[0]], np.float32)

    @property
    def features(self) -> list[Array]:
        """The two high-resolution maps and the embedding."""
        found = self.predictor._features
        return [each.numpy() for each in (*found["high_res_feats"], found["image_embed"])]

    def __call__(
        self, points: Any = None, labels: Any = None, box: Any = None, **more: Any
    ) -> Answer:
        decoder, seen = self.model.sam_mask_decoder, []
        own = decoder.predict_masks

        def recorded(*arguments: Any, **named: Any) -> Any:
            seen.append(own(*arguments, **named))
            return seen[-1]

        decoder.predict_masks = recorded
        try:
            self.predictor.predict(points, labels, box, **more)
        finally:
            del decoder.predict_masks
        masks, scores, _, object_scores = (each[0].numpy() for each in seen[0])
        return Answer(masks, scores, float(object_scores[0]))


@pytest.fixture(scope="module")
def model() -> Any:
    """The demo model in PyTorch, as sam2's class."""
    return load.load_model(str(ROOT / "demo/sam2_demo.yaml"), ROOT / "demo/sam2_demo.pt")


@pytest.fixture(scope="module")
def sam2(model: Any, picture: Picture) -> Reference:
    return Reference(model, picture.image)


@pytest.fixture(scope="module")
def transformers(model: Any) -> Callable[..., dict[str, Array]]:
    """PyTorch transformers' model with the demo's weights."""
    return outputs_of(huggingface.build(model))


def outputs_of(model: Any) -> Callable[..., dict[str, Array]]:
    """A function that runs a model of transformers and returns arrays."""

    def run(**feeds: Any) -> dict[str, Array]:
        tensors = {
            name: [torch.from_numpy(part) for part in value]
            if isinstance(value, list)
            else torch.as_tensor(value)
            for name, value in feeds.items()
        }
        with torch.inference_mode():
            found = model(**tensors)
        names = ("iou_scores", "pred_masks", "object_score_logits")
        arrays = {name: found[name].numpy() for name in names}
        embeddings = enumerate(found.image_embeddings)
        return arrays | {f"image_embeddings.{level}": each.numpy() for level, each in embeddings}

    return run


class Graph:
    """A graph in onnxruntime."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]

    def by_name(self, **feeds: Array) -> dict[str, Array]:
        found = self.session.run(None, feeds)
        return dict(zip(self.outputs, found, strict=True))

    def by_position(self, *feeds: Array) -> list[Array]:
        found: list[Array] = self.session.run(None, dict(zip(self.inputs, feeds, strict=True)))
        return found


def near(found: Array, expected: Array, tolerance: float) -> bool:
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= tolerance


def near_masks(found: Array, expected: Array, tolerance: float = MASKS) -> bool:
    """sam2's predictor clips logits to ±32, and so do graphs; transformers does not."""
    return near(np.clip(found, -32, 32), np.clip(expected, -32, 32), tolerance)


def near_features(found: Array, expected: Array) -> bool:
    return near(found, expected, FEATURES * float(np.abs(expected).max()))


def upsampled(logits: Array, height: int, width: int) -> Array:
    """Masks (K, M, M) upsampled to (K, height, width), as sam2 does it."""
    large: Array = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (height, width), mode="bilinear", align_corners=False
    )[0].numpy()
    return large


# transformers' model is a reference for the clients; here it is compared with sam2.


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", "demo"])
def test_transformers_with_sam2s_weights_matches_sam2s_predictor(
    name: str, model: Any, picture: Picture, tmp_path: Path
) -> None:
    if name != "demo":
        load.make_synthetic(name, 3, str(tmp_path / "tiny.pt"))
        model = load.load_model(name, tmp_path / "tiny.pt")
    sam2 = Reference(model, picture.image)
    transformers = outputs_of(huggingface.build(model))
    features = None
    for kind, prompts in prompts_of(picture).items():
        feeds = transformers_feeds(prompts, sam2.stretch)
        image: dict[str, Any] = (
            {"image_embeddings": features} if features else {"pixel_values": sam2.pixels}
        )
        found = transformers(**image, **feeds)
        features = [found[f"image_embeddings.{level}"] for level in range(3)]
        for level, expected in enumerate(sam2.features):
            assert near(features[level], expected, 1e-6)
        for number, prompt in enumerate(prompts):
            expected_answer = sam2(**prompt)
            masks, scores = found["pred_masks"][0, number], found["iou_scores"][0, number]
            assert near_masks(masks, expected_answer.masks, 1e-4), kind
            assert near(scores, expected_answer.scores, 1e-6), kind
            object_score = found["object_score_logits"][0, number]
            assert object_score == pytest.approx([expected_answer.object_score], abs=1e-5)


def prompts_of(picture: Picture) -> dict[str, list[dict[str, Any]]]:
    """Prompts for sam2's predictor, three of each kind."""
    clicks, boxes = picture.clicks[:3], picture.boxes[:3]
    # A positive click on each object, and a negative one on the next.
    points = [np.stack([clicks[n], clicks[(n + 1) % 3]]) for n in range(3)]
    labels = np.array([1, 0])
    return {
        "points": [{"points": each, "labels": labels} for each in points],
        "boxes": [{"box": box} for box in boxes],
        "points and boxes": [
            {"points": each, "labels": labels, "box": box}
            for each, box in zip(points, boxes, strict=True)
        ],
    }


def transformers_feeds(prompts: Sequence[Mapping[str, Any]], stretch: Array) -> dict[str, Array]:
    """Prompts for one image as transformers takes them, without absent inputs."""
    feeds = {}
    if "points" in prompts[0]:
        points = np.stack([each["points"] for each in prompts]) * stretch
        feeds["input_points"] = points[None].astype(np.float32)
        feeds["input_labels"] = np.stack([each["labels"] for each in prompts])[None]
    if "box" in prompts[0]:
        boxes = np.stack([each["box"] for each in prompts]) * np.tile(stretch, 2)
        feeds["input_boxes"] = boxes[None].astype(np.float32)
    return feeds


# The programs in the documentation


def program(heading: str, language: str) -> str:
    """The program under a heading of docs/clients.md."""
    (code,) = programs("clients.md", heading, language)
    return code


def mask_by(command: list[str], folder: Path, files: Path, click: Array, image: Path) -> Array:
    """The mask that a program draws for a click, run in a folder with the deployed files."""
    (folder / "sam2_demo").symlink_to(files)
    x, y = (str(int(each)) for each in click)
    subprocess.run([*command, str(image), x, y], cwd=folder, check=True, capture_output=True)
    drawn: Array = np.array(Image.open(folder / "mask.png").convert("L")) > 0
    return drawn


@pytest.mark.parametrize(
    ("client", "heading"),
    [
        ("samexporter", "samexporter"),
        ("anylabeling", "samexporter"),
        ("nimbusimage", "NimbusImage"),
        ("osam", "osam"),
    ],
)
def test_the_documented_python_program_draws_the_clicked_object(
    client: str,
    heading: str,
    deployed: Callable[[str], Path],
    picture: Picture,
    image_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where osam keeps models
    (tmp_path / "program.py").write_text(program(heading, "python"))
    command = [sys.executable, "program.py"]
    click, true = picture.clicks[0], picture.objects[0]
    mask = mask_by(command, tmp_path, deployed(client), click, image_file)
    assert mask_iou(mask, true) > 0.85
    assert not (tmp_path / ".cache").exists()  # osam downloaded nothing


def test_the_documented_transformers_js_program_draws_the_clicked_object(
    npm_packages: None,
    deployed: Callable[[str], Path],
    picture: Picture,
    image_file: Path,
    tmp_path: Path,
) -> None:
    modules = packages.RUNTIME.parent
    if not (modules / "@huggingface/transformers").exists():
        give_up("needs @huggingface/transformers")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "program.mjs").write_text(program("transformers.js", "js"))
    click, true = picture.clicks[0], picture.objects[0]
    files = deployed("transformers.js")
    mask = mask_by(["node", "program.mjs"], tmp_path, files, click, image_file)
    assert mask_iou(mask, true) > 0.85


@pytest.mark.parametrize("client", ["samexporter", "nimbusimage", "anylabeling"])
def test_the_python_in_use_md_draws_the_clicked_object(
    client: str,
    deployed: Callable[[str], Path],
    picture: Picture,
    image_file: Path,
    tmp_path: Path,
) -> None:
    (code,) = programs("use.md", "Python", "python")
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "program.py", "sam2_demo"]
    click, true = picture.clicks[0], picture.objects[0]
    assert mask_iou(mask_by(command, tmp_path, deployed(client), click, image_file), true) > 0.85


def mask_by_javascript(
    files: Path, folder: Path, click: Array, image: Path, executable: str | None
) -> Array:
    """The mask (H * W,) that the JavaScript of use.md gives in a browser for a click on an image.

    :param folder: where the page is written.
    """
    module, use = programs("use.md", "JavaScript, in a browser", "js")
    x, y = (str(int(each)) for each in click)
    (folder / "program.js").write_text(module)
    (folder / "use.js").write_text(
        'import { encode, load, segment } from "./program.js";\n'
        'const file = await (await fetch("/image.png")).blob();\n'
        f"{use.replace('400, 300', f'{x}, {y}')}\n"
        "export const inside = [];\n"
        "for (let i = 3; i < mask.data.length; i += 4) inside.push(mask.data[i] ? 1 : 0);\n"
    )
    (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    folders = {"/sam2_demo": files, "/onnxruntime-web": packages.RUNTIME / "dist"}
    app = server.application({**folders, "/": folder}, files={"/image.png": image})
    with server.serving(app) as address, chromium.launched(executable, webgpu=False) as browser:
        page = browser.new_page()
        page.goto(f"{address}/index.html")
        return np.array(page.evaluate("async () => (await import('/use.js')).inside"), bool)


@pytest.mark.parametrize("client", ["samexporter", "nimbusimage"])
def test_the_javascript_in_use_md_draws_the_clicked_object(
    client: str,
    deployed: Callable[[str], Path],
    picture: Picture,
    image_file: Path,
    executable: str | None,
    tmp_path: Path,
) -> None:
    click, true = picture.clicks[0], picture.objects[0]
    mask = mask_by_javascript(deployed(client), tmp_path, click, image_file, executable)
    assert mask_iou(mask.reshape(true.shape), true) > 0.85


def test_the_samexporter_command_in_use_md_paints_the_clicked_object(
    deployed: Callable[[str], Path], picture: Picture, image_file: Path, tmp_path: Path
) -> None:
    heading = "samexporter's command"
    (prompt,) = programs("use.md", heading, "json")
    (command,) = programs("use.md", heading, "sh")
    x, y = (int(each) for each in picture.clicks[0])
    (tmp_path / "prompt.json").write_text(prompt.replace("[400, 300]", f"[{x}, {y}]"))
    (tmp_path / "sam2_demo").symlink_to(deployed("samexporter"))
    (tmp_path / "image.png").symlink_to(image_file)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", command], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True
    )
    # It paints the mask, and a disc at the click, which is inside the object.
    painted = (np.array(Image.open(tmp_path / "out.png")) != picture.image).any(axis=-1)
    assert mask_iou(painted, picture.objects[0]) > 0.85


def test_the_manifest_states_the_mask_scale_the_threshold_and_the_prompt_rules(
    deployed: Callable[[str], Path],
) -> None:
    def manifest(client: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((deployed(client) / "manifest.json").read_text())
        return found

    for client in ("samexporter", "nimbusimage", "anylabeling"):
        assert manifest(client)["masks"]["pixels_per_cell"] == 4
        assert manifest(client)["prompts"]["mask_threshold"] == 0
        assert manifest(client)["prompts"]["without_mask"].startswith("zeros for mask_input")
        assert "top left before bottom right" in manifest(client)["prompts"]["box"]
    assert manifest("transformers.js")["prompts"]["box"].startswith("x0, y0, x1, y1")
    assert "without_mask" not in manifest("transformers.js")["prompts"]
    assert manifest("osam")["masks"]["pixels_per_cell"] is None


# osam 0.8.1, osam/_models/sam2/_models.py


@pytest.fixture(scope="module")
def osam_model(deployed: Callable[[str], Path]) -> Any:
    """osam's own class for SAM 2, with the deployed files."""
    import osam

    folder = deployed("osam")
    files = json.loads((folder / "manifest.json").read_text())["files"]

    class Deployed(osam.types.Blob):
        path = property(lambda self: self.url)

    blobs = {
        graph: Deployed(str(folder / f"{graph}.onnx"), "sha256:" + files[f"{graph}.onnx"]["sha256"])
        for graph in ("encoder", "decoder")
    }

    class Demo(osam.apis.get_model_type_by_name("sam2:tiny")):  # type: ignore[misc]
        name = "sam2:demo"
        _blobs = blobs

    return Demo()


def generated(model: Any, embedding: Any, points: Array, labels: list[int]) -> Array:
    """The mask that osam gives for points, at the size of the whole image."""
    import osam

    prompt = osam.types.Prompt(points=points, point_labels=labels)
    request = osam.types.GenerateRequest(model=model.name, image_embedding=embedding, prompt=prompt)
    (found,) = model.generate(request).annotations
    mask = np.zeros((embedding.original_height, embedding.original_width), bool)
    height, width = found.mask.shape
    top, left = found.bounding_box.ymin, found.bounding_box.xmin
    mask[top : top + height, left : left + width] = found.mask
    return mask


def test_osams_own_class_finds_the_objects_in_a_non_square_image(
    osam_model: Any, picture: Picture
) -> None:
    embedding = osam_model.encode_image(picture.image)
    clicked, boxed = [], []
    for click, box, true in zip(picture.clicks, picture.boxes, picture.objects, strict=True):
        clicked.append(mask_iou(generated(osam_model, embedding, click[None], [1]), true))
        corners = box.reshape(2, 2)
        boxed.append(mask_iou(generated(osam_model, embedding, corners, [2, 3]), true))
    assert np.mean(clicked) > 0.8, clicked
    assert np.mean(boxed) > 0.85, boxed


def test_osam_preprocesses_an_image_as_sam2_does(
    osam_model: Any, picture: Picture, sam2: Reference
) -> None:
    # osam stretches in 8 bits. Up to 0.6.0 it divided only the mean: off by a third and more.
    embedding = osam_model.encode_image(picture.image)
    found = [*embedding.extra_features, embedding.embedding]
    for each, expected in zip(found, sam2.features, strict=True):
        assert near(each, expected[0], 0.1 * float(np.abs(expected).max()))


def test_osams_decoder_returns_four_masks_at_the_image_size(
    deployed: Callable[[str], Path], picture: Picture, sam2: Reference
) -> None:
    decoder = Graph(deployed("osam") / "decoder.onnx")
    first, second, embedding = sam2.features
    height, width = picture.image.shape[:2]
    for click in picture.clicks:
        # `_generate_mask_from_image_embedding` feeds eight inputs by name, and reads three outputs
        # by position.
        found = decoder.by_name(
            image_embeddings=embedding,
            high_res_features1=first,
            high_res_features2=second,
            point_coords=(click * sam2.stretch)[None, None],
            point_labels=np.ones((1, 1), np.float32),
            mask_input=np.zeros((1, 1, 256, 256), np.float32),
            has_mask_input=np.zeros(1, np.float32),
            orig_im_size=np.array([height, width], np.int64),
        )
        masks, scores, low_resolution = found.values()
        expected = sam2(click[None], np.array([1]))
        assert near_masks(low_resolution[0], expected.all_masks)
        assert near_masks(masks[0], upsampled(expected.all_masks, height, width))
        assert near(scores[0], expected.all_scores, SCORES)


# X-AnyLabeling 4.0.2 (87da339), anylabeling/services/auto_labeling/__base__/sam2.py


class XAnyLabeling:
    """`SegmentAnything2ONNX`: every tensor by its position."""

    def __init__(self, folder: Path) -> None:
        # `Model.get_model_abs_path` in model.py: relative to the YAML.
        config = yaml.safe_load((folder / "x-anylabeling.yaml").read_text())
        self.encoder = Graph(folder / config["encoder_model_path"])
        self.decoder = Graph(folder / config["decoder_model_path"])
        self.height, self.width = self.encoder.session.get_inputs()[0].shape[2:]

    def encode(self, image: NDArray[np.uint8]) -> list[Array]:
        """`prepare_input`: each channel stretched as floating-point numbers, then normalized."""
        channels = [
            np.array(
                Image.fromarray(channel).resize(
                    (self.width, self.height), Image.Resampling.BILINEAR
                )
            )
            for channel in np.moveaxis(image.astype(np.float32) / 255, 2, 0)
        ]
        mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
        std = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
        first, second, embedding = self.encoder.by_position(((channels - mean) / std)[None])
        return [embedding, first, second]

    def decode(self, features: list[Array], coords: Array, labels: Array) -> tuple[Array, Array]:
        """`prepare_inputs` and `forward_decoder`; the coordinates are already scaled."""
        masks = np.zeros((len(labels), 1, self.height // 4, self.width // 4), np.float32)
        has_mask = np.array([0], np.float32)
        found = self.decoder.by_position(*features, coords, labels, masks, has_mask)
        return found[0], found[1]


@pytest.fixture(scope="module")
def anylabeling(deployed: Callable[[str], Path]) -> XAnyLabeling:
    return XAnyLabeling(deployed("anylabeling"))


def test_x_anylabeling_gets_sam2s_masks_for_one_prompt(
    anylabeling: XAnyLabeling, picture: Picture, sam2: Reference
) -> None:
    features = anylabeling.encode(picture.image)
    for click, box in zip(picture.clicks, picture.boxes, strict=True):
        # `predict_masks`: marks in their order, a rectangle as two points.
        for coords, labels, prompt in (
            (click[None], [1], {"points": click[None], "labels": np.array([1])}),
            (box.reshape(2, 2), [2, 3], {"box": box}),
        ):
            scaled = (coords * sam2.stretch)[None].astype(np.float32)
            masks, scores = anylabeling.decode(features, scaled, np.array([labels], np.float32))
            expected = sam2(**prompt)
            assert near_masks(masks[0], expected.masks)
            assert near(scores[0], expected.scores, SCORES)


def test_x_anylabeling_gets_the_same_masks_for_64_prompts_at_once(
    anylabeling: XAnyLabeling, sam2: Reference
) -> None:
    # `predict_masks_batch`: "segment everything" feeds 64 points of its grid in each batch.
    first, second, embedding = sam2.features
    features = [embedding, first, second]
    places = (np.arange(8, dtype=np.float32) + 0.5) / 8 * SIZE
    coords = np.stack(np.meshgrid(places, places), axis=-1).reshape(64, 1, 2)
    labels = np.ones((64, 1), np.float32)
    masks, scores = anylabeling.decode(features, coords, labels)
    assert masks.shape == (64, 3, 256, 256)
    for number in range(64):
        one = slice(number, number + 1)
        alone, score = anylabeling.decode(features, coords[one], labels[one])
        assert near_masks(masks[one], alone)
        assert near(scores[one], score, SCORES)
    for number in range(0, 64, 9):
        expected = sam2(coords[number] / sam2.stretch, np.array([1]))
        assert near_masks(masks[number], expected.masks)
        assert near(scores[number], expected.scores, SCORES)


def test_the_yaml_files_have_the_keys_that_each_anylabeling_requires(
    deployed: Callable[[str], Path],
) -> None:
    folder = deployed("anylabeling")
    # X-AnyLabeling: `ModelManager.load_custom_model` and `SegmentAnything2.Meta`.
    config = yaml.safe_load((folder / "x-anylabeling.yaml").read_text())
    assert config["type"] == "segment_anything_2"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", config["name"])
    assert isinstance(config["display_name"], str)
    # AnyLabeling 0.4.36 (5c15bbf): the same, and `SegmentAnything.__init__`.
    other = yaml.safe_load((folder / "anylabeling.yaml").read_text())
    assert other["type"] == "segment_anything"
    assert {"name", "display_name", "input_size", "max_width", "max_height"} <= other.keys()
    # `detect_model_variant` recognizes SAM 2 by this input.
    assert "high_res_feats_0" in Graph(folder / other["decoder_model_path"]).inputs
    for each in (config, other):
        assert (folder / each["encoder_model_path"]).is_file()
        assert (folder / each["decoder_model_path"]).is_file()


# transformers.js 4.3.1, src/models/sam2/modeling_sam2.js


@pytest.fixture(scope="module")
def transformers_js(deployed: Callable[[str], Path]) -> dict[str, Graph]:
    folder = deployed("transformers.js") / "onnx"
    return {
        "encoder": Graph(folder / "vision_encoder.onnx"),
        "decoder": Graph(folder / "prompt_encoder_mask_decoder.onnx"),
    }


def transformers_js_feeds(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """`Sam2Model.forward`: an absent input has an axis of length zero."""
    if "input_points" not in feeds:
        boxes = feeds["input_boxes"].shape[1]
        return {
            **feeds,
            "input_points": np.zeros((1, 1, 0, 2), np.float32),
            "input_labels": np.zeros((1, boxes, 0), np.int64),
        }
    return {"input_boxes": np.zeros((1, 0, 4), np.float32), **feeds}


def cases(picture: Picture) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Several points, several boxes, or points with one box, the most that it allows."""
    for kind, prompts in prompts_of(picture).items():
        yield kind, prompts[:1] if kind == "points and boxes" else prompts


def test_transformers_js_features_match_sam2_and_transformers(
    transformers_js: dict[str, Graph],
    sam2: Reference,
    picture: Picture,
    transformers: Callable[..., dict[str, Array]],
) -> None:
    found = transformers_js["encoder"].by_name(pixel_values=sam2.pixels.numpy())
    feeds = transformers_feeds(prompts_of(picture)["points"], sam2.stretch)
    expected = transformers(pixel_values=sam2.pixels, **feeds)
    for level, own in enumerate(sam2.features):
        name = f"image_embeddings.{level}"
        assert near_features(found[name], own)
        assert near_features(found[name], expected[name])


def test_transformers_js_masks_match_transformers_and_sam2(
    transformers_js: dict[str, Graph],
    sam2: Reference,
    picture: Picture,
    transformers: Callable[..., dict[str, Array]],
) -> None:
    features = sam2.features
    named = {f"image_embeddings.{level}": each for level, each in enumerate(features)}
    for kind, prompts in cases(picture):
        feeds = transformers_feeds(prompts, sam2.stretch)
        found = transformers_js["decoder"].by_name(**named, **transformers_js_feeds(feeds))
        expected = transformers(image_embeddings=features, **feeds)
        assert near_masks(found["pred_masks"], expected["pred_masks"]), kind
        assert near(found["iou_scores"], expected["iou_scores"], SCORES), kind
        scores = found["object_score_logits"], expected["object_score_logits"]
        assert near(*scores, MASKS), kind
        for number, prompt in enumerate(prompts):
            own = sam2(**prompt)
            assert near_masks(found["pred_masks"][0, number], own.masks), kind
            assert near(found["iou_scores"][0, number], own.scores, SCORES), kind


def test_transformers_reads_the_configuration_and_preprocesses_as_sam2_does(
    deployed: Callable[[str], Path], sam2: Reference, picture: Picture
) -> None:
    from transformers import AutoConfig, AutoImageProcessor

    folder = deployed("transformers.js")
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "sam2"
    assert config.vision_config.num_feature_levels == 3
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(picture.image, return_tensors="np")["pixel_values"]
    assert near(np.asarray(pixels), sam2.pixels.numpy(), 0.02)  # transformers stretches in 8 bits


# NimbusImage 818835a, src/pipelines/samPipeline.ts


def test_nimbusimages_preprocessing_gives_transformers_masks_best_first(
    deployed: Callable[[str], Path],
    picture: Picture,
    transformers: Callable[..., dict[str, Array]],
) -> None:
    folder = deployed("nimbusimage")
    encoder, decoder = Graph(folder / "encoder.ort"), Graph(folder / "decoder.onnx")
    # The longer side already has the input's size; zeros are added below, after normalization.
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    pixels = np.zeros((1, 3, SIZE, SIZE), np.float32)
    height, width = picture.image.shape[:2]
    pixels[0, :, :height, :width] = ((picture.image - mean) / std).transpose(2, 0, 1)
    features = encoder.by_name(image=pixels)
    image: dict[str, Any] = {"pixel_values": pixels}
    for click, box in zip(picture.clicks, picture.boxes, strict=True):
        # A padding point where there is no box; a box is two points.
        for coords, labels in (([click, [0, 0]], [1, -1]), (box.reshape(2, 2), [2, 3])):
            feeds = {
                "point_coords": np.array([coords], np.float32),
                "point_labels": np.array([labels], np.float32),
            }
            found = decoder.by_name(
                **features,
                **feeds,
                mask_input=np.zeros((1, 1, 256, 256), np.float32),
                has_mask_input=np.zeros(1, np.float32),
            )
            # The padding point does not affect the answer. transformers takes a box's corners as
            # points too.
            kept = feeds["point_labels"][0] >= 0
            answer = transformers(
                **image,
                input_points=feeds["point_coords"][None][:, :, kept],
                input_labels=feeds["point_labels"][None][:, :, kept].astype(np.int64),
            )
            image = {"image_embeddings": [answer[f"image_embeddings.{n}"] for n in range(3)]}
            order = np.argsort(-answer["iou_scores"][0, 0])
            assert near(found["iou_predictions"], answer["iou_scores"][:, 0, order], SCORES)
            assert near_masks(found["masks"], answer["pred_masks"][:, 0, order])


# --- doit compare ------------------------------------------------------------------------------


def ious_printed(output: str) -> list[float]:
    """The IoU in each prompt's line of `doit compare`."""
    return [float(each) for each in re.findall(r"\n  [a-z ]+: IoU ([01]\.\d+)", output)]


@pytest.mark.parametrize("client", ["osam", "transformers.js", "nimbusimage"])
def test_doit_compare_runs_the_same_prompts_for_any_two_clients(
    deployed: Callable[[str], Path], client: str, tmp_path: Path
) -> None:
    drawn = tmp_path / "differences.png"
    folders = deployed(CLIENTS[0]), deployed(client)
    done = deployed_folder.run("compare", "--picture", drawn, *folders)
    assert done.returncode == 1, done.stderr
    ious = ious_printed(done.stdout)
    assert len(ious) == (3 if client == "transformers.js" else 4)  # it sends no mask
    assert min(ious) > 0.99
    assert not drawn.exists()


def test_doit_compare_draws_the_masks_of_a_changed_decoder(
    deployed: Callable[[str], Path], tmp_path: Path
) -> None:
    right, wrong = deployed(CLIENTS[0]), tmp_path / "wrong"
    shutil.copytree(right, wrong)
    decoder = onnx.load(wrong / "decoder.onnx")
    largest = max(decoder.graph.initializer, key=lambda each: len(each.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * 1.5).tobytes()
    deployed_folder.relist(wrong, "decoder.onnx", decoder.SerializeToString())
    drawn = tmp_path / "new/differences.png"
    done = deployed_folder.run("compare", "--picture", drawn, right, wrong)
    assert min(ious_printed(done.stdout)) < 0.99
    assert f"  masks with an IoU below 0.99 are drawn in {drawn}\n" in done.stdout
    assert Image.open(drawn).width == 3 * PAIR_SIDE + 2 * PAIR_GAP
