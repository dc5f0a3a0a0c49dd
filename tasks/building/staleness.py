"""Decides which stages are stale, by the inputs and outputs of the last successful run.

A trace, after "Build Systems à la Carte" (Mokhov, Mitchell, Peyton Jones, 2018), records the
inputs of a run, the hash of each file dependency *before* the run, and the hashes of the outputs.
doit would hash dependencies after the run: it would take a file saved meanwhile for the file that
the run had read. So doit orders the stages, and traces decide.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from doit.dependency import FileChangedChecker

from tasks.config import parse
from tasks.console import address
from tasks.system.fingerprint import dependency_hashes, hashes_of

if TYPE_CHECKING:
    from doit.task import Task

Inputs = Mapping[str, Any]
Measurer = Mapping[str, Any]  # in JSON: the processor and the browser, which change figures
NEVER_BUILT = "never built"

# In the values of a task:
TRACED = ("inputs", "dependencies", "outputs")
MEASURED_BY = "measured_by"
ON_WORKER = "on_worker"  # of a cluster, which can be another machine


class Trace:
    """A doit ``uptodate`` check: true while nothing has changed since the last successful run.

    :param inputs: the inputs that are in no file dependency; a function if they are known only
        after the earlier stages have run.
    :param measurer: returns the processor and browser of this machine; None if they do not matter.
    :param on_workers: the build uses other machines, so their measurements count too.
    """

    # doit inspects the signature of each trace, which would take longer than the trace itself.
    __signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("task", "values")]
    )

    def __init__(
        self,
        inputs: Inputs | Callable[[], Inputs],
        measurer: Callable[[], Measurer] | None = None,
        on_workers: bool = False,
    ) -> None:
        self._inputs = inputs
        self._measurer = measurer
        self._on_workers = on_workers
        self._recorded: Mapping[str, Any] = {}
        self._current: Mapping[str, Any] = {}

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:
        """Compare with the recorded trace, and have a successful run record a new one."""
        judged = self._judged(task, values)
        task.value_savers.append(lambda: self._trace(task, judged))
        self._recorded, self._current = values, {**judged, "outputs": hashes_of(task.targets)}
        return not self.changes()

    def _judged(self, task: Task, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a run of the task now, with the processor and browser."""
        inputs = self._inputs() if callable(self._inputs) else self._inputs
        if inputs != recorded.get("inputs"):  # can be a tuple, which JSON stores as a list
            inputs = json.loads(json.dumps(inputs))
        judged = {"inputs": inputs, "dependencies": dependency_hashes(task.file_dep, recent=True)}
        if self._measurer is not None:
            elsewhere = self._on_workers and recorded.get(ON_WORKER)
            judged[MEASURED_BY] = recorded[MEASURED_BY] if elsewhere else self._measurer()
        return judged

    @staticmethod
    def _trace(task: Task, judged: dict[str, Any]) -> dict[str, Any]:
        """The trace of a finished run; a file that changed during the run will never match."""
        now = dependency_hashes(task.file_dep)
        dependencies = {
            path: sha256 if now.get(path) == sha256 else "changed while it was read"
            for path, sha256 in judged["dependencies"].items()
        }
        trace = {**judged, "dependencies": dependencies, "outputs": hashes_of(task.targets)}
        if MEASURED_BY in judged:
            trace[MEASURED_BY] = {**judged[MEASURED_BY], **task.values.get(MEASURED_BY, {})}
        return trace

    def changes_since(
        self, task: Task, recorded: Mapping[str, Any], config: str = "the configuration"
    ) -> list[str]:
        """The current differences from a task's ``recorded`` last run; see `changes`."""
        current = {**self._judged(task, recorded), "outputs": hashes_of(task.targets)}
        return changes(recorded, current, config)

    def changes(self, config: str = "the configuration") -> list[str]:
        """The differences that the last call found; see `changes`."""
        return changes(self._recorded, self._current, config)

    def __repr__(self) -> str:
        """The changes, for doit's own reporters."""
        return "; ".join(self.changes()) or "nothing changed"


def changes(
    recorded: Mapping[str, Any], current: Mapping[str, Any], config: str = "the configuration"
) -> list[str]:
    """The differences between two traces, a phrase each; ``config`` precedes its own keys."""
    if not all(isinstance(recorded.get(kind), dict) for kind in TRACED):
        return [NEVER_BUILT]
    phrases = [
        f"{f'{config}: ' * (key in parse.KEYS)}{key}{_change(before, now)}"
        for kind in ("inputs", MEASURED_BY)
        if kind in current
        for key, before, now in _differing_leaves(recorded.get(kind, {}), current[kind])
    ]
    for kind, changed in (("dependencies", "changed"), ("outputs", "was edited")):
        for path, before, now in _differences(recorded[kind], current[kind]):
            what = changed if before and now else "is gone" if before else "is new"
            phrases.append(f"{path} {what}")
    return list(dict.fromkeys(phrases))


def changes_behind(
    name: str, tasks: Mapping[str, Task], records: Mapping[str, Mapping[str, Any]], config: str
) -> dict[str, list[str]]:
    """The changes since the last run of a task and of each task behind it, by name, in order.

    Nothing runs: the current inputs of each task are compared with its ``records``.
    """
    by_task = {}
    for each in names_behind(name, tasks):
        traces = [check for check, *_ in tasks[each].uptodate if isinstance(check, Trace)]
        changed = (a.changes_since(tasks[each], records.get(each, {}), config) for a in traces)
        by_task[each] = list(chain.from_iterable(changed))
    return {name: changes for name, changes in by_task.items() if changes}


def names_behind(name: str, tasks: Mapping[str, Task]) -> list[str]:
    """The tasks that a task builds on, in the order of their dependencies, and the task last."""
    makers = {target: each.name for each in tasks.values() for target in each.targets}
    names: list[str] = []
    seen: set[str] = set()

    def look(name: str) -> None:
        if name in seen or name not in tasks:
            return
        seen.add(name)
        for each in (*tasks[name].task_dep, *sorted(tasks[name].file_dep)):
            look(makers.get(each, each))
        names.append(name)

    look(name)
    return names


def _differing_leaves(before: Inputs, now: Inputs) -> Iterator[tuple[str, Any, Any]]:
    """Differences of values that are not mappings, each under only its own key."""
    for key, was, is_now in _differences(before, now):
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from _differing_leaves(was, is_now)
        else:
            yield key, was, is_now


def _differences(before: Inputs, now: Inputs) -> list[tuple[str, Any, Any]]:
    return [
        (key, before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _change(before: Any, now: Any) -> str:
    """`` was multi, is ranked``; only `` changed`` if the values are not texts."""
    texts = [_words(before), _words(now)]
    if any(len(text) > 70 for text in texts):
        return " changed"
    return f" was {texts[0]}, is {texts[1]}"


def _words(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, str):
        # An older record has the full address.
        return address.shown(value) if "://" in value else value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or "none"
    return json.dumps(value)


class Untracked(FileChangedChecker):  # type: ignore[misc]
    """doit's checker of file dependencies, which leaves the decision to the trace."""

    @staticmethod
    def info(file_path: str) -> None:
        """Nothing: the trace has missing files, and the stage reports them."""

    def check_modified(self, file_path: str, file_stat: None, state: str) -> bool:
        """Never: the trace has changed files."""
        return False

    def get_state(self, dep: str, current_state: str | None) -> str:
        """The same for every file."""
        return "traced"
