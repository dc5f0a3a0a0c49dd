"""Patches of sam2's mask decoder that predict scores, choose masks and draw them.

B is the number of prompts, K the number of a prompt's masks, P the number of the image's places and
C the number of channels. The first axis is 1 for as long as all prompts share a tensor: the image,
a mask that all of them refine, and the products of both in the first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder
from samexporter.export_sam2 import SAM2ImageDecoder
from torch import Tensor
from torch.nn import functional

from tasks.clients.contract import MaskChoice
from tasks.model.operators import reshape
from tasks.model.patching import Forward, bias_of, normalize_rows, rows_of_map, sizes_of
from tasks.model.prompt_embedding import zeros_of_prompts


class PredictedMasks(NamedTuple):
    """``masks`` (B, K, M, M) with ``scores`` (B, K) and the ``tokens`` (B, K, C) they come from.

    ``object_logits`` (B, 1) are above 0 if there is an object.
    """

    masks: Tensor
    scores: Tensor
    tokens: Tensor
    object_logits: Tensor


Prediction = Callable[..., PredictedMasks]


def mask_prediction(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Prediction:
    """Replaces ``MaskDecoder.predict_masks`` and the choice of its masks."""
    predict = candidate_prediction(decoder, choice)

    def forward(*inputs: Tensor | Sequence[Tensor], **named: Tensor) -> PredictedMasks:
        predicted = predict(*inputs, **named)
        masks, scores = stable_mask(decoder.mask_decoder, predicted.masks, predicted.scores)
        return predicted._replace(masks=masks, scores=scores)

    return forward if choice == "single" else predict


def candidate_prediction(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Prediction:
    """The masks that `mask_prediction` chooses from; for ``single``, that mask and the best other.

    The image stays in rows of tokens. The hypernetworks run as one batched product.
    """
    mask_decoder = decoder.mask_decoder
    transformer, head = mask_decoder.transformer, mask_decoder.iou_prediction_head
    first = 0 if choice in ("all", "single") else 1
    has_object_token = bool(mask_decoder.pred_obj_scores)
    score_token = int(has_object_token)
    constant = constant_tokens(decoder)
    masks = mask_decoder.num_mask_tokens - first
    position = rows_of_map(decoder.prompt_encoder.get_dense_pe().detach())[None]
    networks = list(mask_decoder.output_hypernetworks_mlps)[first:]
    layers = [
        (
            torch.stack([network.layers[depth].weight.detach().T for network in networks]),
            torch.stack([network.layers[depth].bias.detach()[None] for network in networks]),
        )
        for depth in range(networks[0].num_layers)
    ]
    draw = mask_drawing(mask_decoder)

    def decode(
        image: Tensor, sparse: Sequence[Tensor], dense: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The tokens (B, T, C) and the image (B or 1, P, C) after the transformer."""
        _, _, height, width = sizes_of(image)
        zeros = zeros_of_prompts(sparse[0])
        tokens = torch.cat([zeros + constant, *sparse], dim=1)
        keys = rows_of_map(image) + dense
        keys = keys.reshape(-1, height * width, int(keys.shape[-1]))
        queries = tokens
        for layer in transformer.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        mixed = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + position, v=keys)
        queries = transformer.norm_final_attn(queries + mixed)
        # If broadcasting repeated one prompt for several masks, this concatenation fails.
        return torch.cat([queries, zeros], dim=1), keys

    def scores_of(token: Tensor) -> Tensor:
        for linear in head.layers[:-1]:
            token = head.act(linear(token))
        last = head.layers[-1]
        scores = functional.linear(token, last.weight[first:], last.bias[first:])
        return torch.sigmoid(scores) if head.sigmoid_output else scores

    def hypernetworks(mask_tokens: Tensor) -> Tensor:
        """(B, masks, C) to (B, D, masks)."""
        hyper = mask_tokens.transpose(0, 1)
        for depth, (weight, bias) in enumerate(layers):
            hyper = hyper @ weight + bias
            if depth < len(layers) - 1:
                hyper = torch.relu(hyper)
        return hyper.permute(1, 2, 0)

    def forward(
        image_embed: Tensor,
        sparse: Sequence[Tensor],
        dense: Tensor,
        *details: Tensor,
        places: Tensor | None = None,
    ) -> PredictedMasks:
        """
        :param sparse: embeddings of points, and of boxes, each (B, any number, C).
        :param dense: embeddings of masks, (B or 1, P, C).
        :param details: the two high-resolution feature maps, the finer first, or none.
        :param places: the encoding (1, C, H, W) of the image's places, if it is an input.
        """
        own = position if places is None else rows_of_map(places)[None]
        queries, keys = decode(image_embed, sparse, dense, own)
        scores = scores_of(queries[:, score_token])
        begin = score_token + 1 + first
        mask_tokens = queries[:, begin : begin + masks]
        hyper = hypernetworks(mask_tokens)
        selection = mask_selection(choice, scores)
        if selection is not None:
            hyper, scores = hyper @ selection, (scores[:, None] @ selection).squeeze(1)
            mask_tokens = selection.transpose(1, 2) @ mask_tokens
        drawn = draw(keys, hyper, sizes_of(image_embed)[2:], *details)
        if has_object_token:
            object_logits = mask_decoder.pred_obj_score_head(queries[:, 0])
        else:
            object_logits = scores[:, :1] * 0 + 10
        return PredictedMasks(drawn, scores, mask_tokens, object_logits)

    return forward


def constant_tokens(decoder: SAM2ImageDecoder) -> Tensor:
    """The tokens before a prompt's tokens, (T, C); the last is the padding point."""
    mask_decoder = decoder.mask_decoder
    object_token = [mask_decoder.obj_score_token.weight] if mask_decoder.pred_obj_scores else []
    return torch.cat(
        [
            *object_token,
            mask_decoder.iou_token.weight,
            mask_decoder.mask_tokens.weight,
            decoder.prompt_encoder.not_a_point_embed.weight,
        ]
    ).detach()


def mask_selection(choice: MaskChoice, scores: Tensor) -> Tensor | None:
    """The masks to draw, chosen by the scores (B, K) before any mask is drawn.

    ``ranked`` draws all, the best first; ``best`` draws only the best; ``single`` draws the first
    and the best of the others (for `stable_mask`).

    :returns: a matrix (B, K, drawn) of ones and zeros; None for ``multi`` and ``all``, which draw
        all masks in their order.
    """
    if choice == "ranked":
        return ranking(scores)
    if choice == "best":
        return ranking(scores)[:, :, :1]
    if choice == "single":
        first = torch.tensor([[1.0, 0.0]] + [[0.0, 0.0]] * (int(scores.shape[1]) - 1))
        return functional.pad(ranking(scores[:, 1:])[:, :, :1], (1, 0, 1, 0)) + first
    return None


def ranking(scores: Tensor) -> Tensor:
    """The permutation (B, K, K) that sorts K scores, the best first; among equals the earlier.

    It multiplies a row of scores from the right. Each score starts at its own index. For each pair
    whose later score is higher, the earlier score moves back by one and the later forward by one.
    """
    count = int(scores.shape[1])
    pairs = torch.combinations(torch.arange(count))
    earlier, later = functional.one_hot(pairs, count).float().unbind(1)  # (pairs, K) each
    swapped = (scores @ (later - earlier).T > 0).float()
    moved = swapped @ (earlier - later)
    place = torch.arange(count, dtype=torch.float32)
    return (moved[:, :, None] == place - place[:, None]).float()


def mask_drawing(decoder: MaskDecoder) -> Forward:
    """Replaces ``MaskDecoder.output_upscaling`` and the product with the hypernetworks' outputs.

    A transposed convolution with kernel and stride 2 is a product. The 2 × 2 places that it makes
    from each place stay together: the added maps, which all prompts share, are reordered that way,
    and the masks, which are small, are put back in the image's order. Biases are added to the maps.
    The last doubling runs in two halves, the upper and the lower two places, which halves the peak
    memory.
    """
    grow1, norm, act1, grow2, act2 = decoder.output_upscaling
    weight1 = grow1.weight.detach().permute(0, 2, 3, 1).flatten(1)  # (C, 2 * 2 * D)
    halves = grow2.weight.detach().permute(2, 0, 3, 1).flatten(2).unbind()  # 2 of (D, 2 * E)
    bias1, bias2 = bias_of(grow1).detach(), bias_of(grow2).detach()

    def coarse(height: int, width: int, details: Sequence[Tensor]) -> Tensor:
        """The addend after the first doubling, (4 * H * W, D), or (D,) for all places."""
        if not details:
            return bias1
        # Only whole runs of numbers move, which is fast.
        added = (rows_of_map(details[1]) + bias1).reshape(height, 2, width, -1)
        return added.transpose(1, 2).reshape(4 * height * width, -1)

    def fine(height: int, width: int, details: Sequence[Tensor]) -> Sequence[Tensor]:
        """The addend after each half of the second doubling, (8 * H * W, E), or (E,) for all."""
        if not details:
            return bias2, bias2
        added = (rows_of_map(details[0]) + bias2).reshape(height, 2, 2, width, 2, -1)
        added = added.permute(2, 0, 3, 1, 4, 5).reshape(16 * height * width, -1)
        return torch.split(added, 8 * height * width)

    def draw(keys: Tensor, hyper: Tensor, size: Sequence[int], *details: Tensor) -> Tensor:
        """(B, H * W, C) and (B, E, K) to masks (B, K, 4 * H, 4 * W); ``size`` is (H, W)."""
        height, width = size
        masks = int(hyper.shape[2])
        added = coarse(height, width, details)
        rows = reshape(keys @ weight1, (0, 4 * height * width, len(bias1))) + added
        rows = act1(normalize_rows(rows, norm))
        drawn = []
        for half, added in zip(halves, fine(height, width, details), strict=True):
            pixels = act2(reshape(rows @ half, (0, 8 * height * width, len(bias2))) + added)
            drawn.append(reshape(pixels @ hyper, (0, -1, 2 * masks)))
        blocks = torch.cat(drawn, dim=2).reshape(-1, width, 2, 2, 2, 2 * masks)
        places = blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, 16 * height * width, masks)
        return places.transpose(1, 2).reshape(-1, masks, 4 * height, 4 * width)

    return draw


def stable_mask(decoder: MaskDecoder, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces ``MaskDecoder._dynamic_multimask_via_stability``.

    Returns the single mask, unless its area above +delta is too small a part of its area above
    -delta; then the best of the others. Largest difference: none.

    :param masks: (B, 2, M, M), the single mask and the best of the others.
    :param scores: (B, 2), the scores of both.
    """
    if not decoder.dynamic_multimask_via_stability:
        return masks[:, :1], scores[:, :1]
    delta = decoder.dynamic_multimask_stability_delta
    single = masks[:, :1]
    inner = (single > delta).float().sum(dim=(1, 2, 3))
    outer = (single > -delta).float().sum(dim=(1, 2, 3))
    # An empty mask has inner = outer = 0, so it counts as stable here too.
    stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
    mask = torch.where(stable[:, None, None, None], single, masks[:, 1:])
    return mask, torch.where(stable[:, None], scores[:, :1], scores[:, 1:])
