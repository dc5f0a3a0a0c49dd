"""PyTorch's answers about drawn images as they are stored: ``reference.npz``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.inference.sessions import Predictions


class Reference(NamedTuple):
    """Answers by image; ``size`` is that of the images, ``against`` the hashes of what answered."""

    size: int
    images: Sequence[Predictions]
    against: dict[str, str]


def write_reference(
    path: str, size: int, images: Sequence[Predictions], against: dict[str, str]
) -> None:
    """Write masks (K, M, M), scores (K,) and refined masks (1, M, M); features are left out."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for number, found in enumerate(images):
        for name, masks in found.masks.items():
            arrays[f"{number}/{name}/masks"] = masks
            arrays[f"{number}/{name}/scores"] = found.scores[name]
        for name, mask in found.mask_inputs.items():
            arrays[f"{number}/{name}/mask_input"] = mask
    arrays |= {"size": size, "count": len(images), "against": json.dumps(against)}
    np.savez(path, **arrays)


def read_reference(path: str) -> Reference:
    """Read what `write_reference` wrote."""
    import numpy as np

    with np.load(path) as file:
        arrays = dict(file)
    size, count = int(arrays.pop("size")), int(arrays.pop("count"))
    against = json.loads(str(arrays.pop("against")))
    images = [Predictions() for _ in range(count)]
    for key, values in arrays.items():
        number, name, kind = key.split("/")
        kinds = {
            "masks": images[int(number)].masks,
            "scores": images[int(number)].scores,
            "mask_input": images[int(number)].mask_inputs,
        }
        kinds[kind][name] = values
    return Reference(size, images, against)
