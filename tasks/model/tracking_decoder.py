"""The mask decoder for tracking, and a mask as a prompt.

They compute `SAM2Base._forward_sam_heads` and `_use_mask_as_output` for one object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageDecoder
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoder_attention import PaddingBias, replace_attentions
from tasks.model.mask_prediction import candidate_prediction, stable_mask
from tasks.model.prompt_embedding import mask_embedding, padded_point_embedding

NO_OBJECT = -1024.0  # a mask's logits where there is no object (sam2's NO_OBJ_SCORE)
CERTAIN = 10.0  # the logits of a user's mask, and of its object's score


class TrackingDecoder(nn.Module):
    """Predicts an object's mask on a frame, its scores, and the object's pointer."""

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.decoder = SAM2ImageDecoder(model, multimask_output=True).eval()
        del self.decoder.model  # not used, but it would be traced too
        self.pointer = model.obj_ptr_proj
        self.scored = bool(model.pred_obj_scores)
        self.soft, self.fixed = bool(model.soft_no_obj_ptr), bool(model.fixed_no_obj_ptr)
        self.pointer_of_best = bool(model.use_multimask_token_for_obj_ptr)
        has_pointers = bool(model.use_obj_ptrs_in_encoder)
        self.no_pointer = model.no_obj_ptr.detach() if self.scored and has_pointers else None
        self.predict = candidate_prediction(self.decoder, "single")
        self.embed_points = padded_point_embedding(self.decoder)
        self.embed_mask = mask_embedding(self.decoder)
        self.eval()

    def forward(
        self, image_embed: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logits (1, 1, M, M), their score (1, 1), the object's (1, 1) and its pointer (1, C).

        It adds a padding point, as sam2's prompt encoder does. The inputs after the embedding are
        ``high_res_feats_0`` and ``_1``, if the model has these, and the rest of

        :param image_embed: (1, C, S, S), conditioned on memories or as the encoder returns it.
        :param point_coords: (1, N, 2), pixels of the model's input.
        :param point_labels: (1, N) float, -1 for a padding point.
        :param mask_input: logits (1, 1, M, M) of a mask to refine, if ``has_mask_input`` (1,) is 1.
        :param multimask: (1,), 1 for the best-scored of three masks, 0 for the single one.
        """
        *details, point_coords, point_labels, mask_input, has_mask_input, multimask = inputs
        points = [self.embed_points(point_coords, point_labels)]
        dense = self.embed_mask(mask_input, has_mask_input)
        predicted = self.predict(image_embed, points, dense, *details)
        single, score = stable_mask(self.decoder.mask_decoder, predicted.masks, predicted.scores)
        masks = single + multimask * (predicted.masks[:, 1:] - single)
        scores = score + multimask * (predicted.scores[:, 1:] - score)
        token = predicted.tokens[:, 0]
        if self.pointer_of_best:
            token = token + multimask * (predicted.tokens[:, 1] - token)
        pointer = self.pointer(token)
        if self.scored:
            appears = (predicted.object_logits > 0).float()
            masks = torch.where(appears[:, :, None, None] > 0, masks, NO_OBJECT)
            if self.no_pointer is not None:
                share = torch.sigmoid(predicted.object_logits) if self.soft else appears
                kept = share * pointer if self.fixed else pointer
                pointer = kept + (1 - share) * self.no_pointer
        return masks, scores, predicted.object_logits, pointer


@contextmanager
def patched_tracking_decoder(module: TrackingDecoder) -> Iterator[None]:
    """Apply the patches of the decoder's attentions; undo them on exit."""
    with ExitStack() as stack:
        # The bias stays None: sam2's tracker attends to padding points.
        replace_attentions(stack, module.decoder.mask_decoder, PaddingBias())
        yield


class MaskPrompt(nn.Module):
    """Turns a user's mask of an object into the tracker's inputs; the model must have object
    pointers.
    """

    @torch.no_grad()
    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.no_memory = model.no_mem_embed.detach().reshape(1, -1, 1, 1)
        self.downsample = model.mask_downsample
        # Linear, antialiased scaling to a quarter: a triangle over 8 pixels, cut at the edges.
        triangle = 1 - (torch.arange(8) - 3.5).abs() / 4
        triangle = triangle / triangle.sum()
        self.kernel = torch.outer(triangle, triangle)[None, None]
        inside = functional.conv1d(
            torch.ones(1, 1, model.image_size), triangle[None, None], stride=4, padding=2
        )
        self.columns, self.rows = 1 / inside[:, :, None, :], 1 / inside[:, :, :, None]
        self.eval()

    def forward(self, image_embed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The decoder's inputs for the object's pointer, and the mask's own logits and score.

        :param image_embed: (1, C, S, S), as the encoder's graph returns it.
        :param mask: (1, 1, 16 * S, 16 * S), 1 inside and 0 outside.
        :returns: the embedding without memory (1, C, S, S), the mask input (1, 1, M, M), the mask's
            logits (1, 1, M, M), and the logits (1, 1) of the object's presence.
        """
        smaller = functional.conv2d(mask, self.kernel, stride=4, padding=2)
        share = smaller * self.columns * self.rows
        appears = mask.amax(dim=(2, 3))
        return (
            image_embed - self.no_memory,
            self.downsample(mask),
            2 * CERTAIN * share - CERTAIN,
            2 * CERTAIN * appears - CERTAIN,
        )
