"""`doit status` and `doit info`: show which stages are fresh or stale, and why. Build nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.building import last_build
from tasks.building.build import FROM_CACHE
from tasks.building.stage import stage_of
from tasks.building.staleness import NEVER_BUILT, Trace
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.console.sizes import mebibytes
from tasks.records import ledger

if TYPE_CHECKING:
    from doit.task import Task


class Stage(NamedTuple):
    """A task of the build: whether it is fresh, why not, and the size of its outputs in bytes.

    ``cache`` names the cache that its outputs came from, if they were not made here.
    """

    name: str
    fresh: bool
    why: str
    size: int
    cache: str | None = None


class Status(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """``doit status``."""

    doc_purpose = "show for each model and stage whether it is fresh, or stale and why"
    doc_usage = "[MODEL ...]"
    doc_description = "Builds nothing. A model that was never built takes one line."
    cmd_options = ()

    def _execute(self) -> int:
        pos_args = self._models
        config: Configuration = self.loader.namespace["CONFIG"]
        tasks = {task.name: task for task in self.task_list}
        stages = stage_states(tasks, self.dep_manager, str(config.path))
        models = [target.name for target in config.targets]
        for name in pos_args:
            if name not in models:
                near = get_close_matches(name, models, 1)
                hint = f" Did you mean {command(f'status {near[0]}')}?" if near else ""
                raise InvalidCommand(
                    f"there is no model {name}.{hint} Models: {', '.join(models)}."
                )
        for line in lines_about(config, stages, pos_args or models):
            self.outstream.write(line + "\n")
        if duration := last_build.describe(config.build):
            self.outstream.write(duration + "\n")
        return 0

    def execute(self, params: Any, args: list[str]) -> int | None:
        """Keep doit from taking the models for tasks."""
        self._models = args
        return super().execute(params, [])


class Info(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """``doit info``."""

    doc_purpose = "show what one stage reads and makes, and whether it is stale and why"
    doc_usage = "STAGE"
    doc_description = "For example doit info export:tiny. Builds nothing."
    cmd_options = ()

    def _execute(self, pos_args: list[str]) -> int:
        tasks = {task.name: task for task in self.task_list}
        if len(pos_args) != 1:
            raise InvalidCommand(f"expected one stage, as in {command('info export:tiny')}")
        if pos_args[0] not in tasks:
            raise InvalidCommand(not_found=pos_args[0])
        config = str(self.loader.namespace["CONFIG"].path)
        task = tasks[pos_args[0]]
        stage = stage_states(tasks, self.dep_manager, config).get(task.name)
        doc = task.doc or tasks[task.name.partition(":")[0]].doc or ""
        self.outstream.write(f"{task.name}: {doc.partition('. ')[2] or doc}\n")
        for line in lines_of(task, stage):
            self.outstream.write(line + "\n")
        return 0


def lines_of(task: Task, stage: Stage | None) -> list[str]:
    """The lines that ``doit info`` prints; the stage is None for a task that was never needed."""
    lines = []
    if stage is None and not task.targets:
        lines.append("Runs only when you name it, and then always.")
    elif stage is None:
        lines.append("Runs only when you name it; it has not run yet.")
    elif stage.fresh:
        came = f"came from the cache {stage.cache}" if stage.cache else "ran"
        lines.append(f"Fresh: nothing changed since it {came}.")
    else:
        lines += ["Stale, because:", *(f"  {reason}" for reason in stage.why.split("; "))]
    own = [path for path in sorted(task.file_dep) if path.startswith("tasks/")]
    read = [path for path in sorted(task.file_dep) if path not in own]
    lines += ["Reads:", *(f"  {path}" for path in read)] if read else []
    lines += ["Its code (a change makes it stale):", f"  {', '.join(own)}"] if own else []
    lines += ["Makes:"] if task.targets else []
    for path in task.targets:
        size = mebibytes(os.path.getsize(path)) if os.path.isfile(path) else "missing"
        lines.append(f"  {path} ({size})")
    return lines


def stage_states(tasks: Mapping[str, Task], records: Any, config: str) -> dict[str, Stage]:
    """Each task's state; a task waits for tasks that it builds on and that are not fresh."""
    makers = {target: name for name, task in tasks.items() for target in task.targets}
    states: dict[str, Stage] = {}

    def judge(name: str) -> Stage:
        if name in states:
            return states[name]
        task = tasks[name]
        before = dict.fromkeys(
            [*task.task_dep, *(makers[file] for file in sorted(task.file_dep) if file in makers)]
        )
        late = [each for each in before if each in tasks and not judge(each).fresh]
        size = sum(os.path.getsize(path) for path in task.targets if os.path.isfile(path))
        status = records.get_status(task, dict(tasks), get_log=True)
        reasons = list(phrases(status.reasons, config)) if status.status != "up-to-date" else []
        if NEVER_BUILT in reasons:
            reasons = [NEVER_BUILT]
        elif late:
            reasons.append(f"waits for {late[0]}")
        cache = (records.get_values(name) or {}).get(FROM_CACHE)
        states[name] = Stage(name, not reasons, "; ".join(reasons), size, cache)
        return states[name]

    for name in tasks:
        judge(name)
    # A task on demand is left out until it was built, and always if it has no targets.
    return {
        name: stage
        for name, stage in states.items()
        if not stage_of(tasks[name]).on_demand or (tasks[name].targets and stage.why != NEVER_BUILT)
    }


def phrases(reasons: Mapping[str, Any], config: str) -> Iterable[str]:
    """doit's reasons as readable phrases.

    :param config: the configuration file.
    """
    for check, *_ in reasons.get("uptodate_false") or ():
        if isinstance(check, Trace):
            yield from check.changes(config)
        else:
            yield f"not: {getattr(check, '__name__', str(check)).strip('_').replace('_', ' ')}"


def lines_about(
    config: Configuration, stages: Mapping[str, Stage], models: Sequence[str]
) -> list[str]:
    """The lines to print; pure except for reading the ledger."""
    lines = []
    width = max(map(len, models))
    for model in models:
        own = [stage for stage in stages.values() if stage.name.split(":")[1:2] == [model]]
        stale = [stage for stage in own if not stage.fresh]
        if all(stage.why == NEVER_BUILT for stage in own):
            lines.append(f"{model:<{width}}  never built")
            continue
        size = mebibytes(sum(stage.size for stage in own))
        longest = max(len(stage.name) for stage in own)
        state = f"{len(stale)} of {len(own)} stages are stale" if stale else "fresh"
        cached = sum(1 for stage in own if stage.cache)
        came = f", {cached} stages from the cache" if cached else ""
        lines.append(f"{model:<{width}}  {state}, {size} built{came}")
        for stage in own if stale else ():
            made = mebibytes(stage.size) if stage.size >= 2**16 else ""
            fresh = f"from the cache {stage.cache}" if stage.cache else "fresh"
            lines.append(f"  {stage.name:<{longest}} {made:>10}  {stage.why or fresh}")
    left = ledger.orphans(config, ledger.read(config))
    for each in left:
        lines.append(
            f"left over: {each.shown}, of {each.model} ({command('prune')} lists the files)"
        )
    return lines
