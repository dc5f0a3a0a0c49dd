"""Measures one graph in onnxruntime on the CPU and prints JSON; start it anew for each graph.

    python measure_graph.py GRAPH RUNS

The figures are: seconds to create a session, the resident memory that this added, median seconds of
a run (after an uncounted one), the peak resident memory until then, and seconds to create the
session again, when the process already has its memory. Both memory figures leave out the memory
that the process held before (onnxruntime itself).
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def high_water() -> int:
    """The largest resident memory so far in bytes; ru_maxrss would count the parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def start_onnxruntime() -> None:
    """Run a session with one addition, so that no graph pays for starting the library."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "a"], ["b"])], "g", value[:1], value[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = onnxruntime.InferenceSession(model.SerializeToString())
    session.run(None, {"a": np.ones(1, np.float32)})


def main(path: str, runs: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    start_onnxruntime()
    before = resident()
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    created, held = time.perf_counter() - start, resident() - before
    random = np.random.default_rng(0)
    inputs = {}
    for tensor in session.get_inputs():
        # A free batch axis is 1; there are two points.
        free = [1 if axis == 0 else 2 for axis in range(len(tensor.shape))]
        shape = [
            size if isinstance(size, int) else free[axis] for axis, size in enumerate(tensor.shape)
        ]
        inputs[tensor.name] = random.standard_normal(shape).astype(np.float32)
    if "point_labels" in inputs:
        inputs["point_labels"][:] = 1
        inputs["point_coords"][:] = np.abs(inputs["point_coords"]) * 300
        inputs["has_mask_input"][:] = 0
    session.run(None, inputs)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    peak = high_water() - before
    del session
    again = []
    for _ in range(3):
        start = time.perf_counter()
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        again.append(time.perf_counter() - start)
    measured = {
        "create": created,
        "create again": statistics.median(again),
        "held": held,
        "run": statistics.median(times),
        "peak": peak,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
