"""Compares each variant with PyTorch in single precision, on drawn images and real prompts.

Targets: ``fidelity.<variant>.json``, and a picture of masks. A variant that misses the limits of
``[fidelity]`` is not deployed; the build goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import MaskChoice, PromptChoice
from tasks.config.models import Target, Variant
from tasks.console.invocation import command
from tasks.proof.failures import sentences
from tasks.proof.reports import Proof
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.clients.client import Client
    from tasks.inference.checks import Figure
    from tasks.inference.painting import MaskPair
    from tasks.inference.reference_file import Reference
    from tasks.inference.sessions import Predictions, PromptedImage
    from tasks.proof.figures import ExtremeImage, FidelityFigures

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")

# The share of prompts for which a decoder of a single mask must return the same one as PyTorch.
STABLE = 0.9

RANKED = ("ranked", "best")  # the choices whose decoder ranks its masks itself


def declare(target: Target, variant: Variant) -> Stage:
    """The stage that compares one variant with PyTorch."""
    proof = Proof("fidelity", target, variant)
    source, graphs = target.source, target.image_graphs(variant).values()
    return Stage(
        proof.subtask,
        measure_fidelity,
        [target, variant],
        reads=[*graphs, source.reference, *source.image_data],
        writes=[proof.path, target.picture(variant)],
        shared="proof",
        inputs={**proof.inputs, **versions(*PACKAGES)},
        also_runs=[source.images],
    )


def measure_fidelity(target: Target, variant: Variant, work: Workspace) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report, whether the variant passes or fails.

    :raises StageError: when the number of images in the reference differs from the configured one.
    """
    source, picture = target.source, target.picture(variant)
    request = FidelityRequest(
        graphs={name: str(path) for name, path in target.image_graphs(variant).items()},
        client=target.client.key,
        masks=target.masks,
        prompts=target.prompts,
        reference=str(source.reference),
        draw=source.images,
        try_extremes=variant.computes_in_half,
        picture=str(work.unfinished(picture)),
    )
    figures = work.run("tasks.fidelity:compare", request)
    work.deliver(picture)
    memory = {"peak_memory": figures.pop("peak_memory")}
    count = source.checks.fidelity.images
    if figures["images"] != count:
        raise StageError(
            f"{source.reference} has {figures['images']} images, but [fidelity] images is {count}; "
            f"{command(f'reference:{source.name}')} runs PyTorch again"
        )
    failures = Proof("fidelity", target, variant).conclude(figures)
    if failures:
        note = f"{target.name}'s {variant.name} is not deployed: {sentences(failures)}."
        return {"summary": f"BELOW: {failures[0]}", "note": note, **memory}
    iou = figures["mask_iou"]
    summary = (
        f"IoU with PyTorch's masks {iou['mean']:.4f}, worst {iou['worst']:.3f}; ranked differently "
        f"for {figures['ranking_flips']:.0%} of {figures['prompts']} prompts"
    )
    return {"summary": summary, **memory}


@dataclass(frozen=True)
class FidelityRequest:
    """A variant's files, by graph name, and PyTorch's answers to compare them with.

    ``reference`` has PyTorch's answers about the images that ``draw`` draws. A PNG of the masks
    that differ most is written to ``picture``. ``try_extremes``: see `extremes_of`.
    """

    graphs: Mapping[str, str]
    client: str
    masks: MaskChoice
    prompts: PromptChoice
    reference: str
    draw: str
    picture: str
    try_extremes: bool = False


def compare(request: FidelityRequest) -> dict[str, Any]:
    """Compare a variant with PyTorch's answers (runs in a child process).

    :returns: the hashes of ``files`` and of the files they were measured ``against``, and
        `FidelityFigures`.
    :raises StageError: when a file's tensors, or their order, differ from the contract.
    """
    from tasks.clients.registry import client_by_key
    from tasks.inference import graph_file, painting, reference_file, sessions
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    client, graphs = client_by_key(request.client), request.graphs
    judged = {Path(path).name: path for path in graphs.values()}
    with unchanged(judged) as files, unchanged({"reference": request.reference}) as against:
        stored = reference_file.read_reference(request.reference, request.masks)
        contract = client.contract(stored.dimensions, request.masks, request.prompts)
        for name, path in graphs.items():
            if wrong := violations({name: contract[name]}, {name: graph_file.tensors_of(path)}):
                raise StageError(f"{client.name} cannot read {path}: {sentences(wrong)}")
        images = prompted_images(request, stored, client)
        answers = sessions.run_graphs(graphs, images, client)
        extremes = extremes_of(graphs, images[0], client) if request.try_extremes else []
    figures, lowest = figures_of(images[:-1], answers, stored, request.masks)
    painting.draw_pair(lowest, request.picture)
    return {
        "files": files,
        "against": {**stored.against, **against},
        **asdict(replace(figures, extremes=extremes)),
    }


def extremes_of(
    graphs: Mapping[str, str], prompted: PromptedImage, client: Client
) -> list[ExtremeImage]:
    """Which outputs are not finite for images of extreme values, with ``prompted``'s prompts."""
    import numpy as np

    from tasks.drawing.extremes import extreme_images
    from tasks.inference import sessions
    from tasks.proof.figures import ExtremeImage

    drawn = extreme_images(max(prompted.image.shape))
    images = [prompted._replace(image=image) for image in drawn.values()]
    extremes = []
    for name, answer in zip(drawn, sessions.run_graphs(graphs, images, client), strict=True):
        outputs = {f"encoder {role}": [values] for role, values in answer.features.items()}
        outputs["decoder masks"] = [*answer.masks.values(), *answer.full_masks.values()]
        outputs["decoder iou_predictions"] = list(answer.scores.values())
        broken = [
            output
            for output, several in outputs.items()
            if not all(np.isfinite(values).all() for values in several)
        ]
        extremes.append(ExtremeImage(name, broken))
    return extremes


def prompted_images(
    request: FidelityRequest, stored: Reference, client: Client
) -> list[PromptedImage]:
    """The drawn images with the real prompts that the client can send.

    The last item is the first image again, with every value of every input.
    """
    from tasks.inference import prompts, truth
    from tasks.inference.sessions import PromptedImage

    size = stored.dimensions.image_size
    drawn = truth.draw_images(truth.load(request.draw), size, len(stored.images))
    images = []
    for each, expected in zip(drawn, stored.images, strict=True):
        about = prompts.answerable(truth.prompts_about(each), client)
        features = expected.features
        images.append(PromptedImage(each.image, about, expected.mask_inputs, features=features))
    runs = prompts.runs_of_every_value(client, request.prompts == "many")
    masks = stored.inputs.mask_inputs
    first = images[0]
    return [*images, PromptedImage(first.image, runs.alone, masks, runs.at_once, first.features)]


def figures_of(
    images: Sequence[PromptedImage],
    answers: Sequence[Predictions],
    stored: Reference,
    choice: MaskChoice,
) -> tuple[FidelityFigures, MaskPair]:
    """Compare each prompt's best-scored mask, the one a user gets, with PyTorch's best-scored mask.

    :param answers: to the prompts of ``images``; the last to prompts with every value of every
        input.
    :returns: the figures, and the masks that differ most.
    """
    from tasks.inference import checks
    from tasks.inference.metrics import mask_iou
    from tasks.inference.painting import MaskPair
    from tasks.proof.figures import FidelityFigures, Ious, LowestIou

    pairs: list[MaskPair] = []
    flips, logits, scores = [], [], []
    for image, expected, answer in zip(images, stored.images, answers, strict=False):
        for prompt in image.prompts:
            name = prompt.name
            own, right = answer.best_mask(name)[0], expected.best_mask(name)[0]
            pairs.append(MaskPair(mask_iou(own > 0, right > 0), image.image, prompt, right, own))
            order = order_of(answer.masks[name], expected.masks[name], choice)
            # A user who follows a different ranking gets other masks than PyTorch's. A decoder
            # that ranks its masks itself fixes their order; for others the best score decides.
            same_best = choice in RANKED or answer.best(name) == expected.best(name)
            flips.append(float(order != list(range(len(order))) or not same_best))
            right_scores, right_masks = expected.scores[name][order], expected.masks[name][order]
            scores.append(checks.largest_difference(answer.scores[name], right_scores))
            logits.append(checks.relative_difference(answer.masks[name], right_masks))
    ious = [each.iou for each in pairs]
    input_error, input_prompt = largest_input_error(answers[-1], stored.inputs, choice)
    lowest = min(pairs, key=lambda pair: pair.iou)
    pixels = int(((lowest.expected > 0) != (lowest.actual > 0)).sum())
    figures = FidelityFigures(
        images=len(images),
        prompts=len(pairs),
        mask_iou=Ious(checks.mean(ious), checks.smallest(ious)),
        ranking_flips=checks.mean(flips),
        logit_error=checks.mean(logits),
        input_error=input_error,
        input_prompt=input_prompt,
        score_error=checks.largest(scores),
        lowest=LowestIou(lowest.prompt.name, pixels),
    )
    return figures, lowest


def order_of(
    masks: NDArray[np.float32], expected: NDArray[np.float32], choice: MaskChoice
) -> list[int]:
    """The index of PyTorch's mask to compare each mask with: the same index, unless ranked."""
    from tasks.inference.metrics import ranking

    return ranking(masks, expected) if choice in RANKED else list(range(len(expected)))


def largest_input_error(
    answer: Predictions, expected: Predictions, choice: MaskChoice
) -> tuple[Figure, str]:
    """The largest difference of logits, relative to their mean magnitude, and its prompt.

    For a few prompts, a single mask that is barely stable may be replaced by another.
    ``expected`` has every `STRIDE`-th row and column.
    """
    from tasks.inference import checks
    from tasks.inference.reference_file import STRIDE

    errors: dict[str, Figure] = {}
    for name, masks in answer.masks.items():
        own, right = masks[:, ::STRIDE, ::STRIDE], expected.masks[name]
        errors[name] = checks.relative_difference(own, right[order_of(own, right, choice)])
    names = sorted(errors, key=lambda name: (errors[name] is None, errors[name] or 0.0))
    kept = names[: math.ceil(STABLE * len(names))] if choice == "single" else names
    return checks.largest(errors[name] for name in kept), kept[-1]
