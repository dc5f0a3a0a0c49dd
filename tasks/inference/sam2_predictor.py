"""sam2's own predictor in PyTorch, for images placed as a client places them. Needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from tasks.clients.contract import FEATURES, Resize
from tasks.inference.preprocessing import Floats, Placement, preprocess


def predictor_of(model: SAM2Base, resize: Resize = "stretch") -> RolePredictor:
    """sam2's own predictor, with feature maps for the model's image size instead of 1024 pixels.

    By itself it stretches images. For a client that scales by the longer side, images are prepared
    here instead.
    """
    predictor = RolePredictor(model)
    grid = model.image_size // model.backbone_stride
    predictor._bb_feat_sizes = [(grid * scale, grid * scale) for scale in (4, 2, 1)]
    if resize == "longest side":
        predictor._transforms = _LongestSide(model.image_size)
    return predictor


class RolePredictor(SAM2ImagePredictor):  # type: ignore[misc]
    """sam2's predictor with features by role; see `reference.Predictor`."""

    @property
    def features_by_role(self) -> dict[str, Floats]:
        """The encoder's outputs about the image."""
        maps = (*self._features["high_res_feats"], self._features["image_embed"])
        return {role: each.numpy() for role, each in zip(FEATURES[-len(maps) :], maps, strict=True)}


class _LongestSide:
    """Replaces sam2's ``SAM2Transforms`` for images that are not stretched."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.place = Placement(size, size, size, "longest side")

    def __call__(self, image: NDArray[np.uint8]) -> Any:
        self.place = Placement(self.size, image.shape[1], image.shape[0], "longest side")
        return torch.from_numpy(preprocess(image, self.place)[0])

    def transform_coords(self, coords: Any, normalize: bool, orig_hw: tuple[int, int]) -> Any:
        """Points from the image's pixels to the input's pixels."""
        return coords * self.place.right

    def transform_boxes(self, boxes: Any, normalize: bool, orig_hw: tuple[int, int]) -> Any:
        """Boxes from the image's pixels to corners (B, 2, 2) in the input's pixels."""
        return boxes.reshape(-1, 2, 2) * self.place.right

    def postprocess_masks(self, masks: Any, orig_hw: tuple[int, int]) -> Any:
        """The unchanged low-resolution masks, because only these are used."""
        return masks
