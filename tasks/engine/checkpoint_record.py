"""What a checkpoint on disk is: written beside it, read by whoever must name it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.engine.files import write_atomically


@dataclass(frozen=True)
class Record:
    """Where a checkpoint came from, its SHA-256 and size in bytes.

    ``commit`` is that of the hub's repository.
    """

    url: str
    sha256: str
    size: int
    synthetic: bool
    commit: str | None = None

    def write(self, path: Path) -> None:
        """Write it beside the checkpoint."""
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n")


def read(path: Path) -> Record | None:
    """A record, or None when there is none to be read."""
    try:
        return Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
