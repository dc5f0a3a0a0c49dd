"""Which files a manifest names, whatever version of the build wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tasks.config.rules import PLAIN_NAME

MANIFEST = "manifest.json"
# What a signed deployment has beside its graphs: how it was made, what is in it, and the signature
# of all of it, which the manifest cannot list.
STATEMENT, MATERIALS, SIGNATURE = "statement.intoto.json", "bom.cdx.json", "model.sig"
# What may lie beside deployed files: no client loads it, and neither manifest nor signature has it.
BESIDE = (
    *("README.md", "LICENSE", "demo.png"),
    *(".cache", ".git", ".gitattributes", ".github", ".gitignore"),
)


class Listing(NamedTuple):
    """What a manifest of any schema version says: the model, and the SHA-256 of each file."""

    model: str
    hashes: dict[str, str]


def read_listing(path: Path) -> Listing | None:
    """The files that a manifest names; None when it is not one, or names a file elsewhere."""
    try:
        content: Any = json.loads(path.read_text())
        model, version = content["model"], content["schema_version"]
        hashes = {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_ours = isinstance(model, str) and isinstance(version, int)
    return Listing(model, hashes) if is_ours and all(map(is_within_folder, hashes)) else None


def is_within_folder(name: object) -> bool:
    """Whether a name can be of a deployed file: plain, or in plain folders; pure."""
    return isinstance(name, str) and all(PLAIN_NAME.fullmatch(each) for each in name.split("/"))
