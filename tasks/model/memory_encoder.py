"""sam2's memory encoder: turns a frame and an object's mask on it into a memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.patching import separated

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


class MemoryWriter(nn.Module):
    """Encodes an object's mask on a frame as `SAM2Base._encode_new_memory` does.

    :param model: with the weights of a checkpoint; its memory encoder must not be empty.
    """

    @torch.no_grad()
    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.no_memory = model.no_mem_embed.detach().reshape(1, -1, 1, 1)
        self.encoder = model.memory_encoder
        self.scale, self.bias = model.sigmoid_scale_for_mem_enc, model.sigmoid_bias_for_mem_enc
        self.binarized = bool(model.binarize_mask_from_pts_for_mem_enc)
        embedding = model.no_obj_embed_spatial
        self.no_object = None if embedding is None else embedding.detach().reshape(1, -1, 1, 1)
        self.perceiver = getattr(model, "spatial_perceiver", None)  # of EdgeTAM
        side = model.image_size // model.backbone_stride
        memory = torch.zeros(1, model.mem_dim, side, side)
        self.places = separated(self.encoder.position_encoding(memory))
        self.eval()

    def forward(
        self,
        image_embed: Tensor,
        low_res_masks: Tensor,
        prompted: Tensor,
        object_score_logits: Tensor | None = None,
    ) -> Tensor:
        """The memory (1, D, S, S), or EdgeTAM's latents of it (1, L, D).

        :param image_embed: (1, C, S, S), as the encoder's graph returns it.
        :param low_res_masks: logits (1, 1, 4 * S, 4 * S).
        :param prompted: (1,), 1 on a frame that a person prompted, else 0.
        :param object_score_logits: (1, 1), above 0 where the object is on the frame; only in
            SAM 2.1.
        """
        large = functional.interpolate(
            low_res_masks, scale_factor=4.0, mode="bilinear", align_corners=False
        )
        mask = torch.sigmoid(large)
        if self.binarized:
            mask = mask + prompted * ((large > 0).float() - mask)
        features = image_embed - self.no_memory
        masks = self.encoder.mask_downsampler(mask * self.scale + self.bias)
        fused = self.encoder.fuser(self.encoder.pix_feat_proj(features) + masks)
        memory: Tensor = self.encoder.out_proj(fused)
        if self.no_object is not None and object_score_logits is not None:
            memory = memory + (object_score_logits <= 0).float()[:, :, None, None] * self.no_object
        if self.perceiver is not None:
            memory = self.perceiver(memory, self.places)
        return memory
