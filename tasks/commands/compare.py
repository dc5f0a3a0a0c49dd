"""`doit compare A B`: compares two deployments and their masks. Builds nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from doit import get_var
from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from tasks.building.stage import option
from tasks.commands.check import CANNOT_CHECK, HUB
from tasks.commands.compare_masks import Side, compare_masks
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.console.sizes import mebibytes
from tasks.records.listing import MANIFEST
from tasks.system.errors import StageError

# The keys of a manifest by the heading they are printed under; all others go under "model".
GROUPS = {
    "files": ("files",),
    "options": ("options", "client", "encoder", "decoder", "preprocessing", "prompts", "masks"),
    "versions": ("schema_version", "packages", "client_version"),
    "figures": ("variants", "verification", "browser", "recommended"),
}


class Change(NamedTuple):
    """A value that differs between two manifests, or that one of them lacks."""

    group: str
    key: str
    text: str


class Compare(Plain, Suggesting, Command):  # type: ignore[misc]
    """Compares two deployments (an entry point names it)."""

    doc_purpose = "show what changed between two deployments: bytes, options, figures, masks"
    doc_usage = "[--picture FILE] A B"
    doc_description = (
        "A and B are folders, hf:OWNER/NAME[@REVISION], or models of the configuration, which mean "
        "their deploy folders. Exit status as diff's: 0: no change, 1: changes, 2: a manifest "
        "cannot be read. Files are compared by the hashes in the manifests. Graphs that differ and "
        "are both on this machine run the same prompts on a drawn image."
    )
    cmd_options = (
        option("picture", "file for the picture of masks that differ", default="build/compare.png"),
    )

    def execute(self, params: Any, args: list[str]) -> int:
        """Print a line for each change."""
        if len(args) != 2:
            raise InvalidCommand(
                "expected two folders, repositories or models, as in `doit compare A B`"
            )
        try:
            before, now = map(read, args)
        except StageError as error:
            print(error)
            return CANNOT_CHECK
        changed = changes(before.manifest, now.manifest)
        for line in lines_of(changed, before.manifest, now.manifest):
            print(line)
        masks = list(compare_masks(before, now, Path(params["picture"])))
        for line in ["masks:", *(f"  {each}" for each in masks)] if masks else []:
            print(line)
        return 1 if changed else 0


def read(place: str) -> Side:
    """Read a deployment, whose manifest can have any version.

    :raises StageError: when the manifest is missing or unreadable.
    """
    with tempfile.TemporaryDirectory() as copy:
        match = HUB.fullmatch(place)
        if match:
            from tasks.remote.hub import copy_repository

            repo, revision = match["repo"], match["revision"] or "main"
            copy_repository(repo, revision, Path(copy), only=MANIFEST)
        folder = None if match else _folder(place)
        path = (folder or Path(copy)) / MANIFEST
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            sizes = [int(each["size"]) for each in content["files"].values()]
        except OSError as error:
            raise StageError(f"{place}: cannot read its {MANIFEST}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageError(
                f"{place}: its {MANIFEST} was not made by this build: {error!r}"
            ) from error
    if not sizes:
        raise StageError(f"{place}: its {MANIFEST} lists no files")
    return Side(place, content, folder)


def _folder(place: str) -> Path:
    """A folder, or the deploy folder of a model of the configuration."""
    if Path(place).is_dir():
        return Path(place)
    from tasks.config import parse

    config = parse.load(get_var("config", "config/models.toml"), deploy=get_var("deploy"))
    for target in config.targets:
        if target.name == place:
            return target.deploy
    names = ", ".join(target.name for target in config.targets)
    raise StageError(
        f"{place} is neither a folder nor a model of {config.path}. Models there: {names}."
    )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The differences between two manifests, in the order of `GROUPS`; pure."""
    group_of = {key: group for group, keys in GROUPS.items() for key in keys}
    was, is_now = ({**each, "files": None} for each in (before, now))
    made = [
        *_changed_files(before["files"], now["files"]),
        *(
            Change(group_of.get(path[0], "model"), " ".join(path), text)
            for path, text in _differences(was, is_now)
        ),
    ]
    order = [*GROUPS, "model"]
    return sorted(made, key=lambda each: order.index(each.group))


def _changed_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *now]):
        if name not in now:
            yield Change("files", name, f"removed ({mebibytes(before[name]['size'])})")
            continue
        if name not in before:
            yield Change("files", name, f"new ({mebibytes(now[name]['size'])})")
            continue
        was, is_now = before[name], now[name]
        if was["sha256"] != is_now["sha256"]:
            old, new = was["size"], is_now["size"]
            share = f"{100 * (new - old) / max(old, 1):+.1f} %" if new != old else "same size"
            yield Change("files", name, f"{mebibytes(old)} → {mebibytes(new)} ({share})")
        content = {"size": None, "sha256": None}
        for path, text in _differences({**was, **content}, {**is_now, **content}):
            yield Change("files", " ".join((name, *path)), text)


def _differences(
    before: Any, now: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The paths at which two values differ, and how; list items are matched by their names."""
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), (*path, key))
    elif before is None and isinstance(now, Mapping):
        yield path, "new"
    elif now is None and isinstance(before, Mapping):
        yield path, "removed"
    elif before != now:
        yield path, f"{_in_words(before)} → {_in_words(now)}"


def _by_name(value: Any) -> Any:
    """A list of named items as a mapping; any other value unchanged."""
    if not (isinstance(value, list) and value and all(isinstance(each, dict) for each in value)):
        return value
    return {
        str(each.get("name", number)): {key: item for key, item in each.items() if key != "name"}
        for number, each in enumerate(value)
    }


def _in_words(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def lines_of(
    changed: list[Change], before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    """The lines to print; pure."""
    same = sum(now["files"].get(name) == each for name, each in before["files"].items())
    if not changed:
        yield f"Nothing changed: {same} files and their entries in the manifest are the same."
        return
    group = ""
    for each in changed:
        if each.group != group:
            group = each.group
            yield f"{group}:"
        yield f"  {each.key}: {each.text}"
    yield f"{same} of {len(now['files'])} files are the same."
