"""The packages of npm in ``web/``, installed when their lock file changed and npm is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.building.stage import Stage, Workspace
from tasks.config.models import Target
from tasks.system.errors import StageError
from tasks.web import packages


def declare(targets: Sequence[Target]) -> Stage:
    """The installation; it has no targets, so ``doit clean`` keeps what it installed."""
    required = any(target.browser is True for target in targets)
    return Stage(
        None,
        install,
        [required],
        reads=packages.MANIFESTS,
        inputs={},
        up_to_date=[packages.are_installed],
    )


def install(required: bool, work: Workspace) -> dict[str, Any]:
    """Run ``npm ci``, unless what is installed is what the lock file asks for.

    :raises StageError: with npm's own words, where a model requires a browser's proof.
    """
    if packages.are_installed():
        return {"summary": "already installed"}
    problem = packages.install()
    if problem is not None and required:
        raise StageError(
            f"The packages of npm could not be installed: {problem}. Connect to a network, or set "
            '[browser] enabled to "auto" or false.'
        )
    if problem is not None:
        return {"summary": f"NOT INSTALLED: {problem}"}
    versions = packages.versions().items()
    own = [f"{name} {version}" for name, version in versions if "/node_modules/" not in name]
    return {"summary": ", ".join(own)}
