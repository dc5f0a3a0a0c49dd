"""What every stage has: its declaration to doit, a log, a scratch folder, a child process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from tasks.engine import child, sources
from tasks.engine.errors import StageError, disk_problem
from tasks.engine.files import mebibytes, scratch_folder
from tasks.engine.invocation import command
from tasks.engine.staleness import Inputs, Trace

if TYPE_CHECKING:
    from doit.task import Task

Action = Callable[..., dict[str, Any] | None]
Paths = Sequence[str | os.PathLike[str]]


def declare(
    name: str | None,
    action: Action,
    arguments: Sequence[Any],
    *,
    reads: Paths,
    writes: Paths,
    inputs: Inputs | Callable[[], Inputs],
    also_runs: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """doit's task of a stage.

    The project's own modules that the action, and what it runs in a child, can reach are file
    dependencies; see `tasks.engine.sources`.

    :param name: of the subtask.
    :param reads: the files that the action reads.
    :param writes: the files that come out.
    :param inputs: what else shapes them (options, versions); must survive JSON.
    :param also_runs: functions, ``module:function``, that the configuration names.
    :param more: other keys of a doit task; ``uptodate`` is asked besides the trace, ``file_dep``
        are files that the action does without.
    """
    roots = [f"{action.__module__}:{action.__qualname__}", *also_runs]
    return {
        **({"name": name} if name else {}),
        "actions": [(_guarded(action, reads), list(arguments))],
        "targets": [os.fspath(path) for path in writes],
        "io": {"capture": False},
        **more,
        "file_dep": sorted(
            {*map(os.fspath, (*reads, *more.get("file_dep", ()))), *sources.reached(roots)}
        ),
        "uptodate": [Trace(inputs), *more.get("uptodate", [])],
    }


def _guarded(action: Action, reads: Paths) -> Callable[..., Any]:
    """doit's action: a `StageError`, a missing file or a full disk becomes a failed task."""

    @functools.wraps(action)
    def run_action(*args: Any, task: Task, **kwargs: Any) -> dict[str, Any] | TaskFailed | None:
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
                raise
            return TaskFailed(problem)

    return run_action


@dataclass(frozen=True)
class Workspace:
    """A log and a scratch folder that no other stage has, and how a stage runs its child."""

    scratch: Path
    log: Path
    verbose: bool

    def run(self, function: str, **arguments: Any) -> dict[str, Any]:
        """Call ``module:function`` in a child process; see `child.run`."""
        return child.run(function, arguments, self.log, self.verbose)

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
        yield Workspace(scratch, build / "logs" / f"{name}.log", task.verbosity == 2)


def describe_sizes(graphs: Mapping[str, Path]) -> str:
    """The size of each graph's file, for people."""
    return ", ".join(f"{name} {mebibytes(path.stat().st_size)}" for name, path in graphs.items())


def describe_peak(result: Mapping[str, Any]) -> str:
    """A child's peak memory, for people; empty where the system does not tell."""
    memory = result.get("peak_memory")
    return f", peak {memory / 2**30:.1f} GiB" if memory else ""
