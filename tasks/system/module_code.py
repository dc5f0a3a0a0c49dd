"""A Python module's code: a hash that comments do not change, and its imports."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

PROJECT_PACKAGES = ("tasks", "demo_training")

_FUNCTION = re.compile(rf"(?:{'|'.join(PROJECT_PACKAGES)})(?:\.\w+)*:[A-Za-z_]\w*")
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class ModuleCode(NamedTuple):
    """The SHA-256 of a module's syntax tree without docstrings, and the names that it imports.

    A name is a module or a member of one: ``tasks.model.load``, ``numpy``. A function named in a
    string, ``"tasks.export:write_graphs"``, is included, because a child process imports it.
    """

    sha256: str
    imports: list[str]


def read_module(content: bytes, package: str) -> ModuleCode:
    """Parse a module of a package; a text that is not Python is hashed unparsed."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ModuleCode(hashlib.sha256(content).hexdigest(), [])
    imports = sorted(set(_imports(tree, package)))
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ModuleCode(hashlib.sha256(repr(_plain(tree)).encode()).hexdigest(), imports)


def _plain(node: Any) -> Any:
    """A syntax tree as lists, without empty fields, which differ between versions of Python."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *((name, _plain(value)) for name, value in fields)]


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """The imports of a module, also in functions, except those only for type checkers."""
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *filter(None, [node.module])])
        yield from (f"{module}.{each.name}" for each in node.names)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str) and _FUNCTION.fullmatch(node.value):
            yield node.value.replace(":", ".")
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for each in node.orelse:
            yield from _imports(each, package)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, package)
