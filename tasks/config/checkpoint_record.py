"""What a checkpoint on disk is: written beside it, read by whoever must name it."""

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
    """Where a checkpoint came from, its SHA-256 and size in bytes; a manifest has it too.

    ``url`` is as `identity` has it; ``commit`` is that of the hub's repository.
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
    """A record, or None when there is none to be read."""
    try:
        content = json.loads(path.read_text())
        return Checkpoint(
            **{**content, "url": address.shown(content["url"])}
        )  # an older one had all
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def identity(build: Path, location: CheckpointLocation) -> str:
    """What tells a source from others, as it may be recorded.

    That is the address as it is shown. A query may name the file, too, so a digest of it is added:
    of that part which does not say who asks (`address.query_of_file`), and under a key of this
    build folder, for what else is in it may be short enough to be guessed.
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
    except OSError:  # where nothing can be written, nothing is recorded
        return os.urandom(32)
