"""PyTorch's answers about drawn images as they are stored: ``reference.npz``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.inference.sessions import Predictions

if TYPE_CHECKING:
    from tasks.clients.contract import MaskChoice


class Reference(NamedTuple):
    """Answers by image; ``size`` is that of the images, ``against`` the hashes of what answered."""

    size: int
    images: Sequence[Predictions]
    against: dict[str, str]


def stored_choice(masks: MaskChoice) -> MaskChoice:
    """Which of PyTorch's masks those of a decoder are compared with.

    Of ``best`` all three in their order: a graph that returns one has ranked them itself, and it
    takes the others to tell whether it returns the right one.
    """
    return "ranked" if masks == "best" else masks


def write_reference(
    path: str,
    size: int,
    answers: Mapping[str, Sequence[Predictions]],
    against: dict[str, str],
) -> None:
    """Write masks (K, M, M), scores (K,) and refined masks (1, M, M); features are left out.

    :param answers: by which masks were asked for, by image.
    """
    import numpy as np

    arrays: dict[str, Any] = {}
    for choice, images in answers.items():
        for number, found in enumerate(images):
            for name, masks in found.masks.items():
                arrays[f"{choice}/{number}/{name}/masks"] = masks
                arrays[f"{choice}/{number}/{name}/scores"] = found.scores[name]
            for name, mask in found.mask_inputs.items():
                arrays[f"{choice}/{number}/{name}/mask_input"] = mask
    count = max(len(images) for images in answers.values())
    arrays |= {"size": size, "count": count, "against": json.dumps(against)}
    np.savez(path, **arrays)


def read_reference(path: str, masks: MaskChoice) -> Reference:
    """Read what `write_reference` wrote for a decoder of these masks."""
    import numpy as np

    choice = stored_choice(masks)
    with np.load(path) as file:
        wanted = {name: file[name] for name in file.files if name.startswith(f"{choice}/")}
        size, count = int(file["size"]), int(file["count"])
        against = json.loads(str(file["against"]))
    images = [Predictions() for _ in range(count)]
    for key, values in wanted.items():
        _, number, name, kind = key.split("/")
        kinds = {
            "masks": images[int(number)].masks,
            "scores": images[int(number)].scores,
            "mask_input": images[int(number)].mask_inputs,
        }
        kinds[kind][name] = values
    return Reference(size, images, against)
