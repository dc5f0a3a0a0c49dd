"""Reads the tables of a document with cattrs, and collects all mistakes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from cattrs import (
    AttributeValidationNote,
    BaseConverter,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn

from tasks.config.location import CheckpointLocation, NotAllowed, read_location
from tasks.config.rules import Rule, Switch
from tasks.console import address

T = TypeVar("T")
KeyPath = tuple[str, ...]
Hook = Callable[[Any, Any], Any]

_TABLE = "a table"


class Mistakes:
    """The mistakes in a document; messages name its top level ``top``."""

    def __init__(self, document: Mapping[str, Any], top: str = "top level") -> None:
        self.lines: list[str] = []
        self._document = document
        self._top = top
        self._paths: set[KeyPath] = set()

    def add(self, table: KeyPath, key: str, allowed: str, problem: str = "") -> None:
        """Add a mistake; ``problem`` defaults to the value."""
        where = f"[{'.'.join(table)}]" if table else self._top
        problem = problem or self._value(table, key, allowed)
        self.lines.append(f"{where} {key}: {problem}; allowed: {allowed}")
        self._paths.add((*table, key))

    def within(self, path: KeyPath) -> bool:
        """Whether a table, or a key of it, has a mistake."""
        return any(each[: len(path)] == path for each in self._paths)

    def has(self, table: KeyPath, *keys: str) -> bool:
        """Whether the document has all of these keys in a table."""
        return all(key in self._values(table) for key in keys)

    def _values(self, path: KeyPath) -> Mapping[str, Any]:
        values: Any = self._document
        for name in path:
            values = values.get(name) if isinstance(values, Mapping) else None
        return values if isinstance(values, Mapping) else {}

    def _value(self, table: KeyPath, key: str, allowed: str) -> str:
        """A value without secrets: it can contain an address, or options with a password."""
        if not self.has(table, key):
            return "missing"
        value = self._values(table)[key]
        if allowed == _TABLE:
            return f"found {type(value).__name__}"
        if isinstance(value, str):
            return f"found {address.shown(value)!r}"
        return f"found {address.without_secrets(repr(value))}"


def read_tables(kind: type[T], document: Mapping[str, Any], mistakes: Mistakes) -> T:
    """Read the document as a dataclass; a key with a mistake gets its default, or None."""
    try:
        return _converter().structure(document, kind)
    except ClassValidationError as error:
        repaired: Any = deepcopy(document)
        for table, key, optional in _note(error, (), mistakes):
            values = repaired
            for name in table:
                values = values[name]
            values.pop(key, None)
            if optional:
                values[key] = None
        return _converter().structure(repaired, kind)


def _note(
    error: ClassValidationError | IterableValidationError, table: KeyPath, mistakes: Mistakes
) -> Iterator[tuple[KeyPath, str, bool]]:
    """Add the mistakes of a table; yield the table and key of each, and whether it can be None."""
    with_keys, others = error.group_exceptions()
    for each, note in with_keys:
        key = str(note.name if isinstance(note, AttributeValidationNote) else note.index)
        if isinstance(each, ClassValidationError | IterableValidationError):
            yield from _note(each, (*table, key), mistakes)
            continue
        allowed = str(each) if isinstance(each, NotAllowed) else _allowed(note.type)
        required = " (the key is required)" if isinstance(each, KeyError) else ""
        mistakes.add(table, key, allowed + required)
        yield table, key, NoneType in _parts(note.type)
    for other in others:
        if not isinstance(other, ForbiddenExtraKeysError):
            raise other
        from difflib import get_close_matches

        keys = sorted(field.name for field in fields(other.cl))
        for key in sorted(other.extra_fields):
            near = get_close_matches(key, keys, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            mistakes.add(table, key, ", ".join(keys), f"unknown{hint}")
            yield table, key, False


def _parts(kind: Any) -> Iterator[Any]:
    """A type and its components."""
    yield kind
    for each in get_args(kind):
        yield from _parts(each)


def _allowed(kind: Any) -> str:
    """The allowed values of a key with a type, as text."""
    parts = list(_parts(kind))
    rules = [each.allowed for each in parts if isinstance(each, Rule)]
    choices = [", ".join(get_args(each)) for each in parts if get_origin(each) is Literal]
    return next(iter(rules + choices), "true or false" if bool in parts else "a value")


@cache
def _converter() -> Converter:
    """A converter that never converts silently: true is not a number, 3 is not a text."""
    converter = Converter(forbid_extra_keys=True)
    for kind, accepted in {bool: bool, int: int, float: int | float, str: str}.items():
        converter.register_structure_hook(kind, _strict(kind, accepted))
    converter.register_structure_hook(CheckpointLocation, lambda url, _: read_location(url))
    # Its rule checks it.
    converter.register_structure_hook_func(lambda kind: kind == Switch, lambda value, _: value)
    converter.register_structure_hook_func(_is(tuple), _strict(tuple, list))
    converter.register_structure_hook_factory(_is(Annotated), _with_rule)
    converter.register_structure_hook_factory(_is(Mapping), _table)
    converter.register_structure_hook_factory(is_dataclass, _table)
    return converter


def _is(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is origin


def _strict(kind: Any, accepted: Any) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            raise ValueError
        return kind(value)

    return hook


def _with_rule(kind: Any, converter: BaseConverter) -> Hook:
    value_type, *notes = get_args(kind)
    rules = [each for each in notes if isinstance(each, Rule)]
    read = converter.get_structure_hook(value_type)

    def hook(value: Any, _: Any) -> Any:
        result = read(value, value_type)
        if not all(rule.holds(result) for rule in rules):
            raise ValueError
        return result

    return hook


def _table(kind: Any, converter: BaseConverter) -> Hook:
    make = make_dict_structure_fn if is_dataclass(kind) else make_mapping_structure_fn

    @cache
    def read() -> Hook:  # takes a millisecond each; most files have few tables
        return make(kind, converter)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise NotAllowed(_TABLE)
        return read()(value, kind)

    return hook
