"""Every real stage on a small model: one build, from a checkpoint to proven, deployed files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Outcome, Project

MODEL = """
[build]
deploy = "app"
[browser]
enabled = true
webgpu = false
[models.small]
config = "small.yaml"
url = "synthetic:?seed=1"
client = "samexporter"
variants = ["fp32", "q8"]
video = true
truth = "tasks.drawing.scenes:scene"
truth_iou = 0.01
"""
IMAGE = {"encoder.onnx", "decoder.onnx"}
TRACKING = {f"{name}.onnx" for name in ("memory_attention", "memory_encoder", "mask_prompt")}
TRACKING |= {"tracking_decoder.onnx"}


class Built:
    """The project, and the outcome of its one build."""

    def __init__(self, project: Project, outcome: Outcome) -> None:
        self.project, self.outcome = project, outcome
        self.models = project.root / "build/models/small"
        self.app = project.root / "app/small"

    @property
    def manifest(self) -> dict[str, Any]:
        """The deployed manifest."""
        content: dict[str, Any] = json.loads((self.app / "manifest.json").read_text())
        return content

    def report(self, name: str) -> dict[str, Any]:
        """The report of a proof."""
        content: dict[str, Any] = json.loads((self.models / f"{name}.json").read_text())
        return content


@pytest.fixture(scope="module")
def built(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The demo's tracking architecture with random weights, for images of 256 pixels."""
    project = Project(tmp_path_factory.mktemp("pipeline") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    text = (ROOT / "demo/sam2_demo_video.yaml").read_text()
    for before, after in (("image_size: 1024", "image_size: 256"), ("[64, 64]", "[16, 16]")):
        assert before in text
        text = text.replace(before, after)
    (project.root / "small.yaml").write_text(text)
    project.configure(MODEL)
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return Built(project, outcome)


def test_every_stage_ran(built: Built) -> None:
    variants = {"fidelity", "tracking"}
    once = {"checkpoint", "export", "simplify", "verify", "reference", "tracking_reference"}
    expected = {f"{stage}:small" for stage in (*once, "browser", "deploy")}
    expected |= {f"{stage}:small:{name}" for stage in variants for name in ("fp32", "q8")}
    assert built.outcome.ran == expected | {"variant:small:q8", "browser:small:q8"}


def test_the_graphs_match_pytorch(built: Built) -> None:
    differences = built.report("verify")["differences"]
    assert max(differences["features"].values()) < 1e-4
    assert max(each["masks"] for each in differences["prompts"].values()) < 1e-3
    assert len(differences["prompts"]) > 40


def test_tracking_matches_pytorchs_predictor(built: Built) -> None:
    tracked = built.report("tracking")
    assert tracked["mask_iou"]["worst"] > 0.999


def test_chromium_matches_onnxruntime(built: Built) -> None:
    wasm = built.report("browser")["providers"]["wasm"]
    assert wasm["mask_iou"] > 0.999
    assert wasm["tracking"]["mask_iou"]["worst"] > 0.999


def test_a_variant_that_tracks_differently_is_refused_by_each_proof(built: Built) -> None:
    for name in ("tracking.q8", "browser.q8"):
        report = built.report(name)
        assert not report["passed"]
        sentences = [failure["sentence"] for failure in report["failures"]]
        assert any("mean IoU of tracked masks with" in sentence for sentence in sentences)
    q8 = built.manifest["variants"][1]
    assert q8["reason"].startswith("mean IoU of tracked masks with PyTorch's masks is 0.")


def test_the_proven_files_are_deployed_with_their_hashes(built: Built) -> None:
    manifest = built.manifest
    assert manifest["files"].keys() == IMAGE | TRACKING
    for name, entry in manifest["files"].items():
        content = (built.app / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    deployed = {each["name"]: each["deployed"] for each in manifest["variants"]}
    assert deployed == {"fp32": True, "q8": False}


def test_a_second_build_runs_nothing(built: Built) -> None:
    assert built.project.build().ran == set()


def test_a_graph_with_one_altered_byte_is_not_deployed(built: Built, tmp_path: Path) -> None:
    copy = built.project.copy_to(tmp_path / "project")
    graph = copy.root / "build/models/small/memory_attention.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    outcome = copy.doit("run", "-s", "deploy:small")
    assert outcome.status == 1
    assert "memory_attention.onnx differs from the file that" in outcome.output
