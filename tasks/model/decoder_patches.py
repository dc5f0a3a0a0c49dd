"""What must change in sam2's mask decoder for its graph to be right and fast; see `patching`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.patching import (
    Forward,
    bias_of,
    normalize_rows,
    replace_methods,
    rows_of_map,
    sizes_of,
)

if TYPE_CHECKING:
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import Attention
    from sam2.modeling.sam2_utils import LayerNorm2d
    from samexporter.export_sam2 import SAM2ImageDecoder

    from tasks.config.schema import MaskChoice


@contextmanager
def patched_decoder(decoder: SAM2ImageDecoder, masks: MaskChoice) -> Iterator[None]:
    """Apply every decoder patch to samexporter's module; on exit it is as it was."""
    transformer = decoder.mask_decoder.transformer
    to_image = transformer.final_attn_token_to_image
    with ExitStack() as stack:
        replace_methods(stack, to_image, forward=attention_to_image(to_image))
        for layer in transformer.layers:
            own, to_image = layer.self_attn, layer.cross_attn_token_to_image
            from_image = layer.cross_attn_image_to_token
            replace_methods(stack, own, forward=token_attention(own))
            replace_methods(stack, to_image, forward=attention_to_image(to_image))
            replace_methods(stack, from_image, forward=attention_from_image(from_image))
        replace_methods(
            stack,
            decoder,
            _embed_points=point_embedding(decoder),
            _embed_masks=mask_embedding(decoder),
            forward=decoder_outputs(decoder, masks),
        )
        yield


def point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_points``: no assignment into slices.

    (1, N, 2) and (1, N) to (1, N + 1, C), the padding point at the end. The label's embedding is
    a product with its one-hot code, so a label that is none of -1 to 3 adds nothing, as before.
    Largest difference: 6e-7.
    """
    encoder = decoder.prompt_encoder
    embeddings = [encoder.not_a_point_embed, *encoder.point_embeddings]
    table = torch.cat([embedding.weight for embedding in embeddings]).detach()
    known = torch.arange(len(embeddings), dtype=torch.float32) - 1
    frequencies = encoder.pe_layer.positional_encoding_gaussian_matrix.detach() * (2 * math.pi)
    size = decoder.img_size

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        angles = (coords * (2 / size) + (1 / size - 1)) @ frequencies
        position = torch.cat([angles.sin(), angles.cos()], dim=-1)
        code = (labels[:, :, None] == known).float()
        is_point = (labels[:, :, None] != -1).float()
        points = position * is_point + code @ table
        return torch.cat([points, table[None, :1]], dim=1)

    return embed


def mask_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_masks``: rows (H * W, C) at once.

    A convolution of kernel and stride 2 is a product over the rows of 2 × 2 blocks, and a
    normalization over channels that are last is one LayerNormalization.
    Largest difference: 3e-6.
    """
    conv1, norm1, act, conv2, norm2, _, conv3 = decoder.prompt_encoder.mask_downscaling
    empty = decoder.prompt_encoder.no_mask_embed.weight

    def halve(rows: Tensor, side: int, conv: nn.Conv2d, norm: LayerNorm2d) -> Tensor:
        channels = int(rows.shape[1])
        blocks = rows.reshape(side // 2, 2, side // 2, 2, channels).permute(0, 2, 1, 3, 4)
        weight = conv.weight.detach().permute(0, 2, 3, 1).flatten(1)
        rows = functional.linear(blocks.reshape(-1, 4 * channels), weight, conv.bias)
        return act(normalize_rows(rows, norm))  # type: ignore[no-any-return]

    def embed(mask: Tensor, given: Tensor) -> Tensor:
        side = int(mask.shape[-1])
        rows = halve(mask.reshape(side * side, 1), side, conv1, norm1)
        rows = halve(rows, side // 2, conv2, norm2)
        rows = functional.linear(rows, conv3.weight.flatten(1), conv3.bias)
        embedded: Tensor = empty + given * (rows - empty)
        return embedded

    return embed


def token_attention(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` among tokens: batch 1, the query's weights scaled by
    1/sqrt(head size). Largest difference: 5e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    weight, bias = attention.q_proj.weight.detach() * scale, attention.q_proj.bias.detach() * scale

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query = functional.linear(_unbatched(q), weight, bias)
        key, value = attention.k_proj(_unbatched(k)), attention.v_proj(_unbatched(v))
        query, key, value = (_heads_first(part, heads) for part in (query, key, value))
        mixed = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
        return attention.out_proj(_heads_last(mixed))[None]  # type: ignore[no-any-return]

    return forward


def attention_to_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where a few tokens look at the whole image.

    (q Wq)(k Wk)ᵀ is (q Wq Wkᵀ) kᵀ: projecting the tokens of each head back costs less than
    projecting 4096 places, while there are fewer than 16 tokens. The same for the values, behind
    the softmax. The key's bias adds the same to every place, which softmax does not see; the
    value's bias passes through, for the weights of a softmax sum to 1.
    Largest difference: 6e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = attention.q_proj.weight.detach() * scale
    query_bias = attention.q_proj.bias.detach() * scale
    key_weight = attention.k_proj.weight.detach().unflatten(0, (heads, -1))  # (heads, d, C)
    value_weight = attention.v_proj.weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)
    out_bias = attention.out_proj(attention.v_proj.bias).detach()

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        key, value = _unbatched(k), _unbatched(v)
        channels = int(key.shape[1])
        query = _heads_first(functional.linear(_unbatched(q), query_weight, query_bias), heads)
        looked_for = (query @ key_weight).reshape(-1, channels)  # (heads * tokens, C)
        seen = torch.softmax(looked_for @ key.T, dim=-1) @ value
        mixed = seen.reshape(heads, -1, channels) @ value_weight
        rows = functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)
        return rows[None]

    return forward


def attention_from_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where every place of the image looks at a few tokens.

    As in `attention_to_image`, the tokens are projected instead of the places.
    Largest difference: 8e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = (attention.q_proj.weight.detach() * scale).unflatten(0, (heads, -1))
    query_bias = (attention.q_proj.bias.detach() * scale).reshape(heads, -1, 1)
    out_weight = attention.out_proj.weight.detach().T.unflatten(0, (heads, -1))  # (heads, d, C)

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query = _unbatched(q)
        places, channels = sizes_of(query)
        key = _heads_first(attention.k_proj(_unbatched(k)), heads)
        value = _heads_first(attention.v_proj(_unbatched(v)), heads)
        offered = (key @ query_weight).reshape(-1, channels)  # (heads * tokens, C)
        product = query @ offered.T + (key @ query_bias).reshape(1, -1)
        weights = torch.softmax(product.reshape(places, heads, -1), dim=-1)
        taken = (value @ out_weight).reshape(-1, channels)
        mixed: Tensor = weights.reshape(places, -1) @ taken + attention.out_proj.bias
        return mixed[None]

    return forward


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)


def _unbatched(rows: Tensor) -> Tensor:
    """(1, N, C) to (N, C), whether N is known or not."""
    return rows.reshape(-1, int(rows.shape[2]))


def _heads_first(rows: Tensor, heads: int) -> Tensor:
    """(N, heads * d) to (heads, N, d)."""
    return rows.reshape(-1, heads, int(rows.shape[1]) // heads).transpose(0, 1)


def _heads_last(rows: Tensor) -> Tensor:
    """(heads, N, d) to (N, heads * d)."""
    heads, size = int(rows.shape[0]), int(rows.shape[2])
    return rows.transpose(0, 1).reshape(-1, heads * size)


def decoder_outputs(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder.forward``: masks and scores as the model asks.

    ``multi``: the three masks. ``best``: the one of the three with the highest score, decided
    before masks are drawn, so only one is. ``single``: the model's own single mask, or the best
    of three where that one is not stable (`MaskDecoder._dynamic_multimask_via_stability`).
    Largest difference: 1e-6.
    """
    mask_decoder = decoder.mask_decoder
    predict = mask_prediction(
        mask_decoder,
        decoder.prompt_encoder.get_dense_pe(),
        first=0 if choice == "single" else 1,
        best=choice == "best",
    )

    def forward(
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sparse = decoder._embed_points(point_coords, point_labels)
        dense = decoder._embed_masks(mask_input, has_mask_input)
        masks, scores = predict(image_embed, sparse, dense, high_res_feats_0, high_res_feats_1)
        if choice == "single":
            masks, scores = stable_mask(mask_decoder, masks, scores)
        return torch.clamp(masks, -32.0, 32.0), scores

    return forward


def mask_prediction(
    decoder: MaskDecoder, dense_position: Tensor, first: int, best: bool
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Replaces ``MaskDecoder.predict_masks`` for batch 1, from mask token ``first`` on.

    The image stays rows of tokens: a transposed convolution of kernel and stride 2 is a product
    whose results are put in place, and a normalization over the channels is one operator. The
    hypernetworks are one batched product.

    :param dense_position: `PromptEncoder.get_dense_pe`, (1, C, H, W); depends on weights only.
    """
    object_token = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
    output_tokens = torch.cat(
        [*object_token, decoder.iou_token.weight, decoder.mask_tokens.weight]
    ).detach()
    score_token = len(object_token)
    masks = decoder.num_mask_tokens - first
    position = rows_of_map(dense_position.detach())[None]
    networks = list(decoder.output_hypernetworks_mlps)[first:]
    layers = [
        (
            torch.stack([network.layers[depth].weight.detach().T for network in networks]),
            torch.stack([network.layers[depth].bias.detach()[None] for network in networks]),
        )
        for depth in range(networks[0].num_layers)
    ]
    grow1, norm, act1, grow2, act2 = decoder.output_upscaling
    head = decoder.iou_prediction_head

    def double(rows: Tensor, height: int, width: int, grow: nn.ConvTranspose2d) -> Tensor:
        """(H * W, C) to (2H * 2W, D)."""
        weight = grow.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * D, C)
        channels = int(grow.weight.shape[1])
        blocks = functional.linear(rows, weight, bias_of(grow).detach().repeat(4))
        # Only whole runs of 2 * D numbers change place, which is quick.
        runs = blocks.reshape(height, width, 2, 2 * channels).transpose(1, 2)
        return runs.reshape(4 * height * width, channels)

    def forward(
        image_embed: Tensor, sparse: Tensor, dense: Tensor, feats_0: Tensor, feats_1: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, _, height, width = sizes_of(image_embed)
        tokens = torch.cat([output_tokens[None], sparse], dim=1)
        keys = (rows_of_map(image_embed) + dense)[None]
        queries = tokens
        transformer = decoder.transformer
        for layer in transformer.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        mixed = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + position, v=keys)
        queries = transformer.norm_final_attn(queries + mixed)

        score = queries[:, score_token]
        for depth, linear in enumerate(head.layers):
            if depth < head.num_layers - 1:
                score = head.act(linear(score))
            else:
                score = functional.linear(score, linear.weight[first:], linear.bias[first:])
        scores = torch.sigmoid(score) if head.sigmoid_output else score

        begin = score_token + 1 + first
        mask_tokens = queries[0, begin : begin + masks]
        shown = masks
        kernels = layers
        if best:
            best_index = scores.argmax(dim=1)
            scores = scores.gather(1, best_index[:, None])
            mask_tokens = mask_tokens[best_index]
            kernels = [(weight[best_index], bias[best_index]) for weight, bias in layers]
            shown = 1
        hyper = mask_tokens[:, None]
        for depth, (weight, bias) in enumerate(kernels):
            hyper = hyper @ weight + bias
            if depth < len(kernels) - 1:
                hyper = torch.relu(hyper)

        rows = double(_unbatched(keys), height, width, grow1) + rows_of_map(feats_1)
        rows = act1(normalize_rows(rows, norm))
        rows = double(rows, 2 * height, 2 * width, grow2) + rows_of_map(feats_0)
        drawn = act2(rows) @ hyper.reshape(shown, -1).T  # (16 * H * W, masks)
        return drawn.T.reshape(1, shown, 4 * height, 4 * width), scores

    return forward


def stable_mask(decoder: MaskDecoder, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """What ``MaskDecoder._dynamic_multimask_via_stability`` does, for batch 1.

    The single mask, unless the area above +delta is too small a part of that above -delta; then
    the best of the others. Largest difference: none.
    """
    if not decoder.dynamic_multimask_via_stability:
        return masks[:, :1], scores[:, :1]
    delta = decoder.dynamic_multimask_stability_delta
    single, others = masks[:, :1], masks[:, 1:]
    inner = (single > delta).float().sum(dim=(1, 2, 3))
    outer = (single > -delta).float().sum(dim=(1, 2, 3))
    # inner <= outer, so an empty mask (0 of 0) counts as stable here too.
    stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
    best_index = scores[:, 1:].argmax(dim=1)
    mask = torch.where(stable[:, None, None, None], single, others[:, best_index])
    score = torch.where(stable[:, None], scores[:, :1], scores[:, 1:][:, best_index])
    return mask, score
