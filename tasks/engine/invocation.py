"""How the build was called: what it tells a person to run must mean the same build."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches

from doit import get_var

# What may be given on the command line as `name=value`.
VARIABLES = ("config", "deploy")


def command(words: str) -> str:
    """``doit <words>`` in backquotes, with the variables that this run was given."""
    given = [f"{name}={shlex.quote(get_var(name))}" for name in VARIABLES if get_var(name)]
    return f"`{' '.join(['doit', *given, *words.split()])}`"


def unknown_name(
    name: str, tasks: Iterable[str], commands: Iterable[str], given_to: str = ""
) -> str:
    """What to say of a name that is neither a task nor a command; pure but for `command`.

    :param tasks: the names of all tasks, ``export`` and ``export:tiny`` among them.
    :param given_to: the command whose argument it is, which takes no other.
    """
    tasks = list(tasks)
    commands = [] if given_to else list(commands)
    models = {each.partition(":")[2] for each in tasks if each.startswith("deploy:")}
    stage, _, model = name.partition(":")
    said = f"there is no task `{name}`."
    if name in models:
        return f"{said} {name} is a model: {command(f'deploy:{name}')} builds and deploys it."
    if model and stage in commands:
        return f"{said} Did you mean {command(f'{stage} {model}')}?"
    of_stage = [each for each in tasks if each.startswith(f"{stage}:")]
    plain = [each for each in [*tasks, *commands] if ":" not in each]
    near = get_close_matches(name, (of_stage or tasks) if model else plain, 1)
    if near:
        return f"{said} Did you mean {command(f'{given_to} {near[0]}')}?"
    if model and stage in tasks:
        has = ", ".join(each.partition(":")[2] for each in of_stage)
        return f"{said} {stage} is there for {has or 'no model of this configuration'}."
    return f"{said} {command('list')} lists the tasks, {command('help')} the commands."
