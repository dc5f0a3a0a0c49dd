"""Decides what is stale: by what the last successful run was made from, and what came out of it.

A trace, after "Build Systems à la Carte" (Mokhov, Mitchell, Peyton Jones, 2018), records the
inputs of a run, the hash of each file dependency as it was *before* the run, and the hashes of
what came out. doit would hash dependencies when the run has ended: a file that was saved meanwhile
would be taken for what the run had read. So doit orders the stages, and traces decide.
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
Measurer = Mapping[str, Any]  # the processor, a browser: what changes figures, in JSON
NEVER_BUILT = "never built"

# In the values of a task:
TRACED = ("inputs", "dependencies", "outputs")
MEASURED_BY = "measured_by"
ON_WORKER = "on_worker"  # of a cluster, which may be another machine


class Trace:
    """A doit ``uptodate`` check: true while everything is as in the last successful run.

    :param inputs: what shapes the output and is in no file dependency; a function where it is
        known only when the stages before have run.
    :param measurer: says what measures on this machine; None where that changes nothing.
    :param on_workers: the build is given to other machines, so what one of them measured holds.
    """

    # doit asks each trace for it, which takes longer than the trace itself.
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
        """What a run of the task would be made from, and measured by, now."""
        inputs = self._inputs() if callable(self._inputs) else self._inputs
        if inputs != recorded.get("inputs"):  # perhaps a tuple, which JSON has as a list
            inputs = json.loads(json.dumps(inputs))
        judged = {"inputs": inputs, "dependencies": dependency_hashes(task.file_dep, recent=True)}
        if self._measurer is not None:
            elsewhere = self._on_workers and recorded.get(ON_WORKER)
            judged[MEASURED_BY] = recorded[MEASURED_BY] if elsewhere else self._measurer()
        return judged

    @staticmethod
    def _trace(task: Task, judged: dict[str, Any]) -> dict[str, Any]:
        """The trace of a run that has ended; what changed under it will not match again."""
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
        """What differs from a task's ``recorded`` last run, looked at now; see `changes`."""
        current = {**self._judged(task, recorded), "outputs": hashes_of(task.targets)}
        return changes(recorded, current, config)

    def changes(self, config: str = "the configuration") -> list[str]:
        """Why the last call phrases the task stale; see `changes`."""
        return changes(self._recorded, self._current, config)

    def __repr__(self) -> str:
        """What changed, for doit's own reporters."""
        return "; ".join(self.changes()) or "nothing changed"


def changes(
    recorded: Mapping[str, Any], current: Mapping[str, Any], config: str = "the configuration"
) -> list[str]:
    """What differs between two traces, a phrase each; what ``config`` sets is named so."""
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
    """What changed since a task, and each that it builds on, last ran; by name, those first.

    Nothing is run: what a task would be made from now is compared with its ``records``.
    """
    by_task = {}
    for each in names_behind(name, tasks):
        traces = [check for check, *_ in tasks[each].uptodate if isinstance(check, Trace)]
        changed = (a.changes_since(tasks[each], records.get(each, {}), config) for a in traces)
        by_task[each] = list(chain.from_iterable(changed))
    return {name: changes for name, changes in by_task.items() if changes}


def names_behind(name: str, tasks: Mapping[str, Task]) -> list[str]:
    """What a task builds on, each behind what it builds on itself, and the task last."""
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
    """Differences of values that are no mappings, each under its own key alone."""
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
    """`` was multi, is ranked``; only that it changed where the values are no words."""
    texts = [_words(before), _words(now)]
    if any(len(text) > 70 for text in texts):
        return " changed"
    return f" was {texts[0]}, is {texts[1]}"


def _words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, str):
        return address.shown(value) if "://" in value else value  # an older record had all of it
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or "none"
    return json.dumps(value)


class Untracked(FileChangedChecker):  # type: ignore[misc]
    """doit's checker of file dependencies: it leaves the decision to the trace."""

    @staticmethod
    def info(file_path: str) -> None:
        """Nothing: that a file is missing is in the trace, and the stage says so."""

    def check_modified(self, file_path: str, file_stat: None, state: str) -> bool:
        """Never: a changed file is in the trace."""
        return False

    def get_state(self, dep: str, current_state: str | None) -> str:
        """The same for every file."""
        return "traced"
