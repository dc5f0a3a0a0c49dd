"""Packages that a model is compared with, each in a folder of its own and in processes of its own.

Such a package would hide another one of the same name, as PyPI's efficient-track-anything would
hide sam2. So it is never installed beside the build's own packages, and only a child process that
measures a model of its family imports it: `import_first` goes before all other imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.system.errors import StageError

# By PyPI's name and version, with the name of the module in it.
EFFICIENT_TRACK_ANYTHING = "efficient-track-anything==1.0"
_MODULES = {EFFICIENT_TRACK_ANYTHING: "sam2"}


def folder_of(build: Path, requirement: str) -> Path:
    """Where a package lies in a folder of builds."""
    return build / "references" / requirement.replace("==", "-")


def install_command(folder: Path, requirement: str) -> str:
    """The command that installs a package in its folder, without what it requires."""
    return f"uv pip install --no-deps --target {folder} {requirement}"


def require(folder: Path, requirement: str) -> None:
    """Raise a `StageError` with the command that installs a package, unless it is installed."""
    name, _, version = requirement.partition("==")
    if not (folder / f"{name.replace('-', '_')}-{version}.dist-info").is_dir():
        raise StageError(
            f"{requirement}, which this model is compared with, is not in {folder}. It cannot be "
            "installed beside the build's own packages, one of which it would hide. Run\n"
            f"  {install_command(folder, requirement)}\n"
            "(or the same with `pip install`), then the same command again."
        )


def import_first(folder: str, requirement: str) -> None:
    """Have this process import a package from its folder, before any other of the same name.

    :raises StageError: when it is not installed.
    """
    require(Path(folder), requirement)
    place, module = str(Path(folder).absolute()), _MODULES[requirement]
    if place not in sys.path:
        assert module not in sys.modules, f"{module} is imported already"
        sys.path.insert(0, place)
