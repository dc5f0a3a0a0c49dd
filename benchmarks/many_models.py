"""Estimates how long a hundred checkpoints take on 1, 10 and 100 workers, from the times of one.

    uv run python benchmarks/many_models.py [--output FILE]

Builds one checkpoint of tiny in six variants on this machine, a stage at a time (or reads the
output of such a build from FILE). Then places the stages of all checkpoints on workers as doit and
Dask do: stages that wait for nothing, in the order of the models. A worker is a machine like this
one that runs one stage at a time. The build's own process hashes the outputs, one after the other.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from project import Project  # noqa: E402

CHECKPOINTS = 100
WORKERS = (1, 10, 100)
VARIANTS = ("fp32", "fp16", "q8", "fp32.ort", "fp16.ort", "q8.ort")
MODEL = """
[models.tiny]
model_type = "sam2_hiera_tiny"
url = "synthetic:"
client = "nimbusimage"
variants = ["fp32", "fp16", "q8"]
formats = ["onnx", "ort"]
webgpu = false
"""
HERE = ("checkpoint", "packages", "deploy")  # run in the build itself, not on a worker
LINE = re.compile(r"^(?P<stage>[a-z]+)(?::tiny)?(?P<variant>:\S+)? .*\((?P<seconds>[\d.]+) s\)$")
ADDED = 0.1  # seconds that a cluster adds to a stage, by benchmarks/cluster.py


def build_one() -> str:
    """Build one checkpoint and return the printed output."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary) / "project", cheap=False)
        (project.root / "web").symlink_to(ROOT / "web")
        project.configure(MODEL)
        outcome = project.doit()
    assert outcome.status == 0, outcome.output
    return outcome.output


def times_of(output: str) -> dict[str, float]:
    """The seconds of each stage, keyed by its name without the model, in the order they ran."""
    times = {}
    for line in output.splitlines():
        match = LINE.match(line)
        if match:
            times[f"{match['stage']}{match['variant'] or ''}"] = float(match["seconds"])
    return times


def waits_for(stage: str, stages: list[str]) -> list[str]:
    """The stages of the same checkpoint that must run first."""
    kind, _, variant = stage.partition(":")
    made = f"variant:{variant}" if f"variant:{variant}" in stages else "simplify"
    needed = {
        "export": ["checkpoint"],
        "reference": ["checkpoint"],
        "simplify": ["export"],
        "verify": ["simplify"],
        "variant": [made_from(variant, stages)],
        "fidelity": [made, "reference"],
        "browser": [made, "verify", "reference"],
        "deploy": [each for each in stages if each != "deploy"],
    }
    return [each for each in needed.get(kind, []) if each in stages]


def made_from(variant: str, stages: list[str]) -> str:
    """The stage whose output a variant is converted from."""
    base = f"variant:{variant.removesuffix('.ort')}"
    return base if variant.endswith(".ort") and base in stages else "simplify"


def reckon(times: dict[str, float], workers: int, serial: float) -> float:
    """Estimate the seconds from the first stage to the last deployment.

    :param serial: seconds that the build's process spends on each finished stage.
    """
    stages = list(times)
    waiting = {
        (model, stage): set(waits_for(stage, stages))
        for model in range(CHECKPOINTS)
        for stage in stages
    }
    ready = [
        (model, stages.index(stage)) for (model, stage), before in waiting.items() if not before
    ]
    heapq.heapify(ready)
    running: list[tuple[float, int, str]] = []
    now, free, build_free = 0.0, workers, 0.0
    while ready or running:
        later = []
        while ready:
            model, number = heapq.heappop(ready)
            stage = stages[number]
            if stage in HERE:
                heapq.heappush(running, (now + times[stage], model, stage))
            elif free:
                free -= 1
                heapq.heappush(running, (now + times[stage] + ADDED, model, stage))
            else:
                later.append((model, number))
        ready = later
        heapq.heapify(ready)
        ended, model, stage = heapq.heappop(running)
        free += stage not in HERE
        build_free = max(build_free, ended) + serial
        now = max(now, build_free)
        for number, other in enumerate(stages):
            before = waiting[model, other]
            if stage in before:
                before.remove(stage)
                if not before:
                    heapq.heappush(ready, (model, number))
    return now


def bytes_a_second() -> float:
    """How many bytes a second this machine hashes."""
    data = bytes(1 << 28)
    start = time.monotonic()
    hashlib.sha256(data).digest()
    return len(data) / (time.monotonic() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, help="printed output of an earlier build")
    parser.add_argument(
        "--bytes", type=float, default=1.2e9, help="total size of a checkpoint's outputs"
    )
    options = parser.parse_args()
    output = options.output.read_text() if options.output else build_one()
    times = times_of(output)
    print("| stage | seconds |\n|---|---|")
    for kind in dict.fromkeys(each.partition(":")[0] for each in times):
        of_kind = [seconds for each, seconds in times.items() if each.partition(":")[0] == kind]
        print(f"| {kind}{f', {len(of_kind)} of them' * (len(of_kind) > 1)} | {sum(of_kind):.1f} |")
    print(f"| all | {sum(times.values()):.1f} |\n")
    serial = options.bytes / bytes_a_second() / len(times)
    print(f"The build hashes {options.bytes / 1e9:.1f} GB a checkpoint, {serial:.2f} s a stage.\n")
    print(f"| workers | {CHECKPOINTS} checkpoints | workers busy |\n|---|---|---|")
    work = CHECKPOINTS * sum(times[each] for each in times if each not in HERE)
    for workers in WORKERS:
        seconds = reckon(times, workers, serial)
        duration = f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds / 60:.0f} min"
        print(f"| {workers} | {duration} | {work / seconds / workers:.0%} |")


if __name__ == "__main__":
    main()
