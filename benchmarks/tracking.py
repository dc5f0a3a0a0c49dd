"""Measures a tracked frame: the time of each graph, and memory attention's by memories.

    uv run python benchmarks/tracking.py FOLDER … [--rounds 5]

Each FOLDER has a model's built graphs (``build/models/tiny``). The models take turns; each graph
runs in onnxruntime on the CPU in a session with two threads. Prints a Markdown table of medians in
milliseconds: the encoder runs once a frame; memory attention, decoder and memory encoder run once
for each object on a frame.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

MEMORIES = (1, 2, 4, 7)
POINTERS = 16
GRAPHS = ("encoder", "memory_attention", "tracking_decoder", "memory_encoder")


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """A session with two threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def feeds_of(session: onnxruntime.InferenceSession, memories: int) -> dict[str, Any]:
    """Random inputs; free axes have the numbers of memories and pointers, all others are 1."""
    random = np.random.default_rng(0)
    sizes = {"memories": memories, "memory_times": memories}
    sizes |= {"pointers": POINTERS, "pointer_times": POINTERS}
    feeds: dict[str, Any] = {}
    for each in session.get_inputs():
        free = sizes.get(each.name, 1)
        shape = [size if isinstance(size, int) else free for size in each.shape]
        if each.type == "tensor(int32)":
            feeds[each.name] = np.arange(memories, dtype=np.int32) % memories
        else:
            feeds[each.name] = random.standard_normal(shape).astype(np.float32)
    return feeds


def timed(session: onnxruntime.InferenceSession, feeds: dict[str, Any]) -> float:
    """The milliseconds of one run."""
    start = time.perf_counter()
    session.run(None, feeds)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: dict[tuple[str, str, int], list[float]] = {}
    sessions = {
        (folder.name, graph): session_of(folder / f"{graph}.onnx")
        for folder in options.folders
        for graph in GRAPHS
    }
    for round_number in range(options.rounds + 1):
        for (model, graph), session in sessions.items():
            for memories in MEMORIES if graph == "memory_attention" else (1,):
                milliseconds = timed(session, feeds_of(session, memories))
                if round_number:  # the first is not counted
                    times.setdefault((model, graph, memories), []).append(milliseconds)
    columns = ["encoder", *(f"attention, {n} memories" for n in MEMORIES), "decoder", "memory"]
    print("| model | " + " | ".join(columns) + " | a frame and an object, 7 memories |")
    print("|---" * (len(columns) + 2) + "|")
    for folder in options.folders:
        medians = {key[1:]: median(each) for key, each in times.items() if key[0] == folder.name}
        cells = [medians["encoder", 1], *(medians["memory_attention", n] for n in MEMORIES)]
        cells += [medians["tracking_decoder", 1], medians["memory_encoder", 1]]
        cells.append(sum(cells) - sum(medians["memory_attention", n] for n in MEMORIES[:-1]))
        print(f"| {folder.name} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
