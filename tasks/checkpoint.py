"""The checkpoint, fetched (or copied, or made up) and checked by its SHA-256.

Targets: ``<build>/checkpoints/<model>.pt`` and ``<model>.json``, the record of what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Workspace, declare, fetched, workspace
from tasks.config.published import NATIVE_IMAGE_SIZE
from tasks.config.schema import WEIGHTS, Configuration, Model
from tasks.console.invocation import command
from tasks.console.progress import show_progress
from tasks.records import artifacts, checkpoint_record
from tasks.records.checkpoint_record import Record
from tasks.remote import shared_cache
from tasks.system.errors import StageError
from tasks.system.files import copy_and_hash, mebibytes
from tasks.system.fingerprint import FINGERPRINTS, stat_signature

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.remote.download import Request

MAKE_SYNTHETIC = "tasks.model.load:make_synthetic"


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return declare(
        model.name,
        obtain_checkpoint,
        [config, model],
        reads=[
            *map(str, model.source.local_files),  # a fine-tuning that saves again is seen
            *(model.architecture_files if model.source.kind == "synthetic" else []),
        ],
        writes=[artifacts.checkpoint(config, model), artifacts.checkpoint_record(config, model)],
        inputs=identity(config, model),
        also_runs=[MAKE_SYNTHETIC] if model.source.kind == "synthetic" else [],
        meta={"fetched": model.source.kind != "synthetic"},
    )


def identity(config: Configuration, model: Model) -> dict[str, Any]:
    """What makes it this checkpoint and no other: its address, its hash and size where given."""
    url = checkpoint_record.identity(config.build, model.source)
    about = {"url": url, "sha256": model.sha256, "size": model.size}
    if model.source.kind == "synthetic":
        return {**about, "architecture": model.architecture}
    return about


def is_wanted(model: Model, url: str, known: Record | None, sha256_on_disk: str | None) -> bool:
    """Whether the file on disk is the wanted checkpoint already; pure.

    :param url: the address, as a record has it.
    """
    if sha256_on_disk is None:
        return False
    if model.sha256 is not None:
        return sha256_on_disk == model.sha256
    return (
        model.source.kind in ("http", "hub")
        and known is not None
        and known.url == url
        and known.sha256 == sha256_on_disk
        and model.size in (None, known.size)
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
    url = checkpoint_record.identity(config.build, model.source)
    commit = None
    if is_wanted(model, url, known, on_disk):
        how = "already there"
        commit = known.commit if known is not None and known.url == url else None
        if model.source.kind == "http" and known is not None and known.url != url:
            how += f"; {_check_address(model, target)}"
    elif model.source.kind in ("http", "hub"):
        cached = _take_from_cache(config, model, target, task)
        if cached is not None:
            how = cached
        elif model.source.kind == "http":
            how = _download_from_address(config, model, target)
        else:
            how, commit = _obtain_from_hub(config, model, target, task)
        if cached is None:
            _put_into_cache(config, model, target)
    else:
        with workspace(config.build, task) as work:
            if model.source.kind == "file":
                how = _copy(model, target, work)
            else:
                how = _generate(model, target, work)

    sha256, size = FINGERPRINTS.sha256(target), target.stat().st_size
    if model.size not in (None, size):
        raise StageError(
            f"[models.{model.name}] size expects {model.size} bytes, and {target}, of sha256 "
            f"{sha256}, has {size}. Correct the size, or leave it out."
        )
    synthetic = model.source.kind == "synthetic"
    Record(url, sha256, size, synthetic, commit).write(record_path)
    if model.sha256 is None and not synthetic:
        sys.stderr.write(
            f"warning: [models.{model.name}] has no sha256, so nothing tells whether "
            f'{model.source.shown} is the right file; what came is sha256 = "{sha256}"\n'
        )
    return {"summary": f"{mebibytes(size)}, {how}, sha256 {sha256[:8]}…{sha256[-4:]}"}


STAGE = "checkpoint"  # as the cache calls it


def _take_from_cache(config: Configuration, model: Model, target: Path, task: Task) -> str | None:
    """Take a checkpoint whose hash the configuration has from the cache; None without one."""
    if config.cache is None or model.sha256 is None:
        return None
    cache = shared_cache.opened_by(config.cache)
    entry = cache.find(STAGE, model.sha256, 1)
    if entry is None:
        return None
    if entry.outputs[0].sha256 != model.sha256:  # which is what it lies under
        cache.warn(f"{STAGE}: its entry is of another file; it is downloaded")
        return None
    return f"from {cache.name}" if fetched(cache, entry, config, [target], task) else None


def _put_into_cache(config: Configuration, model: Model, target: Path) -> None:
    if config.cache is not None and model.sha256 is not None:
        shared_cache.opened_by(config.cache).store(STAGE, model.sha256, [target], {})


def _check_address(model: Model, target: Path) -> str:
    """Ask a new address of a checkpoint that is there already; a wrong one is warned about."""
    from tasks.remote import download

    request = download.Request(model.source.url, size=target.stat().st_size)
    problem = download.check(request)
    if problem is None:
        return "the new url has a file of its size"
    sys.stderr.write(
        f"warning: [models.{model.name}] url: {model.source.shown} {problem}. The checkpoint "
        "that is there has the sha256 that is asked for and stays; where there is none, this url "
        "must do.\n"
    )
    return "the new url could not be confirmed"


def _download_from_address(config: Configuration, model: Model, target: Path) -> str:
    from tasks.remote.download import Request

    table = f"[models.{model.name}]"
    request = Request(
        model.source.url,
        model.sha256,
        model.size,
        table,
        identity=checkpoint_record.identity(config.build, model.source),
    )
    return _download(config, model, request, target)


def _download(config: Configuration, model: Model, request: Request, target: Path) -> str:
    from tasks.remote import download

    with _offering_the_demo(config):
        fetched = download.fetch(
            request, target, progress=show_progress(f"checkpoint:{model.name}")
        )
    FINGERPRINTS.remember(target, fetched.sha256)
    return f"{mebibytes(fetched.received)} downloaded"


@contextmanager
def _offering_the_demo(config: Configuration) -> Iterator[None]:
    from tasks.remote import download

    try:
        yield
    except download.Unreachable as error:
        if not error.told and any(each.name == "demo" for each in config.models):
            raise StageError(f"{error} {command('demo')} needs no network.") from error
        raise


def _obtain_from_hub(
    config: Configuration, model: Model, target: Path, task: Task
) -> tuple[str, str]:
    """Find the file on the hub, check the ``config.json`` beside transformers', and download it.

    What huggingface_hub has in its cache is copied instead.

    :returns: how it came, and the commit that it is of.
    """
    from tasks.remote import hub
    from tasks.remote.download import Request

    source, table = model.source, f"[models.{model.name}]"
    with _offering_the_demo(config):
        found = hub.find(source.repo, source.revision, source.file, table)
        # It describes the weights that transformers saved, and no other file.
        described = source.file == WEIGHTS
        content = hub.read_config(source.repo, found.commit, table) if described else None
    if content is not None:
        check_config(model, content, f"{table} url: {hub.CONFIG} of hf:{source.repo}")
    for key, expected, told in (
        ("sha256", model.sha256, found.sha256),
        ("size", model.size, found.size),
    ):
        if None not in (expected, told) and expected != told:
            raise StageError(
                f"{source.shown} is not the expected checkpoint: {table} {key} expects {expected}, "
                f"the hub has {told} at commit {found.commit}. If that is right, put its {key} "
                "there; if not, name the commit behind @."
            )
    request = Request(
        found.url, model.sha256 or found.sha256, model.size or found.size, table, found.headers
    )
    if found.copy is None or not _copy_of_hub(config, found.copy, request, target, task):
        how = _download(config, model, request, target)
    else:
        how = "copied from huggingface_hub's cache"
    return f"{how}, commit {found.commit[:12]}", found.commit


def _copy_of_hub(
    config: Configuration, copy: Path, request: Request, target: Path, task: Task
) -> bool:
    """Copy a file of huggingface_hub's cache; False, with a warning, when it is another one.

    :raises StageError: when it is, and cannot be downloaded instead.
    """
    with workspace(config.build, task) as work:
        unfinished = work.unfinished(target)
        sha256 = copy_and_hash(copy, unfinished)
        size = unfinished.stat().st_size
        if request.sha256 in (None, sha256) and request.size in (None, size):
            work.deliver(target)
            FINGERPRINTS.remember(target, sha256)
            return True
    problem = (
        f"{copy} is not the expected checkpoint: {request.table} expects {request.size} bytes with "
        f"sha256 {request.sha256}, found {size} bytes with sha256 {sha256}"
    )
    if not request.url:
        raise StageError(
            f"{problem}. Remove it, or correct {request.table}; without HF_HUB_OFFLINE it is "
            "downloaded again."
        )
    sys.stderr.write(f"warning: {problem}; it is downloaded\n")
    return False


# What transformers calls the models whose weights can be read.
FAMILIES = ("sam2", "sam2_video", "edgetam", "edgetam_video")


def check_config(model: Model, content: Mapping[str, Any], what: str) -> None:
    """Refuse the ``config.json`` of a model that is no SAM 2, or of another image size; pure.

    :param what: the file, for people.
    :raises StageError: with what was found and what is expected.
    """
    found = content.get("model_type")
    if found not in FAMILIES:
        raise StageError(
            f"{what} is of another kind of model: found model_type {found!r}; "
            f"expected one of {', '.join(FAMILIES)}"
        )
    prompts = content.get("prompt_encoder_config")
    size = prompts.get("image_size") if isinstance(prompts, dict) else None
    size = size[0] if isinstance(size, list) and size else size or NATIVE_IMAGE_SIZE
    if size != NATIVE_IMAGE_SIZE and model.config is None and model.image_size is None:
        raise StageError(
            f"{what}: the weights are for images of {size} pixels, and [models.{model.name}] is "
            f"for {NATIVE_IMAGE_SIZE}. Put `image_size = {size}` there."
        )


def _in_folder(folder: Path, model: Model) -> Path:
    """The weights in a folder as transformers' ``save_pretrained`` writes it.

    :raises StageError: when there are none, or they are of another kind of model.
    """
    from tasks.remote import hub

    weights, described = folder / WEIGHTS, folder / hub.CONFIG
    if not weights.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        shards = (folder / f"{WEIGHTS}.index.json").is_file()
        raise StageError(
            f"[models.{model.name}] url: no {WEIGHTS} in {folder.absolute()}; "
            + (
                "it holds a LoRA adapter: merge it with PEFT's merge_and_unload(), then save the "
                "model with save_pretrained()."
                if adapter
                else "its weights are in several files: save them with "
                'save_pretrained(..., max_shard_size="10GB").'
                if shards
                else "expected a checkpoint, or a folder that save_pretrained() wrote."
            )
        )
    if described.is_file():
        content = hub.parse_config(
            described.read_text(encoding="utf-8", errors="replace"), str(described)
        )
        check_config(model, content, str(described))
    return weights


def _copy(model: Model, target: Path, work: Workspace) -> str:
    """Copy a local checkpoint; what was copied is what is compared with the pin."""
    source = model.source.path
    assert source is not None
    if source.is_dir():
        source = _in_folder(source, model)
    if not source.is_file():
        raise StageError(
            f"[models.{model.name}] url: no file at {source.absolute()}. "
            "Put the checkpoint there, or correct the url (relative to the project root)."
        )
    copy = work.unfinished(target)
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
    made = work.unfinished(target)
    work.run(
        MAKE_SYNTHETIC,
        architecture=model.architecture,
        seed=model.source.seed,
        destination=str(made),
    )
    found = FINGERPRINTS.sha256(made)
    if model.sha256 not in (None, found):
        raise StageError(
            f"[models.{model.name}] sha256 expects {model.sha256}, but {model.source.shown} "
            f"made {found}. Leave sha256 out: random weights depend on torch's version."
        )
    work.deliver(target)
    return f"synthetic, seed {model.source.seed}"
