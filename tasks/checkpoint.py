"""Stage 1: the checkpoint, fetched (or copied, or made up) and checked by its SHA-256.

Targets: ``<build>/checkpoints/<model>.pt`` and ``<model>.json``, the record of what it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.schema import Configuration, Model
from tasks.engine import artifacts, checkpoint_record
from tasks.engine.checkpoint_record import Record
from tasks.engine.errors import StageError
from tasks.engine.files import copy_and_hash, mebibytes
from tasks.engine.fingerprint import FINGERPRINTS, stat_signature
from tasks.engine.invocation import command
from tasks.engine.stage import Workspace, declare, workspace

if TYPE_CHECKING:
    from doit.task import Task

MAKE_SYNTHETIC = "tasks.model.load:make_synthetic"


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    source = model.source.path
    reads = [str(source)] if source is not None and source.is_file() else []
    return declare(
        model.name,
        obtain_checkpoint,
        [config, model],
        # A fine-tuning that saves again is seen.
        reads=[*reads, *(model.architecture_files if model.source.kind == "synthetic" else [])],
        writes=[artifacts.checkpoint(config, model), artifacts.checkpoint_record(config, model)],
        inputs=identity(model),
        also_runs=[MAKE_SYNTHETIC] if model.source.kind == "synthetic" else [],
        meta={"fetched": model.source.kind != "synthetic"},
    )


def identity(model: Model) -> dict[str, Any]:
    """What makes it this checkpoint and no other: its address, and its hash where one is given."""
    if model.source.kind == "synthetic":
        return {"url": model.source.url, "architecture": model.architecture}
    return {"url": model.source.url, "sha256": model.sha256}


def is_wanted(model: Model, known: Record | None, sha256_on_disk: str | None) -> bool:
    """Whether the file on disk is the wanted checkpoint already."""
    if sha256_on_disk is None:
        return False
    if model.sha256 is not None:
        return sha256_on_disk == model.sha256
    return (
        model.source.kind == "http"
        and known is not None
        and known.url == model.source.url
        and known.sha256 == sha256_on_disk
    )


def obtain_checkpoint(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Bring the checkpoint into place, unless it is there; write its record.

    :raises StageError: with what was expected, what was found and what to do.
    """
    target = artifacts.checkpoint(config, model)
    record_path = artifacts.checkpoint_record(config, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    on_disk = FINGERPRINTS.sha256(target) if target.is_file() else None
    known = checkpoint_record.read(record_path)
    if is_wanted(model, known, on_disk):
        how = "already there"
        if model.source.kind == "http" and known is not None and known.url != model.source.url:
            how += f"; {_check_address(model, target)}"
    elif model.source.kind == "http":
        how = _download(config, model, target)
    else:
        with workspace(config.build, task) as work:
            if model.source.kind == "file":
                how = _copy(model, target, work)
            else:
                how = _generate(model, target, work)

    sha256, size = FINGERPRINTS.sha256(target), target.stat().st_size
    synthetic = model.source.kind == "synthetic"
    Record(model.source.url, sha256, size, synthetic).write(record_path)
    if model.sha256 is None and not synthetic:
        sys.stderr.write(
            f"warning: [models.{model.name}] has no sha256, so nothing tells whether "
            f'{model.source.url} is the right file; what came is sha256 = "{sha256}"\n'
        )
    return {"summary": f"{mebibytes(size)}, {how}, sha256 {sha256[:8]}…{sha256[-4:]}"}


def _check_address(model: Model, target: Path) -> str:
    """Ask a new address of a checkpoint that is there already; a wrong one is warned about."""
    from tasks.engine import download

    request = download.Request(model.source.url, size=target.stat().st_size)
    problem = download.check(request)
    if problem is None:
        return "the new url has a file of its size"
    sys.stderr.write(
        f"warning: [models.{model.name}] url: {model.source.url} {problem}. The checkpoint that is "
        "there has the sha256 that is asked for and stays; where there is none, this url must do.\n"
    )
    return "the new url could not be confirmed"


def _download(config: Configuration, model: Model, target: Path) -> str:
    from tasks.engine import download

    try:
        fetched = download.fetch(
            download.Request(model.source.url, model.sha256, model.size, f"[models.{model.name}]"),
            target,
            progress=download.show_progress(f"checkpoint:{model.name}"),
        )
    except download.Unreachable as error:
        if not error.told and any(each.name == "demo" for each in config.models):
            raise StageError(f"{error} {command('demo')} needs no network.") from error
        raise
    FINGERPRINTS.remember(target, fetched.sha256)
    return f"{mebibytes(fetched.received)} downloaded"


def _copy(model: Model, target: Path, work: Workspace) -> str:
    """Copy a local checkpoint; what was copied is what is compared with the pin."""
    source = model.source.path
    assert source is not None
    if not source.is_file():
        raise StageError(
            f"[models.{model.name}] url: no file at {source.absolute()}. "
            "Put the checkpoint there, or correct the url (relative to the project root)."
        )
    copy = Path(work.unfinished(target))
    before = stat_signature(source)
    sha256 = copy_and_hash(source, copy)
    if stat_signature(source) != before:
        raise StageError(
            f"{source} was written to while it was copied. Run the same command again once it is "
            "saved."
        )
    size = copy.stat().st_size
    for key, expected, found in (("size", model.size, size), ("sha256", model.sha256, sha256)):
        if expected is not None and expected != found:
            cut_off = model.size is not None and size < model.size
            raise StageError(
                f"{source} is not the expected checkpoint: [models.{model.name}] {key} expects "
                f"{expected}, found {found}. "
                + ("The file may be cut off: copy it again. " if cut_off else "")
                + f"If the new file is right, put its {key} there."
            )
    work.deliver(target)
    FINGERPRINTS.remember(target, sha256)
    return f"copied from {source}"


def _generate(model: Model, target: Path, work: Workspace) -> str:
    made = Path(work.unfinished(target))
    work.run(
        MAKE_SYNTHETIC,
        architecture=model.architecture,
        seed=model.source.seed,
        destination=str(made),
    )
    found = FINGERPRINTS.sha256(made)
    if model.sha256 not in (None, found):
        raise StageError(
            f"[models.{model.name}] sha256 expects {model.sha256}, but {model.source.url} "
            f"made {found}. Leave sha256 out: random weights depend on torch's version."
        )
    work.deliver(target)
    return f"synthetic, seed {model.source.seed}"
