"""Downloads, copies or generates the checkpoint, and checks its SHA-256.

Targets: ``<build>/checkpoints/<model>.pt`` and ``<model>.json``, its record.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.build import fetch_from_cache
from tasks.building.stage import Stage, Workspace
from tasks.config import checkpoint_record
from tasks.config.checkpoint_record import Checkpoint
from tasks.config.location import WEIGHTS
from tasks.config.models import Source
from tasks.console.invocation import command
from tasks.console.progress import show_progress
from tasks.console.sizes import mebibytes
from tasks.model.published import NATIVE_IMAGE_SIZE
from tasks.system.errors import StageError
from tasks.system.files import copy_and_hash
from tasks.system.fingerprint import FINGERPRINTS, stat_signature

if TYPE_CHECKING:
    from tasks.remote.answers import Request

MAKE_SYNTHETIC = "tasks.model.load:make_synthetic"


def declare(source: Source) -> Stage:
    """The stage that obtains a source's checkpoint."""
    made_up = source.location.kind == "synthetic"
    return Stage(
        source.name,
        obtain_checkpoint,
        [source],
        reads=[
            *map(str, source.location.local_files),  # so a fine-tuning that saves again is noticed
            *(source.architecture_files if made_up else []),
        ],
        writes=[source.checkpoint, source.checkpoint_record],
        inputs=identity(source),
        also_runs=[MAKE_SYNTHETIC, *source.family_code("making")] if made_up else [],
        fetches=not made_up,
    )


def identity(source: Source) -> dict[str, Any]:
    """What identifies the checkpoint: its address, and its hash and size if configured."""
    url = checkpoint_record.identity(source.build, source.location)
    made_up = source.location.kind == "synthetic"
    made_by = {"architecture": source.architecture} if made_up else {}
    return {"url": url, "sha256": source.sha256, "size": source.size, **made_by}


def is_wanted(
    source: Source, url: str, record: Checkpoint | None, sha256_on_disk: str | None
) -> bool:
    """Whether the file on disk is the wanted checkpoint; ``url`` is as in a record. Pure."""
    if sha256_on_disk is None:
        return False
    if source.sha256 is not None:
        return sha256_on_disk == source.sha256
    return (
        source.location.kind in ("http", "hub")
        and record is not None
        and record.url == url
        and record.sha256 == sha256_on_disk
        and source.size in (None, record.size)
    )


def obtain_checkpoint(source: Source, work: Workspace) -> dict[str, Any]:
    """Put the checkpoint in place, unless it is already there; write its record."""
    target, kind = source.checkpoint, source.location.kind
    target.parent.mkdir(parents=True, exist_ok=True)
    on_disk = FINGERPRINTS.sha256(target) if target.is_file() else None
    record = checkpoint_record.read(source.checkpoint_record)
    url = checkpoint_record.identity(source.build, source.location)
    commit = None
    if is_wanted(source, url, record, on_disk):
        how = "already there"
        if record is not None and record.url == url:
            commit = record.commit
        elif record is not None and kind == "http":
            how += f"; {_check_address(source, target)}"
    elif kind in ("http", "hub"):
        how, commit = _fetch(source, url, work)
    else:
        make = _copy if kind == "file" else _generate
        how = make(source, target, work)

    sha256, size = FINGERPRINTS.sha256(target), target.stat().st_size
    if source.size not in (None, size):
        raise StageError(
            f"[models.{source.name}] size expects {source.size} bytes, but {target} has {size} "
            f"(sha256 {sha256}). Correct the size, or leave it out."
        )
    synthetic = kind == "synthetic"
    Checkpoint(url, sha256, size, synthetic, commit).write(source.checkpoint_record)
    if source.sha256 is None and not synthetic:
        sys.stderr.write(
            f"warning: [models.{source.name}] has no sha256, so the build cannot check that "
            f'{source.location.shown} is the right file; it has sha256 = "{sha256}"\n'
        )
    return {"summary": f"{mebibytes(size)}, {how}, sha256 {sha256[:8]}…{sha256[-4:]}"}


STAGE = "checkpoint"  # the name in the cache


def _fetch(source: Source, url: str, work: Workspace) -> tuple[str, str | None]:
    """Download the checkpoint, unless the cache has it under the configured hash.

    :param url: as in a record.
    :returns: how the checkpoint was obtained, and its commit on the hub.
    """
    from tasks.remote import download
    from tasks.remote.answers import Request

    target, cache, sha256 = source.checkpoint, work.services.cache, source.sha256
    if cache is not None and sha256 is not None:
        entry = cache.find(STAGE, sha256, 1)
        if entry is not None and entry.outputs[0].sha256 != sha256:
            cache.warn(f"{STAGE}: the cache has a different file under this hash; downloading it")
        elif entry is not None and fetch_from_cache(cache, entry, [target], work):
            return f"from {cache.name}", None
    commit = None
    try:
        if source.location.kind == "hub":
            how, commit = _obtain_from_hub(source, target, work)
        else:
            table = f"[models.{source.name}]"
            request = Request(source.location.url, sha256, source.size, table, identity=url)
            how = _download(request, target, work)
    except download.Unreachable as error:
        if not error.reported and any(each.name == "demo" for each in work.config.targets):
            raise StageError(f"{error} {command('demo')} needs no network.") from error
        raise
    if cache is not None and sha256 is not None:
        cache.store(STAGE, sha256, [target], {})
    return how, commit


def _check_address(source: Source, target: Path) -> str:
    """Check the new address of a checkpoint that is already there; warn if it is wrong."""
    from tasks.remote import download
    from tasks.remote.answers import Request

    request = Request(source.location.url, size=target.stat().st_size)
    problem = download.check(request)
    if problem is None:
        return "the new url has a file of its size"
    sys.stderr.write(
        f"warning: [models.{source.name}] url: {source.location.shown} {problem}. The checkpoint "
        "on this machine has the expected sha256 and stays, but a machine without it needs a url "
        "that works.\n"
    )
    return "the new url could not be confirmed"


def _download(request: Request, target: Path, work: Workspace) -> str:
    from tasks.remote import download

    fetched = download.fetch(
        request,
        target,
        progress=show_progress(work.task.name),
        unreachable=work.services.unreachable,
    )
    FINGERPRINTS.remember(target, fetched.sha256)
    return f"{mebibytes(fetched.received)} downloaded"


def _obtain_from_hub(source: Source, target: Path, work: Workspace) -> tuple[str, str]:
    """Download a file from the hub, or copy it from huggingface_hub's cache; returns as `_fetch`.

    The ``config.json`` beside transformers' weights must describe a SAM 2 model.
    """
    from tasks.remote import hub
    from tasks.remote.answers import Request

    location, table = source.location, f"[models.{source.name}]"
    file = hub.find(location.repo, location.revision, location.file, table)
    # config.json describes only the weights that transformers saved.
    described = location.file == WEIGHTS
    content = hub.read_config(location.repo, file.commit, table) if described else None
    if content is not None:
        check_config(source, content, f"{table} url: {hub.CONFIG} of hf:{location.repo}")
    for key, expected, on_hub in (
        ("sha256", source.sha256, file.sha256),
        ("size", source.size, file.size),
    ):
        if None not in (expected, on_hub) and expected != on_hub:
            raise StageError(
                f"{location.shown} is not the expected checkpoint: {table} {key} expects "
                f"{expected}, but the hub has {on_hub} at commit {file.commit}. If the hub's file "
                f"is right, put its {key} there; if not, add @ and the right commit to the url."
            )
    sha256, size = source.sha256 or file.sha256, source.size or file.size
    request = Request(file.url, sha256, size, table, file.headers)
    if file.copy is None or not _copy_of_hub(file.copy, request, target, work):
        how = _download(request, target, work)
    else:
        how = "copied from huggingface_hub's cache"
    return f"{how}, commit {file.commit[:12]}", file.commit


def _copy_of_hub(copy: Path, request: Request, target: Path, work: Workspace) -> bool:
    """Copy a file from huggingface_hub's cache; False, with a warning, if it is the wrong file."""
    unfinished = work.unfinished(target)
    sha256 = copy_and_hash(copy, unfinished)
    size = unfinished.stat().st_size
    if request.sha256 in (None, sha256) and request.size in (None, size):
        work.deliver(target)
        FINGERPRINTS.remember(target, sha256)
        return True
    problem = (
        f"{copy} is not the expected checkpoint: {request.table} expects {request.size} bytes with "
        f"sha256 {request.sha256}, but the file has {size} bytes with sha256 {sha256}"
    )
    if not request.url:
        raise StageError(
            f"{problem}. Remove the file, or correct {request.table}. Unset HF_HUB_OFFLINE to "
            "download it again."
        )
    sys.stderr.write(f"warning: {problem}; downloading it instead\n")
    return False


# transformers' names (``model_type``) for the models whose weights the build can read.
FAMILIES = ("sam2", "sam2_video", "edgetam", "edgetam_video")


def check_config(source: Source, content: Mapping[str, Any], what: str) -> None:
    """Refuse the ``config.json`` of a model that is not SAM 2, or has another image size; pure."""
    family = content.get("model_type")
    if family not in FAMILIES:
        raise StageError(
            f"{what} describes another kind of model: its model_type is {family!r}; "
            f"expected one of {', '.join(FAMILIES)}"
        )
    prompts = content.get("prompt_encoder_config")
    size = prompts.get("image_size") if isinstance(prompts, dict) else None
    size = size[0] if isinstance(size, list) and size else size or NATIVE_IMAGE_SIZE
    if size != NATIVE_IMAGE_SIZE and source.config is None and source.image_size is None:
        raise StageError(
            f"{what}: the weights are for images of {size} pixels, but [models.{source.name}] is "
            f"for {NATIVE_IMAGE_SIZE}. Put `image_size = {size}` there."
        )


def _in_folder(folder: Path, source: Source) -> Path:
    """The weights in a folder that transformers' ``save_pretrained`` wrote."""
    from tasks.remote import hub

    weights, described = folder / WEIGHTS, folder / hub.CONFIG
    if not weights.is_file():
        advice = "expected a checkpoint, or a folder that save_pretrained() wrote."
        if (folder / "adapter_config.json").is_file():
            advice = (
                "it holds a LoRA adapter: merge it with PEFT's merge_and_unload(), then save the "
                "model with save_pretrained()."
            )
        elif (folder / f"{WEIGHTS}.index.json").is_file():
            advice = (
                "its weights are in several files: save them with "
                'save_pretrained(..., max_shard_size="10GB").'
            )
        raise StageError(
            f"[models.{source.name}] url: no {WEIGHTS} in {folder.absolute()}; {advice}"
        )
    if described.is_file():
        check_config(source, hub.parse_config(described, str(described)), str(described))
    return weights


def _copy(source: Source, target: Path, work: Workspace) -> str:
    """Copy a local checkpoint; the copied bytes are checked against the configured hash."""
    path = source.location.path
    assert path is not None
    if path.is_dir():
        path = _in_folder(path, source)
    if not path.is_file():
        raise StageError(
            f"[models.{source.name}] url: no file at {path.absolute()}. "
            "Put the checkpoint there, or correct the url (relative to the project root)."
        )
    copy = work.unfinished(target)
    before = stat_signature(path)
    sha256 = copy_and_hash(path, copy)
    if stat_signature(path) != before:
        raise StageError(
            f"{path} was written to while it was copied. Run the same command again once it is "
            "saved."
        )
    size = copy.stat().st_size
    for key, expected, actual in (("size", source.size, size), ("sha256", source.sha256, sha256)):
        if expected not in (None, actual):
            cut_off = source.size is not None and size < source.size
            again = "The file may be cut off: copy it again. " if cut_off else ""
            raise StageError(
                f"{path} is not the expected checkpoint: [models.{source.name}] {key} expects "
                f"{expected}, but the file has {actual}. {again}If the new file is right, put its "
                f"{key} there."
            )
    work.deliver(target)
    FINGERPRINTS.remember(target, sha256)
    return f"copied from {path}"


def _generate(source: Source, target: Path, work: Workspace) -> str:
    made = work.unfinished(target)
    work.run(
        MAKE_SYNTHETIC,
        architecture=source.architecture,
        seed=source.location.seed,
        destination=str(made),
    )
    sha256 = FINGERPRINTS.sha256(made)
    if source.sha256 not in (None, sha256):
        raise StageError(
            f"[models.{source.name}] sha256 expects {source.sha256}, but {source.location.shown} "
            f"made a file with {sha256}. Leave sha256 out: random weights depend on torch's "
            "version."
        )
    work.deliver(target)
    return f"synthetic, seed {source.location.seed}"
