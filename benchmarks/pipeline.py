"""Measures a no-op build, tiny's build against samexporter and onnxsim, and large's memory.

    uv run python benchmarks/pipeline.py [--runs 3] [--only no-op|tiny|large]

Prints a Markdown table. Times are medians of alternating runs in new processes. Writes only to a
temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from project import Project, install_packages  # noqa: E402

STAGES = ("checkpoint", "export", "simplify", "verify", "deploy")


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds and peak resident memory in bytes of a finished process."""

    seconds: float
    peak: int


def run(
    command: list[str],
    log_folder: Path,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
    limit: int | None = None,
) -> Run | None:
    """Run a command to its end; its output goes to ``output.log`` in ``log_folder``.

    :param limit: kill the command above this many bytes of resident memory, and return None.
    """
    start = time.monotonic()
    with (log_folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, cwd=folder, stdout=log, stderr=log
        )
    if limit is not None:
        threading.Thread(target=kill_above, args=(process.pid, limit), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)
    exit_code = process.returncode = os.waitstatus_to_exitcode(status)
    if limit is not None and exit_code == -signal.SIGKILL:
        return None
    if exit_code != 0:
        sys.exit(f"{' '.join(command)} failed:\n{(log_folder / 'output.log').read_text()[-3000:]}")
    return Run(time.monotonic() - start, usage.ru_maxrss * 1024)


def kill_above(pid: int, limit: int) -> None:
    """Kill a process as soon as its resident memory passes a limit in bytes."""
    with suppress(FileNotFoundError, ProcessLookupError, IndexError):
        while True:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            if pages * resource.getpagesize() > limit:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def no_op(folder: Path, runs: int, variants: bool) -> list[str]:
    """`doit` over the ten configured models when all are up to date, against importing doit.

    :param variants: in every precision and format, each with the proof in a (fake) browser.

    The cheap actions of the tests build the models: the same tasks and the same files, of which a
    no-op reads only the stat.
    """
    project = Project(folder / ("no-op-variants" if variants else "no-op"), cheap=True)
    models = (ROOT / "config/models.toml").read_text()
    left_out = ("sha256", "size", "clients")
    lines = [line for line in models.splitlines() if not line.startswith(left_out)]
    text = "\n".join("url = 'synthetic:'" if line.startswith("url") else line for line in lines)
    text = text.replace("default = false", "default = true").replace("folder = ", "# ")
    if variants:
        every = '[defaults]\nvariants = ["fp32", "fp16", "q8", "q4", "q4f16"]\n'
        text = text.replace("[defaults]\n", f'{every}formats = ["onnx", "ort"]\n')
        text += f'\n[browser]\nexecutable = "{sys.executable}"\n'
        install_packages(project.root)
        (project.root / "web/page").symlink_to(ROOT / "web/page")
    project.configure(text)
    built = project.build()
    assert built.status == 0, built.output
    assert len(built.ran) == (10 * 35 if variants else 10 * 6), len(built.ran)

    command = project.command()
    plain = [sys.executable, "-c", "import doit.doit_cmd"]
    os.chdir(project.root)
    pairs = [
        (run(command, folder, project.environment), run(plain, folder)) for _ in range(5 * runs)
    ]
    imported = folder / "imports.log"
    timed = [sys.executable, "-X", "importtime", *command[1:]]
    run(timed, folder, project.environment)
    (folder / "output.log").rename(imported)
    names = {line.split("|")[-1].strip() for line in imported.read_text().splitlines()}
    heavy = sorted(names & {"torch", "onnx", "onnxruntime", "httpx2", "sam2", "numpy"})
    ratio = statistics.median(ours.seconds / base.seconds for ours, base in pairs)
    ours = statistics.median(pair[0].seconds for pair in pairs)
    base = statistics.median(pair[1].seconds for pair in pairs)
    return [
        f"| no-op `doit`, ten models{', every variant' * variants} | {ours:.2f} s | "
        f"`import doit.doit_cmd` {base:.2f} s | "
        f"{ratio:.1f} × (at most 3 ×); heavy imports: {', '.join(heavy) or 'none'} |"
    ]


def make_checkpoint(folder: Path, size: str) -> tuple[Project, Path]:
    """A project that builds one model size, and its local synthetic checkpoint."""
    project = Project(folder / size, cheap=False)
    model = f'[models.{size}]\nmodel_type = "sam2_hiera_{size}"\n'
    (project.root / "made_up.toml").write_text(
        f'[build]\ndir = "made_up"\n{model}url = "synthetic:"\n'
    )
    made = project.build("config=made_up.toml", f"checkpoint:{size}")
    assert made.status == 0, made.output
    project.configure(f'{model}url = "made_up/checkpoints/{size}.pt"\n')
    return project, project.root / f"made_up/checkpoints/{size}.pt"


def tiny(folder: Path, runs: int) -> list[str]:
    """Seconds from a local checkpoint to verified, deployed files, and those of samexporter."""
    project, checkpoint = make_checkpoint(folder, "tiny")
    onnxsim = str(Path(sys.executable).parent / "onnxsim")
    ours, base = [], []
    for _ in range(runs):
        os.chdir(project.root)
        ours.append(run([*project.command(), "-a"], folder, project.environment))
        export = [sys.executable, "-m", "samexporter.export_sam2", "--checkpoint", str(checkpoint)]
        files = ["--output_encoder", "e.onnx", "--output_decoder", "d.onnx"]
        os.chdir(folder)
        steps = [run([*export, *files, "--model_type", "sam2_hiera_tiny"], folder)]
        steps += [run([onnxsim, f"{x}.onnx", f"{x}.sim.onnx"], folder) for x in "ed"]
        base.append(Run(sum(step.seconds for step in steps), max(step.peak for step in steps)))
    ours_seconds = statistics.median(each.seconds for each in ours)
    base_seconds = statistics.median(each.seconds for each in base)
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(ours, base, strict=True))
    return [
        f"| tiny, local checkpoint to verified and deployed | {ours_seconds:.1f} s | samexporter "
        f"and onnxsim, neither verified nor deployed: {base_seconds:.1f} s | {ratio:.2f} × |"
    ]


def large(folder: Path) -> list[str]:
    """Seconds and peak memory of each stage of the largest model."""
    project, _ = make_checkpoint(folder, "large")
    built = project.build()
    assert built.status == 0, built.output
    records = json.loads((project.root / "build/state/doit.json").read_text())
    rows = []
    for stage in STAGES:
        peak = records[f"{stage}:large"]["_values_:"].get("peak_memory")
        if peak:
            rows.append(f"| large, {stage} | peak {peak / 2**30:.1f} GiB | | at most 6 GiB |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("no-op", "tiny", "large"))
    arguments = parser.parse_args()
    print("| what | ours | against | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, measure in (
            ("no-op", lambda: no_op(folder, arguments.runs, variants=False)),
            ("no-op", lambda: no_op(folder, arguments.runs, variants=True)),
            ("tiny", lambda: tiny(folder, arguments.runs)),
            ("large", lambda: large(folder)),
        ):
            if arguments.only in (None, name):
                print("\n".join(measure()), flush=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
