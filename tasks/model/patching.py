"""What the patches of encoder and decoder are made of: rows, maps, attention.

Tracing records every size that is read from a tensor as a computation, and bicubic
interpolation as an operator that breaks shape inference in onnxruntime-web: the raw encoder does
not load there. The image's shape is fixed, so the patches take sizes as plain integers; tokens are
rows of matrices, which export as Gemm over the weights as they are stored; and what depends on
weights alone is computed once. Each patch replaces methods of one module, and `patched_encoder` and
`patched_decoder` restore them.

"Largest difference" is to what a patch replaces, relative to the largest magnitude of the
output, over all eight architectures with noise on every parameter; `tests/test_patches.py`
measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from sam2.modeling.sam2_utils import LayerNorm2d

Forward = Callable[..., Any]

# What tells the places of a map: rows (S, 1, C) and columns (1, S, C), to be added.
Places = tuple[Tensor, Tensor]


def replace_methods(stack: ExitStack, module: nn.Module, **methods: Forward) -> None:
    """Hide methods of a module's class behind attributes of the instance, until the stack ends."""
    for name, method in methods.items():
        stack.enter_context(patch.object(module, name, method))


class _Rows(torch.autograd.Function):
    """A linear layer over rows, (N, C) to (N, D), exported as Gemm.

    During an export only the shape of its result matters, so nothing is computed: tracing
    large takes seconds instead of half a minute, and memory for its weights alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return rows.new_empty(rows.shape[0], weight.shape[0])
        return functional.linear(rows, weight, bias)

    @staticmethod
    def symbolic(g: Any, rows: Any, weight: Any, bias: Any) -> Any:
        known = rows.type().sizes()  # of rows whose number is free, nothing
        sizes = [known and known[0], weight.type().sizes()[0]]
        return g.op("Gemm", rows, weight, bias, transB_i=1).setType(rows.type().with_sizes(sizes))


def linear_rows(layer: nn.Linear, rows: Tensor) -> Tensor:
    return product_of_rows(rows, layer.weight, layer.bias)


def product_of_rows(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = _Rows.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return result


class ScaledAttention(torch.autograd.Function):
    """softmax(query keyᵀ) value for each head; (B, N, C), (B, M, C), (B, M, C) to (B, N, C).

    The query is already scaled. Exported as plain operators, or as one
    ``com.microsoft::MultiHeadAttention``, which never holds the whole product. As with `_Rows`,
    nothing is computed during an export.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, fused: bool
    ) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return torch.empty_like(query)
        size = query.shape[2] // heads
        queries, keys, values = (
            part.reshape(part.shape[0], -1, heads, size).transpose(1, 2)
            for part in (query, key, value)
        )
        mixed = torch.softmax(queries @ keys.transpose(2, 3), dim=-1) @ values
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, heads: int, fused: bool) -> Any:
        if fused:
            return g.op(
                "com.microsoft::MultiHeadAttention",
                query,
                key,
                value,
                num_heads_i=heads,
                scale_f=1.0,
            ).setType(query.type())
        batch, _, channels = query.type().sizes()

        def heads_first(part: Any, order: list[int]) -> Any:
            shape = torch.tensor([batch, -1, heads, channels // heads])
            split = g.op("Reshape", part, g.op("Constant", value_t=shape))
            return g.op("Transpose", split, perm_i=order)

        product = g.op("MatMul", heads_first(query, [0, 2, 1, 3]), heads_first(key, [0, 2, 3, 1]))
        mixed = g.op(
            "MatMul", g.op("Softmax", product, axis_i=-1), heads_first(value, [0, 2, 1, 3])
        )
        merged = g.op("Transpose", mixed, perm_i=[0, 2, 1, 3])
        shape = torch.tensor([batch, -1, channels])
        return g.op("Reshape", merged, g.op("Constant", value_t=shape)).setType(query.type())


def normalize_rows(rows: Tensor, norm: LayerNorm2d) -> Tensor:
    """What sam2's LayerNorm2d does to the channels of a map, done to rows: one operator."""
    return functional.layer_norm(rows, sizes_of(norm.weight), norm.weight, norm.bias, norm.eps)


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None  # sam2 makes none without
    return layer.bias


def sizes_of(tensor: Tensor) -> list[int]:
    """A tensor's shape as integers, which tracing does not record."""
    return [int(size) for size in tensor.shape]


def rows_of_map(features: Tensor) -> Tensor:
    """A feature map (1, C, H, W) as rows (H * W, C)."""
    _, channels, height, width = sizes_of(features)
    return features.permute(0, 2, 3, 1).reshape(height * width, channels)


def map_of_rows(rows: Tensor, height: int, width: int) -> Tensor:
    """Rows (H * W, C) as a feature map (1, C, H, W)."""
    return rows.reshape(1, height, width, int(rows.shape[1])).permute(0, 3, 1, 2)


def separated(encoding: Tensor) -> Places:
    """Two parts (S, 1, C) and (1, S, C) whose sum an encoding of places (1, C, S, S) is.

    The first half of sam2's channels tells the row, the second the column.
    """
    places = encoding[0].permute(1, 2, 0)
    half = places.shape[2] // 2
    rows, columns = places[:, :1].clone(), places[:1].clone()
    rows[..., half:] = 0
    columns[..., :half] = 0
    assert torch.equal(rows + columns, places)
    return rows, columns
