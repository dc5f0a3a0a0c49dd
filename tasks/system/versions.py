"""Versions of installed packages, without importing them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

NOT_INSTALLED = "not installed"


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package; nothing is imported."""
    return {package: _version(package) for package in packages}


# Packages whose import name differs from their installed name.
_INSTALLED_AS = {
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "PIL": ("pillow",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "yaml": ("PyYAML",),
}


def versions_of_imported(modules: Iterable[str]) -> dict[str, str]:
    """The installed version of each module's package, by the name of the package."""
    by_package: dict[str, str] = {}
    for module in modules:
        likely = _INSTALLED_AS.get(module, (module,))
        names = [name for name in likely if _version(name) != NOT_INSTALLED]
        by_package |= versions(*(names or _packages_with().get(module, [module])))
    return by_package


@cache
def _packages_with() -> Mapping[str, list[str]]:
    """The packages of each module; reading all metadata takes a tenth of a second."""
    return metadata.packages_distributions()


@cache  # reading a package's metadata takes a millisecond, and every stage needs it
def _version(package: str) -> str:
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
    # Parsing all of it, with the package's README, takes ten times as long.
    version = re.search(r"^Version: *(\S+)", installed.read_text("METADATA") or "", re.MULTILINE)
    return version[1] if version else installed.version
