"""Real builds at full size: the smallest and the largest architecture, the others nightly.

The weights are synthetic, and downloaded over HTTP.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from project import Project
from server import FileServer

from tasks.clients.registry import CLIENTS
from tasks.config.checks import BrowserCheck
from tasks.inference.cases import SHAPES
from tasks.inference.prompts import PROMPTS, runs_of_every_value
from tasks.model import load
from tasks.proof.judgement import browser_failures
from tasks.running import child
from tasks.system.errors import StageError

pytestmark = pytest.mark.slow

SIZES = ("tiny", "large")
NIGHTLY = ("small", "base_plus")
EACH = [*SIZES, *(pytest.param(size, marks=pytest.mark.nightly) for size in NIGHTLY)]


@pytest.fixture(scope="module")
def sizes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return (*SIZES, *NIGHTLY) if request.config.getoption("--nightly") else SIZES


@pytest.fixture(scope="module")
def built(sizes: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Several sizes: generated once, served on loopback, and built from there by one `doit`."""
    project = Project(tmp_path_factory.mktemp("real") / "project", cheap=False)
    made_up = "".join(
        f'[models.{size}]\nmodel_type = "sam2_hiera_{size}"\nurl = "synthetic:?seed=1"\n'
        for size in sizes
    )
    (project.root / "made_up.toml").write_text('[build]\ndir = "made_up"\n' + made_up)
    outcome = project.build("config=made_up.toml", "checkpoint")
    assert outcome.status == 0, outcome.output
    server = FileServer()
    served = ""
    for size in sizes:
        file = project.root / f"made_up/checkpoints/{size}.pt"
        server.files[f"/{size}.pt"] = file
        digest = json.loads(file.with_suffix(".json").read_text())["sha256"]
        served += (
            f'[models.{size}]\nmodel_type = "sam2_hiera_{size}"\n'
            f'url = "{server.url(f"/{size}.pt")}"\nsha256 = "{digest}"\n'
        )
    project.configure(served)
    outcome = project.build("-n", "2")
    assert outcome.status == 0, outcome.output
    assert len(outcome.ran) == 5 * len(sizes)
    yield project
    server.close()


def folder(project: Project, size: str) -> Path:
    return project.root / f"public/onnx-models/sam/sam2_hiera_{size}"


@pytest.mark.parametrize("size", EACH)
def test_each_size_is_deployed_with_a_correct_manifest(built: Project, size: str) -> None:
    manifest = json.loads((folder(built, size) / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder(built, size) / name).read_bytes()
        assert entry == {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "needs": {"onnxruntime": "1.17"},
            "runs_on": {
                "onnxruntime": ["1.17.0", version("onnxruntime"), "1.32.0"],
                "openvino": ["2026.4.1"],
            },
        }
    assert set(manifest["files"]) == {"encoder.onnx", "decoder.onnx"}
    (image,) = manifest["encoder"]["inputs"]
    assert image == {
        "name": "image",
        "dtype": "float32",
        "shape": [1, 3, 1024, 1024],
        "role": "image",
    }
    shapes = {tensor["name"]: tensor["shape"] for tensor in manifest["decoder"]["inputs"]}
    assert shapes["point_coords"] == ["num_prompts", "num_points", 2]
    assert manifest["decoder"]["outputs"][0]["shape"] == ["num_prompts", 3, 256, 256]
    square = {each.name for each in runs_of_every_value(CLIENTS["samexporter"], True).prompts}
    others = {f"{prompt.name} on {shape}" for prompt in PROMPTS for shape in SHAPES}
    assert set(manifest["verification"]["prompts"]) == square | others


@pytest.mark.parametrize("size", EACH)
def test_no_encoder_has_operators_that_compute_shapes(built: Project, size: str) -> None:
    graph = onnx.load(folder(built, size) / "encoder.onnx", load_external_data=False).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Shape", "Range", "Mod", "ConstantOfShape", "If", "Loop", "Tile"}
    assert {node.domain for node in graph.node} == {""}


def test_every_stage_of_every_size_stays_within_6_gib(
    built: Project, sizes: tuple[str, ...]
) -> None:
    records = json.loads((built.root / "build/state/doit.json").read_text())
    peaks = {
        task: record["_values_:"]["peak_memory"]
        for task, record in records.items()
        if "peak_memory" in record["_values_:"]
    }
    assert len(peaks) == 3 * len(sizes)
    assert max(peaks.values()) < 6 << 30, peaks


def prove(project: Project, size: str, executable: str | None, scratch: Path) -> dict[str, Any]:
    """The browser's proof of a size's deployed files; for tiny also of the decoder on WebGPU."""
    parts = ("encoder", "decoder")
    arguments = {
        "graphs": {part: str(folder(project, size) / f"{part}.onnx") for part in parts},
        "names": {part: f"{part}.onnx" for part in parts},
        "client": "samexporter",
        "masks": "multi",
        "prompts": "many",
        "precision": "fp32",
        "scratch": str(scratch),
        "executable": executable,
        "webgpu": size == "tiny",
        "decoder_runs": 1,
    }
    result = child.run("tasks.browser:prove", arguments, scratch / "log", verbose=False)
    assert browser_failures(result, BrowserCheck(), 1.0) == []
    return result


def test_large_runs_in_the_browser_within_its_4_gib(
    built: Project, executable: str | None, tmp_path: Path
) -> None:
    """WASM addresses 4 GiB, and large's encoder of 0.8 GiB is copied more than once."""
    wasm = prove(built, "large", executable, tmp_path)["providers"]["wasm"]
    assert wasm["mask_iou"] >= 0.999


def test_tiny_is_proven_on_wasm_and_its_decoder_on_webgpu(
    built: Project, executable: str | None, tmp_path: Path
) -> None:
    providers = prove(built, "tiny", executable, tmp_path)["providers"]
    assert providers["wasm"]["mask_iou"] >= 0.999
    webgpu = providers["webgpu"]
    assert webgpu["adapter"]["name"]
    assert webgpu["mask_iou"] >= 0.999
    if webgpu["adapter"]["software"]:
        assert "encoder" not in webgpu
        assert set(webgpu["ious"]) == {"one point"}


def test_a_second_build_has_nothing_to_do(built: Project) -> None:
    assert built.build().ran == set()


def test_the_same_checkpoint_gives_the_same_bytes(built: Project, tmp_path: Path) -> None:
    again = {name: tmp_path / f"{name}.onnx" for name in ("encoder", "decoder")}
    child.run(
        "tasks.export:write_graphs",
        {
            "architecture": "sam2_hiera_tiny",
            "checkpoint": str(built.root / "build/checkpoints/tiny.pt"),
            "opset": 20,
            "attention": "plain",
            "decoders": {"decoder": {"interface": "points", "masks": "multi", "prompts": "many"}},
            "graphs": {name: str(path) for name, path in again.items()},
        },
        tmp_path / "log",
        verbose=False,
    )
    for name, path in again.items():
        exported = built.root / f"build/models/tiny/exported/{name}.onnx"
        assert path.read_bytes() == exported.read_bytes()


def refusal(model_type: str, checkpoint: Path) -> str:
    with pytest.raises(StageError) as error:
        load.load_model(model_type, checkpoint)
    return str(error.value)


def test_a_checkpoint_of_another_size_is_refused_with_the_missing_keys(built: Project) -> None:
    message = refusal("sam2_hiera_small", built.root / "build/checkpoints/tiny.pt")
    assert "does not fit sam2_hiera_small" in message
    assert "missing keys (image_encoder.trunk.blocks.12." in message


def test_a_checkpoint_of_a_newer_architecture_is_refused_with_the_unexpected_keys(
    built: Project, tmp_path: Path
) -> None:
    weights = torch.load(built.root / "build/checkpoints/tiny.pt", weights_only=True)
    weights["model"]["no_obj_embed_spatial"] = torch.ones(1, 64)
    torch.save(weights, tmp_path / "newer.pt")
    message = refusal("sam2_hiera_tiny", tmp_path / "newer.pt")
    assert "1 unexpected keys (no_obj_embed_spatial)" in message


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_checkpoint_that_would_run_code_is_refused_without_running_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"model": Malicious()}))
    assert "holds more than tensors" in refusal("sam2_hiera_tiny", tmp_path / "bad.pt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_a_file_that_is_not_a_checkpoint_is_refused_with_the_expected_formats(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    assert "expected SAM 2's weights or SAM 1's: a torch file" in refusal(
        "sam2_hiera_tiny", tmp_path / "bad.pt"
    )


def test_a_state_dict_of_another_model_is_refused_with_its_keys(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "bare.pt")
    message = refusal("sam2_hiera_tiny", tmp_path / "bare.pt")
    assert "does not fit sam2_hiera_tiny" in message
    assert "1 unexpected keys (weight)" in message
