"""Reads a graph's file, whole or not at all, and its inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.clients.contract import GraphTensors, Tensor
from tasks.system.errors import StageError

if TYPE_CHECKING:
    import onnx

# An operator with content compiled for one device, which can be in another file.
COMPILED = "EPContext"


def read_graph(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file that holds its whole graph.

    A proof records the hash of one file, and one file is deployed: weights in another file would be
    neither proven nor deployed.

    :raises StageError: when the file is not an ONNX graph, or refers to another file.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # an OSError or protobuf's error, whose class onnx does not expose
        raise StageError(f"{path}: expected an ONNX graph; {error}") from error
    others = sorted(set(_references(model)))
    if others:
        raise StageError(
            f"{path}: expected a graph in one file; it refers to {', '.join(others[:3])}"
            f"{', …' if others[3:] else ''}. Remove it and build again."
        )
    return model


def _references(message: Any) -> Iterator[str]:
    """The content that a graph, or a part of one, has in other files."""
    if message.DESCRIPTOR.name == "TensorProto":
        if message.data_location == message.EXTERNAL or message.external_data:
            places = {entry.key: entry.value for entry in message.external_data}
            yield f"{places.get('location', 'another file')} (for {message.name or 'a constant'})"
        return
    if message.DESCRIPTOR.name == "NodeProto" and message.op_type == COMPILED:
        yield f"the compiled content of the {COMPILED} node {message.name or message.output[0]}"
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                yield from _references(part)


def check_graph(path: str) -> None:
    """Check a file with onnx, including shapes.

    :raises StageError: with onnx's message, if the graph is invalid.
    """
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(f"{path}: not a valid ONNX graph: {error}") from error


def tensors_of(path: str) -> GraphTensors:
    """The inputs and outputs of a graph's file, ONNX or ORT, in their order.

    :raises StageError: see `read_graph`.
    """
    if path.endswith(".onnx"):
        graph = read_graph(path).graph
        return GraphTensors(_onnx_tensors(graph.input), _onnx_tensors(graph.output))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return GraphTensors(_ort_tensors(session.get_inputs()), _ort_tensors(session.get_outputs()))


def _ort_tensors(values: Iterable[Any]) -> tuple[Tensor, ...]:
    dtypes = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}
    return tuple(
        Tensor(each.name, dtypes.get(each.type, each.type), tuple(each.shape)) for each in values
    )


def _onnx_tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    import onnx

    tensors = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        tensors.append(Tensor(value.name, dtype, shape))
    return tuple(tensors)
