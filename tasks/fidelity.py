"""Compares each variant with PyTorch in single precision, on drawn images and real prompts.

Targets: ``fidelity.<variant>.json``, and a picture of masks. A variant below ``[fidelity]`` is not
deployed; the build goes on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import Contract, MaskChoice, PromptChoice
from tasks.config.models import Target, Variant
from tasks.console.invocation import command
from tasks.proof.failures import sentences
from tasks.proof.reports import Proof
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from tasks.clients.client import Client
    from tasks.inference.checks import Figure
    from tasks.inference.prompts import Prompt
    from tasks.inference.sessions import Predictions

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")

# The share of prompts for which a decoder of a single mask must return the same one as PyTorch.
STABLE = 0.9

PICTURE_SIDE, PICTURE_GAP = 400, 8  # of each panel, in pixels


def declare(target: Target, variant: Variant) -> Stage:
    """The comparison of one variant with PyTorch."""
    proof = Proof("fidelity", target, variant)
    return Stage(
        proof.subtask,
        measure_fidelity,
        [target, variant],
        reads=[
            *target.image_graphs(variant).values(),
            target.source.reference,
            *target.source.image_data,
        ],
        writes=[proof.path, target.picture(variant)],
        shared="proof",
        inputs={**proof.inputs, **versions(*PACKAGES)},
        also_runs=[target.source.images],
    )


def measure_fidelity(target: Target, variant: Variant, work: Workspace) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: when the reference has another number of images than is configured.
    """
    source, picture = target.source, target.picture(variant)
    figures = work.run(
        "tasks.fidelity:compare",
        graphs={name: str(path) for name, path in target.image_graphs(variant).items()},
        client=target.client.name,
        masks=target.masks,
        prompts=target.prompts,
        reference=str(source.reference),
        draw=source.images,
        picture=work.unfinished(picture),
    )
    work.deliver(picture)
    memory = {"peak_memory": figures.pop("peak_memory")}
    count = source.checks.fidelity.images
    if figures["images"] != count:
        raise StageError(
            f"{source.reference} has {figures['images']} images, [fidelity] images is {count}; "
            f"{command(f'reference:{source.name}')} runs PyTorch again"
        )
    failures = Proof("fidelity", target, variant).conclude(figures)
    if failures:
        note = f"{target.name}'s {variant.name} is not deployed: {sentences(failures)}."
        return {"summary": f"BELOW: {failures[0]}", "note": note, **memory}
    iou = figures["mask_iou"]
    summary = (
        f"IoU with PyTorch's masks {iou['mean']:.4f}, worst {iou['worst']:.3f}; ranked otherwise "
        f"for {figures['ranking_flips']:.0%} of {figures['prompts']} prompts"
    )
    return {"summary": summary, **memory}


def compare(
    graphs: dict[str, str],
    client: str,
    masks: MaskChoice,
    prompts: PromptChoice,
    reference: str,
    draw: str,
    picture: str,
) -> dict[str, Any]:
    """Compare a variant with PyTorch's answers (runs in a child process).

    Of each prompt the mask that the variant scores best, which is what a person gets, with the
    one that PyTorch scores best.

    :param graphs: the file of each graph, by its name.
    :param client: that loads them, by name; it cannot send every prompt.
    :param picture: a PNG is written there.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``mask_iou`` (``mean``, ``worst``), ``ranking_flips``, for what share of the prompts the
        masks are ranked otherwise (see `is_ranked_otherwise`); ``logit_error`` (the mean over all
        masks, relative to their magnitude) and ``score_error`` (the largest), over all ``images``
        and ``prompts``; ``input_error``, the largest relative difference of logits for prompts with
        every value of every input, and ``input_prompt``, which that was;
        ``lowest``, the prompt of the lowest IoU, which the picture shows, and how many pixels of
        the masks differ there.
        A figure that is not a finite number is None.
    :raises StageError: see `check_tensors`.
    """
    from pathlib import Path

    from tasks.clients.client import named
    from tasks.inference import sessions, truth
    from tasks.inference.checks import (
        largest,
        largest_difference,
        mean,
        relative_difference,
        smallest,
    )
    from tasks.inference.metrics import mask_iou
    from tasks.inference.prompts import answerable, runs_of_every_value
    from tasks.inference.reference_file import read_reference
    from tasks.proof.binding import unchanged

    loads = named(client)
    judged = {Path(path).name: path for path in graphs.values()}
    with unchanged(judged) as files, unchanged({"reference": reference}) as against:
        stored = read_reference(reference, masks)
        check_tensors(graphs, loads.contract(stored.dimensions, masks, prompts), loads)
        size = stored.dimensions.image_size
        drawn_images = truth.draw_images(truth.load(draw), size, len(stored.images))
        asked = [
            sessions.PromptedImage(
                drawn.image, answerable(truth.prompts_about(drawn), loads), expected.mask_inputs
            )
            for drawn, expected in zip(drawn_images, stored.images, strict=True)
        ]
        runs = runs_of_every_value(loads, prompts == "many")
        every_value = sessions.PromptedImage(
            drawn_images[0].image, runs.alone, stored.inputs.mask_inputs, runs.at_once
        )
        *answers, inputs = sessions.run_graphs(
            graphs["encoder"], graphs["decoder"], [*asked, every_value], loads
        )
    ious, flips, logits, scores = [], [], [], []
    shown: list[Shown] = []
    for each, expected, answer in zip(asked, stored.images, answers, strict=True):
        for prompt in each.prompts:
            pair = answer.best_mask(prompt.name)[0], expected.best_mask(prompt.name)[0]
            ious.append(mask_iou(pair[0] > 0, pair[1] > 0))
            flips.append(float(is_ranked_otherwise(answer, expected, prompt.name, masks)))
            order = order_of(answer.masks[prompt.name], expected.masks[prompt.name], masks)
            own, right = answer.scores[prompt.name], expected.scores[prompt.name][order]
            scores.append(largest_difference(own, right))
            own, right = answer.masks[prompt.name], expected.masks[prompt.name][order]
            logits.append(relative_difference(own, right))
            shown.append(Shown(ious[-1], each.image, prompt, pair[1], pair[0]))
    of_inputs = sorted(
        logits_apart(inputs, stored.inputs, masks).items(),
        key=lambda each: math.inf if each[1] is None else each[1],
    )
    # A single mask that is hardly stable may give way to another, for a few prompts.
    kept = of_inputs[: math.ceil(STABLE * len(of_inputs))] if masks == "single" else of_inputs
    lowest = min(shown, key=lambda each: each.iou)
    draw_masks(lowest, picture)
    return {
        "files": files,
        "against": {**stored.against, **against},
        "images": len(asked),
        "prompts": len(ious),
        "mask_iou": {"mean": mean(ious), "worst": smallest(ious)},
        "ranking_flips": mean(flips),
        "logit_error": mean(logits),
        "input_error": largest(error for _, error in kept),
        "input_prompt": kept[-1][0],
        "score_error": largest(scores),
        "lowest": {
            "prompt": lowest.prompt.name,
            "pixels": int(((lowest.expected > 0) != (lowest.found > 0)).sum()),
        },
    }


def check_tensors(graphs: Mapping[str, str], contract: Contract, client: Client) -> None:
    """Refuse files whose tensors are not those of the contract, in its order.

    :raises StageError: naming the file, or when one refers to another file.
    """
    from tasks.inference.graph_file import read_graph, tensors_of
    from tasks.inference.sessions import tensors_in
    from tasks.proof.judgement import violations

    for name, path in graphs.items():
        tensors = tensors_of(read_graph(path)) if path.endswith(".onnx") else tensors_in(path)
        wrong = violations({name: contract[name]}, {name: tensors})
        if wrong:
            raise StageError(f"{path} is not what {client.name} reads: {sentences(wrong)}")


def order_of(
    masks: NDArray[np.float32], expected: NDArray[np.float32], choice: MaskChoice
) -> list[int]:
    """Which of PyTorch's masks each mask is to be compared with: its own place, unless ranked."""
    from tasks.inference.metrics import ranking

    if choice in ("ranked", "best"):
        return ranking(masks, expected)
    return list(range(len(expected)))


def logits_apart(
    answer: Predictions, expected: Predictions, choice: MaskChoice
) -> dict[str, Figure]:
    """How far the logits of each prompt are from PyTorch's, relative to their mean magnitude.

    :param expected: one place of `STRIDE` each way.
    """
    from tasks.inference.checks import relative_difference
    from tasks.inference.reference_file import STRIDE

    apart: dict[str, Figure] = {}
    for name, masks in answer.masks.items():
        own, right = masks[:, ::STRIDE, ::STRIDE], expected.masks[name]
        apart[name] = relative_difference(own, right[order_of(own, right, choice)])
    return apart


def is_ranked_otherwise(
    answer: Predictions, expected: Predictions, prompt: str, masks: MaskChoice
) -> bool:
    """Whether a person who follows a variant's ranking gets other masks than PyTorch's.

    A decoder that ranks its masks has decided before any score can be read, so its masks are
    recognized by what they look like. Of others the best score counts.
    """
    if masks not in ("ranked", "best"):
        return answer.best(prompt) != expected.best(prompt)
    order = order_of(answer.masks[prompt], expected.masks[prompt], masks)
    return order != list(range(len(order)))


class Shown(NamedTuple):
    """A prompt about an image (S, S, 3), both masks' logits (M, M), and the masks' IoU."""

    iou: float
    image: NDArray[np.uint8]
    prompt: Prompt
    expected: NDArray[np.float32]
    found: NDArray[np.float32]


def draw_masks(shown: Shown, path: str) -> None:
    """Paint what is around the masks: both outlines on the image, then what one alone has."""
    import numpy as np
    from PIL import Image, ImageDraw

    from tasks.inference.drawing import EXPECTED, FOUND, mark_prompt, outline, view_of

    side = PICTURE_SIDE
    view = view_of([shown.expected > 0, shown.found > 0], shown.prompt)

    def cut(image: Image.Image) -> NDArray[Any]:
        left, top, right, bottom = (image.width * each for each in view)
        box = left, top, right, bottom
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))

    image = cut(Image.fromarray(shown.image)).astype(np.float32)
    expected, found = (cut(Image.fromarray(each)) > 0 for each in (shown.expected, shown.found))
    outlines = image.copy()
    outlines[outline(expected, 5)] = EXPECTED
    outlines[outline(found, 2)] = FOUND
    apart = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1) * 0.4
    apart[outline(expected | found)] = 255
    apart[expected & ~found] = EXPECTED
    apart[found & ~expected] = FOUND
    picture = Image.new("RGB", (2 * side + PICTURE_GAP, side), "white")
    panel = Image.fromarray(outlines.astype(np.uint8))
    mark_prompt(ImageDraw.Draw(panel), shown.prompt, view, side / (view[2] - view[0]))
    picture.paste(panel, (0, 0))
    picture.paste(Image.fromarray(apart.astype(np.uint8)), (side + PICTURE_GAP, 0))
    picture.save(path)
