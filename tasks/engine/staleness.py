"""Decides what is stale: by what the last successful run was made from, and what came out of it.

A trace, after "Build Systems à la Carte" (Mokhov, Mitchell, Peyton Jones, 2018), records the
inputs of a run, the hash of each file dependency as it was *before* the run, and the hashes of
what came out. doit would hash dependencies when the run has ended: a file that was saved meanwhile
would be taken for what the run had read. So doit orders the stages, and traces decide.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from doit.dependency import FileChangedChecker

from tasks.engine.fingerprint import hashes_of

if TYPE_CHECKING:
    from doit.task import Task

Inputs = Mapping[str, Any]
NEVER_BUILT = "never built"


class Trace:
    """A doit ``uptodate`` check: true while everything is as in the last successful run.

    :param inputs: what shapes the output and is in no file dependency; a function where it is
        known only when the stages before have run.
    """

    # doit asks each trace for it, which takes longer than the trace itself.
    __signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("task", "values")]
    )

    def __init__(self, inputs: Inputs | Callable[[], Inputs]) -> None:
        self._inputs = inputs
        self._changes: list[str] = []

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:
        """Compare with the recorded trace, and have a successful run record a new one."""
        inputs = self._inputs() if callable(self._inputs) else self._inputs
        if inputs != values.get("inputs"):  # perhaps a tuple, which JSON has as a list
            inputs = json.loads(json.dumps(inputs))
        judged = {
            "inputs": inputs,
            "dependencies": hashes_of(task.file_dep, recent=True),
        }
        task.value_savers.append(lambda: self._recorded(task, judged))
        self._changes = changes(values, {**judged, "outputs": hashes_of(task.targets)})
        return not self._changes

    @staticmethod
    def _recorded(task: Task, judged: dict[str, Any]) -> dict[str, Any]:
        """The trace of a run that has ended; what changed under it will not match again."""
        now = hashes_of(task.file_dep)
        dependencies = {
            path: sha256 if now.get(path) == sha256 else "changed while it was read"
            for path, sha256 in judged["dependencies"].items()
        }
        return {**judged, "dependencies": dependencies, "outputs": hashes_of(task.targets)}

    def __repr__(self) -> str:
        """What changed, for ``doit info``."""
        return "; ".join(self._changes) or "nothing changed"


def changes(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two traces, a phrase each; empty when nothing does."""
    if not all(isinstance(recorded.get(kind), dict) for kind in current):
        return [NEVER_BUILT]
    found = [
        f"{key}: was {before!r}, is {now!r}"
        for key, before, now in _differences(recorded["inputs"], current["inputs"])
    ]
    for kind, changed in (("dependencies", "changed"), ("outputs", "was edited")):
        for path, before, now in _differences(recorded[kind], current[kind]):
            what = changed if before and now else "is gone" if before else "is new"
            found.append(f"{path} {what}")
    return found


def _differences(before: Inputs, now: Inputs) -> list[tuple[str, Any, Any]]:
    return [
        (key, before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


class Untracked(FileChangedChecker):  # type: ignore[misc]
    """doit's checker of file dependencies: it leaves the decision to the trace."""

    @staticmethod
    def info(file_path: str) -> None:
        """Nothing: that a file is missing is in the trace, and told by the stage."""

    def check_modified(self, file_path: str, file_stat: None, state: str) -> bool:
        """Never: a changed file is in the trace."""
        return False

    def get_state(self, dep: str, current_state: str | None) -> str:
        """The same for every file."""
        return "traced"


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package; nothing is imported."""
    return {package: _version(package) for package in packages}


@cache  # a reading of the package's metadata takes a millisecond, and every stage asks
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
