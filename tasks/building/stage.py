"""The declaration of a stage, and the workspace of its action."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.building.staleness import MEASURED_BY, ON_WORKER, Inputs, Measurer
from tasks.console.sizes import mebibytes
from tasks.running import child

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.config.schema import Configuration
    from tasks.remote.shared_cache import SharedCache
    from tasks.running.cluster import Cluster

Action = Callable[..., dict[str, Any] | None]
Paths = Sequence[str | os.PathLike[str]]
UpToDate = Callable[..., bool] | tuple[Any, ...]


@dataclass(frozen=True)
class Stage:
    """A task of the build, declared by the module of its stage.

    The project's own modules that the action and its child process can reach become file
    dependencies; see `tasks.building.code`.

    :param name: the name of the subtask; None for a task without subtasks.
    :param action: called with the ``arguments``, a `Workspace`, and the options of the command
        line by name; returns the values for the records, with a ``summary`` to print.
    :param reads: the files that the action needs.
    :param writes: the output files.
    :param inputs: the other inputs (options, versions), in JSON, or a function that returns them
        after the earlier stages have run. With None the stage runs whenever it is named.
    :param also_runs: functions, ``module:function``, that the configuration names; the versions of
        the packages that they import are among the inputs.
    :param also_reads: optional files whose changes make the stage stale.
    :param shared: what a shared cache can store: ``"files"``, which are proven here, or a
        ``"proof"``, which is taken only if the configuration trusts the cache, and if a processor
        with the same features measured it.
    :param browser: returns the browser in which the child measures, which a worker of a cluster
        must have; called only after the earlier stages have run.
    :param up_to_date: further conditions, in doit's format.
    :param after: tasks that run before.
    :param options: options of the command line, in doit's format.
    :param carries: files that a worker must have in the same version, although their changes do not
        make the stage stale.
    :param runs_here: the child runs on this machine, even with a cluster.
    :param on_demand: it runs only when the user names it.
    :param fetches: the files come from elsewhere, so cleaning keeps them.
    :param runs_last: it reads the outputs of other tasks, but does not depend on them.
    :param verbosity: doit's verbosity, unless the command line sets it.
    :param announcement: printed before anything runs, if the user names the task.
    """

    name: str | None
    action: Action
    arguments: Sequence[Any] = ()
    reads: Paths = ()
    writes: Paths = ()
    inputs: Inputs | Callable[[], Inputs] | None = None
    also_runs: Sequence[str] = ()
    also_reads: Paths = ()
    shared: Literal["files", "proof"] | None = None
    browser: Callable[[], Measurer] | None = None
    up_to_date: Sequence[UpToDate] = ()
    after: Sequence[str] = ()
    options: Sequence[Mapping[str, Any]] = ()
    carries: Sequence[str] = ()
    runs_here: bool = False
    on_demand: bool = False
    fetches: bool = False
    runs_last: bool = False
    verbosity: int | None = None
    announcement: str = ""


def option(
    name: str, help: str, default: bool | int | str = False, short: str = ""
) -> dict[str, Any]:
    """An option of the command line, in doit's format: ``--name``, of the type of its default."""
    return {
        "name": name.replace("-", "_"),
        "short": short,
        "long": name,
        "type": type(default),
        "default": default,
        "help": help,
    }


NO_STAGE = Stage(None, lambda: None)


def stage_of(task: Task) -> Stage:
    """The declaration behind one of doit's tasks; an empty declaration for a group of tasks."""
    stage: Stage = (task.meta or {}).get("stage", NO_STAGE)
    return stage


@dataclass(frozen=True)
class Services:
    """The services that the stages of one build share.

    :param cache: a cache that other builds use too.
    :param connect: connects to the workers of a cluster, if children run on one.
    :param tasks: the tasks of the running command, by name; the command adds them.
    :param unreachable: servers that do not answer, see `download.fetch`.
    """

    cache: SharedCache | None = None
    connect: Callable[[], Cluster] | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    unreachable: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Workspace:
    """A stage's own log and scratch folder, and the function that runs its child process.

    Both have the task's name, with ``~`` for the colon, so `x:q8` and `x-q8` do not collide.
    """

    config: Configuration
    task: Task
    services: Services = field(default_factory=Services)

    @cached_property
    def scratch(self) -> Path:
        """An empty folder for work in progress."""
        self.close()  # a killed run could have left it
        self._scratch.mkdir(parents=True)
        return self._scratch

    def close(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _scratch(self) -> Path:
        return self.config.build / "tmp" / self._name

    @property
    def log(self) -> Path:
        """The file for the output of the child."""
        return self.config.build / "logs" / f"{self._name}.log"

    @property
    def _name(self) -> str:
        return str(self.task.name).replace(":", "~")

    def run(self, function: str, request: object = None, **arguments: Any) -> dict[str, Any]:
        """Call ``module:function`` in a child process, here or on a worker; see `child.run`.

        :param request: the one frozen dataclass that the function takes; its paths can be
            rewritten for a worker. Without it the function takes ``arguments``.
        """
        sent = child.as_json(arguments if request is None else request)
        result, on_worker = self._run(function, sent)
        measured_by = result.pop(MEASURED_BY, {})
        if "processor" in result:
            measured_by = {"processor": result.pop("processor"), **measured_by}
        # These describe the machine, not the output.
        cores = result.pop("cores", None)
        self.task.values |= {"cores": cores, MEASURED_BY: measured_by, ON_WORKER: on_worker}
        return result

    def _run(self, function: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The result of a child, and whether a worker of a cluster ran it."""
        verbose = bool(self.task.verbosity == 2)
        stage = stage_of(self.task)
        if self.services.connect is not None and not stage.runs_here:
            from tasks.running.cluster import Work

            cluster = self.services.connect()
            work = Work(
                self.task.name,
                self.scratch,
                self.log,
                verbose,
                reads=sorted(self.task.file_dep),
                carries=stage.carries,
                needs=("browser",) if stage.browser else (),
            )
            if not cluster.must_run_locally(work):
                return cluster.run(work, function, arguments), True
        return child.run(function, arguments, self.log, verbose), False

    def unfinished(self, target: Path) -> Path:
        """The child's path for a target until it is complete; names the target's folder too."""
        return self.scratch / f"{target.parent.name}~{target.name}"

    def made(self, targets: Mapping[str, Path]) -> dict[str, Path]:
        """The child's path for each target until it is complete, by the same keys."""
        return {key: self.unfinished(target) for key, target in targets.items()}

    def deliver(self, *targets: Path) -> None:
        """Move the child's files to their final names."""
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.unfinished(target).replace(target)


def describe_sizes(graphs: Mapping[str, Path]) -> str:
    """The size of each graph's file, as readable text."""
    return ", ".join(f"{name} {mebibytes(path.stat().st_size)}" for name, path in graphs.items())


def describe_peak(result: Mapping[str, Any]) -> str:
    """A child's peak memory, as readable text; empty if the system does not report it."""
    memory = result.get("peak_memory")
    return f", peak {memory / 2**30:.1f} GiB" if memory else ""
