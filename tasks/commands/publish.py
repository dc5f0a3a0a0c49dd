"""`doit publish:<model>`: uploads a deployed model to a repository of the Hugging Face hub.

It uploads the deployed files, their manifest and signature, a model card made from the manifest
(`tasks.proof.card`), and the demo's picture. One commit adds the files whose hashes changed and
removes those that an earlier commit added and that are no longer deployed; all other files in the
repository stay. The build's records must show that the files are proven: the last deploy wrote
them, and neither that deploy nor any stage behind it is stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building import staleness, state
from tasks.building.stage import Stage, Workspace, option
from tasks.config.models import Target
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.console.sizes import mebibytes
from tasks.proof import card
from tasks.proof.binding import unchanged
from tasks.records import ledger
from tasks.records.listing import MANIFEST, SIGNATURE, STATEMENT, is_within_folder
from tasks.remote.repository import RemoteFile, Repository
from tasks.system.errors import StageError
from tasks.system.fingerprint import FINGERPRINTS, hashes_of

if TYPE_CHECKING:
    from tasks.proof.manifest import Manifest

SMALL = 16 << 20  # bytes; the hub stores anything above 10 MiB as a large file
CARD, PICTURE = "README.md", "demo.png"
DEMO = "demo"  # the name of the model and of the task that draws its picture


def declare(config: Configuration, target: Target) -> Stage:
    """The publishing of one model; it runs always, because only a request shows the hub's files."""
    refused = refusal(config, target)
    return Stage(
        target.name,
        publish,
        [target],
        reads=[] if refused else [target.manifest],
        after=[] if refused else [f"deploy:{target.name}"],
        on_demand=True,
        options=[option("dry-run", "list the changes, and upload nothing")],
    )


def refusal(config: Configuration, target: Target) -> str | None:
    """Why the configuration forbids publishing a model; None if it does not; pure."""
    table = f"[models.{target.source.name}]"
    if config.publishing is None:
        return (
            f"{config.path} sets no repository to publish to. Add there: "
            '[publish] repo = "my-lab/{folder}"'
        )
    if target.source.location.kind == "synthetic":
        return (
            f"{table} has random weights ({target.source.location.shown}), which cannot be "
            "published."
        )
    if not target.source.license:
        return (
            f"{table} sets no licence of the weights, which publishing needs. Add there, for "
            'example: license = "Apache-2.0"'
        )
    return None


def publish(target: Target, work: Workspace, dry_run: bool) -> dict[str, Any]:
    """Compare the deployed files with the hub's, and commit the differences.

    :param dry_run: only list the differences.
    :raises StageError: when the model must not be published, its deployed files are not proven, or
        the hub refuses them; then nothing is published.
    """
    config = work.config
    refused = refusal(config, target)
    if refused or config.publishing is None:
        raise StageError(refused or "")
    manifest = proven_manifest(target, work)
    settings = config.publishing
    repository = Repository(settings.repository(target), settings.revision)
    if not dry_run and not repository.has_token:
        raise StageError(
            f"No token to write to {repository.name}. Run `hf auth login`, or set HF_TOKEN to a "
            "token with write access (https://huggingface.co/settings/tokens)."
        )
    remote = repository.look()
    if remote.commit is None and not dry_run:
        repository.make(settings.private)
        remote = repository.look()
    before = {
        name: repository.read(name, remote.commit, work.scratch)
        for name in (MANIFEST, CARD)
        if remote.commit and name in remote.files
    }
    earlier_card = before.get(CARD, "")
    picture = current_picture(config, target)
    files = contents(target, manifest, repository, picture, earlier_card)
    own = published_names(before.get(MANIFEST, ""), earlier_card)
    ids = {name: identity(content, remote.files.get(name)) for name, content in files.items()}
    plan = compare(ids, remote.files, own)
    sizes = {name: size_of(files[name]) for name in plan.sent}
    sent = f"{len(sizes)} file{'s' * (len(sizes) != 1)}, {in_words(sum(sizes.values()))}"
    if not plan.sent and not plan.removed:
        summary = f"nothing to publish: {repository.address} has these files"
    elif dry_run:
        made = " would be created" * (remote.commit is None)
        if not repository.has_token and not remote.exists:
            made = " would be created, unless it exists as a private repository (needs a token)"
        private = ", private" * (not remote.exists and settings.private)
        print("\n  ".join([f"{repository.address}{made}{private}:", *lines_of(plan, sizes)]))
        summary = f"nothing was uploaded; {sent} would go to {repository.name}"
    else:
        commit = send(repository, manifest, files, plan, remote.commit)
        counts = [(len(plan.same), "unchanged"), (len(plan.removed), "removed")]
        others = "".join(f", {count} {what}" for count, what in counts if count)
        summary = f"uploaded {sent}{others}: {repository.address}, commit {commit[:12]}"
    note = "\n".join(notes(target, repository, plan, picture, earlier_card))
    return {"summary": summary, **({"note": note} if note else {})}


def proven_manifest(target: Target, work: Workspace) -> Manifest:
    """The manifest of the deployed files, which match it and the configuration.

    A manifest could be written by hand, so it is not trusted: it must have the hash that the
    build's records have for the last deploy, and neither this deploy nor any stage behind it may be
    stale.

    :raises StageError: with each change, or with what is not proven.
    """
    from tasks.proof.integrity import check_folder
    from tasks.proof.manifest import read_manifest

    path = target.manifest
    config, tasks = work.config, work.services.tasks
    records = state.recorded_values(config.build / "state" / "doit.json")
    behind = staleness.changes_behind(f"deploy:{target.name}", tasks, records, str(config.path))
    changes = [f"{task}: {change}" for task, changed in behind.items() for change in changed]
    changes += [
        f"{target.deploy / name} differs from its entry in {path}"
        for name in ledger.changed_files(target.deploy) or []
    ]
    if changes:
        raise StageError(
            f"{target.deploy} is not published, because it changed since it was proven and "
            "deployed:\n"
            + "".join(f"- {change}\n" for change in changes)
            + f"Run {command(f'publish:{target.name}')} without -s to prove and deploy it first."
        )
    manifest = read_manifest(path)
    lacking = unproven(target, manifest) if manifest else "is not a manifest of this build"
    if manifest is None or lacking:
        raise StageError(f"{target.name} is not published: {path} {lacking}.")
    wrong = [each for each in check_folder(target.deploy, strict=False) if each.state == "wrong"]
    if wrong:
        raise StageError(
            f"{target.deploy} is not published, because `doit check` refuses it:\n"
            + "\n".join(f"- {each.subject}: {each.text}" for each in wrong)
        )
    return manifest


def unproven(target: Target, manifest: Manifest) -> str | None:
    """Why a manifest's own content forbids publishing it; None if it does not; pure."""
    if manifest.model != target.name:
        return f"is for {manifest.model}, not for {target.name}"
    if manifest.checkpoint.synthetic:
        return "has random weights"
    if not manifest.license:
        return "has no licence"
    for each in manifest.deployed:
        if each.precision == "fp32" and manifest.verification is None:
            return f"shows no comparison of {each.name} with PyTorch (verification is missing)"
        if each.precision != "fp32" and each.fidelity is None:
            return f"shows no comparison of {each.name} with PyTorch (fidelity is missing)"
        if target.browser is True and each.browser is None:
            table = f"[models.{target.source.name}]"
            return f"shows no run of {each.name} in a browser, which {table} requires"
    return None


def current_picture(config: Configuration, target: Target) -> Path | None:
    """The demo's picture; None if it is missing, or the build's records have it for other files."""
    picture, manifest = target.demo_picture, target.manifest
    drawn = state.recorded_values(config.build / "state" / "doit.json").get(DEMO, {})
    recorded = {**drawn.get("dependencies", {}), **drawn.get("outputs", {})}
    wanted = [str(manifest), str(picture)]
    if target.name != DEMO or hashes_of(wanted) != {each: recorded.get(each) for each in wanted}:
        return None
    return picture


def contents(
    target: Target,
    manifest: Manifest,
    repository: Repository,
    picture: Path | None,
    earlier_card: str,
) -> dict[str, Path | bytes]:
    """The contents to publish for this model, by their paths in the repository; see `read`."""
    signature = [SIGNATURE] if (target.deploy / SIGNATURE).is_file() else []
    text = card.card(
        manifest,
        repository.name,
        target.deploy.name,
        repository.endpoint,
        repository.branch,
        PICTURE if picture else None,
    )
    return {
        **{name: read(target.deploy / name) for name in (*manifest.files, MANIFEST, *signature)},
        CARD: (text + card.kept_text(earlier_card)).encode(),
        **({PICTURE: read(picture)} if picture else {}),
    }


def notes(
    target: Target,
    repository: Repository,
    plan: Plan,
    picture: Path | None,
    earlier_card: str,
) -> list[str]:
    """Notes for the user about files that are replaced or left out."""
    lines = []
    if CARD in plan.changed and card.MARK not in earlier_card:
        lines.append(
            f"{CARD} of {repository.name} was not written by {command('publish')} and is "
            "replaced; the earlier text stays in the repository's history."
        )
    drawn = target.demo_picture
    if target.name == DEMO and picture is None and drawn.is_file():
        lines.append(f"{drawn} shows other files and is left out; {command('demo')} redraws it.")
    return lines


def published_names(manifest: str, text: str) -> set[str]:
    """The files of an earlier publishing, which its manifest names and its card shows; pure."""
    shown = {PICTURE} if f"]({PICTURE})" in card.generated_text(text) else set()
    try:
        names = set(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        return shown
    signed = {SIGNATURE} if STATEMENT in names else set()
    return shown | signed | set(filter(is_within_folder, names))


def read(path: Path) -> Path | bytes:
    """Read a file that the hub could store as a small file; return the path of a larger one."""
    return path.read_bytes() if path.stat().st_size <= SMALL else path


class Plan(NamedTuple):
    """The change of each file of a repository."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]
    foreign: list[str]

    @property
    def sent(self) -> list[str]:
        """The files to upload."""
        return [*self.added, *self.changed]


def compare(
    local: Mapping[str, str], remote: Mapping[str, RemoteFile], own: Collection[str]
) -> Plan:
    """Sort files by what to do with them; pure.

    :param local: the hash of each file, of the kind that the hub uses; see `identity`.
    :param own: the names that an earlier publishing added.
    """
    there = {name: each.sha256 or each.blob for name, each in remote.items()}
    return Plan(
        added=[name for name in local if name not in there],
        changed=[name for name in local if name in there and there[name] != local[name]],
        removed=[name for name in there if name not in local and name in own],
        same=[name for name in local if there.get(name) == local[name]],
        foreign=[name for name in there if name not in local and name not in own],
    )


def identity(content: Path | bytes, remote: RemoteFile | None) -> str:
    """The hub's hash of a content: the SHA-256 for a large file, else the id of a git blob."""
    if remote is not None and remote.sha256 is None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return FINGERPRINTS.sha256(content)


def size_of(content: Path | bytes) -> int:
    """In bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def lines_of(plan: Plan, sizes: Mapping[str, int]) -> list[str]:
    """What a dry run prints: a line for each file; pure."""
    lines = [
        f"{verb:<7} {name} ({in_words(sizes[name])})"
        for verb, names in (("add", plan.added), ("change", plan.changed))
        for name in names
    ]
    lines += [f"remove  {name}, no longer part of this model" for name in plan.removed]
    lines += [f"same    {name}" for name in plan.same]
    return lines + [f"keep    {name}, not from this build" for name in plan.foreign]


def in_words(size: int) -> str:
    """A readable size, also for small files."""
    return mebibytes(size) if size >= 1 << 20 else f"{size:,} bytes"


def send(
    repository: Repository,
    manifest: Manifest,
    files: Mapping[str, Path | bytes],
    plan: Plan,
    parent: str | None,
) -> str:
    """Upload and commit; return the commit.

    A large file, which the hub identifies by its hash, must not change during the upload.

    :raises StageError: when a file is not the one that was proven.
    """
    proven = {name: each.sha256 for name, each in manifest.files.items()}
    contents = {name: files[name] for name in plan.sent}
    large = {name: str(each) for name, each in contents.items() if isinstance(each, Path)}
    with unchanged(large) as hashes:
        for name, content in contents.items():
            sha256 = hashes[name] if name in hashes else identity(content, None)
            if sha256 != proven.get(name, sha256):
                raise StageError(
                    f"{name} changed while it was published: expected sha256 {proven[name]}, now "
                    f"{sha256}. Nothing was published; run the same command again."
                )
        uploaded = repository.upload(contents)
    message = f"Publish {manifest.model}: {', '.join([*plan.sent, *plan.removed])}"
    return repository.commit(uploaded, plan.removed, message, parent)
