"""Decides what is stale: inputs that no file shows, and outputs that are no longer as built.

doit compares file dependencies itself (by content, see `fingerprint.ContentChecker`). What it
cannot see is declared here as a trace, after "Build Systems à la Carte" (Mokhov, Mitchell,
Peyton Jones, 2018): the inputs of the last successful run and the hashes of what came out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from tasks import fingerprint

if TYPE_CHECKING:
    from doit.task import Task

Inputs = Mapping[str, Any]


class Trace:
    """A doit ``uptodate`` check: true while inputs and outputs are those of the last run.

    :param inputs: what shapes the output and is in no file dependency (options, versions);
        must survive a round trip through JSON.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = json.loads(json.dumps(inputs))
        self._changes: list[str] = []

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:
        """Compare with the recorded trace, and have the next success record a new one."""
        task.value_savers.append(
            lambda: {"inputs": self.inputs, "outputs": fingerprint.combined(task.targets)}
        )
        current = {"inputs": self.inputs, "outputs": fingerprint.combined(task.targets)}
        self._changes = changes(values, current)
        return not self._changes

    def __repr__(self) -> str:
        """What changed, for ``doit info``."""
        return "; ".join(self._changes) or "nothing changed"


def changes(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two traces, a phrase each; empty when nothing does."""
    if "inputs" not in recorded:
        return ["never built"]
    found = []
    for kind in ("inputs", "outputs"):
        before, now = recorded.get(kind, {}), current[kind]
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                found.append(f"{key}: was {_short(before.get(key))}, is {_short(now.get(key))}")
    return found


def _short(value: object) -> str:
    """A value as people read it: of a hash the beginning."""
    return f"{value[:8]}…" if isinstance(value, str) and len(value) == 64 else repr(value)


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package; nothing is imported."""
    return {package: _version(package) for package in packages}


@cache  # a reading of the package's metadata takes a millisecond, and every stage asks
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
