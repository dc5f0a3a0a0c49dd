"""`doit graph`: draws the stages of a model as SVG and marks the stale ones. Builds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.building.build import SECONDS
from tasks.building.staleness import NEVER_BUILT, names_behind
from tasks.commands import status
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.system.files import write_atomically

if TYPE_CHECKING:
    from doit.task import Task

# In pixels. A column is as wide as a box and the gap to the next one.
BOX, COLUMN, TALL, ROW, TOP, EDGE = 190, 250, 44, 64, 76, 20
LETTERS = 28  # that fit in the second line of a box

Links = Mapping[str, Sequence[str]]  # the stages that each stage builds on


class Graph(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """Draws the stages of a model (an entry point names it)."""

    doc_purpose = "draw the stages of a model as SVG, stale ones marked, with their last times"
    doc_usage = "[MODEL]"
    doc_description = (
        "Writes build/graph/MODEL.svg; without MODEL, a file for each model that was ever built. "
        "Builds nothing."
    )
    cmd_options = ()

    def _execute(self) -> int:
        config: Configuration = self.loader.namespace["CONFIG"]
        tasks = {task.name: task for task in self.task_list}
        states = status.stage_states(tasks, self.dep_manager, str(config.path))
        models = [target.name for target in config.targets]
        unknown = [name for name in self._models if name not in models]
        if unknown:
            raise InvalidCommand(f"there is no model {unknown[0]}. Models: {', '.join(models)}.")
        drawn = 0
        for model in self._models or models:
            links = links_of(f"deploy:{model}", tasks)
            if not self._models and all(_why(states, name) == NEVER_BUILT for name in links):
                continue
            seconds = {
                name: (self.dep_manager.get_values(name) or {}).get(SECONDS) for name in links
            }
            path = config.build / "graph" / f"{model}.svg"
            write_atomically(path, drawing(model, links, states, seconds))
            self.outstream.write(f"{path}\n")
            drawn += 1
        if not drawn:
            self.outstream.write(f"No model was ever built; {command('graph tiny')} draws one.\n")
        return 0

    def execute(self, params: Any, args: list[str]) -> int | None:
        """Keep doit from taking the models for tasks."""
        self._models = args
        return super().execute(params, [])


def _why(states: Mapping[str, status.Stage], name: str) -> str:
    return states[name].why if name in states else ""


def links_of(name: str, tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    """The stages that each stage behind a task builds on, without links that others imply."""
    makers = {target: each.name for each in tasks.values() for target in each.targets}
    names = names_behind(name, tasks)
    above: dict[str, set[str]] = {}
    links = {}
    for each in names:
        needed = {*tasks[each].task_dep, *(makers.get(file, "") for file in tasks[each].file_dep)}
        direct = [other for other in names if other in needed and other != each]
        above[each] = {*direct, *(far for other in direct for far in above[other])}
        further = {far for other in direct for far in above[other]}
        links[each] = [other for other in direct if other not in further]
    return links


class Place(NamedTuple):
    """Where a stage, or a line that passes a column, stands."""

    column: int
    row: float


def places(links: Links) -> tuple[dict[str, Place], list[list[str]]]:
    """The place of each stage, and the lines as the places that they pass through; pure.

    A stage stands in the rightmost column that the stages built on it allow. No line crosses a
    box: in each column that a line passes, it has its own row.
    """
    column = dict.fromkeys(links, 0)
    for name in links:
        column[name] = max((column[each] + 1 for each in links[name]), default=0)
    for name in reversed(list(links)):
        users = [column[each] for each in links if name in links[each]]
        column[name] = min(users) - 1 if users and links[name] else column[name]
    rows: list[list[str]] = [[] for _ in range(max(column.values()) + 1)]
    before: dict[str, list[str]] = {name: [] for name in links}
    lines = []
    for name in links:
        rows[column[name]].append(name)
        for each in links[name]:
            passed = [f"{each} {name} {at}" for at in range(column[each] + 1, column[name])]
            line = [each, *passed, name]
            lines.append(line)
            for at, step in enumerate(passed, column[each] + 1):
                rows[at].append(step)
            for left, right in pairwise(line):
                before.setdefault(right, []).append(left)
    tallest = max(map(len, rows))
    placed: dict[str, Place] = {}
    for at, names in enumerate(rows):
        # Near its links, so that few lines cross.
        heights = {
            name: sum(placed[each].row for each in before[name]) / max(len(before[name]), 1)
            for name in names
        }
        for number, name in enumerate(sorted(names, key=heights.__getitem__)):
            placed[name] = Place(at, number + (tallest - len(names)) / 2)
    return placed, lines


def drawing(
    model: str,
    links: Links,
    states: Mapping[str, status.Stage],
    seconds: Mapping[str, float | None],
) -> str:
    """The picture; pure."""
    placed, lines = places(links)
    width = 2 * EDGE + COLUMN * max(each.column for each in placed.values()) + BOX
    height = TOP + int(ROW * (1 + max(each.row for each in placed.values())))
    stale = [name for name in links if name in states and not states[name].fresh]
    total = sum(each or 0 for each in seconds.values())
    state = f"{len(stale)} of {len(links)} stages are stale" if stale else "fresh"
    title = f"{model}: {state}; the last runs took {in_words(total)}"
    body = [
        *(_line([placed[name] for name in line]) for line in lines),
        *(_box(name, placed[name], states.get(name), seconds.get(name)) for name in links),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif">\n'
        f"<title>{escape(title)}</title>\n"
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{EDGE}" y="36" font-size="18" fill="#1a1a1a">{escape(title)}</text>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _corner(place: Place) -> tuple[float, float]:
    return EDGE + COLUMN * place.column, TOP + ROW * place.row


def _line(steps: Sequence[Place]) -> str:
    """A line from the right of a box, level through what it passes, to the left of another."""
    corners = [_corner(each) for each in steps]
    (x, y), *others = [(x, y + TALL / 2) for x, y in corners]
    path = f"M{x + BOX:g} {y:g}"
    for number, (to, level) in enumerate(others, 1):
        path += f" C{to - 30:g} {y:g} {to - 30:g} {level:g} {to:g} {level:g}"
        path += f" H{to + BOX:g}" if number < len(others) else ""
        y = level
    return f'<path d="{path}" fill="none" stroke="#8a8a8a" stroke-width="1.5"/>'


# The fill and the border of a box, by its state, which the second line states too.
LOOKS = {
    "fresh": 'fill="#e8f4ea" stroke="#2e7d4f"',
    "stale": 'fill="#fdebd3" stroke="#b3541e" stroke-width="2" stroke-dasharray="6 3"',
    "never built": 'fill="#f2f2f2" stroke="#8a8a8a" stroke-dasharray="2 3"',
}


def _box(name: str, place: Place, state: status.Stage | None, seconds: float | None) -> str:
    """A stage: its name, the time of its last run, and whether it is stale and why."""
    x, y = _corner(place)
    stage, _, rest = name.partition(":")
    shown_name = " ".join(filter(None, (stage, rest.partition(":")[2])))
    if state is None or state.why == NEVER_BUILT:
        look = text = "never built"
    elif state.fresh:
        look, text = "fresh", "from the cache" if state.cache else "fresh"
    else:
        look, text = "stale", f"stale: {state.why}"
    shown = text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
    time = "" if seconds is None else in_words(seconds)
    return (
        f"<g><title>{escape(f'{name}: {text}')}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{TALL}" rx="6" {LOOKS[look]}/>'
        f'<text x="{x + 10:g}" y="{y + 18:g}" font-size="14" fill="#1a1a1a">{escape(shown_name)}'
        f'</text><text x="{x + BOX - 10:g}" y="{y + 18:g}" font-size="12" fill="#1a1a1a" '
        f'text-anchor="end">{time}</text>'
        f'<text x="{x + 10:g}" y="{y + 35:g}" font-size="11.5" fill="#4a4a4a">{escape(shown)}'
        "</text></g>"
    )


def in_words(seconds: float) -> str:
    """A time for people."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
