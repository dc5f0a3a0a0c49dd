"""What every stage has: its declaration to doit, a log, a scratch folder, a child process."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from doit.exceptions import TaskError, TaskFailed

from tasks.building import sources
from tasks.building.staleness import (
    MEASURED_BY,
    ON_WORKER,
    Inputs,
    Measurer,
    Trace,
    versions_of_imported,
)
from tasks.building.state import recorded_values
from tasks.console import address
from tasks.console.invocation import command
from tasks.console.progress import SILENT, show_progress
from tasks.remote import shared_cache
from tasks.running import child
from tasks.system import machine
from tasks.system.errors import StageError, disk_problem
from tasks.system.files import mebibytes, scratch_folder
from tasks.system.fingerprint import FINGERPRINTS, hashes_of

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.config.schema import CacheSettings, Configuration

FROM_CACHE = "from_cache"  # in the values of a task whose outputs came from there
WORTH_A_PROGRESS = 64 << 20  # bytes

_CONFIG: Configuration | None = None


def run_on(config: Configuration) -> None:
    """Have the heavy part of stages run where a configuration says: on a Dask cluster, or here."""
    global _CONFIG
    _CONFIG = config


Action = Callable[..., dict[str, Any] | None]
Paths = Sequence[str | os.PathLike[str]]
Shared = Literal["files", "proof"]


def declare(
    name: str | None,
    action: Action,
    arguments: Sequence[Any],
    *,
    reads: Paths,
    writes: Paths,
    inputs: Inputs | Callable[[], Inputs],
    also_runs: Sequence[str] = (),
    shared: Shared | None = None,
    browser: Callable[[], Measurer] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """doit's task of a stage.

    The project's own modules that the action, and what it runs in a child, can reach are file
    dependencies; see `tasks.building.sources`.

    :param name: of the subtask.
    :param reads: the files that the action reads.
    :param writes: the files that come out.
    :param inputs: what else shapes them (options, versions); must survive JSON.
    :param also_runs: functions, ``module:function``, that the configuration names; the versions of
        the packages that they import are among the inputs.
    :param shared: whether a shared cache may hold what comes out: ``"files"``, which are proven
        here, or a ``"proof"``, which is taken from there only where the configuration says so, and
        if a processor with the same features measured. The action's first argument is then the
        configuration.
    :param browser: says in which browser the action measures; asked only when the stages before
        have run.
    :param more: other keys of a doit task; ``uptodate`` is asked besides the trace, ``file_dep``
        are files that the action does without, ``meta`` says of what runs in a child what it
        ``"needs"`` of a cluster's worker, ``"with_files"`` as they are here; or that it must run
        ``"here"``.
    """
    roots = [f"{action.__module__}:{action.__qualname__}", *also_runs]
    code = sources.reached(roots)
    own, also = inputs, versions_of_imported(sources.packages(also_runs))
    inputs = (lambda: {**own(), **also}) if callable(own) else {**own, **also}
    measurer = functools.partial(_measurer, browser) if shared == "proof" else None
    run = action
    if shared is not None and arguments[0].cache is not None:
        run = _shared(action, measurer, reads, writes, code, inputs, list(also_runs))
    return {
        **({"name": name} if name else {}),
        "actions": [(guarded(run, reads), list(arguments))],
        "targets": [os.fspath(path) for path in writes],
        "io": {"capture": False},
        **more,
        "file_dep": sorted({*map(os.fspath, (*reads, *more.get("file_dep", ()))), *code}),
        "uptodate": [
            Trace(inputs, measurer, on_workers=_CONFIG is not None and _CONFIG.cluster is not None),
            *more.get("uptodate", []),
        ],
    }


def _measurer(browser: Callable[[], Measurer] | None) -> Measurer:
    """What measures on this machine: its processor, and a browser where one is used."""
    return {"processor": machine.processor(), **(browser() if browser else {})}


def guarded(action: Action, reads: Paths) -> Callable[..., Any]:
    """doit's action: a `StageError`, a missing file or a full disk becomes a failed task."""

    @functools.wraps(action)
    def run_action(
        *args: Any, task: Task, **kwargs: Any
    ) -> dict[str, Any] | TaskFailed | TaskError | None:
        missing = [os.fspath(path) for path in reads if not os.path.isfile(path)]
        if missing:
            return TaskFailed(
                f"{task.name} reads {', '.join(missing)}, which is not there. "
                f"{command(task.name)} (without -s) makes it first."
            )
        try:
            return action(*args, task=task, **kwargs)
        except StageError as error:
            return TaskFailed(str(error))
        except OSError as error:
            problem = disk_problem(error)
            if problem is None:
                return _unexpected()
            return TaskFailed(problem)
        except Exception:
            return _unexpected()

    return run_action


def _unexpected() -> TaskError:
    """A mistake of the build's own, with its traceback, whose texts may be a library's."""
    text = traceback.format_exc()
    if _CONFIG is not None:
        if _CONFIG.cache is not None:
            text = address.without_secrets(text, _CONFIG.cache.url, _CONFIG.cache.options)
        for url in {model.source.url for model in _CONFIG.models}:
            text = address.without_secrets(text, url)
    return TaskError(address.without_secrets(text))


def _shared(
    action: Action,
    measurer: Callable[[], Measurer] | None,
    reads: Paths,
    writes: Paths,
    code: Paths,
    inputs: Inputs | Callable[[], Inputs],
    also_runs: Sequence[str],
) -> Action:
    """The action, or what the same action made in another build.

    The key has the hash of every file that is read and of the code, but neither their folders nor
    the model's name: builds with other names share what is the same. That of a proof has what
    measured too: it is looked for under this machine's, and stored under that of the machine that
    did.

    :param measurer: of a proof, what measures here.
    """
    stage = action.__module__.rpartition(".")[2]
    named = {os.fspath(path): f"file {number}" for number, path in enumerate((*reads, *writes))}

    def key(task: Task, measured_by: Measurer | None) -> str:
        decided_by = {
            "action": action.__qualname__,
            "options": task.options or {},
            "inputs": [inputs() if callable(inputs) else inputs, also_runs],
            "reads": [FINGERPRINTS.sha256(path) for path in reads],
            "code": hashes_of(code),
            "writes": [os.path.basename(path) for path in writes],
            **({"measured by": measured_by} if measured_by else {}),
        }
        return shared_cache.key_of(stage, decided_by, named)

    @functools.wraps(action)
    def run_or_fetch(config: Configuration, *args: Any, task: Task, **kwargs: Any) -> Any:
        assert config.cache is not None
        cache = shared_cache.opened_by(config.cache)
        here = measurer() if measurer else None
        before = key(task, here)
        if measurer is None or config.cache.proofs:
            entry = cache.find(stage, before, len(writes))
            if entry is not None and fetched(cache, entry, config, writes, task):
                summary = f"from {cache.name}: {entry.result.get('summary', '')}"
                return {**entry.result, "summary": summary, FROM_CACHE: cache.name}
        try:
            result = action(config, *args, task=task, **kwargs)
        except StageError as error:
            raise StageError(f"{error}{_told_of_cache(config, task)}") from error
        # What changed under the run, or could not be run here, is nobody else's.
        if isinstance(result, dict) and "unavailable" not in result and key(task, here) == before:
            measured_by = {**here, **task.values.get(MEASURED_BY, {})} if here else None
            place = key(task, measured_by)
            cache.store(stage, place, [Path(path) for path in writes], result)
        return result

    return run_or_fetch


def fetched(
    cache: shared_cache.SharedCache,
    entry: shared_cache.Entry,
    config: Configuration,
    writes: Paths,
    task: Task,
) -> bool:
    """Whether what an entry has is in place now, as if it had been built."""
    targets = [Path(path) for path in writes]
    slow = cache.is_remote and sum(each.size for each in entry.outputs) >= WORTH_A_PROGRESS
    with workspace(config.build, task) as work:
        unfinished = [Path(work.unfinished(target)) for target in targets]
        if not cache.fetch(entry, unfinished, show_progress(task.name) if slow else SILENT):
            return False
        work.deliver(*targets)
    for target, output in zip(targets, entry.outputs, strict=True):
        FINGERPRINTS.remember(target, output.sha256)
    return True


def _told_of_cache(config: Configuration, task: Task) -> str:
    """What to do about a stage that fails on files of a cache; empty where there are none."""
    records = recorded_values(config.build / "state" / "doit.json")
    makers = {
        name: values[FROM_CACHE]
        for name, values in records.items()
        if values.get(FROM_CACHE) and task.file_dep & values.get("outputs", {}).keys()
    }
    if not makers:
        return ""
    again = command(f"-a {' '.join(makers)}")
    return (
        f"\nWhat it read came from the cache {next(iter(makers.values()))} ({', '.join(makers)}): "
        f"{again} builds it here and puts it in the place of that."
    )


@dataclass(frozen=True)
class Workspace:
    """A log and a scratch folder that no other stage has, and how a stage runs its child."""

    build: Path
    task: Task
    scratch: Path
    log: Path

    @property
    def verbose(self) -> bool:
        """Whether what the child prints is shown."""
        return bool(self.task.verbosity == 2)

    @property
    def cache(self) -> CacheSettings | None:
        """The shared cache of the build."""
        return _CONFIG.cache if _CONFIG is not None else None

    @property
    def config(self) -> Path | None:
        """The file of the configuration."""
        return _CONFIG.path if _CONFIG is not None else None

    @property
    def needs(self) -> tuple[str, ...]:
        """What the child takes of a worker beside memory and cores: a browser."""
        return tuple((self.task.meta or {}).get("needs", ()))

    def run(self, function: str, request: object = None, **arguments: Any) -> dict[str, Any]:
        """Call ``module:function`` in a child process, here or on a worker; see `child.run`.

        :param request: the frozen dataclass that the function takes, and nothing else; paths in it
            may be rewritten on the way. Without one the function takes ``arguments``.
        """
        if request is not None:
            arguments = child.as_json(request)
        result, on_worker = self._run(function, arguments)
        measured_by = result.pop(MEASURED_BY, {})
        if "processor" in result:
            measured_by = {"processor": result.pop("processor"), **measured_by}
        # These describe the machine, not what was made.
        cores = result.pop("cores", None)
        self.task.values |= {"cores": cores, MEASURED_BY: measured_by, ON_WORKER: on_worker}
        return result

    def _run(self, function: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The result of a child, and whether a worker of a cluster ran it."""
        scheduler = _CONFIG.cluster if _CONFIG is not None else None
        if scheduler and not (self.task.meta or {}).get("here"):
            from tasks.running import cluster

            if not cluster.lacks(self, scheduler):
                return cluster.run(scheduler, self, function, arguments), True
        return child.run(function, arguments, self.log, self.verbose), False

    def unfinished(self, target: Path) -> str:
        """Where the child writes a target until it is whole; some differ in their folders alone."""
        return str(self.scratch / f"{target.parent.name}~{target.name}")

    def made(self, targets: Mapping[str, Path]) -> dict[str, str]:
        """Where the child writes each target until it is whole, by the same keys."""
        return {key: self.unfinished(target) for key, target in targets.items()}

    def deliver(self, *targets: Path) -> None:
        """Move what the child wrote under its final names."""
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(self.unfinished(target)).replace(target)


@contextmanager
def workspace(build: Path, task: Task) -> Iterator[Workspace]:
    """The workspace of a task while it runs.

    Its files have the task's name with ``~`` for the colon, which no model's name holds: `x:q8`
    and `x-q8` do not meet.
    """
    name = task.name.replace(":", "~")
    with scratch_folder(build / "tmp" / name) as scratch:
        yield Workspace(build, task, scratch, build / "logs" / f"{name}.log")


def describe_sizes(graphs: Mapping[str, Path]) -> str:
    """The size of each graph's file, for people."""
    return ", ".join(f"{name} {mebibytes(path.stat().st_size)}" for name, path in graphs.items())


def describe_peak(result: Mapping[str, Any]) -> str:
    """A child's peak memory, for people; empty where the system does not tell."""
    memory = result.get("peak_memory")
    return f", peak {memory / 2**30:.1f} GiB" if memory else ""
