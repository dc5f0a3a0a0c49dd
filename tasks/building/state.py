"""The build's records and its lock: safe against kills, full disks and a second build."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from doit.dependency import JsonDB
from doit.exceptions import InvalidDodoFile

from tasks.console import address
from tasks.system.errors import is_full
from tasks.system.files import write_record

_writer: ExitStack | None = None


class DurableDB(JsonDB):  # type: ignore[misc]
    """doit's JSON records, written whole after every change.

    doit's own backends write when a run ends, so a killed run forgets its finished tasks.
    Only a command inside `exclusive` writes; others (``doit list``) read beside a running build.
    Chosen as ``backend = "durable"``, an entry point in ``pyproject.toml``.
    """

    desc = "JSON, written after every task; one writer at a time"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        if _writer is not None:
            _lock(Path(name).parent, _writer)
        self._writable = _writer is not None
        self._changed = False
        super().__init__(name, codec, module_name=module_name)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Record one value of a task."""
        super().set(task_id, dependency, value)
        self._changed = True
        # doit records a success in several calls; `deps:` is the last. Losing some of them is
        # harmless (the task runs again), so one write at the end is enough.
        if dependency in ("deps:", "ignore:"):
            self.dump()

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        if self.in_(task_id):
            super().remove(task_id)
            self._changed = True
            self.dump()

    def remove_all(self) -> None:
        """Forget every task."""
        super().remove_all()
        self._changed = True
        self.dump()

    def dump(self) -> None:
        """Write all records, if any changed; the old file stays until the new one is complete."""
        if self._writable and self._changed:
            write_record(Path(self.name), self.codec.encode(self._db))
            self._changed = False


def recorded_values(path: Path) -> dict[str, dict[str, Any]]:
    """The values of each task's last run, from doit's records; empty if there are none."""
    try:
        records = json.loads(path.read_text())
        return {name: record.get("_values_:", {}) for name, record in records.items()}
    except (OSError, ValueError, AttributeError):
        return {}


@contextmanager
def exclusive() -> Iterator[None]:
    """Lock the records opened inside for this process, and allow writing them."""
    global _writer
    with ExitStack() as stack:
        _writer = stack
        try:
            yield
        finally:
            _writer = None


def _lock(folder: Path, stack: ExitStack) -> None:
    """Hold ``folder/lock`` until the stack closes or the process ends in any way."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((folder / "lock").open("w"))
    holder = folder / "lock-holder.json"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidDodoFile(
            f"another build is running in {folder.parent}: {_describe(holder)}.\n"
            "Wait until it ends, or stop it; then run the same command again."
        ) from None
    about = {
        "process": os.getpid(),
        "host": platform.node(),
        "command": " ".join(["doit", *map(address.shown, sys.argv[1:])]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        write_record(holder, json.dumps(about))
    except OSError as error:
        if not is_full(error):  # `doit clean` frees space
            raise
    stack.callback(holder.unlink, missing_ok=True)


def _describe(holder: Path) -> str:
    try:
        about = json.loads(holder.read_text())
        return "process {process} on {host}, `{command}`, since {since}".format(**about)
    except (OSError, ValueError, KeyError):
        return "an unknown process"
