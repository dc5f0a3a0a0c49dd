"""The manifest's types and its JSON Schema accept deployed manifests, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import manifest_schema
import manifests
import pytest
from jsonschema import Draft202012Validator
from project import ROOT, Project, install_packages, programs

from tasks.proof.manifest import Manifest, as_json, read_manifest
from tasks.records.listing import read_listing

SCHEMA = json.loads(manifest_schema.FILE.read_text())

CONFIGURATION = """
[build]
deploy = "public"
[browser]
executable = "{root}/chromium"
[models.two]
url = "two.pt"
model_type = "sam2_hiera_tiny"
folder = "two"
clients = ["samexporter", "transformers.js"]
browser = false
truth = "tasks.drawing.scenes:scene"
[models.varied]
url = "synthetic:"
model_type = "sam2_hiera_tiny"
variants = ["fp32", "fp16", "q8"]
formats = ["onnx", "ort"]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model for two clients without a browser; a synthetic one with a browser, its q8 refused."""
    project = Project(tmp_path_factory.mktemp("built") / "project", cheap=True)
    install_packages(project.root)
    browser = project.root / "chromium"
    browser.write_text("#!/bin/sh\necho Chromium 1\n")
    browser.chmod(0o755)
    (project.root / "two.pt").write_bytes(b"weights" * 1000)
    project.configure(CONFIGURATION.format(root=project.root))
    outcome = project.build(CHEAP_BELOW="_quantized.onnx")
    assert outcome.status == 0, outcome.output
    return project


def deployed_in(project: Project) -> list[Path]:
    return sorted((project.root / "public").rglob("manifest.json"))


def problems(content: object) -> list[str]:
    return [each.message for each in Draft202012Validator(SCHEMA).iter_errors(content)]


def check(path: Path) -> Manifest:
    """Check a manifest against the schema, and that reading it loses nothing."""
    content = json.loads(path.read_text())
    assert problems(content) == []
    manifest = read_manifest(path)
    assert manifest is not None
    assert json.loads(json.dumps(as_json(manifest))) == content
    return manifest


def test_the_published_schema_matches_the_types() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert manifest_schema.FILE.read_text() == manifest_schema.text(), (
        "run `python tests/manifest_schema.py`"
    )


def test_every_deployed_manifest_matches_the_types_and_the_schema(built: Project) -> None:
    by_name = {each.model: each for each in map(check, deployed_in(built))}
    assert by_name.keys() == {"two", "two-transformers.js", "varied"}
    two, varied = by_name["two"], by_name["varied"]
    assert two.verification is not None
    assert two.verification.truth is not None
    assert two.browser is None
    assert varied.checkpoint.synthetic
    assert varied.browser is not None
    assert {each.name: each.deployed for each in varied.variants} == {
        **dict.fromkeys(["fp32", "fp16", "fp32.ort", "fp16.ort", "q8.ort"], True),
        "q8": False,
    }


@pytest.mark.slow
@pytest.mark.xdist_group("video")
def test_the_manifest_of_a_tracking_model_matches_the_types_and_the_schema(
    video_model: Project,
) -> None:
    (path,) = (video_model.root / "public").rglob("manifest.json")
    assert check(path).video is not None


# --- refused manifests ----------------------------------------------------------------------------


def without(*path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def with_value(value: object, *path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


WRONG_TYPES = {
    "a key is missing": without("recommended"),
    "a key of a file is missing": without("files", "encoder.onnx", "sha256"),
    "a key of a variant is missing": without("variants", 0, "files"),
    "a key that may only be null is missing": without("verification"),
    "null where there must be a value": with_value(None, "client"),
    "text for a number": with_value("12", "files", "encoder.onnx", "size"),
    "a fraction of a byte": with_value(1.5, "files", "encoder.onnx", "size"),
    "a number for a boolean": with_value(1, "checkpoint", "synthetic"),
    "a boolean for a number": with_value(True, "verification", "tolerances", "masks"),
    "text for a figure": with_value("NaN", "verification", "encoder", "image_embed"),
    "one mean too few": with_value([1, 2], "preprocessing", "mean"),
    "a list for an object": with_value([], "files"),
    "text for a boolean": with_value("maybe", "variants", 0, "deployed"),
    "an unknown precision": with_value("q3", "variants", 0, "precision"),
    "an unknown provider": with_value({"variant": "fp32", "why": ""}, "recommended", "cuda"),
    "an unknown key": with_value({"wasm": "fp32"}, "prefer"),
    "an earlier schema": with_value(4, "schema_version"),
}
WRONG_VALUES = {
    "null instead of an absent key": with_value(None, "video"),
    "not deployed, without a reason": with_value(False, "variants", 0, "deployed"),
    "deployed, with a reason against it": with_value("too far", "variants", 0, "reason"),
    "not a hash": with_value("123", "files", "encoder.onnx", "sha256"),
    "an IoU above 1": with_value({"mean": 1.5, "worst": 1}, "variants", 0, "fidelity", "mask_iou"),
}


def complete() -> dict[str, Any]:
    variant = manifests.variant(fidelity=manifests.FIDELITY)
    made: dict[str, Any] = json.loads(json.dumps(as_json(manifests.manifest(variants=(variant,)))))
    assert problems(made) == []
    return made


@pytest.mark.parametrize("change", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_manifest_with_wrong_types_is_refused_by_the_schema_and_the_reader(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    content = complete()
    change(content)
    assert problems(content)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content))
    assert read_manifest(path) is None


@pytest.mark.parametrize("change", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_manifest_with_contradictory_values_is_refused_by_the_schema(
    change: Callable[[Any], None],
) -> None:
    content = complete()
    change(content)
    assert problems(content)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "3", "null", "{}"])
def test_content_that_is_not_a_manifest_is_read_as_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    assert read_manifest(path) is None
    assert read_listing(path) is None
    path.write_text(text)
    assert read_manifest(path) is None
    assert read_listing(path) is None


def test_an_earlier_builds_manifest_still_lists_its_files(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    content = {"schema_version": 1, "model": "tiny", "files": {"a/b.onnx": {"sha256": "0f"}}}
    path.write_text(json.dumps(content))
    assert read_listing(path) == ("tiny", {"a/b.onnx": "0f"})
    path.write_text(json.dumps({**content, "files": {"../b.onnx": {"sha256": "0f"}}}))
    assert read_listing(path) is None


# --- the program of docs/use.md ------------------------------------------------------------------


def run_program(folder: Path, place: Path) -> subprocess.CompletedProcess[str]:
    (code,) = programs("use.md", "Checking a folder", "python")
    (place / "program.py").write_text(code)
    return subprocess.run(
        [sys.executable, place / "program.py", folder, ROOT / "docs/manifest.schema.json"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_documented_program_accepts_each_deployed_folder(
    built: Project, tmp_path: Path
) -> None:
    for path in deployed_in(built):
        done = run_program(path.parent, tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("model"), "'model' is a required property"),
        (with_value(float("nan"), "verification", "encoder", "image_embed"), "NaN"),
        (with_value("0" * 64, "files", "encoder.onnx", "sha256"), "encoder.onnx"),
    ],
)
def test_the_documented_program_refuses_a_folder_with_a_wrong_manifest(
    built: Project, change: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    (path,) = (each for each in deployed_in(built) if b'"model": "two",' in each.read_bytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in path.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = deepcopy(json.loads(path.read_text()))
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    done = run_program(folder, tmp_path)
    assert done.returncode != 0
    assert words in done.stderr
