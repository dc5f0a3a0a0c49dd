"""The mask decoder as tracking needs it, and a mask as a prompt.

What it computes is `SAM2Base._forward_sam_heads` and `_use_mask_as_output`, for one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from samexporter.export_sam2 import SAM2ImageDecoder
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoder_patches import (
    Absent,
    PredictedMasks,
    candidate_prediction,
    mask_embedding,
    position_embedding,
    replace_attentions,
    stable_mask,
)

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

NO_OBJECT = -1024.0  # the logits of a mask where there is no object (sam2's NO_OBJ_SCORE)
CERTAIN = 10.0  # those of a mask that a person gave, and of its object's score


class TrackingDecoder(nn.Module):
    """An object's mask on a frame, how sure the model is of it, and the object's pointer.

    :param model: with the weights of a checkpoint.
    """

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.decoder = SAM2ImageDecoder(model, multimask_output=True).eval()
        # What it refers to is traced with it, and the whole model is not used.
        del self.decoder.model
        self.pointer = model.obj_ptr_proj
        self.scored = bool(model.pred_obj_scores)
        self.soft, self.fixed = bool(model.soft_no_obj_ptr), bool(model.fixed_no_obj_ptr)
        self.pointer_of_best = bool(model.use_multimask_token_for_obj_ptr)
        has_pointers = bool(model.use_obj_ptrs_in_encoder)
        self.no_pointer = model.no_obj_ptr.detach() if self.scored and has_pointers else None
        absent = Absent()  # none is: sam2's decoder looks at padding points
        self.predict = candidate_prediction(self.decoder, "single", absent)
        self.embed_points = labelled_points(self.decoder)
        self.embed_mask = mask_embedding(self.decoder)
        self.absent = absent
        self.eval()

    def forward(
        self,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logits (1, 1, M, M), their score (1, 1), the object's (1, 1) and its pointer (1, C).

        A padding point is added, as sam2's prompt encoder does.

        :param image_embed: (1, C, S, S), conditioned on memories or as the encoder returns it.
        :param point_coords: (1, N, 2), pixels of the model's input.
        :param point_labels: (1, N) float, -1 for a padding point.
        :param mask_input: logits (1, 1, M, M) of a mask to refine, if ``has_mask_input`` (1,) is 1.
        :param multimask: (1,), 1 for the best scored of three masks, 0 for the single one.
        """
        points = [self.embed_points(point_coords, point_labels)]
        dense = self.embed_mask(mask_input, has_mask_input)
        found: PredictedMasks = self.predict(
            image_embed, points, dense, high_res_feats_0, high_res_feats_1
        )
        single, score = stable_mask(self.decoder.mask_decoder, found.masks, found.scores)
        masks = single + multimask * (found.masks[:, 1:] - single)
        scores = score + multimask * (found.scores[:, 1:] - score)
        token = found.tokens[:, 0]
        if self.pointer_of_best:
            token = token + multimask * (found.tokens[:, 1] - token)
        pointer = self.pointer(token)
        if self.scored:
            appears = (found.object_logits > 0).float()
            masks = torch.where(appears[:, :, None, None] > 0, masks, NO_OBJECT)
            if self.no_pointer is not None:
                share = torch.sigmoid(found.object_logits) if self.soft else appears
                known = share * pointer if self.fixed else pointer
                pointer = known + (1 - share) * self.no_pointer
        return masks, scores, found.object_logits, pointer


@contextmanager
def patched_tracking_decoder(module: TrackingDecoder) -> Iterator[None]:
    """Apply the decoder's patches while it is traced, or run; on exit sam2's modules are theirs."""
    with ExitStack() as stack:
        replace_attentions(stack, module.decoder.mask_decoder, module.absent)
        yield


def labelled_points(decoder: SAM2ImageDecoder) -> Callable[[Tensor, Tensor], Tensor]:
    """Replaces ``PromptEncoder._embed_points`` but for the point that it adds.

    (1, N, 2) and (1, N) to (1, N, C). The label's embedding is a product with its one-hot code; of
    a label of -1 that is all, its place counts for nothing.
    """
    encoder = decoder.prompt_encoder
    weights = [encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)]
    table = torch.cat(weights).detach()
    known = torch.arange(-1, len(table) - 1, dtype=torch.float32)
    position = position_embedding(decoder)

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        labels = labels[:, :, None]
        return position(coords) * (labels >= 0).float() + (labels == known).float() @ table

    return embed


class MaskPrompt(nn.Module):
    """A mask that a person gives for an object, as the tracker goes on with it.

    :param model: with the weights of a checkpoint; it must have object pointers.
    """

    @torch.no_grad()
    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.no_memory = model.no_mem_embed.detach().reshape(1, -1, 1, 1)
        self.downsample = model.mask_downsample
        # Linear and antialiased to a quarter: a triangle over 8 pixels, less of it at the edges.
        triangle = 1 - (torch.arange(8) - 3.5).abs() / 4
        triangle = triangle / triangle.sum()
        self.kernel = torch.outer(triangle, triangle)[None, None]
        inside = functional.conv1d(
            torch.ones(1, 1, model.image_size), triangle[None, None], stride=4, padding=2
        )
        self.columns, self.rows = 1 / inside[:, :, None, :], 1 / inside[:, :, :, None]
        self.eval()

    def forward(self, image_embed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the decoder is fed for the object's pointer, and the mask's own logits and score.

        :param image_embed: (1, C, S, S), as the encoder's graph returns it.
        :param mask: (1, 1, 16 * S, 16 * S), 1 inside and 0 outside.
        :returns: the embedding without memory (1, C, S, S), the mask input (1, 1, M, M), the mask's
            logits (1, 1, M, M), and the logits (1, 1) of whether there is an object.
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
