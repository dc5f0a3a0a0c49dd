"""Encoder and decoder in onnxruntime on the CPU: how images and prompts go through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.inference.metrics import largest_difference
from tasks.inference.preprocessing import preprocess
from tasks.inference.prompts import Prompt, prompt_tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    Floats = NDArray[np.float32]


@dataclass
class Predictions:
    """What one implementation makes of an image, and of prompts by their name.

    ``features`` are the encoder's outputs; ``masks`` logits (K, M, M), ``scores`` (K,),
    ``mask_inputs`` (1, M, M) of those prompts that refine a mask.
    """

    features: dict[str, Floats] = field(default_factory=dict)
    masks: dict[str, Floats] = field(default_factory=dict)
    scores: dict[str, Floats] = field(default_factory=dict)
    mask_inputs: dict[str, Floats] = field(default_factory=dict)

    def best(self, prompt: str) -> int:
        """Which of the masks of a prompt has the highest score."""
        return int(self.scores[prompt].argmax())

    def best_mask(self, prompt: str) -> Floats:
        """The logits (1, M, M) of that mask."""
        index = self.best(prompt)
        return self.masks[prompt][index : index + 1]


class PromptedImage(NamedTuple):
    """An image (S, S, 3), prompts, and the masks (1, M, M) that some of them refine."""

    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    mask_inputs: Mapping[str, Floats]


def create_session(path: str) -> InferenceSession:
    """A session on the CPU; the file's format is told by its ending."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def tensors_of(path: str) -> dict[str, Any]:
    """The inputs and outputs of a graph in either format, as a manifest has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is only looked at
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    dtypes = {"tensor(float)": "float32"}
    return {
        kind: [
            {
                "name": each.name,
                "dtype": dtypes.get(each.type, each.type),
                "shape": list(each.shape),
            }
            for each in values
        ]
        for kind, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }


class Encoder:
    """The encoder's graph."""

    def __init__(self, path: str) -> None:
        self._session = create_session(path)
        self._names = [output.name for output in self._session.get_outputs()]
        self.size = int(self._session.get_inputs()[0].shape[2])

    def run(self, image: NDArray[np.uint8]) -> dict[str, Floats]:
        """The features of an image (S, S, 3), by name."""
        outputs = self._session.run(None, {"image": preprocess(image)})
        return dict(zip(self._names, outputs, strict=True))


class Decoder:
    """The decoder's graph."""

    def __init__(self, path: str) -> None:
        self._session = create_session(path)

    def run(
        self, features: Mapping[str, Floats], coords: Floats, labels: Floats, mask: Floats | None
    ) -> tuple[Floats, Floats]:
        """Mask logits (K, M, M) and scores (K,) of a prompt.

        :param coords: (1, N, 2), in pixels of the encoder's input.
        :param labels: (1, N).
        :param mask: the logits (1, M, M) of a mask to refine.
        """
        import numpy as np

        side = features["high_res_feats_0"].shape[2]
        given = np.zeros((1, 1, side, side), np.float32) if mask is None else mask[None]
        feeds: dict[str, Any] = {
            **features,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": given,
            "has_mask_input": np.array([mask is not None], np.float32),
        }
        masks, scores = self._session.run(["masks", "iou_predictions"], feeds)
        return masks[0], scores[0]


def run_graphs(encoder: str, decoder: str, images: Sequence[PromptedImage]) -> list[Predictions]:
    """What both graphs make of images and prompts; one graph in memory at a time."""
    encoding = Encoder(encoder)
    features = [encoding.run(each.image) for each in images]
    del encoding
    decoding = Decoder(decoder)
    found = []
    for each, encoded in zip(images, features, strict=True):
        predictions = Predictions(encoded, mask_inputs=dict(each.mask_inputs))
        for prompt in each.prompts:
            coords, labels = prompt_tensors(prompt, each.image.shape[0])
            mask = each.mask_inputs.get(prompt.name)
            masks, scores = decoding.run(encoded, coords, labels, mask)
            predictions.masks[prompt.name], predictions.scores[prompt.name] = masks, scores
        found.append(predictions)
    return found


def differences(found: Predictions, expected: Predictions) -> dict[str, Any]:
    """The largest differences, None for what is not a number.

    :returns: ``features``: relative to each encoder output's largest magnitude; ``prompts``: for
        each prompt that was answered those of ``masks`` (logits) and ``scores``.
    """
    import numpy as np

    features = {}
    for name, values in found.features.items():
        largest = float(np.abs(expected.features[name]).max())
        difference = largest_difference(values, expected.features[name])
        features[name] = difference / largest if difference and largest else difference
    return {
        "features": features,
        "prompts": {
            name: {
                "masks": largest_difference(found.masks[name], expected.masks[name]),
                "scores": largest_difference(found.scores[name], expected.scores[name]),
            }
            for name in found.masks
        },
    }
