"""Reads `config/models.toml` into frozen objects, or lists every mistake in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tasks.config.checks import FidelityCheck, Tolerances, TrackingCheck
from tasks.config.models import Target
from tasks.config.reading import Mistakes, read_tables
from tasks.config.resolve import cache_settings, resolve
from tasks.config.schema import Configuration, ConfigurationError
from tasks.config.tables import MAKE_KEY, ModelTable, Tables, Variables
from tasks.console import address
from tasks.remote.cache_settings import CacheSettings, local_folder

# Every key that shapes a stage.
KEYS = {
    each.name
    for table in (ModelTable, Tolerances, FidelityCheck, TrackingCheck)
    for each in fields(table)
}


def load(path: str | Path, **variables: str | None) -> Configuration:
    """Read a configuration file, and check that the files named in it exist.

    :param path: the TOML file, relative to the project root (the current folder).
    :param variables: values of `Variables`, which replace keys of the file.
    :raises ConfigurationError: with a list of all mistakes.
    """
    path = Path(path)
    config = read(path, **variables)
    lines = [*_misplaced_cache(config), *_missing_files(config), *_unfit_key(config)]
    _refuse(
        path, lines or [line for target in config.targets for line in _other_image_size(target)]
    )
    return config


def read(path: Path, **variables: str | None) -> Configuration:
    """Read a configuration file, without checking the files named in it; see `load`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"found no configuration at {path} (in {Path.cwd()}); "
            "name a file with config=FILE, relative to the project root"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} is not a readable TOML file: {error}") from None
    return parse(values, path, **variables)


def parse(values: Mapping[str, Any], path: Path, **variables: str | None) -> Configuration:
    """Turn a parsed TOML document into a `Configuration`; pure, see `load`."""
    replaced = {
        name: value
        for name, value in variables.items()
        if value or (name, value) == ("cluster", "")
    }
    mistyped = Mistakes(replaced, "on the command line")
    mistakes = Mistakes(values)
    command = read_tables(Variables, replaced, mistyped) if replaced else Variables()
    config = resolve(read_tables(Tables, values, mistakes), command, path, mistakes)
    _refuse(path, [*mistyped.lines, *mistakes.lines])
    return config


def cache_of(path: Path) -> CacheSettings | None:
    """The shared cache that a configuration names, even if it has other mistakes; None without."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    values = {name: table for name, table in values.items() if name == "cache"}
    mistakes = Mistakes(values)
    settings = cache_settings(read_tables(Tables, values, mistakes).cache, None, mistakes)
    return None if mistakes.lines else settings


def check_variables(names: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuse an unknown ``name=value`` on the command line, which doit would ignore."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ConfigurationError(
            "unknown on the command line: "
            f"{', '.join(f'{address.shown(name)}=' for name in unknown)}; "
            f"allowed: {', '.join(allowed)}"
        )


def _refuse(path: Path, lines: Iterable[str]) -> None:
    text = "\n".join(f"  {line}" for line in dict.fromkeys(lines))
    if text:
        raise ConfigurationError(f"{path} has mistakes:\n{text}")


def _misplaced_cache(config: Configuration) -> list[str]:
    """The mistake of a cache inside a folder from which the build removes files."""
    folder = config.cache and local_folder(config.cache.url)
    if not folder:
        return []
    return [
        f"[cache] url: found {config.cache and config.cache.shown!r}, which is inside {what}, "
        f"{place}; allowed: a folder that no build cleans"
        for what, place in {
            "the build folder": config.build,
            **{f"the deploy folder of {each.name}": each.deploy.parent for each in config.targets},
        }.items()
        if folder.resolve().is_relative_to(place.resolve())
    ][:1]


def _missing_files(config: Configuration) -> list[str]:
    """The mistakes of configured files that do not exist."""
    lines = []
    for source in config.sources:
        table = f"[models.{source.name}]"
        named = {"config": source.architecture_files}
        if source.truth:
            named["truth"] = [source.truth.split(":")[0].replace(".", "/") + ".py"]
        lines += [
            f"{table} {key}: found {str(getattr(source, key))!r}, but there is no file {file}; "
            "allowed: a file of the project"
            for key, files in named.items()
            for file in files
            if not Path(file).is_file()
        ]
        lines += [
            f"{table} truth_data: found {pattern!r}, which no file matches; "
            "allowed: patterns of files, relative to the project"
            for pattern in source.truth_data
            if not any(path.is_file() for path in Path().glob(pattern))
        ]
    return lines


def _unfit_key(config: Configuration) -> list[str]:
    """The mistake of a file that is not a private key, as far as visible without passphrase."""
    if config.signing is None:
        return []
    path = config.signing.private_key
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"which cannot be read ({error.strerror})"
    else:
        if b"PRIVATE KEY-----" in content:
            return []
        public = b"PUBLIC KEY-----" in content
        problem = "which is a public key" if public else "which is not a key in PEM"
    return [f"[sign] key: found {str(path)!r}, {problem}; allowed: a private key; {MAKE_KEY}"]


def _other_image_size(target: Target) -> list[str]:
    """The mistake of a YAML file with an image size that the client does not support."""
    taken, file = target.client.image_sizes, target.source.config
    if not taken or file is None:
        return []
    size = re.search(r"^\s*image_size:\s*(\d+)", Path(file).read_text(encoding="utf-8"), re.M)
    if size is None or int(size[1]) in taken:
        return []
    sizes = ", ".join(map(str, taken))
    return [
        f"[models.{target.source.name}] client: found {target.client.name!r}, which sends only "
        f"images of {sizes} pixels, but {file} has image_size {size[1]}; allowed: another client, "
        "or an architecture of that size"
    ]
