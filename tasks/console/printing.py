"""Prints any text on any terminal: characters missing in its encoding are written in ASCII."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

_ERRORS = "in-ascii"
_IN_ASCII = {"…": "...", "→": "->", "×": "x", "–": "-"}  # in this project's messages


def allow_all_text(*streams: TextIO) -> None:
    """Replace characters that the encoding of a stream lacks, in place of raising an error."""
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    written = [_IN_ASCII.get(each) or _escaped(each) for each in lacking]
    return "".join(written), error.end


def _escaped(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()
