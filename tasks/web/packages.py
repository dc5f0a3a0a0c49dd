"""The npm packages that the page and the browser's proof need: places, versions, installation."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from tasks.running.child import PROJECT
from tasks.system.fingerprint import FINGERPRINTS

FOLDER = PROJECT / "web"
PAGE = FOLDER / "page"
RUNTIME = FOLDER / "node_modules/onnxruntime-web"
# The npm packages that the page loads, and the folder of each that is served.
LIBRARIES = {
    "onnxruntime-web": "dist",
    "geotiff": "dist-browser",  # reads TIFFs
    "fast-png": "lib",  # reads PNGs of 16 bits; needs the next two
    "fflate": "esm",
    "iobuffer": "lib",
    "mediabunny": "dist/bundles",  # reads the frames of videos
}
MODULES = FOLDER / "node_modules"
MANIFESTS = (FOLDER / "package.json", FOLDER / "package-lock.json")
INSTALLED = FOLDER / "node_modules/.package-lock.json"  # npm's own record of what it installed
COMMAND = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")


# The packages that load models: the page's runtimes, the client that is itself an npm package and
# has its own runtime, and the package of code that both runtimes share.
_RUNTIMES = ("onnxruntime-web", "onnxruntime-web-1.19", "onnxruntime-common")
LOADERS = (*_RUNTIMES, "@huggingface/transformers")

# The files of those packages that a browser is served; the rest is bundled into them.
SERVED = (
    "package.json",
    "dist/ort*.min.mjs",
    "dist/ort-wasm-*",
    "dist/esm/*.js",
    "dist/transformers.web.js",
)


def versions(names: Collection[str] = LOADERS) -> dict[str, str]:
    """The lock file's versions of the packages that load models; empty without a lock file.

    The keys are places in ``node_modules``, because a package can contain its own copy of another.
    """
    return {
        place.partition("/")[2]: str(package.get("version"))
        for place, package in sorted(_packages(MANIFESTS[1]).items())
        if place.rpartition("node_modules/")[2] in names
    }


@cache  # first called after the installation
def served() -> str:
    """The shortened SHA-256 of all installed files that load models in a browser."""
    places = [FOLDER / "node_modules" / name for name in versions()]
    files = {path for place in places for pattern in SERVED for path in place.glob(pattern)}
    named = {path.relative_to(FOLDER).as_posix(): FINGERPRINTS.sha256(path) for path in files}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def libraries() -> dict[str, Path]:
    """The folders of npm packages that a server of the page serves, by the address's path."""
    return {
        f"/{name}": FOLDER / "node_modules" / name / folder for name, folder in LIBRARIES.items()
    }


def version_of(package: str) -> str:
    """The version of an installed package."""
    return str(json.loads((MODULES / package / "package.json").read_text())["version"])


def are_installed() -> bool:
    """Whether the installed packages match the lock file."""
    wanted, installed = _packages(MANIFESTS[1]), _packages(INSTALLED)
    return (RUNTIME / "package.json").is_file() and all(
        installed.get(name, {}).get("version") == package.get("version")
        for name, package in wanted.items()
        if name and not package.get("optional")
    )


def install() -> str | None:
    """Run ``npm ci``; if it fails, return npm's error message."""
    program = npm()
    if program is None:
        return "there is no npm; install Node.js 20 or newer"
    done = subprocess.run(
        [program, *COMMAND[1:]],
        cwd=FOLDER,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"`{' '.join(COMMAND)}` failed: {lines[0] if lines else f'status {done.returncode}'}"


def npm() -> str | None:
    """The path of npm, if it is on the search path."""
    return shutil.which("npm")


def _packages(lock: Path) -> dict[str, dict[str, Any]]:
    try:
        packages = json.loads(lock.read_text())["packages"]
        return dict(packages)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
