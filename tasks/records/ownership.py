"""Decides which files of a deploy folder a build can replace and remove: those that it wrote.

It can also replace another build's deployment of the same model, if every file matches its
manifest: a fresh clone has no records, and deploys over the files of an earlier clone. It removes
none of those files, because a manifest can name anything.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.config.models import Target
from tasks.records import ledger
from tasks.records.ledger import Written
from tasks.records.listing import MANIFEST, SIGNATURE, read_listing
from tasks.system.fingerprint import FINGERPRINTS


class Present(NamedTuple):
    """An existing file: the SHA-256 of its content, and whether it is a link."""

    sha256: str
    is_link: bool = False


class Plan(NamedTuple):
    """The changes of a deploy to the files of its folder, by their names.

    ``restored`` and ``foreign`` are among the ``written``: files that changed since this build
    deployed them, and files that it did not deploy. ``left`` are no longer deployed, but this build
    must not remove them.
    """

    written: list[str]
    restored: list[str]
    foreign: list[str]
    removed: list[str]
    left: list[str]


def plan(
    wanted: Mapping[str, str],
    present: Mapping[str, Present],
    recorded: Written,
    another: Collection[str],
    overwrite: bool = False,
) -> Plan:
    """Plan the files to write and to remove; pure.

    :param wanted: the SHA-256 of each file to deploy.
    :param present: the existing files among these and those deployed before.
    :param recorded: the files that this build wrote.
    :param another: the files of a complete deployment of the same model, by any build.
    :param overwrite: also remove a changed file that is no longer wanted.
    """
    own = {
        name
        for name, each in present.items()
        if not each.is_link and each.sha256 in recorded.get(name, ())
    }
    made = Plan([], [], [], [], [])
    for name, sha256 in wanted.items():
        there = present.get(name)
        if there is not None and there.sha256 == sha256:
            continue
        made.written.append(name)
        if there is None or name in own or (name in another and not there.is_link):
            continue
        # An edited file among unchanged ones was deployed; if all files differ, another program
        # has taken over the folder.
        edited = bool(own) and name in recorded and not there.is_link
        (made.restored if edited else made.foreign).append(name)
    for name, there in present.items():
        if name not in wanted:
            changed = overwrite and name in recorded and not there.is_link
            # Another build's signature covers no file that is written now.
            unsigned = name == SIGNATURE and name in another
            (made.removed if name in own or changed or unsigned else made.left).append(name)
    return made


def look(folder: Path, names: Iterable[str]) -> dict[str, Present]:
    """The existing files of a folder among some names; a link has its target's content."""
    present = {}
    for name in names:
        file = folder / name
        if file.is_file():
            is_link = ledger.link_in(folder, name) is not None
            present[name] = Present(FINGERPRINTS.sha256(file), is_link)
        elif file.is_symlink():
            present[name] = Present("", True)
    return present


def of_another_build(folder: Path, model: str) -> set[str]:
    """The files of a deployment of a model, if each matches its manifest; else empty."""
    listing = read_listing(folder / MANIFEST)
    if listing is None or listing.model != model:
        return set()
    hashes = listing.hashes
    whole = all(ledger.content_of(folder, name) == sha256 for name, sha256 in hashes.items())
    return {*hashes, MANIFEST, SIGNATURE} if whole else set()


def obstacle(folder: Path, names: Iterable[str]) -> str | None:
    """The obstacle to files, if any: a folder, a file in place of a folder, or a link to one."""
    for name in names:
        file = folder / name
        if file.is_dir():
            return f"{file} is a folder; expected a file or nothing, to deploy a file"
        for parent in (folder / each for each in reversed(Path(name).parents[:-1])):
            if parent.is_symlink():
                return f"{parent} is a link to {os.readlink(parent)}; expected a folder"
            if parent.exists() and not parent.is_dir():
                return f"{parent} is a file; expected a folder, to deploy files into"
    return None


def whose(folder: Path, name: str, recorded: Written) -> str:
    """A description of a file that this build did not write."""
    file = folder / name
    if file.is_symlink():
        return f"a link to {os.readlink(file)}"
    listing = read_listing(folder / MANIFEST)
    if name in recorded:
        return "not the file that this build deployed there"
    if name == MANIFEST and listing is None:
        return "not a model's manifest; it seems to belong to another program"
    if listing is None or (name not in listing.hashes and name != MANIFEST):
        return "in no model's manifest; it seems to belong to another program"
    model = listing.model
    if name == MANIFEST or listing.hashes[name] == FINGERPRINTS.sha256(file):
        return f"part of the model {model}, which another build deployed"
    return f"different from its entry in the manifest of {model}; it was changed or replaced"


def refusal(target: Target, foreign: Iterable[str], recorded: Written, again: str) -> str:
    """The error for a model that would replace files of others, and what to do about it.

    :param again: the command that replaces them.
    """
    lines = [
        f"- {target.deploy / name}: {whose(target.deploy, name, recorded)}\n" for name in foreign
    ]
    return (
        f"{target.name} is not deployed: it would replace files that this build did not write.\n"
        f"{''.join(lines)}"
        f"Move them away, or give [models.{target.source.name}] another folder; {again} replaces "
        "them."
    )
