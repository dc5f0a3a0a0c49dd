"""`doit compare` shows what changed between two deployments, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import deployed_folder
import manifests
import pytest
from deployed_folder import write
from project import Project
from server import FileServer
from writable_hub import WritableHub

from tasks.proof.figures import Ious
from tasks.proof.manifest import Fidelity


def compare(*places: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return deployed_folder.run("compare", *places, environment=environment)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write(tmp_path / "before")


def test_two_folders_with_equal_content_have_no_differences(before: Path, tmp_path: Path) -> None:
    done = compare(before, write(tmp_path / "now"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == "Nothing changed: 3 files and their entries in the manifest are the same.\n"
    )


def test_each_changed_size_option_version_and_figure_has_a_line(tmp_path: Path) -> None:
    before = write(tmp_path / "before", variants=(manifests.variant(fidelity=manifests.FIDELITY),))
    fidelity = Fidelity(8, 32, Ious(0.98, 0.9), 0.0, 0.01, 0.01, 0.01)
    variants = (manifests.variant(fidelity=fidelity), manifests.variant("q8"))
    now = write(
        tmp_path / "now",
        seed=22,
        options={"opset": 20},
        packages={"onnx": "1.21.0", "torch": "2.10.0"},
        variants=variants,
        license="MIT",
    )
    done = compare(before, now)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [each for each in lines if not each.startswith("  ")] == [
        "files:",
        "options:",
        "versions:",
        "figures:",
        "model:",
        "1 of 3 files are the same.",
        "masks:",
    ]
    for line in (
        "  encoder.onnx: 0.0 MiB → 0.0 MiB (+0.8 %)",
        "  options opset: 17 → 20",
        "  packages onnx: 1.20.1 → 1.21.0",
        "  packages torch: none → 2.10.0",
        "  variants fp32 fidelity mask_iou mean: 0.99 → 0.98",
        "  variants q8: new",
        "  license: Apache-2.0 → MIT",
        f"  not compared: {before}'s decoder takes point_coords, which this version's client "
        "samexporter does not send",
    ):
        assert line in lines, done.stdout


def test_files_that_do_not_match_the_manifest_are_not_run(before: Path, tmp_path: Path) -> None:
    now = write(tmp_path / "now", seed=22)
    (now / "encoder.onnx").write_bytes(b"another")
    assert (
        f"not compared: {now}/encoder.onnx is not the file that its manifest lists"
        in compare(now, before).stdout
    )


def test_added_and_removed_files_are_named(before: Path, tmp_path: Path) -> None:
    now = write(tmp_path / "now")
    deployed_folder.relist(now, "more.json", b"{}")
    assert "  more.json: new (0.0 MiB)" in compare(before, now).stdout
    assert "  more.json: removed (0.0 MiB)" in compare(now, before).stdout


def test_changed_metadata_of_an_unchanged_file_has_a_line(before: Path, tmp_path: Path) -> None:
    now = write(tmp_path / "now")
    content = json.loads((now / "manifest.json").read_text())
    content["files"]["encoder.onnx"]["runs_on"] = {"onnxruntime": ["1.33.0"]}
    (now / "manifest.json").write_text(json.dumps(content))
    done = compare(before, now)
    assert done.returncode == 1
    assert "  encoder.onnx runs_on" in done.stdout


def test_a_model_name_stands_for_its_deploy_folder(project: Project, before: Path) -> None:
    tables = "".join(
        f'[models.{name}]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\nopset = {opset}\n'
        f'folder = "{name}"\n'
        for name, opset in (("a", 17), ("b", 20))
    )
    project.configure(f'[build]\ndeploy = "app"\n[browser]\nenabled = false\n{tables}')
    assert project.build().status == 0
    done = project.doit("compare", "a", "b")
    assert done.status == 1
    assert "  options opset: 17 → 20" in done.output
    assert "  model: a → b" in done.output
    done = project.doit("compare", "a", "c")
    assert done.status == 2
    assert (
        "c is neither a folder nor a model of config/models.toml. Models there: a, b."
        in done.output
    )


@pytest.fixture
def hub(server: FileServer) -> Iterator[WritableHub]:
    made = WritableHub(server)
    yield made
    made.close()


def test_only_the_manifest_of_a_repository_is_downloaded(
    before: Path, hub: WritableHub, tmp_path: Path
) -> None:
    hub.make("my-lab/tiny", {path.name: path.read_bytes() for path in before.iterdir()})
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
    done = compare("hf:my-lab/tiny", before, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any("onnx" in each for each in hub.requests)
    now = write(tmp_path / "now", seed=22)
    assert (
        "not compared: only the manifest of hf:my-lab/tiny was downloaded"
        in compare("hf:my-lab/tiny", now, **environment).stdout
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read its manifest.json: No such file or directory"),
        ("{}", "its manifest.json was not made by this build"),
        ("[]", "its manifest.json was not made by this build"),
        ('{"files": {}}', "lists no files"),
    ],
)
def test_a_folder_without_a_usable_manifest_exits_with_status_2(
    text: str | None, words: str, before: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if text is not None:
        (other / "manifest.json").write_text(text)
    done = compare(before, other)
    assert done.returncode == 2
    assert words in done.stdout
    assert compare(before).returncode == 3
