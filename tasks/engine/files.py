"""Files appear under their final name whole, or not at all; several of them together, or none."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_CHUNK = 1 << 20


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its final name, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a deployed file from a server
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def copy_and_hash(source: Path, destination: Path) -> str:
    """Copy a file; the SHA-256 of the bytes that were copied, whatever happens to the source."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, destination.open("wb") as writing:
        while chunk := reading.read(_CHUNK):
            digest.update(chunk)
            try:
                writing.write(chunk)
            except OSError as error:
                error.filename = os.fspath(destination)  # which a failed write does not name
                raise
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, read now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_together(
    folder: Path, staged: Mapping[str, Path], obsolete: Sequence[str], backups: Path
) -> None:
    """Rename staged files over those of a folder, in their order, or change nothing.

    :param staged: by the name that each gets; all in the folder's file system.
    :param obsolete: names of files to remove, before the last staged file is renamed.
    :param backups: an empty folder of the same file system, for what is replaced meanwhile.
    :raises OSError: when a rename fails; those before it are undone.
    """
    done: list[tuple[Path, Path | None]] = []
    *first, last = staged
    try:
        for name in [*first, *obsolete, last]:
            target = folder / name
            done.append((target, _set_aside(target, backups, keep=name in staged)))
            if name in staged:
                os.replace(staged[name], target)
    except BaseException:
        for target, backup in reversed(done):
            with suppress(OSError):  # the others are still to be undone
                if backup is None:
                    target.unlink(missing_ok=True)
                else:
                    os.replace(backup, target)
        raise


def _set_aside(target: Path, backups: Path, keep: bool) -> Path | None:
    """Give a file a second name, or move it; None when there is none.

    :param keep: leave it under its own name too, where the file system has hard links.
    """
    backup = backups / target.name
    if not os.path.lexists(target):
        return None
    if keep:
        try:
            os.link(target, backup, follow_symlinks=False)
        except OSError:
            pass
        else:
            return backup
    os.replace(target, backup)
    return backup


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder for work in progress, removed at the end and after a killed run."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def mebibytes(size: int) -> str:
    """A size for people: ``104.2 MiB``."""
    return f"{size / 2**20:,.1f} MiB"
