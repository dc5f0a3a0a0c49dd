"""The images and prompts for verifying graphs, with PyTorch's answers. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.clients.client import Client
from tasks.clients.contract import MaskChoice
from tasks.inference import embedding, reference, truth
from tasks.inference.checks import Figure, mean, smallest
from tasks.inference.masks import Bools
from tasks.inference.metrics import mask_iou
from tasks.inference.preprocessing import Placement
from tasks.inference.prompts import (
    BOXES,
    PROMPTS,
    Prompt,
    answerable,
    natural_image,
    runs_of_every_value,
)
from tasks.inference.reference import Reference
from tasks.inference.sessions import EMBEDDING_STRIDE, Predictions, PromptedImage, run_graphs
from tasks.model.trained import TrainedModel
from tasks.system.errors import StageError

# Width and height of the part cut out of a square.
SHAPES = {"a 2:1 image": (1.0, 1 / 2), "a 1:3 image": (1 / 3, 1.0)}
OBJECTS = 4  # the largest number of objects in an image
NATIVE_IMAGES = 4  # for comparing a model of another image size with its weights' own size


class OtherShape(NamedTuple):
    """An image (H, W, 3) that is not square, and prompts about its objects.

    ``truths`` has the mask (H, W) of each prompt's object, if the image is drawn.
    """

    shape: str
    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    truths: Mapping[str, Bools]


@dataclass(frozen=True)
class Case:
    """An image with prompts, as its client sends them, and PyTorch's answers.

    ``where`` is appended to the names of the prompts. ``shape`` is set for images that are not
    square. If the client does not stretch images, as the training did, ``stretched`` has PyTorch's
    answers about the stretched image.
    """

    where: str
    prompted: PromptedImage
    expected: Predictions
    shape: OtherShape | None = None
    stretched: Predictions | None = None


def cases_for(
    pytorch: Reference, client: Client, masks: MaskChoice, many: bool, draw: str | None
) -> list[Case]:
    """A square image with every value of every input, and two other images.

    For a decoder without an encoder, the images come with PyTorch's embeddings and with further
    boxes, which show the cost of storing embeddings in fewer bits.

    :param many: whether the decoder takes many prompts in a run.
    :param draw: the function that draws the other images, or None.
    """
    predictor = pytorch.predictor(client.resize)
    image = natural_image(pytorch.image_size)
    runs = runs_of_every_value(client, many)
    expected = reference.predict(predictor, image, runs.prompts, masks, client)
    prompted = PromptedImage(image, runs.alone, expected.mask_inputs, runs.at_once)
    cases = [Case("", prompted, expected)]
    further = () if client.encodes else BOXES
    for other in images_of_other_shapes(pytorch.image_size, draw):
        prompts = (*answerable(other.prompts, client), *further)
        expected = reference.predict(predictor, other.image, prompts, masks, client)
        stretched = None
        if client.resize != "stretch":
            usual = pytorch.predictor()
            stretched = reference.predict(usual, other.image, prompts, "multi")
        prompted = PromptedImage(other.image, prompts, expected.mask_inputs)
        cases.append(Case(f" on {other.shape}", prompted, expected, other, stretched))
    if client.encodes:
        return cases
    return [
        replace(each, prompted=each.prompted._replace(features=each.expected.features))
        for each in cases
    ]


def images_of_other_shapes(size: int, draw: str | None) -> list[OtherShape]:
    """Images that are neither square nor of the input's size: parts of drawn ones, or seeded."""
    side = 5 * size // 4
    others = []
    for shape, (width, height) in SHAPES.items():
        if draw is None:
            image = natural_image(round(side * height), round(side * width))
            others.append(OtherShape(shape, image, PROMPTS, {}))
            continue
        drawn = truth.load(draw)
        parts = (truth.part_of(drawn(seed, side), width, height) for seed in range(100))
        part = next((each for each in parts if truth.objects_of(each)), None)
        if part is None:
            raise StageError(
                f"{draw} draws no object of at least {truth.LEAST_PIXELS} pixels in the middle of "
                "any of 100 images; expected one"
            )
        prompts, truths = [], {}
        for number in truth.objects_of(part)[:OBJECTS]:
            mask = part.labels == number
            for prompt in truth.prompts_for(mask, str(number)):
                prompts.append(prompt)
                truths[prompt.name] = mask
        others.append(OtherShape(shape, part.image, prompts, truths))
    return others


# Two masks (H, W) of one object, and its true mask.
Pair = tuple[Bools, Bools, Bools | None]


def agreement(one: str, other: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """How well pairs of masks agree with each other, and each of the two with the truth.

    :returns: the number of ``prompts``, ``mask_iou`` (``mean``, ``worst``), and the mean IoUs with
        the ``truth``.
    """
    ious = [mask_iou(first, second) for first, second, _ in pairs]
    with_truth = [
        (mask_iou(first, true), mask_iou(second, true))
        for first, second, true in pairs
        if true is not None
    ]
    means = [float(np.mean(each)) for each in zip(*with_truth, strict=True)]
    return {
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "truth": dict(zip((one, other), means, strict=True)) if means else None,
    }


def cost_of_placement(
    cases: Sequence[Case], answers: Sequence[Predictions], client: Client
) -> dict[str, Any] | None:
    """Compare masks of images placed by a client with masks of stretched images.

    :param cases: the cases of images that are not square.
    :returns: see `agreement`; None for a client that stretches, as the training did.
    """
    if client.resize == "stretch":
        return None
    pairs: list[Pair] = []
    for case, own in zip(cases, answers, strict=True):
        assert case.shape is not None
        assert case.stretched is not None
        height, width = case.shape.image.shape[:2]
        for name, masks in own.masks.items():
            size = 4 * masks.shape[-1]
            place = Placement(size, width, height, client.resize)
            stretched = case.stretched.best_mask_over(name, replace(place, resize="stretch"))
            true = case.shape.truths.get(name)
            pairs.append((own.best_mask_over(name, place), stretched, true))
    return {"resize": client.resize, **agreement(client.resize, "stretch", pairs)}


def cost_of_storage(
    graphs: Mapping[str, str], cases: Sequence[Case], client: Client, forms: Iterable[str]
) -> dict[str, Any]:
    """Compare a decoder's masks from embeddings stored in several forms with PyTorch's masks.

    :returns: the ``image_size`` in pixels; for each form ``stored`` has the ``size`` of an
        embedding in bytes and the ``mask_iou``, mean and worst over all prompts.
    """
    embeddings = [each.expected.features["image_embed"] for each in cases]
    figures = {}
    for form in forms:
        kept = [embedding.stored(each, form) for each in embeddings]
        images = [
            case.prompted._replace(features={"image_embed": features})
            for case, (features, _) in zip(cases, kept, strict=True)
        ]
        ious: list[Figure] = []
        for answer, case in zip(run_graphs(graphs, images, client), cases, strict=True):
            for name in answer.masks:
                own, expected = answer.best_mask(name), case.expected.best_mask(name)
                numbers = np.isfinite(own).all()
                ious.append(mask_iou(own > 0, expected > 0) if numbers else None)
        iou = {"mean": mean(ious), "worst": smallest(ious)}
        figures[form] = {"size": kept[0][1], "mask_iou": iou}
    return {"image_size": EMBEDDING_STRIDE * embeddings[0].shape[2], "stored": figures}


def cost_of_size(
    graphs: Mapping[str, str],
    client: Client,
    masks: MaskChoice,
    trained: TrainedModel,
    draw: str,
) -> dict[str, Any]:
    """Compare masks of graphs of another image size with masks at the weights' own size.

    :param draw: the function that draws the images.
    :returns: the weights' own ``image_size``, the number of ``images``, and the `agreement` of
        ``here`` and ``native``.
    """
    pytorch = Reference(trained)
    size = pytorch.image_size
    predictor = pytorch.predictor()
    segmenter = truth.Segmenter(graphs["encoder"], graphs["decoder"], client)
    pairs: list[Pair] = []
    for drawn in truth.draw_images(truth.load(draw), size, NATIVE_IMAGES):
        numbers = truth.objects_of(drawn)
        true = drawn.labels == numbers[len(numbers) // 2]  # the object that is prompted
        sendable = answerable(truth.prompts_about(drawn), client)
        prompts = [each for each in sendable if each.refines is None]
        expected = reference.predict(predictor, drawn.image, prompts, masks)
        segmenter.set_image(drawn.image)
        for prompt in prompts:
            native = expected.best_mask_over(prompt.name, Placement(size, size, size, "stretch"))
            pairs.append((segmenter.predict(prompt).best_mask, native, true))
    figures = agreement("here", "native", pairs)
    return {"image_size": size, "images": NATIVE_IMAGES, **figures}
