"""Records the files in each folder that this build deployed to, and its models.

These records decide what can be replaced or removed, never a manifest, which anyone can edit.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config.models import Target
from tasks.config.schema import Configuration
from tasks.console.sizes import mebibytes
from tasks.records.listing import MANIFEST, SIGNATURE, is_within_folder, read_listing
from tasks.system.files import removal_problem, remove_empty_folders, write_record
from tasks.system.fingerprint import FINGERPRINTS

_LOCK = threading.Lock()  # models are deployed in parallel

# The SHA-256 of each file, by name: two hashes while one file replaces another.
Written = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Deployment:
    """A folder that a model of a configuration was deployed to, and the files written there."""

    config: str
    model: str
    folder: Path
    files: Written

    @property
    def shown(self) -> Path:
        """The folder, relative to the project if it is inside."""
        here = Path.cwd()
        return self.folder.relative_to(here) if self.folder.is_relative_to(here) else self.folder

    def is_in(self, folder: Path) -> bool:
        """Whether it is the deployment in a folder, however the path is spelt."""
        return self.folder == Path(os.path.realpath(folder))


def path(config: Configuration) -> Path:
    """The ledger's file."""
    return config.build / "state" / "deployments.json"


def name_of(config: Configuration) -> str:
    """The name of a configuration in the records."""
    return _recorded_path(config, config.path)


def _recorded_path(config: Configuration, path: Path) -> str:
    """A path in the form of the records.

    Within the project it is relative to the build folder, so that a checkout can move; otherwise
    it is absolute, because several projects can share a build folder.
    """
    here = Path.cwd()
    real, build = Path(os.path.realpath(path)), Path(os.path.realpath(config.build))
    moves_along = real.is_relative_to(here) and build.is_relative_to(here)
    return os.path.relpath(real, build) if moves_along else os.fspath(real)


def read(config: Configuration) -> list[Deployment]:
    """Every deployment from this build folder, by any configuration."""
    try:
        entries = json.loads(path(config).read_text())
        return [_deployment(config, each) for each in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # nothing was deployed, or the file is not a ledger


def _deployment(config: Configuration, entry: Mapping[str, Any]) -> Deployment:
    name, folder = str(entry["config"]), Path(entry["folder"])
    if "files" not in entry:  # written by a version whose paths were relative to the project
        name = _recorded_path(config, Path(name))
        return Deployment(name, str(entry["model"]), Path(os.path.realpath(folder)), {})
    files = {
        str(file): [str(each) for each in hashes]
        for file, hashes in entry["files"].items()
        if is_within_folder(file)
    }
    real = Path(os.path.realpath(config.build / folder))
    return Deployment(name, str(entry["model"]), real, files)


def _write(config: Configuration, deployments: Iterable[Deployment]) -> None:
    entries = [
        {
            "config": each.config,
            "model": each.model,
            "folder": _recorded_path(config, each.folder),
            "files": each.files,
        }
        for each in deployments
    ]
    write_record(path(config), json.dumps(entries, indent=2) + "\n")


def add(config: Configuration, target: Target, files: Written) -> None:
    """Record the files that this build writes to a model's folder; this replaces the old record."""
    folder = Path(os.path.realpath(target.deploy))
    deployment = Deployment(name_of(config), target.name, folder, files)
    with _LOCK:
        before = read(config)
        if deployment not in before:
            _write(config, [*(each for each in before if each.folder != folder), deployment])


def written(config: Configuration, target: Target) -> Written:
    """The files that this build wrote to a model's folder."""
    return next((each.files for each in read(config) if each.is_in(target.deploy)), {})


def build_id(config: Configuration) -> str:
    """A unique name of this build folder, for its own files in a deploy folder."""
    file = config.build / "state" / "id"
    with _LOCK:
        if not file.is_file():
            write_record(file, uuid.uuid4().hex[:12])
        return file.read_text()


def note_models(config: Configuration) -> None:
    """Record the models that a configuration builds here, so that `doit prune` can remove them."""
    recorded = models(config)
    names = names_of(config)
    mine = name_of(config)
    if not names <= recorded.get(mine, set()):
        recorded[mine] = recorded.get(mine, set()) | names
        _write_models(config, recorded)


def names_of(config: Configuration) -> set[str]:
    """The names under which a configuration has files in the build folder."""
    return {each.name for each in config.sources} | {each.name for each in config.targets}


def forget_models(config: Configuration, names: Iterable[str]) -> None:
    """Forget models of a configuration that have no files left."""
    recorded = models(config)
    recorded[name_of(config)] = recorded.get(name_of(config), set()).difference(names)
    _write_models(config, recorded)


def models(config: Configuration) -> dict[str, set[str]]:
    """The models that each configuration has ever had in this build folder."""
    try:
        content = json.loads((config.build / "state" / "models.json").read_text())
        return {str(name): {str(each) for each in names} for name, names in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_models(config: Configuration, recorded: Mapping[str, set[str]]) -> None:
    content = {name: sorted(names) for name, names in recorded.items()}
    write_record(config.build / "state" / "models.json", json.dumps(content, indent=2) + "\n")


def orphans(config: Configuration, deployments: Sequence[Deployment]) -> list[Deployment]:
    """Deployments of this configuration that it no longer has.

    For a model that is still configured, copies from an earlier ``deploy=DIR`` do not count: only
    another folder under the same deploy folder is a leftover (after a changed `folder`).
    """
    mine = name_of(config)
    present = {each.name: Path(os.path.realpath(each.deploy)) for each in config.targets}
    folders = set(present.values())
    return [
        each
        for each in deployments
        if each.config == mine
        and each.folder not in folders
        and (each.model not in present or each.folder.parent == present[each.model].parent)
    ]


def remove(config: Configuration, deployment: Deployment, dry_run: bool) -> list[str]:
    """Remove the files that this build wrote to a folder, if they have not changed since.

    With ``overwrite=yes`` changed files are removed too.

    :returns: a line for each file with what was (or would be) done.
    """
    lines, stuck = [], False
    verb = "would remove" if dry_run else "removed"
    folder = deployment.shown
    for name, hashes in deployment.files.items():
        file = folder / name
        if not os.path.lexists(file):
            continue
        content = content_of(folder, name)
        changed = ", changed since it was deployed" * (content not in hashes)
        if content is None or (changed and not config.overwrite):
            lines.append(f"kept {file}: it is not the file that this build wrote there")
            continue
        size = mebibytes(file.stat().st_size)
        problem = None if dry_run else removal_problem(file)
        if problem:
            stuck = True
            lines.append(problem)
            continue
        lines.append(f"{verb} {file} ({size}{changed})")
        if not dry_run:
            remove_empty_folders(folder, [name])
    if not deployment.files and folder.is_dir():
        lines.append(f"kept {folder}: no record shows which of its files this build wrote")
    if not dry_run and not stuck:
        _write(config, [each for each in read(config) if each.folder != deployment.folder])
        if folder.is_dir():
            others = sorted(entry.name for entry in folder.iterdir())
            if others:
                lines.append(f"left {folder}: it also contains {', '.join(others)}")
            elif not folder.is_symlink():
                with suppress(OSError):  # an empty folder, but possibly in another user's folder
                    folder.rmdir()
    return lines


def link_in(folder: Path, name: str) -> Path | None:
    """The first link on the path from a folder to a file in it, also the file itself."""
    parents = [folder / each for each in reversed(Path(name).parents[:-1])]
    return next((each for each in [*parents, folder / name] if each.is_symlink()), None)


def content_of(folder: Path, name: str) -> str | None:
    """The SHA-256 of a file in a folder; None if it is missing, or its path has a link."""
    file = folder / name
    if not file.is_file() or link_in(folder, name):
        return None
    return FINGERPRINTS.sha256(file)


def holds_what_its_manifest_says(folder: Path) -> bool:
    """Whether every deployed file matches the manifest; they are not targets of doit's tasks."""
    return changed_files(folder) == []


def holds_its_signature(config: Configuration, target: Target) -> bool:
    """Whether the signature, which the manifest does not list, is still as this build wrote it."""
    own = written(config, target).get(SIGNATURE, ())
    return content_of(target.deploy, SIGNATURE) in own


def changed_files(folder: Path) -> list[str] | None:
    """The files of a folder's manifest that are missing or changed; None without a manifest."""
    listing = read_listing(folder / MANIFEST)
    if listing is None:
        return None
    return [
        name
        for name, sha256 in listing.hashes.items()
        if not (folder / name).is_file() or FINGERPRINTS.sha256(folder / name) != sha256
    ]
