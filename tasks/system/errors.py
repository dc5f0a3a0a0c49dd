"""A failure that a person can act on, and what to say of a disk that is full or not ours."""

from __future__ import annotations

import errno

# What the system says of a disk: full, over quota, a file too large; no access, read-only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = (*_FULL, errno.EACCES, errno.EROFS)


class StageError(Exception):
    """A failure a person can act on; its text is shown as it is, without a traceback."""


def is_full(error: OSError) -> bool:
    """Whether there was no room for what was to be written."""
    return error.errno in _FULL


def disk_problem(error: BaseException | None) -> str | None:
    """What to tell of an error whose cause is the disk; None of any other."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            where = f" ({error.filename})" if error.filename else ""
            return (
                f"{error.strerror}{where}. Nothing was half-written under a final name: "
                "make room or give access, and run the same command again."
            )
        error = error.__cause__ or error.__context__
    return None
