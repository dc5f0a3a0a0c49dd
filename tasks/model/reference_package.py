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


def require(folder: Path, requirement: str) -> None:
    """Raise a `StageError` with the command that installs a package, unless it is installed."""
    name, _, version = requirement.partition("==")
    record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    if not record.is_dir():
        raise StageError(
            f"{requirement}, which this model is compared with, is not in {folder}. It is not "
            "installed beside the other packages, for it would hide sam2. Install it with\n"
            f"  uv pip install --no-deps --target {folder} {requirement}\n"
            f"or the same command with `pip`, and run the same command again."
        )


def import_first(folder: str, requirement: str) -> None:
    """Have this process import a package from its folder, before any other of the same name.

    :raises StageError: when it is not installed.
    """
    require(Path(folder), requirement)
    module = _MODULES[requirement]
    assert module not in sys.modules, f"{module} is imported already"
    sys.path.insert(0, str(Path(folder).absolute()))
