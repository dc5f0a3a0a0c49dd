"""What a file holds, told by SHA-256, and told again without reading it while it is untouched."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from doit.dependency import FileChangedChecker

from tasks.files import write_atomically

_CHUNK = 1 << 20


class Fingerprints:
    """SHA-256 of files, remembered with the stat of the file they were read from.

    Size, modification time, change time and inode together tell whether a file was touched;
    the change time cannot be set back by ``cp -p`` or ``touch -d``. A file that was touched
    is read again, so a checkout that moved or a restored cache costs one reading.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cache: Path | None = None
        self._known: dict[str, list[int | str]] = {}

    def remember_in(self, cache: Path) -> None:
        """Keep what is known in ``cache`` (JSON) as well, and take up what it holds."""
        with self._lock:
            self._cache = cache
            try:
                known = json.loads(cache.read_text())
            except (OSError, ValueError):
                known = {}  # only a saving of time is lost
            self._known = known if isinstance(known, dict) else {}

    def sha256(self, path: str | os.PathLike[str]) -> str:
        """The SHA-256 of a file, as 64 hexadecimal digits.

        :raises FileNotFoundError: when there is no such file.
        """
        key = os.fspath(path)
        stat = _stat_signature(key)
        with self._lock:
            entry = self._known.get(key)
        if entry is not None and entry[:-1] == stat:
            return str(entry[-1])
        with open(key, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._remember(key, stat, digest)
        return digest

    def remember(self, path: str | os.PathLike[str], sha256: str) -> None:
        """Note the hash of a file that was computed while it was written."""
        self._remember(os.fspath(path), _stat_signature(path), sha256)

    def _remember(self, key: str, stat: list[int | str], sha256: str) -> None:
        with self._lock:
            self._known[key] = [*stat, sha256]
            if self._cache is not None:
                with suppress(OSError):  # a full disk is reported by whoever must write
                    write_atomically(self._cache, json.dumps(self._known))


def _stat_signature(path: str | os.PathLike[str]) -> list[int | str]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


# doit makes its checker itself, without arguments, so what it asks is one for the process.
FINGERPRINTS = Fingerprints()


class ContentChecker(FileChangedChecker):  # type: ignore[misc]
    """doit's question "has this file dependency changed?", answered by content alone."""

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: str) -> bool:
        """Whether the file's SHA-256 differs from the recorded one."""
        return FINGERPRINTS.sha256(file_path) != state

    def get_state(self, dep: str, current_state: str | None) -> str | None:
        """The SHA-256 to record, or None when it is the recorded one."""
        digest = FINGERPRINTS.sha256(dep)
        return None if digest == current_state else digest


def combined(paths: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """The SHA-256 of each file that exists, by its path as given."""
    return {os.fspath(path): FINGERPRINTS.sha256(path) for path in paths if os.path.isfile(path)}
