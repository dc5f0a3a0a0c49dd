"""A deploy replaces and removes files of this build, and no files that others put beside them."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
from project import Outcome, Project

from tasks.clients.contract import Format, Precision
from tasks.config import parse
from tasks.config.rules import OPSETS
from tasks.proof import runtimes
from tasks.records import ledger
from tasks.records.ownership import Plan, Present, plan

CONFIGURATION = (
    '[build]\ndir = "{build}"\ndeploy = "{deploy}"\n[browser]\nenabled = false\n'
    '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:?seed={seed}"\n'
    'folder = "tiny"\n{more}\n'
)
FILES = {"encoder.onnx", "decoder.onnx", "manifest.json"}
NOT_OURS = "it would replace files that this build did not write"


def configure(
    project: Project, more: str = "", deploy: str = "app", seed: int = 1, build: str = "build"
) -> None:
    project.configure(CONFIGURATION.format(deploy=deploy, seed=seed, more=more, build=build))


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model that is built and proven, but not deployed."""
    project = Project(tmp_path_factory.mktemp("built") / "project", cheap=True)
    configure(project)
    assert project.build("verify").status == 0
    return project


@pytest.fixture
def project(built_once: Project, tmp_path: Path) -> Project:
    return built_once.copy_to(tmp_path / "project")


@pytest.fixture(scope="module")
def deployed_once(built_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = built_once.copy_to(tmp_path_factory.mktemp("deployed") / "project")
    deploys(project)
    return project


@pytest.fixture
def deployed(deployed_once: Project, tmp_path: Path) -> Project:
    return deployed_once.copy_to(tmp_path / "deployed/project")


def app(project: Project) -> Path:
    return project.root / "app/tiny"


def deploys(project: Project, *arguments: str) -> str:
    return succeeded(project.doit(*arguments, "run", "deploy:tiny"))


def succeeded(outcome: Outcome) -> str:
    assert outcome.status == 0, outcome.output
    return outcome.output


def refused(outcome: Outcome) -> str:
    assert outcome.status != 0, outcome.output
    assert "Traceback" not in outcome.output
    return " ".join(outcome.output.split())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".staged" not in str(path)
    }


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def name_in_manifest(folder: Path, name: str, content: bytes) -> None:
    """Add a file to a manifest, with the file's hash."""
    manifest = json.loads((folder / "manifest.json").read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size": len(content), "sha256": sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))


# --- replaced files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seems"),
    [
        ("encoder.onnx", "in no model's manifest; it seems to belong to another program"),
        ("manifest.json", "not a model's manifest; it seems to belong to another program"),
    ],
)
def test_a_file_of_another_program_is_not_replaced_without_overwrite_yes(
    project: Project, name: str, seems: str
) -> None:
    foreign = put(app(project) / name, '{"name": "An app", "icons": []}')
    before = contents(app(project))
    output = refused(project.doit("run", "deploy:tiny"))
    assert NOT_OURS in output
    assert f"- app/tiny/{name}: {seems}" in output
    assert "Move them away, or give [models.tiny] another folder" in output
    assert "`doit overwrite=yes deploy:tiny` replaces them" in output
    assert contents(app(project)) == before
    output = deploys(project, "overwrite=yes")
    assert f"app/tiny/{name} was not written by this build, and was replaced." in output
    assert foreign.read_text() != before[name].decode()
    assert set(contents(app(project))) == FILES


def test_this_builds_own_files_are_replaced_and_repaired(deployed: Project) -> None:
    good = contents(app(deployed))
    (app(deployed) / "encoder.onnx").write_bytes(b"damaged")
    output = deploys(deployed)
    assert "app/tiny/encoder.onnx had changed since this build deployed it" in output
    assert contents(app(deployed)) == good
    configure(deployed, 'masks = "best"')
    deploys(deployed)
    assert contents(app(deployed)).keys() == good.keys()
    assert contents(app(deployed)) != good


def test_a_folder_taken_over_by_another_program_is_not_replaced(deployed: Project) -> None:
    for name in FILES:
        (app(deployed) / name).write_text(f"another {name}")
    before = contents(app(deployed))
    output = refused(deployed.doit("run", "deploy:tiny"))
    assert "encoder.onnx: not the file that this build deployed there" in output
    assert contents(app(deployed)) == before


def test_a_fresh_clone_deploys_over_the_files_of_an_earlier_clone(
    project: Project, deployed: Project, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    configure(deployed, deploy=str(shared))
    deploys(deployed)
    before = contents(shared)
    configure(project, deploy=str(shared), seed=2)
    deploys(project)
    after = contents(shared)
    assert after.keys() == before.keys()
    assert after["tiny/encoder.onnx"] != before["tiny/encoder.onnx"]


def test_a_fresh_clone_does_not_rewrite_identical_files(
    project: Project, deployed: Project, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    configure(deployed, deploy=str(shared))
    deploys(deployed)
    before = {path: path.stat().st_mtime_ns for path in (shared / "tiny").iterdir()}
    configure(project, deploy=str(shared))
    deploys(project)
    assert {path: path.stat().st_mtime_ns for path in (shared / "tiny").iterdir()} == before


@pytest.mark.parametrize(
    ("edit", "seems"),
    [
        (
            ("encoder.onnx", "edited"),
            "encoder.onnx: different from its entry in the manifest of tiny; it was changed",
        ),
        (("manifest.json", "model"), "manifest.json: part of the model other, which another build"),
    ],
)
def test_another_builds_files_are_not_replaced_if_edited_or_of_another_model(
    project: Project, deployed: Project, edit: tuple[str, str], seems: str
) -> None:
    for name, content in contents(app(deployed)).items():
        put(app(project) / name, "").write_bytes(content)
    name, text = edit
    if text == "model":
        text = (app(project) / name).read_text().replace('"model": "tiny"', '"model": "other"')
    (app(project) / name).write_text(text)
    configure(project, 'masks = "best"')
    before = contents(app(project))
    output = refused(project.doit("run", "deploy:tiny"))
    assert seems in output
    assert contents(app(project)) == before


def test_a_symlink_is_not_followed_and_not_replaced_without_overwrite_yes(
    project: Project, tmp_path: Path
) -> None:
    elsewhere = put(tmp_path / "elsewhere.onnx", "precious")
    link = app(project) / "encoder.onnx"
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    output = refused(project.doit("run", "deploy:tiny"))
    assert f"app/tiny/encoder.onnx: a link to {elsewhere}" in output
    assert link.is_symlink()
    deploys(project, "overwrite=yes")
    assert not link.is_symlink()
    assert elsewhere.read_text() == "precious"


def test_the_deploy_folder_can_be_a_symlink(project: Project, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (project.root / "app").symlink_to(tmp_path / "served")
    deploys(project)
    assert set(contents(tmp_path / "served/tiny")) == FILES
    configure(project, 'masks = "best"')
    deploys(project)
    succeeded(project.doit("clean", "--deployed"))
    assert contents(tmp_path / "served") == {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("file", "app/tiny/onnx is a file; expected a folder, to deploy files into. Move it away"),
        ("link", "app/tiny/onnx is a link to ../..; expected a folder. Move it away"),
    ],
)
def test_a_file_or_symlink_in_place_of_a_folder_is_named(
    project: Project, kind: str, words: str
) -> None:
    place = app(project) / "onnx"
    place.parent.mkdir(parents=True)
    place.write_text("") if kind == "file" else place.symlink_to("../..")
    configure(project, 'client = "transformers.js"')
    output = refused(project.doit("overwrite=yes", "run", "deploy:tiny"))
    assert words in output
    assert not (project.root / "vision_encoder.onnx").exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("link", "link is a broken link; expected a folder to deploy to. Move it away"),
        ("file", "file is a file; expected a folder to deploy to. Move it away"),
        (
            "/proc/nothing",
            "/proc/nothing cannot be created (No such file or directory); expected a",
        ),
    ],
)
def test_a_deploy_folder_that_cannot_be_created_is_named(
    project: Project, place: str, words: str
) -> None:
    (project.root / "link").symlink_to("nowhere")
    (project.root / "file").write_text("")
    assert words in refused(project.doit(f"deploy={place}", "run", "deploy:tiny"))


# --- removed files -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("command", ["deploy", "clean", "prune"])
def test_files_added_to_an_edited_manifest_are_not_removed(
    deployed: Project, place: str, command: str
) -> None:
    precious = put(deployed.root / "precious", "precious")
    page = put(app(deployed) / "index.html", "<html>")
    (app(deployed) / "link").symlink_to("../../precious")
    inside, outside = ("index.html", "link"), ("../../precious", str(precious))
    for name in inside if place == "inside" else outside:
        name_in_manifest(app(deployed), name, (app(deployed) / name).read_bytes())
    if command == "deploy":
        configure(deployed, 'masks = "best"')
        deploys(deployed, "overwrite=yes")
    elif command == "clean":
        succeeded(deployed.doit("overwrite=yes", "clean", "--deployed"))
    else:
        text = (deployed.root / "config/models.toml").read_text()
        deployed.configure(text.replace('folder = "tiny"', 'folder = "renamed"'))
        succeeded(deployed.doit("overwrite=yes", "prune", "--yes"))
    assert (app(deployed) / "encoder.onnx").is_file() == (command == "deploy")
    assert precious.read_text() == "precious"
    assert page.read_text() == "<html>"
    assert (app(deployed) / "link").is_symlink()


def test_clean_removes_deployed_files_and_keeps_changed_ones(deployed: Project) -> None:
    own = put(app(deployed) / "decoder.onnx", "mine now")
    output = succeeded(deployed.doit("clean", "--deployed"))
    assert "kept app/tiny/decoder.onnx: it is not the file that this build wrote there" in output
    assert "removed app/tiny/encoder.onnx" in output
    assert contents(app(deployed)) == {"decoder.onnx": b"mine now"}
    assert own.is_file()


def test_files_that_cannot_be_removed_stay_in_the_records(
    deployed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deployed.root)
    config = parse.load("config/models.toml")
    (deployment,) = ledger.read(config)
    monkeypatch.setattr(ledger, "removal_problem", lambda file: f"kept {file}: Permission denied")
    output = ledger.remove(config, deployment, dry_run=False)
    assert output == [f"kept app/tiny/{name}: Permission denied" for name in deployment.files]
    assert ledger.read(config) == [deployment]


def test_a_changed_file_that_is_no_longer_deployed_is_kept_and_named(deployed: Project) -> None:
    (app(deployed) / "encoder.onnx").write_bytes(b"mine now")
    configure(deployed, 'variants = ["q8"]')
    output = deploys(deployed)
    assert "app/tiny/encoder.onnx is no longer deployed, but was kept" in output
    assert set(contents(app(deployed))) == {
        "encoder.onnx",
        "encoder_quantized.onnx",
        "decoder_quantized.onnx",
        "manifest.json",
    }


# --- which onnxruntime runs the deployed files -------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "precision", "file", "least"),
    [
        (20, "fp32", "encoder.onnx", "1.17"),
        (20, "q8", "onnx/vision_encoder_quantized.onnx", "1.17"),
        (20, "fp32", "encoder.ort", "1.19"),
        (20, "q4f16", "encoder_q4f16.ort", "1.23"),
        (19, "fp16", "encoder_fp16.onnx", "1.16"),
        (17, "fp32", "encoder.onnx", "1.15"),
        (17, "q8", "encoder_quantized.onnx", "1.17"),
    ],
)
def test_the_minimum_onnxruntime_follows_from_opset_format_and_precision(
    opset: int, precision: Precision, file: str, least: str
) -> None:
    assert runtimes.needs(opset, precision, file) == {"onnxruntime": least}


def test_runs_on_lists_minimum_installed_and_newest_onnxruntime_and_openvino_for_onnx() -> None:
    assert runtimes.runs_on(20, "q8", "encoder_quantized.onnx", "1.27.0") == {
        "onnxruntime": ("1.17.0", "1.27.0", "1.32.0"),
        "openvino": ("2026.4.1",),
    }
    assert runtimes.runs_on(17, "q4", "encoder_q4.ort", "1.32.0") == {
        "onnxruntime": ("1.23.0", "1.32.0")
    }


def test_every_configurable_opset_format_and_precision_has_a_minimum_onnxruntime() -> None:
    assert set(runtimes.OPSETS) == set(OPSETS)
    assert set(runtimes.FORMATS) == set(get_args(Format))
    assert set(runtimes.PRECISIONS) == set(get_args(Precision))
    assert runtimes.newest(["1.9", "1.17", "1.2"]) == "1.17"


def test_the_manifest_and_the_report_name_the_minimum_onnxruntime(project: Project) -> None:
    configure(project, 'variants = ["fp32", "q4"]\nformats = ["onnx", "ort"]\nopset = 19')
    succeeded(project.doit("run", "deploy:tiny", "report"))
    files = json.loads((app(project) / "manifest.json").read_text())["files"]
    assert {name: each["needs"]["onnxruntime"] for name, each in files.items()} == {
        "encoder.onnx": "1.16",
        "decoder.onnx": "1.16",
        "encoder.ort": "1.19",
        "decoder.ort": "1.19",
        **dict.fromkeys(
            ("encoder_q4.onnx", "decoder_q4.onnx", "encoder_q4.ort", "decoder_q4.ort"), "1.23"
        ),
    }
    installed = version("onnxruntime")
    assert files["encoder.ort"]["runs_on"] == {"onnxruntime": ["1.19.0", installed, "1.32.0"]}
    assert files["decoder_q4.onnx"]["runs_on"] == {
        "onnxruntime": ["1.23.0", installed, "1.32.0"],
        "openvino": ["2026.4.1"],
    }
    page = (project.root / "build/report/report.html").read_text()
    assert "onnxruntime, from" in page
    assert page.count("<td>1.23</td>") == 2


# --- the decision ------------------------------------------------------------------------------

THERE = {"encoder.onnx": Present("old"), "manifest.json": Present("old manifest")}
WANTED = {"encoder.onnx": "new", "manifest.json": "new manifest"}
OWN = {"encoder.onnx": ["old"], "manifest.json": ["old manifest"]}


def made(**changes: Any) -> Plan:
    arguments: dict[str, Any] = {"wanted": WANTED, "present": THERE, "recorded": OWN, "another": ()}
    return plan(**arguments | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"present": {}}, {"written": [*WANTED]}),
        ({"wanted": {name: each.sha256 for name, each in THERE.items()}}, {}),
        ({}, {"written": [*WANTED]}),
        ({"recorded": {}}, {"written": [*WANTED], "foreign": [*WANTED]}),
        ({"recorded": {}, "another": {*WANTED}}, {"written": [*WANTED]}),
        (
            {"present": {**THERE, "encoder.onnx": Present("edited")}},
            {"written": [*WANTED], "restored": ["encoder.onnx"]},
        ),
        (
            {"present": {**THERE, "encoder.onnx": Present("old", is_link=True)}},
            {"written": [*WANTED], "foreign": ["encoder.onnx"]},
        ),
        (
            {"present": {**THERE, "old.onnx": Present("o")}, "recorded": {**OWN, "old.onnx": "o"}},
            {"written": [*WANTED], "removed": ["old.onnx"]},
        ),
        (
            {"present": {**THERE, "index.html": Present("page")}, "another": {"index.html"}},
            {"written": [*WANTED], "left": ["index.html"]},
        ),
        (
            {
                "present": {**THERE, "index.html": Present("page")},
                "another": {"index.html"},
                "overwrite": True,
            },
            {"written": [*WANTED], "left": ["index.html"]},
        ),
    ],
    ids=[
        "an empty folder",
        "nothing to do",
        "its own files",
        "others' files",
        "another build's deployment",
        "an edited file among its own",
        "a link to its own content",
        "a file of its own that is no longer wanted",
        "a file named only by a manifest",
        "a file named only by a manifest, with overwrite",
    ],
)
def test_the_plan_covers_each_state_of_a_deploy_folder(
    changes: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    assert made(**changes) == Plan([], [], [], [], [])._replace(**expected)


# --- a build folder that configurations share --------------------------------------------------


def other_configuration(project: Project, build: str) -> None:
    text = CONFIGURATION.format(deploy="elsewhere", seed=3, more="", build=build)
    (project.root / "other.toml").write_text(text.replace("models.tiny", "models.mine"))


@pytest.mark.parametrize("absolute", [False, True])
def test_prune_keeps_undeployed_builds_of_another_configuration(
    project: Project, absolute: bool
) -> None:
    build = str(project.root / "build") if absolute else "build"
    other_configuration(project, build)
    succeeded(project.doit("config=other.toml", "run", "export:mine"))
    assert "Nothing to prune" in succeeded(project.doit("prune", "--yes"))
    assert (project.root / "build/models/mine/exported/encoder.onnx").is_file()
    (project.root / "other.toml").unlink()
    output = succeeded(project.doit("prune", "--yes"))
    assert "kept build/models/mine" in output
    assert "built by other.toml" in output
    assert (project.root / "build/models/mine/exported/encoder.onnx").is_file()


def test_prune_with_an_absolute_build_folder_lists_no_configured_model(
    deployed: Project,
) -> None:
    configure(deployed, build=str(deployed.root / "build"))
    deploys(deployed)
    other_configuration(deployed, "build")
    succeeded(deployed.doit("config=other.toml", "run", "deploy:mine"))
    for arguments in ([], ["config=other.toml"]):
        assert "Nothing to prune" in succeeded(deployed.doit(*arguments, "prune", "--yes"))
    assert set(contents(app(deployed))) == FILES


@pytest.mark.slow
def test_two_projects_that_share_a_build_folder_prune_only_their_own_files(
    project: Project, tmp_path: Path
) -> None:
    build = str(tmp_path / "build")
    clone = project.copy_to(tmp_path / "clone/project")
    configure(project, build=build)
    succeeded(project.doit("run", "deploy:tiny"))
    clone.configure((project.root / "config/models.toml").read_text().replace("tiny]", "theirs]"))
    succeeded(clone.doit("run", "deploy:theirs"))
    assert "Nothing to prune" in succeeded(project.doit("prune", "--yes"))
    assert "Nothing to prune" in succeeded(clone.doit("prune", "--yes"))
    assert (tmp_path / "build/models/tiny/encoder.onnx").is_file()
    assert set(contents(app(project))) == set(contents(app(clone))) == FILES


def test_prune_keeps_a_folder_without_a_record(project: Project) -> None:
    put(project.root / "build/models/notes/mine.txt", "mine")
    output = succeeded(project.doit("prune", "--yes"))
    assert "kept build/models/notes (1 file, 0.0 MiB): no record shows" in output
    assert (project.root / "build/models/notes/mine.txt").is_file()


def test_records_move_with_the_project(deployed: Project) -> None:
    moved = deployed.root.with_name("moved")
    os.rename(deployed.root, moved)
    deployed.root = moved
    deployed.environment["PYTHONPATH"] = str(moved)
    succeeded(deployed.doit("clean", "--deployed"))
    assert contents(moved / "app") == {}


def test_suggested_commands_do_not_repeat_overwrite_yes(project: Project) -> None:
    output = refused(project.doit("overwrite=yes", "exprot:tiny"))
    assert "`doit export:tiny`" in output
    assert "allowed: yes, no" in refused(project.doit("overwrite=maybe", "list"))
