"""Where the shared cache of a build is, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.console import address

NO_CACHE = "off"  # in place of an address: build without


@dataclass(frozen=True, eq=False)
class CacheSettings:
    """A cache that several builds share (``[cache]``).

    ``url`` is anything that fsspec opens, with ``options`` for its file system; both may hold what
    is not to be shown. ``write`` says whether what is built here goes there, ``proofs`` whether
    what others proved is taken from there too, instead of being proven here.
    """

    url: str = field(repr=False)
    write: bool = True
    proofs: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The address as it may be shown; see `tasks.console.address`."""
        return address.shown(self.url)


def local_folder(url: str) -> Path | None:
    """The folder of this machine that a cache's address names, if it does."""
    scheme, _, rest = url.partition("://")
    if not rest:
        return Path(url.removeprefix("file:"))
    return Path(rest) if scheme in ("file", "local") else None
