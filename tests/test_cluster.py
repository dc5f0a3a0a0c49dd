"""Stages on a Dask cluster: a real scheduler and real workers, some of them killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest
from cluster import Cluster, Stages, free_port
from project import ROOT, Outcome, Project, wait_for_opening

from tasks.running import job
from tasks.running.resources import resources_for
from tasks.system.errors import StageError

MODEL = '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'


class Quick(Project):
    """Stages of `cluster_dodo`, whose children do little."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, cheap=False)
        for name in ("cluster_dodo.py", "cluster_functions.py"):
            shutil.copy(ROOT / "tests/fakes" / name, root)
        self.dodo = "cluster_dodo.py"
        self.configure(MODEL)

    def give(self, stages: Stages) -> None:
        """Define the stages of the following builds."""
        self.environment["STAGES"] = json.dumps(stages)

    def values(self, stage: str) -> dict[str, Any]:
        """The recorded values of a stage."""
        records = json.loads((self.root / "build/state/doit.json").read_text())
        return dict(records[f"stage:{stage}"]["_values_:"])

    def left(self) -> list[Path]:
        """The remaining scratch files."""
        return list((self.root / "build/tmp").iterdir())


def succeeded(outcome: Outcome) -> str:
    assert outcome.status == 0, outcome.output
    return outcome.output


def failed(outcome: Outcome) -> str:
    assert outcome.status == 1, outcome.output
    assert "Traceback" not in outcome.output
    return outcome.output


@pytest.fixture
def quick(tmp_path: Path) -> Quick:
    return Quick(tmp_path / "project")


@pytest.fixture
def cluster(quick: Quick, tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    with Cluster(quick, tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, for tests that leave them unchanged."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(Quick(folder / "project"), folder) as cluster:
        for _ in range(2):
            cluster.start_worker("--resources", "memory=2e9 cores=2")
        cluster.wait()
        yield cluster


@pytest.fixture
def stages(lasting: Cluster) -> Quick:
    """The project of the lasting workers, with nothing built."""
    project = lasting.project
    assert isinstance(project, Quick)
    for name in ("build", "public"):
        shutil.rmtree(project.root / name, ignore_errors=True)
    return project


# Behaviour that is the same on a cluster as elsewhere.


def test_the_heavy_part_runs_in_a_child_of_a_worker(lasting: Cluster, stages: Quick) -> None:
    stages.give({"a": {"function": "make"}})
    succeeded(stages.doit(f"cluster={lasting.address}"))
    assert stages.values("a")["started_by"] in lasting.pids
    assert stages.values("a")["heavy"] == []
    assert 1e6 < stages.values("a")["peak_memory"] < 1e9
    assert (stages.root / "build/logs/stage~a.log").read_text() == "making it\n"
    assert stages.left() == []
    again = stages.doit(f"cluster={lasting.address}")
    assert "nothing to do" in succeeded(again)


def test_a_stage_run_on_a_cluster_is_up_to_date_without_the_cluster(
    lasting: Cluster, stages: Quick
) -> None:
    stages.give({"a": {"function": "make"}})
    succeeded(stages.doit(f"cluster={lasting.address}"))
    assert "nothing to do" in succeeded(stages.doit())


def test_the_command_line_can_switch_off_the_configured_cluster(
    lasting: Cluster, stages: Quick
) -> None:
    stages.configure(f'[build]\ncluster = "{lasting.address}"\n{MODEL}')
    try:
        stages.give({"a": {"function": "make"}, "b": {"function": "make"}})
        succeeded(stages.doit("stage:a"))
        succeeded(stages.doit("cluster=off", "stage:b"))
    finally:
        stages.configure(MODEL)
    assert stages.values("a")["started_by"] in lasting.pids
    assert stages.values("b")["started_by"] not in lasting.pids


def test_a_childs_error_keeps_its_message_and_names_the_worker(
    lasting: Cluster, stages: Quick
) -> None:
    stages.give({"a": {"function": "refuse"}})
    output = failed(stages.doit(f"cluster={lasting.address}"))
    assert "expected 1, found 2\n    It ran on the worker tcp://" in output


def test_verbose_prints_the_output_of_the_child(lasting: Cluster, stages: Quick) -> None:
    stages.give({"a": {"function": "make"}})
    assert "making it" in succeeded(stages.doit("-v", "2", f"cluster={lasting.address}"))


@pytest.mark.slow
def test_a_child_does_not_inherit_dasks_thread_limits(quick: Quick, cluster: Cluster) -> None:
    cluster.start_worker(OMP_NUM_THREADS="1", MALLOC_TRIM_THRESHOLD_="65536", KEPT="1")
    quick.give({"a": {"function": "make"}})
    succeeded(quick.doit(f"cluster={cluster.address}"))
    environment = (quick.root / "build/made/a").read_text()
    assert "'KEPT'" in environment
    assert "OMP_NUM_THREADS" not in environment
    assert "MALLOC_TRIM_THRESHOLD_" not in environment


@pytest.mark.slow
def test_the_whole_pipeline_on_a_cluster_makes_the_same_files(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", cheap=True)
    shutil.copy(ROOT / "tests/fakes/cheap_worker.py", project.root)
    project.configure(
        f'{MODEL}variants = ["fp32", "q8"]\n[browser]\nenabled = false\n[build]\ndeploy = "out"\n'
    )
    with Cluster(project, tmp_path) as cluster:
        for _ in range(2):
            cluster.start_worker("--preload", "cheap_worker")
        local = project.build("deploy:tiny")
        files = sorted(path for path in (project.root / "out").rglob("*") if path.is_file())
        assert local.status == 0, local.output
        assert len(files) == 5
        made_here = [path.read_bytes() for path in files]
        shutil.rmtree(project.root / "build")
        shutil.rmtree(project.root / "out")
        remote = project.build("-n", "4", f"cluster={cluster.address}", "deploy:tiny")
        assert remote.status == 0, remote.output
        assert remote.ran == local.ran
        assert [path.read_bytes() for path in files] == made_here


@pytest.mark.slow
def test_a_proof_records_the_processor_of_the_worker_that_measured(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", cheap=True)
    shutil.copy(ROOT / "tests/fakes/cheap_worker.py", project.root)
    cache = f'[cache]\nurl = "{tmp_path / "cache"}"\nproofs = true\n'
    project.configure(f"{MODEL}[browser]\nenabled = false\n{cache}")
    here, there = ({"CHEAP_PROCESSOR": f"Linux x86_64 {each}"} for each in ("avx2", "amx_tile"))
    with Cluster(project, tmp_path) as cluster:
        cluster.start_worker("--preload", "cheap_worker", **there)
        on_cluster = (f"cluster={cluster.address}", "deploy:tiny")
        assert "verify:tiny" in project.build(*on_cluster, **here).ran
        assert project.build(*on_cluster, **here).ran == set()
    assert project.build("deploy:tiny", **there).ran == set()
    other = project.build("deploy:tiny", CHEAP_FAIL="measure", **here)
    assert other.ran == {"verify:tiny"}  # no other stage depends on the processor
    assert "measure was told to fail" in other.output
    shutil.rmtree(project.root / "build")
    taken = project.build("deploy:tiny", CHEAP_FAIL="measure write_graphs", **there)
    assert taken.status == 0, taken.output


# Without a cluster, or without the need for one.


def imported(quick: Quick, *arguments: str) -> tuple[Outcome, set[str]]:
    """A build, and the modules that it imported."""
    outcome = quick.doit(*arguments, PYTHONPROFILEIMPORTTIME="1")
    lines = [line for line in outcome.output.splitlines() if line.startswith("import time:")]
    return outcome, {line.split("|")[-1].strip() for line in lines}


def test_without_the_cluster_option_dask_is_not_imported(quick: Quick) -> None:
    quick.give({"a": {"function": "make"}})
    outcome, names = imported(quick)
    succeeded(outcome)
    assert "tasks.building.stage" in names
    assert not names & {"distributed", "dask", "tasks.running.cluster", "tasks.running.job"}


def test_an_unreachable_cluster_is_not_contacted_when_there_is_nothing_to_do(quick: Quick) -> None:
    quick.give({"a": {"function": "make"}})
    succeeded(quick.doit())
    outcome, names = imported(quick, f"cluster=tcp://127.0.0.1:{free_port()}")
    assert "nothing to do" in succeeded(outcome)
    assert not names & {"distributed", "dask", "tasks.running.cluster", "tasks.running.job"}


def test_an_unreachable_scheduler_is_an_error_that_suggests_remedies(quick: Quick) -> None:
    quick.give({"a": {"function": "make"}, "b": {"function": "make"}})
    address = f"tcp://127.0.0.1:{free_port()}"
    outcome = quick.doit("--continue", f"cluster={address}")
    output = outcome.output
    assert outcome.status
    assert "Traceback" not in output
    assert output.count(f"No Dask scheduler answers at {address}") == 2
    assert "`uv run dask scheduler`" in output
    assert "`doit cluster=off` builds without a cluster" in output


def test_a_missing_dask_package_is_an_error_with_the_install_command(quick: Quick) -> None:
    (quick.root / "distributed.py").write_text("raise ImportError\n")
    quick.give({"a": {"function": "make"}})
    output = failed(quick.doit("cluster=tcp://127.0.0.1:1"))
    assert "`uv sync --extra cluster` installs it" in output


@pytest.mark.slow
def test_without_a_worker_the_build_prints_a_notice_and_waits(
    quick: Quick, cluster: Cluster
) -> None:
    quick.give({"a": {"function": "make"}})
    process = quick.start(f"cluster={cluster.address}")
    assert process.stdout is not None
    assert f"There is no worker at {cluster.address}; waiting" in process.stdout.readline()
    cluster.start_worker()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


# Resources.

LARGE = 897_952_466  # bytes of a checkpoint


def test_a_stage_requests_its_last_peak_memory_plus_a_margin() -> None:
    wanted = resources_for("export:x", {"peak_memory": 4e9}, (), LARGE, [{"memory": 16e9}])
    assert wanted == {"memory": pytest.approx(4.4e9)}


def test_memory_of_a_stage_that_never_ran_is_estimated_from_its_input() -> None:
    wanted = resources_for("export:x", {}, (), LARGE, [{"memory": 16e9}])
    assert 4.1 < wanted["memory"] / 2**30 < 4.5  # large's export takes 4.1


def test_an_estimate_of_memory_does_not_rule_out_a_worker() -> None:
    assert resources_for("export:x", {}, (), LARGE, [{"memory": 2e9}]) == {"memory": 2e9}


def test_a_stage_that_needs_more_memory_than_any_worker_has_is_refused() -> None:
    with pytest.raises(StageError, match=r"export:x needs 4\.1 GiB .* than 1\.9 GiB.*memory=5e9"):
        resources_for("export:x", {"peak_memory": 4e9}, (), 1, [{"memory": 2e9}, {}])


@pytest.mark.parametrize("workers", [[{}], [{}, {"GPU": 1.0}]])
def test_a_resource_that_no_worker_declares_is_not_requested(
    workers: list[dict[str, float]],
) -> None:
    recorded = {"peak_memory": 4e9, "cores": 3.2}
    assert resources_for("browser:x", recorded, ("browser",), LARGE, workers) == {}


def test_a_stage_requests_the_cores_it_used_up_to_the_available_ones() -> None:
    def cores(used: float) -> float:
        return resources_for("verify:x", {"cores": used}, (), 1, [{"cores": 4.0}])["cores"]

    assert [cores(each) for each in (0.2, 1.3, 9.9)] == [1, 2, 4]


def test_a_browser_and_memory_are_requested_from_the_same_worker() -> None:
    workers = [{"memory": 16e9}, {"memory": 3e9, "browser": 1.0}]
    wanted = resources_for("browser:x", {"peak_memory": 1e9}, ("browser",), LARGE, workers)
    assert wanted == {"memory": 3e9, "browser": 1}


def test_two_memory_heavy_stages_never_share_a_worker(
    lasting: Cluster, stages: Quick, tmp_path: Path
) -> None:
    # Each is estimated at 1 GiB of a worker's 2 GB, and each worker has two threads.
    stages.give(
        {
            str(number): {"function": "alone", "arguments": {"folder": str(tmp_path)}}
            for number in range(6)
        }
    )
    succeeded(stages.doit("-n", "6", f"cluster={lasting.address}"))
    assert {stages.values(str(number))["started_by"] for number in range(6)} == lasting.pids


def test_a_browser_stage_runs_locally_when_no_worker_declares_a_browser(
    lasting: Cluster, stages: Quick
) -> None:
    stages.give({"a": {"function": "make", "needs": ["browser"]}})
    succeeded(stages.doit(f"cluster={lasting.address}"))
    assert stages.values("a")["started_by"] not in lasting.pids


@pytest.mark.slow
def test_a_browser_stage_runs_on_a_worker_that_declares_a_browser(
    quick: Quick, cluster: Cluster
) -> None:
    cluster.start_worker()
    able = cluster.start_worker("--resources", "browser=1")
    cluster.wait()
    quick.give({str(number): {"function": "make", "needs": ["browser"]} for number in range(3)})
    succeeded(quick.doit("-n", "3", f"cluster={cluster.address}"))
    assert {quick.values(str(number))["started_by"] for number in range(3)} == {able.pid}


# Workers, schedulers and builds that end during a stage.


def holding(quick: Quick, cluster: Cluster, tmp_path: Path, *arguments: str) -> Any:
    """A build with a stage that blocks its worker, and completes the next time; its FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = {"fifo": str(fifo), "once": str(tmp_path / "once")}
    quick.give({"first": {"function": "make"}, "held": {"function": "hold", "arguments": held}})
    succeeded(quick.doit(f"cluster={cluster.address}", "stage:first"))
    return quick.start(*arguments, f"cluster={cluster.address}"), fifo


@pytest.mark.slow
def test_a_killed_workers_stage_reruns_elsewhere_and_partial_files_are_ignored(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path)
    with fifo.open() as held_by_the_child:
        killed = int((tmp_path / "once").read_text())
        cluster.worker(killed).kill()
        assert held_by_the_child.read() == ""  # its child ends with it
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert quick.values("held")["started_by"] in cluster.pids - {killed}
    assert (quick.root / "build/made/held").read_text() != "half"
    assert quick.left() == []


@pytest.mark.slow
def test_a_stage_whose_workers_all_died_suggests_a_lack_of_memory(
    quick: Quick, tmp_path: Path
) -> None:
    with Cluster(quick, tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        worker = cluster.start_worker()
        process, fifo = holding(quick, cluster, tmp_path)
        with fifo.open():
            worker.kill()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Each worker that ran it ended meanwhile (1 did, the last at tcp://" in output
    assert "memory ran out" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_a_lost_scheduler_is_reported_and_finished_stages_are_kept(
    quick: Quick, cluster: Cluster, tmp_path: Path, how: signal.Signals
) -> None:
    cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path)
    with fifo.open() as held_by_the_child:
        cluster.scheduler.send_signal(how)
        assert held_by_the_child.read() == ""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"The connection to the scheduler at {cluster.address} is lost. Finished" in output
    assert "Traceback" not in output
    rest = quick.doit()
    assert "stage:first" not in succeeded(rest)
    assert "stage:held" in rest.output


@pytest.mark.slow
def test_ctrl_c_cancels_the_stages_that_run_on_the_cluster(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path, "-n", "2")
    with fifo.open() as held_by_the_child:
        process.send_signal(signal.SIGINT)
        assert held_by_the_child.read() == ""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "run the same command to continue" in output
    succeeded(quick.doit(f"cluster={cluster.address}"))
    assert quick.values("held")["started_by"] in cluster.pids


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_running_on_the_cluster(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path)
    with fifo.open() as held_by_the_child:
        process.kill()
        assert held_by_the_child.read() == ""
    process.communicate()
    succeeded(quick.doit(f"cluster={cluster.address}"))
    assert quick.left() == []


@pytest.mark.slow
def test_a_disconnected_worker_does_not_overwrite_the_result_of_its_successor(
    quick: Quick, tmp_path: Path
) -> None:
    with Cluster(quick, tmp_path, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s") as cluster:
        for _ in range(2):
            cluster.start_worker()
        cluster.wait()
        process, fifo = holding(quick, cluster, tmp_path)
        with fifo.open():
            stopped = int((tmp_path / "once").read_text())
            os.kill(stopped, signal.SIGSTOP)
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output  # while the first child is still running
            assert quick.values("held")["started_by"] in cluster.pids - {stopped}
            assert (quick.root / "build/made/held").read_text() != "half"


def test_scratch_paths_are_rewritten_to_the_folder_of_the_attempt() -> None:
    arguments = {"graphs": {"encoder": "b/tmp/x/e.onnx"}, "pairs": [["b/tmp/xy", "b/tmp/x"]]}
    assert job.rebase_paths(arguments, "b/tmp/x", "b/tmp/x/attempt-1") == {
        "graphs": {"encoder": "b/tmp/x/attempt-1/e.onnx"},
        "pairs": [["b/tmp/xy", "b/tmp/x/attempt-1"]],
    }


# Incompatible workers and schedulers.


def pretend(folder: Path, package: str, version: str) -> str:
    """A folder for PYTHONPATH in which a package has another version."""
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return str(folder)


def pretend_foreign(folder: Path) -> str:
    """A folder for PYTHONPATH with the `tasks` package of another project."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/__init__.py").write_text("")
    return str(folder)


def checkout(quick: Quick, folder: Path) -> Path:
    """Another checkout of the same project, with nothing built in it."""
    ignored = shutil.ignore_patterns("build")
    return Path(shutil.copytree(quick.root, folder, ignore=ignored))


@pytest.mark.slow
def test_a_worker_with_another_version_of_a_package_is_refused(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    place = pretend(tmp_path / "other", "torch", "1.0")
    cluster.start_worker(PYTHONPATH=os.pathsep.join([place, str(quick.root)]))
    quick.give({"a": {"function": "make"}})
    output = failed(quick.doit(f"cluster={cluster.address}"))
    assert f"No compatible worker at {cluster.address}:" in output
    assert "has torch 1.0, this build has " in output
    assert "`uv sync`" in output


@pytest.mark.slow
def test_an_incompatible_worker_is_left_out_with_a_warning(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    place = pretend(tmp_path / "other", "torch", "1.0")
    cluster.start_worker(PYTHONPATH=os.pathsep.join([place, str(quick.root)]))
    fit = cluster.start_worker()
    cluster.wait()
    quick.give({str(number): {"function": "make"} for number in range(4)})
    output = succeeded(quick.doit("-n", "4", f"cluster={cluster.address}"))
    assert output.count("warning: the worker tcp://") == 1
    assert {quick.values(str(number))["started_by"] for number in range(4)} == {fit.pid}


@pytest.mark.slow
def test_a_worker_that_joins_later_is_checked_too(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    fit = cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path)
    with fifo.open():
        place = pretend(tmp_path / "other", "torch", "1.0")
        cluster.start_worker(PYTHONPATH=os.pathsep.join([place, str(quick.root)]))
        cluster.wait()
        fit.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "has torch 1.0, this build has " in output


@pytest.mark.slow
def test_a_worker_in_another_checkout_works_with_a_shared_build_folder(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    quick.configure(f'[build]\ndir = "{tmp_path / "shared"}"\n{MODEL}')
    other = checkout(quick, tmp_path / "elsewhere")
    cluster.start_worker(folder=other)
    quick.give({"a": {"function": "make"}})
    succeeded(quick.doit(f"cluster={cluster.address}"))
    assert str(cluster.workers[0].pid) in (tmp_path / "shared/made/a").read_text()


def through_a_cache(quick: Quick, cache: str) -> None:
    """Two stages with a shared cache; the second reads the output of the first."""
    quick.configure(f'[cache]\nurl = "{cache}"\n{MODEL}')
    made = "build/made/a"
    reading = {"function": "double", "arguments": {"source": made}, "reads": [made]}
    quick.give({"a": {"function": "make"}, "b": reading})


def test_a_worker_without_the_build_folder_works_through_the_cache(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    other = checkout(quick, tmp_path / "elsewhere")
    cluster.start_worker(folder=other)
    through_a_cache(quick, str(tmp_path / "cache"))
    succeeded(quick.doit(f"cluster={cluster.address}"))
    a, b = (quick.root / "build/made" / name for name in "ab")
    assert b.read_text() == 2 * a.read_text()
    assert {quick.values(name)["started_by"] for name in "ab"} == cluster.pids
    assert (quick.root / "build/logs/stage~b.log").read_text().startswith("reading ")
    assert (quick.root / "build/logs/stage~b.log").stat().st_mode & 0o777 == 0o600
    assert not (other / "build").exists()
    assert quick.left() == []
    assert "nothing to do" in succeeded(quick.doit())


@pytest.mark.slow
def test_workers_with_and_without_the_build_folder_both_run_stages(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker()
    cluster.start_worker(folder=checkout(quick, tmp_path / "elsewhere"))
    cluster.wait()
    through_a_cache(quick, str(tmp_path / "cache"))
    stages = {f"{n}": {"function": "work", "arguments": {"seconds": 0.5}} for n in range(8)}
    quick.give(stages)
    succeeded(quick.doit("-n", "4", f"cluster={cluster.address}"))
    assert {quick.values(name)["started_by"] for name in stages} == cluster.pids


@pytest.mark.slow
def test_a_cache_that_a_worker_cannot_use_is_reported(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker(folder=checkout(quick, tmp_path / "elsewhere"))
    (tmp_path / "cache").write_text("a file, where a folder is expected")
    through_a_cache(quick, str(tmp_path / "cache"))
    output = failed(quick.doit(f"cluster={cluster.address}"))
    assert "Workers that do not see the build folder get their files through the cache" in output


@pytest.mark.slow
def test_the_whole_pipeline_through_a_cache_makes_the_same_files(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", cheap=True)
    shutil.copy(ROOT / "tests/fakes/cheap_worker.py", project.root)
    project.configure(
        f'{MODEL}variants = ["fp32", "q8"]\n[browser]\nenabled = false\n[build]\ndeploy = "out"\n'
        f'[cache]\nurl = "{tmp_path / "cache"}"\n'
    )
    other = tmp_path / "elsewhere"
    shutil.copytree(project.root, other)
    with Cluster(project, tmp_path) as cluster:
        cluster.start_worker("--preload", "cheap_worker", folder=other)
        local = project.build("cache=off", "deploy:tiny")
        files = sorted(path for path in (project.root / "out").rglob("*") if path.is_file())
        assert local.status == 0, local.output
        made_here = [path.read_bytes() for path in files]
        shutil.rmtree(project.root / "build")
        shutil.rmtree(project.root / "out")
        remote = project.build("-n", "4", f"cluster={cluster.address}", "deploy:tiny")
        assert remote.status == 0, remote.output
        assert [path.read_bytes() for path in files] == made_here
        assert not (other / "build/models").exists()


@pytest.mark.slow
def test_a_worker_with_neither_build_folder_nor_cache_is_refused(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    other = checkout(quick, tmp_path / "elsewhere")
    cluster.start_worker(folder=other)
    quick.give({"a": {"function": "make"}})
    output = failed(quick.doit(f"cluster={cluster.address}"))
    assert f"does not see this build's folder as {other / 'build'}" in output


def test_a_worker_with_other_source_code_is_refused(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    quick.configure(f'[build]\ndir = "{tmp_path / "shared"}"\n{MODEL}')
    (quick.root / "read.txt").write_text("as it is here")
    other = checkout(quick, tmp_path / "elsewhere")
    with (other / "tasks/export.py").open("a") as file:
        file.write("CHANGED = True\n")
    with (other / "tasks/simplify.py").open("a") as file:
        file.write("# a comment\n")
    (other / "read.txt").unlink()
    cluster.start_worker(folder=other)
    quick.give({"a": {"function": "make", "reads": ["read.txt"]}})
    output = failed(quick.doit(f"cluster={cluster.address}"))
    assert "has another version of tasks/export.py" in output
    assert "has no read.txt" in output
    assert "tasks/simplify.py" not in output


@pytest.mark.slow
def test_a_worker_without_this_project_is_refused(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker(PYTHONPATH=pretend_foreign(tmp_path / "foreign"))
    quick.give({"a": {"function": "make"}})
    output = failed(quick.doit(f"cluster={cluster.address}"))
    assert "cannot run this project's code (" in output
    assert "No module named 'tasks.running'" in output


@pytest.mark.slow
def test_a_worker_without_this_project_that_joins_later_is_refused(
    quick: Quick, cluster: Cluster, tmp_path: Path
) -> None:
    fit = cluster.start_worker()
    process, fifo = holding(quick, cluster, tmp_path)
    with fifo.open():
        foreign = cluster.start_worker(PYTHONPATH=pretend_foreign(tmp_path / "foreign"))
        cluster.wait()
        fit.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot run this project's code" in output
    assert "Traceback" not in output
    assert foreign.poll() is None  # it can belong to someone else


@pytest.mark.slow
def test_a_scheduler_of_another_version_is_refused(quick: Quick, tmp_path: Path) -> None:
    place = pretend(tmp_path / "other", "distributed", "2020.1.0")
    path = os.pathsep.join([place, str(quick.root)])
    with Cluster(quick, tmp_path, PYTHONPATH=path) as cluster:
        quick.give({"a": {"function": "make"}})
        output = failed(quick.doit(f"cluster={cluster.address}"))
    ours = distributed.__version__
    assert f"has distributed 2020.1.0, this build has {ours}" in output
    assert "`uv run dask scheduler`" in output


@pytest.mark.slow
def test_a_scheduler_does_not_need_this_project(quick: Quick, tmp_path: Path) -> None:
    place = pretend_foreign(tmp_path / "foreign")
    with Cluster(quick, tmp_path, PYTHONPATH=place) as cluster:
        cluster.start_worker()
        quick.give({"a": {"function": "make"}})
        succeeded(quick.doit(f"cluster={cluster.address}"))


# A real export.

SIGNALLED = """

_write_traced = write_traced


def write_traced(path, *arguments):
    from pathlib import Path
    if str(path).endswith("encoder.onnx") and not Path({once!r}).exists():
        import os
        Path({once!r}).write_text(str(os.getppid()))
        with Path({fifo!r}).open("w"):
            pass
    _write_traced(path, *arguments)
"""


@pytest.mark.slow
def test_killing_a_worker_during_an_export_gives_the_same_graphs_as_a_local_build(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    project.configure(MODEL)
    fifo, once = tmp_path / "fifo", tmp_path / "once"
    os.mkfifo(fifo)
    source = project.root / "tasks/export.py"
    source.write_text(source.read_text() + SIGNALLED.format(once=str(once), fifo=str(fifo)))
    once.write_text("not yet")
    succeeded(project.doit("export:tiny"))
    graphs = sorted((project.root / "build/models/tiny/exported").iterdir())
    made_here = [path.read_bytes() for path in graphs]
    assert len(graphs) == 2
    shutil.rmtree(project.root / "build/models")
    once.unlink()
    with Cluster(project, tmp_path) as cluster:
        for _ in range(2):
            cluster.start_worker("--resources", "memory=4e9")
        cluster.wait()
        process = project.start(f"cluster={cluster.address}", "export:tiny")
        wait_for_opening(fifo, process)
        half = list((project.root / "build/tmp").rglob("*~decoder.onnx"))
        assert len(half) == 1  # one graph is written, the other begins
        killed = int(once.read_text())
        cluster.worker(killed).kill()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert [path.read_bytes() for path in graphs] == made_here
    assert list((project.root / "build/tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["../../models/tiny/encoder.onnx", "/tmp/encoder.onnx"])
def test_files_from_a_worker_are_placed_only_in_the_stages_scratch_folder(name: str) -> None:
    made = {"tiny~encoder.onnx": ["0" * 64, 3]}
    assert set(job.paths_within(Path("scratch"), made)) == {Path("scratch/tiny~encoder.onnx")}
    with pytest.raises(StageError, match="outside of scratch"):
        job.paths_within(Path("scratch"), {**made, name: ["0" * 64, 3]})
