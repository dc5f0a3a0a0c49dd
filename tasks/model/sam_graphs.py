"""The graphs of segment-anything's model, in the form of `families.family.Graphs`.

SAM 1's prompt encoder and mask decoder equal SAM 2's without high-resolution feature maps and
without the object score, so sam2's classes are traced with SAM 1's weights and SAM 2's patches.
The differences: a prompt with a box has no padding point; logits are not clamped; and a mask at the
image's size is interpolated in two steps, because the image is padded and not stretched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from samexporter.export_sam2 import SAM2ImageDecoder
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional

from tasks.clients.contract import (
    Dimensions,
    Interface,
    MaskChoice,
    PromptChoice,
    traced_contract,
)
from tasks.model import AttentionKind
from tasks.model.decoder_attention import PaddingBias, replace_attentions
from tasks.model.families.family import Traceable
from tasks.model.mask_prediction import constant_tokens, mask_prediction
from tasks.model.operators import constant_output, cropped, resized
from tasks.model.patching import Forward, replace_methods
from tasks.model.prompt_embedding import integer_point_embedding, mask_embedding, point_embedding
from tasks.model.sam_vit import patched_image_encoder


def dimensions_of(model: Sam) -> Dimensions:
    """The dimensions of segment-anything's model."""
    size: int = model.image_encoder.img_size
    return Dimensions(
        image_size=size,
        embed_dim=model.prompt_encoder.embed_dim,
        feature_channels=(),
        stride=size // model.prompt_encoder.image_embedding_size[0],
        masks=model.mask_decoder.num_multimask_outputs,
        has_places=True,
    )


class EncoderWithPositions(nn.Module):
    """An image encoder that takes (1, 3, S, S) and also returns the encoding of the embedding's
    places (1, C, T, T).

    transformers' ``SamModel`` passes this encoding from encoder to decoder. It is the same for
    every image; a client that has no name for it gets a graph without it.
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder
        self.places: Tensor = model.prompt_encoder.get_dense_pe().detach()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.image_encoder(image)
        return embedding, constant_output(self.places, embedding)


def encoder(model: Sam, attention: AttentionKind) -> Traceable:
    """The graph from an image to its embedding."""
    return Traceable(
        EncoderWithPositions(model).eval(),
        patched_image_encoder(model.image_encoder, attention),
        traced_contract(dimensions_of(model), "points", "multi", "one")["encoder"],
    )


def decoder(
    model: Sam, interface: Interface, masks: MaskChoice, prompts: PromptChoice
) -> Traceable:
    """The graph from an embedding and prompts to masks."""
    dimensions = dimensions_of(model)
    module = decoder_as_in_sam2(model, dimensions)
    return Traceable(
        module,
        patched_decoder(module, masks, interface),
        traced_contract(dimensions, interface, masks, prompts)["decoder"],
    )


def trackers(model: Sam) -> Mapping[str, Traceable]:
    """None: SAM 1 has no memory of frames."""
    return {}


def decoder_as_in_sam2(model: Sam, dimensions: Dimensions) -> SAM2ImageDecoder:
    """samexporter's module of sam2's prompt encoder and mask decoder with a model's weights."""
    size, width, side = (
        dimensions.image_size,
        dimensions.embed_dim,
        dimensions.image_size // dimensions.stride,
    )
    prompt_encoder = PromptEncoder(width, (side, side), (size, size), mask_in_chans=16)
    prompt_encoder.load_state_dict(model.prompt_encoder.state_dict())
    mask_decoder = MaskDecoder(
        transformer_dim=width,
        transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=8, mlp_dim=2048),
        num_multimask_outputs=dimensions.masks,
    )
    renamed = {
        name.replace(".lin1.", ".layers.0.").replace(".lin2.", ".layers.1."): weight
        for name, weight in model.mask_decoder.state_dict().items()
    }
    mask_decoder.load_state_dict(renamed)
    parts = SimpleNamespace(
        sam_mask_decoder=mask_decoder, sam_prompt_encoder=prompt_encoder, image_size=size
    )
    module = SAM2ImageDecoder(parts, multimask_output=True).eval()
    del module.model
    return module


@contextmanager
def patched_decoder(
    decoder: SAM2ImageDecoder, masks: MaskChoice, interface: Interface
) -> Iterator[None]:
    """Apply every decoder patch; undo them on exit."""
    bias = PaddingBias(box_has_padding=False)
    if interface == "point batches":
        forward = batches_decoder(decoder, masks)
    else:
        forward = points_decoder(decoder, masks, bias)
    with ExitStack() as stack:
        replace_attentions(stack, decoder.mask_decoder, bias)
        replace_methods(stack, decoder, forward=forward)
        yield


def points_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice, bias: PaddingBias) -> Forward:
    """A decoder of points and a mask, with the inputs of segment-anything's own ONNX export.

    It answers like ``SamPredictor.predict_torch``: prompts as in `decoder_patches.points_decoder`,
    logits as the model draws them. A ``has_mask_input`` of 0 or less means no mask: osam sends -1.
    With ``orig_im_size`` (2,) float32, height and width of the image in pixels, for one prompt,
    there are three outputs: masks (1, K, height, width), interpolated as
    ``Sam.postprocess_masks`` does, scores, and the masks as the model draws them.
    """
    embed_points, embed_masks = point_embedding(decoder), mask_embedding(decoder)
    predict = mask_prediction(decoder, choice)
    tokens = len(constant_tokens(decoder))
    side = int(decoder.img_size)

    def forward(
        image_embed: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        *image_size: Tensor,
    ) -> tuple[Tensor, ...]:
        points = [embed_points(coords, labels)]
        bias.set(labels, tokens)
        dense = embed_masks(mask, (has_mask > 0).float())
        predicted = predict(image_embed, points, dense)
        masks, scores = predicted.masks, predicted.scores
        if not image_size:
            return masks, scores
        count = int(masks.shape[1])
        (size,) = image_size
        padded = functional.interpolate(masks, (side, side), mode="bilinear", align_corners=False)
        scaled = torch.floor(size * (side / size.max()) + 0.5)
        return resized(cropped(padded, scaled.long()), size.long(), count), scores, masks

    return forward


def batches_decoder(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Forward:
    """A decoder of points with the inputs of transformers.js for ``SamModel``.

    ``point_coords`` (1, B, N, 2) and ``point_labels`` (1, B, N) int64. Each prompt has one padding
    point, as in transformers' ``SamPromptEncoder``. Outputs are masks (1, B, K, M, M) and scores
    (1, B, K).
    """
    embed_points = integer_point_embedding(decoder)
    predict = mask_prediction(decoder, choice)
    no_mask = decoder.prompt_encoder.no_mask_embed.weight.detach()

    def forward(
        image_embed: Tensor, places: Tensor, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        predicted = predict(image_embed, [embed_points(coords, labels)], no_mask, places=places)
        return predicted.masks[None], predicted.scores[None]

    return forward
