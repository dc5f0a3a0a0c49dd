"""What must change in sam2's model for its graph to be right, undone after the export.

Tracing records every size that is read from a tensor as a computation, and bicubic
interpolation as an operator that breaks shape inference in onnxruntime-web: the raw export does
not load there. The input shape is fixed, so here sizes are plain integers and interpolation is
a product with constant matrices. Each patch replaces one method of one module; `patched`
applies them all and restores what was there.

"Largest difference" below is over all eight architectures with synthetic weights, relative to
the largest magnitude of the module's output; `tests/test_patches.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock
    from sam2.modeling.sam2_base import SAM2Base


@contextmanager
def patched(model: SAM2Base) -> Iterator[None]:
    """Apply every patch to a model; on exit it is as it was."""
    from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock

    replacements: dict[type, tuple[str, Callable[[Any], Callable[..., Any]]]] = {
        Hiera: ("_get_pos_embed", positional_embedding),
        MultiScaleAttention: ("forward", window_attention),
        MultiScaleBlock: ("forward", block),
    }
    with ExitStack() as stack:
        for module in model.modules():
            if type(module) in replacements:
                name, replacement = replacements[type(module)]
                # Attributes of the instance hide its class's methods, and patch removes them.
                stack.enter_context(patch.object(module, name, replacement(module)))
        yield


def bicubic_matrix(source: int, target: int) -> Tensor:
    """The matrix (target, source) that resamples a line as `interpolate(mode="bicubic")` does.

    Interpolating the unit vectors gives its columns, whatever convention torch follows.
    """
    unit = torch.eye(source)[None, None]
    matrix: Tensor = functional.interpolate(unit, size=(target, source), mode="bicubic")[0, 0]
    return matrix


def positional_embedding(trunk: Hiera) -> Callable[[tuple[int, int]], Tensor]:
    """Replaces ``Hiera._get_pos_embed``: no Resize, no Tile.

    Bicubic interpolation is separable: two products with constant matrices, done with the
    channels last, where they are wanted. The window part repeats by broadcasting.
    Largest difference: 6e-7.
    """

    def embed(size: tuple[int, int]) -> Tensor:
        height, width = int(size[0]), int(size[1])
        background: Tensor = trunk.pos_embed[0].permute(1, 2, 0)  # (h, w, C)
        window: Tensor = trunk.pos_embed_window[0].permute(1, 2, 0)  # (p, p, C)
        rows, columns, channels = (int(count) for count in background.shape)
        period = int(window.shape[0])
        down = bicubic_matrix(rows, height) @ background.reshape(rows, columns * channels)
        across = bicubic_matrix(columns, width) @ down.reshape(height, columns, channels)
        tiles = across.reshape(height // period, period, width // period, period, channels)
        return (tiles + window[:, None]).reshape(1, height, width, channels)

    return embed


def window_attention(attention: MultiScaleAttention) -> Callable[[Tensor], Tensor]:
    """Replaces ``MultiScaleAttention.forward``: integer sizes, and no Split of a joint product.

    Query, key and value get their own part of the weights, the query's scaled by
    1/sqrt(head size). Largest difference: 2e-6.
    """
    heads, dim = attention.num_heads, attention.dim_out
    scale = 1 / math.sqrt(dim // heads)
    weights = list(attention.qkv.weight.detach().split(dim))
    biases = list(attention.qkv.bias.detach().split(dim))
    weights[0], biases[0] = weights[0] * scale, biases[0] * scale

    def forward(x: Tensor) -> Tensor:
        batch, height, width, _ = (int(size) for size in x.shape)
        query, key, value = (
            functional.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)
        )
        if attention.q_pool:
            query = attention.q_pool(query.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            height, width = int(query.shape[1]), int(query.shape[2])
        query = query.reshape(batch, -1, heads, dim // heads).transpose(1, 2)
        key = key.reshape(batch, -1, heads, dim // heads).permute(0, 2, 3, 1)
        value = value.reshape(batch, -1, heads, dim // heads).transpose(1, 2)
        mixed = torch.softmax(query @ key, dim=-1) @ value
        mixed = mixed.transpose(1, 2).reshape(batch, height, width, dim)
        return attention.proj(mixed)  # type: ignore[no-any-return]

    return forward


def block(block: MultiScaleBlock) -> Callable[[Tensor], Tensor]:
    """Replaces ``MultiScaleBlock.forward``: window partition with integer sizes.

    Largest difference: that of the attention within.
    """
    window = block.window_size
    stride = block.q_stride[0] if block.q_stride else 1

    def forward(x: Tensor) -> Tensor:
        normed = block.norm1(x)
        shortcut = x
        if block.dim != block.dim_out:
            shortcut = block.proj(normed)
            if block.pool:
                shortcut = block.pool(shortcut.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        height, width = int(shortcut.shape[1]), int(shortcut.shape[2])
        if window:
            mixed = block.attn(_partition(normed, window))
            mixed = _unpartition(mixed, window // stride, height, width)
        else:
            mixed = block.attn(normed)
        x = shortcut + mixed
        return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]

    return forward


def _partition(x: Tensor, window: int) -> Tensor:
    """(1, H, W, C) to (windows, window, window, C), padded with zeros to whole windows."""
    _, height, width, channels = (int(size) for size in x.shape)
    below, right = -height % window, -width % window
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window, (width + right) // window
    tiles = x.reshape(rows, window, columns, window, channels).transpose(1, 2)
    return tiles.reshape(rows * columns, window, window, channels)


def _unpartition(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `_partition`: (windows, window, window, C) to (1, height, width, C)."""
    rows, columns = -(-height // window), -(-width // window)
    channels = int(windows.shape[-1])
    tiles = windows.reshape(rows, columns, window, window, channels).transpose(1, 2)
    whole = tiles.reshape(1, rows * window, columns * window, channels)
    if (rows * window, columns * window) != (height, width):
        whole = whole[:, :height, :width]
    return whole
