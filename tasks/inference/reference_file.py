"""The file of PyTorch's answers about drawn images: ``reference.npz``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from tasks.clients.contract import Dimensions, MaskChoice
from tasks.inference.metrics import stored_choice
from tasks.inference.sessions import Predictions

# For prompts with every value of every input, the file keeps every `STRIDE`-th row and column of
# the masks.
STRIDE = 4


class Reference(NamedTuple):
    """Answers by image, and answers to prompts with every value of every input.

    ``inputs`` has the latter, about the first image; its masks are (K, M / 4, M / 4).
    ``dimensions`` are the model's, ``against`` the hashes of the files that answered.
    """

    dimensions: Dimensions
    images: Sequence[Predictions]
    inputs: Predictions
    against: dict[str, str]


def write_reference(
    path: str,
    dimensions: Dimensions,
    answers: Mapping[MaskChoice, Sequence[Predictions]],
    inputs: Mapping[MaskChoice, Predictions],
    against: dict[str, str],
    embeddings: bool = False,
) -> None:
    """Write masks (K, M, M), scores (K,) and refined masks (1, M, M); optionally ``embeddings``.

    :param answers: by the choice of masks, by image; ``inputs``: see `Reference`.
    """
    arrays: dict[str, Any] = {}
    for choice, images in answers.items():
        for place, predictions in (*enumerate(images), ("inputs", inputs[choice])):
            step = STRIDE if place == "inputs" else 1
            for name, masks in predictions.masks.items():
                arrays[f"{choice}/{place}/{name}/masks"] = masks[:, ::step, ::step]
                arrays[f"{choice}/{place}/{name}/scores"] = predictions.scores[name]
            for name, mask in predictions.mask_inputs.items():
                arrays[f"{choice}/{place}/{name}/mask_inputs"] = mask
            if embeddings and place != "inputs":
                key = f"{choice}/{place}/image_embed/features"
                arrays[key] = predictions.features["image_embed"]
    count = max(len(images) for images in answers.values())
    arrays |= {"count": count, "about": json.dumps([asdict(dimensions), against])}
    np.savez(path, **arrays)


def read_reference(path: str, masks: MaskChoice) -> Reference:
    """Read what `write_reference` wrote for a decoder of these masks."""
    choice = stored_choice(masks)
    with np.load(path) as file:
        wanted = {name: file[name] for name in file.files if name.startswith(f"{choice}/")}
        count = int(file["count"])
        dimensions, against = json.loads(str(file["about"]))
    places = {str(number): Predictions() for number in range(count)} | {"inputs": Predictions()}
    for key, values in wanted.items():
        _, place, name, field = key.split("/")
        getattr(places[place], field)[name] = values
    inputs = places.pop("inputs")
    dimensions["feature_channels"] = tuple(dimensions["feature_channels"])
    return Reference(Dimensions(**dimensions), list(places.values()), inputs, against)
