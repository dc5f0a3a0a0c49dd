"""The part of a Dask cluster's worker: it checks whether it is fit, and runs a stage's child.

A worker is a process that `dask worker` starts in a checkout of this project. Nothing here imports
`distributed` before a worker does.
"""

from __future__ import annotations

import json
import os
import pkgutil
import platform
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tasks.remote.cache_settings import CacheSettings
from tasks.remote.shared_cache import SharedCache
from tasks.remote.storage import Output, output_of
from tasks.running import child
from tasks.running.child import PROJECT
from tasks.system.errors import StageError, disk_problem
from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import NOT_INSTALLED

if TYPE_CHECKING:
    import distributed

# The code that a worker process has imported, which stays when its checkout changes.
_IMPORTED = (
    "tasks/running/child.py",
    "tasks/running/job.py",
    "tasks/remote/shared_cache.py",
    "tasks/remote/storage.py",
)
_AT_START = {name: FINGERPRINTS.dependency(str(PROJECT / name)) for name in _IMPORTED}


class CacheOffer(TypedDict):
    """A cache without secrets, for a cluster: ``url`` has neither user, password nor query.

    If ``whole``, that opens it. Otherwise a worker takes the rest, and the options, from its own
    configuration: the function ``reader``, ``module:function``, reads the file ``config``.
    """

    url: str
    whole: bool
    config: str
    reader: str


class Expected(TypedDict):
    """The requirements of the build on a worker.

    ``files`` are hashes of code or bytes by paths relative to the project (or absolute),
    ``versions`` the versions of packages; ``token`` is a file of the build folder and its text. A
    worker that does not see it takes ``inputs`` (SHA-256 and size by path) from the ``cache``,
    after they are ``uploaded``.
    """

    files: dict[str, str]
    versions: dict[str, str]
    token: tuple[str, str]
    inputs: dict[str, Output]
    cache: CacheOffer | None
    uploaded: bool


def problems(expected: Expected) -> list[str]:
    """Why this worker's outputs would differ from the build's; empty if they would not."""
    token, _ = expected["token"]
    reasons = [
        f"runs another version of {name} than this build, or was started before it changed"
        for name in _IMPORTED
        if name in expected["files"] and _AT_START[name] != expected["files"][name]
    ]
    reasons += [
        f"has {'another version of' if (PROJECT / name).is_file() else 'no'} {name}"
        for name, sha256 in expected["files"].items()
        if name not in _IMPORTED and sha256 != _sha256(PROJECT / name)
    ]
    if len(reasons) > 4:
        reasons[3:] = [f"{len(reasons) - 3} more files differ"]
    here = versions_here(expected["versions"])
    reasons += [
        f"has {name} {here[name]}, this build has {version}"
        for name, version in expected["versions"].items()
        if here[name] != version
    ]
    offer = expected["cache"]
    if cache_of(offer) is None and not sees_folder(expected):
        reason = f"does not see this build's folder as {(PROJECT / token).parents[2]}"
        if offer is not None:
            reason += (
                f", and its {offer['config']} does not configure the cache {offer['url']}: the "
                "build sends neither the secrets in the address nor its options"
            )
        reasons.append(reason)
    return reasons


def cache_of(offer: CacheOffer | None) -> CacheSettings | None:
    """The settings with which this worker opens the cache; None if it cannot."""
    if offer is None:
        return None
    own: CacheSettings | None = pkgutil.resolve_name(offer["reader"])(PROJECT / offer["config"])
    if own is not None and own.shown == offer["url"]:
        return own
    return CacheSettings(offer["url"]) if offer["whole"] else None


def sees_folder(expected: Expected) -> bool:
    """Whether the build folder is shared with this worker."""
    token, text = expected["token"]
    return _text(PROJECT / token) == text


def versions_here(packages: Iterable[str]) -> dict[str, str]:
    """The currently installed version of each package, and Python's minor version."""
    # Not `versions`, which caches them: a package can be replaced under a running worker.
    installed = {name: _version(name) for name in packages if name != "python"}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **installed}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _sha256(path: Path) -> str | None:
    with suppress(OSError):
        return FINGERPRINTS.dependency(str(path))
    return None


def _text(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return None


def run_given(text: str) -> dict[str, Any]:
    """Run a stage's child here, in its own folder within the stage's scratch folder.

    An abandoned worker that still runs must not write the files of the next worker. So each attempt
    has its own folder, and the build takes the folder of the attempt that answered.

    :param text: in JSON, the function and arguments for `child.run`, the `Expected`, and the
        stage's scratch folder and log; paths in that folder are moved to the attempt's folder.
    :returns: ``result`` and ``attempt``, the folder's name, or ``made``, the files stored in the
        cache, with the ``log``'s text; or ``error``, a message; or ``unfit``, the `problems` of
        this ``worker``; or ``unseen``, if the inputs must be uploaded first; or ``unwanted``, if
        the build cancelled it.
    """
    from distributed import get_worker

    function, arguments, expected, scratch, shown_log = json.loads(text)
    worker = get_worker()
    unfit = problems(expected)
    if unfit:
        return {"unfit": unfit, "worker": worker.address}
    shared = sees_folder(expected)
    if shared:
        folder, log = PROJECT / scratch / f"attempt-{uuid.uuid4().hex}", PROJECT / shown_log
    elif not expected["uploaded"]:
        return {"unseen": True}
    else:
        folder = Path(tempfile.mkdtemp(dir=worker.local_directory)) / "attempt"
        log = folder.with_name("log")
    try:
        folder.mkdir()
        arguments = rebase_paths(arguments, scratch, str(folder))
        if not shared:
            arguments = fetch_inputs(arguments, expected, Path(worker.local_directory) / "inputs")
        result = child.run(
            function,
            arguments,
            log,
            verbose=False,
            folder=PROJECT,
            environment=_environment(),
            wanted=_wanted(worker),
        )
        if shared:
            return {"result": result, "attempt": folder.name}
        made = upload_outputs(folder, expected)
        return {"result": result, "made": made, "log": _text(log) or ""}
    except child.UnwantedError:
        shutil.rmtree(folder, ignore_errors=True)
        return {"unwanted": True}
    except StageError as error:
        words = str(error).replace(str(log), shown_log)
        return {"error": f"{words}\nIt ran on the worker {worker.address}."}
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return {"error": problem}
    finally:
        if not shared:
            shutil.rmtree(folder.parent, ignore_errors=True)


def fetch_inputs(
    arguments: Mapping[str, Any], expected: Expected, folder: Path
) -> Mapping[str, Any]:
    """Fetch a stage's inputs from the cache, and return its arguments with their paths here.

    :param folder: stores the inputs under their hashes, for other stages that read them.
    """
    for path, (sha256, size) in expected["inputs"].items():  # lists, because JSON has no tuples
        here = folder / sha256 / Path(path).name
        if not here.is_file():
            unfinished = here.with_name(f"{here.name}.{uuid.uuid4().hex}")
            _cache(expected).download({unfinished: Output(sha256, size)})
            unfinished.replace(here)
        arguments = rebase_paths(arguments, path, str(here))
    return arguments


def upload_outputs(folder: Path, expected: Expected) -> dict[str, Output]:
    """Store a folder's files in the cache; return their hashes by their paths in the folder."""
    made = {path: output_of(path) for path in folder.rglob("*") if path.is_file()}
    _cache(expected).upload(made)
    return {path.relative_to(folder).as_posix(): output for path, output in made.items()}


def paths_within(folder: Path, made: Mapping[str, Sequence[Any]]) -> dict[Path, Output]:
    """The paths for a worker's files; raises a `StageError` for a path outside; pure."""
    for name in made:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StageError(f"A worker returned the file {name}, which is outside of {folder}.")
    return {folder / name: Output(*each) for name, each in made.items()}


def _cache(expected: Expected) -> SharedCache:
    settings = cache_of(expected["cache"])
    assert settings is not None
    return SharedCache(settings)


def rebase_paths(value: Any, old: str, new: str) -> Any:
    """A JSON value in which each path ``old``, or below it, becomes ``new``, or below it; pure."""
    if isinstance(value, str):
        inside = value == old or value.startswith(f"{old}/")
        return new + value.removeprefix(old) if inside else value
    if isinstance(value, Mapping):
        return {key: rebase_paths(each, old, new) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rebase_paths(each, old, new) for each in value]
    return value


def _environment() -> dict[str, str]:
    """This process's environment, without Dask's settings of one thread for each task."""
    import dask

    preset = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    return {
        name: value
        for name, value in os.environ.items()
        if name not in preset or str(preset[name]) != value
    }


def _wanted(worker: distributed.Worker) -> Callable[[], bool]:
    """Whether the build still waits for the task that this thread runs.

    Dask does not interrupt a running task. If its build has ended, or cancelled it, the worker
    keeps it as cancelled; if the worker has lost its scheduler, it is closing.
    """
    from distributed import Status

    key = worker.get_current_task()
    ending = (Status.closing, Status.closed, Status.failed)

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled" and worker.status not in ending

    return wanted
