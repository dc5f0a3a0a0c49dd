"""The record beside a checkpoint on disk, which identifies it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.config.location import CheckpointLocation
from tasks.console import address
from tasks.system.files import write_record


@dataclass(frozen=True)
class Checkpoint:
    """The source of a checkpoint, its SHA-256 and its size in bytes; a manifest has it too.

    ``url`` comes from `identity`; ``commit`` is the commit of the hub's repository.
    """

    url: str
    sha256: str
    size: int
    synthetic: bool
    commit: str | None = None

    def write(self, path: Path) -> None:
        """Write it beside the checkpoint."""
        write_record(path, json.dumps(asdict(self), indent=2) + "\n")


def read(path: Path) -> Checkpoint | None:
    """Read a record; None if it is missing or unreadable."""
    try:
        content = json.loads(path.read_text())
        return Checkpoint(
            **{**content, "url": address.shown(content["url"])}
        )  # an older record has all of them
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def identity(build: Path, location: CheckpointLocation) -> str:
    """An identifier of a source that is safe to record.

    It is the address as shown. A query can also name the file, so a digest of the query is added,
    without the parts that identify the user (`address.query_of_file`). The digest uses a key of
    this build folder, because the rest of the query can be short enough to guess.
    """
    query = address.query_of_file(location.url)
    if not query:
        return location.shown
    digest = hashlib.blake2b(query.encode(), key=_key(build), digest_size=6).hexdigest()
    return f"{location.shown} (query {digest})"


def _key(build: Path) -> bytes:
    file = build / "state" / "key"
    try:
        if not file.is_file():
            write_record(file, os.urandom(32).hex())
        return file.read_bytes()[:64]
    except OSError:  # if the key cannot be written, the record cannot either
        return os.urandom(32)
