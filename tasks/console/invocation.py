"""Suggested commands, with the variables of this invocation, so that they mean the same build."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from getopt import GetoptError

from doit import get_var
from doit.cmdparse import CmdParseError

from tasks.console import address

# The `name=value` variables of the command line: those that select the build, and a permission for
# one run.
BUILD = ("config", "deploy", "cache", "cluster")
VARIABLES = (*BUILD, "overwrite")


def command(words: str, **others: str) -> str:
    """``doit <words>`` in backquotes, with the variables that select this run's build.

    An address appears without its secrets: the user must enter a password again.

    :param others: variables that replace this run's.
    """
    values = {name: get_var(name) for name in BUILD} | others
    variables = [
        f"{name}={shlex.quote(address.shown(value))}" for name, value in values.items() if value
    ]
    return f"`{' '.join(['doit', *variables, *words.split()])}`"


def unknown_name(
    name: str, tasks: Iterable[str], commands: Iterable[str], given_to: str = ""
) -> str:
    """The message for a name that is neither a task nor a command.

    :param given_to: the command whose argument it is.
    """
    from difflib import get_close_matches

    if name.startswith("-"):
        example = command(f"{given_to or 'run'} {name} ...")
        return f"put {name} before the names, as in {example}."
    name = address.shown(name)
    tasks = list(tasks)
    commands = [] if given_to else list(commands)
    models = {each.partition(":")[2] for each in tasks if each.startswith("deploy:")}
    stage, _, model = name.partition(":")
    message = f"there is no task `{name}`."
    if name in models:
        return f"{message} {name} is a model: {command(f'deploy:{name}')} builds and deploys it."
    if model and stage in commands:
        return f"{message} Did you mean {command(f'{stage} {model}')}?"
    of_stage = [each for each in tasks if each.startswith(f"{stage}:")]
    plain = [each for each in [*tasks, *commands] if ":" not in each]
    near = get_close_matches(name, (of_stage or tasks) if model else plain, 1)
    if near:
        return f"{message} Did you mean {command(f'{given_to} {near[0]}')}?"
    if model and stage in tasks:
        has = ", ".join(each.partition(":")[2] for each in of_stage)
        return f"{message} Tasks of {stage}: {has or 'none in this configuration'}."
    return f"{message} {command('list')} lists the tasks, {command('help')} the commands."


def wrong_option(error: CmdParseError, name: str, options: Iterable[str]) -> str:
    """doit's message for a wrong option of a command, without doit's internals."""
    from difflib import get_close_matches

    helps = f"{command(f'help {name}')} lists its options."
    cause = error.__context__
    if isinstance(cause, GetoptError):
        if str(error).startswith("Error parsing Task"):
            return f"{cause.msg}: none of the named tasks has it."
        near = get_close_matches(cause.opt, options, 1)
        return f"{cause.msg}. {f'Did you mean --{near[0]}? ' if near else ''}{helps}"
    if isinstance(cause, ValueError):
        return f"{str(error).splitlines()[0].partition(' <')[0]}: {cause}. {helps}"
    return str(error)
