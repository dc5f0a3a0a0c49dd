"""Progress of long work: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from tasks.console.sizes import mebibytes


class Progress(NamedTuple):
    """``start(total or None, already there)``, then ``advance(bytes)``, then ``finish()``."""

    start: Callable[[int | None, int], None]
    advance: Callable[[int], None]
    finish: Callable[[], None]


SILENT = Progress(lambda total, have: None, lambda count: None, lambda: None)


def show_progress(name: str) -> Progress:
    """A bar on a terminal; elsewhere a plain line at each tenth of the file."""
    if sys.stderr.isatty():
        return _bar(name)
    return _lines(name)


def _bar(name: str) -> Progress:
    from tqdm import tqdm

    bar = tqdm(desc=name, unit="B", unit_scale=True, leave=False)

    def start(total: int | None, have: int) -> None:
        bar.reset(total)
        bar.update(have)

    def advance(count: int) -> None:
        bar.update(count)

    return Progress(start, advance, bar.clear)


def _lines(name: str) -> Progress:
    total: int | None = None
    have = printed = 0

    def start(whole: int | None, already: int) -> None:
        nonlocal total, have, printed
        total, have = whole, already
        printed = have
        size = mebibytes(total) if total else "a file of unknown size"
        resumed = f", {mebibytes(have)} of it already here" if have else ""
        sys.stderr.write(f"{name}: downloading {size}{resumed}\n")

    def advance(count: int) -> None:
        nonlocal have, printed
        have += count
        if have - printed >= (total // 10 if total else 100 << 20) and have != total:
            printed = have
            share = f" ({100 * have // total} %)" if total else ""
            sys.stderr.write(f"{name}: {mebibytes(have)}{share}\n")

    return Progress(start, advance, lambda: None)
