"""`doit status`: what is fresh, what is stale and why, and what is left over. Builds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from doit.cmd_base import DoitCmdBase

from tasks.config.schema import Configuration
from tasks.engine import ledger
from tasks.engine.files import mebibytes
from tasks.engine.staleness import NEVER_BUILT, Trace

if TYPE_CHECKING:
    from doit.task import Task


class Stage(NamedTuple):
    """A task of the build: whether it is fresh, else why not, and the bytes that it made."""

    name: str
    fresh: bool
    why: str
    size: int


class Status(DoitCmdBase):  # type: ignore[misc]
    """Reads the build's records and the files' fingerprints (an entry point names it)."""

    doc_purpose = "tell for each model and stage what is fresh, and what is stale and why"
    doc_usage = "[MODEL ...]"
    doc_description = "Nothing is built. Models that were never built take a line each."
    cmd_options = ()

    def _execute(self) -> int:
        pos_args = self._models
        config: Configuration = self.loader.namespace["CONFIG"]
        tasks = {task.name: task for task in self.task_list}
        stages = stage_states(tasks, self.dep_manager)
        known = [model.name for model in config.models]
        for name in pos_args:
            if name not in known:
                self.outstream.write(f"no model {name}; there are: {', '.join(known)}\n")
                return 1
        for line in lines_about(config, stages, pos_args or known):
            self.outstream.write(line + "\n")
        return 0

    def execute(self, params: Any, args: list[str]) -> int:
        """Keep doit from taking the models for tasks."""
        self._models = args
        return super().execute(params, [])  # type: ignore[no-any-return]


def stage_states(tasks: Mapping[str, Task], records: Any) -> dict[str, Stage]:
    """Each task's state; a task is behind those that it builds on, if they are not fresh."""
    makers = {target: name for name, task in tasks.items() for target in task.targets}
    found: dict[str, Stage] = {}

    def judge(name: str) -> Stage:
        if name in found:
            return found[name]
        task = tasks[name]
        before = dict.fromkeys(
            [*task.task_dep, *(makers[file] for file in sorted(task.file_dep) if file in makers)]
        )
        late = [each for each in before if each in tasks and not judge(each).fresh]
        size = sum(os.path.getsize(path) for path in task.targets if os.path.isfile(path))
        status = records.get_status(task, dict(tasks), get_log=True)
        reasons = list(phrases(status.reasons)) if status.status != "up-to-date" else []
        if NEVER_BUILT in reasons:
            reasons = [NEVER_BUILT]
        elif late:
            reasons.append(f"behind {late[0]}")
        found[name] = Stage(name, not reasons, "; ".join(reasons), size)
        return found[name]

    for name in tasks:
        judge(name)
    # What is made only when asked for is not missed.
    return {
        name: stage
        for name, stage in found.items()
        if stage.why != NEVER_BUILT or not (tasks[name].meta or {}).get("on_demand")
    }


def phrases(reasons: Mapping[str, Any]) -> Iterable[str]:
    """doit's reasons in words."""
    for check, *_ in reasons.get("uptodate_false") or ():
        if isinstance(check, Trace):
            yield repr(check)
        else:
            yield f"not: {getattr(check, '__name__', str(check)).strip('_').replace('_', ' ')}"


def lines_about(
    config: Configuration, stages: Mapping[str, Stage], models: Sequence[str]
) -> list[str]:
    """The lines to print; pure but for the ledger."""
    lines = []
    for model in models:
        own = [stage for stage in stages.values() if stage.name.split(":")[1:2] == [model]]
        stale = [stage for stage in own if not stage.fresh]
        if all(stage.why == NEVER_BUILT for stage in own):
            lines.append(f"{model:<14} never built")
            continue
        size = mebibytes(sum(stage.size for stage in own))
        state = f"{len(stale)} of {len(own)} stages stale" if stale else "fresh"
        lines.append(f"{model:<14} {state}, {size} built")
        for stage in own if stale else ():
            made = mebibytes(stage.size) if stage.size else ""
            lines.append(f"  {stage.name:<26} {made:>10}  {stage.why or 'fresh'}")
    left = ledger.orphans(config, ledger.read(config))
    for each in left:
        lines.append(f"left over: {each.folder}, of {each.model} (`doit prune` lists the files)")
    return lines
