"""Whether masks mean something: the graphs against images whose true masks are known.

Parity with PyTorch cannot see an error that both share, as a swapped axis in what the model was
trained on or fed; the IoU with the truth does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks import verify
from tasks.child import StageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

CLICKS = 3
LEAST_PIXELS = 1000  # of an object that is asked for: some nine cells of a mask across


class Truth(Protocol):
    """An RGB image (S, S, 3), and for each pixel the number of its object (S, S), 0 outside."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


Draw = Callable[[int, int], Truth]


def load(name: str) -> Draw:
    """The function ``module:function`` that draws a `Truth` for a seed and a size.

    :raises StageError: when the module has no such function.
    """
    module, _, function = name.partition(":")
    found: Draw | None = getattr(importlib.import_module(module), function, None)
    if found is None:
        raise StageError(f"{module} has no function {function}, which `truth` names")
    return found


class Answer(NamedTuple):
    """Three masks over the image (K, S, S), their scores and logits (K, M, M)."""

    masks: Bools
    scores: Floats
    logits: Floats


class Segmenter:
    """Both graphs in onnxruntime on the CPU, for one image at a time."""

    def __init__(self, encoder: str, decoder: str) -> None:
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        self._encoder: InferenceSession = onnxruntime.InferenceSession(encoder, providers=providers)
        self._decoder: InferenceSession = onnxruntime.InferenceSession(decoder, providers=providers)
        self.size = int(self._encoder.get_inputs()[0].shape[2])
        self._names = [output.name for output in self._encoder.get_outputs()]
        self._features: dict[str, Floats] = {}

    def open(self, image: NDArray[np.uint8]) -> None:
        """Encode an image (S, S, 3)."""
        outputs = self._encoder.run(None, {"image": verify.preprocess(image)})
        self._features = dict(zip(self._names, outputs, strict=True))

    def ask(
        self, points: list[tuple[float, float]], labels: list[int], mask: Floats | None = None
    ) -> Answer:
        """Masks for points (x, y) in pixels, and perhaps the logits (M, M) of a mask to refine."""
        side = self._features["high_res_feats_0"].shape[2]
        given = np.zeros((1, 1, side, side), np.float32) if mask is None else mask[None, None]
        inputs = {
            **self._features,
            "point_coords": np.array([points], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": given,
            "has_mask_input": np.array([mask is not None], np.float32),
        }
        logits, scores = self._decoder.run(["masks", "iou_predictions"], inputs)
        return Answer(enlarged(logits[0], self.size) > 0, scores[0], logits[0])


def enlarged(logits: Floats, size: int) -> Floats:
    """Maps (K, M, M) as (K, size, size), linear between the centres of cells, as sam2 does."""
    side = logits.shape[-1]
    centers = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    first = np.floor(centers).astype(int)
    second, part = np.minimum(first + 1, side - 1), (centers - first).astype(np.float32)
    rows = logits[:, first] * (1 - part)[:, None] + logits[:, second] * part[:, None]
    large: Floats = rows[:, :, first] * (1 - part) + rows[:, :, second] * part
    return large


def measure(
    encoder: str, decoder: str, draw: Draw, seeds: Iterable[int], objects: int
) -> dict[str, Any]:
    """How well the graphs segment objects of drawn images.

    :param objects: at most so many of each image.
    :returns: how many ``images`` and ``objects``, ``iou``: the mean IoU of the best-scored mask
        with the truth after one to three clicks (each where the last mask was wrong, and refining
        it) and from a box, and ``score_correlation``, Spearman's between all scores and IoUs.
    """
    segmenter = Segmenter(encoder, decoder)
    found: dict[str, list[float]] = {}
    scores: list[float] = []
    ious: list[float] = []
    images = 0
    for seed in seeds:
        drawn = draw(seed, segmenter.size)
        numbers = objects_of(drawn)
        if not numbers:
            continue
        images += 1
        segmenter.open(drawn.image)
        for number in np.random.default_rng(seed).permutation(sorted(numbers))[:objects]:
            true = drawn.labels == number
            for name, answer in ask_about(segmenter, true).items():
                each = [iou(mask, true) for mask in answer.masks]
                found.setdefault(name, []).append(each[int(answer.scores.argmax())])
                scores += [float(score) for score in answer.scores]
                ious += each
    return {
        "images": images,
        "objects": len(found.get("box", [])),
        "iou": {name: round(float(np.mean(values)), 4) for name, values in found.items()},
        "score_correlation": round(rank_correlation(np.array(scores), np.array(ious)), 4),
    }


def objects_of(drawn: Truth) -> list[int]:
    """The numbers of the objects that are large enough to ask for, the largest first."""
    areas = np.bincount(drawn.labels.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    return [int(number) for number in order if areas[number] >= LEAST_PIXELS]


def ask_about(segmenter: Segmenter, true: Bools) -> dict[str, Answer]:
    """Answers about one object, by the name of the prompt."""
    rows, columns = np.nonzero(true)
    answers: dict[str, Answer] = {}
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    previous: Floats | None = None
    wrong = true
    for click in range(1, CLICKS + 1):
        row, column = center(wrong)
        points.append((column, row))
        labels.append(int(true[row, column]))
        answer = segmenter.ask(points, labels, previous)
        best = int(answer.scores.argmax())
        previous, wrong = answer.logits[best], answer.masks[best] != true
        answers[f"{click} click{'s' if click > 1 else ''}"] = answer
        if not wrong.any():
            wrong = true
    corners = [(columns.min(), rows.min()), (columns.max(), rows.max())]
    answers["box"] = segmenter.ask([(float(x), float(y)) for x, y in corners], [2, 3])
    return answers


def center(mask: Bools) -> tuple[int, int]:
    """Row and column of a pixel far from the mask's edge: what a person would click.

    The mask is peeled, a layer of pixels at a time, until one more would leave nothing.
    """
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    layer = mask[top : rows.max() + 1, left : columns.max() + 1]
    while (inner := peeled(layer)).any():
        layer = inner
    rows, columns = np.nonzero(layer)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[middle]) + top, int(columns[middle]) + left


def peeled(mask: Bools) -> Bools:
    """A mask without the pixels that touch its outside."""
    around = np.pad(mask, 1)
    left: Bools = mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return left


def iou(one: Bools, other: Bools) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Spearman's coefficient: the correlation of the ranks, equal values sharing theirs."""

    def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])
