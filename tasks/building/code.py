"""Finds the modules of this project that a stage can run, without importing any of them.

They are found from imports, because a list kept by hand could miss one: the stage's module, the
modules that it names as ``"module:function"`` for a child process, and their imports in turn. From
the modules in `LEFT_OUT` a stage takes only values, which its trace has, and no code.
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
    """The project's files that functions can run, and the packages that these files import."""

    files: frozenset[str]
    packages: frozenset[str]


@cache
def closure(functions: tuple[str, ...]) -> Closure:
    """The closure of functions, each ``module:function``, over imports within the project."""
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
    """The file of one of the project's modules; None for other modules."""
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
    """A page's file and the scripts that it loads by ``src`` or ``import``, by relative paths."""
    waiting, files = [Path(page)], set[str]()
    while waiting:
        file = Path(os.path.normpath(waiting.pop()))
        if file.as_posix() not in files and file.is_file():
            files.add(file.as_posix())
            scripts = _SCRIPT.findall(file.read_text(encoding="utf-8"))
            waiting += [file.parent / script for script in scripts]
    return tuple(sorted(files))
