"""Measures the variants of a built model: native and on WASM, in alternating rounds.

    uv run doit config=demo/variants.toml fidelity
    uv run python benchmarks/variants.py [--rounds 3] [--threads 2] [--config demo/variants.toml]

Prints a Markdown table; times are medians over the rounds, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

from tasks import browser, configuration, fidelity, variant, verify  # noqa: E402
from tasks.configuration import Configuration, Model, Variant  # noqa: E402

FIGURES = ("native", "wasm", "wasm decoder", "sessions")


def native(encoder: str, threads: int) -> float:
    """Milliseconds of the encoder's second run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(encoder, options, ["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    inputs = {"image": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    session.run(None, inputs)
    start = time.perf_counter()
    session.run(None, inputs)
    return 1000 * (time.perf_counter() - start)


def round_of(
    config: Configuration, model: Model, chosen: Variant, threads: int, executable: str | None
) -> dict[str, float]:
    """One measurement of everything."""
    graphs = variant.graphs(config, model, chosen)
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, Any] = browser.prove(
            str(graphs.encoder),
            str(graphs.decoder),
            verify.read_report(config, model)["tensors"],
            scratch,
            executable,
            webgpu=False,
            threads=threads,
            encoder_runs=3,
            draw=fidelity.images(model),
        )
    if found["error"]:
        raise SystemExit(f"{chosen.name}: {found['error']}")
    wasm = found["providers"]["wasm"]
    return {
        "native": native(str(graphs.encoder), threads),
        "wasm": wasm["encoder"]["run_ms"],
        "wasm decoder": wasm["decoder"]["run_ms"],
        "sessions": wasm["encoder"]["create_ms"] + wasm["decoder"]["create_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", default="demo/variants.toml")
    given = parser.parse_args()
    os.chdir(ROOT)
    config = configuration.load(given.config)
    model = config.models[0]
    executable = browser.find(config.browser).executable
    measured: dict[str, list[dict[str, float]]] = {}
    with open(os.devnull, "w") as nowhere:
        out, sys.stdout = sys.stdout, nowhere  # the page's steps
        for _ in range(given.rounds):
            for each in model.variants:
                found = round_of(config, model, each, given.threads, executable)
                measured.setdefault(each.name, []).append(found)
        sys.stdout = out
    print(f"| {model.name}, {given.threads} threads | encoder, native | encoder, WASM | "
          "decoder, WASM | both sessions, WASM |\n|---|---|---|---|---|")  # fmt: skip
    for name, rounds in measured.items():
        cells = []
        for figure in FIGURES:
            value = statistics.median(each[figure] for each in rounds)
            pairs = zip(measured["fp32"], rounds, strict=True)
            ratio = statistics.median(base[figure] / each[figure] for base, each in pairs)
            cells.append(f"{value:.0f} ({ratio:.2f} ×)")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
