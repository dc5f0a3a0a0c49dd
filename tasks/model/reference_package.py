"""Packages that models are compared with, each in its own folder and its own processes.

Such a package would hide another package of the same name: PyPI's efficient-track-anything would
hide sam2. So it is never installed beside the build's own packages, and only child processes that
measure a model of its family import it. `import_first` must run before all other imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.system.errors import StageError

# The name and version on PyPI, and the name of the package's module.
EFFICIENT_TRACK_ANYTHING = "efficient-track-anything==1.0"
_MODULES = {EFFICIENT_TRACK_ANYTHING: "sam2"}


def folder_of(build: Path, requirement: str) -> Path:
    """A package's folder in a build folder."""
    return build / "references" / requirement.replace("==", "-")


def install_command(folder: Path, requirement: str) -> str:
    """The command that installs a package in its folder, without its dependencies."""
    return f"uv pip install --no-deps --target {folder} {requirement}"


def require(folder: Path, requirement: str) -> None:
    """Raise a `StageError` with the command to install a package, unless it is installed."""
    name, _, version = requirement.partition("==")
    if not (folder / f"{name.replace('-', '_')}-{version}.dist-info").is_dir():
        raise StageError(
            f"The proof of this model needs {requirement} in {folder}, but it is not installed "
            "there. It needs its own folder, because it would hide one of the build's own "
            "packages. Run\n"
            f"  {install_command(folder, requirement)}\n"
            "(or the same with `pip install`), then run the same command again."
        )


def import_first(folder: str, requirement: str) -> None:
    """Make this process import a package from its folder, before any other of the same name.

    :raises StageError: when the package is not installed.
    """
    require(Path(folder), requirement)
    place, module = str(Path(folder).absolute()), _MODULES[requirement]
    if place not in sys.path:
        assert module not in sys.modules, f"{module} is imported already"
        sys.path.insert(0, place)
