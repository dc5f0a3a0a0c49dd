"""When a browser is part of the build, and what reruns its proof."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from project import ROOT, Outcome, Project

BEFORE = ("checkpoint", "export", "simplify", "verify")


class Build(Project):
    """One synthetic model; the packages of npm and a browser are there when installed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, cheap=True)
        self.write()

    def write(self, browser: str = "", model: str = "") -> None:
        self.configure(
            f'[browser]\nexecutable = "{self.root / "chromium"}"\n{browser}\n'
            f'[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n{model}\n'
        )

    def install(self, version: str = "1.27.0") -> None:
        package = self.root / "web/node_modules/onnxruntime-web/package.json"
        package.parent.mkdir(parents=True, exist_ok=True)
        package.write_text(json.dumps({"version": version}))
        if not (self.root / "web/page").exists():
            (self.root / "web/page").symlink_to(ROOT / "web/page")
        if not (self.root / "chromium").exists():
            (self.root / "chromium").symlink_to(sys.executable)

    @property
    def report(self) -> Path:
        return self.root / "build/models/tiny/browser.json"

    @property
    def manifest(self) -> dict[str, object]:
        path = self.root / "public/onnx-models/sam/sam2_hiera_tiny/manifest.json"
        content: dict[str, object] = json.loads(path.read_text())
        return content


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path / "project")


@pytest.fixture
def proven(build: Build) -> Build:
    """Built once, with a browser's proof."""
    build.install()
    assert succeeded(build.build()) == stages(*BEFORE, "browser", "deploy")
    return build


def stages(*names: str) -> set[str]:
    return {f"{name}:tiny" for name in names}


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def test_where_there_is_a_browser_it_proves_a_model_before_it_is_deployed(proven: Build) -> None:
    assert json.loads(proven.report.read_text())["passed"] is True
    assert proven.manifest["browser"] == {
        "browser": "Chromium 1",
        "runtime": "onnxruntime-web 1.27.0",
        "tolerances": {"mask_iou": 0.999, "encoder": 1e-3, "masks": 1e-2, "scores": 1e-3},
        "providers": {
            "wasm": {
                "parts": ["encoder", "decoder"],
                "software": False,
                "mask_iou": 1.0,
                "encoder": {},
                "prompts": {},
            },
            "webgpu": {
                "parts": ["decoder"],
                "software": True,
                "mask_iou": 1.0,
                "encoder": {},
                "prompts": {},
            },
        },
    }
    assert succeeded(proven.build()) == set()


def test_where_there_is_none_the_run_says_so_in_one_line_and_the_manifest_too(
    build: Build,
) -> None:
    outcome = build.doit("run")
    assert outcome.status == 0, outcome.output
    (line,) = [each for each in outcome.output.splitlines() if "browser" in each]
    assert line == (
        "No browser has proven what was deployed: onnxruntime-web is not installed; "
        "run `npm ci --ignore-scripts --prefix web`."
    )
    assert build.manifest["browser"] is None


def test_a_browser_that_comes_later_adds_its_proof_alone(build: Build) -> None:
    assert succeeded(build.build()) == stages(*BEFORE, "deploy")
    build.install()
    assert succeeded(build.build()) == stages("browser", "deploy")


def test_a_browser_that_is_asked_for_and_missing_is_an_error_before_anything_runs(
    build: Build,
) -> None:
    build.write("enabled = true")
    outcome = build.doit("run")
    assert outcome.status == 3
    assert "[browser] enabled" in outcome.output
    assert "npm ci --ignore-scripts --prefix web" in outcome.output
    assert not (build.root / "build/checkpoints").exists()


def test_a_named_program_that_is_not_there_is_said(build: Build) -> None:
    build.install()
    (build.root / "chromium").unlink()
    outcome = build.doit("run", "browser:tiny")
    assert outcome.status != 0
    assert f"there is no program {build.root / 'chromium'} ([browser] executable)" in outcome.output


def test_a_model_that_is_not_for_browsers_has_no_such_stage(build: Build) -> None:
    build.install()
    build.write(model="browser = false")
    outcome = build.doit("run")
    assert outcome.status == 0
    assert "browser" not in outcome.output
    assert build.manifest["browser"] is None


def test_a_file_that_the_browser_refuses_is_not_deployed_and_its_words_are_shown(
    build: Build,
) -> None:
    build.install()
    words = "encoder on wasm: create its session: ERROR_CODE: 6, ShapeInferenceError"
    outcome = build.doit("run", CHEAP_REFUSAL=words)
    assert outcome.status != 0
    assert "build/models/tiny does not work in Chromium 1, and is not deployed" in outcome.output
    assert words in outcome.output
    assert json.loads(build.report.read_text())["failures"] == [words]
    assert not (build.root / "public").exists()


def test_masks_that_differ_from_onnxruntimes_are_not_deployed(build: Build) -> None:
    build.install()
    outcome = build.doit("run", CHEAP_IOU="0.9")
    assert outcome.status != 0
    assert "on wasm, masks of prompt 'one point': IoU with onnxruntime's is 0.9" in outcome.output
    assert not (build.root / "public").exists()


def test_another_onnxruntime_web_reruns_the_proof_alone(proven: Build) -> None:
    proven.install("1.28.0")
    assert succeeded(proven.build()) == stages("browser", "deploy")


@pytest.mark.parametrize("change", ["mask_iou = 0.99", "mask_tolerance = 0.1", "webgpu = false"])
def test_other_rules_for_the_browser_rerun_the_proof_alone(proven: Build, change: str) -> None:
    proven.write(change)
    assert succeeded(proven.build()) == stages("browser", "deploy")


def test_a_wider_tolerance_of_verify_does_not_rerun_the_browser(proven: Build) -> None:
    text = (proven.root / "config/models.toml").read_text()
    proven.configure("[verify]\nmask_tolerance = 0.01\n" + text)
    assert succeeded(proven.build()) == stages("verify", "deploy")


def test_the_encoder_on_webgpu_is_run_once_when_asked_for(proven: Build) -> None:
    assert succeeded(proven.build("browser:tiny", "--webgpu-encoder")) == stages("browser")
    assert "encoder" in json.loads(proven.report.read_text())["providers"]["webgpu"]
    assert succeeded(proven.build("browser:tiny", "--webgpu-encoder")) == set()
    assert succeeded(proven.build("browser:tiny")) == set()


def test_the_manifest_stays_the_same_bytes_when_only_times_differ(proven: Build) -> None:
    before = proven.manifest
    assert succeeded(proven.build("-a", "deploy:tiny")) >= stages("browser", "deploy")
    assert proven.manifest == before


def test_the_report_has_the_browsers_figures(proven: Build) -> None:
    assert succeeded(proven.build("report")) == set()
    page = (proven.root / "build/report/report.html").read_text()
    assert "1.00 s" in page  # the encoder's run
    assert "1,024.0 MiB" in page  # the page's memory


def test_a_variant_that_webgpu_refuses_is_marked_and_one_that_wasm_refuses_is_left_out(
    build: Build,
) -> None:
    build.install()
    build.write(model='variants = ["fp32", "q8", "q4"]')
    succeeded(build.build(CHEAP_REFUSAL_OF="encoder_quantized.onnx webgpu"))
    _, q8, _ = build.manifest["variants"]  # type: ignore[misc]
    assert q8["deployed"]
    assert q8["browser"]["providers"]["webgpu"] == {"error": "webgpu refused"}
    (build.root / "build/models/tiny/browser.q4.json").unlink()
    succeeded(build.build(CHEAP_REFUSAL_OF="encoder_q4.onnx wasm"))
    _, _, q4 = build.manifest["variants"]  # type: ignore[misc]
    assert not q4["deployed"]
    assert "wasm refused" in q4["reason"]
    assert succeeded(build.build("report")) == set()
    assert "wasm refused" in (build.root / "build/report/report.html").read_text()
