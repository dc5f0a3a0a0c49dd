"""segment-anything's own predictor in PyTorch, for images as a client places them. Needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from tasks.clients.contract import PLACES, Resize
from tasks.inference.preprocessing import Floats, Placement, preprocess, resized


def predictor_of(model: Sam, resize: Resize = "stretch") -> PlacingPredictor:
    """segment-anything's predictor; see `reference.Predictor`."""
    return PlacingPredictor(model, resize)


class PlacingPredictor(SamPredictor):  # type: ignore[misc]
    """segment-anything's ``SamPredictor``, for images that can be stretched instead of padded.

    By itself it scales images as bytes, with Pillow; here they are scaled as for the graphs. If the
    client has a canvas, the canvas is the image, and masks have its size.
    """

    def __init__(self, model: Sam, resize: Resize) -> None:
        super().__init__(model)
        self.resize = resize
        self.side = int(model.image_encoder.img_size)

    @property
    def features_by_role(self) -> dict[str, Floats]:
        """The encoder's outputs about the image."""
        places = self.model.prompt_encoder.get_dense_pe()
        return {"image_embed": self.features.numpy(), PLACES: places.numpy()}

    @torch.no_grad()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an RGB image (H, W, 3)."""
        height, width = image.shape[:2]
        place = Placement(self.side, width, height, self.resize)
        self.transform = Placed(place)
        pixels = resized(image, place.scaled_height, place.scaled_width).astype(np.float32)
        if self.resize == "canvas":
            pixels = preprocess(image, place)
        self.set_torch_image(torch.from_numpy(pixels.transpose(2, 0, 1)[None]), place.full_size)


class Placed:
    """Replaces segment-anything's ``ResizeLongestSide`` for prompts."""

    def __init__(self, place: Placement) -> None:
        self.scale = (place.right, place.down)

    def apply_coords(self, coords: NDArray[Any], original_size: tuple[int, int]) -> NDArray[Any]:
        """Points from the image's pixels to the input's pixels."""
        return coords * self.scale

    def apply_boxes(self, boxes: NDArray[Any], original_size: tuple[int, int]) -> NDArray[Any]:
        """Boxes from the image's pixels to the input's pixels."""
        return boxes * (*self.scale, *self.scale)
