"""Ties measurements to the bytes of the measured files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.system.errors import StageError
from tasks.system.files import sha256_of
from tasks.system.fingerprint import stat_signature


@contextmanager
def unchanged(files: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The SHA-256 of files that are measured inside the context, by the same keys.

    :raises StageError: at the end, when one of them changed meanwhile.
    """
    before = {path: stat_signature(path) for path in files.values()}
    yield {key: sha256_of(path) for key, path in files.items()}
    for path, signature in before.items():
        if not Path(path).is_file() or stat_signature(path) != signature:
            raise StageError(
                f"{path} changed while it was measured, so the figures do not count. "
                "Run the same command again."
            )
