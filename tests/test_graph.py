"""Each change reruns the promised stages and nothing else, tested through doit itself."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from project import Outcome, Project, wait_for_opening
from server import Fault, FileServer

STAGES = ("checkpoint", "export", "simplify", "verify", "deploy")
MODELS = ("tiny", "small", "base_plus", "large")


def stages(*models: str, since: str = "checkpoint") -> set[str]:
    """The subtasks of some models from a stage on."""
    return {f"{stage}:{model}" for model in models for stage in STAGES[STAGES.index(since) :]}


def content(name: str) -> bytes:
    return name.encode() * 20_000


class Build(Project):
    """Four models with checkpoints on a loopback server."""

    def __init__(self, root: Path, server: FileServer) -> None:
        super().__init__(root, cheap=True)
        self.server = server
        self.tables: dict[str, dict[str, object]] = {}
        for model in MODELS:
            self.offer(model, content(model))
        self.write()

    def offer(self, model: str, data: bytes, path: str | None = None, **keys: object) -> None:
        path = path or f"/{model}.pt"
        self.server.files[path] = data
        self.tables[model] = {
            "model_type": f"sam2_hiera_{model}",
            "url": self.server.url(path),
            "sha256": hashlib.sha256(data).hexdigest(),
            **keys,
        }

    def write(self) -> None:
        text = '[build]\ndir = "build"\ndeploy = "public/sam"\n'
        for model, keys in self.tables.items():
            text += f"[models.{model}]\n"
            text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        self.configure(text)

    def checkpoint(self, model: str) -> Path:
        return self.root / f"build/checkpoints/{model}.pt"

    def deployed(self, model: str, name: str) -> Path:
        return self.root / f"public/sam/sam2_hiera_{model}/{name}"


@pytest.fixture
def build(tmp_path: Path, server: FileServer) -> Build:
    return Build(tmp_path / "project", server)


@pytest.fixture(scope="module")
def built_once(shared_server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Build:
    shared_server.reset()
    build = Build(tmp_path_factory.mktemp("built") / "project", shared_server)
    outcome = build.build()
    assert outcome.status == 0, outcome.output
    return build


@pytest.fixture
def built(built_once: Build, server: FileServer, tmp_path: Path) -> Build:
    """A copy of the finished build; the server has received no request yet."""
    build = built_once.copy_to(tmp_path / "project")
    build.tables = copy.deepcopy(built_once.tables)
    for model in MODELS:
        server.files[f"/{model}.pt"] = content(model)
    return build


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def test_the_first_build_runs_the_five_stages_of_every_default_model(build: Build) -> None:
    assert succeeded(build.build()) == stages(*MODELS)


def test_without_a_change_nothing_reruns(built: Build) -> None:
    assert succeeded(built.build()) == set()
    assert built.server.requests == []


def test_a_new_url_and_hash_rerun_the_five_stages_of_that_model(built: Build) -> None:
    built.offer("small", content("better small"), "/new.pt")
    built.write()
    assert succeeded(built.build()) == stages("small")


def test_a_mirror_with_the_same_hash_gets_a_head_request_and_no_download(
    built: Build,
) -> None:
    built.offer("small", content("small"), "/mirror/small.pt")
    built.write()
    # The manifest names the address, so it is written again.
    assert succeeded(built.build()) == {"checkpoint:small", "deploy:small"}
    assert built.server.requests == []
    assert built.server.heads == ["/mirror/small.pt"]
    manifest = json.loads(built.deployed("small", "manifest.json").read_text())
    assert manifest["checkpoint"]["url"].endswith("/mirror/small.pt")


@pytest.mark.parametrize(
    ("option", "value"), [("opset", 17), ("masks", "best"), ("attention", "fused")]
)
def test_another_option_reruns_that_model_from_export_on(
    built: Build, option: str, value: object
) -> None:
    built.tables["tiny"] |= {option: value, "browser": False}
    built.write()
    assert succeeded(built.build()) == stages("tiny", since="export")


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_another_torch_or_onnx_reruns_every_model_from_export_on(
    built: Build, package: str
) -> None:
    built.pretend_installed(package, "99.0")
    assert succeeded(built.build()) == stages(*MODELS, since="export")


@pytest.mark.parametrize("package", ["sam2", "samexporter"])
def test_another_sam2_or_samexporter_exports_every_model_again(built: Build, package: str) -> None:
    built.pretend_installed(package, "99.0")
    ran = succeeded(built.build())
    assert {f"export:{model}" for model in MODELS} <= ran
    assert {f"deploy:{model}" for model in MODELS} <= ran
    assert not {f"checkpoint:{model}" for model in MODELS} & ran


def test_another_onnxsim_reruns_every_model_from_simplify_on(built: Build) -> None:
    built.pretend_installed("onnxsim", "99.0")
    assert succeeded(built.build()) == stages(*MODELS, since="simplify")


def test_another_onnxruntime_reruns_from_simplify_on_because_onnxsim_folds_with_it(
    built: Build,
) -> None:
    built.pretend_installed("onnxruntime", "99.0")
    assert succeeded(built.build()) == stages(*MODELS, since="verify") | {
        f"simplify:{model}" for model in MODELS
    }


def test_another_numpy_verifies_every_model_again(built: Build) -> None:
    built.pretend_installed("numpy", "99.0")
    assert succeeded(built.build()) == {f"verify:{model}" for model in MODELS}


@pytest.mark.parametrize("package", ["safetensors", "omegaconf", "PyYAML"])
def test_another_package_that_reads_models_exports_every_model_again(
    built: Build, package: str
) -> None:
    built.pretend_installed(package, "99.0")
    assert {f"export:{model}" for model in MODELS} <= succeeded(built.build())


def test_a_changed_source_of_a_stage_reruns_that_stage(built: Build) -> None:
    source = built.root / "tasks/simplify.py"
    source.write_text(source.read_text() + "\nANOTHER = True\n")
    assert succeeded(built.build()) == {f"simplify:{model}" for model in MODELS}


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "manifest.json"])
def test_a_deployed_file_that_was_edited_is_deployed_again(built: Build, name: str) -> None:
    good = built.deployed("tiny", name).read_bytes()
    built.deployed("tiny", name).write_bytes(good[:-1] + b"?")
    assert succeeded(built.build()) == {"deploy:tiny"}
    assert built.deployed("tiny", name).read_bytes() == good


def test_an_edit_that_keeps_size_and_time_is_detected(built: Build) -> None:
    file = built.deployed("tiny", "encoder.onnx")
    stat = file.stat()
    file.write_bytes(b"x" * stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert succeeded(built.build()) == {"deploy:tiny"}


def test_a_deployed_file_that_was_deleted_is_deployed_again(built: Build) -> None:
    built.deployed("large", "decoder.onnx").unlink()
    assert succeeded(built.build()) == {"deploy:large"}


def test_a_truncated_checkpoint_is_downloaded_again_and_nothing_else_reruns(built: Build) -> None:
    file = built.checkpoint("small")
    file.write_bytes(file.read_bytes()[:1000])
    assert succeeded(built.build()) == {"checkpoint:small"}
    assert [path for path, _ in built.server.requests] == ["/small.pt"]
    assert file.read_bytes() == content("small")


def test_an_altered_checkpoint_without_a_hash_exports_again_if_the_new_bytes_differ(
    build: Build,
) -> None:
    del build.tables["small"]["sha256"]
    build.write()
    assert build.build().status == 0
    build.checkpoint("small").write_bytes(b"spoilt")
    build.server.files["/small.pt"] = content("another small")
    assert succeeded(build.build()) == stages("small")


def test_touching_a_checkpoint_reruns_nothing(built: Build) -> None:
    os.utime(built.checkpoint("small"))
    assert succeeded(built.build()) == set()


def test_an_export_with_identical_bytes_reruns_no_later_stage(build: Build) -> None:
    assert build.build(CHEAP_EXPORT="constant").status == 0
    source = build.root / "tasks/export.py"
    source.write_text(source.read_text() + "\nANOTHER = True\n")
    ran = succeeded(build.build(CHEAP_EXPORT="constant"))
    assert ran == {f"export:{model}" for model in MODELS}


def test_one_stage_of_one_model_runs_only_what_it_needs(build: Build) -> None:
    assert succeeded(build.build("export:small")) == {"checkpoint:small", "export:small"}


def test_two_parallel_processes_build_the_same_stages(build: Build) -> None:
    assert succeeded(build.build("-n", "2")) == stages(*MODELS)
    assert succeeded(build.build()) == set()


def test_a_model_that_is_not_default_is_built_when_named(build: Build) -> None:
    build.tables["large"]["default"] = False
    build.write()
    assert succeeded(build.build()) == stages("tiny", "small", "base_plus")
    assert succeeded(build.build("deploy:large")) == stages("large")


def test_deploy_on_the_command_line_copies_to_another_folder(built: Build, tmp_path: Path) -> None:
    elsewhere = tmp_path / "app"
    assert succeeded(built.build(f"deploy={elsewhere}")) == {f"deploy:{each}" for each in MODELS}
    assert (elsewhere / "sam2_hiera_tiny/encoder.onnx").is_file()


def test_config_on_the_command_line_selects_another_set_of_models(built: Build) -> None:
    other = built.root / "other.toml"
    other.write_text(
        '[build]\ndir = "other"\ndeploy = "other/public"\n'
        '[models.mine]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:?seed=3"\n'
    )
    assert succeeded(built.build("config=other.toml")) == stages("mine")


def test_a_changed_local_checkpoint_is_built_again(build: Build) -> None:
    (build.root / "mine.pt").write_bytes(b"first")
    build.configure('[models.mine]\nmodel_type = "sam2_hiera_tiny"\nurl = "mine.pt"\n')
    assert succeeded(build.build()) == stages("mine")
    (build.root / "mine.pt").write_bytes(b"second")
    assert succeeded(build.build()) == stages("mine")


def test_a_model_that_fails_verification_leaves_the_deployed_files_unchanged(built: Build) -> None:
    before = built.deployed("tiny", "encoder.onnx").read_bytes()
    built.offer("tiny", content("worse tiny"), "/worse.pt")
    built.write()
    outcome = built.doit("run", "deploy:tiny", CHEAP_DIFFERENCE="1")
    assert outcome.status != 0
    assert "image_embed: differs by 1, [verify] encoder_tolerance allows 0.0001" in outcome.output
    assert built.deployed("tiny", "encoder.onnx").read_bytes() == before
    report = json.loads((built.root / "build/models/tiny/verify.json").read_text())
    assert report["passed"] is False


def test_a_model_that_misses_the_true_masks_is_not_deployed(build: Build) -> None:
    build.tables["tiny"] |= {"truth": "tasks.drawing.scenes:scene", "truth_iou": 0.7}
    build.write()
    outcome = build.doit("run", "deploy:tiny", CHEAP_TRUTH="0.4")
    assert outcome.status != 0
    assert "IoU with the true masks from one click: 0.4, truth_iou requires 0.7" in outcome.output
    assert not build.deployed("tiny", "manifest.json").exists()
    assert build.build("deploy:tiny", CHEAP_TRUTH="0.8").status == 0
    manifest = json.loads(build.deployed("tiny", "manifest.json").read_text())
    assert manifest["verification"]["truth"]["iou"]["1 click"] == 0.8


def test_a_changed_truth_function_verifies_that_model_again(build: Build) -> None:
    build.tables["tiny"]["truth"] = "tasks.drawing.scenes:scene"
    build.write()
    assert build.build().status == 0
    source = build.root / "tasks/drawing/scenes.py"
    source.write_text(source.read_text() + "\nBRIGHTER = True\n")
    assert succeeded(build.build()) == {"verify:tiny"}


@pytest.mark.parametrize(
    ("imports", "package"),
    [
        ("import PIL", "pillow"),
        ("from scipy import ndimage as PIL", "scipy"),
        ("import cv2 as PIL", "opencv_python_headless"),
        ("import mine.own as PIL", "mine"),
    ],
)
def test_another_version_of_a_package_used_by_the_truth_verifies_that_model_again(
    build: Build, imports: str, package: str
) -> None:
    (build.root / "cells.py").write_text(f"{imports}\ndef draw(seed, size): return PIL.x\n")
    build.tables["tiny"]["truth"] = "cells:draw"
    build.write()
    build.pretend_installed(package, "98.0")
    assert "verify:tiny" in succeeded(build.build("verify:tiny"))
    build.pretend_installed(package, "99.0")
    assert succeeded(build.build("verify:tiny")) == {"verify:tiny"}


@pytest.mark.parametrize("pinned", [True, False])
def test_a_configured_size_that_does_not_match_the_checkpoint_is_refused(
    built: Build, pinned: bool
) -> None:
    built.tables["small"]["size"] = len(content("small")) + 1
    if not pinned:
        del built.tables["small"]["sha256"]
    built.write()
    outcome = built.doit("run", "deploy:small")
    assert outcome.status != 0
    assert f"{len(content('small')) + 1} bytes" in outcome.output
    built.tables["small"]["size"] = len(content("small"))
    built.write()
    assert "checkpoint:small" in succeeded(built.build("deploy:small"))
    assert succeeded(built.build("deploy:small")) == set()


def test_a_wider_tolerance_verifies_every_model_again(built: Build) -> None:
    text = (built.root / "config/models.toml").read_text()
    built.configure(text + "[verify]\nmask_tolerance = 0.01\n")
    assert succeeded(built.build()) == stages(*MODELS, since="verify")


def test_a_rebuild_without_changes_writes_identical_manifests(built: Build) -> None:
    before = {each: built.deployed(each, "manifest.json").read_bytes() for each in MODELS}
    outcome = built.build("-a")
    assert len(outcome.ran) == 20
    assert {each: built.deployed(each, "manifest.json").read_bytes() for each in MODELS} == before


def test_removing_a_model_reruns_nothing_and_prune_only_lists_it(built: Build) -> None:
    del built.tables["small"]
    built.write()
    assert succeeded(built.build()) == set()
    outcome = built.doit("prune")
    assert outcome.status == 0
    for name in ("encoder.onnx", "decoder.onnx", "manifest.json"):
        assert f"would remove public/sam/sam2_hiera_small/{name}" in outcome.output
        assert built.deployed("small", name).is_file()


def test_prune_with_yes_removes_exactly_the_files_in_the_manifest(built: Build) -> None:
    del built.tables["small"]
    built.write()
    own = built.deployed("small", "notes.txt")
    own.write_text("mine")
    outcome = built.doit("prune", "--yes", "--downloads")
    assert outcome.status == 0, outcome.output
    assert [path.name for path in own.parent.iterdir()] == ["notes.txt"]
    assert built.deployed("tiny", "encoder.onnx").is_file()
    assert "Nothing to prune" in built.doit("prune").output


def test_prune_never_follows_a_manifest_out_of_its_folder(built: Build) -> None:
    victim = built.root / "public/sam/precious.onnx"
    victim.write_text("keep me")
    manifest = built.deployed("small", "manifest.json")
    content = json.loads(manifest.read_text())
    content["files"]["../precious.onnx"] = {"size": 7, "sha256": "0" * 64}
    manifest.write_text(json.dumps(content))
    del built.tables["small"]
    built.write()
    assert built.doit("prune", "--yes").status == 0
    assert victim.read_text() == "keep me"


def test_prune_lists_the_old_folder_of_a_renamed_model(built: Build) -> None:
    built.tables["small"]["folder"] = "small"
    built.write()
    assert succeeded(built.build()) == {"deploy:small"}
    assert "public/sam/sam2_hiera_small/encoder.onnx" in built.doit("prune").output


def test_prune_keeps_files_deployed_by_another_configuration(built: Build) -> None:
    other = built.root / "other.toml"
    other.write_text(
        '[models.mine]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:"\ndeploy = "mine"\n'
    )
    assert built.build("config=other.toml").status == 0
    assert "Nothing to prune" in built.doit("prune").output


def test_the_error_for_an_unexportable_checkpoint_names_its_source(build: Build) -> None:
    weights = build.root / "weights.pt"
    weights.write_bytes(b"unfit")
    build.tables = {"mine": {"model_type": "sam2_hiera_tiny", "url": "weights.pt"}}
    build.write()
    output = build.doit("run", "export:mine").output
    assert "build/checkpoints/mine.pt came from weights.pt." in output


def hanging(build: Build, function: str, fifo: Path) -> subprocess.Popen[str]:
    """A build that has reached a function of a child process and waits there."""
    os.mkfifo(fifo)
    build.environment |= {"CHEAP_HANG": function, "CHEAP_FIFO": str(fifo)}
    process = build.start()
    wait_for_opening(fifo, process)
    build.environment.pop("CHEAP_HANG")
    return process


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        ("write_graphs", {"checkpoint:tiny"}),
        ("simplify_graphs", {"checkpoint:tiny", "export:tiny"}),
        ("measure", {"checkpoint:tiny", "export:tiny", "simplify:tiny"}),
    ],
)
def test_a_build_killed_in_a_stage_keeps_every_stage_it_finished(
    build: Build, tmp_path: Path, function: str, kept: set[str]
) -> None:
    process = hanging(build, function, tmp_path / "fifo")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    half = [path for path in build.root.rglob("*.onnx") if path.read_bytes() == b"half"]
    assert all("tmp" in path.parts for path in half)
    assert succeeded(build.build()) == stages(*MODELS) - kept


def test_a_second_build_names_the_running_process_and_stops(build: Build, tmp_path: Path) -> None:
    process = hanging(build, "measure", tmp_path / "fifo")
    try:
        second = build.doit("run")
        assert second.status == 3
        assert f"process {process.pid} on" in second.output
        assert build.doit("clean").status == 3
        listed = build.doit("list")
        assert listed.status == 0
    finally:
        process.kill()
        process.communicate()
    assert build.build().status == 0


def test_ctrl_c_prints_a_message_and_keeps_finished_stages(build: Build, tmp_path: Path) -> None:
    process = hanging(build, "measure", tmp_path / "fifo")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "run the same command to continue" in output
    assert "checkpoint:tiny" not in succeeded(build.build())


def test_ctrl_c_in_the_first_stage_that_runs_does_not_report_nothing_to_do(
    build: Build, tmp_path: Path
) -> None:
    assert build.build("simplify").status == 0
    process = hanging(build, "measure", tmp_path / "fifo")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "nothing to do" not in output


def test_a_failed_write_leaves_no_partial_file_and_loses_no_stage(build: Build) -> None:
    # A limit on file size makes the kernel refuse a write halfway, as a full disk does.
    limit = ["prlimit", "--fsize=90000"]
    run = subprocess.run(
        [*limit, *build.command("checkpoint:tiny", "checkpoint:large")],
        cwd=build.root,
        env=build.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "File too large" in run.stdout
    assert "Traceback" not in run.stdout
    assert build.checkpoint("tiny").read_bytes() == content("tiny")
    assert not build.checkpoint("large").exists()
    assert succeeded(build.build("checkpoint:tiny", "checkpoint:large")) == {"checkpoint:large"}
    assert build.server.ranges()[-1] == "bytes=90000-"


def test_an_interrupted_download_is_resumed_by_the_next_build(build: Build) -> None:
    build.server.faults.append(Fault(drop_after=70_000))
    build.server.faults.append(Fault(status=404))
    outcome = build.doit("run", "checkpoint:large")
    assert outcome.status != 0
    assert "answered 404" in outcome.output
    kept = (build.root / "build/checkpoints/large.pt.part").stat().st_size
    assert kept == 1 << 16
    build.server.requests.clear()
    assert succeeded(build.build("checkpoint:large")) == {"checkpoint:large"}
    assert build.server.ranges() == [f"bytes={kept}-"]


def test_a_missing_hash_is_a_warning_with_the_hash_of_the_download(build: Build) -> None:
    del build.tables["tiny"]["sha256"]
    build.write()
    outcome = build.doit("run", "checkpoint:tiny")
    assert outcome.status == 0
    assert f'sha256 = "{hashlib.sha256(content("tiny")).hexdigest()}"' in outcome.output


def test_each_stage_that_runs_prints_one_line(build: Build) -> None:
    lines = build.doit("run", "deploy:tiny").output.splitlines()
    assert [line.split()[0] for line in lines if ":tiny  " in line] == [
        "checkpoint:tiny",
        "export:tiny",
        "simplify:tiny",
        "verify:tiny",
        "deploy:tiny",
    ]
    assert "Up to date" in build.doit("run", "deploy:tiny").output


def test_doits_own_console_reporter_works(build: Build) -> None:
    output = build.doit("run", "-r", "console", "deploy:tiny").output
    assert ".  export:tiny" in output
    assert "-- export:tiny" in build.doit("run", "-r", "console", "deploy:tiny").output


def test_a_failure_gives_the_reason_without_a_traceback(build: Build) -> None:
    outcome = build.doit("run", "deploy:tiny", CHEAP_FAIL="simplify_graphs")
    assert outcome.status != 0
    assert "simplify_graphs was told to fail" in outcome.output
    assert "Traceback" not in outcome.output


def test_list_shows_each_stage_on_one_line(build: Build) -> None:
    output = build.doit("list").output
    for stage in STAGES:
        assert any(line.startswith(stage) and len(line.split()) > 3 for line in output.splitlines())


def test_info_shows_why_a_stage_is_stale(built: Build) -> None:
    built.tables["tiny"]["opset"] = 17
    built.write()
    output = built.doit("info", "export:tiny").output
    assert "config/models.toml: opset was 20, is 17" in output


def test_a_misspelt_variable_on_the_command_line_is_refused(build: Build) -> None:
    outcome = build.doit("run", "confg=other.toml")
    assert outcome.status == 3
    assert "confg" in outcome.output
    assert "config, deploy" in outcome.output


def test_a_moved_checkout_rebuilds_nothing(built: Build) -> None:
    moved = built.root.with_name("elsewhere")
    built.root.rename(moved)
    built.root = moved
    built.environment["PYTHONPATH"] = str(moved)
    assert succeeded(built.build()) == set()


OTHERS = ("3", "null", '{"files": []}', '{"files": {"encoder.onnx": 1}}', '{"models": 3}')
SHAPES = ["[]", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]


@pytest.mark.parametrize("text", SHAPES)
def test_a_manifest_with_unexpected_json_is_written_again(built: Build, text: str) -> None:
    good = built.deployed("tiny", "manifest.json").read_bytes()
    built.deployed("tiny", "manifest.json").write_text(text)
    assert built.doit("report").status == 0
    assert built.doit("status").status == 0
    assert succeeded(built.build()) == {"deploy:tiny"}
    assert built.deployed("tiny", "manifest.json").read_bytes() == good


def test_a_report_waits_for_the_models_that_the_same_command_builds(build: Build) -> None:
    assert build.build("-n", "2", "report", "deploy").status == 0
    page = (build.root / "build/report/report.html").read_text()
    assert all(f"<h2>{model}</h2>" in page for model in MODELS)
    assert page.count('<td class="text ">deployed</td>') == len(MODELS)


def test_removing_a_variant_removes_its_deployed_files(
    built: Build,
) -> None:
    built.tables["tiny"]["variants"] = ["q8"]
    built.write()
    succeeded(built.build())
    manifest = json.loads(built.deployed("tiny", "manifest.json").read_text())
    assert set(manifest["files"]) == {"encoder_quantized.onnx", "decoder_quantized.onnx"}
    # Figures of single precision do not apply to the deployed files.
    assert manifest["verification"] is None
    (q8,) = manifest["variants"]
    assert manifest["encoder"]["file"] == q8["files"]["encoder"]
    assert not built.deployed("tiny", "encoder.onnx").exists()


def test_every_task_has_its_own_log_and_scratch_folder(tmp_path: Path) -> None:
    from doit.task import Task

    from tasks.building.stage import Workspace
    from tasks.config.schema import Configuration

    config = Configuration(tmp_path / "models.toml", tmp_path, ())

    def places(name: str) -> tuple[Path, Path]:
        with closing(Workspace(config, Task(name, None))) as work:
            return work.log, work.scratch

    names = ["variant:x:q8", "variant:x-q8", "browser:x", "browser:x:q8", "browser:x-q8:q8"]
    assert len({place for name in names for place in places(name)}) == 2 * len(names)
