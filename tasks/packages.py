"""The packages of npm in ``web/``, installed when their lock file changed and npm is there."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare
from tasks.config.schema import Configuration
from tasks.system.errors import StageError
from tasks.web import packages

if TYPE_CHECKING:
    from doit.task import Task


def task(config: Configuration) -> dict[str, Any]:
    """doit's task; it has no targets, so ``doit clean`` keeps what it installed."""
    required = any(model.browser is True for model in config.models)
    return declare(
        None,
        install,
        [required],
        reads=packages.MANIFESTS,
        writes=[],
        inputs={},
        uptodate=[packages.are_installed],
    )


def install(required: bool, task: Task) -> dict[str, Any]:
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
