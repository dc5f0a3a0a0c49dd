"""Commands other than a build, typed correctly or with mistakes, and their output."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from project import Project
from server import Fault, FileServer

from tasks.web import packages

STAGES = ["checkpoint", "export", "simplify", "verify", "variant", "reference", "fidelity"]
STAGES += ["tracking_reference", "tracking", "packages", "browser", "deploy"]
CONTENT = b"weights" * 20_000


class Models(Project):
    """Two models, one of them on a loopback server; a build deploys both."""

    def __init__(self, root: Path, server: FileServer) -> None:
        super().__init__(root, cheap=True)
        server.files["/fetched.pt"] = CONTENT
        self.fetched = {
            "model_type": "sam2_hiera_small",
            "url": server.url("/fetched.pt"),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
        }
        self.write()

    def write(self, *removed: str, **keys: object) -> None:
        tables = {
            "made_up": {"model_type": "sam2_hiera_tiny", "url": "synthetic:"},
            "fetched": {**self.fetched, **keys},
        }
        text = '[build]\ndeploy = "public"\n'
        for name in tables.keys() - set(removed):
            text += f"[models.{name}]\n"
            text += "".join(f"{key} = {json.dumps(it)}\n" for key, it in tables[name].items())
        self.configure(text)

    def succeeds(self, *arguments: str) -> str:
        outcome = self.doit(*arguments)
        assert outcome.status == 0, outcome.output
        return outcome.output

    def refuses(self, *arguments: str) -> str:
        outcome = self.doit(*arguments)
        assert outcome.status == 3, outcome.output
        assert "Traceback" not in outcome.output
        return outcome.output

    def files(self, folder: str) -> set[str]:
        root = self.root / folder
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built_once(shared_server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Models:
    shared_server.reset()
    models = Models(tmp_path_factory.mktemp("commands") / "project", shared_server)
    outcome = models.build()
    assert outcome.status == 0, outcome.output
    return models


@pytest.fixture
def models(built_once: Models, server: FileServer, tmp_path: Path) -> Models:
    server.files["/fetched.pt"] = CONTENT
    return built_once.copy_to(tmp_path / "project")


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        (["exprot:fetched"], "doit export:fetched"),
        (["export:fetchd"], "doit export:fetched"),
        (["statsu"], "doit status"),
        (["fetched"], "doit deploy:fetched"),
        (["clean:fetched"], "doit clean fetched"),
        (["run", "deploi"], "doit deploy"),
        (["info", "exprot:fetched"], "doit info export:fetched"),
        (["list", "exprot"], "doit list export"),
        (["forget", "verfy:fetched"], "doit forget verify:fetched"),
        (["clean", "fetchd"], "doit clean fetched"),
        (["status", "fetchd"], "doit status fetched"),
        (["help", "exprot"], "doit help export"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(
    built_once: Models, typed: list[str], suggested: str
) -> None:
    assert f"Did you mean `{suggested}`?" in (output := built_once.refuses(*typed)) or (
        f"`{suggested}` builds and deploys it" in output
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--contineu"], "option --contineu not recognized. Did you mean --continue?"),
        (["serve", "--prot", "3"], "Did you mean --port? `doit help serve` lists its options."),
        (["clean", "-a"], "option -a not recognized. `doit help clean` lists its options."),
        (["export:fetched", "--opset", "3"], "none of the named tasks has it"),
        (["run", "-n", "x"], "invalid literal for int() with base 10: 'x'"),
        (["clean", "export:fetched", "-n"], "put -n before the names, as in `doit clean -n ...`"),
        (["export:*", "-n"], "put -n before the names, as in `doit run -n ...`"),
    ],
)
def test_an_unknown_option_gets_an_error_without_doit_internals(
    built_once: Models, typed: list[str], expected: str
) -> None:
    output = built_once.refuses(*typed)
    assert expected in output
    assert "CmdOption" not in output


def test_a_suggestion_keeps_the_variables_of_the_command_line(built_once: Models) -> None:
    output = built_once.refuses("config=config/models.toml", "deploy=an app", "exprot:fetched")
    assert "`doit config=config/models.toml deploy='an app' export:fetched`" in output


def test_a_name_without_a_near_match_gets_a_pointer_to_doit_list(built_once: Models) -> None:
    assert "`doit list` lists the tasks" in built_once.refuses("xyzzy")


def test_list_numbers_the_stages_in_pipeline_order_without_gaps(
    built_once: Models,
) -> None:
    lines = [line.split(maxsplit=2) for line in built_once.succeeds("list").splitlines()]
    assert [name for name, *_ in lines[: len(STAGES)]] == STAGES
    assert [number for _, number, _ in lines[: len(STAGES)]] == [
        f"{number}." for number in range(1, len(STAGES) + 1)
    ]


def test_status_and_info_give_a_reason_once_in_plain_words(models: Models) -> None:
    models.write(masks="ranked")
    reason = "config/models.toml: masks was multi, is ranked"
    output = models.succeeds("info", "export:fetched")
    assert output.count(reason) == 1
    (line,) = [
        each for each in models.succeeds("status").splitlines() if "export:fetched  " in each
    ]
    assert line.endswith(reason)
    models.pretend_installed("onnxsim", "99.0")
    assert "onnxsim was" in models.succeeds("info", "simplify:fetched")


def test_info_reports_an_unbuilt_stage_only_as_never_built(models: Models) -> None:
    models.succeeds("clean")
    models.succeeds("forget", "-a")
    output = models.succeeds("info", "export:fetched").splitlines()
    assert output[1:3] == [
        "Stale, because:",
        "  never built; waits for checkpoint:fetched",
    ] or output[1:3] == ["Stale, because:", "  never built"]


def test_info_of_a_fresh_stage_lists_its_inputs_and_outputs(models: Models) -> None:
    output = models.succeeds("info", "export:fetched")
    assert "Fresh" in output
    assert "build/checkpoints/fetched.pt" in output
    assert "build/models/fetched/exported/encoder.onnx (0.1 MiB)" in output


@pytest.mark.parametrize("name", ["clean", "status", "info", "serve"])
def test_help_describes_each_command_of_this_project(built_once: Models, name: str) -> None:
    output = built_once.succeeds("help", name)
    assert output.startswith(f"doit {name} ")
    assert "backend" not in output


def test_clean_removes_the_build_output_of_every_model_and_prints_its_size(models: Models) -> None:
    output = models.succeeds("clean")
    assert models.files("build/models") == set()
    assert "removed 7 files, 0.3 MiB of made_up" in output
    assert "5 files" in output


def test_clean_keeps_deployed_copies_and_downloads_and_lists_them(models: Models) -> None:
    deployed = models.files("public")
    output = models.succeeds("clean")
    assert models.files("public") == deployed
    assert models.files("build/checkpoints") == {"fetched.pt", "fetched.json"}
    assert "Kept the deployed copies: public/sam2_hiera_small (--deployed removes them)" in output
    assert "Kept the fetched checkpoints: 2 files" in output


def test_clean_with_options_removes_deployed_files_and_downloads(models: Models) -> None:
    (models.root / "build/checkpoints/fetched.pt.part").write_bytes(b"begun")
    own = models.root / "public/sam2_hiera_small/notes.txt"
    own.write_text("mine")
    output = models.succeeds("clean", "--deployed", "--downloads")
    assert models.files("build/checkpoints") == set()
    assert models.files("public") == {"sam2_hiera_small/notes.txt"}
    assert "removed public/sam2_hiera_tiny/encoder.onnx" in output


def test_clean_of_one_model_keeps_the_others(models: Models) -> None:
    before = models.files("build/models/made_up")
    models.succeeds("clean", "fetched")
    assert not (models.root / "build/models/fetched").exists()
    assert models.files("build/models/made_up") == before
    assert models.build().ran == {f"{stage}:fetched" for stage in ("export", "simplify", "verify")}


def test_clean_of_a_checkpoint_task_removes_its_download_too(models: Models) -> None:
    models.succeeds("clean", "checkpoint:fetched")
    assert models.files("build/checkpoints") == {"made_up.pt", "made_up.json"}


def test_a_dry_run_of_clean_removes_nothing(models: Models) -> None:
    before = models.files(".")
    assert "would remove" in models.succeeds("clean", "-n", "--deployed", "--downloads")
    assert models.files(".") - before == set()
    assert before - models.files(".") <= {"build/state/lock-holder.json"}


def test_clean_reports_when_there_is_nothing_to_remove(models: Models) -> None:
    models.succeeds("clean", "--deployed", "--downloads")
    assert models.succeeds("clean") == "Nothing to remove.\n"


def test_prune_finds_the_build_files_of_a_removed_model(models: Models) -> None:
    models.write("made_up")
    output = models.succeeds("prune")
    assert "would remove build/models/made_up" in output
    assert "would remove the checkpoint of made_up (2 files, " in output
    assert (models.root / "build/models/made_up").is_dir()
    models.succeeds("prune", "--yes")
    assert not (models.root / "build/models/made_up").exists()
    assert (models.root / "build/models/fetched").is_dir()
    assert not list(models.root.glob("build/logs/*made_up*"))
    assert "Nothing to prune" in models.succeeds("prune")


def test_prune_keeps_downloads_without_the_downloads_option(models: Models) -> None:
    models.write("fetched")
    output = models.succeeds("prune", "--yes")
    assert "kept the checkpoint of fetched (2 files, 0.1 MiB): fetched" in output
    assert models.files("build/checkpoints") >= {"fetched.pt", "fetched.json"}
    models.succeeds("prune", "--yes", "--downloads")
    assert models.files("build/checkpoints") == {"made_up.pt", "made_up.json"}


def test_prune_suggests_a_command_with_the_given_variables(models: Models) -> None:
    models.write("made_up")
    output = models.succeeds(
        "config=config/models.toml", "deploy=elsewhere", "prune", "--downloads"
    )
    command = "`doit config=config/models.toml deploy=elsewhere prune --yes --downloads`"
    assert f"Run {command} to remove these files." in output


def test_prune_keeps_builds_of_another_configuration_in_the_same_folder(models: Models) -> None:
    (models.root / "other.toml").write_text(
        '[build]\ndeploy = "other"\n'
        '[models.mine]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:"\n'
    )
    assert models.build("config=other.toml").status == 0
    assert "Nothing to prune" in models.succeeds("prune")


def test_prune_keeps_the_build_folder_while_another_configuration_is_unreadable(
    models: Models,
) -> None:
    other = models.root / "other.toml"
    other.write_text(
        '[build]\ndeploy = "other"\n'
        '[models.mine]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:"\n'
    )
    assert models.build("config=other.toml").status == 0
    other.write_text("[models.mine]\nurl = 3\n")
    models.write("made_up")
    output = models.succeeds("prune", "--yes")
    assert "other.toml" in output
    assert (models.root / "build/models/mine").is_dir()
    assert (models.root / "build/models/made_up").is_dir()


def test_an_unreachable_host_is_reported_once_and_the_demo_is_suggested(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", cheap=True)
    table = 'model_type = "sam2_hiera_tiny"\nurl = "http://127.0.0.1:9/{0}.pt"\nfolder = "{0}"\n'
    project.configure(
        "".join(f"[models.{name}]\n" + table.format(name) for name in ("one", "two"))
        + '[models.demo]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\nfolder = "demo"\n'
    )
    outcome = project.doit("run", "-c", "checkpoint", CHEAP_IMPATIENT="1")
    assert outcome.status != 0
    assert outcome.output.count("127.0.0.1:9 cannot be reached: Connection refused; trying") == 1
    assert outcome.output.count("`doit demo` needs no network") == 1
    assert outcome.output.count("cannot be reached, see above") == 1
    assert "Max retries" not in outcome.output


def test_a_new_url_without_the_file_is_a_warning_and_the_checkpoint_is_kept(
    models: Models,
) -> None:
    models.write(url=str(models.fetched["url"]).replace("fetched.pt", "gone.pt"))
    output = models.succeeds("run", "checkpoint:fetched")
    assert "warning: [models.fetched] url:" in output
    assert "gone.pt does not have it: the server answers 404" in output
    assert (models.root / "build/checkpoints/fetched.pt").read_bytes() == CONTENT


def test_a_new_url_that_rejects_head_is_reported_as_unchecked(
    models: Models, server: FileServer
) -> None:
    server.faults.append(Fault(status=405))
    server.files["/other.pt"] = CONTENT
    models.write(url=server.url("/other.pt"))
    output = models.succeeds("run", "checkpoint:fetched")
    assert "was not checked: the server answers 405 to HEAD" in output


def test_a_new_url_with_a_file_of_another_size_is_a_warning(
    models: Models, server: FileServer
) -> None:
    server.files["/other.pt"] = CONTENT[:-1]
    models.write(url=server.url("/other.pt"))
    output = models.succeeds("run", "checkpoint:fetched")
    assert f"is another file: expected {len(CONTENT)} bytes, found {len(CONTENT) - 1}" in output


@pytest.mark.parametrize("missing", ["onnxruntime-web", "geotiff", "mediabunny"])
def test_serve_installs_the_npm_packages_that_the_page_loads(
    built_once: Models, tmp_path: Path, missing: str
) -> None:
    modules = without_package(built_once, missing)
    npm = tmp_path / "npm"
    folders = " ".join(f'"{modules}/{name}"' for name in packages.LIBRARIES)
    npm.write_text(f"#!/bin/sh\nmkdir -p {folders}\n")
    npm.chmod(0o755)
    serving = built_once.start("serve", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert serving.stdout is not None
    lines = [serving.stdout.readline() for _ in range(3)]
    serving.send_signal(signal.SIGINT)
    assert serving.wait() == 0
    assert lines[0] == "Installing the page's npm packages …\n"
    assert lines[1].startswith("http://127.0.0.1:")
    assert lines[2] == "Ctrl-C stops it.\n"


def test_without_npm_the_page_is_not_served(built_once: Models, tmp_path: Path) -> None:
    without_package(built_once, "geotiff")
    outcome = built_once.doit("serve", PATH=str(tmp_path))
    assert outcome.status == 3
    problem = (
        "could not install the page's npm packages: there is no npm; install Node.js 20 or newer"
    )
    assert problem in outcome.output


def without_package(project: Project, missing: str) -> Path:
    """The folder of npm's packages, with all that the page loads except one."""
    modules = project.root / "web/node_modules"
    shutil.rmtree(modules, ignore_errors=True)
    for package in packages.LIBRARIES.keys() - {missing}:
        (modules / package).mkdir(parents=True)
    return modules


def test_a_port_in_use_is_reported(built_once: Models, server: FileServer) -> None:
    port = server.url("/").split(":")[2].strip("/")
    for package in packages.LIBRARIES:
        (built_once.root / "web/node_modules" / package).mkdir(parents=True, exist_ok=True)
    assert f"port {port} is in use" in built_once.refuses("serve", "--port", port)


# --- terminals with few characters, full disks, missing permissions ---


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["output", "locale"],
)
def test_characters_that_the_terminal_encoding_lacks_are_written_in_ascii(
    environment: dict[str, str], project: Project
) -> None:
    project.configure(f'[models.mine]\nurl = "{OWN}"\nmodel_type = "sam2_hiera_tiny"\n')
    (project.root / OWN).write_bytes(CONTENT)
    outcome = project.doit("checkpoint", **environment)
    assert outcome.status == 0, outcome.output
    assert outcome.output.isascii()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert f"sha256 {sha256[:8]}...{sha256[-4:]}" in outcome.output


OWN = "own.pt"
# Root can read everything, unless it drops that privilege.
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def run_under(prefix: list[str], project: Project, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a doit command that another program starts."""
    done = subprocess.run(
        [*prefix, *project.command(*arguments)],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def mine(project: Project) -> Project:
    """A model with a local file, whose checkpoint is built."""
    project.configure(f'[models.mine]\nurl = "{OWN}"\nmodel_type = "sam2_hiera_tiny"\n')
    (project.root / OWN).write_bytes(CONTENT)
    assert project.build("checkpoint").status == 0
    return project


@pytest.mark.parametrize("closed", [OWN, "build", "build/state", "build/checkpoints/mine.pt"])
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_file_or_folder_without_permissions_is_named(
    closed: str, command: str, mine: Project
) -> None:
    prefix = WITHOUT_PRIVILEGES if os.geteuid() == 0 else []
    if prefix and subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("runs as root, which may read everything here and cannot give that up")
    path = mine.root / closed
    mode = path.stat().st_mode
    path.touch()  # so that its content is read again
    path.chmod(0)
    try:
        status, output = run_under(prefix, mine, command)
    finally:
        path.chmod(mode)
    assert "Traceback" not in output
    assert "nothing to do" not in output
    if (closed, command) != ("build/state", "status"):  # it treats unreadable records as missing
        assert status == 3
        assert f"ERROR: Permission denied ({closed}" in output
        assert "grant access, and run the same command again" in output


def test_a_disk_that_is_full_from_the_start_is_reported(project: Project) -> None:
    project.configure(f'[models.mine]\nurl = "{OWN}"\nmodel_type = "sam2_hiera_tiny"\n')
    (project.root / OWN).write_bytes(CONTENT)
    # A limit on file size makes the kernel refuse every write, as a full disk does.
    full = ["prlimit", "--fsize=0"]
    status, output = run_under(full, project, "run", "checkpoint")
    assert status != 0
    assert "Traceback" not in output
    assert "File too large" in output
    assert "Free some space" in output
    assert not (project.root / "build/checkpoints/mine.pt").exists()
    assert project.build("checkpoint").status == 0


def test_clean_works_on_a_full_disk(mine: Project) -> None:
    status, output = run_under(["prlimit", "--fsize=0"], mine, "clean", "--downloads")
    assert status == 0, output
    assert not (mine.root / "build/checkpoints/mine.pt").exists()


# --- how long it takes ---


def test_status_ends_with_the_duration_of_the_last_build(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", cheap=True)
    project.configure('[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n')
    assert "Last build" not in project.doit("status").output
    stages = len(re.findall(r"\(\d+\.\d s\)", project.doit("run").output))
    last = project.doit("status").output.splitlines()[-1]
    took = re.fullmatch(r"Last build: (\d+) stages in \d+\.\d s, ended \d{4}-\d\d-\d\d .*\.", last)
    assert took
    assert int(took[1]) == stages
    project.doit("run")  # has nothing to do
    assert project.doit("status").output.splitlines()[-1] == last


def test_the_demo_first_prints_what_it_will_do_and_how_long_it_takes(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", cheap=True)
    project.configure(
        '[models.demo]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
        'truth = "tasks.drawing.scenes:scene"\n'
    )
    first, second, *_ = project.doit("run", "demo").output.splitlines()
    assert first.startswith("Builds a small model")
    assert "about a minute" in first
    assert second.startswith("checkpoint:demo ")
    project.doit("run", "deploy:demo")
    assert "Builds" not in project.doit("run", "deploy:demo").output
