"""Stage 1: the checkpoint, fetched (or copied, or made up) and checked by its SHA-256.

Targets: ``<build>/checkpoints/<model>.pt`` and ``<model>.json``, the record of what it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.task import clean_targets

from tasks import child
from tasks.child import StageError
from tasks.configuration import Configuration, Model
from tasks.files import copy_atomically, mebibytes, scratch_folder, write_atomically
from tasks.fingerprint import FINGERPRINTS
from tasks.staleness import Trace

if TYPE_CHECKING:
    from doit.task import Task


@dataclass(frozen=True)
class Record:
    """What the checkpoint on disk is: where it came from, its SHA-256 and size in bytes."""

    url: str
    sha256: str
    size: int
    synthetic: bool


def path(config: Configuration, model: Model) -> Path:
    """The checkpoint of a model."""
    return config.build / "checkpoints" / f"{model.name}.pt"


def record_path(config: Configuration, model: Model) -> Path:
    """The record beside the checkpoint."""
    return path(config, model).with_suffix(".json")


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    file_dep = []
    if model.source.path is not None and model.source.path.is_file():
        file_dep.append(str(model.source.path))  # a fine-tuning that saves again is seen
    if model.source.kind == "synthetic":
        file_dep += ["tasks/sam2_model.py", *model.architecture_files]
    return {
        "name": model.name,
        "actions": [(obtain, [config, model])],
        "file_dep": file_dep,
        "targets": [str(path(config, model)), str(record_path(config, model))],
        "uptodate": [Trace(identity(model))],
        "clean": [clean_targets],
        "meta": {"fetched": model.source.kind != "synthetic"},
        "io": {"capture": False},
    }


def identity(model: Model) -> dict[str, Any]:
    """What makes it this checkpoint and no other: its hash where one is given, else its address.

    So a mirror of the same file is not fetched again.
    """
    if model.sha256 is not None:
        return {"sha256": model.sha256}
    if model.source.kind == "synthetic":
        return {"url": model.source.url, "architecture": model.architecture}
    return {"url": model.source.url}


def is_wanted(model: Model, record: Record | None, sha256_on_disk: str | None) -> bool:
    """Whether the file on disk is the wanted checkpoint already."""
    if sha256_on_disk is None:
        return False
    if model.sha256 is not None:
        return sha256_on_disk == model.sha256
    return (
        model.source.kind == "http"
        and record is not None
        and record.url == model.source.url
        and record.sha256 == sha256_on_disk
    )


@child.action
def obtain(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Bring the checkpoint into place, unless it is there; write its record.

    :raises StageError: with what was expected, what was found and what to do.
    """
    target = path(config, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    on_disk = FINGERPRINTS.sha256(target) if target.is_file() else None
    if is_wanted(model, read_record(record_path(config, model)), on_disk):
        how = "already there"
    elif model.source.kind == "http":
        how = _download(model, target)
    elif model.source.kind == "file":
        how = _copy(model, target)
    else:
        how = _make_up(config, model, target, verbose=task.verbosity == 2)

    sha256, size = FINGERPRINTS.sha256(target), target.stat().st_size
    record = Record(model.source.url, sha256, size, model.source.kind == "synthetic")
    write_atomically(record_path(config, model), json.dumps(asdict(record), indent=2) + "\n")
    if model.sha256 is None and model.source.kind != "synthetic":
        sys.stderr.write(
            f"warning: [models.{model.name}] has no sha256, so nothing tells whether "
            f'{model.source.url} is the right file; what came is sha256 = "{sha256}"\n'
        )
    return {"summary": f"{mebibytes(size)}, {how}, sha256 {sha256[:8]}…{sha256[-4:]}"}


def read_record(path: Path) -> Record | None:
    """A record, or None when there is none to be read."""
    try:
        return Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _download(model: Model, target: Path) -> str:
    from tasks import download

    fetched = download.fetch(
        download.Wanted(model.source.url, model.sha256, model.size, f"[models.{model.name}]"),
        target,
        progress=download.show_progress(f"checkpoint:{model.name}"),
    )
    FINGERPRINTS.remember(target, fetched.sha256)
    return f"{mebibytes(fetched.received)} downloaded"


def _copy(model: Model, target: Path) -> str:
    source = model.source.path
    assert source is not None
    if not source.is_file():
        raise StageError(
            f"[models.{model.name}] url: no file at {source.absolute()}. "
            "Put the checkpoint there, or correct the url (relative to the project root)."
        )
    sha256, size = FINGERPRINTS.sha256(source), source.stat().st_size
    for key, expected, found in (("size", model.size, size), ("sha256", model.sha256, sha256)):
        if expected is not None and expected != found:
            raise StageError(
                f"{source} is not the expected checkpoint: [models.{model.name}] {key} expects "
                f"{expected}, found {found}. If the new file is right, put its {key} there."
            )
    copy_atomically(source, target)
    return f"copied from {source}"


def _make_up(config: Configuration, model: Model, target: Path, verbose: bool) -> str:
    log = config.build / "logs" / f"checkpoint-{model.name}.log"
    with scratch_folder(config.build / "tmp" / f"checkpoint-{model.name}") as scratch:
        arguments = {
            "architecture": model.architecture,
            "seed": model.source.seed,
            "destination": str(scratch / "checkpoint.pt"),
        }
        child.run("tasks.sam2_model:make_synthetic", arguments, log, verbose)
        made = scratch / "checkpoint.pt"
        found = FINGERPRINTS.sha256(made)
        if model.sha256 not in (None, found):
            raise StageError(
                f"[models.{model.name}] sha256 expects {model.sha256}, but {model.source.url} "
                f"made {found}. Leave sha256 out: random weights depend on torch's version."
            )
        made.replace(target)
    return f"synthetic, seed {model.source.seed}"
