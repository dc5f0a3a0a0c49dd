"""The packages of npm that the page and the proof in a browser need: where, which, whether."""

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
# What the page loads of npm, by package, and the folder of each that it is served.
LIBRARIES = {
    "onnxruntime-web": "dist",
    "geotiff": "dist-browser",  # reads TIFFs
    "fast-png": "lib",  # reads PNGs of 16 bits, with the two after it
    "fflate": "esm",
    "iobuffer": "lib",
    "mediabunny": "dist/bundles",  # takes videos apart
}
MODULES = FOLDER / "node_modules"
MANIFESTS = (FOLDER / "package.json", FOLDER / "package-lock.json")
INSTALLED = FOLDER / "node_modules/.package-lock.json"  # npm's own record of what it installed
COMMAND = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")


# What loads models: the page's own runtime, and the client that is an npm package itself. That
# brings a runtime of its own, and common parts of both are packages too.
_RUNTIMES = ("onnxruntime-web", "onnxruntime-web-1.19", "onnxruntime-common")
LOADERS = (*_RUNTIMES, "@huggingface/transformers")

# Of those, what a browser is served; they are bundled with what else they need.
SERVED = (
    "package.json",
    "dist/ort*.min.mjs",
    "dist/ort-wasm-*",
    "dist/esm/*.js",
    "dist/transformers.web.js",
)


def versions(names: Collection[str] = LOADERS) -> dict[str, str]:
    """The versions of what loads models that the lock file asks for; empty without a lock file.

    By the place of each in ``node_modules``: one package may have another of its own.
    """
    return {
        place.partition("/")[2]: str(package.get("version"))
        for place, package in sorted(_packages(MANIFESTS[1]).items())
        if place.rpartition("node_modules/")[2] in names
    }


@cache  # first called when they are installed
def served() -> str:
    """The SHA-256, cut short, of all that loads models in a browser, as it is installed."""
    places = [FOLDER / "node_modules" / name for name in versions()]
    files = {path for place in places for pattern in SERVED for path in place.glob(pattern)}
    named = {path.relative_to(FOLDER).as_posix(): FINGERPRINTS.sha256(path) for path in files}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def libraries() -> dict[str, Path]:
    """What a server of the page serves of npm, by the address's path."""
    return {
        f"/{name}": FOLDER / "node_modules" / name / folder for name, folder in LIBRARIES.items()
    }


def version_of(package: str) -> str:
    """The version of an installed package."""
    return str(json.loads((MODULES / package / "package.json").read_text())["version"])


def are_installed() -> bool:
    """Whether what is installed is what the lock file asks for."""
    wanted, installed = _packages(MANIFESTS[1]), _packages(INSTALLED)
    return (RUNTIME / "package.json").is_file() and all(
        installed.get(name, {}).get("version") == package.get("version")
        for name, package in wanted.items()
        if name and not package.get("optional")
    )


def install() -> str | None:
    """Run ``npm ci``; why it did not work, if so, in npm's own words."""
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
    return f"`{' '.join(COMMAND)}` ended with: {lines[0] if lines else done.returncode}"


def npm() -> str | None:
    """npm, where it is on the search path."""
    return shutil.which("npm")


def _packages(lock: Path) -> dict[str, dict[str, Any]]:
    try:
        packages = json.loads(lock.read_text())["packages"]
        return dict(packages)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
