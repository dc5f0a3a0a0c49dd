"""The output of a build: one line per stage, with its result and its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.reporter import ConsoleReporter

if TYPE_CHECKING:
    from doit.exceptions import BaseFail
    from doit.task import Task

_NAME_WIDTH = 22


class StageReporter(ConsoleReporter):  # type: ignore[misc]
    """Prints a line for each stage that ran, and nothing for stages that are up to date.

    A stage's line is the ``summary`` among the values that its action returned. A ``note`` among
    them is printed at the end, once even if several stages have the same. On a terminal the last
    line shows the running stages.
    """

    desc = "one line per stage with its result"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._started: dict[str, float] = {}
        self._ran = 0
        self._fresh = 0
        self._notes: dict[str, None] = {}
        self._announcements: dict[str, None] = {}
        self._terminal = bool(getattr(outstream, "isatty", lambda: False)())

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Sequence[str]) -> None:
        """Collect the announcements of the named tasks; they are printed when a stage begins."""
        super().initialize(tasks, selected_tasks)
        for name in selected_tasks:
            stage = (tasks[name].meta or {}).get("stage") if name in tasks else None
            if stage is not None and stage.announcement:
                self._announcements[stage.announcement] = None

    def execute_task(self, task: Task) -> None:
        """Show the stage as running."""
        if task.actions:
            for announcement in self._announcements:
                self._print(announcement)
            self._announcements.clear()
            self._started[task.name] = time.monotonic()
            self._show_running()

    def add_success(self, task: Task) -> None:
        """Print the stage's result."""
        if not task.actions:
            return
        self._ran += 1
        seconds = self._seconds(task)
        summary = task.values.get("summary")
        if task.values.get("note"):
            self._notes[task.values["note"]] = None
        if summary:
            self._print(f"{task.name:<{_NAME_WIDTH}} {summary}  ({seconds:.1f} s)")
        self._show_running()

    def skip_uptodate(self, task: Task) -> None:
        """Count it, and print nothing."""
        self._fresh += 1

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Print the reason; a traceback only if the build itself is at fault."""
        self._seconds(task)
        if not fail.report or not task.actions:  # a group: its subtasks are reported
            return
        self.failures.append({"task": task, "exception": fail})
        self._print(f"{task.name:<{_NAME_WIDTH}} FAILED")
        message = fail.get_msg().strip()
        self._print("\n".join(f"    {line}" for line in message.splitlines()))
        self._show_running()

    def complete_run(self) -> None:
        """Print a line if there was nothing to do."""
        self._clear()
        for error in self.runtime_errors:
            self._print(f"Stopped: {error}")
        for note in self._notes:
            self._print(note)
        ended_early = sys.exc_info()[0] is not None  # doit calls this on its way out, too
        idle = not (
            self._ran or self._started or self.failures or self.runtime_errors or ended_early
        )
        if idle and self._fresh:
            self._print(f"Up to date: {self._fresh} stages, nothing to do.")
        elif self.failures:
            sys.stderr.flush()
            self._print("Failed stages deployed nothing; finished stages will not run again.")

    def _seconds(self, task: Task) -> float:
        return time.monotonic() - self._started.pop(task.name, time.monotonic())

    def _print(self, text: str) -> None:
        self._clear()
        self.write(text + "\n")
        self.outstream.flush()

    def _clear(self) -> None:
        if self._terminal:
            self.write("\r\033[K")

    def _show_running(self) -> None:
        if self._terminal and self._started:
            self.write("\r\033[K… " + ", ".join(self._started))
            self.outstream.flush()
