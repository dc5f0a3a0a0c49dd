"""Compares encoders of other families, EdgeTAM's variants and tiny at 512 pixels with tiny.

    uv run doit config=benchmarks/smaller_encoders.toml simplify variant
    uv run python benchmarks/smaller_encoders.py [--rounds 3] [--build build/smaller_encoders]

Prints a Markdown table of sizes, and of median times as `doit speed` measures them, the models
taking turns: natively, and in Chromium on WASM.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import onnx
from graphs import MIB, static

from tasks.clients.contract import Precision
from tasks.clients.registry import CLIENTS
from tasks.commands.speed import SpeedRequest, SpeedVariant, measure
from tasks.config.checks import BrowserCheck
from tasks.config.models import Variant
from tasks.web import browsers

# The models of smaller_encoders.toml, each with its key in CLIENTS.
MODELS = {
    "tiny": "samexporter",
    "tiny512": "samexporter",
    "edgetam": "samexporter",
    "efficienttam_ti_512": "samexporter (sam2, one map)",
    "mobile_sam": "samexporter (sam)",
}
PRECISIONS: tuple[Precision, ...] = ("fp16", "q8")


def in_turn(graphs: dict[str, Path], precision: Precision, client: str) -> dict[str, Any]:
    """Measure a model's graphs once: the milliseconds on each execution provider."""
    one = SpeedVariant(
        precision,
        {graph: str(path) for graph, path in graphs.items()},
        {graph: path.name for graph, path in graphs.items()},
    )
    with tempfile.TemporaryDirectory() as scratch:
        request = SpeedRequest(
            variants={"it": one},
            client=client,
            masks=CLIENTS[client].masks[0],
            prompts=CLIENTS[client].prompts[0],
            rounds=1,
            scratch=scratch,
            executable=browsers.find(BrowserCheck()).executable,
            in_browser=True,
            webgpu=False,
        )
        times: dict[str, Any] = measure(request)["variants"]["it"]
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", type=Path, default=Path("build/smaller_encoders"))
    options = parser.parse_args()
    places = {name: (name, Variant(), client) for name, client in MODELS.items()}
    places |= {f"edgetam, {each}": ("edgetam", Variant(each), "samexporter") for each in PRECISIONS}
    files = {
        name: {
            graph: options.build / "models" / place / variant.file_name(graph)
            for graph in ("encoder", "decoder")
        }
        for name, (model, variant, client) in places.items()
        for place in [f"{model}/samexporter" if client == "samexporter (sam)" else model]
    }
    times: dict[str, dict[str, list[float]]] = {name: {} for name in files}
    for _ in range(options.rounds):
        for name, (_, variant, client) in places.items():
            for provider, figures in in_turn(files[name], variant.precision, client).items():
                times[name].setdefault(provider, []).extend(figures["encoder_run_ms"])
    print("| | encoder, MiB | both files, of fp32 | nodes | native, ms | WASM, ms |")
    print("|---|---|---|---|---|---|")
    for name, graphs in files.items():
        encoder = graphs["encoder"]
        whole = files[places[name][0]]
        share = _size(graphs) / _size(whole)
        nodes = len(onnx.load(encoder).graph.node)
        shapes = static(encoder)["shape operators"]
        cells = []
        for provider in ("native", "wasm"):
            median = statistics.median(times[name][provider])
            ratio = median / statistics.median(times["tiny"][provider])
            cells.append(f"{median:.0f} ({ratio:.3f} ×)")
        print(
            f"| {name} | {encoder.stat().st_size / MIB:.1f} | {share:.3f} | "
            f"{nodes}, {shapes:.0f} of shapes | "
            f"{cells[0]} | {cells[1]} |"
        )


def _size(graphs: dict[str, Path]) -> int:
    return sum(path.stat().st_size for path in graphs.values())


if __name__ == "__main__":
    main()
