"""Runs the heavy part of stages on a Dask cluster, whose workers share the build folder.

One connection for the build, made by the first stage that is stale. A worker whose outputs would
not be this build's is left out, see `tasks.running.job`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import operator
import os
import pkgutil
import re
import secrets
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.state import recorded_values
from tasks.console.invocation import command
from tasks.remote import shared_cache
from tasks.remote.shared_cache import Output
from tasks.running import job
from tasks.running.child import PROJECT
from tasks.system.cache_settings import local_folder
from tasks.system.errors import StageError
from tasks.system.files import write_record
from tasks.system.fingerprint import FINGERPRINTS, dependency_hashes

if TYPE_CHECKING:
    import distributed

    from tasks.building.stage import Workspace

CONNECT = 5  # seconds that a scheduler has to answer
LOOK = 2  # seconds between two looks at the workers, while a stage waits

# Memory of a stage that never ran, in bytes: so much, and so many for each of its largest input.
# Of large's export, 856 MiB of weights make 4.3 GiB; it takes 4.1.
LEAST_MEMORY = 1 << 30
MEMORY_PER_BYTE = 4
MARGIN = 1.1  # more than at the last run

ATTEMPTS = 10  # at placing one stage, on workers that turn out unfit or are leaving

JOB = "tasks.running.job:run_given"

START = (
    "start both in checkouts of this project, after `uv sync --extra cluster`: "
    "`uv run dask scheduler`, and on each machine `uv run dask worker {address}`"
)


def asked(
    name: str,
    recorded: Mapping[str, Any],
    needs: Sequence[str],
    largest_input: int,
    workers: Sequence[Mapping[str, float]],
) -> dict[str, float]:
    """The resources that a stage asks of one worker; pure.

    Asked for is only what some worker declares: Dask would wait for ever for anything else.

    :param recorded: what the stage's last run returned: ``peak_memory``, ``cores``.
    :param needs: further resources, of which it takes one each.
    :param largest_input: in bytes.
    :param workers: the resources that each worker declares.
    :raises StageError: when it is known to need more memory than any worker has.
    """
    declared = {resource for each in workers for resource in each}
    wanted = {resource: 1.0 for resource in needs if resource in declared}
    able = [each for each in workers if all(each.get(resource, 0) >= 1 for resource in wanted)]
    if "memory" in declared:
        most = max((each.get("memory", 0) for each in able), default=0)
        known = recorded.get("peak_memory")
        guess = LEAST_MEMORY + MEMORY_PER_BYTE * largest_input
        memory = MARGIN * known if known else guess
        if needs:
            memory = max(memory, guess)  # the peak is that of a child, not of its browser
        if known and memory > most and not needs:
            raise StageError(
                f"{name} needs {_gibibytes(memory)} of memory ({_gibibytes(known)} at its last "
                f"run), and no worker declares more than {_gibibytes(most)}. Start one with more: "
                f'`dask worker ... --resources "memory={math.ceil(memory / 1e9)}e9"`.'
            )
        wanted["memory"] = min(memory, most)
        able = [each for each in able if each.get("memory", 0) >= wanted["memory"]]
    if "cores" in declared:
        cores = max(1, math.ceil(recorded.get("cores") or 1))
        wanted["cores"] = min(cores, max((each.get("cores", 0) for each in able), default=0))
    return wanted


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def run(
    address: str, work: Workspace, function: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Call ``module:function`` in a child process of a worker; as `tasks.running.child.run`.

    :param address: the scheduler's.
    :raises StageError: as the function raised it, or saying what is wrong with the cluster.
    """
    cluster = _connected(address)
    outcome = cluster.run(work, function, arguments)
    if "log" in outcome:  # of a worker that does not see this one
        write_record(work.log, outcome["log"])
    if work.verbose and os.access(work.log, os.R_OK):  # it may be of a worker's user
        sys.stderr.write(work.log.read_text(errors="replace"))
    if "error" in outcome:
        raise StageError(outcome["error"])
    if "made" in outcome:
        assert work.cache is not None
        shared_cache.opened_by(work.cache).take(within(work.scratch, outcome["made"]))
    else:
        for each in (work.scratch / outcome["attempt"]).iterdir():
            each.replace(work.scratch / each.name)
    result: dict[str, Any] = outcome["result"]
    return result


def within(folder: Path, made: Mapping[str, Sequence[Any]]) -> dict[Path, Output]:
    """Where to put what a worker says that it made; pure.

    :raises StageError: when that would be outside of the folder.
    """
    for name in made:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StageError(f"A worker says that it made {name}, which is outside of {folder}.")
    return {folder / name: Output(*each) for name, each in made.items()}


def lacks(work: Workspace, address: str) -> bool:
    """Whether a stage needs what no worker declares, and so runs in a child process here."""
    if not work.needs:
        return False
    declared = {name for each in _connected(address).workers().values() for name in each}
    return not declared.issuperset(work.needs)


_LOCK = threading.Lock()
_cluster: Cluster | StageError | None = None


def _connected(address: str) -> Cluster:
    """The one connection of this process; when it failed, each stage is told the same."""
    global _cluster
    with _LOCK:
        if _cluster is None:
            try:
                _cluster = Cluster(address)
            except StageError as error:
                _cluster = error
    if isinstance(_cluster, StageError):
        raise _cluster
    return _cluster


class Cluster:
    """A connection to a scheduler, and what is known of its workers.

    :raises StageError: when there is no scheduler, or none of this version.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            import distributed
        except ImportError:
            raise StageError(
                f"The build is to run on the cluster at {address}, and the package `distributed` "
                f"is not installed: `uv sync --extra cluster` installs it; {_without()} does "
                "without a cluster."
            ) from None
        # What it would print or log, a sentence says.
        logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module="distributed")
        self._distributed = distributed
        self._check_scheduler()
        try:
            self._client = distributed.Client(
                address, timeout=CONNECT, set_as_default=False, name="doit"
            )
        except Exception as error:
            raise self._unreachable(error) from None
        self._lock = threading.RLock()
        self._unfit: dict[str, str] = {}
        self._hands_over = False  # to workers that do not see the build folder
        self._checked = False
        self._looked = 0.0
        self._waiting = False

    def _check_scheduler(self) -> None:
        """Refuse a scheduler that does not speak as this process does."""
        ours = self._distributed.versions.get_versions()["packages"]
        try:
            theirs = asyncio.run(self._ask_versions())["packages"]
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        except Exception as error:  # of whatever version is at the other end
            theirs = {"distributed": f"of a version that answers otherwise ({_first_line(error)})"}
        differ = [
            f"{name} {theirs[name]}, this build {ours[name]}"
            for name in ("distributed", "dask", "python")
            if name in theirs and _minor(theirs[name], name) != _minor(ours[name], name)
        ]
        if differ:
            raise StageError(
                f"The scheduler at {self._address} has {'; '.join(differ)}. Stop it, and "
                f"{START.format(address=self._address)}. {_without()} does without a cluster."
            )

    async def _ask_versions(self) -> dict[str, Any]:
        """The scheduler's versions, asked as every version understands it."""
        secured = self._distributed.Security().get_connection_args("client")
        async with self._distributed.rpc(
            self._address, timeout=CONNECT, connection_args=secured
        ) as scheduler:
            told: dict[str, Any] = await asyncio.wait_for(scheduler.versions(packages=[]), CONNECT)
            return told

    def _unreachable(self, error: BaseException) -> StageError:
        return StageError(
            f"No Dask scheduler answers at {self._address}: {_first_line(error)}. If there is "
            f"none, {START.format(address=self._address)}. {_without()} does without a cluster."
        )

    def workers(self) -> dict[str, dict[str, float]]:
        """The resources that each worker declares, by its address; waits for the first worker."""
        while not (found := self._workers()):
            time.sleep(0.5)
        return found

    def _workers(self) -> dict[str, dict[str, float]]:
        """Those that are there now; says so, once, when none is."""
        try:
            told = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=30
            )
        except Exception:  # a closed client has no scheduler to ask, each version in its own words
            raise self._lost() from None
        if not told["workers"] and not self._waiting:
            sys.stderr.write(
                f"There is no worker at {self._address}; waiting for one. `uv run dask worker "
                f"{self._address}` starts one, in a checkout of this project.\n"
            )
        self._waiting = not told["workers"]
        return {address: each["resources"] for address, each in told["workers"].items()}

    def _lost(self) -> StageError:
        return StageError(
            f"The connection to the scheduler at {self._address} is lost. Finished stages are "
            "kept: start it again, and the workers, which end with it; then run the same command "
            f"to go on. {_without()} goes on without a cluster."
        )

    def run(self, work: Workspace, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Have a fit worker run a stage's child; what `tasks.running.job.run` returned."""
        with _expected(work) as expected:
            with self._lock:
                if not self._checked:
                    self.workers()
                    self._check_workers(expected)
                    self._checked = True
            for _ in range(ATTEMPTS):
                if self._hands_over and not expected["handed_over"]:
                    _hand_over(work, expected)
                outcome = self._attempt(work, function, arguments, expected)
                if outcome.keys() & {"result", "error"}:
                    return outcome
                if "unseen" in outcome:
                    self._hands_over = True
                elif "unfit" in outcome:
                    self._leave_out({outcome["worker"]: outcome["unfit"]})
                elif "unread" in outcome:
                    self._check_workers(expected)
        raise StageError(
            f"{ATTEMPTS} workers at {self._address} were given this and did not run it"
            f"{f', the last: {outcome}' if outcome else ''}. Their logs may say why."
        )

    def _attempt(
        self,
        work: Workspace,
        function: str,
        arguments: Mapping[str, Any],
        expected: job.Expected,
    ) -> dict[str, Any]:
        workers = self.workers()
        with self._lock:
            fit = [each for each in workers if each not in self._unfit]
            if not fit:
                raise self._none_is_fit()
        resources = asked(
            work.task.name,
            _recorded(work.build).get(work.task.name, {}),
            work.needs,
            max(map(_size, work.task.file_dep), default=0),
            [workers[each] for each in fit],
        )
        # Named as text: a worker that is sent what it cannot import would end, and it may be
        # somebody else's.
        given = json.dumps([function, arguments, expected, str(work.scratch), str(work.log)])
        key = f"{work.task.name.partition(':')[0]}-{uuid.uuid4().hex}"
        future = self._client.get(
            {key: (operator.call, (pkgutil.resolve_name, JOB), given)},
            key,
            sync=False,
            resources=resources,
            workers=fit if len(fit) < len(workers) else None,
        )
        try:
            return self._outcome(future, fit if len(fit) < len(workers) else [])
        finally:
            future.release()  # on Ctrl-C, what runs is cancelled

    def _outcome(self, future: distributed.Future, only: Sequence[str]) -> dict[str, Any]:
        """Wait for a job; empty when it must be given to other workers.

        :param only: the workers that may run it; empty is any.
        """
        errors = self._distributed
        while True:
            try:
                outcome: dict[str, Any] = future.result(timeout=LOOK)
                return outcome
            except TimeoutError:
                if self._look_after() and only and not set(only) & set(self._workers()):
                    return {}
            except errors.CancelledError:
                raise self._lost() from None
            except errors.KilledWorker as error:
                raise StageError(
                    f"Each worker that ran it ended meanwhile ({error.allowed_failures + 1} did, "
                    f"the last at {error.last_worker.address}); most often memory ran out. Start "
                    "workers with more memory, or with fewer threads, and say how much each has: "
                    '`dask worker ... --resources "memory=16e9"`.'
                ) from None
            except (ImportError, AttributeError, TypeError) as error:
                return {"unread": _first_line(error)}  # by a worker without this project's code
            except Exception as error:
                raise StageError(
                    f"The cluster at {self._address} could not run it: {type(error).__name__}: "
                    f"{_first_line(error)}"
                ) from None

    def _look_after(self) -> bool:
        """Look at the cluster, once in a while however many stages wait; whether it was time.

        :raises StageError: when the connection is lost.
        """
        with self._lock:
            if time.monotonic() - self._looked < LOOK:
                return False
            self._workers()
            self._looked = time.monotonic()
            return True

    def _check_workers(self, expected: job.Expected) -> None:
        """Ask every worker whether it is fit, and warn about each that is not.

        :raises StageError: when none is fit.
        """
        answers = self._client.run(job.problems, expected, on_error="return")
        self._leave_out(
            {
                address: [f"cannot run this project's code ({_first_line(found)})"]
                if isinstance(found, Exception)
                else found
                for address, found in answers.items()
            }
        )

    def _leave_out(self, found: Mapping[str, Sequence[str]]) -> None:
        """Give nothing more to workers that are not fit, and warn about them.

        :param found: what is wrong with each, by its address; empty of one that is fit.
        :raises StageError: when none is fit.
        """
        with self._lock:
            new = [each for each in found if found[each] and each not in self._unfit]
            for address in new:
                self._unfit[address] = f"{address} {'; '.join(found[address])}"
            if not self.workers().keys() - self._unfit.keys():
                raise self._none_is_fit()
            for address in new:
                sys.stderr.write(
                    f"warning: the worker {self._unfit[address]}. It is left out. {REPAIR}\n"
                )

    def _none_is_fit(self) -> StageError:
        reasons = "\n".join(f"- {each}" for each in self._unfit.values())
        return StageError(
            f"No worker at {self._address} would make what this build makes:\n{reasons}\n{REPAIR}"
        )


REPAIR = (
    "Start workers in a checkout that is the same as this one, with the packages that `uv sync` "
    "installs, and with the same build folder ([build] dir) on a shared disk, or a shared cache "
    "([cache] url) that this build may write to."
)


@contextlib.contextmanager
def _expected(work: Workspace) -> Iterator[job.Expected]:
    """What a worker must have for a stage, with a token in the stage's scratch folder."""
    inside = f"{work.build}/"
    own = [path.relative_to(PROJECT).as_posix() for path in (PROJECT / "tasks").rglob("*.py")]
    read = [path for path in work.task.file_dep if not path.startswith(inside)]
    read += work.stage.carries
    token = work.scratch / f"token-{uuid.uuid4().hex}"
    text = secrets.token_hex()
    token.write_text(text)
    try:
        yield {
            "files": dependency_hashes([*own, *read]),
            "versions": _versions(),
            "token": (str(token), text),
            "inputs": {
                path: (FINGERPRINTS.sha256(path), _size(path))
                for path in work.task.file_dep
                if path.startswith(inside) and Path(path).is_file()
            },
            "cache": _shown(work),
            "handed_over": False,
        }
    finally:
        token.unlink(missing_ok=True)


def _shown(work: Workspace) -> job.SharedBy | None:
    """A cache that files can be handed over by, for a worker elsewhere, without what opens it."""
    cache = work.cache
    if cache is None or not cache.write:
        return None
    folder = local_folder(cache.url)
    return {
        "url": str(folder.absolute()) if folder else cache.shown,
        "whole": cache.shown == cache.url and not cache.options,
        "config": str(work.config.path),
    }


def _hand_over(work: Workspace, expected: job.Expected) -> None:
    """Put what a stage reads into the cache, where a worker finds it."""
    assert work.cache is not None
    inputs = {Path(path): Output(*each) for path, each in expected["inputs"].items()}
    shared_cache.opened_by(work.cache).hand_over(inputs)
    expected["handed_over"] = True


@functools.cache
def _versions() -> dict[str, str]:
    """Those of the packages that this project is pinned to, and of those that come with them."""
    told = metadata.requires("sam2-onnx-build") or []
    own = [re.split(r"[^\w.-]", each)[0] for each in told if "extra ==" not in each]
    return job.versions(sorted({*own, "torchvision", "distributed"}))


@functools.cache
def _recorded(build: Path) -> dict[str, dict[str, Any]]:
    """What stages returned before this build began."""
    return recorded_values(build / "state" / "doit.json")


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _minor(version: str, name: str) -> str:
    """Of Python's version, what must be the same; all of a package's."""
    return ".".join(version.split(".")[:2]) if name == "python" else version


def _without() -> str:
    return command("", cluster="off")
