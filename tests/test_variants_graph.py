"""Variants in the build: what is made, deployed and rerun; their report and status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from project import Outcome, Project

BEFORE = {f"{stage}:tiny" for stage in ("checkpoint", "export", "simplify", "verify")}


class Build(Project):
    """One synthetic model in fp32 and q8; no browser."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, cheap=True)
        self.write()

    def write(
        self, variants: str = '["fp32", "q8"]', formats: str = '["onnx"]', more: str = ""
    ) -> None:
        self.configure(
            f"[browser]\nenabled = false\n{more}\n"
            '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
            f"variants = {variants}\nformats = {formats}\n"
        )

    @property
    def deployed(self) -> Path:
        return self.root / "public/onnx-models/sam/sam2_hiera_tiny"

    @property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.deployed / "manifest.json").read_text())
        return content

    def files(self) -> set[str]:
        return {path.name for path in self.deployed.iterdir()} - {"manifest.json"}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path / "project")


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("built") / "project")
    succeeded(build.build())
    return build


@pytest.fixture
def built(built_once: Build, tmp_path: Path) -> Build:
    """A copy of the built project."""
    return built_once.copy_to(tmp_path / "project")


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def test_every_variant_has_its_own_stages_and_is_measured_and_deployed(build: Build) -> None:
    assert succeeded(build.build()) == BEFORE | {
        "variant:tiny:q8",
        "reference:tiny",
        "fidelity:tiny:fp32",
        "fidelity:tiny:q8",
        "deploy:tiny",
    }
    assert build.files() == {
        *("encoder.onnx", "decoder.onnx"),
        *("encoder_quantized.onnx", "decoder_quantized.onnx"),
    }
    assert build.manifest["encoder"]["file"] == "encoder.onnx"
    fp32, q8 = build.manifest["variants"]
    assert (fp32["name"], q8["name"], q8["files"]["encoder"]) == (
        "fp32",
        "q8",
        "encoder_quantized.onnx",
    )
    assert q8["deployed"]
    assert q8["fidelity"]["mask_iou"]["mean"] == 0.999
    assert succeeded(build.build()) == set()


def test_a_model_in_single_precision_only_has_no_stages_for_variants(build: Build) -> None:
    build.write('["fp32"]')
    assert succeeded(build.build()) == {*BEFORE, "deploy:tiny"}


def test_adding_a_variant_builds_only_that_variant(built: Build) -> None:
    built.write('["fp32", "q8", "q4"]')
    assert succeeded(built.build()) == {"variant:tiny:q4", "fidelity:tiny:q4", "deploy:tiny"}


def test_removing_a_variant_removes_its_files(built: Build) -> None:
    built.write('["fp32"]')
    assert succeeded(built.build()) == {"deploy:tiny"}
    assert built.files() == {"encoder.onnx", "decoder.onnx"}


def test_an_ort_file_is_made_from_an_onnx_file_that_need_not_be_deployed(build: Build) -> None:
    build.write('["q8"]', '["ort"]')
    assert {"variant:tiny:q8", "variant:tiny:q8.ort"} < succeeded(build.build())
    assert build.files() == {"encoder_quantized.ort", "decoder_quantized.ort"}
    assert build.manifest["encoder"]["file"] == "encoder_quantized.ort"


def test_defaults_apply_to_every_model_that_does_not_override_them(build: Build) -> None:
    tables = "".join(
        f'[models.{name}]\nmodel_type = "sam2_hiera_{name}"\nurl = "synthetic:"\n{keys}\n'
        for name, keys in (("tiny", ""), ("small", 'variants = ["fp32"]'))
    )
    build.configure(
        f'[browser]\nenabled = false\n[defaults]\nvariants = ["fp16"]\nformats = ["ort"]\n{tables}'
    )
    succeeded(build.build())
    assert build.files() == {"encoder_fp16.ort", "decoder_fp16.ort"}
    small = build.deployed.with_name("sam2_hiera_small")
    assert (small / "encoder.ort").is_file()


def test_a_variant_below_its_fidelity_is_not_deployed_and_reported_with_its_figure(
    build: Build,
) -> None:
    outcome = build.doit(CHEAP_BELOW="_quantized.onnx")
    assert outcome.status == 0, outcome.output
    assert "tiny's q8 is not deployed" in outcome.output
    assert "0.5, [fidelity] q8 requires 0.97" in outcome.output
    assert build.files() == {"encoder.onnx", "decoder.onnx"}
    _, q8 = build.manifest["variants"]
    assert not q8["deployed"]
    assert "is 0.5, [fidelity] q8" in q8["reason"]
    assert succeeded(build.build()) == set()


def test_a_variant_that_became_worse_is_withdrawn(built: Build) -> None:
    (built.root / "build/models/tiny/fidelity.q8.json").unlink()
    succeeded(built.build(CHEAP_BELOW="_quantized.onnx"))
    assert built.files() == {"encoder.onnx", "decoder.onnx"}


def test_a_build_deploys_nothing_and_fails_when_every_variant_is_below_its_fidelity(
    build: Build,
) -> None:
    build.write('["q8"]')
    outcome = build.doit(CHEAP_BELOW="_quantized.onnx")
    assert outcome.status != 0
    assert "tiny is not deployed, because every variant failed" in outcome.output
    assert not build.deployed.exists()


def test_another_threshold_judges_only_that_precision_again(built: Build) -> None:
    built.write(more="[fidelity]\nq8 = 0.9\n")
    assert succeeded(built.build()) == {"fidelity:tiny:q8", "deploy:tiny"}


def test_more_images_rerun_the_reference_in_pytorch(built: Build) -> None:
    built.write(more="[fidelity]\nimages = 9\n")
    ran = succeeded(built.build())
    assert "reference:tiny" in ran
    assert not ran & {*BEFORE, "variant:tiny:q8"}


@pytest.mark.parametrize("damage", ["edit", "delete"])
def test_a_deployed_variant_that_was_changed_is_deployed_again(built: Build, damage: str) -> None:
    path = built.deployed / "decoder_quantized.onnx"
    before = path.read_bytes()
    path.unlink() if damage == "delete" else path.write_bytes(b"edited")
    assert succeeded(built.build()) == {"deploy:tiny"}
    assert path.read_bytes() == before


def test_an_unknown_variant_is_refused_before_anything_runs(build: Build) -> None:
    build.write('["fp32", "q2"]')
    outcome = build.doit()
    assert outcome.status == 3
    assert "[models.tiny] variants: found ['fp32', 'q2']" in outcome.output
    assert "fp32, fp16, q8, q4, q4f16" in outcome.output
    assert not (build.root / "build/models").exists()


def test_figures_from_fewer_images_than_configured_are_refused(built: Build) -> None:
    built.write(more="[fidelity]\nimages = 64\n")
    outcome = built.doit("run", "-s", "-a", "fidelity:tiny:q8")
    assert outcome.status != 0
    assert "has 8 images, but [fidelity] images is 64; `doit reference:tiny`" in outcome.output
    assert built.doit("run", "-s", "deploy:tiny").status != 0


@pytest.mark.parametrize(
    ("name", "emptied"),
    [
        ("verify", {"differences": {"features": {}, "prompts": {}}}),
        ("fidelity.q8", {"mask_iou": {}}),
    ],
)
def test_a_report_without_figures_proves_nothing(
    built: Build, name: str, emptied: dict[str, Any]
) -> None:
    path = built.root / f"build/models/tiny/{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **emptied}))
    outcome = built.doit("run", "-s", "deploy:tiny")
    assert outcome.status != 0
    assert "lacks figures" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_an_unreadable_manifest_is_rewritten(built: Build, content: bytes) -> None:
    (built.deployed / "manifest.json").write_bytes(content)
    assert succeeded(built.build()) == {"deploy:tiny"}
    assert built.manifest["schema_version"] == 6


def test_a_file_in_place_of_the_deploy_folder_is_reported(build: Build) -> None:
    build.deployed.parent.mkdir(parents=True)
    build.deployed.write_text("mine")
    assert build.doit("status").status == 0
    outcome = build.doit()
    assert outcome.status != 0
    assert "is a file; expected a folder to deploy to" in outcome.output
    assert build.deployed.read_text() == "mine"


# --- report ------------------------------------------------------------------------------------


def test_the_report_lists_every_variant_and_which_ones_are_not_deployed(build: Build) -> None:
    outcome = build.doit("deploy:tiny", "report", CHEAP_BELOW="_quantized.onnx")
    assert outcome.status == 0, outcome.output
    page = (build.root / "build/report/report.html").read_text()
    assert "<b>q8</b>" in page
    assert "q8 requires 0.97" in page
    assert "data:image/png;base64," in page
    assert "http" not in page  # the page refers to nothing outside
    text = (build.root / "build/report/report.md").read_text()
    assert "| fp32 | 0.1 MiB | 0.9990 (at least 0.999) | deployed |" in text


def test_the_report_is_written_again_only_when_a_stages_report_changed(built: Build) -> None:
    first = built.build("report")
    assert first.results["report"] == "success"
    assert built.build("report").results["report"] == "up-to-date"
    built.write(more="[fidelity]\nq8 = 0.9\n")
    assert built.build("deploy:tiny", "report").results["report"] == "success"


def test_a_report_without_models_says_that_none_is_built(build: Build) -> None:
    outcome = build.doit("report")
    assert outcome.status == 0, outcome.output
    assert "No model is built yet" in (build.root / "build/report/report.html").read_text()


# --- status ------------------------------------------------------------------------------------


def test_status_names_models_that_were_never_built(build: Build) -> None:
    outcome = build.doit("status")
    assert outcome.status == 0, outcome.output
    assert outcome.output.split() == ["tiny", "never", "built"]


def test_status_shows_that_a_built_model_is_fresh_and_its_size(built: Build) -> None:
    assert "fresh, " in (line := built.doit("status").output)
    assert "MiB built" in line


def test_status_shows_why_a_stage_is_stale_and_which_stages_wait_for_it(built: Build) -> None:
    built.pretend_installed("onnxsim", "99")
    lines = {line.split()[0]: line for line in built.doit("status").output.splitlines()}
    assert "onnxsim was " in lines["simplify:tiny"]
    assert "is 99" in lines["simplify:tiny"]
    assert "waits for simplify:tiny" in lines["variant:tiny:q8"]
    assert lines["export:tiny"].endswith("fresh")


def test_status_lists_the_leftovers_of_a_removed_model(built: Build) -> None:
    built.configure(
        '[browser]\nenabled = false\n[models.other]\nmodel_type = "sam2_hiera_tiny"\n'
        'url = "synthetic:"\nfolder = "other"\n'
    )
    outcome = built.doit("status")
    assert "left over: public/onnx-models/sam/sam2_hiera_tiny, of tiny" in outcome.output


def test_status_of_one_model_leaves_out_the_others(built: Build) -> None:
    assert built.doit("status", "tiny").output == built.doit("status").output
    outcome = built.doit("status", "huge")
    assert outcome.status != 0
    assert "there is no model huge. Models: tiny." in outcome.output


def test_status_imports_nothing_heavy(built: Build) -> None:
    code = (
        "import sys; from doit.doit_cmd import DoitMain;"
        "DoitMain().run(['-f', 'dodo.py', 'status']);"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'jinja2', 'httpx2', 'PIL'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=built.root,
        env=built.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
