"""Stage 6: each variant against PyTorch in single precision, on drawn images and real prompts.

Two tasks. ``reference`` asks sam2's own predictor once a model (``reference.npz``); ``fidelity``
asks a variant's files the same and judges: ``fidelity.<variant>.json``, and a picture of masks. A
variant below ``[fidelity]`` is not deployed; the build goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.clients.contract import MaskChoice
from tasks.config.schema import Configuration, Model, Variant
from tasks.engine import artifacts
from tasks.engine.errors import StageError
from tasks.engine.invocation import command
from tasks.engine.stage import declare, describe_peak, workspace
from tasks.engine.staleness import versions
from tasks.proof import reports
from tasks.proof.failures import sentences
from tasks.proof.judgement import judge, rules_of

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.inference.sessions import Predictions

REFERENCE_PACKAGES = ("torch", "torchvision", "sam2", "numpy", "pillow")
PACKAGES = ("onnxruntime", "numpy", "pillow")

PICTURE_SIDE = 256  # of each panel, in pixels


def reference_task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for PyTorch's answers, for a table of models."""
    return declare(
        model.base,
        compute_reference,
        [config, model],
        reads=[
            artifacts.checkpoint(config, model),
            *model.architecture_files,
            *model.image_data,
        ],
        writes=[artifacts.reference(config, model)],
        inputs={
            "architecture": model.architecture,
            "masks": choices_of(config, model),
            "images": model.images,
            "count": config.fidelity.images,
            **versions(*REFERENCE_PACKAGES),
        },
        also_runs=[model.images],
    )


def choices_of(config: Configuration, model: Model) -> list[MaskChoice]:
    """Which masks the clients of a table return."""
    return list(dict.fromkeys(each.masks for each in config.of_table(model)))


def task(config: Configuration, model: Model, variant: Variant) -> dict[str, Any]:
    """doit's task for one variant."""
    return declare(
        f"{model.name}:{variant.name}",
        measure_fidelity,
        [config, model, variant],
        reads=[
            *artifacts.graphs(config, model, variant).values(),
            artifacts.reference(config, model),
            *model.image_data,
        ],
        writes=[
            artifacts.report(config, model, "fidelity", variant),
            artifacts.picture(config, model, variant),
        ],
        inputs={
            **reports.asked(config, model, "fidelity", variant),
            **rules_of(config, model, variant, "fidelity"),
            "contract": model.client.as_json(),
            **versions(*PACKAGES),
        },
        also_runs=[model.images],
    )


def compute_reference(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Ask PyTorch in a child process and keep what it answers."""
    target = artifacts.reference(config, model)
    with workspace(config.build, task) as work:
        result = work.run(
            "tasks.fidelity:write_reference",
            architecture=model.architecture,
            architecture_files=model.architecture_files,
            masks=choices_of(config, model),
            checkpoint=str(artifacts.checkpoint(config, model)),
            draw=model.images,
            count=config.fidelity.images,
            destination=work.unfinished(target),
        )
        work.deliver(target)
    summary = f"PyTorch's answers to {result['prompts']} prompts on {result['images']} images"
    return {"summary": summary + describe_peak(result), **result}


def measure_fidelity(
    config: Configuration, model: Model, variant: Variant, task: Task
) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went."""
    graphs = artifacts.graphs(config, model, variant)
    picture = artifacts.picture(config, model, variant)
    with workspace(config.build, task) as work:
        figures = work.run(
            "tasks.fidelity:compare",
            graphs={name: str(path) for name, path in graphs.items()},
            client=model.client.name,
            masks=model.masks,
            reference=str(artifacts.reference(config, model)),
            draw=model.images,
            picture=work.unfinished(picture),
        )
        work.deliver(picture)
    memory = {"peak_memory": figures.pop("peak_memory")}
    asked = config.fidelity.images
    if figures["images"] != asked:
        raise StageError(
            f"{artifacts.reference(config, model)} has {figures['images']} images, [fidelity] "
            f"images asks for {asked}; {command(f'reference:{model.base}')} asks PyTorch again"
        )
    found = judge(config, model, variant, "fidelity", figures)
    reports.write(
        artifacts.report(config, model, "fidelity", variant),
        "fidelity",
        reports.asked(config, model, "fidelity", variant),
        rules_of(config, model, variant, "fidelity"),
        found,
        figures,
    )
    iou = figures["mask_iou"]
    summary = (
        f"IoU with PyTorch's masks {iou['mean']:.4f}, worst {iou['worst']:.3f}; another mask "
        f"scored best for {figures['ranking_flips']:.0%} of {figures['prompts']} prompts"
    )
    if not found:
        return {"summary": summary, **memory}
    note = f"{model.name}'s {variant.name} is not deployed: {sentences(found)}."
    return {"summary": f"BELOW: {summary}", "note": note, **memory}


def write_reference(
    architecture: str,
    architecture_files: list[str],
    masks: list[MaskChoice],
    checkpoint: str,
    draw: str,
    count: int,
    destination: str,
) -> dict[str, Any]:
    """Ask sam2's predictor about drawn images (runs in a child process).

    What it answers is stored with the hashes of what answered.
    """
    from tasks.inference import reference, reference_file, truth
    from tasks.model import load
    from tasks.proof.binding import unchanged

    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    with unchanged(subject) as against:
        model = load.load_model(architecture, checkpoint)
        predictor = reference.predictor_of(model)
        found: dict[str, list[Predictions]] = {choice: [] for choice in masks}
        for drawn in truth.draw_images(truth.load(draw), model.image_size, count):
            prompts = truth.prompts_about(drawn)
            for choice in masks:
                found[choice].append(reference.predict(predictor, drawn.image, prompts, choice))
    reference_file.write_reference(destination, model.image_size, found, against)
    return {"images": count, "prompts": sum(len(each.masks) for each in found[masks[0]])}


def compare(
    graphs: dict[str, str],
    client: str,
    masks: MaskChoice,
    reference: str,
    draw: str,
    picture: str,
) -> dict[str, Any]:
    """Compare a variant with PyTorch's answers (runs in a child process).

    Of each prompt the mask that the variant scores best, which is what a person gets, with the
    one that PyTorch scores best.

    :param graphs: the file of each graph, by its name.
    :param client: that loads them, by name; it cannot put every prompt.
    :param picture: a PNG is written there.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``mask_iou`` (``mean``, ``worst``), ``ranking_flips``, for what share of the prompts the
        two differ in which mask is best; ``logit_error`` (the mean difference of all masks) and
        ``score_error`` (the largest), over all ``images`` and ``prompts``.
    """
    from pathlib import Path

    import numpy as np

    from tasks.clients.client import named
    from tasks.inference import sessions, truth
    from tasks.inference.metrics import mask_iou
    from tasks.inference.prompts import answerable
    from tasks.inference.reference_file import read_reference
    from tasks.proof.binding import unchanged

    loads = named(client)
    judged = {Path(path).name: path for path in graphs.values()}
    with unchanged(judged) as files, unchanged({"reference": reference}) as against:
        stored = read_reference(reference, masks)
        drawn_images = truth.draw_images(truth.load(draw), stored.size, len(stored.images))
        asked = [
            sessions.PromptedImage(
                drawn.image, answerable(truth.prompts_about(drawn), loads), expected.mask_inputs
            )
            for drawn, expected in zip(drawn_images, stored.images, strict=True)
        ]
        found = sessions.run_graphs(graphs["encoder"], graphs["decoder"], asked, loads)
    ious, flips, logits, scores = [], [], [], []
    shown: list[tuple[float, Any]] = []
    for each, expected, predictions in zip(asked, stored.images, found, strict=True):
        for prompt in each.prompts:
            pair = predictions.best_mask(prompt.name)[0], expected.best_mask(prompt.name)[0]
            ious.append(mask_iou(pair[0] > 0, pair[1] > 0))
            flips.append(predictions.best(prompt.name) != expected.best(prompt.name))
            difference = predictions.masks[prompt.name] - expected.masks[prompt.name]
            logits.append(float(np.abs(difference).mean()))
            difference = predictions.scores[prompt.name] - expected.scores[prompt.name]
            scores.append(float(np.abs(difference).max()))
            shown.append((ious[-1], (each.image, pair[1], pair[0])))
    draw_masks([shown[0][1], min(shown, key=lambda each: each[0])[1]], picture)
    return {
        "files": files,
        "against": {**stored.against, **against},
        "images": len(asked),
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "ranking_flips": float(np.mean(flips)),
        "logit_error": float(np.mean(logits)),
        "score_error": max(scores),
    }


def draw_masks(rows: Sequence[tuple[Any, Any, Any]], path: str) -> None:
    """Paint rows of an image, PyTorch's mask on it, the variant's, and in red where they differ.

    :param rows: of an image (S, S, 3) and the logits (M, M) of both masks.
    """
    import numpy as np
    from PIL import Image

    side = PICTURE_SIDE
    picture = Image.new("RGB", (4 * side, len(rows) * side))
    for row, (image, expected, found) in enumerate(rows):
        small = np.asarray(Image.fromarray(image).resize((side, side)), np.float32)
        masks = [
            np.asarray(Image.fromarray(logits > 0).resize((side, side)))
            for logits in (expected, found)
        ]
        panels = [small]
        for mask in masks:
            panel = small * 0.6
            panel[mask] = panel[mask] * 0.4 + np.array([40, 160, 255]) * 0.6
            panels.append(panel)
        differs = small * 0.3
        differs[masks[0] != masks[1]] = (255, 60, 40)
        panels.append(differs)
        for column, panel in enumerate(panels):
            picture.paste(Image.fromarray(panel.astype(np.uint8)), (column * side, row * side))
    picture.save(path)
