"""An image's embedding in a file that bioimage.io reads, and in fewer bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.clients.client import Client
from tasks.inference.preprocessing import Floats
from tasks.inference.sessions import PromptedImage


def write(path: str, prompted: PromptedImage, client: Client, architecture: str) -> None:
    """Write a ``.npz``: ``features`` (1, C, T, T) float32, ``input_size`` and ``original_size``.

    The sizes are height and width in pixels, of the image scaled for the encoder and of the image
    itself. ``model_type`` is the architecture (bioimage.io 645a3cc, useMicroSamDecoder.ts).
    """
    assert prompted.features is not None
    features = prompted.features["image_embed"]
    place = prompted.place(features, client)
    sizes: dict[str, Any] = {
        "input_size": [place.scaled_height, place.scaled_width],
        "original_size": [place.height, place.width],
    }
    with open(path, "wb") as file:
        np.savez(file, features=features, model_type=architecture, **sizes)


def read(path: str) -> tuple[Floats, tuple[int, int]]:
    """The features that `write` wrote, and the height and width of the image itself."""
    with np.load(path) as file:
        height, width = map(int, file["original_size"])
        return file["features"], (height, width)


def stored(features: Floats, form: str) -> tuple[Floats, int]:
    """An embedding (1, C, T, T) after storage in a form of `judgement.STORED_AS`, and its bytes.

    Integers are multiples of a scale for each channel: its largest magnitude divided by 127. That
    costs the demo's masks 0.0003 of IoU, one scale for all channels 0.0010; at worst 0.007 and
    0.015 (48 prompts).
    """
    if form != "int8":
        small = features.astype(form)
        return small.astype(np.float32), small.nbytes
    scale = np.abs(features).max(axis=(2, 3), keepdims=True) / np.float32(127)
    numbers = np.rint(features / np.where(scale == 0, 1, scale)).astype(np.int8)
    return numbers * scale, numbers.nbytes + scale.nbytes
