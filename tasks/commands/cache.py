"""`doit cache`: lists the shared cache; ``--prune`` removes old entries."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.building.build import Build
from tasks.building.stage import option
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.console.sizes import amount
from tasks.remote import shared_cache

# A file that no entry names can belong to a build that is about to write its entry.
NEW = timedelta(hours=1)
_AGE = re.compile(r"(\d+)([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Cache(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """Lists the entries by stage (an entry point names it)."""

    doc_purpose = "show the contents of the shared cache; --prune removes old entries"
    doc_usage = "[--prune --older-than AGE]"
    doc_description = (
        "For example doit cache --prune --older-than 30d. An entry's age counts from the build "
        "that stored it. A file is removed with the last entry that names it."
    )
    cmd_options = (
        option("prune", "remove old entries, and files that no entry names any more"),
        option(
            "older-than",
            "minimum age of the entries to remove, in hours, days or weeks (12h, 30d, 8w)",
            default="",
        ),
    )

    def _execute(self, prune: bool, older_than: str) -> int:
        build: Build = self.loader.namespace["BUILD"]
        config, cache = build.config, build.services.cache
        if cache is None:
            raise InvalidCommand(
                f"{config.path} configures no cache. Set `[cache] url = ...` there, or pass "
                "cache=ADDRESS."
            )
        if prune != bool(older_than):
            raise InvalidCommand(
                "--prune and --older-than go together, as in --prune --older-than 30d"
            )
        if prune and not cache.settings.write:
            raise InvalidCommand(f"{config.path} has [cache] write = false, so nothing is removed.")
        oldest = datetime.now(UTC) - age(older_than) if prune else None
        try:
            for line in pruned(cache, oldest) if oldest else listed(cache):
                self.outstream.write(line + "\n")
        except Exception as error:  # each file system's library raises its own classes
            raise InvalidCommand(f"cache {cache.name}: {cache.words(error)}") from None
        return 0


def age(text: str) -> timedelta:
    """Parse a duration; pure.

    :raises InvalidCommand: when the text is not a duration.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise InvalidCommand(
            f"--older-than is {text!r}; expected hours, days or weeks, as in 12h, 30d or 8w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def listed(cache: shared_cache.SharedCache) -> list[str]:
    """A line for each stage that has entries."""
    entries, broken = cache.entries()
    files = cache.files()
    by_stage: dict[str, list[shared_cache.Entry]] = {}
    for stage, entry in entries.values():
        by_stage.setdefault(stage, []).append(entry)
    lines = [f"{cache.name}: {amount([each.size for each in files.values()])}"]
    for stage, own in sorted(by_stage.items()):
        sizes = [output.size for entry in own for output in entry.outputs]
        days = sorted(entry.stored[:10] for entry in own)
        lines.append(
            f"  {stage:<11} {len(own)} {'entry' if len(own) == 1 else 'entries'} with "
            f"{amount(sizes)}, stored {days[0]}" + (f" to {days[-1]}" if len(set(days)) > 1 else "")
        )
    lines += [f"  {cache.shown(path)} {why}" for path, why in broken.items()]
    return lines


def pruned(cache: shared_cache.SharedCache, oldest: datetime) -> list[str]:
    """Remove entries stored before a time; return a line with the numbers removed and left."""
    entries, broken = cache.entries()
    files = cache.files()
    old = [path for path, (_, entry) in entries.items() if _time(entry.stored) < oldest]
    kept = [entry for path, (_, entry) in entries.items() if path not in old]
    named = {output.sha256 for entry in kept for output in entry.outputs}
    unnamed = [
        path
        for path, each in files.items()
        if each.sha256 not in named
        and (each.modified is None or each.modified < datetime.now(UTC) - NEW)
    ]
    cache.remove([*old, *broken, *unnamed])
    gone = [files[path].size for path in unnamed]
    left = [each.size for path, each in files.items() if path not in unnamed]
    return [
        f"{cache.name}: {len(old) + len(broken)} entries and {amount(gone)} removed; "
        f"{len(kept)} entries and {amount(left)} are left"
    ]


def _time(text: str) -> datetime:
    """The time of an entry; the earliest possible time when the text is not a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
