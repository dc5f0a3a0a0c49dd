"""Turns the declarations of stages into doit's tasks."""

from __future__ import annotations

import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskError, TaskFailed
from doit.task import Task

from tasks.building import last_build
from tasks.building.code import closure
from tasks.building.stage import Paths, Services, Stage, Workspace
from tasks.building.staleness import MEASURED_BY, Inputs, Measurer, Trace
from tasks.building.state import recorded_values
from tasks.config.schema import Configuration
from tasks.console import address
from tasks.console.invocation import command
from tasks.console.progress import SILENT, show_progress
from tasks.system import machine
from tasks.system.errors import StageError, disk_problem
from tasks.system.fingerprint import FINGERPRINTS, dependency_hashes
from tasks.system.versions import versions_of_imported

if TYPE_CHECKING:
    from tasks.remote.shared_cache import Entry, SharedCache
    from tasks.running.cluster import Cluster

FROM_CACHE = "from_cache"  # in the values of a task whose outputs came from the cache
SECONDS = "seconds"  # in the values of a task that ran: its time
WORTH_A_PROGRESS = 64 << 20  # bytes

Result = dict[str, Any] | None


class Build:
    """A build of one configuration, with the services that its stages share."""

    def __init__(self, config: Configuration) -> None:
        cache = None
        if config.cache is not None:
            from tasks.remote.shared_cache import SharedCache

            cache = SharedCache(config.cache)
        self.config = config
        self.services = Services(cache, self._connect if config.cluster is not None else None)
        self._cluster: Cluster | None = None
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._ran = 0

    def start(self, tasks: Sequence[Task], *, always: bool) -> None:
        """Note the tasks of a command; with ``always`` take nothing from the cache."""
        self.services.tasks.update((task.name, task) for task in tasks)
        if always and self.services.cache is not None:
            self.services.cache.replace_only()

    def end(self) -> None:
        """Record the command's time, if a stage ran."""
        if self._ran:
            last_build.write(self.config.build, self._ran, time.monotonic() - self._began)

    def records(self) -> dict[str, dict[str, Any]]:
        """The values that the last run of each task returned."""
        return recorded_values(self.config.build / "state" / "doit.json")

    def _connect(self) -> Cluster:
        """The workers of the configuration's cluster; imports the packages for them only now."""
        from tasks.running.cluster import Cluster

        with self._lock:
            if self._cluster is None:
                config = self.config
                assert config.cluster is not None
                self._cluster = Cluster(
                    config.cluster, config.build, config.path, self.services.cache, self.records()
                )
            return self._cluster

    def task(self, stage: Stage) -> dict[str, Any]:
        """doit's task for a stage."""
        declared = {
            **({"name": stage.name} if stage.name else {}),
            "actions": [functools.partial(self._run, stage)],
            "targets": [os.fspath(path) for path in stage.writes],
            "task_dep": list(stage.after),
            "params": list(stage.options),
            "io": {"capture": False},
            **({} if stage.verbosity is None else {"verbosity": stage.verbosity}),
            "meta": {"stage": stage},
        }
        if stage.inputs is None:
            return {**declared, "uptodate": [False]}
        code = closure(_functions(stage)).files
        files = {*(os.fspath(path) for path in (*stage.reads, *stage.also_reads)), *code}
        trace = Trace(
            _all_inputs(stage), _measurer(stage), on_workers=self.config.cluster is not None
        )
        return {**declared, "file_dep": sorted(files), "uptodate": [trace, *stage.up_to_date]}

    def _run(self, stage: Stage, task: Task) -> dict[str, Any] | TaskFailed | TaskError | None:
        """doit's action: a `StageError`, a missing file or a full disk becomes a failed task."""
        missing = [os.fspath(path) for path in stage.reads if not os.path.isfile(path)]
        if missing:
            return TaskFailed(
                f"{task.name}: missing input {', '.join(missing)}. "
                f"{command(task.name)} without -s makes it first."
            )
        with self._lock:
            self._ran += 1
        began = time.monotonic()
        try:
            with closing(Workspace(self.config, task, self.services)) as work:
                if stage.shared is not None and self.services.cache is not None:
                    return self._run_or_fetch(stage, work, self.services.cache)
                return _act(stage, work)
        except StageError as error:
            return TaskFailed(str(error))
        except OSError as error:
            problem = disk_problem(error)
            return TaskFailed(problem) if problem else self._unexpected()
        except Exception:
            return self._unexpected()
        finally:
            task.values[SECONDS] = round(time.monotonic() - began, 1)

    def _unexpected(self) -> TaskError:
        """A bug of the build, with its traceback, which can quote a library's texts."""
        text = traceback.format_exc()
        if self.config.cache is not None:
            text = address.without_secrets(text, self.config.cache.url, self.config.cache.options)
        for url in {source.location.url for source in self.config.sources}:
            text = address.without_secrets(text, url)
        return TaskError(address.without_secrets(text))

    def _run_or_fetch(self, stage: Stage, work: Workspace, cache: SharedCache) -> Result:
        """Run the action, or take its outputs from another build.

        The key of a proof to find has this machine's processor and browser; the key of a proof to
        store has those that measured.
        """
        measurer = _measurer(stage)
        here = measurer() if measurer else None
        before = _cache_key(stage, work.task, here)
        name, writes = _name_in_cache(stage), [Path(path) for path in stage.writes]
        if measurer is None or cache.settings.proofs:
            entry = cache.find(name, before, len(writes))
            if entry is not None and fetch_from_cache(cache, entry, writes, work):
                summary = f"from {cache.name}: {entry.result.get('summary', '')}"
                return {**entry.result, "summary": summary, FROM_CACHE: cache.name}
        try:
            result = _act(stage, work)
        except StageError as error:
            raise StageError(f"{error}{self._advice_about_cache(work.task)}") from error
        # Stores nothing if the stage was unavailable here, or its inputs changed during the run.
        unchanged = _cache_key(stage, work.task, here) == before
        if isinstance(result, dict) and "unavailable" not in result and unchanged:
            measured_by = {**here, **work.task.values.get(MEASURED_BY, {})} if here else None
            cache.store(name, _cache_key(stage, work.task, measured_by), writes, result)
        return result

    def _advice_about_cache(self, task: Task) -> str:
        """Advice for a stage that fails on files from a cache; empty without such files."""
        makers = {
            name: values[FROM_CACHE]
            for name, values in self.records().items()
            if values.get(FROM_CACHE) and task.file_dep & values.get("outputs", {}).keys()
        }
        if not makers:
            return ""
        again = command(f"-a {' '.join(makers)}")
        return (
            f"\nIts inputs came from the cache {next(iter(makers.values()))} "
            f"({', '.join(makers)}): {again} builds them here and replaces them in the cache."
        )


def _act(stage: Stage, work: Workspace) -> Result:
    return stage.action(*stage.arguments, work, **(work.task.options or {}))


def _functions(stage: Stage) -> tuple[str, ...]:
    """The functions whose code shapes a stage's output, ``module:function``."""
    return (f"{stage.action.__module__}:{stage.action.__qualname__}", *stage.also_runs)


def _all_inputs(stage: Stage) -> Inputs | Callable[[], Inputs]:
    """A stage's inputs, with the versions of packages behind functions of the configuration."""
    inputs = stage.inputs
    versions = versions_of_imported(sorted(closure(tuple(stage.also_runs)).packages))
    if callable(inputs):
        return lambda: {**inputs(), **versions}
    return {**(inputs or {}), **versions}


def _measurer(stage: Stage) -> Callable[[], Measurer] | None:
    """A function for the processor and browser that measure here; None except for proofs."""
    if stage.shared != "proof":
        return None
    return lambda: {"processor": machine.processor(), **(stage.browser() if stage.browser else {})}


def _name_in_cache(stage: Stage) -> str:
    return stage.action.__module__.rpartition(".")[2]


def _cache_key(stage: Stage, task: Task, measured_by: Measurer | None) -> str:
    """The key of a stage's outputs in a shared cache: hashes of files and code, options, versions.

    It contains no folder and no model's name, so builds with other names share equal outputs.
    """
    from tasks.remote.shared_cache import key_of

    inputs = _all_inputs(stage)
    files: Paths = (*stage.reads, *stage.writes)
    names = {os.fspath(path): f"file {number}" for number, path in enumerate(files)}
    decided_by = {
        "action": stage.action.__qualname__,
        "options": task.options or {},
        "inputs": [inputs() if callable(inputs) else inputs, list(stage.also_runs)],
        "reads": [FINGERPRINTS.sha256(path) for path in stage.reads],
        "code": dependency_hashes(closure(_functions(stage)).files),
        "writes": [os.path.basename(path) for path in stage.writes],
        **({"measured by": measured_by} if measured_by else {}),
    }
    return key_of(_name_in_cache(stage), decided_by, names)


def fetch_from_cache(
    cache: SharedCache, entry: Entry, targets: Sequence[Path], work: Workspace
) -> bool:
    """Put an entry's outputs in place, as if they had been built; False if that fails."""
    slow = cache.is_remote and sum(each.size for each in entry.outputs) >= WORTH_A_PROGRESS
    unfinished = [Path(work.unfinished(target)) for target in targets]
    if not cache.fetch(entry, unfinished, show_progress(work.task.name) if slow else SILENT):
        return False
    work.deliver(*targets)
    for target, output in zip(targets, entry.outputs, strict=True):
        FINGERPRINTS.remember(target, output.sha256)
    return True
