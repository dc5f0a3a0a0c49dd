"""`doit prune`: lists what models that are no longer configured left deployed, or removes it."""

from __future__ import annotations

from typing import Any

from tasks.config.schema import Configuration
from tasks.engine import ledger


def task(config: Configuration) -> dict[str, Any]:
    """doit's task; it removes only with ``--yes``."""
    return {
        "actions": [(prune, [config])],
        "params": [
            {
                "name": "yes",
                "long": "yes",
                "type": bool,
                "default": False,
                "help": "remove what is listed",
            }
        ],
        "uptodate": [False],
        "verbosity": 2,
    }


def prune(config: Configuration, yes: bool) -> None:
    """Print, and with ``yes`` remove, the files of deployments that nothing asks for."""
    left = ledger.orphans(config, ledger.read(config))
    for deployment in left:
        print(f"{deployment.model} is no longer configured for {deployment.folder}:")
        for line in ledger.remove(config, deployment, dry_run=not yes):
            print(f"  {line}")
    if not left:
        print("Nothing to prune: every deployed model is still configured.")
    elif not yes:
        print("Run `doit prune --yes` to remove these files.")
