"""Patches of sam2's image encoder that make its graph correct and fast; see `patching`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock
from sam2.modeling.backbones.image_encoder import FpnNeck
from samexporter.export_sam2 import SAM2ImageEncoder
from torch import Tensor, nn
from torch.nn import functional

from tasks.model import AttentionKind
from tasks.model.edgetam import RepVit
from tasks.model.efficienttam import ViT, ViTDetNeck
from tasks.model.operators import linear_rows, scaled_attention
from tasks.model.patching import (
    Forward,
    bias_of,
    map_of_rows,
    normalize_rows,
    replace_methods,
    rows_of_map,
    sizes_of,
)


@contextmanager
def patched_encoder(encoder: SAM2ImageEncoder, attention: AttentionKind) -> Iterator[None]:
    """Apply every encoder patch to samexporter's module; undo them on exit."""
    trunk, neck = encoder.image_encoder.trunk, encoder.image_encoder.neck
    decoder = encoder.model.sam_mask_decoder
    with ExitStack() as stack:
        for module in trunk.modules():
            if type(module) is MultiScaleAttention:
                replace_methods(stack, module, forward=window_attention(module, attention))
            elif type(module) is MultiScaleBlock:
                replace_methods(stack, module, forward=block_forward(module))
        forward: Forward = hiera_forward
        if isinstance(trunk, RepVit | ViT):
            forward = repvit_forward if isinstance(trunk, RepVit) else vit_forward
        replace_methods(stack, trunk, forward=forward(trunk))
        if isinstance(neck, ViTDetNeck):
            levels = normed_convolutions(neck.convs[0], encoder.no_mem_embed)
        else:
            after = {0: decoder.conv_s0, 1: decoder.conv_s1}
            levels = feature_pyramid(neck, after, encoder.no_mem_embed)
        replace_methods(stack, neck, forward=levels)
        replace_methods(stack, encoder, forward=encoder_forward(encoder))
        yield


def bicubic_matrix(source: int, target: int) -> Tensor:
    """The matrix (target, source) that resamples a line as `interpolate(mode="bicubic")` does."""
    unit = torch.eye(source)[None, None]  # interpolating it gives the columns
    return functional.interpolate(unit, size=(target, source), mode="bicubic")[0, 0]


def positional_embedding(trunk: Hiera, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Replaces ``Hiera._get_pos_embed`` with its factors, (H, K) and (K, W * C).

    It needs no Resize and no Tile: bicubic interpolation is separable, and repeating a window is a
    product with a matrix of ones and zeros. A Gemm adds the product to the patches, so the
    embedding is never a separate tensor (24 MiB for tiny), neither in the file nor in memory.
    Largest difference: 3e-7.
    """
    background: Tensor = trunk.pos_embed[0].permute(1, 2, 0)  # (h, w, C)
    window: Tensor = trunk.pos_embed_window[0].permute(1, 2, 0)  # (p, p, C)
    rows, columns, channels = sizes_of(background)
    period = int(window.shape[0])
    across = bicubic_matrix(columns, width) @ background
    repeated = torch.cat([window] * (width // period), dim=1)
    sources = torch.cat([across, repeated]).reshape(rows + period, width * channels)
    repeat = torch.eye(period).repeat(height // period, 1)
    return torch.cat([bicubic_matrix(rows, height), repeat], dim=1), sources


def hiera_forward(trunk: Hiera) -> Forward:
    """Replaces ``Hiera.forward``; the sizes of every stage are integers."""

    def forward(image: Tensor) -> list[Tensor]:
        x = trunk.patch_embed(image)
        _, height, width, channels = sizes_of(x)
        down, sources = positional_embedding(trunk, height, width)
        x = torch.addmm(x.reshape(height, width * channels), down, sources)
        x = x.reshape(1, height, width, channels)
        outputs = []
        for number, block in enumerate(trunk.blocks):
            x = block(x)
            last = number == trunk.stage_ends[-1]
            if last or (trunk.return_interm_layers and number in trunk.stage_ends):
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    return forward


def block_forward(block: MultiScaleBlock) -> Forward:
    """Replaces ``MultiScaleBlock.forward``: partitions with integer sizes, runs MLPs on rows.

    Largest difference: 9e-7.
    """
    window = block.window_size
    stride = block.q_stride[0] if block.q_stride else 1

    def forward(x: Tensor) -> Tensor:
        _, height, width, channels = sizes_of(x)
        normed = block.norm1(x)
        shortcut = x.reshape(height * width, channels)
        if block.dim != block.dim_out:
            rows = normed.reshape(height * width, channels)
            shortcut = linear_rows(rows, block.proj.weight, block.proj.bias)
            if block.pool:
                pooled = block.pool(map_of_rows(shortcut, height, width))
                height, width = sizes_of(pooled)[2:]
                shortcut = rows_of_map(pooled)
        if window:
            mixed = block.attn(_partition(normed, window))
            mixed = _unpartition(mixed, window // stride, height, width)
        else:
            mixed = block.attn(normed)
        x = shortcut + mixed.reshape(height * width, block.dim_out)
        first, second = block.mlp.layers
        hidden = block.mlp.act(linear_rows(block.norm2(x), first.weight, first.bias))
        x = x + linear_rows(hidden, second.weight, second.bias)
        return x.reshape(1, height, width, block.dim_out)

    return forward


def window_attention(attention: MultiScaleAttention, kind: AttentionKind) -> Forward:
    """Replaces ``MultiScaleAttention.forward``: no Split of a joint product, integer sizes.

    Query, key and value each use their own part of the weights; the query's part is scaled by
    1/sqrt(head size). Largest difference: 9e-7.
    """
    heads, dim = attention.num_heads, attention.dim_out
    scale = torch.tensor([1 / math.sqrt(dim // heads), 1, 1])
    weights = (attention.qkv.weight.detach().unflatten(0, (3, dim)) * scale[:, None, None]).unbind()
    biases = (attention.qkv.bias.detach().unflatten(0, (3, dim)) * scale[:, None]).unbind()

    def forward(x: Tensor) -> Tensor:
        batch, height, width, channels = sizes_of(x)
        rows = x.reshape(batch * height * width, channels)
        query, key, value = (linear_rows(rows, *part) for part in zip(weights, biases, strict=True))
        if attention.q_pool:
            maps = query.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
            pooled = attention.q_pool(maps).permute(0, 2, 3, 1)
            height, width = sizes_of(pooled)[1:3]
            query = pooled
        query, key, value = (part.reshape(batch, -1, dim) for part in (query, key, value))
        mixed = scaled_attention(query, key, value, heads, kind == "fused")
        rows = mixed.reshape(batch * height * width, dim)
        rows = linear_rows(rows, attention.proj.weight, attention.proj.bias)
        return rows.reshape(batch, height, width, dim)

    return forward


def _partition(x: Tensor, window: int) -> Tensor:
    """(1, H, W, C) to (windows, window, window, C), padded with zeros to whole windows."""
    _, height, width, channels = sizes_of(x)
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


def vit_forward(trunk: ViT) -> Forward:
    """Replaces ``ViT.forward``: a Gemm adds the positional embedding, as in `hiera_forward`.

    Largest difference: 2e-6.
    """
    places = trunk.places()[0].permute(1, 2, 0).detach()  # (14, 14, C)
    sources, _, channels = sizes_of(places)

    def forward(image: Tensor) -> list[Tensor]:
        x = trunk.patch_embed(image)
        _, height, width, _ = sizes_of(x)
        across = (bicubic_matrix(sources, width) @ places).reshape(sources, width * channels)
        x = x.reshape(height, width * channels)
        x = torch.addmm(x, bicubic_matrix(sources, height), across)
        x = x.reshape(1, height, width, channels)
        for block in trunk.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]

    return forward


def normed_convolutions(layers: Any, constant: Tensor) -> Forward:
    """Replaces ``ViTDetNeck.forward``: runs the 1 × 1 convolution and the norms on rows.

    :param layers: a 1 × 1 convolution, a norm, a 3 × 3 convolution, and a norm.
    :param constant: added to the map (``no_mem_embed``).
    Largest difference: 2e-6.
    """
    first, norm, second, last = layers
    weight = first.weight.detach().flatten(1)
    no_bias = torch.zeros(len(weight))
    bias = last.bias.detach() + constant.detach().flatten()

    def forward(maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        height, width = sizes_of(maps[0])[2:]
        rows = normalize_rows(linear_rows(rows_of_map(maps[0]), weight, no_bias), norm)
        rows = rows_of_map(second(map_of_rows(rows, height, width)))
        rows = functional.layer_norm(rows, sizes_of(bias), last.weight, bias, last.eps)
        out = [map_of_rows(rows, height, width)]
        return out, out

    return forward


def repvit_forward(trunk: RepVit) -> Forward:
    """Replaces ``RepVit.forward`` with a copy in which timm's own ``fuse`` merged batch norms and
    parallel convolutions into one convolution each.

    It records no sizes, because means are over whole maps. Largest difference: 2e-6.
    """
    body = copy.deepcopy(trunk.body).requires_grad_(False)  # constants of the graph
    fuse_convolutions(body)

    def forward(image: Tensor) -> list[Tensor]:
        return list(body(image))

    return forward


def fuse_convolutions(module: nn.Module) -> None:
    """Replace every part of a module that timm can fuse."""
    for name, part in module.named_children():
        fuse = getattr(part, "fuse", None)
        if callable(fuse):
            setattr(module, name, fuse().requires_grad_(False))
        else:
            fuse_convolutions(part)


def feature_pyramid(neck: FpnNeck, after: dict[int, nn.Conv2d], constant: Tensor) -> Forward:
    """Replaces ``FpnNeck.forward`` and the convolutions that samexporter applies to its output.

    In the published models every convolution here is 1 × 1, a product over rows. Two convolutions
    in direct succession, as at the two high-resolution levels, merge into one with fewer channels,
    so 256 channels at 256 × 256 are never computed. Doubling by nearest neighbour is a broadcast.
    The positional encodings, which no output uses, are left out.

    :param after: the 1 × 1 convolution that follows each high-resolution level.
    :param constant: added to the last used level (``no_mem_embed``).
    Largest difference: 7e-7.
    """
    top = len(neck.convs) - 1
    convs: list[nn.Conv2d] = [stage.conv for stage in list(neck.convs)[::-1]]
    weights, biases = [conv.weight.detach() for conv in convs], [bias_of(conv) for conv in convs]
    from_above = {level for level in neck.fpn_top_down_levels if level < top}
    composed = {level: conv for level, conv in after.items() if level not in from_above}
    for level, conv in composed.items():
        matrix = conv.weight.detach().flatten(1).double()
        biases[level] = (matrix @ biases[level].double() + bias_of(conv)).float().detach()
        weights[level] = torch.einsum("oc,cihw->oihw", matrix, weights[level].double()).float()

    def lateral(level: int, x: Tensor) -> Tensor:
        conv, weight, bias = convs[level], weights[level], biases[level]
        if conv.kernel_size == (1, 1):
            return linear_rows(rows_of_map(x), weight.flatten(1), bias)
        return rows_of_map(functional.conv2d(x, weight, bias, conv.stride, conv.padding))

    def double(rows: Tensor, height: int, width: int, channels: int) -> Tensor:
        if neck.fpn_interp_model == "nearest":
            return rows.reshape(height // 2, 1, width // 2, 1, channels)
        enlarged = functional.interpolate(
            map_of_rows(rows, height // 2, width // 2),
            size=(height, width),
            mode=neck.fpn_interp_model,
            align_corners=False,
        )
        return rows_of_map(enlarged).reshape(height // 2, 2, width // 2, 2, channels)

    def forward(xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        out: list[Tensor] = []
        above: Tensor | None = None
        for level in range(top, -1, -1):
            height, width = sizes_of(xs[level])[2:]
            rows = lateral(level, xs[level])
            channels = int(rows.shape[1])
            if level in from_above and above is not None:
                quads = rows.reshape(height // 2, 2, width // 2, 2, channels)
                rows = (quads + double(above, height, width, channels)).reshape(-1, channels)
                rows = rows / 2 if neck.fuse_type == "avg" else rows
            above = rows
            if level in after and level not in composed:
                conv = after[level]
                rows = linear_rows(rows, conv.weight.flatten(1), bias_of(conv))
            if level == max(after) + 1:
                rows = rows + constant.reshape(1, channels)
            out.insert(0, map_of_rows(rows, height, width))
        return out, out

    return forward


def encoder_forward(encoder: SAM2ImageEncoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageEncoder.forward``: returns the levels of `feature_pyramid`
    without flattening and restoring each. It adds no difference of its own.
    """

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        levels = encoder.image_encoder(image)["backbone_fpn"]
        return tuple(levels[-encoder.model.num_feature_levels :])

    return forward
