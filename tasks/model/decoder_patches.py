"""The mask decoder's inputs and outputs for each interface, and all of its patches together.

B is the number of prompts, N the number of a prompt's points, K the number of its masks. Tensors
that all prompts share keep a first axis of 1 for as long as possible. B and N are free axes; the
graph computes no sizes from them, because onnxruntime-web would do that on the CPU. Each forward
takes the tensors of `tasks.clients.contract.traced_contract` in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from samexporter.export_sam2 import SAM2ImageDecoder
from torch import Tensor

from tasks.clients.contract import Interface, MaskChoice
from tasks.model.decoder_attention import PaddingBias, replace_attentions
from tasks.model.mask_prediction import constant_tokens, mask_prediction
from tasks.model.operators import resized
from tasks.model.patching import Forward, replace_methods
from tasks.model.prompt_embedding import (
    box_embedding,
    integer_point_embedding,
    mask_embedding,
    point_embedding,
    zeros_of_prompts,
)


@contextmanager
def patched_decoder(
    decoder: SAM2ImageDecoder, masks: MaskChoice, interface: Interface
) -> Iterator[None]:
    """Apply every decoder patch to samexporter's module; undo them on exit."""
    bias = PaddingBias()
    if interface == "points and boxes":
        forward = boxes_decoder(decoder, masks)
    else:
        forward = points_decoder(decoder, masks, bias)
    with ExitStack() as stack:
        replace_attentions(stack, decoder.mask_decoder, bias)
        replace_methods(stack, decoder, forward=forward)
        yield


def count_of_maps(decoder: SAM2ImageDecoder) -> int:
    """The number of feature maps that the decoder takes: the embedding, and two of high resolution
    or none.
    """
    return 3 if decoder.mask_decoder.use_high_res_features else 1


def points_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice, bias: PaddingBias) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder.forward``, with the same inputs and outputs.

    It takes B prompts of N points about one image. A point with label -1 pads a shorter prompt and
    changes nothing. samexporter's and sam2's decoders would treat it as a further padding point, so
    that a prompt run with longer ones, and each click of a client that pads, would get a different
    mask than on its own. A prompt with only a mask (N is 0, or each label is -1) gets the answer of
    ``SAM2ImagePredictor.predict`` without points.
    ``mask_input`` is (B, 1, M, M), or (1, 1, M, M) for all prompts. The graph refuses inputs with
    different numbers of prompts or points. Largest difference: 1e-6.

    For one prompt ``orig_im_size`` (2,) int64, height and width of the original image in pixels,
    can come last. Then the outputs are masks (1, K, height, width), interpolated as
    ``SAM2Transforms.postprocess_masks`` does, scores, and the masks as the model draws them.
    """
    embed_points, embed_masks = point_embedding(decoder), mask_embedding(decoder)
    predict = mask_prediction(decoder, choice)
    tokens = len(constant_tokens(decoder))
    maps = count_of_maps(decoder)

    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        features, (coords, labels, mask, has_mask, *image_size) = inputs[:maps], inputs[maps:]
        points = [embed_points(coords, labels)]
        bias.set(labels, tokens)
        dense = embed_masks(mask, has_mask)
        predicted = predict(features[0], points, dense, *features[1:])
        masks, scores = predicted.masks, predicted.scores
        if not image_size:
            return torch.clamp(masks, -32.0, 32.0), scores
        large = resized(masks, image_size[0], int(masks.shape[1]))
        return large, scores, torch.clamp(masks, -32.0, 32.0)

    return forward


def boxes_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Forward:
    """A decoder of points, boxes or both, with the inputs of transformers.js; without a mask input.

    ``point_coords`` (1, B, N, 2), ``point_labels`` (1, B, N) int64 and ``boxes`` (1, Q, 4), each
    box as its top left and bottom right corners. Q is 0 or B; with only boxes the points are
    (1, 1, 0, 2). Each prompt has one padding point, as in transformers' ``Sam2PromptEncoder``, so
    the masks equal those of sam2's predictor. Outputs are masks (1, B, K, M, M), scores (1, B, K)
    and the logits (1, B, 1) of the object's presence.
    """
    embed_points, embed_boxes = integer_point_embedding(decoder), box_embedding(decoder)
    predict = mask_prediction(decoder, choice)
    no_mask = decoder.prompt_encoder.no_mask_embed.weight.detach()
    maps = count_of_maps(decoder)

    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, (coords, labels, boxes) = inputs[:maps], inputs[maps:]
        points = embed_points(coords, labels)
        sparse = [points, embed_boxes(boxes, zeros_of_prompts(points))]
        predicted = predict(features[0], sparse, no_mask, *features[1:])
        masks = torch.clamp(predicted.masks, -32.0, 32.0)
        return masks[None], predicted.scores[None], predicted.object_logits[None]

    return forward
