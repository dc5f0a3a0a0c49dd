"""Decides which files of a deploy folder a build may replace and remove: those that it wrote.

What another build of the same model deployed may be replaced too, while every file is as its
manifest says: a fresh clone has no records, and deploys over what an earlier one did. None of that
is removed, since a manifest can name anything.
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
    """A file that is there: the SHA-256 of its content, and whether it is a link."""

    sha256: str
    is_link: bool = False


class Plan(NamedTuple):
    """What a deploy does to the files of its folder, by their names.

    ``restored`` and ``foreign`` are among the ``written``: what was changed since this build
    deployed it, and what it did not deploy at all. ``left`` is no longer deployed, but not this
    build's to remove.
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
    """What to write and to remove; pure.

    :param wanted: the SHA-256 of each file that is to be there.
    :param present: what is there, of these files and of those that were deployed before.
    :param recorded: what this build wrote.
    :param another: the files of a whole deployment of the same model, by whichever build.
    :param overwrite: whether a changed file that is no longer wanted may be removed too.
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
        # An edited file among others of ours was deployed; if all of them differ, the folder has
        # become another program's.
        edited = bool(own) and name in recorded and not there.is_link
        (made.restored if edited else made.foreign).append(name)
    for name, there in present.items():
        if name not in wanted:
            changed = overwrite and name in recorded and not there.is_link
            # Another build's signature is of no file that is written now.
            unsigned = name == SIGNATURE and name in another
            (made.removed if name in own or changed or unsigned else made.left).append(name)
    return made


def look(folder: Path, names: Iterable[str]) -> dict[str, Present]:
    """What lies under some names in a folder; a link has the content of what it leads to."""
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
    """The files of a deployment of a model, if each is as its manifest says; none otherwise."""
    listing = read_listing(folder / MANIFEST)
    if listing is None or listing.model != model:
        return set()
    hashes = listing.hashes
    whole = all(ledger.content_of(folder, name) == sha256 for name, sha256 in hashes.items())
    return {*hashes, MANIFEST, SIGNATURE} if whole else set()


def obstacle(folder: Path, names: Iterable[str]) -> str | None:
    """What is in the way of files: a folder, a file in place of a folder, or a link to one."""
    for name in names:
        file = folder / name
        if file.is_dir():
            return f"{file} is a folder, where a file is to be deployed"
        for parent in (folder / each for each in reversed(Path(name).parents[:-1])):
            if parent.is_symlink():
                return f"{parent} is a link to {os.readlink(parent)}, where a folder is expected"
            if parent.exists() and not parent.is_dir():
                return f"{parent} is a file, where a folder is to be deployed"
    return None


def whose(folder: Path, name: str, recorded: Written) -> str:
    """What a file that this build did not write seems to be, in words."""
    file = folder / name
    if file.is_symlink():
        return f"a link to {os.readlink(file)}"
    listing = read_listing(folder / MANIFEST)
    if name in recorded:
        return "another file than the one that this build deployed there"
    if name == MANIFEST and listing is None:
        return "no manifest of a model: it seems to be another program's"
    if listing is None or (name not in listing.hashes and name != MANIFEST):
        return "named by no manifest of a model: it seems to be another program's"
    model = listing.model
    if name == MANIFEST or listing.hashes[name] == FINGERPRINTS.sha256(file):
        return f"of the model {model}, which another build deployed"
    return f"not what the manifest of {model} beside it says: it was changed, or is another file"


def refusal(target: Target, foreign: Iterable[str], recorded: Written, again: str) -> str:
    """Why a model is not deployed over files of others, and what to do about it.

    :param again: the command that replaces them.
    """
    lines = [
        f"- {target.deploy / name}: {whose(target.deploy, name, recorded)}\n" for name in foreign
    ]
    return (
        f"{target.name} is not deployed: it would replace what this build did not write.\n"
        f"{''.join(lines)}"
        f"Move it away, or give [models.{target.source.name}] another folder; {again} replaces it."
    )
