"""`doit clean`: removes build outputs, lists what it removed, and keeps files others use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.building.stage import option, stage_of
from tasks.commands.doit_commands import Exclusive, Plain
from tasks.config.models import Target
from tasks.config.schema import Configuration
from tasks.console.invocation import unknown_name
from tasks.console.sizes import amount
from tasks.records import ledger
from tasks.system.files import removal_problem, remove_empty_folders

if TYPE_CHECKING:
    from doit.task import Task


class Clean(Plain, Exclusive, DoitCmdBase):  # type: ignore[misc]
    """Removes the files of stages (an entry point names it)."""

    doc_purpose = "remove build outputs; fetched checkpoints and deployed copies only on request"
    doc_usage = "[OPTIONS] [MODEL, STAGE or TASK ...]"
    doc_description = (
        "Removes the outputs of all stages, of one model (doit clean tiny), of one stage (doit "
        "clean export) or of one task (doit clean export:tiny). Keeps fetched checkpoints and the "
        "copies in the deploy folder, unless you pass the option or name the task."
    )
    cmd_options = (
        option("dry-run", "list what would be removed, and remove nothing", short="n"),
        option("deployed", "remove the deployed copies too, if they have not changed since"),
        option("downloads", "remove fetched checkpoints and unfinished downloads too"),
    )

    def _execute(self, dry_run: bool, deployed: bool, downloads: bool, pos_args: list[str]) -> int:
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
            paths = files_of(task, with_parts=fetched)
            if fetched and not (downloads or task.name in pos_args):
                kept += [path.stat().st_size for path in paths]
                continue
            group = task.name.partition(":")[2].partition(":")[0] or task.name
            for path in paths:
                size = path.stat().st_size
                problem = None if dry_run else removal_problem(path)
                if problem:
                    self._say(problem)
                    continue
                removed.setdefault(group, []).append(size)
                if not dry_run and path.is_relative_to(config.build):
                    remove_empty_folders(config.build, [str(path.relative_to(config.build))])
        for name, sizes in removed.items():
            self._say(f"{'would remove' if dry_run else 'removed'} {amount(sizes)} of {name}")
        spoke = bool(removed)
        for target, deployment in own_deployments(config, chosen):
            if deployed or {f"deploy:{target.name}", "deploy"} & set(pos_args):
                spoke = True
                self._say(*ledger.remove(config, deployment, dry_run))
            else:
                self._say(f"Kept the deployed copies: {target.deploy} (--deployed removes them).")
        if not spoke:
            self._say("Nothing to remove.")
        if kept:
            self._say(f"Kept the fetched checkpoints: {amount(kept)} (--downloads removes them).")
        return 0

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.outstream.write(line + "\n")


def own_deployments(
    config: Configuration, chosen: Collection[str]
) -> Iterator[tuple[Target, ledger.Deployment]]:
    """This configuration's deployments whose deploy task is among the chosen ones."""
    for target in config.targets:
        for each in ledger.read(config) if f"deploy:{target.name}" in chosen else ():
            mine = each.config == ledger.name_of(config)
            if mine and target.deploy.is_dir() and each.is_in(target.deploy):
                yield target, each


def selected(wanted: Iterable[str], tasks: Sequence[str]) -> list[str]:
    """The tasks that match names of models, stages or tasks, or patterns of tasks; pure."""
    return [
        task
        for name in wanted
        for task in tasks
        if name in (task, *task.split(":")[:2]) or ("*" in name and fnmatch(task, name))
    ]


def files_of(task: Task, with_parts: bool) -> list[Path]:
    """The files that a task made, except a deploy's, which are removed separately.

    :param with_parts: include unfinished downloads.
    """
    targets = [] if task.name.startswith("deploy:") else task.targets
    endings = ("", ".part", ".part.json") if with_parts else ("",)
    paths = [Path(f"{target}{ending}") for ending in endings for target in targets]
    return [path for path in paths if path.is_file()]
