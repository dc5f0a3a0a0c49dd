"""Runs graphs in a runtime. Needs only numpy and that runtime, in any version.

The arguments are the runtime's name and a JSON file of jobs. Each job has the paths of a ``graph``,
of its ``feeds``, and of the ``answers`` to write (files of numpy). Prints a JSON list of errors: an
empty text for each job that ran.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def in_onnxruntime(graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def in_openvino(graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
    import openvino

    # By default OpenVINO computes in bfloat16 if the processor can, and quantizes values before it
    # multiplies them with weights of few bits.
    options = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.compile_model(graph, "CPU", options)
    answers = compiled(feeds)
    # An output also has the names of tensors inside the graph.
    return {name: answers[each] for each in compiled.outputs for name in each.names}


def main(runtime: str, jobs: str) -> None:
    run = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}[runtime]
    errors = []
    for job in json.loads(Path(jobs).read_text()):
        try:
            with np.load(job["feeds"]) as feeds:
                np.savez(job["answers"], **run(job["graph"], dict(feeds)))
            errors.append("")
        except Exception as error:  # each runtime has its own classes
            errors.append(f"{type(error).__name__}: {error}"[:300])
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
