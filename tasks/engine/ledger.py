"""Remembers every folder that was deployed to, so that `doit prune` finds what is left over."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config.schema import PLAIN_NAME, Configuration, Model
from tasks.engine.files import mebibytes, remove_empty_folders, write_record
from tasks.engine.fingerprint import FINGERPRINTS

_LOCK = threading.Lock()  # models are deployed side by side


@dataclass(frozen=True)
class Deployment:
    """A folder that a model of a configuration was deployed to."""

    config: str
    model: str
    folder: Path


def path(config: Configuration) -> Path:
    """The ledger's file."""
    return config.build / "state" / "deployments.json"


def read(config: Configuration) -> list[Deployment]:
    """Every deployment from this build folder, by any configuration."""
    try:
        entries = json.loads(path(config).read_text())
        return [Deployment(each["config"], each["model"], Path(each["folder"])) for each in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # nothing was deployed, or what is there is no ledger


def _write(config: Configuration, deployments: Sequence[Deployment]) -> None:
    entries = [
        {"config": each.config, "model": each.model, "folder": os.fspath(each.folder)}
        for each in deployments
    ]
    write_record(path(config), json.dumps(entries, indent=2) + "\n")


def add(config: Configuration, model: Model) -> None:
    """Note that a model is deployed to its folder."""
    deployment = Deployment(os.fspath(config.path), model.name, model.deploy)
    with _LOCK:
        others = [each for each in read(config) if each.folder != model.deploy]
        _write(config, [*others, deployment])


def build_id(config: Configuration) -> str:
    """A name that no other build folder has, for what this one leaves in a deploy folder."""
    file = config.build / "state" / "id"
    with _LOCK:
        if not file.is_file():
            write_record(file, uuid.uuid4().hex[:12])
        return file.read_text()


def orphans(config: Configuration, deployments: Sequence[Deployment]) -> list[Deployment]:
    """Deployments of this configuration that it no longer asks for; pure.

    A model that is still configured is left where ``deploy=DIR`` put it before: only a folder
    beside its present one, under the same deploy folder, is a leftover (a changed `folder`).
    """
    present = {model.name: model.deploy for model in config.models}
    folders = set(present.values())
    return [
        each
        for each in deployments
        if each.config == os.fspath(config.path)
        and each.folder not in folders
        and (each.model not in present or each.folder.parent == present[each.model].parent)
    ]


def remove(config: Configuration, deployment: Deployment, dry_run: bool) -> list[str]:
    """Remove exactly the files that a deployment's manifest names, and the manifest.

    :returns: a line for each file, saying what was (or would be) done.
    """
    manifest = deployment.folder / "manifest.json"
    lines = []
    verb = "would remove" if dry_run else "removed"
    for name, expected in named_files(manifest).items():
        file = deployment.folder / name
        if not file.is_file():
            continue
        size = mebibytes(file.stat().st_size)
        edited = name != manifest.name and FINGERPRINTS.sha256(file) != expected
        if not dry_run:
            file.unlink()
            remove_empty_folders(deployment.folder, [name])
        lines.append(f"{verb} {file} ({size}{', changed since it was deployed' * edited})")
    if not dry_run:
        _write(config, [each for each in read(config) if each.folder != deployment.folder])
        if deployment.folder.is_dir():
            others = sorted(entry.name for entry in deployment.folder.iterdir())
            if others:
                lines.append(f"left {deployment.folder}: it also holds {', '.join(others)}")
            else:
                deployment.folder.rmdir()
    return lines


def named_files(manifest: Path) -> dict[str, str | None]:
    """File names of a manifest with their SHA-256, the manifest itself last.

    A name that leads out of the folder is passed over: nothing outside is ever removed. A file
    that is no manifest, though it may be JSON, names nothing.
    """
    files = manifest_files(manifest)
    if files is None:
        return {}
    named = {
        name: sha256
        for name, sha256 in files.items()
        if all(PLAIN_NAME.fullmatch(part) for part in name.split("/"))
    }
    return {**named, manifest.name: None}


def holds_what_its_manifest_says(folder: Path) -> bool:
    """Whether every file that was deployed to a folder is as its manifest has it.

    Which files there are is known only once their fidelity is: they are no targets of doit's.
    """
    return changed_files(folder) == []


def changed_files(folder: Path) -> list[str] | None:
    """What the manifest in a folder names and is gone or another file; None without a manifest."""
    files = manifest_files(folder / "manifest.json")
    if files is None:
        return None
    return [
        name
        for name, sha256 in files.items()
        if not (folder / name).is_file() or FINGERPRINTS.sha256(folder / name) != sha256
    ]


def manifest_files(manifest: Path) -> dict[str, str] | None:
    """The SHA-256 of each file that a manifest names; None when it is no manifest."""
    try:
        content: Any = json.loads(manifest.read_text())
        return {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
