"""doit's commands with readable errors; those that write run one at a time in a tree.

The entry points in ``pyproject.toml`` register them.
"""

from __future__ import annotations

import functools
import gc
import re
import sys
import textwrap
from importlib import metadata
from typing import Any

from doit import plugin
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_help import Help as DoitHelp
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_list import List as DoitList
from doit.cmd_resetdep import ResetDep as DoitResetDep
from doit.cmd_run import Run as DoitRun
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile

from tasks.building import state
from tasks.building.stage import stage_of
from tasks.console import printing
from tasks.console.invocation import unknown_name, wrong_option
from tasks.records import ledger
from tasks.system.errors import disk_problem

# Loading the graph makes hardly any garbage, and the collector would run a hundred times.
gc.set_threshold(100_000)

# doit would read the metadata of every installed package for each kind of plugin.
plugin.entry_points_impl = lambda: metadata.distribution("sam2-onnx-build").entry_points.select


class Suggesting:
    """Answers an unknown name or option with the nearest known one.

    A full disk or a missing permission ends a command with an error message.
    """

    def parse_execute(self, in_args: list[str]) -> int | None:
        """Parse the command line and execute the command."""
        printing.allow_all_text(sys.stdout, sys.stderr)
        try:
            return super().parse_execute(in_args)  # type: ignore[misc,no-any-return]
        except CmdParseError as error:
            options = [option.long for option in self.cmdparser.options if option.long]  # type: ignore[attr-defined]
            raise CmdParseError(wrong_option(error, self.name, options)) from None  # type: ignore[attr-defined]
        except OSError as error:
            problem = disk_problem(error)
            if problem is None:
                raise
            raise InvalidDodoFile(problem) from error

    def execute(self, params: Any, args: list[str]) -> int | None:
        """Load the graph and execute the command."""
        try:
            return super().execute(params, args)  # type: ignore[misc,no-any-return]
        except InvalidCommand as error:
            named = re.fullmatch(r"'(.+)' is not a task\.", str(error))  # doit's whole message
            unknown = error.not_found or (named and named[1])
            if not unknown:
                raise
            tasks = [task.name for task in self.task_list]  # type: ignore[attr-defined]
            given_to = "" if self.name == "run" else self.name  # type: ignore[attr-defined]
            commands = self.loader.cmd_names  # type: ignore[attr-defined]
            raise InvalidCommand(unknown_name(unknown, tasks, commands, given_to)) from None


class Plain:
    """A command of this project, whose help lists only its own options."""

    def help(self) -> str:
        """The text of ``doit help <command>``."""
        own = [option for option in self.cmdparser.options if not option.section]  # type: ignore[attr-defined]
        options = [(option.help_param().strip(), option.help) for option in own]
        width = max((len(name) for name, _ in options), default=0)
        lines = [f"doit {self.name} {self.doc_usage}", "", *textwrap.wrap(self.doc_description, 88)]  # type: ignore[attr-defined]
        lines += ["", *(f"  {name:<{width}}  {text}" for name, text in options)] if options else []
        return "\n".join(lines)


class Exclusive(Suggesting):
    """Runs a doit command with the records locked, and ends on Ctrl-C with a message."""

    def execute(self, params: Any, args: list[str]) -> int | None:
        """Load the graph and execute the command; exit status as doit's, 130 on Ctrl-C."""
        with state.exclusive():
            try:
                return super().execute(params, args)
            except KeyboardInterrupt:
                sys.stderr.write(
                    "\nStopped. Finished stages and partial downloads are kept: "
                    "run the same command to continue.\n"
                )
                return 130


class Run(Exclusive, DoitRun):  # type: ignore[misc]
    """``doit run``, and bare ``doit``.

    With ``-a`` it takes nothing from a shared cache either.

    A task that runs last reads the outputs of other tasks without depending on them: it waits for
    all other tasks of the same command, with any number of threads.
    """

    @functools.wraps(DoitRun._execute)  # doit inspects the signature to choose the arguments
    def _execute(self, *args: Any, **options: Any) -> int | None:
        ledger.note_models(self.loader.namespace["CONFIG"])
        self.loader.namespace["BUILD"].start(self.task_list, always=options["always"])
        names = {task.name for task in self.task_list}
        selected = [name for name in self.sel_tasks or () if name in names or "*" in name]
        for task in self.task_list:
            if task.name in selected and stage_of(task).runs_last:
                others = [name for name in selected if name != task.name]
                task.task_dep += [name for name in others if "*" not in name]
                task.wild_dep += [name for name in others if "*" in name]
        try:
            return super()._execute(*args, **options)  # type: ignore[no-any-return]
        finally:
            self.loader.namespace["BUILD"].end()


class Forget(Exclusive, DoitForget):  # type: ignore[misc]
    """``doit forget``."""


class Ignore(Exclusive, DoitIgnore):  # type: ignore[misc]
    """``doit ignore``."""


class ResetDep(Exclusive, DoitResetDep):  # type: ignore[misc]
    """``doit reset-dep``."""


class List(Suggesting, DoitList):  # type: ignore[misc]
    """``doit list``."""


class Help(Suggesting, DoitHelp):  # type: ignore[misc]
    """``doit help``."""

    def _execute(self, pos_args: list[str]) -> bool:
        if not super()._execute(pos_args):
            raise InvalidCommand(not_found=pos_args[0])
        return True
