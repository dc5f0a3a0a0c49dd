"""The packages of npm that the page and the proof in a browser need: where, which, whether."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks.engine.child import PROJECT

FOLDER = PROJECT / "web"
PAGE = FOLDER / "page"
RUNTIME = FOLDER / "node_modules/onnxruntime-web"
TIFF = FOLDER / "node_modules/geotiff"  # with which the page reads TIFFs
MANIFESTS = (FOLDER / "package.json", FOLDER / "package-lock.json")
INSTALLED = FOLDER / "node_modules/.package-lock.json"  # npm's own record of what it installed
COMMAND = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")


# What loads models: the page's own runtime, and the client that is an npm package itself.
LOADERS = ("onnxruntime-web", "@huggingface/transformers")


def versions() -> dict[str, str]:
    """The versions of what loads models that the lock file asks for; empty without a lock file."""
    found = _packages(MANIFESTS[1])
    return {
        name: str(found[f"node_modules/{name}"].get("version"))
        for name in LOADERS
        if f"node_modules/{name}" in found
    }


def are_installed() -> bool:
    """Whether what is installed is what the lock file asks for."""
    wanted, found = _packages(MANIFESTS[1]), _packages(INSTALLED)
    return (RUNTIME / "package.json").is_file() and all(
        found.get(name, {}).get("version") == package.get("version")
        for name, package in wanted.items()
        if name and not package.get("optional")
    )


def npm() -> str | None:
    """npm, where it is on the search path."""
    return shutil.which("npm")


def _packages(lock: Path) -> dict[str, dict[str, Any]]:
    try:
        packages = json.loads(lock.read_text())["packages"]
        return dict(packages)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
