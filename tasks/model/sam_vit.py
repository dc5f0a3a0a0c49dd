"""Patches of the image encoders of SAM 1 and MobileSAM; see `patching`.

An encoder maps an image (1, 3, 1024, 1024) to its embedding (1, 256, 64, 64). Between its first and
its last convolution the tokens are rows (H * W, C). Attention works in windows: queries and values
are (windows, heads, places, D), keys are transposed.

"Largest difference" compares with segment-anything 1.0 or MobileSAM's classes, relative to the
largest magnitude of the output, with noise on every parameter; `tests/test_sam_encoders.py`
measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional

from tasks.model import AttentionKind
from tasks.model.encoder_patches import fuse_convolutions
from tasks.model.operators import linear_rows, product
from tasks.model.patching import (
    Forward,
    map_of_rows,
    normalize_rows,
    replace_methods,
    rows_of_map,
    sizes_of,
)

# The number of queries in a block when a whole image attends to itself. All at once, their product
# with the keys of twelve heads would take 768 MiB.
BLOCK = 512

Size = tuple[int, int]  # height and width
Linear = tuple[Tensor, Tensor]  # weight and bias
# Attention of each head in each window, from queries, transposed keys and values.
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


@contextmanager
def patched_image_encoder(encoder: nn.Module, attention: AttentionKind) -> Iterator[None]:
    """Apply every patch to an encoder of SAM 1 or MobileSAM; undo them on exit.

    :param attention: "plain". ``MultiHeadAttention`` could take relative positions as further
        channels of queries and keys, but that makes their product three times as long: 0.58 s
        instead of 0.48 s for twelve heads of 4096 tokens.
    """
    assert attention == "plain", "SAM 1 has no other attention"
    forward = vit_forward if isinstance(encoder, ImageEncoderViT) else tiny_vit_forward
    with ExitStack() as stack:
        replace_methods(stack, encoder, forward=forward(encoder))
        yield


def vit_forward(encoder: ImageEncoderViT) -> Forward:
    """Replaces ``ImageEncoderViT.forward``. Largest difference: 3e-6."""
    blocks = [block_forward(block) for block in encoder.blocks]
    finish = neck_forward(encoder.neck)

    def forward(image: Tensor) -> Tensor:
        x = encoder.patch_embed(image) + encoder.pos_embed
        _, height, width, channels = sizes_of(x)
        rows = x.reshape(height * width, channels)
        for block in blocks:
            rows = block(rows, (height, width))
        return cast(Tensor, finish(rows, (height, width)))

    return forward


def block_forward(block: Block) -> Forward:
    """Replaces ``Block.forward``; takes the rows of a map and the map's size."""
    attention, mlp = block.attn, block.mlp
    weights = attention.qkv.weight.detach().unflatten(0, (3, -1))
    biases = attention.qkv.bias.detach().unflatten(0, (3, -1))
    zero = torch.zeros(weights.shape[2])
    parts = shifted(weights, biases, attention.proj, attention.scale, zero)
    window = (len(attention.rel_pos_h) + 1) // 2  # or the whole map
    mix = relative_attention(attention, window)

    def forward(rows: Tensor, size: Size) -> Tensor:
        rows = rows + attend(block.norm1(rows), parts, size, window, attention.num_heads, mix)
        return rows + perceptron(block.norm2(rows), mlp.lin1, mlp.act, mlp.lin2)

    return forward


def relative_attention(attention: Attention, side: int) -> Mix:
    """segment-anything's attention with relative positions, for windows of ``side`` squared places.

    It adds the query's products with the embeddings of its distances to all rows and all columns to
    the query's product with the keys.
    """
    down, across = (
        get_rel_pos(side, side, table).transpose(1, 2).detach()  # (place, D, other place)
        for table in (attention.rel_pos_h, attention.rel_pos_w)
    )

    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        windows, heads, places, depth = sizes_of(query)
        grid = query.reshape(windows, heads, side, side, depth)
        rows = product(grid, down).reshape(windows, heads, places, side, 1)
        columns = product(grid.transpose(2, 3), across).transpose(2, 3)
        columns = columns.reshape(windows, heads, places, 1, side)
        mixed = []
        for some, row, column in zip(*map(in_blocks, (query, rows, columns)), strict=True):
            count = int(some.shape[2])
            logits = product(some, key).reshape(windows, heads, count, side, side)
            logits = (logits + row + column).reshape(windows, heads, count, places)
            mixed.append(product(functional.softmax(logits, dim=3), value))
        return torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]

    return mix


def in_blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Values for each query (windows, heads, places, …), cut into blocks of queries."""
    return torch.split(x, BLOCK, dim=2) if x.shape[2] > BLOCK else (x,)


def tiny_vit_forward(encoder: Any) -> Forward:
    """Replaces MobileSAM's ``TinyViT.forward``, with each batch norm in the convolution before it.

    Largest difference: 3e-6.
    """
    body = copy.deepcopy(encoder).requires_grad_(False)  # constants of the graph
    fuse_convolutions(body)
    stages = [[tiny_block_forward(block) for block in layer.blocks] for layer in body.layers[1:]]
    merges = [layer.downsample for layer in body.layers]
    finish = neck_forward(body.neck)

    def forward(image: Tensor) -> Tensor:
        x = body.patch_embed(image)
        for block in body.layers[0].blocks:
            x = block(x)
        for merge, blocks in zip(merges, stages, strict=False):  # no merge follows the last stage
            x = merge.conv3(merge.act(merge.conv2(merge.act(merge.conv1(x)))))
            _, _, height, width = sizes_of(x)
            for block in blocks:
                x = block(x, (height, width))
        return cast(Tensor, finish(rows_of_map(x), (height, width)))

    return forward


def tiny_block_forward(block: Any) -> Forward:
    """Replaces MobileSAM's ``TinyViTBlock.forward``, for maps (1, C, H, W).

    MobileSAM pads with zeros before it normalizes, so the normalized padding is the norm's bias.
    """
    attention, mlp = block.attn, block.mlp
    heads = attention.num_heads
    weights = attention.qkv.weight.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2)
    biases = attention.qkv.bias.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2)
    parts = shifted(weights, biases, attention.proj, attention.scale, attention.norm.bias)
    distances = attention.attention_biases[:, attention.attention_bias_idxs]

    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return product(functional.softmax(product(query, key) + distances, dim=3), value)

    def forward(x: Tensor, size: Size) -> Tensor:
        rows = rows_of_map(x)
        rows = rows + attend(attention.norm(rows), parts, size, block.window_size, heads, mix)
        rows = rows_of_map(block.local_conv(map_of_rows(rows, *size)))
        return map_of_rows(rows + perceptron(mlp.norm(rows), mlp.fc1, mlp.act, mlp.fc2), *size)

    return forward


def neck_forward(neck: Any) -> Forward:
    """The neck of both encoders: a product and a convolution, each followed by a norm."""
    first, norm, second, last = neck
    weight, bias = first.weight.detach().flatten(1), torch.zeros(first.out_channels)

    def forward(rows: Tensor, size: Size) -> Tensor:
        rows = linear_rows(rows, weight, bias)
        x = second(map_of_rows(normalize_rows(rows, norm), *size))
        return map_of_rows(normalize_rows(rows_of_map(x), last), *size)

    return forward


def perceptron(rows: Tensor, first: nn.Linear, activation: nn.Module, second: nn.Linear) -> Tensor:
    """Two linear layers."""
    hidden = activation(linear_rows(rows, first.weight, first.bias))
    return linear_rows(hidden, second.weight, second.bias)


@torch.no_grad()
def shifted(
    weights: Tensor, biases: Tensor, out: nn.Linear, scale: float, padding: Tensor
) -> list[Linear]:
    """The linear layers of query, key, value and output, shifted so that padding has zero keys and
    values; keys are scaled.

    Subtracting the same vector from all keys leaves a query's softmax unchanged. The vector
    subtracted from all values is added back by the output's bias. So only tokens are projected, and
    no padding.

    :param weights: (3, C, C) of query, key and value; ``biases`` (3, C).
    :param padding: a padded token (C,) as attention gets it.
    """
    query, key, value, last = *weights.double(), out.weight.double()
    key = scale * key
    at_key, at_value = key @ padding.double(), value @ padding.double()
    layers = (
        (query, biases[0]),
        (key, -at_key),
        (value, -at_value),
        (last, out.bias + last @ (at_value + biases[2])),
    )
    return [(weight.float(), bias.float()) for weight, bias in layers]


def attend(
    rows: Tensor, parts: list[Linear], size: Size, window: int, heads: int, mix: Mix
) -> Tensor:
    """Attention of normalized rows within windows; ``parts`` come from `shifted`."""
    query, key, value, out = parts
    mixed = mix(
        in_windows(linear_rows(rows, *query), size, window, heads),
        in_windows(linear_rows(rows, *key), size, window, heads, transposed=True),
        in_windows(linear_rows(rows, *value), size, window, heads),
    )
    return linear_rows(out_of_windows(mixed, size, window), *out)


def in_windows(
    rows: Tensor, size: Size, window: int, heads: int, transposed: bool = False
) -> Tensor:
    """Rows (H * W, C) as (windows, heads, places, D), or (windows, heads, D, places), padded with
    zeros to whole windows."""
    (height, width), channels = size, int(rows.shape[1])
    below, right = -height % window, -width % window
    x = rows.reshape(height, width, channels)
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    down, across, depth = (height + below) // window, (width + right) // window, channels // heads
    x = x.reshape(down, window, across, window, heads, depth)
    if transposed:
        x = x.permute(0, 2, 4, 5, 1, 3)
        return x.reshape(down * across, heads, depth, window * window)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(down * across, heads, window * window, depth)


def out_of_windows(mixed: Tensor, size: Size, window: int) -> Tensor:
    """The inverse of `in_windows`: (windows, heads, places, D) to rows (H * W, C)."""
    (height, width), (_, heads, _, depth) = size, sizes_of(mixed)
    down, across = -(-height // window), -(-width // window)
    x = mixed.reshape(down, across, heads, window, window, depth).permute(0, 3, 1, 4, 2, 5)
    x = x.reshape(down * window, across * window, heads * depth)
    if (down * window, across * window) != size:
        x = x[:height, :width]
    return x.reshape(height * width, heads * depth)
