"""The settings of a build's shared cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.console import address

NO_CACHE = "off"  # in place of an address: build without a cache


@dataclass(frozen=True, eq=False)
class CacheSettings:
    """A cache that several builds share (``[cache]``).

    ``url`` is anything that fsspec opens, with ``options`` for its file system; both can contain
    secrets. ``write``: store this build's outputs there. ``proofs``: take proofs of other builds
    from there too, instead of proving here.
    """

    url: str = field(repr=False)
    write: bool = True
    proofs: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The address without secrets; see `tasks.console.address`."""
        return address.shown(self.url)


def local_folder(url: str) -> Path | None:
    """The folder on this machine that a cache's address names; None for other addresses."""
    scheme, _, rest = url.partition("://")
    if not rest:
        return Path(url.removeprefix("file:"))
    return Path(rest) if scheme in ("file", "local") else None
