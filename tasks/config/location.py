"""The source of a checkpoint, read from the address in a configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tasks.console import address

# The names of weights from transformers' `save_pretrained`.
WEIGHTS = "model.safetensors"

ESCAPES = (
    "in a user or a password, write / as %2F, ? as %3F, # as %23 and @ as %40; after the host, "
    "write @ as %40"
)
_RULE = (
    "an https:, http: or file: address, a path relative to the project, "
    "hf:OWNER/NAME[@REVISION][/FILE], or synthetic:?seed=N"
)
# A revision has no slash, except for a pull request (refs/pr/1) or a conversion.
_HUB = (
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/[^/\s]+/[^/\s]+|(?!refs/)[^/\s]+))?"
    r"(/(?P<file>\S*[^/\s]))?"
)


@dataclass(frozen=True)
class CheckpointLocation:
    """The source of a checkpoint.

    ``path`` is set for ``kind="file"`` (relative to the project unless absolute; also a folder
    from transformers' ``save_pretrained``), ``seed`` for ``kind="synthetic"``, and ``file``,
    ``repo`` and ``revision`` for ``kind="hub"``. ``url`` is only for requests, as it can contain a
    password; ``shown`` is for everything else.
    """

    kind: Literal["http", "file", "synthetic", "hub"]
    url: str = field(repr=False)
    path: Path | None = None
    seed: int = 0
    repo: str = ""
    revision: str = "main"
    file: str = WEIGHTS

    @property
    def shown(self) -> str:
        """The address without secrets; see `tasks.console.address`."""
        return address.shown(self.url)

    @property
    def local_files(self) -> list[Path]:
        """The existing files on this machine that the checkpoint is made from."""
        if self.path is None:
            return []
        inside = [self.path / name for name in (WEIGHTS, "config.json")]
        return [each for each in (self.path, *inside) if each.is_file()]


class NotAllowed(ValueError):
    """Refuses a value; its text names the allowed values."""


def read_location(url: Any) -> CheckpointLocation:
    """Read an address; raises `NotAllowed` with the allowed forms."""
    if not isinstance(url, str) or not url.strip():
        raise NotAllowed(_RULE)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text can contain the password
        raise NotAllowed(f"{_RULE}; {ESCAPES}") from None
    if address.is_ambiguous(url):
        raise NotAllowed(f"{_RULE}; {ESCAPES}")
    if parts.scheme == "hf" and address.shown(url) != url:
        raise NotAllowed(
            "hf:OWNER/NAME[@REVISION][/FILE] without user, password, ? and #; set a token in "
            "HF_TOKEN"
        )
    if parts.scheme in ("http", "https") and parts.netloc:
        return CheckpointLocation("http", url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return CheckpointLocation("file", url, path=_expanded(unquote(parts.path)))
    if parts.scheme == "hf" and (match := re.fullmatch(_HUB, url)):
        repo, revision, file = match.group("repo", "revision", "file")
        return CheckpointLocation(
            "hub", url, repo=repo, revision=revision or "main", file=file or WEIGHTS
        )
    if parts.scheme == "synthetic" and not parts.netloc and not parts.path:
        options = parse_qs(parts.query, keep_blank_values=True)
        seed = options.pop("seed", ["0"])[-1]
        if not options and seed.isdecimal():
            return CheckpointLocation("synthetic", url, seed=int(seed))
    if not parts.scheme and parts.path:
        return CheckpointLocation("file", url, path=_expanded(url))
    raise NotAllowed(_RULE)


def _expanded(path: str) -> Path:
    """A path with ``~`` replaced by the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise NotAllowed(f"a path from an existing home folder; {_RULE}") from error
