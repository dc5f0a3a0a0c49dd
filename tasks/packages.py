"""Installs the npm packages in ``web/`` when their lock file changed and npm is available."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.building.stage import Stage, Workspace
from tasks.config.models import Target
from tasks.system.errors import StageError
from tasks.web import packages


def declare(targets: Sequence[Target]) -> Stage:
    """The installation; it has no targets, so ``doit clean`` keeps the installed packages."""
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
    """Run ``npm ci``, unless the installed packages already match the lock file.

    :raises StageError: with npm's error message, if a model requires a browser's proof.
    """
    if packages.are_installed():
        return {"summary": "already installed"}
    problem = packages.install()
    if problem is not None and required:
        raise StageError(
            f"The npm packages could not be installed: {problem}. Connect to a network, or set "
            '[browser] enabled to "auto" or false.'
        )
    if problem is not None:
        return {"summary": f"NOT INSTALLED: {problem}"}
    versions = packages.versions().items()
    own = [f"{name} {version}" for name, version in versions if "/node_modules/" not in name]
    return {"summary": ", ".join(own)}
