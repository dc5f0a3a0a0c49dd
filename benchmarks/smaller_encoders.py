"""EdgeTAM, its variants, and tiny at 512 pixels against tiny, taking turns in one run.

    uv run doit config=benchmarks/smaller_encoders.toml simplify variant
    uv run python benchmarks/smaller_encoders.py [--rounds 3] [--build build/smaller_encoders]

Prints a Markdown table of sizes, and of medians as `doit speed` takes them: natively, and in
Chromium on WASM.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import onnx
from graphs import MIB, static

from tasks.clients.contract import Precision
from tasks.commands.speed import measure
from tasks.config.checks import BrowserCheck
from tasks.config.models import Variant
from tasks.web import browsers

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "q8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", type=Path, default=Path("build/smaller_encoders"))
    options = parser.parse_args()
    # `measure` reads the precision before the dot.
    places = {"fp32.tiny": ("tiny", Variant()), "fp32.tiny512": ("tiny512", Variant())}
    places |= {f"{each}.edgetam": ("edgetam", Variant(each)) for each in PRECISIONS}
    files = {
        name: {
            graph: options.build / "models" / model / variant.file_name(graph)
            for graph in ("encoder", "decoder")
        }
        for name, (model, variant) in places.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(
            variants={
                name: {graph: str(path) for graph, path in each.items()}
                for name, each in files.items()
            },
            names={
                name: {graph: path.name for graph, path in each.items()}
                for name, each in files.items()
            },
            client="samexporter",
            masks="multi",
            prompts="many",
            rounds=options.rounds,
            scratch=scratch,
            executable=browsers.find(BrowserCheck()).executable,
            in_browser=True,
            webgpu=False,
        )["variants"]
    print("| | encoder, MiB | both files, of fp32 | nodes | native, ms | WASM, ms |")
    print("|---|---|---|---|---|---|")
    for name, graphs in files.items():
        encoder = graphs["encoder"]
        whole = files[f"fp32.{name.partition('.')[2]}"]
        share = _size(graphs) / _size(whole)
        nodes = len(onnx.load(encoder).graph.node)
        shapes = static(encoder)["shape operators"]
        times = []
        for provider in ("native", "wasm"):
            times.append(statistics.median(found[name][provider]["encoder_run_ms"]))
            base = statistics.median(found["fp32.tiny"][provider]["encoder_run_ms"])
            times.append(times[-1] / base)
        print(
            f"| {name} | {encoder.stat().st_size / MIB:.1f} | {share:.3f} | "
            f"{nodes}, {shapes:.0f} of shapes | "
            f"{times[0]:.0f} ({times[1]:.3f} ×) | {times[2]:.0f} ({times[3]:.3f} ×) |"
        )


def _size(graphs: dict[str, Path]) -> int:
    return sum(path.stat().st_size for path in graphs.values())


if __name__ == "__main__":
    main()
