"""`doit prune`: lists or removes the files of models that are no longer configured."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.building.stage import Stage, Workspace, option
from tasks.config import checkpoint_record, parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.console.invocation import command
from tasks.console.sizes import amount
from tasks.records import ledger
from tasks.system.files import removal_problem


def declare() -> Stage:
    """The removal of files that no model owns, which needs ``--yes``."""
    options = [
        option("yes", "remove the listed files"),
        option("downloads", "remove fetched checkpoints too"),
    ]
    return Stage(None, prune, options=options, verbosity=2)


def prune(work: Workspace, yes: bool, downloads: bool) -> None:
    """Print, and with ``yes`` remove, the files that no configured model owns.

    :param downloads: include fetched checkpoints.
    """
    config = work.config
    orphans = ledger.orphans(config, ledger.read(config))
    for deployment in orphans:
        print(f"{deployment.model} is no longer configured for {deployment.shown}:")
        for line in ledger.remove(config, deployment, dry_run=not yes):
            print(f"  {line}")
    left: list[Leftover] | None = None
    try:
        left = leftovers(config.build, set(owners_of(config)))
    except ConfigurationError as error:
        print(f"Cannot tell which files in {config.build} are still in use: {error}")
    if left:
        print(f"Files in {config.build} that no model of {config.path} owns:")
    removed = bool(orphans)
    others = {
        os.path.normpath(config.build / name): models
        for name, models in ledger.models(config).items()
    }
    mine = others.pop(os.path.normpath(config.build / ledger.name_of(config)), set())
    waiting: set[str] = set()
    for each in left or ():
        kept = reason_to_keep(each, mine, others)
        if each.fetched and not downloads and not kept:
            kept = "fetched (--downloads removes it)"
            waiting.add(each.model)
        if kept:
            print(f"  kept {each.what} ({amount(each.sizes)}): {kept}")
            continue
        removed = True
        problems = [problem for path in each.paths if yes and (problem := removal_problem(path))]
        if problems:
            waiting.add(each.model)
            print("\n".join(f"  {problem}" for problem in problems))
            continue
        print(f"  {'removed' if yes else 'would remove'} {each.what} ({amount(each.sizes)})")
    if yes and left:
        ledger.forget_models(config, {each.model for each in left} - waiting)
    if not orphans and left == []:
        print("Nothing to prune: every built model is still configured.")
    elif removed and not yes:
        print(f"Run {command('prune --yes' + ' --downloads' * downloads)} to remove these files.")


def owners_of(config: Configuration) -> Iterator[str]:
    """The models that can have files in the build folder, from each configuration that used it.

    :raises ConfigurationError: when a configuration cannot be read.
    """
    used = {each.config for each in ledger.read(config)} | ledger.models(config).keys()
    others = [config.build / name for name in used - {ledger.name_of(config)}]
    for each in (config, *(parse.read(path) for path in others if path.is_file())):
        yield from ledger.names_of(each)


def reason_to_keep(
    each: Leftover, mine: Collection[str], others: Mapping[str, Collection[str]]
) -> str | None:
    """Why this configuration must not remove a leftover; None if it can; pure.

    :param mine: the models that this configuration has ever had.
    :param others: the models of each other configuration.
    """
    builders = [name for name, models in others.items() if each.model in models]
    if builders:
        return f"built by {', '.join(builders)}"
    if each.model not in mine:
        return "no record shows that this configuration built it; remove it by hand"
    return None


class Leftover(NamedTuple):
    """Files and folders of a model that no configuration has, and the sizes of all their files."""

    model: str
    what: str
    paths: list[Path]
    sizes: list[int]
    fetched: bool


def leftovers(build: Path, owners: Collection[str]) -> list[Leftover]:
    """Files in the build folder whose models are not among the owners."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in (build / "models").glob("*"):
        groups[path.name, str(path)] = [path]
    for path in (build / "checkpoints").glob("*"):
        name = _checkpoint_name(path)
        groups.setdefault((name, f"the checkpoint of {name}"), []).append(path)
    for path in (build / "logs").glob("*~*.log"):
        name = path.stem.split("~")[1]
        groups.setdefault((name, f"the logs of {name}"), []).append(path)
    left = []
    for (name, what), paths in sorted(groups.items(), key=lambda item: item[0][0]):
        if name not in owners:
            sizes = [file.stat().st_size for path in paths for file in _files_under(path)]
            fetched = paths[0].parent.name == "checkpoints" and not _is_made_up(build, name)
            left.append(Leftover(name, what, paths, sizes, fetched))
    return left


def _checkpoint_name(path: Path) -> str:
    """``tiny-2.1`` for ``tiny-2.1.pt``, ``tiny-2.1.json`` and the files of a download."""
    name = path.name
    for ending in (".part.json", ".part", ".json", ".pt"):
        name = name.removesuffix(ending)
    return name


def _is_made_up(build: Path, name: str) -> bool:
    """Whether a checkpoint has random weights that this build made."""
    record = checkpoint_record.read(build / "checkpoints" / f"{name}.json")
    return record is not None and record.synthetic


def _files_under(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
