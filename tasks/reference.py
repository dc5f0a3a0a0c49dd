"""PyTorch's answers about drawn images, which every variant of a table of models is compared with.

Target: ``reference.npz``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.clients.contract import MaskChoice
from tasks.config.models import Source
from tasks.inference.reference_file import stored_choice
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.system.versions import versions

if TYPE_CHECKING:
    from tasks.inference.sessions import Predictions

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def declare(source: Source) -> Stage:
    """PyTorch's answers, for all models of a source."""
    return Stage(
        source.name,
        compute_reference,
        [source],
        reads=[source.checkpoint, *source.architecture_files, *source.image_data],
        writes=[source.reference],
        shared="proof",
        inputs={
            **source.architecture_options,
            "masks": choices_of(source),
            "images": source.images,
            "count": source.checks.fidelity.images,
            **versions(*PACKAGES),
        },
        also_runs=[source.images],
    )


def choices_of(source: Source) -> list[MaskChoice]:
    """Which masks PyTorch answers with, for the clients of a source."""
    return list(dict.fromkeys(stored_choice(each.masks) for each in source.targets))


def compute_reference(source: Source, work: Workspace) -> dict[str, Any]:
    """Run PyTorch in a child process and keep its answers."""
    result = work.run(
        "tasks.reference:write_reference",
        **source.architecture_options,
        architecture_files=source.architecture_files,
        masks=choices_of(source),
        checkpoint=str(source.checkpoint),
        draw=source.images,
        count=source.checks.fidelity.images,
        destination=work.unfinished(source.reference),
    )
    work.deliver(source.reference)
    summary = f"PyTorch's answers to {result['prompts']} prompts on {result['images']} images"
    return {"summary": summary + describe_peak(result), **result}


def write_reference(
    architecture: str,
    architecture_files: list[str],
    masks: list[MaskChoice],
    checkpoint: str,
    draw: str,
    count: int,
    destination: str,
    image_size: int | None = None,
) -> dict[str, Any]:
    """Ask sam2's predictor about drawn images (runs in a child process).

    What it answers is stored with the hashes of what answered.
    """
    from tasks.clients.contract import dimensions_of
    from tasks.inference import reference, reference_file, truth
    from tasks.inference.prompts import EVERY_PROMPT
    from tasks.model import load
    from tasks.proof.binding import unchanged

    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    with unchanged(subject) as against:
        model = load.load_model(architecture, checkpoint, image_size)
        predictor = reference.predictor_of(model)
        images = truth.draw_images(truth.load(draw), model.image_size, count)
        answers: dict[MaskChoice, list[Predictions]] = {choice: [] for choice in masks}
        for drawn in images:
            prompts = truth.prompts_about(drawn)
            for choice in masks:
                answers[choice].append(reference.predict(predictor, drawn.image, prompts, choice))
        inputs = {
            choice: reference.predict(predictor, images[0].image, EVERY_PROMPT, choice)
            for choice in masks
        }
    dimensions = dimensions_of(model)
    reference_file.write_reference(destination, dimensions, answers, inputs, against)
    return {"images": count, "prompts": sum(len(each.masks) for each in answers[masks[0]])}
