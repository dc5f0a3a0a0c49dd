"""Puts the files of a model in its deploy folder: all of them or none.

They are staged in a folder beside their targets, read again, and renamed one after the other, the
manifest last. An old signature is removed before the first rename, and the new one is renamed after
the manifest, so a signature never lies beside files that it does not cover. The next run restores
the files that a killed run had replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tasks.config.models import Target
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.records import ledger, ownership
from tasks.records.listing import MANIFEST, SIGNATURE, read_listing
from tasks.records.ownership import Plan
from tasks.system.errors import StageError, disk_problem
from tasks.system.files import copy_and_hash, follow_folder, make_folders, replace_together
from tasks.system.fingerprint import FINGERPRINTS


@dataclass(frozen=True)
class DeployFolder:
    """The folder that this build deploys a model to; other programs can have files there too."""

    config: Configuration
    target: Target

    @property
    def path(self) -> Path:
        """The folder of the model's files."""
        return self.target.deploy

    @cached_property
    def staging(self) -> Path:
        """The folder in which only this build stages them."""
        return self.path / f".staged-{ledger.build_id(self.config)}"

    @property
    def replaced(self) -> Path:
        """The folder in which a run keeps the replaced files until it ends."""
        return self.staging / "before"

    def undo_killed_run(self) -> None:
        """Remove the files of a killed run; if it was renaming, restore the replaced files."""
        if self.staging.is_dir() and not ledger.holds_what_its_manifest_says(self.path):
            for name in sorted(_files_in(self.replaced), key=lambda each: each.name == SIGNATURE):
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.replaced / name).replace(self.path / name)
        shutil.rmtree(self.staging, ignore_errors=True)

    def place(
        self, files: Mapping[str, tuple[Path, str]], documents: Mapping[str, str]
    ) -> list[str]:
        """Put these files into the folder, and remove this build's obsolete files.

        :param files: the files to copy and their SHA-256, by their new names.
        :param documents: texts by name, the manifest among them.
        :returns: notes for the user about files that changed since this build deployed them.
        :raises StageError: when a file is in the way, was not written by this build but would be
            replaced, or cannot be written; then nothing has changed.
        """
        texts = {name: text.encode() for name, text in documents.items()}
        wanted = {name: sha256 for name, (_, sha256) in files.items()}
        wanted |= {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
        with self._locked():
            plan = self._plan(wanted)
            written = [*plan.written, MANIFEST, SIGNATURE] if plan.written or plan.removed else []
            staged = {}
            for name, sha256 in wanted.items():
                if name in written:
                    source = texts[name] if name in texts else files[name][0]
                    staged[name] = _staged(source, self.staging / name, sha256)
            self._replace(staged, plan, wanted)
        return self._notes(plan)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder against other builds, and make a folder for staging, removed at the end.

        :raises StageError: when the folder cannot be created.
        """
        try:
            made = not self.path.exists()
            make_folders(self.path)
        except OSError as error:
            if disk_problem(error):
                raise
            raise StageError(self._not_made(error)) from None
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.replaced.mkdir(parents=True, exist_ok=True)
            yield
        finally:
            # The next run restores what this run could not; see `undo_killed_run`.
            if ledger.holds_what_its_manifest_says(self.path) or not _files_in(self.replaced):
                shutil.rmtree(self.staging, ignore_errors=True)
            os.close(folder)
            if made:
                with suppress(OSError):
                    self.path.rmdir()  # works only if nothing was put in it

    def _not_made(self, error: OSError) -> str:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f"cannot be created ({error.strerror})"
        if is_file:
            reason = "is a broken link" if Path(error.filename).is_symlink() else "is a file"
        return (
            f"{error.filename} {reason}; expected a folder to deploy to. "
            f"{'Move it away, or give' if is_file else 'Give'} [models.{self.target.source.name}] "
            "another folder."
        )

    def _plan(self, wanted: Mapping[str, str]) -> Plan:
        """Plan the changes of the files in the folder.

        :param wanted: the SHA-256 of each file to deploy.
        :raises StageError: when something is in the way, or this build must not replace a file.
        """
        in_the_way = ownership.obstacle(self.path, wanted)
        if in_the_way:
            raise StageError(f"{in_the_way}. Move it away, then run the same command again.")
        recorded = ledger.written(self.config, self.target)
        listing = read_listing(self.target.manifest)
        names = {**wanted, **recorded, **(listing.hashes if listing else {}), SIGNATURE: ""}
        plan = ownership.plan(
            wanted,
            ownership.look(self.path, names),
            recorded,
            ownership.of_another_build(self.path, self.target.name),
            self.config.overwrite,
        )
        if plan.foreign and not self.config.overwrite:
            again = command(f"deploy:{self.target.name}", overwrite="yes")
            raise StageError(ownership.refusal(self.target, plan.foreign, recorded, again))
        return plan

    def _replace(self, staged: Mapping[str, Path], plan: Plan, wanted: Mapping[str, str]) -> None:
        """Rename everything to its final name, the manifest last; remove obsolete files.

        :raises StageError: when a rename fails; then nothing has changed.
        """
        if staged:
            before = ledger.written(self.config, self.target)
            both = {name: [*before.get(name, ()), sha256] for name, sha256 in wanted.items()}
            # In case the run is killed in between.
            ledger.add(self.config, self.target, {**before, **both})
            try:
                follow_folder(self.path, staged)
                replace_together(self.path, staged, plan.removed, self.replaced, SIGNATURE)
            except OSError as error:
                paths = [Path(each) for each in (error.filename2, error.filename) if each]
                within = [each for each in paths if each.is_relative_to(self.path)]
                path = next(
                    (each for each in within if self.staging not in each.parents), self.path
                )
                raise StageError(
                    f"{path} could not be put in place: {error.strerror}. Files already renamed "
                    "were restored."
                ) from error
        ledger.add(self.config, self.target, {name: [sha256] for name, sha256 in wanted.items()})

    def _notes(self, plan: Plan) -> list[str]:
        notes = {
            "had changed since this build deployed it, and was deployed again": plan.restored,
            "was not written by this build, and was replaced": plan.foreign,
            "is no longer deployed, but was kept: it is not the file that this build "
            "wrote": plan.left,
        }
        return [f"{self.path / name} {what}." for what, names in notes.items() for name in names]


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, relative to it."""
    return [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]


def _staged(content: Path | bytes, copy: Path, sha256: str) -> Path:
    """Write a copy of a file, or a text.

    :raises StageError: when the copy differs from the judged file.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        copy.write_bytes(content)
        return copy
    copied = copy_and_hash(content, copy)
    if copied == sha256:
        copied = FINGERPRINTS.sha256(copy)  # read again from the disk
    if copied != sha256:
        raise StageError(
            f"{content} changed, or its copy was written wrongly: expected sha256 {sha256}, found "
            f"{copied}. Run the same command again; check the disk if this persists."
        )
    return copy
