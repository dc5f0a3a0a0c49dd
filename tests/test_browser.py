"""The proof in a real Chromium, on a small model: which files pass it and which must fail.

Slow (minutes); test_whole_builds.py proves models at real size. Without a browser these tests
are skipped; in CI (the variable CI) they fail.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from project import ROOT, Project

from tasks.config.checks import BrowserCheck
from tasks.inference import sessions
from tasks.inference.metrics import least_iou
from tasks.inference.prompts import AT_ONCE, PROMPTS
from tasks.inference.sessions import Predictions
from tasks.model import load
from tasks.proof.failures import Failure
from tasks.proof.judgement import browser_failures
from tasks.running import child
from tasks.system.errors import StageError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # so that the demo is built once


def report(project: Project) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (project.root / "build/models/demo/browser.json").read_text()
    )
    return content


def test_a_correct_model_is_proven_on_wasm_with_its_measurements(demo: Project) -> None:
    found = report(demo)
    assert found["passed"] is True
    assert found["isolated"] is True
    assert found["browser"].startswith("Chromium ")
    version = json.loads((ROOT / "web/package.json").read_text())["dependencies"]["onnxruntime-web"]
    assert found["runtime"] == f"onnxruntime-web {version}"
    assert found["threads"] >= 1
    wasm = found["providers"]["wasm"]
    for part in ("encoder", "decoder"):
        assert wasm[part]["create_ms"] > 0
        assert wasm[part]["run_ms"]
        assert all(time > 0 for time in wasm[part]["run_ms"])
        assert found["load_ms"][part] > 0
    together = [prompt for group in AT_ONCE for prompt in group]
    assert set(wasm["ious"]) == {prompt.name for prompt in (*PROMPTS, *together)}
    assert wasm["mask_iou"] >= 0.999
    assert set(wasm["differences"]["features"]) == {
        "image",
        "image_embed",
        "high_res_feats_0",
        "high_res_feats_1",
    }
    assert found["preprocessing"] == 0  # apart from differences below one of 255 levels
    if sys.platform == "linux":
        assert 100 << 20 < found["memory"]["renderer"] < 4 << 30


def test_the_deployed_files_are_the_proven_files(demo: Project) -> None:
    for name in ("encoder.onnx", "decoder.onnx"):
        deployed = demo.root / "public/demo" / name
        assert deployed.read_bytes() == (demo.root / "build/models/demo" / name).read_bytes()
    manifest = json.loads((deployed.parent / "manifest.json").read_text())
    assert manifest["browser"]["browser"] == report(demo)["browser"]
    assert manifest["browser"]["providers"]["wasm"]["parts"] == ["encoder", "decoder"]
    assert demo.build("deploy:demo").ran == set()


@pytest.fixture
def prove(demo: Project, executable: str | None, tmp_path: Path) -> Any:
    """Prove other files in place of the good ones, on WASM.

    The tensors are read from the good files, because onnxruntime cannot read some of the others.
    """
    good = {part: demo.root / f"build/models/demo/{part}.onnx" for part in ("encoder", "decoder")}

    def run(executable: str | None = executable, **files: Path) -> dict[str, Any]:
        (tmp_path / "model").mkdir()
        (tmp_path / "scratch").mkdir()
        graphs = {
            part: str(shutil.copy(files.get(part, path), tmp_path / f"model/{part}.onnx"))
            for part, path in good.items()
        }
        arguments = {
            "graphs": graphs,
            "names": {part: f"{part}.onnx" for part in graphs},
            "client": "samexporter",
            "masks": "multi",
            "prompts": "many",
            "precision": "fp32",
            "scratch": str(tmp_path / "scratch"),
            "executable": executable,
            "webgpu": False,
            "tensors_from": {part: str(path) for part, path in good.items()},
        }
        return child.run("tasks.browser:prove", arguments, tmp_path / "log", verbose=False)

    return run


def refused(result: dict[str, Any], graph: str) -> str:
    """The error message with which WASM refused a graph."""
    refusal = result["providers"]["wasm"]["refused"]
    assert set(refusal) == {"words", "graph"}
    assert refusal["graph"] == graph
    (failure,) = browser_failures(result, BrowserCheck(), 1.0)
    assert failure == Failure("refused", refusal["words"], provider="wasm", graph=graph)
    assert refusal["words"] in str(failure)
    return str(refusal["words"])


def test_an_encoder_exported_by_samexporter_fails_with_onnxruntime_webs_error(
    prove: Any, tmp_path: Path
) -> None:
    load.make_synthetic("sam2_hiera_tiny", 0, str(tmp_path / "tiny.pt"))
    raw = {part: tmp_path / f"raw.{part}.onnx" for part in ("encoder", "decoder")}
    command = [sys.executable, "-m", "samexporter.export_sam2", "--model_type", "sam2_hiera_tiny"]
    command += ["--checkpoint", str(tmp_path / "tiny.pt")]
    for part, path in raw.items():
        command += [f"--output_{part}", str(path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    result = prove(**raw)
    words = refused(result, "encoder")
    assert words.startswith("encoder on wasm: create its session: ")
    assert "ShapeInferenceError" in words
    assert result["load_ms"]["encoder"] > 0  # the report keeps the measurements until then


def test_a_truncated_file_fails_with_onnxruntime_webs_error(
    demo: Project, prove: Any, tmp_path: Path
) -> None:
    whole = (demo.root / "build/models/demo/encoder.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    words = refused(prove(encoder=tmp_path / "cut.onnx"), "encoder")
    assert words.startswith("encoder on wasm: create its session: ")
    assert "protobuf" in words.lower()


def test_an_html_page_in_place_of_a_model_is_reported_as_html(prove: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html><title>App</title>")
    words = refused(prove(decoder=tmp_path / "page.html"), "decoder")
    assert words.startswith("decoder: load: ")
    assert "found an HTML page, expected an ONNX file" in words


def test_an_operator_unknown_to_onnxruntime_web_is_refused(
    demo: Project, prove: Any, tmp_path: Path
) -> None:
    graph = onnx.load(demo.root / "build/models/demo/decoder.onnx")
    next(node for node in graph.graph.node if node.op_type == "Gelu").op_type = "NoSuchOperator"
    onnx.save(graph, tmp_path / "foreign.onnx")
    words = refused(prove(decoder=tmp_path / "foreign.onnx"), "decoder")
    assert words.startswith("decoder on wasm: create its session: ")
    assert "NoSuchOperator" in words


def test_a_browser_that_does_not_start_is_named_in_the_error(prove: Any) -> None:
    with pytest.raises(StageError, match=r"python.* does not start: .*\n?.*executable"):
        prove(executable=sys.executable)


def answers(logits: float, features: float = 1.0) -> Predictions:
    """Predictions with masks whose left half is foreground, with the given logits."""
    masks = np.full((1, 4, 4), -1.0, np.float32)
    masks[..., :2] = logits
    scores = np.array([0.5], np.float32)
    features_of = {"image_embed": np.full((1, 2, 2, 2), features, np.float32)}
    return Predictions(features_of, {"box": masks}, {"box": scores})


def judged(found: Predictions, expected: Predictions, **rules: Any) -> list[Failure]:
    figures = {
        "differences": sessions.differences(found, expected),
        "ious": {"box": least_iou(found.masks["box"], expected.masks["box"])},
    }
    report = {"providers": {"wasm": figures}}
    return browser_failures(report, replace(BrowserCheck(), **rules), 1.0)


def test_equal_answers_pass() -> None:
    assert judged(answers(1.0), answers(1.0)) == []


def test_masks_that_overlap_too_little_fail_and_name_the_rule() -> None:
    (logits, iou) = judged(answers(-1.0), answers(1.0))
    assert (logits.kind, logits.found, logits.rule) == ("masks", 2, "[browser] mask_tolerance")
    assert (iou.kind, iou.found, iou.rule) == ("mask iou", 0, "[browser] mask_iou")
    assert str(logits).startswith("on WASM, masks of prompt 'box': differs by 2, [browser] mask_to")
    assert str(iou).startswith(
        "on WASM, masks of prompt 'box': IoU with onnxruntime's is 0, [browser] mask_iou"
    )


def test_features_that_are_not_numbers_never_pass() -> None:
    (failure,) = judged(answers(1.0, features=np.nan), answers(1.0))
    assert (failure.kind, failure.tensor, failure.found) == ("features", "image_embed", None)
    assert "encoder output image_embed: differs by not a number" in str(failure)


def test_least_iou_returns_the_iou_of_the_worst_mask() -> None:
    one = np.ones((2, 2, 2), np.float32)
    other = one.copy()
    other[1, 0, 0] = -1
    assert least_iou(one, other) == 0.75
    assert least_iou(-one, -one) == 1.0
