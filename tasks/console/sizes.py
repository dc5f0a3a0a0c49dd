"""Readable sizes of files."""

from __future__ import annotations

from collections.abc import Sequence


def mebibytes(size: float) -> str:
    """A readable size: ``104.2 MiB``."""
    return f"{size / 2**20:,.1f} MiB"


def amount(sizes: Sequence[int]) -> str:
    """The number of files and their size: ``3 files, 12.0 MiB``."""
    return f"{len(sizes)} file{'s' * (len(sizes) != 1)}, {mebibytes(sum(sizes))}"
