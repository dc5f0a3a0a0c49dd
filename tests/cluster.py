"""A Dask scheduler and its workers on loopback, each a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import distributed
from project import Project

# Equals `dask scheduler` and `dask worker`, which find these modules through entry points.
DASK = [
    sys.executable,
    "-Pc",
    "import sys; from importlib import import_module; name = sys.argv.pop(1); "
    "import_module(f'distributed.cli.dask_{name}').main()",
]


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A scheduler, and the workers that a test starts; all end with the ``with`` block."""

    def __init__(self, project: Project, folder: Path, **environment: str) -> None:
        """:param environment: for the scheduler, in addition to the project's."""
        self.project = project
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.workers: list[subprocess.Popen[bytes]] = []
        host, port = self.address.removeprefix("tcp://").split(":")
        self.scheduler = self._start(
            ["scheduler", "--host", host, "--port", port], project.root, environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def start_worker(
        self, *options: str, folder: Path | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker of two threads; `wait` blocks until it is connected.

        :param folder: the checkout to start it in; by default the project's folder.
        """
        command = ["worker", self.address, "--no-nanny", "--nthreads", "2", *options]
        command += ["--local-directory", str(self.folder)]
        place = folder or self.project.root
        process = self._start(command, place, {"PYTHONPATH": str(place), **environment})
        self.workers.append(process)
        return process

    def wait(self) -> None:
        """Wait until all started workers are connected."""
        alive = [each for each in self.workers if each.poll() is None]
        with distributed.Client(self.address, set_as_default=False, timeout=60) as client:
            client.wait_for_workers(len(alive), timeout=60)

    def _start(
        self, command: list[str], folder: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        log = self.folder / f"{command[0]}-{len(self.workers)}.log"
        with log.open("wb") as file:
            return subprocess.Popen(
                [*DASK, *command, "--no-dashboard"],
                cwd=folder,
                env={**self.project.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @property
    def pids(self) -> set[int]:
        """The process IDs of the workers."""
        return {each.pid for each in self.workers}

    def worker(self, pid: int) -> subprocess.Popen[bytes]:
        """The worker with a process ID."""
        (found,) = (each for each in self.workers if each.pid == pid)
        return found


Stages = dict[str, dict[str, Any]]
