"""The real thing at real size: four architectures with synthetic weights, fetched over HTTP.

Slow (minutes); the rest of the tests take seconds.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from project import Project
from server import FileServer

from tasks import verify
from tasks.config.schema import Tolerances
from tasks.engine import child
from tasks.engine.errors import StageError
from tasks.inference.prompts import AT_ONCE, PROMPTS
from tasks.model import load
from tasks.proof.judgement import exceeded

pytestmark = pytest.mark.slow

SIZES = ("tiny", "small", "base_plus", "large")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """All four sizes: made up once, served over loopback, and built from there by one `doit`."""
    project = Project(tmp_path_factory.mktemp("real") / "project", cheap=False)
    made_up = "".join(
        f'[models.{size}]\nmodel_type = "sam2_hiera_{size}"\nurl = "synthetic:?seed=1"\n'
        for size in SIZES
    )
    (project.root / "made_up.toml").write_text('[build]\ndir = "made_up"\n' + made_up)
    outcome = project.build("config=made_up.toml", "checkpoint")
    assert outcome.status == 0, outcome.output
    server = FileServer()
    served = ""
    for size in SIZES:
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
    assert len(outcome.ran) == 20
    yield project
    server.close()


def folder(project: Project, size: str) -> Path:
    return project.root / f"public/onnx-models/sam/sam2_hiera_{size}"


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_deployed_with_a_manifest_that_tells_the_truth(
    built: Project, size: str
) -> None:
    manifest = json.loads((folder(built, size) / "manifest.json").read_text())
    for name, told in manifest["files"].items():
        data = (folder(built, size) / name).read_bytes()
        assert told == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
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
    at_once = [prompt for group in AT_ONCE for prompt in group]
    asked = {prompt.name for prompt in (*PROMPTS, *at_once)}
    others = {f"{prompt.name} on {shape}" for prompt in PROMPTS for shape in verify.SHAPES}
    assert set(manifest["verification"]["prompts"]) == asked | others


@pytest.mark.parametrize("size", SIZES)
def test_no_encoder_holds_operators_that_compute_shapes(built: Project, size: str) -> None:
    graph = onnx.load(folder(built, size) / "encoder.onnx", load_external_data=False).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Shape", "Range", "Mod", "ConstantOfShape", "If", "Loop", "Tile"}
    assert {node.domain for node in graph.node} == {""}


def test_every_stage_of_every_size_stays_within_6_gib(built: Project) -> None:
    records = json.loads((built.root / "build/state/doit.json").read_text())
    peaks = {
        task: record["_values_:"]["peak_memory"]
        for task, record in records.items()
        if "peak_memory" in record["_values_:"]
    }
    assert len(peaks) == 3 * len(SIZES)
    assert max(peaks.values()) < 6 << 30, peaks


def test_large_runs_in_the_browser_within_its_4_gib(
    built: Project, executable: str | None, tmp_path: Path
) -> None:
    """WASM addresses 4 GiB, and large's encoder is 0.8 GiB that is copied more than once."""
    arguments = {
        "graphs": {
            part: str(folder(built, "large") / f"{part}.onnx") for part in ("encoder", "decoder")
        },
        "names": {part: f"{part}.onnx" for part in ("encoder", "decoder")},
        "client": "samexporter",
        "masks": "multi",
        "prompts": "many",
        "precision": "fp32",
        "scratch": str(tmp_path),
        "executable": executable,
        "webgpu": False,
        "decoder_runs": 1,
    }
    result = child.run("tasks.browser:prove", arguments, tmp_path / "log", verbose=False)
    assert "refused" not in result["providers"]["wasm"]
    assert result["providers"]["wasm"]["mask_iou"] >= 0.999


def test_a_second_build_has_nothing_to_do(built: Project) -> None:
    assert built.build().ran == set()


def test_a_synthetic_model_says_so_in_its_manifest(built: Project) -> None:
    built.configure(
        '[models.demo]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\ndeploy = "demo"\n'
    )
    assert built.build("deploy:demo").status == 0
    manifest = json.loads((built.root / "demo/sam2_hiera_tiny/manifest.json").read_text())
    assert manifest["checkpoint"]["synthetic"] is True


def test_every_option_passes_verification(built: Project) -> None:
    """One model for each mask choice, attention and the oldest opset, from one checkpoint."""
    options = (
        'masks = "best"\nopset = 17',
        'masks = "single"\nprompts = "one"',
        'attention = "fused"\nbrowser = false',
    )
    built.configure(
        "".join(
            f'[models.x{number}]\nmodel_type = "sam2_hiera_tiny"\nfolder = "x{number}"\n'
            f'url = "build/checkpoints/tiny.pt"\n{option}\n'
            for number, option in enumerate(options)
        )
    )
    outcome = built.build("-n", "2", "verify")
    assert outcome.status == 0, outcome.output
    best, single, fused = (
        onnx.load(built.root / f"build/models/x{number}/{name}.onnx", load_external_data=False)
        for number, name in enumerate(("decoder", "decoder", "encoder"))
    )
    assert [dim.dim_value for dim in best.graph.output[0].type.tensor_type.shape.dim][1:] == [
        1,
        256,
        256,
    ]
    assert "Where" in {node.op_type for node in single.graph.node}
    assert "MultiHeadAttention" in {node.op_type for node in fused.graph.node}


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


def measure(project: Project, folder: Path) -> dict[str, Any]:
    return verify.measure(
        architecture="sam2_hiera_tiny",
        opset=20,
        attention="plain",
        masks="multi",
        prompts="many",
        client="samexporter",
        truth=None,
        architecture_files=[],
        checkpoint=str(project.root / "build/checkpoints/tiny.pt"),
        graphs=[{name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder")}],
    )


def test_verify_finds_one_weight_that_is_off_by_a_tenth(built: Project, tmp_path: Path) -> None:
    deployed = folder(built, "tiny")
    (tmp_path / "encoder.onnx").symlink_to(deployed / "encoder.onnx")
    decoder = onnx.load(deployed / "decoder.onnx")
    weight = max(decoder.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight) * 1.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight.name))
    onnx.save(decoder, tmp_path / "decoder.onnx")
    found = exceeded(measure(built, tmp_path)["differences"], Tolerances(), "[verify]")
    failures = [each for each in found if (each.kind, each.prompt) == ("masks", "one point")]
    assert failures
    assert str(failures[0]).startswith("masks of prompt 'one point': differs by ")


def test_verify_finds_an_axis_that_is_another_than_the_contracts(
    built: Project, tmp_path: Path
) -> None:
    deployed = folder(built, "tiny")
    (tmp_path / "encoder.onnx").symlink_to(deployed / "encoder.onnx")
    decoder = onnx.load(deployed / "decoder.onnx")
    (points,) = [each for each in decoder.graph.input if each.name == "point_coords"]
    points.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(decoder, tmp_path / "decoder.onnx")
    (broken,) = measure(built, tmp_path)["violations"]
    assert (broken["kind"], broken["graph"]) == ("other tensor", "decoder")
    assert broken["allowed"] == "point_coords float32 (num_prompts, num_points, 2)"
    assert broken["found"] == "point_coords float32 (num_prompts, 1, 2)"
    assert "expected point_coords float32 (num_prompts, num_points, 2)" in broken["sentence"]
    assert "found point_coords float32 (num_prompts, 1, 2)" in broken["sentence"]


def refusal(model_type: str, checkpoint: Path) -> str:
    with pytest.raises(StageError) as error:
        load.load_model(model_type, checkpoint)
    return str(error.value)


def test_a_checkpoint_of_another_size_names_what_does_not_fit(built: Project) -> None:
    message = refusal("sam2_hiera_small", built.root / "build/checkpoints/tiny.pt")
    assert "does not fit sam2_hiera_small" in message
    assert "missing keys (image_encoder.trunk.blocks.12." in message


def test_a_checkpoint_of_a_newer_architecture_names_the_unexpected_keys(
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
def test_a_file_that_is_no_checkpoint_is_refused_with_what_was_expected(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    assert "expected SAM 2's weights: a torch file" in refusal(
        "sam2_hiera_tiny", tmp_path / "bad.pt"
    )


def test_a_state_dict_of_something_else_is_refused_with_what_was_found(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "bare.pt")
    message = refusal("sam2_hiera_tiny", tmp_path / "bare.pt")
    assert "does not fit sam2_hiera_tiny" in message
    assert "1 unexpected keys (weight)" in message
