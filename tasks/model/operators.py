"""Operators with their own export: each computes with torch and defines its ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVarTuple

import torch
from torch import Tensor
from torch.nn import functional

Ts = TypeVarTuple("Ts")


def exported_as(
    nodes: Callable[..., Any],
) -> Callable[[Callable[[*Ts], Tensor]], Callable[[*Ts], Tensor]]:
    """Decorates a function of tensors that is exported as other nodes.

    :param nodes: makes these nodes from torch's graph and the function's arguments in it.
    """

    def decorate(compute: Callable[[*Ts], Tensor]) -> Callable[[*Ts], Tensor]:
        class Operator(torch.autograd.Function):
            symbolic = staticmethod(nodes)

            @staticmethod
            def forward(ctx: Any, *arguments: Any) -> Tensor:
                return compute(*arguments)

        @wraps(compute)
        def operator(*arguments: *Ts) -> Tensor:
            result: Tensor = Operator.apply(*arguments)  # type: ignore[no-untyped-call]
            return result

        return operator

    return decorate


def constant(g: Any, values: Any) -> Any:
    """A Constant node of a traced graph."""
    return g.op("Constant", value_t=torch.tensor(values))


def _gemm(g: Any, rows: Any, weight: Any, bias: Any) -> Any:
    shape = rows.type().sizes()  # None where the number of rows is free
    sizes = [shape and shape[0], weight.type().sizes()[0]]
    return g.op("Gemm", rows, weight, bias, transB_i=1).setType(rows.type().with_sizes(sizes))


@exported_as(_gemm)
def linear_rows(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer over rows, (N, C) to (N, D), exported as Gemm.

    During an export only the shape of the result matters, so nothing is computed: tracing the
    model large takes seconds instead of half a minute, and memory only for its weights.
    """
    if torch.onnx.is_in_onnx_export():
        return rows.new_empty(rows.shape[0], weight.shape[0])
    return functional.linear(rows, weight, bias)


def _product(g: Any, left: Any, right: Any) -> Any:
    sizes = [*left.type().sizes()[:-1], right.type().sizes()[-1]]
    return g.op("MatMul", left, right).setType(left.type().with_sizes(sizes))


@exported_as(_product)
def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, (…, N, M) and (…, M, K); ``left`` must have all axes.

    As with `linear_rows`, nothing is computed during an export.
    """
    if torch.onnx.is_in_onnx_export():
        return left.new_empty(*left.shape[:-1], right.shape[-1])
    return left @ right


def _attention(g: Any, query: Any, key: Any, value: Any, heads: int, fused: bool) -> Any:
    if fused:
        name, options = "com.microsoft::MultiHeadAttention", {"num_heads_i": heads}
        return g.op(name, query, key, value, **options, scale_f=1.0).setType(query.type())
    batch, _, channels = query.type().sizes()

    def heads_first(part: Any, order: list[int]) -> Any:
        shape = constant(g, [batch, -1, heads, channels // heads])
        return g.op("Transpose", g.op("Reshape", part, shape), perm_i=order)

    product = g.op("MatMul", heads_first(query, [0, 2, 1, 3]), heads_first(key, [0, 2, 3, 1]))
    weights = g.op("Softmax", product, axis_i=-1)
    mixed = g.op("MatMul", weights, heads_first(value, [0, 2, 1, 3]))
    merged = g.op("Transpose", mixed, perm_i=[0, 2, 1, 3])
    return g.op("Reshape", merged, constant(g, [batch, -1, channels])).setType(query.type())


@exported_as(_attention)
def scaled_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, fused: bool) -> Tensor:
    """softmax(query keyᵀ) value for each head; (B, N, C), (B, M, C), (B, M, C) to (B, N, C).

    The query is already scaled. It is exported as plain operators, or as one
    ``com.microsoft::MultiHeadAttention``, which never holds the whole product. As with
    `linear_rows`, nothing is computed during an export.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.empty_like(query)
    size = query.shape[2] // heads
    queries, keys, values = (
        part.reshape(part.shape[0], -1, heads, size).transpose(1, 2) for part in (query, key, value)
    )
    mixed = torch.softmax(queries @ keys.transpose(2, 3), dim=-1) @ values
    return mixed.transpose(1, 2).flatten(2)


@exported_as(lambda g, tensor, shape: g.op("Reshape", tensor, constant(g, shape)))
def reshape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``Tensor.reshape`` where a 0 keeps the size of its axis, as in ONNX.

    With two free axes, torch's own reshape would compute sizes in the graph.
    """
    return tensor.reshape(
        [tensor.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    )


def _shape_of_other(g: Any, tensor: Any, other: Any) -> Any:
    return g.op("Reshape", tensor, g.op("Shape", other)).setType(other.type())


@exported_as(_shape_of_other)
def reshape_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor in the shape of another; the graph refuses tensors of different sizes."""
    return tensor.reshape(other.shape)


def _first_if_alone(g: Any, tensor: Any) -> Any:
    # From the first backwards, ending before the second last: the first if it is also the last.
    start, end, axis, step = (constant(g, [each]) for each in (0, -2, 0, -1))
    return g.op("Slice", tensor, start, end, axis, step)


@exported_as(_first_if_alone)
def first_if_alone(tensor: Tensor) -> Tensor:
    """The tensor if its first axis has length one, else an empty one; the graph needs no If."""
    return tensor[:1] if len(tensor) == 1 else tensor[:0]


def _boxes_or_none(g: Any, boxes: Any, zeros: Any) -> Any:
    # The size 4 * Q * B is 0, or at least B and at least 1; a slice never exceeds its axis.
    product = g.op("Mul", boxes, zeros)
    size = g.op("Shape", g.op("Reshape", product, constant(g, [-1])))
    end = constant(g, [2**31 - 1])
    rows = g.op("Reshape", boxes, constant(g, [-1, 1, 4]))
    missing = g.op("Slice", zeros, size, end, constant(g, [0]))
    filled = g.op("Concat", rows, missing, axis_i=0)
    return g.op("Slice", filled, constant(g, [0]), size, constant(g, [1])).setType(zeros.type())


@exported_as(_boxes_or_none)
def box_of_prompt(boxes: Tensor, zeros: Tensor) -> Tensor:
    """Boxes (1, Q, 4) as (B, 1, 4), or as (B, 0, 4) if Q is 0; zeros are (B, 1, 4)."""
    return boxes.transpose(0, 1) if boxes.shape[1] else zeros[:, :0]


@exported_as(lambda g, tensor, beside: g.op("Identity", tensor))
def constant_output(tensor: Tensor, beside: Tensor) -> Tensor:
    """A constant as an output. Tracing refuses an output that depends on no input; ``beside`` is
    one that does.
    """
    return tensor.clone()


def _crop(g: Any, masks: Any, size: Any) -> Any:
    start, axes = constant(g, [0, 0]), constant(g, [2, 3])
    return g.op("Slice", masks, start, size, axes)


@exported_as(_crop)
def cropped(masks: Tensor, size: Tensor) -> Tensor:
    """The top left of masks (1, K, M, M), of a size (height, width) computed in the graph."""
    height, width = size.tolist()
    return masks[:, :, :height, :width]


def _resize(g: Any, masks: Any, size: Any, count: int) -> Any:
    kept = constant(g, [1, count])
    empty = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
    sizes = g.op("Concat", kept, size, axis_i=0)
    options = {"mode_s": "linear", "coordinate_transformation_mode_s": "half_pixel"}
    return g.op("Resize", masks, empty, empty, sizes, **options)


@exported_as(_resize)
def resized(masks: Tensor, size: Tensor, count: int) -> Tensor:
    """``count`` masks (1, K, M, M), resized to a size (height, width) that is an input."""
    height, width = size.tolist()
    return functional.interpolate(masks, (height, width), mode="bilinear", align_corners=False)
