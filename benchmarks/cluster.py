"""Measures the time a Dask cluster adds to a stage, and how well many stages fill its workers.

    uv run python benchmarks/cluster.py

Prints a Markdown table. Scheduler and workers are processes on this machine. The stages sleep, so
eight workers can share fewer cores: this measures the cluster, not the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster import Cluster, Stages  # noqa: E402
from project import Project  # noqa: E402

WORKERS = 8
STAGES = 64
SECONDS = 2


def make_project(folder: Path) -> Project:
    """A project with the stages of the cluster's tests."""
    project = Project(folder / "project", cheap=False)
    for name in ("cluster_dodo.py", "cluster_functions.py"):
        shutil.copy(ROOT / "tests/fakes" / name, project.root)
    project.dodo = "cluster_dodo.py"
    project.configure('[models.x]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n')
    return project


def seconds_of(project: Project, stages: Stages, *arguments: str) -> float:
    """How long a clean build of the stages takes."""
    shutil.rmtree(project.root / "build", ignore_errors=True)
    start = time.monotonic()
    outcome = project.doit(*arguments, STAGES=json.dumps(stages))
    assert outcome.status == 0, outcome.output
    return time.monotonic() - start


def of_a_stage(project: Project, *arguments: str) -> tuple[float, float]:
    """Seconds that a build with one stage takes, and that each further stage adds."""
    stages: Stages = {str(number): {"function": "make"} for number in range(11)}
    one = seconds_of(project, {"0": stages["0"]}, *arguments)
    return one, (seconds_of(project, stages, *arguments) - one) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = range(parser.parse_args().rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project = make_project(folder)
        with Cluster(project, folder) as cluster:
            for _ in range(WORKERS):
                cluster.start_worker("--nthreads", "1")
            cluster.wait()
            there = f"cluster={cluster.address}"
            pairs = [(of_a_stage(project), of_a_stage(project, there)) for _ in rounds]
            first = statistics.median(remote[0] - local[0] for local, remote in pairs)
            further = statistics.median(remote[1] - local[1] for local, remote in pairs)
            print("| what | seconds | target |\n|---|---|---|")
            print(
                f"| added to the first stage of a build: import, connect, check | {first:.2f} | |"
            )
            print(f"| added to each further stage | {further:.2f} | at most 0.5 |", flush=True)
            sleeping: Stages = {
                str(number): {"function": "work", "arguments": {"seconds": SECONDS}}
                for number in range(STAGES)
            }
            ideal = STAGES * SECONDS / WORKERS
            on_workers = f"on {WORKERS} workers of one thread"
            for where, at_once, arguments in (
                (on_workers, WORKERS, [there]),
                (on_workers, 4 * WORKERS, [there]),
                ("without a cluster", WORKERS, []),  # shows this machine's other load
            ):
                seconds = statistics.median(
                    seconds_of(project, sleeping, "-n", str(at_once), *arguments) for _ in rounds
                )
                target = "at most 1.25 ×" if arguments else ""
                print(
                    f"| {STAGES} stages of {SECONDS} s {where}, `-n {at_once}` | "
                    f"{seconds:.1f}, {seconds / ideal:.2f} × the ideal {ideal:.0f} | {target} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
