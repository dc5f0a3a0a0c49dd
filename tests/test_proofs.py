"""Nothing unproven is deployed by any route: the real command, real children, a small model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutations
import onnx
import pytest
from project import ROOT, Outcome, Project, wait_for_opening

from tasks import verify
from tasks.config.checks import Tolerances
from tasks.model import load
from tasks.model.trained import TrainedModel
from tasks.proof.judgement import exceeded

pytestmark = pytest.mark.slow

CONFIGURATION = """
[build]
deploy = "app"
[browser]
enabled = false
[models.m]
config = "small.yaml"
url = "weights.pt"
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[bytes]]:
    """Two checkpoints of a narrow model at 256 pixels."""
    folder = tmp_path_factory.mktemp("weights")
    yaml = folder / "small.yaml"
    yaml.write_text((ROOT / "tests/narrow.yaml").read_text().replace("512", "256"))
    made = []
    for seed in (1, 2):
        load.make_synthetic(str(yaml), seed, str(folder / "weights.pt"))
        made.append((folder / "weights.pt").read_bytes())
    return made


@pytest.fixture(scope="module")
def simplified(weights: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project built from the first checkpoint up to its graphs, which are unproven."""
    project = Project(tmp_path_factory.mktemp("proofs") / "project", cheap=False)
    text = (ROOT / "tests/narrow.yaml").read_text().replace("512", "256")
    (project.root / "small.yaml").write_text(text)
    (project.root / "weights.pt").write_bytes(weights[0])
    project.configure(CONFIGURATION)
    succeeded(project.build("simplify:m"))
    return project


@pytest.fixture(scope="module")
def deployed(simplified: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same project, proven and deployed."""
    project = simplified.copy_to(tmp_path_factory.mktemp("deployed") / "project")
    assert succeeded(project.build()) == {"verify:m", "deploy:m"}
    return project


@pytest.fixture
def project(deployed: Project, tmp_path: Path) -> Project:
    """A copy of the deployed project, for a test to damage."""
    return deployed.copy_to(tmp_path / "project")


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def app(project: Project) -> Path:
    return project.root / "app/m"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status != 0, outcome.output
    assert "Traceback" not in outcome.output
    for word in words:
        assert word in outcome.output, outcome.output


# --- what verify detects ------------------------------------------------------------------------


def measure(project: Project, folder: Path) -> dict[str, Any]:
    """verify's measurements of the graphs in a folder."""
    return verify.measure(
        verify.VerifyRequest(
            model=TrainedModel(
                str(project.root / "small.yaml"), str(project.root / "build/checkpoints/m.pt")
            ),
            opset=20,
            attention="plain",
            client="samexporter",
            masks="multi",
            prompts="many",
            graphs=({name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder")},),
        )
    )


def test_verify_detects_a_weight_that_is_off_by_a_tenth(deployed: Project, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").symlink_to(app(deployed) / "encoder.onnx")
    decoder = onnx.load(app(deployed) / "decoder.onnx")
    weight = max(decoder.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight) * 1.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight.name))
    onnx.save(decoder, tmp_path / "decoder.onnx")
    found = exceeded(measure(deployed, tmp_path)["differences"], Tolerances(), "[verify]")
    failures = [each for each in found if (each.kind, each.prompt) == ("masks", "one point")]
    assert failures
    assert str(failures[0]).startswith("masks of prompt 'one point': differs by ")


def test_verify_detects_an_axis_that_differs_from_the_contract(
    deployed: Project, tmp_path: Path
) -> None:
    (tmp_path / "encoder.onnx").symlink_to(app(deployed) / "encoder.onnx")
    decoder = onnx.load(app(deployed) / "decoder.onnx")
    (points,) = [each for each in decoder.graph.input if each.name == "point_coords"]
    points.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(decoder, tmp_path / "decoder.onnx")
    (broken,) = measure(deployed, tmp_path)["violations"]
    assert (broken["kind"], broken["graph"]) == ("other tensor", "decoder")
    assert broken["allowed"] == "point_coords float32 (num_prompts, num_points, 2)"
    assert broken["found"] == "point_coords float32 (num_prompts, 1, 2)"
    assert "expected point_coords float32 (num_prompts, num_points, 2)" in broken["sentence"]
    assert "found point_coords float32 (num_prompts, 1, 2)" in broken["sentence"]


def put_weights_in_another_file(path: Path) -> None:
    """Store a graph's weights beside it, as ONNX's external data."""
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_a_graph_with_its_weights_in_another_file_is_refused(project: Project, graph: str) -> None:
    before = contents(app(project))
    put_weights_in_another_file(project.root / f"build/models/m/{graph}.onnx")
    outcome = project.doit("run", "-s", "verify:m")
    refused(outcome, f"{graph}.onnx: expected a graph in one file; it refers to weights.bin")
    refused(project.doit("run", "-s", "deploy:m"), "differs from the file that verify measured")
    assert contents(app(project)) == before


def test_an_export_with_its_weights_in_another_file_is_not_simplified(project: Project) -> None:
    put_weights_in_another_file(project.root / "build/models/m/exported/encoder.onnx")
    outcome = project.doit("run", "-s", "-a", "simplify:m")
    refused(outcome, "expected a graph in one file; it refers to weights.bin")


@pytest.mark.parametrize("kind", ["input", "output"])
def test_tensors_in_another_order_are_refused(project: Project, kind: str) -> None:
    """samexporter, X-AnyLabeling and osam take tensors by position."""
    path = project.root / "build/models/m/decoder.onnx"
    model = onnx.load(path)
    mutations.reordered(kind, lambda values: values[::-1])(model, {})
    onnx.save(model, path)
    outcome = project.doit("run", "-s", "verify:m")
    refused(outcome, "decoder: expected tensors in the order")
    refused(project.doit("run", "-s", "deploy:m"), "expected tensors in the order")


# --- a proof holds only for its bytes ----------------------------------------------------------


def test_unproven_graphs_are_not_deployed(simplified: Project, tmp_path: Path) -> None:
    project = simplified.copy_to(tmp_path / "project")
    outcome = project.doit("run", "-s", "deploy:m")
    refused(outcome, "build/models/m/verify.json is missing", "`doit verify:m` writes it")
    assert not app(project).exists()


@pytest.mark.parametrize("options", [["-s"], ["-s", "-a"], ["-s", "-n", "2"]])
@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_a_graph_altered_after_its_proof_is_not_deployed(
    project: Project, graph: str, options: list[str]
) -> None:
    before = contents(app(project))
    file = project.root / f"build/models/m/{graph}.onnx"
    proven = sha256(file)
    flip_a_byte(file)
    outcome = project.doit("run", *options, "deploy:m")
    refused(outcome, f"build/models/m/{graph}.onnx", "verify.json", sha256(file), proven)
    assert "`doit verify:m` proves it" in outcome.output
    assert contents(app(project)) == before


def test_without_s_an_altered_graph_is_built_again(project: Project) -> None:
    before = contents(app(project))
    flip_a_byte(project.root / "build/models/m/decoder.onnx")
    assert "simplify:m" in succeeded(project.build())
    assert contents(app(project)) == before


def test_the_report_of_another_build_proves_nothing(project: Project, weights: list[bytes]) -> None:
    before = contents(app(project))
    report = project.root / "build/models/m/verify.json"
    kept = report.read_bytes()
    (project.root / "weights.pt").write_bytes(weights[1])
    succeeded(project.build("simplify:m"))
    report.write_bytes(kept)
    refused(
        project.doit("run", "-s", "deploy:m"),
        "differs from the file that verify measured",
        "another checkpoint",
    )
    assert contents(app(project)) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('masks = "best"', "measured with masks 'multi', the configuration now has 'best'"),
        ("opset = 17", "measured with opset 20, the configuration now has 17"),
        ('sha256 = "' + "0" * 64 + '"', "names the checkpoint with sha256 0000"),
        ('truth = "tasks.drawing.scenes:scene"', "measured with truth None"),
        ('variants = ["fp32", "q8"]', "encoder_quantized.onnx"),
        ("[verify]\nmask_tolerance = 1e-12", "[verify] mask_tolerance allows 1e-12"),
    ],
)
def test_graphs_proven_under_another_configuration_are_not_deployed(
    project: Project, text: str, words: str
) -> None:
    before = contents(app(project))
    project.configure(CONFIGURATION + text + "\n")
    refused(project.doit("run", "-s", "deploy:m"), words)
    assert contents(app(project)) == before


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"files": [], "passed": true}'])
def test_a_malformed_report_proves_nothing(project: Project, text: str) -> None:
    (project.root / "build/models/m/verify.json").write_text(text)
    refused(project.doit("run", "-s", "deploy:m"), "not a report of this build")


def test_a_report_is_judged_by_its_figures_and_not_by_its_passed_flag(project: Project) -> None:
    path = project.root / "build/models/m/verify.json"
    report = json.loads(path.read_text())
    report["differences"]["features"]["image_embed"] = 0.5
    path.write_text(json.dumps(report))
    refused(project.doit("run", "-s", "deploy:m"), "encoder output image_embed: differs by 0.5")


# --- a deploy is atomic ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verified_again(
    deployed: Project, weights: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    project = deployed.copy_to(tmp_path_factory.mktemp("again") / "project")
    (project.root / "weights.pt").write_bytes(weights[1])
    succeeded(project.build("verify:m"))
    return project


@pytest.fixture
def rebuilt(verified_again: Project, tmp_path: Path) -> Project:
    """Another checkpoint, built and proven but not deployed yet."""
    return verified_again.copy_to(tmp_path / "project")


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "manifest.json"])
def test_a_folder_in_place_of_a_file_leaves_the_deployment_unchanged(
    rebuilt: Project, name: str
) -> None:
    (app(rebuilt) / name).unlink()
    (app(rebuilt) / name).mkdir()
    (app(rebuilt) / name / "mine").write_text("keep")
    before = contents(app(rebuilt))
    refused(rebuilt.doit("run", "deploy:m"), f"app/m/{name} is a folder", "Move it away")
    assert contents(app(rebuilt)) == before


def test_a_full_disk_leaves_the_deployment_unchanged(rebuilt: Project) -> None:
    before = contents(app(rebuilt))
    sizes = sorted(
        (rebuilt.root / f"build/models/m/{each}.onnx").stat().st_size
        for each in ("encoder", "decoder")
    )
    # A file size limit makes the kernel refuse a write halfway, as a full disk does.
    run = subprocess.run(
        ["prlimit", f"--fsize={sum(sizes) // 2}", *rebuilt.command("deploy:m")],
        cwd=rebuilt.root,
        env=rebuilt.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "File too large" in run.stdout
    assert "Traceback" not in run.stdout
    assert contents(app(rebuilt)) == before
    succeeded(rebuilt.build())
    assert set(contents(app(rebuilt))) == {"encoder.onnx", "decoder.onnx", "manifest.json"}


def test_a_deploy_removes_only_its_own_leftovers(rebuilt: Project) -> None:
    own = (rebuilt.root / "build/state/id").read_text()
    for name in (f".staged-{own}/encoder.onnx", ".staged-another/encoder.onnx", ".notes.part"):
        (app(rebuilt) / name).parent.mkdir(exist_ok=True)
        (app(rebuilt) / name).write_text("left")
    succeeded(rebuilt.build())
    left = set(contents(app(rebuilt))) - {"encoder.onnx", "decoder.onnx", "manifest.json"}
    assert left == {".staged-another/encoder.onnx", ".notes.part"}


def test_a_deploy_killed_between_two_renames_is_undone_by_the_next_one(
    rebuilt: Project,
) -> None:
    before = contents(app(rebuilt))
    path = rebuilt.root / "tasks/system/files.py"
    text = path.read_text()
    line = "            target, backup = folder / name, backups / name\n"
    assert text.count(line) == 1
    kill = "            if len(done) == 1:\n                os.kill(os.getpid(), 9)\n"
    path.write_text(text.replace(line, kill + line))
    assert rebuilt.doit("run", "deploy:m").status == -9
    assert app(rebuilt).joinpath("encoder.onnx").read_bytes() != before["encoder.onnx"]
    path.write_text(text)
    # The next deploy is refused, and restores the state before both.
    flip_a_byte(rebuilt.root / "build/models/m/decoder.onnx")
    refused(rebuilt.doit("run", "-s", "deploy:m"), "differs from the file that verify measured")
    assert contents(app(rebuilt)) == before


# --- stages record what they read --------------------------------------------------------------


def hold(project: Project, module: str, before: str) -> None:
    """Make a module wait before one of its lines, as long as the FIFOs exist."""
    path = project.root / module
    text = path.read_text()
    assert text.count(before) == 1
    indent = before[: len(before) - len(before.lstrip())]
    reached, go = str(project.root / "reached"), str(project.root / "go")
    waits = f"{indent}if __import__('os').path.exists({reached!r}):\n"
    waits += f"{indent}    open({reached!r}, 'w').close()\n{indent}    open({go!r}).close()\n"
    path.write_text(text.replace(before, waits + before))
    for name in ("reached", "go"):
        os.mkfifo(project.root / name)


def change_during(project: Project, path: Path, data: bytes, *arguments: str) -> str:
    """Run a command, and write a file while the command waits where `hold` makes it wait."""
    process = project.start(*arguments)
    wait_for_opening(project.root / "reached", process)
    path.write_bytes(data)
    with (project.root / "go").open("w"):
        pass
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    for name in ("reached", "go"):
        (project.root / name).unlink()
    return output


def test_a_local_checkpoint_saved_during_its_copy_is_copied_again(
    project: Project, weights: list[bytes]
) -> None:
    hold(project, "tasks/checkpoint.py", "    work.deliver(target)\n    FINGERPRINTS")
    source = project.root / "weights.pt"
    source.write_bytes(weights[0] + b" ")  # so that there is something to do
    change_during(project, source, weights[1], "checkpoint:m")
    assert "checkpoint:m" in succeeded(project.build("checkpoint:m"))
    assert (project.root / "build/checkpoints/m.pt").read_bytes() == weights[1]


def test_a_checkpoint_changed_during_its_export_is_exported_again(
    project: Project, weights: list[bytes]
) -> None:
    hold(
        project,
        "tasks/export.py",
        "    model = load.load_model(\n",
    )
    checkpoint = project.root / "build/checkpoints/m.pt"
    change_during(project, checkpoint, weights[1], "export:m")
    before = contents(app(project))
    assert {"checkpoint:m", "export:m"} <= succeeded(project.build())
    assert contents(app(project)) == before


def test_a_source_file_saved_while_a_stage_runs_reruns_that_stage(project: Project) -> None:
    hold(
        project,
        "tasks/export.py",
        "    model = load.load_model(\n",
    )
    source = project.root / "tasks/model/encoder_patches.py"
    change_during(project, source, source.read_bytes() + b"\nANOTHER = True\n", "export:m")
    ran = succeeded(project.build("export:m"))
    assert ran == {"export:m"}
    assert succeeded(project.build("export:m")) == set()


def test_a_graph_changed_while_it_is_measured_is_not_proven(project: Project) -> None:
    before = "            cases = cases_for("
    hold(project, "tasks/verify.py", before)
    decoder = project.root / "build/models/m/decoder.onnx"
    process = project.start("verify:m")
    wait_for_opening(project.root / "reached", process)
    flip_a_byte(decoder)
    with (project.root / "go").open("w"):
        pass
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "decoder.onnx changed while it was measured" in output


def test_a_copy_of_the_project_has_nothing_to_do(project: Project) -> None:
    assert succeeded(project.build()) == set()
    assert shutil.which("prlimit")  # of util-linux; the test of a full disk needs it
