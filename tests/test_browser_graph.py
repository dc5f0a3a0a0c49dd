"""When the browser proof is part of a build, and which changes rerun it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Outcome, Project, install_packages

BEFORE = ("checkpoint", "export", "simplify", "verify")


class Build(Project):
    """One synthetic model; `install` adds the npm packages and a browser."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, cheap=True)
        self.write()

    def write(self, browser: str = "", model: str = "", executable: str = "chromium") -> None:
        self.configure(
            f'[browser]\nexecutable = "{self.root / executable}"\n{browser}\n'
            f'[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n{model}\n'
        )

    def install(self, version: str = "1.27.0") -> None:
        install_packages(self.root, version)
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


@pytest.fixture(scope="module")
def proven_once(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("proven") / "project")
    build.install()
    assert succeeded(build.build()) == stages(*BEFORE, "browser", "deploy")
    return build


@pytest.fixture
def proven(proven_once: Build, tmp_path: Path) -> Build:
    """A copy of the finished build, with a browser proof."""
    return proven_once.copy_to(tmp_path / "project")


def stages(*names: str) -> set[str]:
    return {f"{name}:tiny" for name in names}


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def variants(build: Build) -> dict[str, dict[str, Any]]:
    """The manifest's entry for each variant."""
    entries: list[dict[str, Any]] = build.manifest["variants"]  # type: ignore[assignment]
    return {each["name"]: each for each in entries}


def test_an_available_browser_proves_a_model_before_it_is_deployed(proven: Build) -> None:
    assert json.loads(proven.report.read_text())["passed"] is True
    assert proven.manifest["browser"] == {
        "browser": "Chromium 1",
        "runtime": "onnxruntime-web 1.27.0",
        "rules": {"mask_iou": 0.999, "encoder": 1e-3, "masks": 1e-2, "scores": 1e-3},
        "providers": {
            "wasm": {
                "proven": True,
                "parts": ["encoder", "decoder"],
                "mask_iou": 1.0,
                "encoder": {},
                "prompts": {},
            },
            "webgpu": {
                "proven": True,
                "software": True,
                "nodes": {
                    "encoder": {"webgpu": 100, "cpu": 0},
                    "decoder": {"webgpu": 100, "cpu": 0},
                },
                "parts": ["decoder"],
                "mask_iou": 1.0,
                "encoder": {},
                "prompts": {},
            },
        },
    }
    assert succeeded(proven.build()) == set()


def test_without_a_browser_one_line_and_the_manifest_report_the_missing_proof(
    build: Build,
) -> None:
    outcome = build.doit("run", PATH="")
    assert outcome.status == 0, outcome.output
    (line,) = [each for each in outcome.output.splitlines() if "browser" in each]
    assert line == (
        "No browser has proven the deployed files: onnxruntime-web is not installed and there is "
        "no npm; install Node.js 20 or newer."
    )
    assert build.manifest["browser"] is None


def test_a_browser_installed_later_runs_only_the_proof_and_the_deploy(build: Build) -> None:
    assert succeeded(build.build()) == stages(*BEFORE, "deploy")
    build.install()
    assert succeeded(build.build()) == stages("browser", "deploy")


def test_a_missing_required_browser_is_an_error_before_any_stage_runs(
    build: Build,
) -> None:
    build.write("enabled = true")
    outcome = build.doit("run", PATH="")
    assert outcome.status == 3
    assert "[browser] enabled" in outcome.output
    assert "install Node.js 20 or newer" in outcome.output
    assert not (build.root / "build/checkpoints").exists()


def test_a_missing_browser_executable_is_named_in_the_error(build: Build) -> None:
    build.install()
    (build.root / "chromium").unlink()
    outcome = build.doit("run", "browser:tiny")
    assert outcome.status != 0
    assert f"there is no program {build.root / 'chromium'} ([browser] executable)" in outcome.output


def test_a_model_with_browser_false_has_no_browser_stage(build: Build) -> None:
    build.install()
    build.write(model="browser = false")
    outcome = build.doit("run")
    assert outcome.status == 0
    assert "browser" not in outcome.output
    assert build.manifest["browser"] is None


def test_a_model_refused_by_the_browser_is_not_deployed_and_its_error_is_shown(
    build: Build,
) -> None:
    build.install()
    words = "encoder on wasm: create its session: ERROR_CODE: 6, ShapeInferenceError"
    outcome = build.doit("run", CHEAP_REFUSAL=words)
    assert outcome.status != 0
    assert "build/models/tiny: does not work in Chromium 1; not deployed" in outcome.output
    assert words in outcome.output
    (failure,) = json.loads(build.report.read_text())["failures"]
    assert (failure["kind"], failure["provider"], failure["graph"]) == (
        "refused",
        "wasm",
        "encoder",
    )
    assert failure["sentence"] == words
    assert not (build.root / "public").exists()


def test_a_model_with_masks_unlike_onnxruntimes_is_not_deployed(build: Build) -> None:
    build.install()
    outcome = build.doit("run", CHEAP_IOU="0.9")
    assert outcome.status != 0
    assert "on WASM, masks of prompt 'one point': IoU with onnxruntime's is 0.9" in outcome.output
    assert not (build.root / "public").exists()


def test_another_onnxruntime_web_reruns_only_the_proof_and_the_deploy(proven: Build) -> None:
    proven.install("1.28.0")
    assert succeeded(proven.build()) == stages("browser", "deploy")


NESTED = "node_modules/@huggingface/transformers/node_modules/onnxruntime-web"


def test_another_onnxruntime_web_nested_in_transformers_js_reruns_the_proof(
    proven: Build,
) -> None:
    for lock in ("package-lock.json", "node_modules/.package-lock.json"):
        content = json.loads((proven.root / "web" / lock).read_text())
        content["packages"][NESTED] = {"version": "1.31.0"}
        (proven.root / "web" / lock).write_text(json.dumps(content))
    assert succeeded(proven.build()) == stages("browser")
    runtime = proven.root / "web" / NESTED / "dist/ort.webgpu.bundle.min.mjs"
    runtime.parent.mkdir(parents=True)
    runtime.write_text("// another build of the same version")
    assert succeeded(proven.build()) == stages("browser")
    assert succeeded(proven.build()) == set()


@pytest.mark.parametrize(
    "file",
    ["ort.min.mjs", "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.wasm"],
)
def test_a_replaced_file_of_onnxruntime_web_reruns_the_proof(proven: Build, file: str) -> None:
    place = proven.root / "web/node_modules/onnxruntime-web/dist"
    place.mkdir()
    (place / file).write_text("another build")
    assert succeeded(proven.build()) == stages("browser")


def browser(build: Build, name: str, version: str) -> Path:
    """A program that prints a version and records each start."""
    path = build.root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" >> {build.root}/started\necho "{version}"\n')
    path.chmod(0o755)
    return path


def starts(build: Build) -> list[str]:
    return (build.root / "started").read_text().splitlines()


def test_another_browser_in_the_configuration_reruns_only_the_proof(proven: Build) -> None:
    browser(proven, "chrome", "Chrome 200")
    proven.write(executable="chrome")
    status = proven.doit("status", "tiny").output
    assert f"browser was Python {sys.version.split()[0]}, is Chrome 200" in status
    assert succeeded(proven.build()) == stages("browser")


def test_another_browser_version_at_the_same_path_reruns_only_the_proof(
    proven: Build,
) -> None:
    browser(proven, "chrome", "Chrome 200")
    proven.write(executable="chrome")
    succeeded(proven.build())
    browser(proven, "chrome", "Chrome 201")
    assert succeeded(proven.build()) == stages("browser")


@pytest.mark.parametrize(
    "started", ["exec {root}/real/chrome", "NAME=real\nLIB={root}/$NAME\n$LIB/chrome"]
)
def test_a_launcher_script_has_the_version_of_the_browser_that_it_starts(
    proven: Build, started: str
) -> None:
    browser(proven, "real/chrome", "Chrome 200")
    script = proven.root / "launcher"
    script.write_text(f'#!/bin/sh\n{started.format(root=proven.root)} "$@"\n')
    script.chmod(0o755)
    proven.write(executable="launcher")
    succeeded(proven.build())
    browser(proven, "real/chrome", "Chrome 201")
    assert "browser was Chrome 200, is Chrome 201" in proven.doit("status", "tiny").output
    assert succeeded(proven.build()) == stages("browser")


def test_a_browser_proof_comes_from_the_cache_only_for_the_same_browser(
    proven: Build, tmp_path: Path
) -> None:
    cache = f'[cache]\nurl = "{tmp_path / "cache"}"\nproofs = true'
    browser(proven, "chrome", "Chrome 200")
    proven.write(cache, executable="chrome")
    succeeded(proven.build())
    browser(proven, "other", "Chrome 201")
    proven.write(cache, executable="other")
    assert "prove was told to fail" in proven.build(CHEAP_FAIL="prove").output
    browser(proven, "moved", "Chrome 200")
    proven.write(cache, executable="moved")
    assert "browser:tiny" in succeeded(proven.build(CHEAP_FAIL="prove"))


def test_the_browser_version_is_queried_once(proven: Build) -> None:
    browser(proven, "chrome", "Chrome 200")
    proven.write(executable="chrome")
    succeeded(proven.build())
    assert succeeded(proven.build()) == set()
    assert "fresh" in proven.doit("status", "tiny").output
    assert starts(proven) == ["--version"]


@pytest.mark.parametrize("change", ["mask_iou = 0.99", "mask_tolerance = 0.1", "webgpu = false"])
def test_changed_browser_rules_rerun_only_the_proof_and_the_deploy(
    proven: Build, change: str
) -> None:
    proven.write(change)
    assert succeeded(proven.build()) == stages("browser", "deploy")


def test_a_wider_verify_tolerance_does_not_rerun_the_browser_proof(proven: Build) -> None:
    text = (proven.root / "config/models.toml").read_text()
    proven.configure("[verify]\nmask_tolerance = 0.01\n" + text)
    assert succeeded(proven.build()) == stages("verify", "deploy")


def test_the_webgpu_encoder_option_runs_the_encoder_on_webgpu_once(proven: Build) -> None:
    assert succeeded(proven.build("browser:tiny", "--webgpu-encoder")) == stages("browser")
    assert "encoder" in json.loads(proven.report.read_text())["providers"]["webgpu"]
    assert succeeded(proven.build("browser:tiny", "--webgpu-encoder")) == set()
    assert succeeded(proven.build("browser:tiny")) == set()


def test_the_manifest_does_not_change_when_only_timings_differ(proven: Build) -> None:
    before = proven.manifest
    assert succeeded(proven.build("-a", "deploy:tiny")) >= stages("browser", "deploy")
    assert proven.manifest == before


def test_the_report_contains_the_browser_measurements(proven: Build) -> None:
    assert succeeded(proven.build("report")) == set()
    page = (proven.root / "build/report/report.html").read_text()
    assert "1,024.0 MiB" in page  # the page's memory
    assert "<td>200, 0, in software<" in page  # nodes on WebGPU and on the CPU
    assert "doit speed:tiny" in page  # no times, which `doit speed` measures


def test_a_variant_refused_on_webgpu_is_marked_and_one_refused_on_wasm_is_left_out(
    build: Build,
) -> None:
    build.install()
    build.write(model='variants = ["fp32", "q8", "q4"]')
    succeeded(build.build(CHEAP_REFUSAL_OF="encoder_quantized.onnx webgpu"))
    _, q8, _ = build.manifest["variants"]  # type: ignore[misc]
    assert q8["deployed"]
    assert q8["browser"]["providers"]["webgpu"] == {"proven": False, "reason": "webgpu refused"}
    assert succeeded(build.build("report")) == set()
    page = (build.root / "build/report/report.html").read_text()
    assert page.count("deployed<small>not on WebGPU</small>") == 1
    (build.root / "build/models/tiny/browser.q4.json").unlink()
    succeeded(build.build(CHEAP_REFUSAL_OF="encoder_q4.onnx wasm"))
    _, _, q4 = build.manifest["variants"]  # type: ignore[misc]
    assert not q4["deployed"]
    assert "wasm refused" in q4["reason"]
    assert succeeded(build.build("report")) == set()
    assert "wasm refused" in (build.root / "build/report/report.html").read_text()


def test_a_webgpu_adapter_that_fails_to_start_does_not_affect_the_wasm_proof(
    build: Build,
) -> None:
    build.install()
    succeeded(build.build(CHEAP_UNAVAILABLE="start onnxruntime-web on webgpu: device lost"))
    providers = variants(build)["fp32"]["browser"]["providers"]
    assert providers["wasm"]["proven"] is True
    assert providers["webgpu"]["proven"] is False
    assert "device lost" in providers["webgpu"]["reason"]
    recommended: Any = build.manifest["recommended"]
    assert recommended["wasm"]["variant"] == "fp32"
    assert "webgpu" not in recommended


def test_a_variant_with_matrix_products_on_the_cpu_is_not_proven_on_webgpu(
    build: Build,
) -> None:
    build.install()
    build.write(model='variants = ["fp32", "fp16", "q8"]')
    succeeded(build.build())
    webgpu = {
        name: each["browser"]["providers"]["webgpu"] for name, each in variants(build).items()
    }
    assert {name: each["proven"] for name, each in webgpu.items()} == {
        "fp32": True,
        "fp16": True,
        "q8": False,
    }
    assert webgpu["q8"]["reason"] == "14 matrix products run on the CPU"
    assert webgpu["q8"]["nodes"]["decoder"] == {"webgpu": 100, "cpu": 7}
    recommended: Any = build.manifest["recommended"]
    assert {name: each["variant"] for name, each in recommended.items()} == {
        "wasm": "q8",
        "webgpu": "fp16",
        "native": "q8",
    }
    assert "WASM multiplies matrices of 8 bits fastest" in recommended["wasm"]["why"]


def test_a_variant_with_browser_masks_unlike_pytorchs_is_left_out(build: Build) -> None:
    build.install()
    build.write(model='variants = ["fp32", "fp16"]')
    succeeded(build.build(CHEAP_REFERENCE_IOU="0.5"))
    fp16 = variants(build)["fp16"]
    assert not fp16["deployed"]
    assert "on WASM, masks of prompt 'click': IoU with PyTorch's is 0.5" in fp16["reason"]


class Npm:
    """A fake npm at the front of PATH, and a lock file with another version."""

    def __init__(self, build: Build, script: str) -> None:
        build.install()
        lock = build.root / "web/package-lock.json"
        lock.write_text(lock.read_text().replace("1.27.0", "1.28.0"))
        folder = build.root / "bin"
        folder.mkdir()
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)
        build.environment["PATH"] = f"{folder}:{build.environment['PATH']}"


INSTALLS = (
    "cp package-lock.json node_modules/.package-lock.json && "
    'echo \'{"version": "1.28.0"}\' > node_modules/onnxruntime-web/package.json'
)


def test_a_changed_lock_file_installs_the_packages_once(build: Build) -> None:
    Npm(build, f'echo "$@" >> ../called; {INSTALLS}')
    assert succeeded(build.build()) == stages(*BEFORE, "browser", "deploy")
    assert build.manifest["browser"]["runtime"] == "onnxruntime-web 1.28.0"  # type: ignore[index]
    assert succeeded(build.build("-a", "browser:tiny")) >= stages("browser")
    (call,) = (build.root / "called").read_text().splitlines()
    assert call.startswith("ci --ignore-scripts")


def test_a_failed_npm_install_is_reported_and_the_build_continues(build: Build) -> None:
    Npm(build, 'echo "npm error network" >&2; exit 1')
    outcome = build.doit("run")
    assert outcome.status == 0, outcome.output
    assert "NOT INSTALLED: `npm ci" in outcome.output
    assert "npm error network" in outcome.output
    assert "No browser has proven the deployed files" in outcome.output
    assert build.manifest["browser"] is None
    # Once npm succeeds, the proof runs.
    (build.root / "bin/npm").write_text(f"#!/bin/sh\n{INSTALLS}\n")
    assert succeeded(build.build()) == stages("browser", "deploy")
    assert build.manifest["browser"]["runtime"] == "onnxruntime-web 1.28.0"  # type: ignore[index]


def test_a_failed_npm_install_is_an_error_when_a_browser_is_required(build: Build) -> None:
    Npm(build, 'echo "npm error network" >&2; exit 1')
    build.write("enabled = true")
    outcome = build.doit("run")
    assert outcome.status != 0
    assert "The npm packages could not be installed" in outcome.output
    assert not (build.root / "public").exists()


def test_deploy_alone_is_refused_without_a_required_browser_report(
    build: Build,
) -> None:
    build.install()
    succeeded(build.build("verify:tiny"))
    outcome = build.doit("run", "-s", "deploy:tiny")
    assert outcome.status != 0
    assert "browser.json is missing" in outcome.output
    assert "`doit browser:tiny` writes it" in outcome.output
    assert not (build.root / "public").exists()
