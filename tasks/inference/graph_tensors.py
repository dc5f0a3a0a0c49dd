"""The inputs and outputs of a graph's file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.clients.contract import GraphTensors, Tensor

if TYPE_CHECKING:
    import onnx


def tensors_of(graph: onnx.ModelProto) -> GraphTensors:
    """The inputs and outputs of a graph."""
    return GraphTensors(_tensors(graph.graph.input), _tensors(graph.graph.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    import onnx

    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        found.append(Tensor(value.name, dtype, shape))
    return tuple(found)
