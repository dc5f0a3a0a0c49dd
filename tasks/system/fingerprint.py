"""The SHA-256 of files; an unchanged file is not read again."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.system.files import sha256_of, write_record
from tasks.system.module_code import ModuleCode, read_module

RECENT = 0.05  # seconds


class Fingerprints:
    """The SHA-256 of files, remembered with the file's stat.

    Size, modification time, change time and inode together show whether a file was touched; ``cp
    -p`` or ``touch -d`` cannot set the change time back. A touched file is read again, so a moved
    checkout or a restored cache costs one reading.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cache: Path | None = None
        self._entries: dict[str, list[int | str]] = {}
        self._recent: dict[str, tuple[float, str]] = {}

    def remember_in(self, cache: Path) -> None:
        """Load the hashes from ``cache`` (JSON), and keep it up to date."""
        with self._lock:
            self._cache = cache
            self._entries = read_cache(cache)

    def sha256(self, path: str | os.PathLike[str]) -> str:
        """The SHA-256 of a file in hexadecimal digits; raises `FileNotFoundError`."""
        key = os.fspath(path)
        return self.remembered(key, [key], lambda: sha256_of(key))

    def code(self, path: str) -> ModuleCode:
        """The code of a Python file; raises `FileNotFoundError`."""

        def read() -> str:
            package = ".".join(Path(path).parent.parts)
            return json.dumps(read_module(Path(path).read_bytes(), package))

        return ModuleCode(*json.loads(self.remembered(f"code of {path}", [path], read)))

    def dependency(self, path: str) -> str:
        """The hash of a file as a dependency: of a Python module's code, else of its bytes."""
        return self.code(path).sha256 if path.endswith(".py") else self.sha256(path)

    def remembered(self, key: str, paths: Sequence[str], read: Callable[[], str]) -> str:
        """The result of ``read`` for files, under a key; not called again for unchanged files."""
        before = _signatures(paths)
        with self._lock:
            entry = self._entries.get(key)
        if isinstance(entry, list) and entry[:-1] == before:
            return str(entry[-1])
        text = read()
        if _signatures(paths) == before:  # otherwise a file changed meanwhile
            self._remember(key, before, text)
        return text

    def recent_dependency(self, path: str) -> str:
        """The `dependency` hash of a file, cached for a moment to avoid repeated stats.

        It is for dependencies before a run: three hundred stages share a few dozen modules. The
        next build sees a change within that moment, because the earlier hash is recorded.
        """
        now = time.monotonic()
        recent = self._recent.get(path)
        if recent is not None and now - recent[0] < RECENT:
            return recent[1]
        digest = self.dependency(path)
        self._recent[path] = now, digest
        return digest

    def remember(self, path: str | os.PathLike[str], sha256: str) -> None:
        """Record the hash of a file, computed while it was written."""
        self._remember(os.fspath(path), stat_signature(path), sha256)

    def _remember(self, key: str, stat: list[int], text: str) -> None:
        with self._lock:
            self._entries[key] = [*stat, text]
            self._recent.clear()
            if self._cache is not None:
                with suppress(OSError):  # the code that must write reports a full disk
                    write_record(self._cache, json.dumps(self._entries))


def read_cache(path: Path) -> dict[str, Any]:
    """Read a cache in JSON; empty if it is unreadable, which costs only time."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def stat_signature(path: str | os.PathLike[str]) -> list[int]:
    """The properties that change with every write: size, modification and change time, inode."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _signatures(paths: Sequence[str]) -> list[int]:
    """The stat signatures of several files; a missing file has one too."""
    signatures: list[int] = []
    for path in paths:
        try:
            signatures += stat_signature(path)
        except FileNotFoundError:
            signatures.append(-1)
    return signatures


# One instance per process, shared by all code that needs hashes.
FINGERPRINTS = Fingerprints()


def hashes_of(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """The SHA-256 of each existing file, by its path as given."""
    return _each(paths, FINGERPRINTS.sha256)


def dependency_hashes(
    paths: Iterable[str | os.PathLike[str]], recent: bool = False
) -> dict[str, str]:
    """The `Fingerprints.dependency` of each existing file, now or cached for a moment."""
    return _each(paths, FINGERPRINTS.recent_dependency if recent else FINGERPRINTS.dependency)


def _each(paths: Iterable[str | os.PathLike[str]], hash_of: Callable[[str], str]) -> dict[str, str]:
    hashes = {}
    for path in sorted(os.fspath(each) for each in paths):
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            hashes[path] = hash_of(path)
    return hashes
