"""The proven files where the application serves them, with a manifest; all or nothing.

A file is taken only when each report that the configuration asks for has judged just its bytes. All
are staged beside their targets and checked, then renamed back to back, the manifest last. It
holds no time, so a consumer can key its cache on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare
from tasks.building.staleness import versions
from tasks.config.schema import FP32, Configuration, Model
from tasks.console.invocation import command
from tasks.proof import manifests, reports, runtimes
from tasks.proof.manifests import Judged
from tasks.records import artifacts, checkpoint_record, ledger, ownership
from tasks.records.checkpoint_record import Record
from tasks.records.listing import MANIFEST, read_listing
from tasks.records.ownership import Plan
from tasks.system.errors import StageError, disk_problem
from tasks.system.files import (
    copy_and_hash,
    follow_folder,
    make_folders,
    mebibytes,
    replace_together,
)
from tasks.system.fingerprint import FINGERPRINTS
from tasks.web import packages
from tasks.web.chromium import Browser

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.records.manifest import File


def task(config: Configuration, model: Model, browser: Browser) -> dict[str, Any]:
    """doit's task for one model.

    :param browser: what can prove a model in a browser.
    """
    needed = reports.of_all_variants(config, model, browser.missing)
    return declare(
        model.name,
        deploy,
        [config, model, browser],
        reads=[
            *(
                path
                for variant in needed
                for path in artifacts.all_graphs(config, model, variant).values()
            ),
            artifacts.checkpoint_record(config, model),
        ],
        writes=[artifacts.manifest(model)],
        inputs=manifests.inputs(config, model, needed),
        # The reports are no `reads`: what is missing of them is told by its proof.
        file_dep=[each.path for found in needed.values() for each in found],
        uptodate=[(ledger.holds_what_its_manifest_says, [model.deploy])],
        also_runs=[model.client.documents_source],
    )


def deploy(config: Configuration, model: Model, browser: Browser, task: Task) -> dict[str, Any]:
    """Put every proven variant and the manifest in place together.

    A variant that its reports speak against is left out; the manifest says why.

    :raises StageError: when a file is not what its reports measured, or no variant may be deployed;
        what was deployed before stays as it was.
    """
    from tasks.proof.description import manifest_of
    from tasks.records.manifest import File, as_json

    undo_killed_run(config, model)
    known = checkpoint_record.read(artifacts.checkpoint_record(config, model))
    if known is None:
        raise StageError(f"{artifacts.checkpoint_record(config, model)} cannot be read; remove it")
    check_checkpoint(config, model, known)
    in_browser, note = browser_asked(config, model, browser)
    judged = judge_variants(config, model, known, in_browser)
    deployed = [each for each in judged if each.deployed]
    if not deployed:
        reasons = "; ".join(f"{each.variant.name}: {each.reason}" for each in judged)
        raise StageError(f"No variant of {model.name} may be deployed: {reasons}")
    files = {
        model.file_name(graph, each.variant): (path, each.files[path])
        for each in deployed
        for graph, path in artifacts.all_graphs(config, model, each.variant).items()
    }
    sizes = {name: path.stat().st_size for name, (path, _) in files.items()}
    precisions = {
        model.file_name(graph, each.variant): each.variant.precision
        for each in deployed
        for graph in model.all_graphs
    }
    graphs = {
        name: File(sizes[name], sha256, runtimes.needs(model.opset, precisions[name], name))
        for name, (_, sha256) in files.items()
    }
    manifest = manifest_of(model, known, graphs, judged, versions(*manifests.PACKAGES))
    documents = model.client.documents(as_json(manifest))
    texts = {name: _entry(text) for name, text in documents.items()}
    content = as_json(replace(manifest, files={**graphs, **texts}))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    documents = {**documents, MANIFEST: text}
    wanted = {name: sha256 for name, (_, sha256) in files.items()}
    wanted |= {name: _entry(text).sha256 for name, text in documents.items()}
    with staging_folder(config, model) as staging:
        plan = plan_for(config, model, wanted)
        written = [*plan.written, MANIFEST] if plan.written or plan.removed else []
        staged = stage_files(files, written, staging)
        staged |= stage_documents(documents, written, staging)
        put_in_place(config, model, staged, plan, wanted, staging)
    summary = f"{_sizes(model, deployed, sizes)} in {model.deploy}"
    note = "\n".join([*([note] if note else []), *notes(model, plan)])
    return {"summary": summary, **({"note": note} if note else {})}


def check_checkpoint(config: Configuration, model: Model, known: Record) -> None:
    """Refuse a checkpoint that the configuration no longer asks for.

    :raises StageError: with what it asks for and what was built.
    """
    url = checkpoint_record.identity(config.build, model.source)
    if model.sha256 is not None and model.sha256 != known.sha256:
        asked, built = f"sha256 {model.sha256}", known.sha256
    elif model.sha256 is None and url != known.url:
        asked, built = f"url {url}", known.url
    else:
        return
    raise StageError(
        f"[models.{model.name}] asks for the checkpoint of {asked}, but what is built is of "
        f"{built}; {command(f'deploy:{model.name}')} (without -s) builds it again."
    )


def browser_asked(config: Configuration, model: Model, browser: Browser) -> tuple[bool, str | None]:
    """Whether a browser's reports are asked for, and what to tell where none could be made."""
    if model.browser is False:
        return False, None
    missing = browser.missing if model.browser == "auto" else None
    if missing is None and model.browser == "auto" and not packages.are_installed():
        report = reports.read(artifacts.report(config, model, "browser", model.variants[0]))
        missing = report.get("unavailable") if report else None
    if missing is None:
        return True, None
    return False, f"No browser has proven what was deployed: {missing}."


def judge_variants(
    config: Configuration, model: Model, known: Record, in_browser: bool
) -> list[Judged]:
    """Hold every variant against its reports.

    :raises StageError: naming each file that a report does not speak for.
    """
    against = {"checkpoint": known.sha256}
    if model.config is not None:
        against["architecture"] = FINGERPRINTS.sha256(model.config)
    if model.has_smaller_variants:
        reference = artifacts.reference(config, model)
        against["reference"] = "not there"
        if reference.is_file():
            against["reference"] = FINGERPRINTS.sha256(reference)
    if model.video:
        clips = artifacts.tracking_reference(config, model)
        against["tracking_reference"] = "not there"
        if clips.is_file():
            against["tracking_reference"] = FINGERPRINTS.sha256(clips)
    problems: dict[str, None] = {}
    judged = []
    for variant in dict.fromkeys([FP32, *model.variants]):
        graphs = artifacts.all_graphs(config, model, variant)
        files = {path: FINGERPRINTS.sha256(path) for path in graphs.values()}
        found: dict[artifacts.Proof, reports.Report] = {}
        for needed in reports.required(config, model, variant, in_browser):
            report = reports.read(needed.path)
            own = {graphs[name]: files[graphs[name]] for name in needed.graphs}
            unproven = reports.binding_problems(needed, report, own, against)
            problems |= dict.fromkeys(unproven)
            if report is not None and not unproven:
                found[needed.proof] = report
        judged.append(manifests.judge_variant(config, model, variant, files, found, in_browser))
    if problems:
        raise StageError(
            f"{model.name} is not proven as it is, and is not deployed:\n"
            + "\n".join(f"- {problem}" for problem in problems)
        )
    verified = judged[0]  # in single precision, which every other variant is made from
    if "verify" in verified.failing:
        raise StageError(f"{model.name} is not deployed: {verified.reason}")
    return judged


def staging_path(config: Configuration, model: Model) -> Path:
    """Where this build, and no other, stages the files of a model."""
    return model.deploy / f".staged-{ledger.build_id(config)}"


def undo_killed_run(config: Configuration, model: Model) -> None:
    """Remove what a killed run left; put back what it had replaced, if it was amid its renames."""
    staging = staging_path(config, model)
    if staging.is_dir() and not ledger.holds_what_its_manifest_says(model.deploy):
        for name in _files_in(staging / "before"):
            (model.deploy / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / "before" / name).replace(model.deploy / name)
    shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staging_folder(config: Configuration, model: Model) -> Iterator[Path]:
    """A folder beside the targets that no other build has; removed at the end.

    :raises StageError: when the deploy folder cannot be made.
    """
    try:
        made = not model.deploy.exists()
        make_folders(model.deploy)
    except OSError as error:
        if disk_problem(error):
            raise
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f"cannot be made ({error.strerror})"
        if is_file:
            reason = "leads to nothing" if Path(error.filename).is_symlink() else "is a file"
        raise StageError(
            f"{error.filename} {reason}; expected a folder to deploy to. "
            f"{'Move it away, or give' * is_file or 'Give'} [models.{model.base}] another folder."
        ) from None
    staging = staging_path(config, model)
    folder = os.open(model.deploy, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # another build may deploy here too
        (staging / "before").mkdir(parents=True, exist_ok=True)
        yield staging
    finally:
        # What could not be taken back is for the next run; see `undo_killed_run`.
        if ledger.holds_what_its_manifest_says(model.deploy) or not _files_in(staging / "before"):
            shutil.rmtree(staging, ignore_errors=True)
        os.close(folder)
        if made:
            with suppress(OSError):
                model.deploy.rmdir()  # only when nothing was put in it


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder and those below it, relative to it."""
    return [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]


def _entry(text: str) -> File:
    """What a manifest says of a file with a text."""
    from tasks.records.manifest import File

    content = text.encode()
    return File(len(content), hashlib.sha256(content).hexdigest())


def plan_for(config: Configuration, model: Model, wanted: Mapping[str, str]) -> Plan:
    """What becomes of the files in the deploy folder.

    :param wanted: the SHA-256 of each file that is to be there.
    :raises StageError: when something is in the way, or a file would be replaced that this build
        did not write.
    """
    in_the_way = ownership.obstacle(model.deploy, wanted)
    if in_the_way:
        raise StageError(f"{in_the_way}. Move it away, then run the same command again.")
    recorded = ledger.written(config, model)
    listing = read_listing(artifacts.manifest(model))
    plan = ownership.plan(
        wanted,
        ownership.look(model.deploy, {**wanted, **recorded, **(listing.hashes if listing else {})}),
        recorded,
        ownership.of_another_build(model.deploy, model.name),
        config.overwrite,
    )
    if plan.foreign and not config.overwrite:
        again = command(f"deploy:{model.name}", overwrite="yes")
        raise StageError(ownership.refusal(model, plan.foreign, recorded, again))
    return plan


def notes(model: Model, plan: Plan) -> list[str]:
    """What a person should know of files that were not as this build had left them; pure."""
    said = {
        "had been changed since this build deployed it, and was deployed again": plan.restored,
        "was not this build's, and was replaced": plan.foreign,
        "is no longer deployed, and was left: it is not what this build wrote": plan.left,
    }
    return [f"{model.deploy / name} {what}." for what, names in said.items() for name in names]


def stage_files(
    files: Mapping[str, tuple[Path, str]], written: Collection[str], staging: Path
) -> dict[str, Path]:
    """Copy what is to be written; the copies, by the name that each will get.

    :param files: what was judged, with its SHA-256, by that name.
    :raises StageError: when a copy does not hold what was judged.
    """
    staged = {}
    for name, (source, sha256) in files.items():
        if name not in written:
            continue
        copy = staging / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        found = copy_and_hash(source, copy)
        if found == sha256:
            found = FINGERPRINTS.sha256(copy)  # read again: what the disk holds
        if found != sha256:
            raise StageError(
                f"{source} was changed, or its copy does not hold what was copied: expected sha256 "
                f"{sha256}, found {found}. Run this again; check the disk if it stays so."
            )
        staged[name] = copy
    return staged


def stage_documents(
    documents: Mapping[str, str], written: Collection[str], staging: Path
) -> dict[str, Path]:
    """Write the texts that are to be written; by the name that each will get."""
    staged = {}
    for name, text in documents.items():
        if name in written:
            staged[name] = staging / name
            staged[name].write_text(text, encoding="utf-8")
    return staged


def put_in_place(
    config: Configuration,
    model: Model,
    staged: Mapping[str, Path],
    plan: Plan,
    wanted: Mapping[str, str],
    staging: Path,
) -> None:
    """Rename everything under its final name, the manifest last, and take obsolete files away.

    :raises StageError: when a rename is not possible; nothing has changed then.
    """
    if staged:
        before = ledger.written(config, model)
        both = {name: [*before.get(name, ()), sha256] for name, sha256 in wanted.items()}
        ledger.add(config, model, {**before, **both})  # for a run that is killed in between
        try:
            follow_folder(model.deploy, staged)
            replace_together(model.deploy, staged, plan.removed, staging / "before")
        except OSError as error:
            paths = [Path(each) for each in (error.filename2, error.filename) if each]
            within = [each for each in paths if each.is_relative_to(model.deploy)]
            target = next((each for each in within if staging not in each.parents), model.deploy)
            raise StageError(
                f"{target} could not be put in place: {error.strerror}. What was renamed before it "
                "was taken back."
            ) from error
    ledger.add(config, model, {name: [sha256] for name, sha256 in wanted.items()})


def _sizes(model: Model, deployed: Sequence[Judged], sizes: Mapping[str, int]) -> str:
    """The sizes of the deployed files, for people: each of fp32, the sum of a variant."""
    texts = []
    for each in deployed:
        own = {graph: sizes[model.file_name(graph, each.variant)] for graph in model.all_graphs}
        if each.variant == FP32:
            texts += [f"{graph} {mebibytes(size)}" for graph, size in own.items()]
        else:
            texts.append(f"{each.variant.name} {mebibytes(sum(own.values()))}")
    return ", ".join(texts)
