"""Makes `uv run pytest` install the tests' packages first.

A build's environment lacks them. pytest loads this module first (`-p` in pyproject.toml), before it
captures output.
"""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "test"  # in pyproject.toml


def missing_packages() -> list[str]:
    """The requirements of the group that are not installed in exactly their versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    missing = []
    for requirement in project["dependency-groups"][GROUP]:
        name, _, wanted = requirement.partition("==")
        try:
            if version(name) != wanted:
                missing.append(requirement)
        except PackageNotFoundError:
            missing.append(requirement)
    return missing


def install_and_start_again() -> None:
    """Let uv install the group, and start pytest again with the same arguments."""
    missing = missing_packages()
    if not missing:
        return
    uv = shutil.which("uv")
    if uv is None or "SAM2_TESTS_INSTALLED" in os.environ:
        sys.exit(f"The tests need {', '.join(missing)}: run `uv sync --group {GROUP}`.")
    sys.stderr.write(f"Installing {len(missing)} packages for the tests …\n")
    sys.stderr.flush()
    os.environ["SAM2_TESTS_INSTALLED"] = "1"
    os.execv(uv, [uv, "run", "--group", GROUP, "python", "-m", "pytest", *sys.argv[1:]])


install_and_start_again()
