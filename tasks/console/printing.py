"""Lets any text be printed on any terminal: what its encoding lacks is written in ASCII."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

_ERRORS = "in-ascii"
_IN_ASCII = {"…": "...", "→": "->", "×": "x", "–": "-"}  # what our own messages have


def allow_all_text(*streams: TextIO) -> None:
    """Let what the encoding of a stream lacks be replaced, where it would raise an error."""
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
