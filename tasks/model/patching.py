"""Shared by the patches of encoder and decoder: rows, maps, replacing methods.

Tracing records every size read from a tensor as a computation, and exports bicubic interpolation as
an operator that breaks shape inference in onnxruntime-web: the raw encoder does not load there. The
image's shape is fixed, so the patches read sizes as plain integers. Tokens are rows of matrices,
which export as Gemm over the weights as they are stored. A value that depends only on weights is
computed once. Each patch replaces methods of one module, and `patched_encoder` and
`patched_decoder` restore them.

"Largest difference" compares a patch with the code that it replaces, relative to the largest
magnitude of the output, over all eight architectures with noise on every parameter;
`tests/test_patches.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

Forward = Callable[..., Any]

# The encoding of a map's places: rows (S, 1, C) and columns (1, S, C), to be added.
Places = tuple[Tensor, Tensor]


def replace_methods(stack: ExitStack, module: nn.Module, **methods: Forward) -> None:
    """Replace methods of a module by attributes of the instance, until the stack ends."""
    for name, method in methods.items():
        stack.enter_context(patch.object(module, name, method))


def normalize_rows(rows: Tensor, norm: LayerNorm2d) -> Tensor:
    """sam2's LayerNorm2d, applied to rows instead of a map: one operator."""
    return functional.layer_norm(rows, sizes_of(norm.weight), norm.weight, norm.bias, norm.eps)


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """A convolution's bias; every convolution in sam2 has one."""
    assert layer.bias is not None
    return layer.bias


def sizes_of(tensor: Tensor) -> list[int]:
    """A tensor's shape as plain integers, which tracing does not record."""
    return [int(size) for size in tensor.shape]


def rows_of_map(features: Tensor) -> Tensor:
    """A feature map (1, C, H, W) as rows (H * W, C)."""
    _, channels, height, width = sizes_of(features)
    return features.permute(0, 2, 3, 1).reshape(height * width, channels)


def map_of_rows(rows: Tensor, height: int, width: int) -> Tensor:
    """Rows (H * W, C) as a feature map (1, C, H, W)."""
    return rows.reshape(1, height, width, int(rows.shape[1])).permute(0, 3, 1, 2)


def separated(encoding: Tensor) -> Places:
    """An encoding of places (1, C, S, S) as two parts (S, 1, C) and (1, S, C) that add up to it.

    The first half of sam2's channels encodes the row, the second the column.
    """
    places = encoding[0].permute(1, 2, 0)
    half = places.shape[2] // 2
    rows, columns = places[:, :1].clone(), places[:1].clone()
    rows[..., half:] = 0
    columns[..., :half] = 0
    assert torch.equal(rows + columns, places)
    return rows, columns
