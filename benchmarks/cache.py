"""Measures how long a full cache takes to restore nine exported and simplified models.

    uv run python benchmarks/cache.py [--folder DIR] [--rounds 3]

Builds the nine models with synthetic weights once, with a cache in a folder. Then a second build
folder restores them from the cache, in turns with a plain copy of the same bytes that checks their
hashes. Prints a Markdown line of medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.model.published import MODEL_TYPES
from tasks.system.files import copy_and_hash

CONFIGURATION = """
[build]
dir = "{build}"
deploy = "{build}/public"
[browser]
enabled = false
[cache]
url = "{cache}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to build (some 20 GB)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(measure(Path(folder), options.rounds))


def measure(folder: Path, rounds: int) -> str:
    cache = folder / "cache"
    configurations = [configure(folder, name, cache) for name in ("first", "second")]
    for configuration in configurations:
        doit(configuration, "checkpoint")
    doit(configurations[0], "simplify")
    restores, copies = [], []
    for _ in range(rounds):
        copies.append(copy(cache, folder / "copied"))
        restores.append(doit(configurations[1], "simplify"))
        doit(configurations[1], "clean", "export", "simplify")
    seconds, copied = statistics.median(restores), statistics.median(copies)
    logs = sorted(path.name for path in (folder / "second/logs").glob("*export*"))
    entries = len(list((cache / "v1/entries").rglob("*.json")))
    return (
        f"| {entries} stages of {len(MODEL_TYPES)} models from a full cache | {seconds:.1f} s | "
        f"copying the same bytes and checking their hashes: {copied:.1f} s | "
        f"{seconds / copied:.2f} × (at most 1.5 ×); exports that ran: {len(logs)} |"
    )


def configure(folder: Path, name: str, cache: Path) -> Path:
    text = CONFIGURATION.format(build=folder / name, cache=cache)
    for number, model_type in enumerate(MODEL_TYPES):
        text += f'[models.m{number}]\nmodel_type = "{model_type}"\nurl = "synthetic:"\n'
        text += f'folder = "m{number}"\n'
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def doit(configuration: Path, *words: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "doit", f"config={configuration}", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def copy(cache: Path, destination: Path) -> float:
    """Copy the files of all entries, as a second clone needs them; return the seconds."""
    start = time.perf_counter()
    for number, path in enumerate((cache / "v1/entries").rglob("*.json")):
        for output in json.loads(path.read_text())["outputs"]:
            sha256 = output["sha256"]
            target = destination / f"{number}-{sha256}"
            target.parent.mkdir(exist_ok=True)
            if copy_and_hash(cache / "v1/files" / sha256[:2] / sha256, target) != sha256:
                raise SystemExit(f"The cached file {sha256} has another SHA-256 than its name")
    seconds = time.perf_counter() - start
    shutil.rmtree(destination)
    return seconds


if __name__ == "__main__":
    main()
