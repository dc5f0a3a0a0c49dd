"""A model with `video = true` through the real command: what is deployed, and what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from project import Project

from tasks.config.checks import BrowserCheck
from tasks.config.models import TRACKING_GRAPHS
from tasks.proof.judgement import TrackingRules, browser_failures
from tasks.running import child

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("video")]  # the model is built once

NAME = "tiny"


@pytest.fixture
def built(video_model: Project) -> Project:
    return video_model


def deployed(project: Project) -> Path:
    return project.root / "public/onnx-models/sam/sam2.1_hiera_tiny"


def manifest(project: Project) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((deployed(project) / "manifest.json").read_text())
    return content


def built_graph(project: Project, name: str) -> Path:
    return project.root / f"build/models/{NAME}/{name}.onnx"


def test_the_tracking_graphs_are_deployed_with_the_others(built: Project) -> None:
    names = {f"{name}.onnx" for name in ("encoder", "decoder", *TRACKING_GRAPHS)}
    assert set(manifest(built)["files"]) == names
    assert names < {path.name for path in deployed(built).iterdir()}


def test_the_manifest_has_the_constants_of_the_tracker(built: Project) -> None:
    video = manifest(built)["video"]
    assert video["memories"] == 7
    assert video["max_pointers"] == 16
    assert video["signed_pointer_times"] is True
    assert video["files"] == {name: f"{name}.onnx" for name in TRACKING_GRAPHS}
    (memory,) = video["tensors"]["memory_encoder"]["outputs"]
    assert memory["shape"] == [1, 64, 16, 16]
    (single,) = manifest(built)["variants"]
    assert single["tracking"]["mask_iou"]["worst"] >= 0.99
    assert single["tracking"]["occlusion_flips"] == 0


def test_the_pages_tracker_matches_the_python_tracker_and_webgpu_takes_every_node(
    built: Project,
) -> None:
    report = json.loads((built.root / f"build/models/{NAME}/browser.json").read_text())
    assert report["passed"] is True
    tracked = report["providers"]["wasm"]["tracking"]
    assert tracked["answers"] == 27
    assert tracked["mask_iou"]["worst"] > 0.999
    assert [each["frame"] for each in tracked["frames"]] == [*range(8), 6, 7, 1, 0]
    assert {f"{name}.onnx" for name in TRACKING_GRAPHS} < set(report["files"])
    placed = report["providers"]["webgpu"]["placement"]
    assert {name: placed[name]["cpu"] for name in TRACKING_GRAPHS} == dict.fromkeys(
        TRACKING_GRAPHS, 0
    )
    proof = manifest(built)["browser"]["providers"]["wasm"]["tracking"]
    assert proof["masks"] == 27


def test_a_second_build_has_nothing_to_do(built: Project) -> None:
    assert built.build().ran == set()


def test_a_model_without_video_has_no_tracking_graphs_and_the_same_encoder(
    built: Project, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    shutil.copytree(built.root / "build/checkpoints", project.root / "build/checkpoints")
    project.configure(
        f'[models.{NAME}]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:?seed=1"\n'
        "image_size = 256\nbrowser = false\n"
    )
    assert project.build("simplify").status == 0
    for name in ("encoder", "decoder"):
        assert built_graph(project, name).read_bytes() == built_graph(built, name).read_bytes()
    assert not built_graph(project, "memory_attention").exists()


@pytest.mark.parametrize("name", TRACKING_GRAPHS)
def test_an_unproven_graph_is_never_deployed(built: Project, tmp_path: Path, name: str) -> None:
    """The graph changes after its proof, and `-s` deploys without another proof."""
    graph = built_graph(built, name)
    before, was = graph.read_bytes(), manifest(built)
    with graph.open("ab") as file:
        file.write(b"\0")
    try:
        outcome = built.build("-s", f"deploy:{NAME}")
        assert outcome.status != 0
        for proof in ("tracking", "browser"):
            assert f"{name}.onnx differs from the file that {proof} measured" in outcome.output
        assert manifest(built) == was
        assert (deployed(built) / graph.name).read_bytes() == before
    finally:
        graph.write_bytes(before)


def test_a_memory_that_differs_from_pytorchs_fails_its_proof(
    built: Project, tmp_path: Path
) -> None:
    project = built.copy_to(tmp_path / "project")
    graph = built_graph(project, "memory_encoder")
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4 and tensor.dims[2] == 3:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.flip(values, 2).copy(), tensor.name))
    onnx.save(model, graph)
    outcome = project.build("-s", f"tracking:{NAME}:fp32")
    assert outcome.status != 0
    assert "tracked masks differ from PyTorch's" in outcome.output
    report = json.loads((graph.parent / "tracking.json").read_text())
    assert not report["passed"]
    again = project.build("-s", f"deploy:{NAME}")
    assert again.status != 0


def test_video_for_an_image_model_is_refused_before_anything_is_exported(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    narrow = Path(__file__).with_name("narrow.yaml").read_text()
    (project.root / "narrow.yaml").write_text(narrow)
    project.configure(
        '[models.narrow]\nconfig = "narrow.yaml"\nurl = "synthetic:?seed=2"\nvideo = true\n'
        "browser = false\n"
    )
    outcome = project.build("export:narrow")
    assert outcome.status != 0
    assert "narrow.yaml model.num_maskmem: found 0" in outcome.output


def test_a_graph_that_the_browser_does_not_load_fails_the_proof_by_name(
    built: Project, tmp_path: Path, executable: str | None
) -> None:
    graphs = {
        name: str(shutil.copy(built_graph(built, name), tmp_path))
        for name in ("encoder", "decoder", *TRACKING_GRAPHS)
    }
    broken = Path(graphs["memory_attention"])
    broken.write_bytes(broken.read_bytes()[:-1000])
    arguments = {
        "graphs": graphs,
        "names": {name: f"{name}.onnx" for name in graphs},
        "client": "nimbusimage",
        "masks": "multi",
        "prompts": "one",
        "precision": "fp32",
        "scratch": str(tmp_path),
        "executable": executable,
        "webgpu": False,
        "tracking": str(built_graph(built, "encoder").with_name("tracking_reference.npz")),
    }
    result = child.run("tasks.browser:prove", arguments, tmp_path / "log", verbose=False)
    rules = TrackingRules("[tracking]", "mask_iou", 0.999, 0.99, 1e-3, 0.0)
    failures = browser_failures(result, BrowserCheck(), 1.0, rules)
    (failure,) = failures
    assert (failure.kind, failure.graph) == ("refused", "memory_attention")
    assert "memory_attention on wasm: create its session" in str(failure)
    assert result["providers"]["wasm"]["ious"]  # earlier measurements are kept
