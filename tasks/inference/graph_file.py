"""A graph's file: read whole or not at all, and the tensors that go in and come out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.clients.contract import GraphTensors, Tensor
from tasks.system.errors import StageError

if TYPE_CHECKING:
    import onnx

# An operator whose content is compiled for one device, and may lie in another file.
COMPILED = "EPContext"


def read_graph(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file that holds all of its graph.

    A proof names the hash of one file, and one file is deployed: weights beside it would be neither
    proven nor there.

    :raises StageError: when the file is no ONNX graph, or refers to another file.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # an OSError, or protobuf's, whose class onnx does not name
        raise StageError(f"{path}: expected an ONNX graph; {error}") from error
    others = sorted(set(_references(model)))
    if others:
        raise StageError(
            f"{path}: expected a graph in one file; it refers to {', '.join(others[:3])}"
            f"{', …' if others[3:] else ''}. Remove it and build again."
        )
    return model


def _references(message: Any) -> Iterator[str]:
    """What a graph, or a part of one, has in other files."""
    if message.DESCRIPTOR.name == "TensorProto":
        if message.data_location == message.EXTERNAL or message.external_data:
            places = {entry.key: entry.value for entry in message.external_data}
            yield f"{places.get('location', 'another file')} (for {message.name or 'a constant'})"
        return
    if message.DESCRIPTOR.name == "NodeProto" and message.op_type == COMPILED:
        yield f"what {COMPILED} node {message.name or message.output[0]} was compiled to"
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                yield from _references(part)


def tensors_of(graph: onnx.ModelProto) -> GraphTensors:
    """The inputs and outputs of a graph, in their order."""
    return GraphTensors(_tensors(graph.graph.input), _tensors(graph.graph.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
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
