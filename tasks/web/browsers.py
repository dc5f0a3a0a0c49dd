"""Finds the browser that proves graphs on this machine, and identifies it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import versions
from tasks.web import packages
from tasks.web.programs import PROGRAMS, BrowserProgram, engine_of

if TYPE_CHECKING:
    from tasks.config.checks import BrowserCheck

INSTALL_BROWSER = "uv run playwright install chromium"

# Names on the search path, mostly Linux's; then the paths of applications on macOS.
EXECUTABLES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)

PATIENCE = 30  # seconds for a browser to print its version


@dataclass(frozen=True)
class Browser:
    """A browser that proves graphs, and the versions of the npm packages that run them.

    ``executable`` None means Playwright's own browser. ``missing`` says why no browser is
    available, and what to do.
    """

    executable: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None


def find(check: BrowserCheck) -> Browser:
    """Look for a browser, and for the npm packages or npm itself; starts nothing."""
    npm = packages.versions()
    if not (packages.are_installed() or packages.npm()):
        missing = "onnxruntime-web is not installed and there is no npm; install Node.js"
        return Browser(missing=f"{missing} 20 or newer")
    if not npm:
        return Browser(missing=f"{packages.MANIFESTS[1]} lists no packages; restore it from git")
    for name in (check.executable,) if check.executable else EXECUTABLES:
        if executable := shutil.which(name):
            return Browser(executable, npm)
    if check.executable:
        missing = f"there is no program {check.executable} ([browser] executable)"
        return Browser(packages=npm, missing=missing)
    if any(_playwright_browsers().glob("chromium*-*")):
        return Browser(None, npm)
    missing = f"there is no Chromium, Chrome or Edge; install one, or run `{INSTALL_BROWSER}`"
    return Browser(packages=npm, missing=missing)


def programs(check: BrowserCheck, browser: Browser) -> tuple[BrowserProgram, ...]:
    """The browsers of this machine that `doit paths` starts."""
    names = check.executables or [
        *filter(None, [browser.executable]),
        *(next(filter(shutil.which, each), "") for each in PROGRAMS.values()),
    ]
    executables = filter(None, map(shutil.which, names))
    return tuple(BrowserProgram(engine_of(each), each) for each in executables)


@cache  # many proofs call this
def identity(executable: str | None) -> dict[str, str]:
    """Identifies the program that proves, and the npm packages that run in it.

    A browser is identified by the version that it prints and its file's shortened SHA-256. It is
    started for its version only if one of its files has changed. Playwright's own browser is
    identified by Playwright's version.
    """
    npm = {"files of npm": packages.served()}
    if executable is None:
        return {**npm, "browser": f"Playwright's {versions('playwright')['playwright']}"}
    program = str(Path(executable).resolve())
    key = f"programs of {program}"
    files = json.loads(
        FINGERPRINTS.remembered(key, [program], lambda: json.dumps(programs_of(program)))
    )
    version = FINGERPRINTS.remembered(f"version of {program}", files, lambda: _version(executable))
    return {**npm, "browser": version, "browser's file": FINGERPRINTS.sha256(program)[:12]}


def programs_of(program: str) -> list[str]:
    """A program; for a script, also the programs that it mentions, one of which it starts.

    ``/usr/bin/chromium`` starts ``$LIBDIR/$APPNAME``; Chrome's script starts ``$HERE/chrome``, in
    its own folder. A superfluous program in the list does no harm.
    """
    path = Path(program)
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return [program]
    text, values = path.read_text(errors="replace"), dict[str, str]()
    for name, value in re.findall(r"""^\s*(\w+)=["']?([\w./$+-]+)""", text, re.MULTILINE):
        values[name] = Template(value).safe_substitute(values)
    words = set(re.findall(r"[\w.+-]*/[\w./+-]+", Template(text).safe_substitute(values)))
    named = {Path(word) for word in words if word.startswith("/")}
    named |= {path.with_name(Path(word).name) for word in words if Path(word).name}
    programs = {each for each in named if each.is_file() and os.access(each, os.X_OK)}
    # snap starts a program through a link to the folder of its revision.
    snaps = {f"/snap/{each.name}/current" for each in named}
    others = {str(each.resolve()) for each in programs} | set(filter(os.path.isdir, snaps))
    return [program, *sorted(others - {program})]


def _version(executable: str) -> str:
    """The version that a browser prints; empty if it prints none."""
    try:
        done = subprocess.run(
            [executable, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(done.stdout.split())


def _playwright_browsers() -> Path:
    """The folder where ``playwright install`` puts browsers."""
    folder = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    cache = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
    return Path(folder) if folder else cache / "ms-playwright"
