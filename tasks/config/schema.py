"""A whole configuration: its models, their shared cache, and where they are published."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from doit.exceptions import InvalidDodoFile

from tasks.config.checks import Checks
from tasks.config.models import Source, Target
from tasks.config.tables import Publishing, Signing
from tasks.remote.cache_settings import CacheSettings


class ConfigurationError(InvalidDodoFile):  # type: ignore[misc]
    """Every mistake in a configuration; doit prints it and exits with 3."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """A whole configuration file. Relative paths are relative to the project root.

    ``cluster`` is the address of a Dask scheduler; None builds only on this machine.
    ``overwrite`` lets a deploy replace files that this build did not write.
    """

    path: Path
    build: Path
    sources: tuple[Source, ...]
    checks: Checks = field(default_factory=Checks)
    cache: CacheSettings | None = None
    publishing: Publishing | None = None
    signing: Signing | None = None
    cluster: str | None = None
    overwrite: bool = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """The models that can be deployed, in the order of the file."""
        return tuple(target for source in self.sources for target in source.targets)
