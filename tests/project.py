"""A copy of the project in a temporary folder, built by doit in a process of its own."""

from __future__ import annotations

import atexit
import compileall
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent


def programs(document: str, heading: str, language: str) -> list[str]:
    """The programs in a language under a heading of a document."""
    text = (ROOT / "docs" / document).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def wait_for_opening(fifo: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has opened a FIFO for writing; fail if the process ends first."""

    def open_at_its_end() -> None:
        process.wait()
        with suppress(OSError):  # nobody is waiting any more
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))

    threading.Thread(target=open_at_its_end, daemon=True).start()
    with fifo.open():
        pass
    if process.poll() is not None:
        raise AssertionError(f"the build ended early:\n{process.communicate()[0]}")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a doit command: exit status, output, and the result of each task."""

    status: int
    output: str
    results: dict[str, str]

    @property
    def ran(self) -> set[str]:
        """The subtasks that were run, successfully or not."""
        return {
            name for name, result in self.results.items() if result != "up-to-date" and ":" in name
        }


def install_packages(root: Path, version: str = "1.27.0") -> None:
    """Make onnxruntime-web look required and installed in a copy of the project."""
    packages = {"": {}, "node_modules/onnxruntime-web": {"version": version}}
    text = json.dumps({"packages": packages})
    runtime = root / "web/node_modules/onnxruntime-web"
    runtime.mkdir(parents=True, exist_ok=True)
    (runtime / "package.json").write_text(json.dumps({"version": version}))
    (root / "web/package.json").write_text("{}")
    (root / "web/package-lock.json").write_text(text)
    (root / "web/node_modules/.package-lock.json").write_text(text)


@cache
def template(cheap: bool) -> Path:
    """The project's files and compiled modules, which stay valid in copies that keep file times."""
    folder = Path(tempfile.mkdtemp(prefix="sam2-onnx-build-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy2(ROOT / "dodo.py", folder)
    for name in ("tasks", "demo", "demo_training"):
        ignored = shutil.ignore_patterns("__pyc*", *(["*.pt"] if cheap else []))
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    if cheap:
        shutil.copy2(ROOT / "tests/fakes/cheap_dodo.py", folder)
    compileall.compile_dir(folder, quiet=1)
    return folder


class Project:
    def __init__(self, root: Path, cheap: bool) -> None:
        self.root = root
        shutil.copytree(template(cheap), root)
        self.dodo = "cheap_dodo.py" if cheap else "dodo.py"
        self.environment = {**os.environ, "PYTHONPATH": str(root)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.results_file = root.parent / "results.json"

    def copy_to(self, root: Path) -> Self:
        """The same project, with what it has built, elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        other = copy.copy(self)
        other.root = root
        other.environment = {**self.environment, "PYTHONPATH": str(root)}
        other.results_file = root.parent / "results.json"
        return other

    def configure(self, text: str) -> None:
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config/models.toml").write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "doit", "-f", self.dodo, *arguments]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a build and do not wait for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background jobs ignore SIGINT, and so would everything they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )

    def doit(self, *arguments: str, **environment: str) -> Outcome:
        """Run a doit command as a person would; the default reporter prints."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, {})

    def build(self, *arguments: str, **environment: str) -> Outcome:
        """Run `doit run` and read from doit's JSON report what ran and what was up to date."""
        self.results_file.unlink(missing_ok=True)
        report = ("-r", "json", "-o", str(self.results_file))
        outcome = self.doit("run", *report, *arguments, **environment)
        text = self.results_file.read_text() if self.results_file.exists() else ""
        tasks = json.loads(text)["tasks"] if text else []
        results = {task["name"]: task["result"] for task in tasks}
        errors = "\n".join(task["error"] for task in tasks if task["error"])
        return Outcome(outcome.status, outcome.output + errors, results)

    def pretend_installed(self, package: str, version: str) -> None:
        """Make importlib.metadata find another version of a package, as after an upgrade."""
        for earlier in self.root.glob(f"{package}-*.dist-info"):
            shutil.rmtree(earlier)
        info = self.root / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
