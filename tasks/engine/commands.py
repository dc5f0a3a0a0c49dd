"""doit's writing commands, one at a time in a tree (entry points in ``pyproject.toml``)."""

from __future__ import annotations

import functools
import sys
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_resetdep import ResetDep as DoitResetDep
from doit.cmd_run import Run as DoitRun

from tasks.engine import state


class _Exclusive:
    """Runs a doit command with the records locked, and ends on Ctrl-C with a sentence."""

    def execute(self, params: Any, args: list[str]) -> int | None:
        """Load the graph and execute the command; exit status as doit's, 130 on Ctrl-C."""
        with state.exclusive():
            try:
                return super().execute(params, args)  # type: ignore[misc,no-any-return]
            except KeyboardInterrupt:
                sys.stderr.write(
                    "\nStopped. Finished stages and the part of a download are kept: "
                    "run the same command to go on.\n"
                )
                return 130


class Run(_Exclusive, DoitRun):  # type: ignore[misc]
    """``doit run``, and bare ``doit``.

    A task whose ``meta`` says ``"last"`` reads what others write without asking for it to be made:
    it waits for whatever else the same command runs, in as many threads as there are.
    """

    @functools.wraps(DoitRun._execute)  # doit reads from its signature what to pass
    def _execute(self, *args: Any, **options: Any) -> int | None:
        names = {task.name for task in self.task_list}
        selected = [name for name in self.sel_tasks or () if name in names or "*" in name]
        for task in self.task_list:
            if task.name in selected and (task.meta or {}).get("last"):
                others = [name for name in selected if name != task.name]
                task.task_dep += [name for name in others if "*" not in name]
                task.wild_dep += [name for name in others if "*" in name]
        return super()._execute(*args, **options)  # type: ignore[no-any-return]


class Forget(_Exclusive, DoitForget):  # type: ignore[misc]
    """``doit forget``."""


class Ignore(_Exclusive, DoitIgnore):  # type: ignore[misc]
    """``doit ignore``."""


class ResetDep(_Exclusive, DoitResetDep):  # type: ignore[misc]
    """``doit reset-dep``."""


_DOWNLOADS = {
    "name": "downloads",
    "short": "",
    "long": "downloads",
    "type": bool,
    "default": False,
    "help": "remove fetched checkpoints too",
}


class Clean(_Exclusive, DoitClean):  # type: ignore[misc]
    """``doit clean``: what the stages built, and what was fetched only with ``--downloads``."""

    cmd_options = (*DoitClean.cmd_options, _DOWNLOADS)

    def _execute(
        self,
        dryrun: bool,
        cleandep: bool,
        cleanall: bool,
        cleanforget: bool,
        downloads: bool,
        pos_args: list[str] | None = None,
    ) -> None:
        named = set(pos_args or ())
        for task in self.task_list:
            fetched = (task.meta or {}).get("fetched", False)
            asked = downloads or task.name in named or task.subtask_of in named
            if fetched and not asked:
                task._remove_targets = False
                task.clean_actions = []
        super()._execute(dryrun, cleandep, cleanall, cleanforget, pos_args)
