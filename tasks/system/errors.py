"""Errors that the user can act on, and the message for a full or unwritable disk."""

from __future__ import annotations

import errno

# The system's errors of a disk: full, over quota, a file too large; no access, read-only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = (*_FULL, errno.EACCES, errno.EROFS)


class StageError(Exception):
    """An error that the user can act on; its text is shown without a traceback."""


def is_full(error: OSError) -> bool:
    """Whether a write failed for lack of space."""
    return error.errno in _FULL


def disk_problem(error: BaseException | None) -> str | None:
    """The message for an error whose cause is the disk; None for other errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            where = f" ({error.filename})" if error.filename else ""
            return (
                f"{error.strerror}{where}. No target file is incomplete. Free some space or grant "
                "access, and run the same command again."
            )
        error = error.__cause__ or error.__context__
    return None
