"""Finds the modules of this project that a stage may run, without importing any of them.

They are read from the imports, so that no list kept by hand forgets one: the stage's module, the
modules that it names as ``"module:function"`` for a child process, and what those import in turn.
From those in `LEFT_OUT` a stage takes values, which its trace has, and no code.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.system.fingerprint import FINGERPRINTS

LEFT_OUT = (
    "tasks.system",
    "tasks.console",
    "tasks.remote",
    "tasks.running",
    "tasks.building",
    "tasks.records",
    "tasks.config",
    "tasks.clients.registry",
    "tasks.model.families.registry",
)

_SCRIPT = re.compile(r"""(?:\bfrom|\bimport|\bsrc=)\s*["']([\w.][\w./-]*\.js)["']""")


class Closure(NamedTuple):
    """The project's own files that functions may run, and the packages that these import."""

    files: frozenset[str]
    packages: frozenset[str]


@cache
def closure(functions: tuple[str, ...]) -> Closure:
    """What functions, each ``module:function``, reach through imports of the project's own."""
    waiting = [each.replace(":", ".") for each in functions]
    files, packages = set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        file = file_of(name) or file_of(name.rpartition(".")[0])
        if file is None:
            packages.add(name.partition(".")[0])
        elif file not in files and not name.startswith(LEFT_OUT):
            files.add(file)
            waiting += FINGERPRINTS.code(file).imports
    return Closure(frozenset(files), frozenset(packages - sys.stdlib_module_names))


@cache
def file_of(module: str) -> str | None:
    """The file of one of the project's modules; None for any other."""
    package, _, inside = module.partition(".")
    if inside and not _is_here(package):
        return None
    base = module.replace(".", "/")
    return next(
        (each for each in (f"{base}.py", f"{base}/__init__.py") if os.path.isfile(each)), None
    )


@cache
def _is_here(package: str) -> bool:
    return os.path.isdir(package)


@cache
def javascript(page: str) -> tuple[str, ...]:
    """A page's file and the scripts that it reaches by ``src`` or ``import``, by relative paths."""
    waiting, files = [Path(page)], set[str]()
    while waiting:
        file = Path(os.path.normpath(waiting.pop()))
        if file.as_posix() not in files and file.is_file():
            files.add(file.as_posix())
            scripts = _SCRIPT.findall(file.read_text(encoding="utf-8"))
            waiting += [file.parent / script for script in scripts]
    return tuple(sorted(files))
