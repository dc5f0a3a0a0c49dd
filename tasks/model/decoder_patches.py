"""What must change in sam2's mask decoder for its graph to be right and fast; see `patching`.

B is the number of prompts, N of a prompt's points, T of its tokens, P of the image's places and
C of the channels. What all prompts share has a first axis of 1 for as long as it can: the image,
a mask that all of them refine, and the products of both in the first layer. B, N and T are free
axes; no size of them is computed in the graph, for onnxruntime-web would do that on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

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

    from tasks.clients.contract import Interface, MaskChoice


@contextmanager
def patched_decoder(
    decoder: SAM2ImageDecoder, masks: MaskChoice, interface: Interface
) -> Iterator[None]:
    """Apply every decoder patch to samexporter's module; on exit it is as it was.

    :param masks: see `mask_selection`.
    :param interface: what ``forward`` takes and gives: see `points_decoder`, `boxes_decoder` and
        `image_size_decoder`.
    """
    forwards = {
        "points": points_decoder,
        "points and boxes": boxes_decoder,
        "image size": image_size_decoder,
    }
    absent = Absent()
    with ExitStack() as stack:
        replace_attentions(stack, decoder.mask_decoder, absent)
        replace_methods(stack, decoder, forward=forwards[interface](decoder, masks, absent))
        yield


def replace_attentions(stack: ExitStack, decoder: MaskDecoder, absent: Absent) -> None:
    """Patch every attention of sam2's mask decoder, until the stack ends."""
    transformer = decoder.transformer
    to_image = transformer.final_attn_token_to_image
    replace_methods(stack, to_image, forward=attention_to_image(to_image))
    for layer in transformer.layers:
        own, to_image = layer.self_attn, layer.cross_attn_token_to_image
        from_image = layer.cross_attn_image_to_token
        replace_methods(stack, own, forward=token_attention(own, absent))
        replace_methods(stack, to_image, forward=attention_to_image(to_image))
        replace_methods(stack, from_image, forward=attention_from_image(from_image, absent))


class Absent:
    """What is added to the attention that tokens get: none is left for points that are none.

    A decoder's ``forward`` sets it before its attentions run; None where all points are some.
    """

    among_tokens: Tensor | None = None  # (B, 1, 1, T)
    from_image: Tensor | None = None  # (B, 1, T, 1)

    def set(self, labels: Tensor, tokens: int) -> None:
        """Pass over the points of a label below 0, and where a prompt has no others, over the
        padding point: sam2's prompt encoder adds one only to points.

        :param labels: (B, N) of points, which come behind so many tokens; the last of those is
            the padding point.
        """
        # N may be 0, and of nothing there is no largest.
        padding = functional.pad(labels, (1, 0), value=-1.0).amax(dim=1, keepdim=True)
        offsets = torch.cat([padding, labels], dim=1).clamp(max=0) * 1e9
        offsets = functional.pad(offsets, (tokens - 1, 0))
        self.among_tokens = reshape(offsets, (0, 1, 1, -1))
        self.from_image = self.among_tokens.transpose(2, 3)


def points_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder.forward``, its inputs and outputs as they were.

    B prompts of N points about one image. A point of label -1 stands where a prompt has fewer, and
    is as if it were not there: samexporter's and sam2's decoders would take it for a further
    padding point, so that a prompt beside longer ones, and each click of a client that pads, would
    get another mask than alone. A prompt of a mask alone, N being 0 or each label -1, is answered
    as ``SAM2ImagePredictor.predict`` answers one without points.
    ``mask_input`` is (B, 1, M, M), or (1, 1, M, M) for all prompts. Inputs whose numbers of prompts
    or points do not agree are refused by the graph.
    Largest difference: 1e-6.
    """
    answer = answer_to_points(decoder, choice, absent)

    def forward(
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        features = (image_embed, high_res_feats_0, high_res_feats_1)
        masks, scores = answer(features, point_coords, point_labels, mask_input, has_mask_input)
        return torch.clamp(masks, -32.0, 32.0), scores

    return forward


def answer_to_points(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """Masks (B, K, M, M) and scores (B, K) of prompts that may refine masks."""
    embed_points, embed_masks = point_embedding(decoder), mask_embedding(decoder)
    predict = mask_prediction(decoder, choice, absent)
    constant = constant_tokens(decoder).shape[0]

    def answer(
        features: tuple[Tensor, Tensor, Tensor],
        coords: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        image_embed, feats_0, feats_1 = features
        points = [embed_points(coords, labels)]
        absent.set(labels, constant)
        dense = embed_masks(mask, has_mask)
        found = predict(image_embed, points, dense, feats_0, feats_1)
        return found.masks, found.scores

    return answer


def image_size_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """`points_decoder` for one prompt, its masks drawn at the size of the original image.

    Behind the other inputs comes ``orig_im_size`` (2,) int64, height and width in pixels. The
    outputs are masks (1, K, height, width), interpolated as ``SAM2Transforms.postprocess_masks``
    does, scores (1, K), and the masks as the model draws them, (1, K, M, M).
    """
    answer = answer_to_points(decoder, choice, absent)

    def forward(
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = (image_embed, high_res_feats_0, high_res_feats_1)
        low_res, scores = answer(features, point_coords, point_labels, mask_input, has_mask_input)
        masks = resized(low_res, orig_im_size)
        return masks, scores, torch.clamp(low_res, -32.0, 32.0)

    return forward


def boxes_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """A decoder of points, boxes or both, as transformers.js feeds one; without a mask input.

    ``point_coords`` (1, B, N, 2), ``point_labels`` (1, B, N) int64 and ``boxes`` (1, Q, 4), each
    box its top left and bottom right corner. Q is 0 or B; with boxes alone the points are
    (1, 1, 0, 2). Each prompt has one padding point, as in transformers' ``Sam2PromptEncoder``, so
    the masks are those of sam2's predictor. Outputs are masks (1, B, K, M, M), scores (1, B, K)
    and the logits (1, B, 1) of whether there is an object.
    """
    embed_points, embed_boxes = labelled_point_embedding(decoder), box_embedding(decoder)
    predict = mask_prediction(decoder, choice, absent)
    empty = decoder.prompt_encoder.no_mask_embed.weight.detach()

    def forward(
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        boxes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = embed_points(point_coords, point_labels)
        sparse = [points, embed_boxes(boxes, zeros_of_prompts(points))]
        found = predict(image_embed, sparse, empty, high_res_feats_0, high_res_feats_1)
        masks = torch.clamp(found.masks, -32.0, 32.0)
        return masks[None], found.scores[None], found.object_logits[None]

    return forward


def position_embedding(decoder: SAM2ImageDecoder, further: int = 0) -> Callable[[Tensor], Tensor]:
    """Replaces ``PositionEmbeddingRandom.forward_with_coords``, in pixels of the model's input.

    (..., 2) to (..., C), a place in a pixel being its middle.

    :param further: so many columns follow the two, and are not looked at.
    """
    random = decoder.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    size = decoder.img_size
    frequencies = functional.pad(random.detach() * (4 * math.pi / size), (0, 0, 0, further))

    def embed(coords: Tensor) -> Tensor:
        angles = (coords + (0.5 - size / 2)) @ frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    return embed


def point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_points``, without the padding point.

    (B, N, 2) and (B, N) to (B, N, C). The label's embedding is a product with its one-hot code,
    so a label above 3 adds nothing, as before. Nothing looks at a point of a label below 0.
    Largest difference: 6e-7.
    """
    embeddings = decoder.prompt_encoder.point_embeddings
    table = torch.cat([embedding.weight for embedding in embeddings]).detach()
    known = torch.arange(len(embeddings), dtype=torch.float32)
    position = position_embedding(decoder, further=1)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        # Joined and split again: where they differ in length they cannot be joined.
        points = torch.cat([coords, labels[:, :, None]], dim=2)
        return position(points) + (points[:, :, 2:] == known).float() @ table

    return embed


def labelled_point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """As `point_embedding`, with labels that are integers: (1, B, N, 2), (1, B, N) to (B, N, C).

    Labels choose rows of tables, a negative one counting from the end as Gather does:
    onnxruntime-web converts 64-bit integers on the CPU alone. A label of -10 adds nothing, as in
    transformers, which pads with it. Where there are no points, ``coords`` may be (1, 1, 0, 2).
    Largest difference: 6e-7.
    """
    encoder = decoder.prompt_encoder
    known = torch.cat([embedding.weight for embedding in encoder.point_embeddings]).detach()
    rows = len(known) + 10
    table = torch.zeros(rows, known.shape[1])
    table[: len(known)], table[-1] = known, encoder.not_a_point_embed.weight.detach()[0]
    has_place = torch.zeros(rows, 2)
    has_place[: len(known)] = 1
    position = position_embedding(decoder)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        # Joined and split again: prompts of another number of points cannot be joined.
        placed = torch.cat([has_place[labels], coords[:, :1]], dim=1)[:, :-1]
        coords = reshape_like(coords, placed)
        points = position(coords) * placed[:, :, :, :1] + table[labels]
        return points.squeeze(0)

    return embed


def box_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces ``PromptEncoder._embed_boxes``: (1, Q, 4) to (B, 2, C), or (B, 0, C) where Q is 0.

    B is that of the zeros (B, 1, C); boxes of another number are refused by the graph.
    Largest difference: 6e-7.
    """
    encoder = decoder.prompt_encoder
    corners = torch.cat([encoder.point_embeddings[each].weight for each in (2, 3)]).detach()
    channels = int(corners.shape[1])
    position = position_embedding(decoder)

    def embed(boxes: Tensor, zeros: Tensor) -> Tensor:
        own: Tensor = _BoxOfPrompt.apply(boxes, zeros[:, :, :4])  # type: ignore[no-untyped-call]
        places = position(reshape(own, (0, -1, 2)))
        # As one row for each box, for corners that are not there have no labels either.
        labelled = reshape(places, (0, -1, 2 * channels)) + corners.flatten()
        return reshape(labelled, (0, -1, channels))

    return embed


def mask_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_masks``: rows, (B, P, C).

    A convolution of kernel and stride 2 is a product over the rows of 2 × 2 blocks, and a
    normalization over channels that are last is one LayerNormalization. The last convolution,
    without a bias of its own, is that of rows which are zero where no mask is given.
    Largest difference: 3e-6.
    """
    conv1, norm1, act, conv2, norm2, _, conv3 = decoder.prompt_encoder.mask_downscaling
    empty = decoder.prompt_encoder.no_mask_embed.weight.detach()[0]
    offset = bias_of(conv3).detach() - empty

    weight3 = conv3.weight.detach().flatten(1)

    def halve(rows: Tensor, side: int, conv: nn.Conv2d, norm: LayerNorm2d) -> Tensor:
        """(B * side * side, C) to (B * side / 2 * side / 2, D)."""
        channels = int(rows.shape[-1])
        blocks = rows.reshape(-1, 2, side // 2, 2, channels).permute(0, 2, 1, 3, 4)
        weight = conv.weight.detach().permute(0, 2, 3, 1).flatten(1)
        rows = functional.linear(blocks.reshape(-1, 4 * channels), weight, conv.bias)
        return act(normalize_rows(rows, norm))  # type: ignore[no-any-return]

    def embed(mask: Tensor, given: Tensor) -> Tensor:
        side = int(mask.shape[-1])
        rows = halve(mask.reshape(-1, 1), side, conv1, norm1)
        rows = halve(rows, side // 2, conv2, norm2)
        rows = functional.linear(given * rows, weight3, empty + given * offset)
        return rows.reshape(-1, (side // 4) ** 2, len(empty))

    return embed


def zeros_of_prompts(points: Tensor) -> Tensor:
    """(B, N, C) to (B, 1, C), all zero; N may be 0."""
    return functional.pad(points, (0, 0, 0, 1))[:, -1:]


def token_attention(attention: Attention, absent: Absent) -> Forward:
    """Replaces ``Attention.forward`` among tokens, where queries and keys are of the same ones.

    The query's weights are scaled by 1/sqrt(head size).

    The key's bias adds the same to all that a query is compared with, which softmax does not
    see; the value's bias passes through, for the weights of a softmax sum to 1. So neither is
    added here, nor where tokens look at the image or the image at them.
    Largest difference: 5e-7.
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
        # What is computed from the same tokens is one product: in the first layer, all three.
        joined = weights if v is q else weights[:2]
        bias = torch.cat([query_bias, *[no_bias] * (len(joined) - 1)])
        rows = functional.linear(q, torch.cat(joined), bias)
        query, key, *last = torch.split(_heads_first(rows, len(joined) * heads), heads, dim=1)
        value = last[0] if last else _heads_first(functional.linear(v, weights[2]), heads)
        product = query @ key.transpose(2, 3)
        if absent.among_tokens is not None:
            product = product + absent.among_tokens
        mixed = torch.softmax(product, dim=-1) @ value
        return functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)

    return forward


def attention_to_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where a few tokens look at the whole image.

    (q Wq)(k Wk)ᵀ is (q Wq Wkᵀ) kᵀ: projecting the tokens of each head back costs less than
    projecting 4096 places, while there are fewer than 16 tokens. The same for the values, behind
    the softmax. An image that is the same for all prompts, (1, P, C), is one matrix product with
    the tokens of all of them.
    Largest difference: 6e-7.
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
        looked_for = reshape(query @ key_weight, (0, -1, channels))  # (B, heads * T, C)
        seen = torch.softmax(looked_for @ k.transpose(1, 2), dim=-1) @ v
        mixed = reshape(seen, (0, heads, -1, channels)) @ value_weight
        return functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)

    return forward


def attention_from_image(attention: Attention, absent: Absent) -> Forward:
    """Replaces ``Attention.forward`` where every place of the image looks at a few tokens.

    As in `attention_to_image`, the tokens are projected instead of the places; and as the weights
    of each head sum to 1, the bias behind them is shared out among the heads.
    Largest difference: 8e-7.
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
        offered = reshape(key @ query_weight, (0, -1, channels))  # (B, heads * T, C)
        offset = key @ query_bias
        if absent.from_image is not None:
            offset = offset + absent.from_image
        offset = reshape(offset, (0, 1, -1))
        product = q @ offered.transpose(1, 2) + offset  # (B, P, heads * T)
        weights = torch.softmax(reshape(product, (0, 0, heads, -1)), dim=-1)
        taken = reshape(value @ out_weight + out_bias, (0, -1, channels))
        return reshape(weights, (0, 0, -1)) @ taken

    return forward


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)


def _heads_first(rows: Tensor, heads: int) -> Tensor:
    """(B, T, heads * d) to (B, heads, T, d)."""
    return reshape(rows, (0, 0, heads, -1)).transpose(1, 2)


def _heads_last(rows: Tensor) -> Tensor:
    """(B, heads, T, d) to (B, T, heads * d)."""
    return reshape(rows.transpose(1, 2), (0, 0, -1))


def mask_selection(choice: MaskChoice, scores: Tensor) -> Tensor | None:
    """Which masks to draw, decided by the scores (B, K) of all before any is drawn.

    ``multi`` and ``all`` draw what there is; ``ranked`` the best first, ``best`` that alone;
    ``single`` the first, and the best of the others (for `stable_mask`).

    :returns: a matrix (B, K, drawn) of ones and zeros, or None for all as they are.
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
    """The permutation (B, K, K) that brings K scores in order, best first; of equals the earlier.

    A row of scores is multiplied by it from the left. Each score starts at its own place, and of
    each pair whose later score is higher the two pass each other.
    """
    count = int(scores.shape[1])
    pairs = torch.combinations(torch.arange(count))
    earlier, later = functional.one_hot(pairs, count).float().unbind(1)  # (pairs, K) each
    passed = (scores @ (later - earlier).T > 0).float()
    moved = passed @ (earlier - later)
    place = torch.arange(count, dtype=torch.float32)
    return (moved[:, :, None] == place - place[:, None]).float()


def constant_tokens(decoder: SAM2ImageDecoder) -> Tensor:
    """The tokens that come first, whatever is asked: (T, C); the last is the padding point."""
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


class PredictedMasks(NamedTuple):
    """``masks`` (B, K, M, M) with ``scores`` (B, K) and the ``tokens`` (B, K, C) they are made of.

    ``object_logits`` (B, 1) tell whether there is an object.
    """

    masks: Tensor
    scores: Tensor
    tokens: Tensor
    object_logits: Tensor


def mask_prediction(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """Replaces ``MaskDecoder.predict_masks`` and the choice among its masks."""
    predict = candidate_prediction(decoder, choice, absent)

    def forward(*features: Any) -> PredictedMasks:
        found: PredictedMasks = predict(*features)
        if choice != "single":
            return found
        masks, scores = stable_mask(decoder.mask_decoder, found.masks, found.scores)
        return found._replace(masks=masks, scores=scores)

    return forward


def candidate_prediction(decoder: SAM2ImageDecoder, choice: MaskChoice, absent: Absent) -> Forward:
    """What `mask_prediction` chooses from: of ``single``, that mask and the best of the others.

    The image stays rows of tokens. The hypernetworks are one batched product.
    """
    mask_decoder = decoder.mask_decoder
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
    head = mask_decoder.iou_prediction_head

    def forward(
        image_embed: Tensor,
        sparse: Sequence[Tensor],
        dense: Tensor,
        feats_0: Tensor,
        feats_1: Tensor,
    ) -> PredictedMasks:
        """
        :param sparse: embeddings of points, and of boxes, each (B, any number, C).
        :param dense: embeddings of masks, (B or 1, P, C).
        """
        _, _, height, width = sizes_of(image_embed)
        zeros = zeros_of_prompts(sparse[0])
        tokens = torch.cat([zeros + constant, *sparse], dim=1)
        keys = rows_of_map(image_embed) + dense
        keys = keys.reshape(-1, height * width, int(keys.shape[-1]))
        queries = tokens
        transformer = mask_decoder.transformer
        for layer in transformer.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        mixed = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + position, v=keys)
        queries = transformer.norm_final_attn(queries + mixed)
        # Broadcasting took one prompt for as many as there are masks; these cannot be joined.
        queries = torch.cat([queries, zeros], dim=1)

        score = queries[:, score_token]
        for depth, linear in enumerate(head.layers):
            if depth < head.num_layers - 1:
                score = head.act(linear(score))
            else:
                score = functional.linear(score, linear.weight[first:], linear.bias[first:])
        scores = torch.sigmoid(score) if head.sigmoid_output else score

        begin = score_token + 1 + first
        mask_tokens = queries[:, begin : begin + masks]
        hyper = mask_tokens.transpose(0, 1)  # (masks, B, C)
        for depth, (weight, bias) in enumerate(layers):
            hyper = hyper @ weight + bias
            if depth < len(layers) - 1:
                hyper = torch.relu(hyper)
        hyper = hyper.permute(1, 2, 0)  # (B, D, masks)
        selection = mask_selection(choice, scores)
        if selection is not None:
            hyper, scores = hyper @ selection, (scores[:, None] @ selection).squeeze(1)
            mask_tokens = selection.transpose(1, 2) @ mask_tokens

        drawn = draw(keys, feats_0, feats_1, hyper)
        if has_object_token:
            object_logits = mask_decoder.pred_obj_score_head(queries[:, 0])
        else:
            object_logits = scores[:, :1] * 0 + 10
        return PredictedMasks(drawn, scores, mask_tokens, object_logits)

    return forward


def mask_drawing(decoder: MaskDecoder) -> Forward:
    """Replaces ``MaskDecoder.output_upscaling`` and the product with the hypernetworks' outputs.

    A transposed convolution of kernel and stride 2 is a product. The 2 × 2 places that come of
    each stay together: the maps that are added, which are the same for all prompts, are
    put in that order, and the masks, which are small, back into the image's. Biases are added to
    the maps. The last doubling is done in two halves, of the upper and of the lower two places, for
    what is in memory at once.
    """
    grow1, norm, act1, grow2, act2 = decoder.output_upscaling
    weight1 = grow1.weight.detach().permute(0, 2, 3, 1).flatten(1)  # (C, 2 * 2 * D)
    halves = grow2.weight.detach().permute(2, 0, 3, 1).flatten(2).unbind()  # 2 of (D, 2 * E)
    bias1, bias2 = bias_of(grow1).detach(), bias_of(grow2).detach()

    def draw(keys: Tensor, feats_0: Tensor, feats_1: Tensor, hyper: Tensor) -> Tensor:
        """(B, H * W, C) and (B, E, K) to masks (B, K, 4 * H, 4 * W)."""
        height, width = (size // 4 for size in sizes_of(feats_0)[2:])
        masks = int(hyper.shape[2])
        # Only whole runs of numbers change place, which is quick.
        added = (rows_of_map(feats_1) + bias1).reshape(height, 2, width, -1)
        added = added.transpose(1, 2).reshape(4 * height * width, -1)
        rows = reshape(keys @ weight1, (0, *sizes_of(added))) + added
        rows = act1(normalize_rows(rows, norm))

        added = (rows_of_map(feats_0) + bias2).reshape(height, 2, 2, width, 2, -1)
        added = added.permute(2, 0, 3, 1, 4, 5).reshape(16 * height * width, -1)
        drawn = []
        for half, features in zip(halves, torch.split(added, 8 * height * width), strict=True):
            pixels = act2(reshape(rows @ half, (0, *sizes_of(features))) + features)
            drawn.append(reshape(pixels @ hyper, (0, -1, 2 * masks)))
        blocks = torch.cat(drawn, dim=2).reshape(-1, width, 2, 2, 2, 2 * masks)
        places = blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, 16 * height * width, masks)
        return places.transpose(1, 2).reshape(-1, masks, 4 * height, 4 * width)

    return draw


def stable_mask(decoder: MaskDecoder, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """What ``MaskDecoder._dynamic_multimask_via_stability`` does.

    The single mask, unless the area above +delta is too small a part of that above -delta; then
    the best of the others. Largest difference: none.

    :param masks: (B, 2, M, M), the single mask and the best of the others.
    :param scores: (B, 2), theirs.
    """
    if not decoder.dynamic_multimask_via_stability:
        return masks[:, :1], scores[:, :1]
    delta = decoder.dynamic_multimask_stability_delta
    single = masks[:, :1]
    inner = (single > delta).float().sum(dim=(1, 2, 3))
    outer = (single > -delta).float().sum(dim=(1, 2, 3))
    # inner <= outer, so an empty mask (0 of 0) counts as stable here too.
    stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
    mask = torch.where(stable[:, None, None, None], single, masks[:, 1:])
    return mask, torch.where(stable[:, None], scores[:, :1], scores[:, 1:])


class _Reshape(torch.autograd.Function):
    """``Tensor.reshape`` where a 0 keeps the size of its axis, as in ONNX.

    torch's own computes sizes in the graph where two axes are free.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        return tensor.reshape(
            [tensor.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
        )

    @staticmethod
    def symbolic(g: Any, tensor: Any, shape: tuple[int, ...]) -> Any:
        return g.op("Reshape", tensor, g.op("Constant", value_t=torch.tensor(shape)))


def reshape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """See `_Reshape`."""
    result: Tensor = _Reshape.apply(tensor, shape)  # type: ignore[no-untyped-call]
    return result


class _ReshapeLike(torch.autograd.Function):
    """A tensor in the shape of another; refused where they differ in size."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, other: Tensor) -> Tensor:
        return tensor.reshape(other.shape)

    @staticmethod
    def symbolic(g: Any, tensor: Any, other: Any) -> Any:
        return g.op("Reshape", tensor, g.op("Shape", other)).setType(other.type())


def reshape_like(tensor: Tensor, other: Tensor) -> Tensor:
    result: Tensor = _ReshapeLike.apply(tensor, other)  # type: ignore[no-untyped-call]
    return result


class _BoxOfPrompt(torch.autograd.Function):
    """Boxes (1, Q, 4) as (B, 1, 4), or as (B, 0, 4) where Q is 0.

    :param zeros: (B, 1, 4), for its first axis.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, zeros: Tensor) -> Tensor:
        return boxes.transpose(0, 1) if boxes.shape[1] else zeros[:, :0]

    @staticmethod
    def symbolic(g: Any, boxes: Any, zeros: Any) -> Any:
        def constant(*values: int) -> Any:
            return g.op("Constant", value_t=torch.tensor(values))

        # 4 * Q * B: either 0, or at least B and 1, and a slice ends where its axis does.
        size = g.op("Shape", g.op("Reshape", g.op("Mul", boxes, zeros), constant(-1)))
        end = constant(2**31 - 1)
        rows = g.op("Reshape", boxes, constant(-1, 1, 4))
        missing = g.op("Slice", zeros, size, end, constant(0))
        filled = g.op("Concat", rows, missing, axis_i=0)
        return g.op("Slice", filled, constant(0), size, constant(1)).setType(zeros.type())


class _Resized(torch.autograd.Function):
    """Masks (1, K, M, M) interpolated to a size (height, width) that is only known to the graph."""

    @staticmethod
    def forward(ctx: Any, masks: Tensor, size: Tensor, count: int) -> Tensor:
        height, width = size.tolist()
        return functional.interpolate(masks, (height, width), mode="bilinear", align_corners=False)

    @staticmethod
    def symbolic(g: Any, masks: Any, size: Any, count: int) -> Any:
        kept = g.op("Constant", value_t=torch.tensor([1, count]))
        nothing = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        sizes = g.op("Concat", kept, size, axis_i=0)
        return g.op(
            "Resize",
            masks,
            nothing,
            nothing,
            sizes,
            mode_s="linear",
            coordinate_transformation_mode_s="half_pixel",
        )


def resized(masks: Tensor, size: Tensor) -> Tensor:
    """See `_Resized`."""
    result: Tensor = _Resized.apply(masks, size, int(masks.shape[1]))  # type: ignore[no-untyped-call]
    return result
