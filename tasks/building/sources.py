"""Finds the modules of this project that a function can reach, without importing any of them.

A stage depends on the code that makes its output. What that is would be forgotten in a list kept
by hand, so it is read from the code: the names in a function lead to definitions and to imports,
those to further definitions, in whichever module they are. A function that is named in a string,
``"tasks.export:export_graphs"``, is reached too: that is how a stage names what its child runs.

How the build runs, how it reads its configuration, and which clients there are is `LEFT_OUT`: from
those a stage takes values, which its trace has, and no code that shapes what it makes.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tasks.system.files import write_record
from tasks.system.fingerprint import FINGERPRINTS, hashes_of, read_cache

ROOMS = ("tasks",)  # packages of the project; `truth` may add modules beside them
LEFT_OUT = (
    "tasks.system",
    "tasks.console",
    "tasks.remote",
    "tasks.running",
    "tasks.building",
    "tasks.records",
    "tasks.config.schema",
    "tasks.config.parse",
    "tasks.clients.registry",
)

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SCRIPT = re.compile(r"""(?:\bfrom|\bimport|\bsrc=)\s*["'](?:\./)?([\w-]+\.js)["']""")

# The names that each definition of a module mentions. A name is "module:path" where an import
# leads elsewhere, ":path" within the module.
Summary = dict[str, list[str]]


class Reached(NamedTuple):
    """The project's own files that a function reaches, and the packages of others."""

    files: frozenset[str]
    packages: frozenset[str]


class _Summaries:
    """What modules' definitions mention and roots reach, remembered under hashes of the texts."""

    def __init__(self) -> None:
        self._cache: Path | None = None
        self._known: dict[str, Any] = {}

    def remember_in(self, cache_file: Path) -> None:
        """Keep summaries in ``cache_file`` (JSON) as well, and take up what it holds."""
        self._cache = cache_file
        self._known = read_cache(cache_file)

    def of(self, path: str) -> Summary:
        """The summary of a module's file."""
        digest = FINGERPRINTS.sha256(path)
        entry = self._known.get(path)
        if isinstance(entry, dict) and entry.get("sha256") == digest:
            return entry["names"]  # type: ignore[no-any-return]
        package = ".".join(Path(path).parent.parts)
        names = summary(Path(path).read_text(encoding="utf-8"), package)
        self._keep(path, {"sha256": digest, "names": names})
        return names

    def reached_before(self, root: str) -> Reached | None:
        """What a root reached, while its files are what they were."""
        entry = self._known.get(f"from {root}")
        if isinstance(entry, dict) and {"files", "packages"} == entry.keys():
            files = entry["files"]
            if files == hashes_of(files, recent=True):
                return Reached(frozenset(files), frozenset(entry["packages"]))
        return None

    def keep_reached(self, root: str, reached: Reached) -> None:
        """Note what a root reached, with the hashes of the files."""
        files = hashes_of(reached.files, recent=True)
        self._keep(f"from {root}", {"files": files, "packages": sorted(reached.packages)})

    def _keep(self, key: str, entry: dict[str, Any]) -> None:
        self._known[key] = entry
        if self._cache is not None:
            with suppress(OSError):
                write_record(self._cache, json.dumps(self._known))


SUMMARIES = _Summaries()


def reached(roots: Iterable[str]) -> list[str]:
    """The files of the project's modules that functions can reach, relative to the project.

    :param roots: each ``module:function``.
    """
    return sorted(set().union(*(_reached_from(root).files for root in roots)))


def packages(roots: Iterable[str]) -> list[str]:
    """The packages of others that functions import, by the names that they import.

    What those import in turn is not among them.
    """
    return sorted(set().union(*(_reached_from(root).packages for root in roots)))


@cache
def _reached_from(root: str) -> Reached:
    found = SUMMARIES.reached_before(root)
    if found is None:
        found = _walk(root)
        SUMMARIES.keep_reached(root, found)
    return found


def _walk(root: str) -> Reached:
    waiting, seen = [root], set[str]()
    files, others = set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module, path = resolve(name)
        file = file_of(module)
        if file is None:
            others.add(module.partition(".")[0])
            continue
        if module == "tasks.clients.registry":  # a client is a value, its methods are code
            waiting.append("tasks.clients.client:Client")
        if module.startswith(LEFT_OUT):
            continue
        files.add(file)
        names = SUMMARIES.of(file)
        first = path.split(".")[0]
        # A module that is passed about as a whole, or starred, may be asked for anything in it.
        definitions = [first] if first in names else list(names) if not path else []
        for definition in definitions:
            waiting += [
                f"{module}{each}" if each.startswith(":") else each for each in names[definition]
            ]
    return Reached(frozenset(files), frozenset(others - sys.stdlib_module_names))


def resolve(name: str) -> tuple[str, str]:
    """Module and path within it of ``module:path``, whose first parts may be modules too."""
    module, _, path = name.partition(":")
    while path:
        first, _, rest = path.partition(".")
        if file_of(f"{module}.{first}") is None:
            break
        module, path = f"{module}.{first}", rest
    return module, path


@cache
def file_of(module: str) -> str | None:
    """The file of one of the project's modules; None where it has none."""
    base = Path(*module.split("."))
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if file.is_file():
            return file.as_posix()
    return None


def summary(text: str, package: str = "") -> Summary:
    """What each top-level definition of a module's text mentions; pure.

    What else a module does when it is imported, and what it imports with a star, may be behind
    any of its definitions.

    :param package: which relative imports start from.
    """
    imports: dict[str, str] = {}
    definitions: dict[str, list[ast.stmt]] = {}
    body: list[ast.stmt] = []
    for statement in _statements(ast.parse(text).body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports |= _imported(statement, package)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for target in _assigned(statement):
                definitions.setdefault(target, []).append(statement)
        else:
            body.append(statement)
    starred = {name for name in imports.values() if name.endswith(":*")}
    behind_all = {name.removesuffix("*") for name in starred}
    for each in body:
        behind_all |= _mentions(each, imports, definitions, package)
    return {
        name: sorted(
            behind_all.union(*(_mentions(each, imports, definitions, package) for each in found))
        )
        for name, found in definitions.items()
    }


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under a condition too, but none for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If):
            checked = ast.unparse(statement.test).endswith("TYPE_CHECKING")
            yield from () if checked else _statements(statement.body)
            yield from _statements(statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _statements([*statement.body, *statement.orelse, *statement.finalbody])
            for handler in statement.handlers:
                yield from _statements(handler.body)
        elif isinstance(statement, ast.With):
            yield from _statements(statement.body)
        else:
            yield statement


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """The names that an import gives, and what each stands for."""
    if isinstance(statement, ast.ImportFrom):
        module = statement.module or ""
        if statement.level:  # one dot is the package itself
            parts = package.split(".")[: len(package.split(".")) - statement.level + 1]
            module = ".".join([*parts, *filter(None, [module])])
        return {each.asname or each.name: f"{module}:{each.name}" for each in statement.names}
    found = {}
    for each in statement.names:
        first = each.name.split(".")[0]  # all that a plain `import a.b` gives a name to
        found[each.asname or first] = f"{each.name if each.asname else first}:"
    return found


def _assigned(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [
        each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
    ]


_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _mentions(
    definition: ast.stmt,
    imports: dict[str, str],
    definitions: dict[str, list[ast.stmt]],
    package: str,
) -> set[str]:
    """What a definition mentions, annotations left out: they run nowhere."""
    found: set[str] = set()

    def visit(node: ast.AST, known: dict[str, str], path: str = "") -> None:
        if isinstance(node, ast.Attribute):
            visit(node.value, known, f"{node.attr}.{path}" if path else node.attr)
            return
        if isinstance(node, _SCOPES):
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                visit(default, known)  # which is looked up outside
            own = _own_names(node)
            known = {name: at for name, at in known.items() if name not in own}
            for each in ast.walk(node):
                if isinstance(each, ast.Import | ast.ImportFrom):
                    known |= _imported(each, package)
        if isinstance(node, ast.Name) and node.id in known:
            start = known[node.id]
            found.add(f"{start}{'.' if path and not start.endswith(':') else ''}{path}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            room = node.value.split(":")[0].split(".")[0]
            if room in ROOMS and _FUNCTION.fullmatch(node.value):
                found.add(node.value)
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        visit(child, known)

    visit(definition, {**{name: f":{name}" for name in definitions}, **imports})
    return found


def _own_names(function: _Scope) -> set[str]:
    """The names that are a function's own: its parameters, and what it assigns."""
    names = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
    body = function.body
    waiting: list[ast.AST] = [*body] if isinstance(body, list) else [body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _SCOPES):
            continue  # with names of its own
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return names


@cache
def javascript(page: str) -> tuple[str, ...]:
    """A page's file and every script beside it that it reaches by ``src`` or ``import``."""
    waiting, files = [Path(page)], dict[str, None]()
    while waiting:
        file = waiting.pop()
        if file.as_posix() not in files and file.is_file():
            files[file.as_posix()] = None
            text = file.read_text(encoding="utf-8")
            waiting += [file.with_name(name) for name in _SCRIPT.findall(text)]
    return tuple(sorted(files))
