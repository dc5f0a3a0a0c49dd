"""Runs the heavy part of stages on a Dask cluster, whose workers share the build folder or a cache.

The first stale stage opens one connection for the build. Workers whose outputs would differ from
this build's are left out, see `tasks.running.job`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.console.invocation import command
from tasks.remote.cache_settings import local_folder
from tasks.remote.shared_cache import SharedCache
from tasks.remote.storage import output_of
from tasks.running import job
from tasks.running.child import PROJECT
from tasks.running.resources import resources_for
from tasks.system.errors import StageError
from tasks.system.files import write_record
from tasks.system.fingerprint import dependency_hashes

if TYPE_CHECKING:
    import distributed

CONNECT = 5  # seconds to wait for a scheduler's answer
LOOK = 2  # seconds between checks of the workers, while a stage waits

ATTEMPTS = 10  # to place one stage, if workers turn out unfit or are leaving

# Named as text: a worker would end if it got code that it cannot import, and it can belong to
# somebody else.
JOB = "tasks.running.job:run_given"
READ_CACHE = "tasks.config.parse:cache_of"

START = (
    "start both in checkouts of this project, after `uv sync --extra cluster`: "
    "`uv run dask scheduler`, and on each machine `uv run dask worker {address}`"
)

REPAIR = (
    "Start workers in an identical checkout, with the packages that `uv sync` installs, and with "
    "the same build folder ([build] dir) on a shared disk, or a shared cache ([cache] url) that "
    "this build can write to."
)


@dataclass(frozen=True)
class Work:
    """A stage whose child runs on a worker.

    ``reads`` are all files that the stage depends on, ``carries`` other files that a worker must
    have in the same version, ``needs`` resources of a worker besides memory and cores.
    """

    name: str
    scratch: Path
    log: Path
    verbose: bool
    reads: Sequence[str]
    carries: Sequence[str]
    needs: Sequence[str]


@dataclass(eq=False)
class Cluster:
    """The workers of a scheduler, for one build; connected when a stage first needs them.

    The ``cache`` carries files to workers that do not see the ``build`` folder; ``config`` is the
    configuration's file, ``last_runs`` has the values of each stage's last run before this build.
    """

    _address: str
    _build: Path
    _config: Path
    _cache: SharedCache | None
    _last_runs: Mapping[str, Mapping[str, Any]]
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _connection: distributed.Client | StageError | None = None
    _unfit: dict[str, str] = field(default_factory=dict)
    _uses_cache: bool = False  # true if a worker does not see the build folder
    _checked: bool = False
    _looked: float = 0.0
    _waiting: bool = False

    def must_run_locally(self, work: Work) -> bool:
        """Whether a stage needs a resource that no worker declares."""
        return bool(work.needs) and not set(work.needs) <= {
            name for each in self.workers().values() for name in each
        }

    def run(self, work: Work, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call ``module:function`` in a child process of a worker, like `tasks.running.child.run`.

        :raises StageError: raised by the function, or with the cluster's problem.
        """
        outcome = self._place(work, function, arguments)
        if "log" in outcome:  # from a worker that does not see this machine's log
            write_record(work.log, outcome["log"])
        if work.verbose and os.access(work.log, os.R_OK):  # a worker's user can own it
            sys.stderr.write(work.log.read_text(errors="replace"))
        if "error" in outcome:
            raise StageError(outcome["error"])
        if "made" in outcome:
            assert self._cache is not None
            self._cache.download(job.paths_within(work.scratch, outcome["made"]))
        else:
            for each in (work.scratch / outcome["attempt"]).iterdir():
                each.replace(work.scratch / each.name)
        result: dict[str, Any] = outcome["result"]
        return result

    def _place(self, work: Work, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a stage's child on a fit worker, and return the outcome of `job.run_given`."""
        with self._requirements(work) as expected:
            with self._lock:
                if not self._checked:
                    self.workers()
                    self._check_workers(expected)
                    self._checked = True
            for _ in range(ATTEMPTS):
                if self._uses_cache and not expected["uploaded"]:
                    assert self._cache is not None
                    self._cache.upload({Path(p): each for p, each in expected["inputs"].items()})
                    expected["uploaded"] = True
                outcome = self._attempt(work, function, arguments, expected)
                if outcome.keys() & {"result", "error"}:
                    return outcome
                if "unseen" in outcome:
                    self._uses_cache = True
                elif "unfit" in outcome:
                    self._leave_out({outcome["worker"]: outcome["unfit"]})
                elif "unread" in outcome:
                    self._check_workers(expected)
        raise StageError(
            f"{ATTEMPTS} workers at {self._address} received this stage and did not run it"
            f"{f', the last: {outcome}' if outcome else ''}. See the workers' logs."
        )

    @property
    def _client(self) -> distributed.Client:
        """The one connection; if it failed, each stage gets the same error."""
        with self._lock:
            if self._connection is None:
                try:
                    self._connection = self._connect()
                except StageError as error:
                    self._connection = error
            if isinstance(self._connection, StageError):
                raise self._connection
            return self._connection

    def _connect(self) -> distributed.Client:
        """Connect; raises a `StageError` for a missing scheduler, or one of another version."""
        try:
            import distributed
        except ImportError:
            raise StageError(
                f"Building on the cluster at {self._address} needs the package `distributed`, "
                "which is not installed: `uv sync --extra cluster` installs it; "
                f"{_without()} builds without a cluster."
            ) from None
        # An error message replaces its own output.
        logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module="distributed")
        self._check_scheduler()
        try:
            return distributed.Client(
                self._address, timeout=CONNECT, set_as_default=False, name="doit"
            )
        except Exception as error:
            raise self._unreachable(error) from None

    def _check_scheduler(self) -> None:
        """Refuse a scheduler with other versions than this process."""
        from distributed.versions import get_versions

        ours = get_versions()["packages"]
        try:
            theirs = asyncio.run(self._ask_versions())["packages"]
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        except Exception as error:  # the scheduler can have any version
            theirs = {"distributed": f"of an incompatible version ({_first_line(error)})"}
        # A package must have the same full version, Python the same minor version.
        differ = [
            f"{name} {theirs[name]}, this build has {ours[name]}"
            for name, parts in (("distributed", None), ("dask", None), ("python", 2))
            if name in theirs and theirs[name].split(".")[:parts] != ours[name].split(".")[:parts]
        ]
        if differ:
            raise StageError(
                f"The scheduler at {self._address} has {'; '.join(differ)}. Stop it, and "
                f"{START.format(address=self._address)}. {_without()} builds without a cluster."
            )

    async def _ask_versions(self) -> dict[str, Any]:
        """The scheduler's versions, from a request that every version understands."""
        from distributed import Security, rpc

        secured = Security().get_connection_args("client")
        async with rpc(self._address, timeout=CONNECT, connection_args=secured) as scheduler:
            answer = scheduler.versions(packages=[])
            versions: dict[str, Any] = await asyncio.wait_for(answer, CONNECT)
            return versions

    def _unreachable(self, error: BaseException) -> StageError:
        return StageError(
            f"No Dask scheduler answers at {self._address}: {_first_line(error)}. If none is "
            f"running, {START.format(address=self._address)}. {_without()} builds without a "
            "cluster."
        )

    def workers(self) -> dict[str, dict[str, float]]:
        """The resources that each worker declares, by its address; waits for the first worker."""
        while not (workers := self._workers()):
            time.sleep(0.5)
        return workers

    def _workers(self) -> dict[str, dict[str, float]]:
        """The current workers; prints a message once if there are none."""
        client = self._client
        try:
            identity = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=30)
        except Exception:  # a closed client has no scheduler; the error differs between versions
            raise self._lost() from None
        if not identity["workers"] and not self._waiting:
            sys.stderr.write(
                f"There is no worker at {self._address}; waiting for one. `uv run dask worker "
                f"{self._address}` starts one, in a checkout of this project.\n"
            )
        self._waiting = not identity["workers"]
        return {address: each["resources"] for address, each in identity["workers"].items()}

    def _lost(self) -> StageError:
        return StageError(
            f"The connection to the scheduler at {self._address} is lost. Finished stages are "
            "kept. Restart the scheduler and its workers, which end with it; then run the same "
            f"command to continue. {_without()} continues without a cluster."
        )

    def _attempt(
        self, work: Work, function: str, arguments: Mapping[str, Any], expected: job.Expected
    ) -> dict[str, Any]:
        workers = self.workers()
        with self._lock:
            fit = [each for each in workers if each not in self._unfit]
            if not fit:
                raise self._none_is_fit()
        resources = resources_for(
            work.name,
            self._last_runs.get(work.name, {}),
            work.needs,
            max((os.path.getsize(each) for each in work.reads if os.path.isfile(each)), default=0),
            [workers[each] for each in fit],
        )
        only = fit if len(fit) < len(workers) else []
        text = json.dumps([function, arguments, expected, str(work.scratch), str(work.log)])
        key = f"{work.name.partition(':')[0]}-{uuid.uuid4().hex}"
        future = self._client.get(
            {key: (operator.call, (pkgutil.resolve_name, JOB), text)},
            key,
            sync=False,
            resources=resources,
            workers=only or None,
        )
        try:
            return self._outcome(future, only)
        finally:
            future.release()  # on Ctrl-C, this cancels the running job

    def _outcome(self, future: distributed.Future, only: Sequence[str]) -> dict[str, Any]:
        """Wait for a job on ``only`` some workers or on any; empty if it must go to others."""
        from distributed import CancelledError, KilledWorker

        while True:
            try:
                outcome: dict[str, Any] = future.result(timeout=LOOK)
                return outcome
            except TimeoutError:
                if self._look_after() and only and not set(only) & set(self._workers()):
                    return {}
            except CancelledError:
                raise self._lost() from None
            except KilledWorker as error:
                raise StageError(
                    f"Each worker that ran it ended meanwhile ({error.allowed_failures + 1} did, "
                    f"the last at {error.last_worker.address}), usually because memory ran out. "
                    "Start workers with more memory, or with fewer threads, and declare "
                    'the memory of each: `dask worker ... --resources "memory=16e9"`.'
                ) from None
            except (ImportError, AttributeError, TypeError) as error:
                return {"unread": _first_line(error)}  # from a worker without this project's code
            except Exception as error:
                raise StageError(
                    f"The cluster at {self._address} could not run it: {type(error).__name__}: "
                    f"{_first_line(error)}"
                ) from None

    def _look_after(self) -> bool:
        """Check the cluster at intervals, shared by all waiting stages; whether it was time."""
        with self._lock:
            if time.monotonic() - self._looked < LOOK:
                return False
            self._workers()
            self._looked = time.monotonic()
            return True

    def _check_workers(self, expected: job.Expected) -> None:
        """Check whether every worker is fit; see `_leave_out`."""
        answers = self._client.run(job.problems, expected, on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, Exception):
                answers[address] = [f"cannot run this project's code ({_first_line(answer)})"]
        self._leave_out(answers)

    def _leave_out(self, problems: Mapping[str, Sequence[str]]) -> None:
        """Stop using workers with ``problems``, by address, and warn about them.

        :raises StageError: when no worker is fit.
        """
        with self._lock:
            new = [each for each in problems if problems[each] and each not in self._unfit]
            for address in new:
                self._unfit[address] = f"{address} {'; '.join(problems[address])}"
            if not self.workers().keys() - self._unfit.keys():
                raise self._none_is_fit()
            for address in new:
                sys.stderr.write(
                    f"warning: the worker {self._unfit[address]}. It is left out. {REPAIR}\n"
                )

    def _none_is_fit(self) -> StageError:
        reasons = "\n".join(f"- {each}" for each in self._unfit.values())
        return StageError(f"No compatible worker at {self._address}:\n{reasons}\n{REPAIR}")

    @contextmanager
    def _requirements(self, work: Work) -> Iterator[job.Expected]:
        """The requirements of a stage on a worker, with a token in the stage's scratch folder."""
        inside = f"{self._build}/"
        own = [path.relative_to(PROJECT).as_posix() for path in (PROJECT / "tasks").rglob("*.py")]
        outside = [path for path in work.reads if not path.startswith(inside)]
        inputs = [path for path in work.reads if path.startswith(inside) and os.path.isfile(path)]
        token, text = work.scratch / f"token-{uuid.uuid4().hex}", secrets.token_hex()
        token.write_text(text)
        try:
            yield {
                "files": dependency_hashes([*own, *outside, *work.carries]),
                "versions": _versions(),
                "token": (str(token), text),
                "inputs": {path: output_of(Path(path)) for path in inputs},
                "cache": self._cache_without_secrets(),
                "uploaded": False,
            }
        finally:
            token.unlink(missing_ok=True)

    def _cache_without_secrets(self) -> job.CacheOffer | None:
        """The cache for a worker that does not see the build folder, without its credentials."""
        settings = self._cache.settings if self._cache is not None else None
        if settings is None or not settings.write:
            return None
        folder = local_folder(settings.url)
        return {
            "url": str(folder.absolute()) if folder else settings.shown,
            "whole": settings.shown == settings.url and not settings.options,
            "config": str(self._config),
            "reader": READ_CACHE,
        }


@functools.cache
def _versions() -> dict[str, str]:
    """The versions of the packages that this project pins, and of their dependencies."""
    required = metadata.requires("sam2-onnx-build") or []
    own = [re.split(r"[^\w.-]", each)[0] for each in required if "extra ==" not in each]
    return job.versions_here(sorted({*own, "torchvision", "distributed"}))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _without() -> str:
    return command("", cluster="off")
