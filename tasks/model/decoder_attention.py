"""Patches of the attentions in sam2's mask decoder, among tokens and between tokens and image.

B is the number of prompts, T the number of a prompt's tokens, P the number of the image's places
and C the number of channels.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import Attention
from torch import Tensor
from torch.nn import functional

from tasks.model.operators import reshape
from tasks.model.patching import Forward, replace_methods


class PaddingBias:
    """The bias that hides padding points from every attention that attends to tokens.

    A decoder's ``forward`` sets it before its attentions run; while it is None, they attend to all
    tokens.

    :param box_has_padding: whether a prompt with a box also has a padding point, as in SAM 2. In
        SAM 1 it has none.
    """

    def __init__(self, box_has_padding: bool = True) -> None:
        self.box_has_padding = box_has_padding

    among_tokens: Tensor | None = None  # (B, 1, 1, T)
    from_image: Tensor | None = None  # (B, 1, T, 1)

    def set(self, labels: Tensor, tokens: int) -> None:
        """Hide the points with a label below 0, and the padding point of a prompt without real
        points: sam2's prompt encoder adds a padding point only to points.

        :param labels: (B, N) of the points, which follow the first ``tokens``; the last of these
            is the padding point.
        """
        # N can be 0, and amax needs a value.
        padding = functional.pad(labels, (1, 0), value=-1.0).amax(dim=1, keepdim=True)
        if not self.box_has_padding:
            padding = torch.minimum(padding, 1.5 - padding)  # below 0 for a corner's label
        offsets = torch.cat([padding, labels], dim=1).clamp(max=0) * 1e9
        offsets = functional.pad(offsets, (tokens - 1, 0))
        self.among_tokens = reshape(offsets, (0, 1, 1, -1))
        self.from_image = self.among_tokens.transpose(2, 3)


def replace_attentions(stack: ExitStack, decoder: MaskDecoder, bias: PaddingBias) -> None:
    """Patch every attention of sam2's mask decoder until the stack ends."""
    transformer = decoder.transformer
    to_image = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        own, from_image = layer.self_attn, layer.cross_attn_image_to_token
        replace_methods(stack, own, forward=token_attention(own, bias))
        replace_methods(stack, from_image, forward=attention_from_image(from_image, bias))
        to_image.append(layer.cross_attn_token_to_image)
    for attention in to_image:
        replace_methods(stack, attention, forward=attention_to_image(attention))


def token_attention(attention: Attention, bias: PaddingBias) -> Forward:
    """Replaces ``Attention.forward`` among tokens, with queries and keys from the same tokens.

    The query's weights are scaled by 1/sqrt(head size). The key's bias adds the same number to all
    logits of a query, which softmax ignores. The value's bias passes through, because the weights
    of a softmax sum to 1. So no attention of the decoder adds either bias. Largest difference:
    5e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    weights = [
        attention.q_proj.weight.detach() * scale,
        attention.k_proj.weight.detach(),
        attention.v_proj.weight.detach(),
    ]
    query_bias = attention.q_proj.bias.detach() * scale
    no_bias = torch.zeros_like(query_bias)
    out_bias = attention.out_proj(attention.v_proj.bias).detach()

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert k is q
        # Projections of the same tokens are one product; in the first layer all three.
        joined = weights if v is q else weights[:2]
        joined_bias = torch.cat([query_bias, *[no_bias] * (len(joined) - 1)])
        rows = functional.linear(q, torch.cat(joined), joined_bias)
        query, key, *last = torch.split(_heads_first(rows, len(joined) * heads), heads, dim=1)
        value = last[0] if last else _heads_first(functional.linear(v, weights[2]), heads)
        product = query @ key.transpose(2, 3)
        if bias.among_tokens is not None:
            product = product + bias.among_tokens
        mixed = torch.softmax(product, dim=-1) @ value
        return functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)

    return forward


def attention_to_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where a few tokens attend to the whole image.

    (q Wq)(k Wk)ᵀ is (q Wq Wkᵀ) kᵀ: with fewer than 16 tokens, projecting the tokens of each head
    back costs less than projecting 4096 places. The same holds for the values after the softmax.
    An image that all prompts share, (1, P, C), takes one matrix product with the tokens of all
    prompts. Largest difference: 6e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = attention.q_proj.weight.detach() * scale
    query_bias = attention.q_proj.bias.detach() * scale
    key_weight = attention.k_proj.weight.detach().unflatten(0, (heads, -1))  # (heads, d, C)
    value_weight = attention.v_proj.weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)
    out_bias = attention.out_proj(attention.v_proj.bias).detach()

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        channels = int(k.shape[2])
        query = _heads_first(functional.linear(q, query_weight, query_bias), heads)
        projected = reshape(query @ key_weight, (0, -1, channels))  # (B, heads * T, C)
        seen = torch.softmax(projected @ k.transpose(1, 2), dim=-1) @ v
        mixed = reshape(seen, (0, heads, -1, channels)) @ value_weight
        return functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)

    return forward


def attention_from_image(attention: Attention, bias: PaddingBias) -> Forward:
    """Replaces ``Attention.forward`` where every place of the image attends to a few tokens.

    As in `attention_to_image`, the tokens are projected instead of the places. The weights of each
    head sum to 1, so each head adds an equal share of the bias. Largest difference: 8e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = (attention.q_proj.weight.detach() * scale).unflatten(0, (heads, -1))
    query_bias = (attention.q_proj.bias.detach() * scale).reshape(heads, -1, 1)
    out_weight = attention.out_proj.weight.detach().T.unflatten(0, (heads, -1))  # (heads, d, C)
    out_bias = attention.out_proj(attention.v_proj.bias).detach() / heads
    key_weight, value_weight = attention.k_proj.weight.detach(), attention.v_proj.weight.detach()

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        channels = int(q.shape[2])
        key = _heads_first(functional.linear(k, key_weight), heads)
        value = _heads_first(functional.linear(v, value_weight), heads)
        projected = reshape(key @ query_weight, (0, -1, channels))  # (B, heads * T, C)
        offset = key @ query_bias
        if bias.from_image is not None:
            offset = offset + bias.from_image
        offset = reshape(offset, (0, 1, -1))
        product = q @ projected.transpose(1, 2) + offset  # (B, P, heads * T)
        weights = torch.softmax(reshape(product, (0, 0, heads, -1)), dim=-1)
        out = reshape(value @ out_weight + out_bias, (0, -1, channels))
        return reshape(weights, (0, 0, -1)) @ out

    return forward


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)


def _heads_first(rows: Tensor, heads: int) -> Tensor:
    """(B, T, heads * d) to (B, heads, T, d)."""
    return reshape(rows, (0, 0, heads, -1)).transpose(1, 2)


def _heads_last(rows: Tensor) -> Tensor:
    """(B, heads, T, d) to (B, T, heads * d)."""
    return reshape(rows.transpose(1, 2), (0, 0, -1))
