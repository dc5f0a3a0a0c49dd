"""Clicks on objects of drawn images, with PyTorch's masks, for the demo's picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.clients.client import Client
from tasks.clients.contract import MaskChoice
from tasks.inference import truth
from tasks.inference.masks import Bools, click_on
from tasks.inference.preprocessing import Placement
from tasks.inference.prompts import Prompt

if TYPE_CHECKING:
    from tasks.inference.reference import Reference

# Nuclei and cells that the demo segments well, and overlapping nuclei that it does not.
SEEDS = (16, 35, 9)
CLICKS = 5  # on each image; fewer than the colours, so that no two masks share one


@dataclass(frozen=True)
class ClickedImage:
    """An image (S, S, 3), a click on each of N objects, and their masks (N, S, S).

    ``clicks`` are (N, 2), x and y in 0..1. ``true`` are the drawn masks, ``pytorch`` PyTorch's
    best-scored ones.
    """

    image: NDArray[np.uint8]
    clicks: NDArray[np.float64]
    true: Bools
    pytorch: Bools

    @property
    def prompts(self) -> list[Prompt]:
        """A prompt for each click."""
        return [Prompt("click", ((x, y),), (1,)) for x, y in self.clicks.tolist()]


def click_on_images(
    pytorch: Reference, client: Client, masks: MaskChoice, draw: str
) -> list[ClickedImage]:
    """PyTorch's masks of the largest objects of drawn images. Needs torch.

    :param draw: the function that draws the images.
    """
    from tasks.inference import reference

    predictor = pytorch.predictor(client.resize)
    size = pytorch.image_size
    place = Placement(size, size, size, client.resize)
    clicked = []
    for seed in SEEDS:
        drawn = truth.load(draw)(seed, size)
        true = [drawn.labels == number for number in truth.objects_of(drawn)[:CLICKS]]
        prompts = [Prompt(f"{number}", (click_on(mask),), (1,)) for number, mask in enumerate(true)]
        answers = reference.predict(predictor, drawn.image, prompts, masks)
        best = [answers.best_mask_over(each.name, place) for each in prompts]
        clicked.append(
            ClickedImage(
                drawn.image,
                np.array([each.points[0] for each in prompts]).reshape(-1, 2),
                np.array(true, bool).reshape(-1, size, size),
                np.array(best, bool).reshape(-1, size, size),
            )
        )
    return clicked


def write(path: str, images: Sequence[ClickedImage]) -> None:
    """Write clicked images to a ``.npz``; each pixel of a mask is a bit, which is small enough."""
    arrays: dict[str, Any] = {
        f"{number}/{name}": np.packbits(values, axis=-1) if values.dtype == bool else values
        for number, each in enumerate(images)
        for name, values in vars(each).items()
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def read(path: str) -> list[ClickedImage]:
    """Read what `write` wrote."""
    with np.load(path) as file:
        count = len(file.files) // len(ClickedImage.__dataclass_fields__)
        return [
            ClickedImage(
                file[f"{number}/image"],
                file[f"{number}/clicks"],
                *(_masks(file[f"{number}/{name}"]) for name in ("true", "pytorch")),
            )
            for number in range(count)
        ]


def _masks(packed: NDArray[np.uint8]) -> Bools:
    """Masks (N, S, S) of a square image; S is a multiple of 8, like every input size."""
    return np.unpackbits(packed, axis=-1).astype(bool)
