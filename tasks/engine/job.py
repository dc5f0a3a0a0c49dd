"""What a worker of a Dask cluster does for a stage: looks whether it is fit, and runs the child.

A worker is a process that `dask worker` starts in a checkout of this project. Nothing here imports
`distributed` before a worker does.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tasks.engine import child
from tasks.engine.child import PROJECT
from tasks.engine.errors import StageError, disk_problem
from tasks.engine.fingerprint import FINGERPRINTS

if TYPE_CHECKING:
    import distributed

# What a worker process has imported, which a checkout that moved on does not change.
_IMPORTED = ("tasks/engine/child.py", "tasks/engine/job.py")
_AT_START = {name: FINGERPRINTS.sha256(PROJECT / name) for name in _IMPORTED}


class Expected(TypedDict):
    """What must be the same for a worker as for the build.

    ``files`` are SHA-256 by paths relative to the project (or absolute), ``versions`` those of
    packages; ``token`` is a file of the build folder and what it holds.
    """

    files: dict[str, str]
    versions: dict[str, str]
    token: tuple[str, str]


def problems(expected: Expected) -> list[str]:
    """Why the outputs of this worker would not be those of the build; empty where they would."""
    token, text = expected["token"]
    found = []
    for name in _IMPORTED:
        if name in expected["files"] and _AT_START[name] != expected["files"][name]:
            found.append(f"runs another {name} than this build, or was started before it changed")
    found += [
        f"has {'another' if (PROJECT / name).is_file() else 'no'} {name}"
        for name, sha256 in expected["files"].items()
        if name not in _IMPORTED and sha256 != _sha256(PROJECT / name)
    ]
    if len(found) > 4:
        found[3:] = [f"{len(found) - 3} more files differ"]
    here = versions(expected["versions"])
    found += [
        f"has {name} {here[name]}, this build {version}"
        for name, version in expected["versions"].items()
        if here[name] != version
    ]
    if _text(PROJECT / token) != text:
        folder = (PROJECT / token).parents[2]
        found.append(f"does not see this build's folder as {folder}")
    return found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package as it is installed now, and Python's minor one."""
    found = {name: _version(name) for name in packages if name != "python"}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _sha256(path: Path) -> str | None:
    try:
        return FINGERPRINTS.sha256(path)
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def run_given(text: str) -> dict[str, Any]:
    """`run` what a text in JSON says."""
    return run(*json.loads(text))


def run(
    function: str, arguments: Mapping[str, Any], expected: Expected, scratch: str, log: str
) -> dict[str, Any]:
    """Run a stage's child here, in a folder of its own within the stage's scratch folder.

    A worker that was given up, but lives, must not write what the one after it is writing: so
    each attempt has its folder, and the build takes what is in that of the one which answered.

    :param arguments: as for `child.run`; paths within ``scratch`` become those of the attempt.
    :returns: ``result`` and ``attempt``, the folder's name; or ``error``, for people; or ``unfit``,
        what `problems` found of this ``worker``; or ``unwanted``, when it was told to leave it.
    """
    from distributed import get_worker

    worker = get_worker()
    unfit = problems(expected)
    if unfit:
        return {"unfit": unfit, "worker": worker.address}
    # The build folder is shared: inputs are there, and what is made is left there. With a folder
    # of the worker's own, inputs would be brought before the child runs, and outputs taken after.
    attempt = f"attempt-{uuid.uuid4().hex}"
    folder, log_file = PROJECT / scratch / attempt, PROJECT / log
    try:
        folder.mkdir()
        log_file.unlink(missing_ok=True)  # an attempt that was given up may still write to it
        result = child.run(
            function,
            moved(arguments, scratch, f"{scratch}/{attempt}"),
            log_file,
            verbose=False,
            folder=PROJECT,
            environment=_environment(),
            wanted=_wanted(worker),
        )
    except child.UnwantedError:
        shutil.rmtree(folder, ignore_errors=True)
        return {"unwanted": True}
    except StageError as error:
        text = str(error).replace(str(log_file), log)
        return {"error": f"{text}\nIt ran on the worker {worker.address}."}
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return {"error": problem}
    return {"result": result, "attempt": attempt}


def moved(value: Any, old: str, new: str) -> Any:
    """A JSON value in which each path that is ``old``, or in it, is ``new``, or in that; pure."""
    if isinstance(value, str):
        inside = value == old or value.startswith(f"{old}/")
        return new + value.removeprefix(old) if inside else value
    if isinstance(value, Mapping):
        return {key: moved(each, old, new) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [moved(each, old, new) for each in value]
    return value


def _environment() -> dict[str, str]:
    """This process's, without what Dask sets for its own tasks: one thread for each."""
    import dask

    preset = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    return {
        name: value
        for name, value in os.environ.items()
        if name not in preset or str(preset[name]) != value
    }


def _wanted(worker: distributed.Worker) -> Callable[[], bool]:
    """Whether the build still waits for the task that this thread runs.

    Dask does not interrupt a running task. When its build has ended, or cancelled it, the worker
    keeps it as cancelled; when the worker has lost its scheduler, it is closing.
    """
    from distributed import Status

    key = worker.get_current_task()
    ending = (Status.closing, Status.closed, Status.failed)

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled" and worker.status not in ending

    return wanted
