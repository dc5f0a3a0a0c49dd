"""sam2's own answers in PyTorch, which the graphs are measured against. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from tasks.clients.client import Client
from tasks.clients.contract import MaskChoice, Resize
from tasks.inference.preprocessing import Floats, Placement, preprocess
from tasks.inference.prompts import Prompt
from tasks.inference.sessions import Predictions


def predictor_of(model: SAM2Base, resize: Resize = "stretch") -> SAM2ImagePredictor:
    """sam2's own predictor; by itself its feature maps have the sizes of 1024 pixels.

    It stretches images. One that a client places by its longer side is prepared here in its stead.
    """
    predictor = SAM2ImagePredictor(model)
    grid = model.image_size // model.backbone_stride
    predictor._bb_feat_sizes = [(grid * scale, grid * scale) for scale in (4, 2, 1)]
    if resize == "longest side":
        predictor._transforms = _LongestSide(model.image_size)
    return predictor


class _LongestSide:
    """Takes the place of sam2's ``SAM2Transforms``, for images that are not stretched."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.place = Placement(size, size, size, "longest side")

    def __call__(self, image: NDArray[np.uint8]) -> Any:
        self.place = Placement(self.size, image.shape[1], image.shape[0], "longest side")
        return torch.from_numpy(preprocess(image, self.place)[0])

    def transform_coords(self, coords: Any, normalize: bool, orig_hw: tuple[int, int]) -> Any:
        """Points in the image's pixels as those of the input."""
        return coords * self.place.right

    def transform_boxes(self, boxes: Any, normalize: bool, orig_hw: tuple[int, int]) -> Any:
        """Boxes in the image's pixels as corners (B, 2, 2) in those of the input."""
        return boxes.reshape(-1, 2, 2) * self.place.right

    def postprocess_masks(self, masks: Any, orig_hw: tuple[int, int]) -> Any:
        """Low-resolution masks as they are: nothing else is used."""
        return masks


def predict(
    predictor: SAM2ImagePredictor,
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    choice: MaskChoice,
    client: Client | None = None,
) -> Predictions:
    """sam2's answers about an image (H, W, 3), made to return the masks that the graph does.

    :param client: masks at the image's size are kept where its decoder returns such.
    """
    predictor.set_image(image)
    first, second = predictor._features["high_res_feats"]
    predictions = Predictions(
        {
            "high_res_feats_0": first.numpy(),
            "high_res_feats_1": second.numpy(),
            "image_embed": predictor._features["image_embed"].numpy(),
        }
    )
    for prompt in prompts:
        if prompt.refines is not None:
            predictions.mask_inputs[prompt.name] = predictions.best_mask(prompt.refines)
        large, masks, scores = _answer(predictor, prompt, image, predictions, choice)
        predictions.add(prompt.name, masks, scores)
        if client is not None and "orig_im_size" in client.decoder.inputs:
            predictions.full_masks[prompt.name] = large
    return predictions


def _answer(
    predictor: SAM2ImagePredictor,
    prompt: Prompt,
    image: NDArray[np.uint8],
    predictions: Predictions,
    choice: MaskChoice,
) -> tuple[Floats, Floats, Floats]:
    """Mask logits at the image's size (K, H, W) and small (K, M, M), and scores (K,)."""
    height, width = image.shape[:2]
    points, labels = prompt.without_padding()
    arguments = {
        "point_coords": np.array(points) * (width, height) if points else None,
        "point_labels": np.array(labels) if points else None,
        "box": np.array(prompt.box) * (width, height, width, height) if prompt.box else None,
        "mask_input": predictions.mask_inputs[prompt.name] if prompt.has_mask else None,
        "return_logits": True,
    }
    if choice == "all":
        decoder = predictor.model.sam_mask_decoder
        # Its single mask, be it stable or not.
        with patch.object(decoder, "dynamic_multimask_via_stability", False):
            answers = [
                predictor.predict(multimask_output=each, **arguments) for each in (False, True)
            ]
        large, scores, masks = (np.concatenate(each) for each in zip(*answers, strict=True))
        return large, masks, scores
    large, scores, masks = predictor.predict(multimask_output=choice != "single", **arguments)
    order = np.argsort(-scores, kind="stable")
    kept = {"best": order[:1], "ranked": order}.get(choice, np.arange(len(scores)))
    return large[kept], masks[kept], scores[kept]
