"""`doit check`: checks a deployed folder's files and signature. Needs no build."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from getopt import GetoptError, gnu_getopt
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from tasks.building.stage import option
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from tasks.proof.integrity import Check as Line

CANNOT_CHECK = 2  # the exit status
HUB = re.compile(r"hf:(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>\S+))?")


class Check(Plain, Suggesting, Command):  # type: ignore[misc]
    """Checks a folder, or a repository of the hub (an entry point names it)."""

    doc_purpose = "check that a deployed folder is intact, and who signed it"
    doc_usage = "FOLDER|hf:OWNER/NAME[@REVISION] [--key FILE]"
    doc_description = (
        "Prints a line for each check. Exit status 0: every check passed; 1: a check failed; 2: a "
        "check could not be made. Builds nothing, and needs no build."
    )
    cmd_options = (
        option("key", "public key (PEM) that the signature must match", default="", short="k"),
    )

    def parse_execute(self, in_args: list[str]) -> int | None:
        """Accept options after the folder, too."""
        with suppress(GetoptError):  # doit parses the options again and reports the error
            options, places = gnu_getopt(in_args, "k:", ["key="])
            in_args = [*chain.from_iterable(options), *places]
        return super().parse_execute(in_args)

    def execute(self, params: Any, args: list[str]) -> int:
        """Check, and print a line for each check."""
        from tasks.proof.integrity import exit_status

        if len(args) != 1:
            raise InvalidCommand(
                "expected one folder or repository, as in `doit check hf:OWNER/NAME`"
            )
        key = Path(params["key"]) if params["key"] else None
        try:
            lines = check(args[0], key)
        except (StageError, OSError) as error:
            print(f"unknown {error}")
            return CANNOT_CHECK
        for line in lines:
            print(line)
        return exit_status(lines)


def check(place: str, key: Path | None) -> list[Line]:
    """Check a folder, or a downloaded copy of a repository.

    :raises StageError: when the repository cannot be downloaded.
    """
    from tasks.proof.integrity import check_folder

    if not place.startswith("hf:"):
        return check_folder(Path(place), key)
    match = HUB.fullmatch(place)
    if match is None:
        raise InvalidCommand(f"{place}: expected hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    from tasks.remote.hub import copy_repository

    with tempfile.TemporaryDirectory() as copy:
        copy_repository(match["repo"], match["revision"] or "main", Path(copy))
        return check_folder(Path(copy), key)
