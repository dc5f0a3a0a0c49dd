"""What a file holds, told by SHA-256, and told again without reading it while it is untouched."""

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

RECENT = 0.05  # seconds


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
        self._seen: dict[str, tuple[float, str]] = {}

    def remember_in(self, cache: Path) -> None:
        """Keep what is known in ``cache`` (JSON) as well, and take up what it holds."""
        with self._lock:
            self._cache = cache
            self._known = read_cache(cache)

    def sha256(self, path: str | os.PathLike[str]) -> str:
        """The SHA-256 of a file, as 64 hexadecimal digits.

        :raises FileNotFoundError: when there is no such file.
        """
        key = os.fspath(path)
        return self.told(key, [key], lambda: sha256_of(key))

    def told(self, key: str, paths: Sequence[str], tell: Callable[[], str]) -> str:
        """What is told of files, and told again without asking while they are untouched.

        :param key: what it is remembered under.
        """
        before = _signatures(paths)
        with self._lock:
            entry = self._known.get(key)
        if isinstance(entry, list) and entry[:-1] == before:
            return str(entry[-1])
        answer = tell()
        if _signatures(paths) == before:  # else one was written to meanwhile
            self._remember(key, before, answer)
        return answer

    def recent_sha256(self, path: str) -> str:
        """The SHA-256 that a file had a moment ago, without looking again and again.

        For dependencies before a run: three hundred stages share a few dozen sources. A change of
        that moment is seen by the next build, for the earlier hash is what is recorded.
        """
        now = time.monotonic()
        seen = self._seen.get(path)
        if seen is not None and now - seen[0] < RECENT:
            return seen[1]
        digest = self.sha256(path)
        self._seen[path] = now, digest
        return digest

    def remember(self, path: str | os.PathLike[str], sha256: str) -> None:
        """Note the hash of a file that was computed while it was written."""
        self._remember(os.fspath(path), stat_signature(path), sha256)

    def _remember(self, key: str, stat: list[int], answer: str) -> None:
        with self._lock:
            self._known[key] = [*stat, answer]
            self._seen.pop(key, None)
            if self._cache is not None:
                with suppress(OSError):  # a full disk is reported by whoever must write
                    write_record(self._cache, json.dumps(self._known))


def read_cache(path: Path) -> dict[str, Any]:
    """A cache in JSON; empty when there is none to be read, which costs nothing but time."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def stat_signature(path: str | os.PathLike[str]) -> list[int]:
    """What changes whenever a file is written: size, modification and change time, inode."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _signatures(paths: Sequence[str]) -> list[int]:
    """Those of several files; one that is not there has one too."""
    found: list[int] = []
    for path in paths:
        try:
            found += stat_signature(path)
        except FileNotFoundError:
            found.append(-1)
    return found


# One for the process: whoever asks about a file shares what is known of it.
FINGERPRINTS = Fingerprints()


def hashes_of(paths: Iterable[str | os.PathLike[str]], recent: bool = False) -> dict[str, str]:
    """The SHA-256 of each file that exists, by its path as given.

    :param recent: as it was a moment ago; see `Fingerprints.recent_sha256`.
    """
    look = FINGERPRINTS.recent_sha256 if recent else FINGERPRINTS.sha256
    found = {}
    for path in sorted(os.fspath(each) for each in paths):
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            found[path] = look(path)
    return found
