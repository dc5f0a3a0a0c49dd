"""How far a child process is, for its log."""

from __future__ import annotations


def show_masks(what: str, done: int, total: int | None = None) -> None:
    """Print how many masks are done; PyTorch takes minutes at 1024 pixels."""
    print(f"{what}: {done}{f' of {total}' if total else ''} masks", flush=True)
