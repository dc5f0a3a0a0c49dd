"""`doit clean`: removes what was built, says what and how much, and keeps what others use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.building.stage import stage_of
from tasks.commands.doit_commands import Exclusive, Plain
from tasks.config.schema import Configuration
from tasks.console.invocation import unknown_name
from tasks.console.sizes import amount
from tasks.records import ledger
from tasks.system.files import removal_problem, remove_empty_folders

if TYPE_CHECKING:
    from doit.task import Task


def _option(name: str, help: str, short: str = "", long: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "short": short,
        "long": long or name,
        "type": bool,
        "default": False,
        "help": help,
    }


class Clean(Plain, Exclusive, DoitCmdBase):  # type: ignore[misc]
    """Removes the files of stages (an entry point names it)."""

    doc_purpose = "remove what was built; fetched checkpoints and deployed copies only on request"
    doc_usage = "[OPTIONS] [MODEL, STAGE or TASK ...]"
    doc_description = (
        "Removes what the stages built: of everything, of a model (doit clean tiny), of a stage "
        "(doit clean export) or of a single task (doit clean export:tiny). Fetched checkpoints and "
        "the copies in the deploy folder stay, unless an option or the task's own name asks for "
        "them."
    )
    cmd_options = (
        _option("dryrun", "say what would be removed, and remove nothing", "n", "dry-run"),
        _option(
            "deployed", "remove the deployed copies too, as far as they are what this build wrote"
        ),
        _option("downloads", "remove fetched checkpoints too, and parts of downloads"),
    )

    def _execute(self, dryrun: bool, deployed: bool, downloads: bool, pos_args: list[str]) -> int:
        config: Configuration = self.loader.namespace["CONFIG"]
        names = [task.name for task in self.task_list]
        for name in pos_args:
            if not selected([name], names):
                models = [target.name for target in config.targets]
                raise InvalidCommand(unknown_name(name, [*names, *models], (), "clean"))
        chosen = set(selected(pos_args, names) if pos_args else names)
        removed: dict[str, list[int]] = {}
        kept: list[int] = []
        for task in self.task_list:
            if task.name not in chosen:
                continue
            fetched = stage_of(task).fetches
            files = files_of(task, with_parts=fetched)
            if fetched and not (downloads or task.name in pos_args):
                kept += [path.stat().st_size for path in files]
                continue
            group = task.name.partition(":")[2].partition(":")[0] or task.name
            for path in files:
                size = path.stat().st_size
                problem = None if dryrun else removal_problem(path)
                if problem:
                    self._say(problem)
                    continue
                removed.setdefault(group, []).append(size)
                if not dryrun and path.is_relative_to(config.build):
                    remove_empty_folders(config.build, [str(path.relative_to(config.build))])
        for name, sizes in removed.items():
            if sizes:
                self._say(f"{'would remove' if dryrun else 'removed'} {amount(sizes)}, of {name}")
        copies = self._deployed(config, chosen, pos_args, deployed, dryrun)
        if not copies and not any(removed.values()):
            self._say("Nothing to remove.")
        if kept:
            self._say(f"Kept what was fetched: {amount(kept)} (--downloads removes it).")
        return 0

    def _deployed(
        self,
        config: Configuration,
        chosen: Collection[str],
        named: Collection[str],
        wanted: bool,
        dryrun: bool,
    ) -> bool:
        """Remove, or name, the deployed copies of models; False when there are none."""
        spoke = False
        for target in config.targets:
            task = f"deploy:{target.name}"
            if task not in chosen:
                continue
            for deployment in ledger.read(config):
                mine = deployment.config == ledger.name_of(config)
                if not (mine and target.deploy.is_dir() and deployment.is_in(target.deploy)):
                    continue
                if not wanted and not {task, "deploy"} & set(named):
                    self._say(
                        f"Kept the deployed copies: {target.deploy} (--deployed removes them)."
                    )
                    continue
                spoke = True
                for line in ledger.remove(config, deployment, dry_run=dryrun):
                    self._say(line)
        return spoke

    def _say(self, line: str) -> None:
        self.outstream.write(line + "\n")


def selected(wanted: Iterable[str], tasks: Sequence[str]) -> list[str]:
    """The tasks that names of models, stages and tasks stand for, or patterns of tasks; pure."""
    names = []
    for name in wanted:
        names += [
            task
            for task in tasks
            if task == name
            or task.split(":")[0] == name
            or task.split(":")[1:2] == [name]
            or ("*" in name and fnmatch(task, name))
        ]
    return names


def files_of(task: Task, with_parts: bool) -> list[Path]:
    """The files that a task made; those of a deploy are removed apart.

    :param with_parts: those of a download that is not finished too.
    """
    if task.name.startswith("deploy:"):
        return []
    paths = [Path(target) for target in task.targets]
    if with_parts:
        paths += [
            Path(f"{target}{end}") for target in task.targets for end in (".part", ".part.json")
        ]
    return [path for path in paths if path.is_file()]
