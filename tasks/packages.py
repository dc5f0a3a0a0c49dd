"""The packages of npm in ``web/``, installed when their lock file changed and npm is there."""

from __future__ import annotations

import subprocess
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

    Where no browser is required the build goes on without: a network that lets no npm through is
    told of.

    :raises StageError: with npm's own words, where a model asks for a browser's proof.
    """
    if packages.are_installed():
        return {"summary": "already installed"}
    program = packages.npm()
    if program is None:
        return _failed(required, "there is no npm; install Node.js 20 or newer")
    done = subprocess.run(
        [program, *packages.COMMAND[1:]],
        cwd=packages.FOLDER,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        return _failed(required, f"`{' '.join(packages.COMMAND)}` ended with: {words[0]}"
                       if words else f"`{' '.join(packages.COMMAND)}` failed")  # fmt: skip
    told = ", ".join(
        f"{name} {version}"
        for name, version in packages.versions().items()
        if "/node_modules/" not in name
    )
    return {"summary": told}


def _failed(required: bool, reason: str) -> dict[str, Any]:
    if required:
        raise StageError(
            f"The packages of npm could not be installed: {reason}. Connect to a network, or set "
            '[browser] enabled to "auto" or false.'
        )
    return {"summary": f"NOT INSTALLED: {reason}"}
