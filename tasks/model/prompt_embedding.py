"""Patches of sam2's prompt encoder: the embeddings of points, boxes and masks.

B is the number of prompts, N the number of a prompt's points, P the number of the image's places
and C the number of channels. Coordinates are in pixels of the model's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sam2.modeling.sam2_utils import LayerNorm2d
from samexporter.export_sam2 import SAM2ImageDecoder
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.operators import box_of_prompt, reshape, reshape_like
from tasks.model.patching import Forward, bias_of, normalize_rows


def position_embedding(decoder: SAM2ImageDecoder, unused: int = 0) -> Callable[[Tensor], Tensor]:
    """Replaces ``PositionEmbeddingRandom.forward_with_coords``: (..., 2) to (..., C).

    Coordinates refer to the middle of a pixel.

    :param unused: the number of ignored columns after the first two.
    """
    random = decoder.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    size = decoder.img_size
    frequencies = functional.pad(random.detach() * (4 * math.pi / size), (0, 0, 0, unused))

    def embed(coords: Tensor) -> Tensor:
        angles = (coords + (0.5 - size / 2)) @ frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    return embed


def label_table(decoder: SAM2ImageDecoder) -> Tensor:
    """The embeddings of the labels from 0 up, (labels, C)."""
    return torch.cat([each.weight for each in decoder.prompt_encoder.point_embeddings]).detach()


def point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_points``, without the padding point.

    (B, N, 2) and (B, N) to (B, N, C). The label's embedding is a product with its one-hot code, so
    a label above 3 adds nothing, as before. `PaddingBias` hides points with a label below 0.
    Largest difference: 6e-7.
    """
    table = label_table(decoder)
    codes = torch.arange(len(table), dtype=torch.float32)
    position = position_embedding(decoder, unused=1)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        # Concatenating and splitting again makes the graph refuse tensors of different lengths.
        points = torch.cat([coords, labels[:, :, None]], dim=2)
        return position(points) + (points[:, :, 2:] == codes).float() @ table

    return embed


def padded_point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces ``PromptEncoder._embed_points``, except for the point that it adds.

    (1, N, 2) and (1, N) to (1, N, C). The label's embedding is a product with its one-hot code. A
    point with label -1 gets only this embedding, regardless of its coordinates.
    """
    padding = decoder.prompt_encoder.not_a_point_embed.weight.detach()
    table = torch.cat([padding, label_table(decoder)])
    codes = torch.arange(-1, len(table) - 1, dtype=torch.float32)
    position = position_embedding(decoder)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        labels = labels[:, :, None]
        return position(coords) * (labels >= 0).float() + (labels == codes).float() @ table

    return embed


def integer_point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Like `point_embedding`, with integer labels: (1, B, N, 2), (1, B, N) to (B, N, C).

    Labels choose rows of tables, because onnxruntime-web converts 64-bit integers only on the CPU;
    a negative label counts from the end, as in Gather. A label of -10 adds nothing, as in
    transformers, which pads with it. Without points, ``coords`` can be (1, 1, 0, 2).
    Largest difference: 6e-7.
    """
    labelled = label_table(decoder)
    rows = len(labelled) + 10
    table = torch.zeros(rows, labelled.shape[1])
    table[: len(labelled)] = labelled
    table[-1] = decoder.prompt_encoder.not_a_point_embed.weight.detach()[0]
    has_place = torch.zeros(rows, 2)
    has_place[: len(labelled)] = 1
    position = position_embedding(decoder)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        # Concatenating and splitting again makes the graph refuse different numbers of points.
        placed = torch.cat([has_place[labels], coords[:, :1]], dim=1)[:, :-1]
        coords = reshape_like(coords, placed)
        return (position(coords) * placed[:, :, :, :1] + table[labels]).squeeze(0)

    return embed


def box_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces ``PromptEncoder._embed_boxes``: (1, Q, 4) to (B, 2, C), or (B, 0, C) if Q is 0.

    B comes from the zeros (B, 1, C); the graph refuses any other number of boxes.
    Largest difference: 6e-7.
    """
    corners = label_table(decoder)[2:4]
    channels = int(corners.shape[1])
    position = position_embedding(decoder)

    def embed(boxes: Tensor, zeros: Tensor) -> Tensor:
        own = box_of_prompt(boxes, zeros[:, :, :4])
        places = position(reshape(own, (0, -1, 2)))
        # One row for each box, so that a missing box also gets no labels.
        labelled = reshape(places, (0, -1, 2 * channels)) + corners.flatten()
        return reshape(labelled, (0, -1, channels))

    return embed


def mask_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_masks``: rows, (B, P, C).

    A convolution with kernel and stride 2 is a product over the rows of 2 × 2 blocks, and a
    normalization over the last axis is one LayerNormalization. The last convolution, without its
    own bias, applies to rows that are zero if there is no mask.
    Largest difference: 3e-6.
    """
    conv1, norm1, act, conv2, norm2, _, conv3 = decoder.prompt_encoder.mask_downscaling
    no_mask = decoder.prompt_encoder.no_mask_embed.weight.detach()[0]
    offset = bias_of(conv3).detach() - no_mask
    weight3 = conv3.weight.detach().flatten(1)

    def halve(rows: Tensor, side: int, conv: nn.Conv2d, norm: LayerNorm2d) -> Tensor:
        """(B * side * side, C) to (B * side / 2 * side / 2, D)."""
        channels = int(rows.shape[-1])
        blocks = rows.reshape(-1, 2, side // 2, 2, channels).permute(0, 2, 1, 3, 4)
        weight = conv.weight.detach().permute(0, 2, 3, 1).flatten(1)
        rows = functional.linear(blocks.reshape(-1, 4 * channels), weight, conv.bias)
        return act(normalize_rows(rows, norm))  # type: ignore[no-any-return]

    def embed(mask: Tensor, has_mask: Tensor) -> Tensor:
        side = int(mask.shape[-1])
        rows = halve(mask.reshape(-1, 1), side, conv1, norm1)
        rows = halve(rows, side // 2, conv2, norm2)
        rows = functional.linear(has_mask * rows, weight3, no_mask + has_mask * offset)
        return rows.reshape(-1, (side // 4) ** 2, len(no_mask))

    return embed


def zeros_of_prompts(points: Tensor) -> Tensor:
    """(B, N, C) to (B, 1, C), all zero; N can be 0."""
    return functional.pad(points, (0, 0, 0, 1))[:, -1:]
