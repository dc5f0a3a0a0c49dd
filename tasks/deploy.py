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

from tasks.building.stage import Stage, Workspace
from tasks.config import checkpoint_record
from tasks.config.checkpoint_record import Record
from tasks.config.models import FP32, ProofKind, Target
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.console.sizes import mebibytes
from tasks.proof import judged_variant, reports, runtimes
from tasks.proof.judged_variant import Judged
from tasks.records import ledger, ownership
from tasks.records.listing import MANIFEST, read_listing
from tasks.records.ownership import Plan
from tasks.system.errors import StageError, disk_problem
from tasks.system.files import copy_and_hash, follow_folder, make_folders, replace_together
from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import versions
from tasks.web import packages
from tasks.web.browsers import Browser

if TYPE_CHECKING:
    from tasks.proof.manifest import File


PACKAGES = ("cattrs",)  # which writes the manifest


def declare(target: Target, browser: Browser) -> Stage:
    """The deployment of one model.

    :param browser: what can prove a model in a browser.
    """
    proofs = reports.of_all_variants(target, browser.missing)
    return Stage(
        target.name,
        deploy,
        [target, browser],
        reads=[
            *(path for variant in proofs for path in target.graph_files(variant).values()),
            target.source.checkpoint_record,
        ],
        writes=[target.manifest],
        inputs={**judged_variant.inputs(target, proofs), **versions(*PACKAGES)},
        # The reports are no `reads`: the error about a missing one names the proof that makes it.
        also_reads=[each.path for needed in proofs.values() for each in needed],
        up_to_date=[(ledger.holds_what_its_manifest_says, [target.deploy])],
        also_runs=[target.client.documents_source],
    )


def deploy(target: Target, browser: Browser, work: Workspace) -> dict[str, Any]:
    """Put every proven variant and the manifest in place together.

    A variant that its reports speak against is left out; the manifest says why.

    :raises StageError: when a file is not what its reports measured, or no variant may be deployed;
        what was deployed before stays as it was.
    """
    from tasks.proof.description import manifest_of
    from tasks.proof.manifest import File, as_json

    config, source = work.config, target.source
    undo_killed_run(config, target)
    record = checkpoint_record.read(source.checkpoint_record)
    if record is None:
        raise StageError(f"{source.checkpoint_record} cannot be read; remove it")
    check_checkpoint(target, record)
    in_browser, note = browser_asked(target, browser)
    judged = judge_variants(target, record, in_browser)
    deployed = [each for each in judged if each.deployed]
    if not deployed:
        reasons = "; ".join(f"{each.variant.name}: {each.reason}" for each in judged)
        raise StageError(f"No variant of {target.name} may be deployed: {reasons}")
    files = {
        target.file_name(graph, each.variant): (path, each.files[path])
        for each in deployed
        for graph, path in target.graph_files(each.variant).items()
    }
    sizes = {name: path.stat().st_size for name, (path, _) in files.items()}
    precisions = {
        name: each.variant.precision
        for each in deployed
        for name in target.file_names(each.variant).values()
    }
    graphs = {
        name: File(sizes[name], sha256, runtimes.needs(source.opset, precisions[name], name))
        for name, (_, sha256) in files.items()
    }
    manifest = manifest_of(target, record, graphs, judged, versions(*judged_variant.PACKAGES))
    documents = target.client.documents(as_json(manifest))
    texts = {name: _entry(text) for name, text in documents.items()}
    content = as_json(replace(manifest, files={**graphs, **texts}))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    documents = {**documents, MANIFEST: text}
    wanted = {name: sha256 for name, (_, sha256) in files.items()}
    wanted |= {name: _entry(text).sha256 for name, text in documents.items()}
    with staging_folder(config, target) as staging:
        plan = plan_for(config, target, wanted)
        written = [*plan.written, MANIFEST] if plan.written or plan.removed else []
        staged = stage_files(files, written, staging)
        staged |= stage_documents(documents, written, staging)
        put_in_place(config, target, staged, plan, wanted, staging)
    summary = f"{_sizes(target, deployed, sizes)} in {target.deploy}"
    note = "\n".join([*([note] if note else []), *notes(target, plan)])
    return {"summary": summary, **({"note": note} if note else {})}


def check_checkpoint(target: Target, record: Record) -> None:
    """Refuse a checkpoint that the configuration no longer names.

    :raises StageError: with what it names and what was built.
    """
    source = target.source
    url = checkpoint_record.identity(source.build, source.location)
    if source.sha256 is not None and source.sha256 != record.sha256:
        wanted, built = f"sha256 {source.sha256}", record.sha256
    elif source.sha256 is None and url != record.url:
        wanted, built = f"url {url}", record.url
    else:
        return
    raise StageError(
        f"[models.{source.name}] names the checkpoint with {wanted}, but the graphs were built "
        f"from {built}; {command(f'deploy:{target.name}')} (without -s) builds them again."
    )


def browser_asked(target: Target, browser: Browser) -> tuple[bool, str | None]:
    """Whether a browser must have run the model, and a note where no browser could."""
    if target.browser is False:
        return False, None
    missing = browser.missing if target.browser == "auto" else None
    if missing is None and target.browser == "auto" and not packages.are_installed():
        report = reports.read(target.report("browser", target.variants[0]))
        missing = report.get("unavailable") if report else None
    if missing is None:
        return True, None
    return False, f"No browser has proven what was deployed: {missing}."


def judge_variants(target: Target, record: Record, in_browser: bool) -> list[Judged]:
    """Hold every variant against its reports.

    :raises StageError: naming each file that a report does not speak for.
    """
    source = target.source
    against = {"checkpoint": record.sha256}
    if source.config is not None:
        against["architecture"] = FINGERPRINTS.sha256(source.config)
    if target.has_smaller_variants:
        against["reference"] = _hash_of(source.reference)
    if source.video:
        against["tracking_reference"] = _hash_of(source.tracking_reference)
    problems: dict[str, None] = {}
    judged = []
    for variant in target.built_variants:
        graphs = target.graph_files(variant)
        files = {path: FINGERPRINTS.sha256(path) for path in graphs.values()}
        proven: dict[ProofKind, reports.Report] = {}
        for proof in reports.required(target, variant, in_browser):
            report = reports.read(proof.path)
            own = {graphs[name]: files[graphs[name]] for name in proof.graphs}
            unproven = proof.problems(report, own, against)
            problems |= dict.fromkeys(unproven)
            if report is not None and not unproven:
                proven[proof.kind] = report
        judged.append(judged_variant.judge_variant(target, variant, files, proven))
    if problems:
        raise StageError(
            f"{target.name} is not proven as it is, and is not deployed:\n"
            + "\n".join(f"- {problem}" for problem in problems)
        )
    verified = judged[0]  # in single precision, which every other variant is made from
    if "verify" in verified.failing:
        raise StageError(f"{target.name} is not deployed: {verified.reason}")
    return judged


def _hash_of(path: Path) -> str:
    return FINGERPRINTS.sha256(path) if path.is_file() else "missing"


def staging_path(config: Configuration, target: Target) -> Path:
    """Where this build, and no other, stages the files of a model."""
    return target.deploy / f".staged-{ledger.build_id(config)}"


def undo_killed_run(config: Configuration, target: Target) -> None:
    """Remove what a killed run left; put back what it had replaced, if it was amid its renames."""
    staging = staging_path(config, target)
    if staging.is_dir() and not ledger.holds_what_its_manifest_says(target.deploy):
        for name in _files_in(staging / "before"):
            (target.deploy / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / "before" / name).replace(target.deploy / name)
    shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staging_folder(config: Configuration, target: Target) -> Iterator[Path]:
    """A folder beside the targets that no other build has; removed at the end.

    :raises StageError: when the deploy folder cannot be made.
    """
    try:
        made = not target.deploy.exists()
        make_folders(target.deploy)
    except OSError as error:
        if disk_problem(error):
            raise
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f"cannot be made ({error.strerror})"
        if is_file:
            reason = "leads to nothing" if Path(error.filename).is_symlink() else "is a file"
        raise StageError(
            f"{error.filename} {reason}; expected a folder to deploy to. "
            f"{'Move it away, or give' * is_file or 'Give'} [models.{target.source.name}] another "
            "folder."
        ) from None
    staging = staging_path(config, target)
    folder = os.open(target.deploy, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # another build may deploy here too
        (staging / "before").mkdir(parents=True, exist_ok=True)
        yield staging
    finally:
        # What could not be taken back is for the next run; see `undo_killed_run`.
        if ledger.holds_what_its_manifest_says(target.deploy) or not _files_in(staging / "before"):
            shutil.rmtree(staging, ignore_errors=True)
        os.close(folder)
        if made:
            with suppress(OSError):
                target.deploy.rmdir()  # only when nothing was put in it


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder and those below it, relative to it."""
    return [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]


def _entry(text: str) -> File:
    """What a manifest says of a file with a text."""
    from tasks.proof.manifest import File

    content = text.encode()
    return File(len(content), hashlib.sha256(content).hexdigest())


def plan_for(config: Configuration, target: Target, wanted: Mapping[str, str]) -> Plan:
    """What becomes of the files in the deploy folder.

    :param wanted: the SHA-256 of each file that is to be there.
    :raises StageError: when something is in the way, or a file would be replaced that this build
        did not write.
    """
    in_the_way = ownership.obstacle(target.deploy, wanted)
    if in_the_way:
        raise StageError(f"{in_the_way}. Move it away, then run the same command again.")
    recorded = ledger.written(config, target)
    listing = read_listing(target.manifest)
    plan = ownership.plan(
        wanted,
        ownership.look(
            target.deploy, {**wanted, **recorded, **(listing.hashes if listing else {})}
        ),
        recorded,
        ownership.of_another_build(target.deploy, target.name),
        config.overwrite,
    )
    if plan.foreign and not config.overwrite:
        again = command(f"deploy:{target.name}", overwrite="yes")
        raise StageError(ownership.refusal(target, plan.foreign, recorded, again))
    return plan


def notes(target: Target, plan: Plan) -> list[str]:
    """What a person should know of files that were not as this build had left them; pure."""
    said = {
        "had been changed since this build deployed it, and was deployed again": plan.restored,
        "was not this build's, and was replaced": plan.foreign,
        "is no longer deployed, and was left: it is not what this build wrote": plan.left,
    }
    return [f"{target.deploy / name} {what}." for what, names in said.items() for name in names]


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
        copied = copy_and_hash(source, copy)
        if copied == sha256:
            copied = FINGERPRINTS.sha256(copy)  # read again: what the disk holds
        if copied != sha256:
            raise StageError(
                f"{source} was changed, or its copy does not hold what was copied: expected sha256 "
                f"{sha256}, read {copied}. Run this again; check the disk if it stays so."
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
    target: Target,
    staged: Mapping[str, Path],
    plan: Plan,
    wanted: Mapping[str, str],
    staging: Path,
) -> None:
    """Rename everything under its final name, the manifest last, and take obsolete files away.

    :raises StageError: when a rename is not possible; nothing has changed then.
    """
    if staged:
        before = ledger.written(config, target)
        both = {name: [*before.get(name, ()), sha256] for name, sha256 in wanted.items()}
        ledger.add(config, target, {**before, **both})  # for a run that is killed in between
        try:
            follow_folder(target.deploy, staged)
            replace_together(target.deploy, staged, plan.removed, staging / "before")
        except OSError as error:
            paths = [Path(each) for each in (error.filename2, error.filename) if each]
            within = [each for each in paths if each.is_relative_to(target.deploy)]
            path = next((each for each in within if staging not in each.parents), target.deploy)
            raise StageError(
                f"{path} could not be put in place: {error.strerror}. Files already renamed were "
                "restored."
            ) from error
    ledger.add(config, target, {name: [sha256] for name, sha256 in wanted.items()})


def _sizes(target: Target, deployed: Sequence[Judged], sizes: Mapping[str, int]) -> str:
    """The sizes of the deployed files, for people: each of fp32, the sum of a variant."""
    texts = []
    for each in deployed:
        own = {graph: sizes[target.file_name(graph, each.variant)] for graph in target.all_graphs}
        if each.variant == FP32:
            texts += [f"{graph} {mebibytes(size)}" for graph, size in own.items()]
        else:
            texts.append(f"{each.variant.name} {mebibytes(sum(own.values()))}")
    return ", ".join(texts)
