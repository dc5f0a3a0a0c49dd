"""A model's answers in PyTorch, the reference for its graphs. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from tasks.clients.client import Client
from tasks.clients.contract import Dimensions, MaskChoice, Resize
from tasks.inference.preprocessing import Floats
from tasks.inference.prompts import Prompt
from tasks.inference.sessions import Predictions
from tasks.model.families.family import load_function
from tasks.model.families.registry import family_of
from tasks.model.load import recognized
from tasks.model.reference_package import import_first
from tasks.model.trained import TrainedModel


class Predictor(Protocol):
    """The interface of a family's predictor, as of sam2's and segment-anything's."""

    model: Any

    @property
    def features_by_role(self) -> Mapping[str, Floats]:
        """The encoder's outputs about the image."""

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an RGB image (H, W, 3)."""

    def predict(self, **prompt: Any) -> tuple[Floats, Floats, Floats]:
        """Masks at the image's size (K, H, W), scores (K,), and small masks (K, M, M)."""


class Reference:
    """A trained model in PyTorch, from its family's package if it has one.

    :raises StageError: when the checkpoint cannot be loaded, or the package is not installed.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.architecture = recognized(trained.architecture, trained.checkpoint)
        self.family = family_of(self.architecture)
        if self.family.package and trained.package:
            import_first(trained.package, self.family.package)
        self.model: Any = trained.load()
        self.dimensions: Dimensions = self.family.dimensions_of(self.model)

    @property
    def image_size(self) -> int:
        """Height and width of the encoder's input, in pixels."""
        return self.dimensions.image_size

    def predictor(self, resize: Resize = "stretch") -> Predictor:
        """The family's predictor, for images placed as a client places them."""
        predictor: Predictor = load_function(self.family.predictor)(self.model, resize)
        return predictor


def predict(
    predictor: Predictor,
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    choice: MaskChoice,
    client: Client | None = None,
) -> Predictions:
    """A predictor's answers about an image (H, W, 3), with the same choice of masks as the graph.

    :param client: masks at the image's size are kept if this client's decoder returns them.
    """
    predictor.set_image(image)
    predictions = Predictions(dict(predictor.features_by_role))
    for prompt in prompts:
        if prompt.refines is not None:
            predictions.mask_inputs[prompt.name] = predictions.best_mask(prompt.refines)
        large, masks, scores = _answer(predictor, prompt, image, predictions, choice)
        predictions.add(prompt.name, masks, scores)
        if client is not None and "orig_im_size" in client.decoder.inputs:
            predictions.full_masks[prompt.name] = large
    return predictions


def _answer(
    predictor: Predictor,
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
        # sam2's single mask, whether it is stable or not.
        decoder = getattr(predictor.model, "sam_mask_decoder", predictor.model)
        with patch.object(decoder, "dynamic_multimask_via_stability", False, create=True):
            answers = [
                predictor.predict(multimask_output=each, **arguments) for each in (False, True)
            ]
        large, scores, masks = (np.concatenate(each) for each in zip(*answers, strict=True))
        return large, masks, scores
    large, scores, masks = predictor.predict(multimask_output=choice != "single", **arguments)
    order = np.argsort(-scores, kind="stable")
    kept = {"best": order[:1], "ranked": order}.get(choice, np.arange(len(scores)))
    return large[kept], masks[kept], scores[kept]
