"""`doit compare A B`: what changed between two deployments, and in their masks. Builds nothing."""

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
from tasks.commands.check import CANNOT_TELL, HUB
from tasks.commands.compare_masks import Side, compare_masks
from tasks.commands.doit_commands import Plain, Suggesting
from tasks.console.sizes import mebibytes
from tasks.records.listing import MANIFEST
from tasks.system.errors import StageError

# Which keys of a manifest a person looks for together; what is in none is of the model itself.
GROUPS = {
    "files": ("files",),
    "options": ("options", "client", "encoder", "decoder", "preprocessing", "prompts", "masks"),
    "versions": ("schema_version", "packages", "client_version"),
    "figures": ("variants", "verification", "browser", "recommended"),
}


class Change(NamedTuple):
    """A value of two manifests that differs; a key that one lacks has none there."""

    group: str
    key: str
    text: str


class Compare(Plain, Suggesting, Command):  # type: ignore[misc]
    """Compares two deployments (an entry point names it)."""

    doc_purpose = "show what changed between two deployments: bytes, options, figures, masks"
    doc_usage = "[--picture FILE] A B"
    doc_description = (
        "Each is a folder, hf:OWNER/NAME[@REVISION], or a model of the configuration, which stands "
        "for the folder that it is deployed to. Exit status as diff's: 0: nothing, 1: something, "
        "2: a manifest cannot be read. Files are compared by the hashes in the manifests. Where "
        "graphs differ and both are on this machine, they get the same prompts about a drawn image."
    )
    cmd_options = (
        option("picture", "where masks that differ are drawn", default="build/compare.png"),
    )

    def execute(self, params: Any, args: list[str]) -> int:
        """Print a line for each change."""
        if len(args) != 2:
            raise InvalidCommand("name two folders, repositories or models: `doit compare A B`")
        try:
            before, now = map(read, args)
        except StageError as error:
            print(error)
            return CANNOT_TELL
        changed = changes(before.manifest, now.manifest)
        for line in lines_of(changed, before.manifest, now.manifest):
            print(line)
        masks = list(compare_masks(before, now, Path(params["picture"])))
        for line in ["masks:", *(f"  {each}" for each in masks)] if masks else []:
            print(line)
        return 1 if changed else 0


def read(place: str) -> Side:
    """A deployment, whose manifest is of whatever version.

    :raises StageError: when there is none.
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
            raise StageError(f"{place} has no {MANIFEST} to be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageError(f"{place}: its {MANIFEST} is none of this build: {error!r}") from error
    if not sizes:
        raise StageError(f"{place}: its {MANIFEST} lists no files")
    return Side(place, content, folder)


def _folder(place: str) -> Path:
    """A folder, or that of a model of the configuration."""
    if Path(place).is_dir():
        return Path(place)
    from tasks.config import parse

    config = parse.load(get_var("config", "config/models.toml"), deploy=get_var("deploy"))
    for target in config.targets:
        if target.name == place:
            return target.deploy
    names = ", ".join(target.name for target in config.targets)
    raise StageError(f"{place} is no folder, and no model of {config.path}, which has {names}.")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What differs between two manifests, in the order of `GROUPS`; pure."""
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
            yield Change("files", name, f"no longer there ({mebibytes(before[name]['size'])})")
            continue
        if name not in before:
            yield Change("files", name, f"new ({mebibytes(now[name]['size'])})")
            continue
        was, is_now = before[name], now[name]
        if was["sha256"] != is_now["sha256"]:
            old, new = was["size"], is_now["size"]
            share = f"{100 * (new - old) / max(old, 1):+.1f} %" if new != old else "as large"
            yield Change("files", name, f"{mebibytes(old)} → {mebibytes(new)} ({share})")
        content = {"size": None, "sha256": None}
        for path, text in _differences({**was, **content}, {**is_now, **content}):
            yield Change("files", " ".join((name, *path)), text)


def _differences(
    before: Any, now: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where two values differ, and how; items of lists by their names."""
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), (*path, key))
    elif before is None and isinstance(now, Mapping):
        yield path, "new"
    elif now is None and isinstance(before, Mapping):
        yield path, "no longer there"
    elif before != now:
        yield path, f"{_in_words(before)} → {_in_words(now)}"


def _by_name(value: Any) -> Any:
    """A list of things with names as a mapping; anything else as it is."""
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
    """What is printed; pure."""
    same = sum(now["files"].get(name) == each for name, each in before["files"].items())
    if not changed:
        yield f"Nothing changed: {same} files, and all that is said of them."
        return
    group = ""
    for each in changed:
        if each.group != group:
            group = each.group
            yield f"{group}:"
        yield f"  {each.key}: {each.text}"
    yield f"{same} of {len(now['files'])} files are the same."
