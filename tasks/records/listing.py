"""The files that a manifest names, from any version of the build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tasks.config.rules import PLAIN_NAME

MANIFEST = "manifest.json"
# The files of a signed deployment beside its graphs: how it was made, what it consists of, and the
# signature of all files, which the manifest cannot list.
STATEMENT, MATERIALS, SIGNATURE = "statement.intoto.json", "bom.cdx.json", "model.sig"
# Files that can lie beside deployed files: no client loads them, and neither manifest nor signature
# covers them.
BESIDE = (
    *("README.md", "LICENSE", "demo.png"),
    *(".cache", ".git", ".gitattributes", ".github", ".gitignore"),
)


class Listing(NamedTuple):
    """The model and the SHA-256 of each file, from a manifest of any schema version."""

    model: str
    hashes: dict[str, str]


def read_listing(path: Path) -> Listing | None:
    """Read the files that a manifest names; None if it is invalid or names files elsewhere."""
    try:
        content: Any = json.loads(path.read_text())
        model, version = content["model"], content["schema_version"]
        hashes = {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_ours = isinstance(model, str) and isinstance(version, int)
    return Listing(model, hashes) if is_ours and all(map(is_within_folder, hashes)) else None


def is_within_folder(name: object) -> bool:
    """Whether a deployed file can have a name: plain, or in plain folders; pure."""
    return isinstance(name, str) and all(PLAIN_NAME.fullmatch(each) for each in name.split("/"))
