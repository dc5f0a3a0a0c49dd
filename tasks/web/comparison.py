"""Compares a page's answers with onnxruntime's answers to the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.inference.checks import Figure
    from tasks.inference.preprocessing import Placement
    from tasks.inference.scripts import Answers, Script
    from tasks.inference.sessions import Predictions
    from tasks.web.chromium import ServedModel
    from tasks.web.image_page import ImageRun

LEVEL = 1 / 255  # one level of a sample: a browser may round down when it scales


def compare(run: ImageRun, reference: Predictions | None) -> None:
    """Add to a run's report how its answers differ from onnxruntime's for the same pixels.

    A browser scales images in its own way, so the difference between its pixels and ours is a
    separate figure.

    :param reference: PyTorch's answers; if given, only the best-scored masks, which a user gets,
        are compared.
    """
    from tasks.inference import sessions
    from tasks.inference.metrics import least_iou

    on_wasm = run.predictions.get("wasm")
    if on_wasm is None or not on_wasm.masks:
        return
    features = {}
    if run.image is not None:  # a decoder without an encoder gets no image
        preprocessing = preprocessing_difference(run.image_pixels(), run.prompted.image, run.place)
        run.report["preprocessing"] = features["image"] = preprocessing
    expected = answers_of_onnxruntime(run, on_wasm)
    for provider, answers in run.predictions.items():
        figures = run.report["providers"][provider]
        figures["differences"] = sessions.differences(answers, expected)
        figures["differences"]["features"] |= features
        if reference is None:
            ious = {n: least_iou(masks, expected.masks[n]) for n, masks in answers.masks.items()}
        else:
            ious, figures["reference_ious"] = (
                {n: least_iou(answers.best_mask(n), other.best_mask(n)) for n in answers.masks}
                for other in (expected, reference)
            )
        figures["ious"] = ious
        figures["mask_iou"] = min(ious.values())


def answers_of_onnxruntime(run: ImageRun, answers: Predictions) -> Predictions:
    """onnxruntime's answers to the pixels and the mask inputs that a page used."""
    from tasks.inference import sessions

    answered = [each for each in run.prompted.prompts if each.name in answers.masks]
    prompted = run.prompted._replace(prompts=answered, mask_inputs=answers.mask_inputs)
    if run.image is not None:
        prompted = prompted._replace(image=run.image_pixels())
    (expected,) = sessions.run_graphs(run.model.graphs, [prompted], run.model.client)
    return expected


def preprocessing_difference(
    pixels: NDArray[np.uint8], image: NDArray[np.uint8], place: Placement
) -> Figure:
    """How far a browser's pixels are from our scaled image, apart from rounding."""
    from tasks.inference.checks import mean_difference
    from tasks.inference.preprocessing import coarse, resized

    scaled = resized(image, place.scaled_height, place.scaled_width)
    difference = mean_difference(coarse(pixels), coarse(scaled))
    return None if difference is None else max(difference - LEVEL, 0.0)


def compare_tracking(
    report: dict[str, Any], tracked: Mapping[str, Answers], script: Script, model: ServedModel
) -> None:
    """Add to a report, by provider, how the page's tracker differs from ours in onnxruntime."""
    from tasks.inference.scripts import run_script
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker
    from tasks.proof.drift import compare_answers

    assert model.video is not None
    if not tracked:
        return
    run = run_by_name(model.graphs, {"encoder": model.client.encoder})
    expected = dict(run_script(Tracker(run, model.video, list(script.frames)), script))
    for provider, answers in tracked.items():
        figures = compare_answers({script.name: (answers, expected)})
        report["providers"][provider]["tracking"] |= asdict(figures)
