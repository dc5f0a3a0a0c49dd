"""Writes files so that they appear under their final names complete or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a text file beside its final name, then rename it; the umask limits its ``mode``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, os.fspath(unfinished)):
            error.filename = os.fspath(path)  # a failed write does not set it
        raise


def write_record(path: Path, text: str) -> None:
    """Write a record of the build like `write_atomically`, readable only by its owner."""
    write_atomically(path, text, 0o600)


def copy_and_hash(source: Path, destination: Path) -> str:
    """Copy a file, and return the SHA-256 of the copied bytes, even if the source changes."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, destination.open("wb") as writing:
        write_and_hash(iter(partial(reading.read, _CHUNK), b""), writing, digest)
    return digest.hexdigest()


def write_and_hash(
    chunks: Iterable[bytes],
    file: IO[bytes] | None,
    digest: hashlib._Hash,
    *,
    limit: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Hash chunks, write them to a file if there is one, and return the number of bytes.

    Chunks beyond the ``limit`` are not read; ``advance`` is called with the length of each chunk.
    """
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        if file is not None:
            try:
                file.write(chunk)
            except OSError as error:
                error.filename = file.name  # a failed write does not set it
                raise
        size += len(chunk)
        if advance is not None:
            advance(len(chunk))
        if limit is not None and size > limit:
            break
    return size


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, read now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_together(
    folder: Path,
    staged: Mapping[str, Path],
    obsolete: Sequence[str],
    backups: Path,
    seal: str = "",
) -> None:
    """Rename staged files over the files of a folder, in their order, or change nothing.

    :param staged: by their new names, paths within the folder; all in its file system.
    :param obsolete: names of files to remove, before the last staged file is renamed.
    :param backups: an empty folder of the same file system, for the replaced files meanwhile.
    :param seal: the name of a file that vouches for the others: the old one is removed before the
        first rename, the new one is renamed last.
    :raises OSError: when a rename fails; the renames before it are undone.
    """
    done: list[tuple[Path, Path | None]] = []
    others = [(name, path) for name, path in staged.items() if name != seal]
    steps: list[tuple[str, Path | None]] = [
        *((name, None) for name in {*staged, *obsolete} if name == seal),
        *others[:-1],
        *((name, None) for name in obsolete if name != seal),
        *others[-1:],
        *((name, path) for name, path in staged.items() if name == seal),
    ]
    try:
        for name, path in steps:
            target, backup = folder / name, backups / name
            for each in (target, backup):
                each.parent.mkdir(parents=True, exist_ok=True)
            done.append((target, _set_aside(target, backup, keep=path is not None)))
            if path is not None:
                os.replace(path, target)
    except BaseException:
        for target, before in reversed(done):
            with suppress(OSError):  # continue to undo the others
                if before is None:
                    target.unlink(missing_ok=True)
                else:
                    os.replace(before, target)
        remove_empty_folders(folder, staged)
        raise
    remove_empty_folders(folder, obsolete)


def removal_problem(path: Path) -> str | None:
    """Remove a file, a folder with its content, or a link; return a message if that fails."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"kept {error.filename or path}: {error.strerror}"
    return None


def make_folders(folder: Path) -> None:
    """Create a folder and its parents; below a group-writable folder, group-writable too."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    above = folder.parent.stat().st_mode
    if above & stat.S_IWGRP:
        _allow(folder, folder.stat().st_mode | above & stat.S_IRWXG)


def follow_folder(folder: Path, staged: Mapping[str, Path]) -> None:
    """Give staged files, by their new names, the folder's permissions to read and write."""
    mode = folder.stat().st_mode
    for name, path in staged.items():
        make_folders((folder / name).parent)
        _allow(path, 0o600 | mode & 0o664)  # only the folder is writable for everybody


def _allow(path: Path, mode: int) -> None:
    with suppress(OSError):  # some file systems have no permissions
        path.chmod(stat.S_IMODE(mode))


def remove_empty_folders(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of files within a folder, and their parents, if they are empty."""
    for name in names:
        for parent in Path(name).parents[:-1]:
            with suppress(OSError):
                (folder / parent).rmdir()


def _set_aside(target: Path, backup: Path, keep: bool) -> Path | None:
    """Move a file, or with ``keep`` hard-link it if possible; None if it is missing."""
    if not os.path.lexists(target):
        return None
    if keep:
        with suppress(OSError):
            os.link(target, backup, follow_symlinks=False)
            return backup
    os.replace(target, backup)
    return backup
