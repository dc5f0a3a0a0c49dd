"""Images with true masks, and how well graphs segment their objects.

Parity with PyTorch does not reveal an error that both share, such as a swapped axis in training
data or inputs; the IoU with the truth does.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.clients.client import Client
from tasks.inference.checks import finite
from tasks.inference.masks import Bools, box_of, click_on, interior_point
from tasks.inference.metrics import mask_iou, rank_correlation, rounded
from tasks.inference.preprocessing import Floats, Placement, masks_over
from tasks.inference.prompts import Prompt
from tasks.inference.sessions import Decoder, Encoder, masks_of
from tasks.system.errors import StageError

CLICKS = 3
LEAST_PIXELS = 1000  # of a clicked object: some nine cells of a mask across


class Truth(Protocol):
    """An RGB image (H, W, 3), and for each pixel the number of its object (H, W), 0 outside."""

    @property
    def image(self) -> NDArray[np.uint8]: ...

    @property
    def labels(self) -> NDArray[np.int32]: ...


Draw = Callable[[int, int], Truth]


def load(name: str) -> Draw:
    """The function ``module:function`` that draws a `Truth` for a seed and a size.

    :raises StageError: when the module has no such function.
    """
    module, _, function = name.partition(":")
    draw: Draw | None = getattr(importlib.import_module(module), function, None)
    if draw is None:
        raise StageError(f"{module} has no function {function}; correct `truth`, which names it")
    return draw


def draw_images(draw: Draw, size: int, count: int) -> list[Truth]:
    """The first images that have an object to click on.

    :raises StageError: when too few images have one.
    """
    every = (draw(seed, size) for seed in range(100 * count))
    images = list(itertools.islice(filter(objects_of, every), count))
    if len(images) < count:
        raise StageError(
            f"only {len(images)} of {100 * count} drawn images have an object of at least "
            f"{LEAST_PIXELS} pixels; expected {count}"
        )
    return images


class Part(NamedTuple):
    """A part of a `Truth`, cut out."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


def part_of(drawn: Truth, width: float, height: float) -> Part:
    """The middle of a drawn image, with ``width`` and ``height`` as fractions of its sides."""
    sides = drawn.labels.shape
    size = round(sides[0] * height), round(sides[1] * width)
    top, left = ((whole - part) // 2 for whole, part in zip(sides, size, strict=True))
    area = slice(top, top + size[0]), slice(left, left + size[1])
    return Part(drawn.image[area], drawn.labels[area])


def prompts_for(mask: Bools, name: str) -> tuple[Prompt, ...]:
    """A click on an object and a box around it."""
    return (
        Prompt(f"click {name}", (click_on(mask),), (1,)),
        Prompt(f"box {name}", box=box_of(mask)),
    )


def prompts_about(drawn: Truth) -> tuple[Prompt, ...]:
    """A click on an object, two clicks that exclude another object, a box, and a refined mask."""
    numbers = objects_of(drawn)
    middle = numbers[len(numbers) // 2]
    on, other = (click_on(drawn.labels == number) for number in (middle, numbers[0]))
    two = ((on, other), (1, 0)) if other != on else ((on,), (1,))
    return (
        Prompt("click", (on,), (1,)),
        Prompt("two clicks", *two),
        Prompt("box", box=box_of(drawn.labels == middle)),
        Prompt("refined", (on,), (1,), refines="click"),
    )


class Answer(NamedTuple):
    """Masks over the image (K, H, W), their scores and logits (K, M, M)."""

    masks: Bools
    scores: Floats
    logits: Floats

    @property
    def best(self) -> int:
        """The index of the mask with the highest score."""
        return int(self.scores.argmax())

    @property
    def best_mask(self) -> Bools:
        """The mask (H, W) with the highest score."""
        return np.asarray(self.masks[self.best])


class Segmenter:
    """Runs both graphs in onnxruntime on the CPU as a client does, for one image at a time."""

    def __init__(self, encoder: str, decoder: str, client: Client) -> None:
        self._encoder, self._decoder = Encoder(encoder, client), Decoder(decoder, client)
        self.refines = "mask_input" in client.decoder.inputs
        self.size = self._encoder.size
        self._features: dict[str, Floats] = {}
        self._place: Placement | None = None

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an image (H, W, 3)."""
        self._features = self._encoder.run(image)
        self._place = self._encoder.place(image)

    def predict(self, prompt: Prompt, mask: Floats | None = None) -> Answer:
        """Masks for a prompt, and optionally the logits (M, M) of a mask to refine."""
        assert self._place is not None
        refined = None if mask is None or not self.refines else mask[None]
        outputs = self._decoder.run(self._features, (prompt,), self._place, refined)
        logits, scores = masks_of(outputs)
        return Answer(masks_over(logits, self._place) > 0, scores, logits)


def measure(segmenter: Segmenter, draw: Draw, seeds: Iterable[int], objects: int) -> dict[str, Any]:
    """How well graphs segment objects of drawn images.

    :param objects: the largest number of objects in each image.
    :returns: the number of ``images`` and ``objects``; ``iou``, the mean IoU of the best-scored
        mask with the truth, after one to three clicks (each where the last mask was wrong, refining
        it) and from a box; and ``score_correlation``, Spearman's between all scores and IoUs.
    """
    best: dict[str, list[float]] = {}
    scores: list[float] = []
    ious: list[float] = []
    images = 0
    for seed in seeds:
        drawn = draw(seed, segmenter.size)
        numbers = objects_of(drawn)
        if not numbers:
            continue
        images += 1
        segmenter.set_image(drawn.image)
        for number in np.random.default_rng(seed).permutation(sorted(numbers))[:objects]:
            true = drawn.labels == number
            for name, answer in answers_about(segmenter, true).items():
                each = [mask_iou(mask, true) for mask in answer.masks]
                best.setdefault(name, []).append(each[answer.best])
                scores += [float(score) for score in answer.scores]
                ious += each
    return {
        "images": images,
        "objects": len(best.get("box", [])),
        "iou": {name: round(float(np.mean(values)), 4) for name, values in best.items()},
        "score_correlation": rounded(finite(rank_correlation(np.array(scores), np.array(ious))), 4),
    }


def objects_of(drawn: Truth) -> list[int]:
    """The numbers of the objects that are large enough to click, the largest first."""
    areas = np.bincount(drawn.labels.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    return [int(number) for number in order if areas[number] >= LEAST_PIXELS]


def answers_about(segmenter: Segmenter, true: Bools) -> dict[str, Answer]:
    """Answers about one object, by the prompt's name."""
    height, width = true.shape
    answers: dict[str, Answer] = {}
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    previous: Floats | None = None
    wrong = true
    for click in range(1, CLICKS + 1):
        row, column = interior_point(wrong)
        points.append((column / width, row / height))
        labels.append(int(true[row, column]))
        answer = segmenter.predict(Prompt("clicks", tuple(points), tuple(labels)), previous)
        previous, wrong = answer.logits[answer.best], answer.best_mask != true
        answers[f"{click} click{'s' if click > 1 else ''}"] = answer
        if not wrong.any():
            wrong = true
    answers["box"] = segmenter.predict(Prompt("box", box=box_of(true)))
    return answers
