"""`doit prune`: lists what models that are no longer configured left, or removes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.config import parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.engine import checkpoint_record, ledger
from tasks.engine.files import amount
from tasks.engine.invocation import command


def task(config: Configuration) -> dict[str, Any]:
    """doit's task; it removes only with ``--yes``."""
    options = {"yes": "remove what is listed", "downloads": "fetched checkpoints too"}
    return {
        "actions": [(prune, [config])],
        "params": [
            {"name": name, "long": name, "type": bool, "default": False, "help": text}
            for name, text in options.items()
        ],
        "uptodate": [False],
        "verbosity": 2,
    }


def prune(config: Configuration, yes: bool, downloads: bool) -> None:
    """Print, and with ``yes`` remove, the files that no configured model owns.

    :param downloads: checkpoints that were fetched are among them.
    """
    deployments = ledger.read(config)
    verb = "removed" if yes else "would remove"
    lines = []
    for deployment in ledger.orphans(config, deployments):
        lines.append(f"{deployment.model} is no longer configured for {deployment.folder}:")
        lines += [f"  {line}" for line in ledger.remove(config, deployment, dry_run=not yes)]
    built, kept = [], []
    try:
        owners = owners_of(config, {each.config for each in deployments})
    except ConfigurationError as error:
        print(f"What is left in {config.build} cannot be told: {error}")
        owners = None
    for name, paths in leftovers(config.build, owners).items() if owners is not None else ():
        fetched = [path for path in paths if is_fetched(path)]
        sizes = [each.stat().st_size for path in fetched for each in files_under(path)]
        if fetched and not downloads:
            kept.append(f"  kept what was fetched for {name}: {amount(sizes)} (--downloads)")
            paths = [path for path in paths if path not in fetched]
        for path in paths:
            sizes = [each.stat().st_size for each in files_under(path)]
            built.append(f"  {verb} {path} ({amount(sizes)})")
            if yes:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if built or kept:
        lines += [f"No model of {config.path} owns in {config.build}:", *built, *kept]
    print("\n".join(lines) or "Nothing to prune: every model that was built is still configured.")
    if (lines and not yes) and len(lines) > len(kept) + 1:
        print(f"Run {command('prune --yes' + ' --downloads' * downloads)} to remove these files.")


def owners_of(config: Configuration, others: set[str]) -> set[str]:
    """The models whose files may lie in the build folder.

    :param others: paths of configurations that were deployed from it; one that is gone owns
        nothing.
    :raises ConfigurationError: when one of them cannot be read.
    """
    configurations = [config]
    for path in others - {os.fspath(config.path)}:
        if Path(path).is_file():
            configurations.append(parse.load(path))
    return {
        name
        for each in configurations
        if each.build == config.build
        for model in each.models
        for name in (model.name, model.base)
    }


def leftovers(build: Path, owners: set[str]) -> Mapping[str, list[Path]]:
    """What lies in the build folder of models that are none of the owners, by model."""
    found: dict[str, list[Path]] = {}
    for name, path in sorted(_owned(build)):
        if name not in owners:
            found.setdefault(name, []).append(path)
    return found


def _owned(build: Path) -> Iterator[tuple[str, Path]]:
    """Each file and folder of one model, with the model's name."""
    for path in (build / "models").glob("*"):
        yield path.name, path
    for path in (build / "checkpoints").glob("*"):
        yield _checkpoint_name(path), path
    for path in (build / "logs").glob("*~*.log"):
        yield path.stem.split("~")[1], path


def _checkpoint_name(path: Path) -> str:
    """``tiny-2.1`` of ``tiny-2.1.pt``, ``tiny-2.1.json`` and what a download has beside them."""
    name = path.name
    for ending in (".part.json", ".part", ".json", ".pt"):
        name = name.removesuffix(ending)
    return name


def is_fetched(path: Path) -> bool:
    """Whether it is of a checkpoint that was not made up here."""
    if path.parent.name != "checkpoints":
        return False
    record = checkpoint_record.read(path.with_name(f"{_checkpoint_name(path)}.json"))
    return record is None or not record.synthetic


def files_under(path: Path) -> list[Path]:
    """A file itself, or all files in a folder."""
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
