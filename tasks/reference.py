"""Computes PyTorch's answers about drawn images, the reference for a model's variants.

Target: ``reference.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.clients.contract import MaskChoice
from tasks.config.models import Source
from tasks.inference.metrics import stored_choice
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model.trained import TrainedModel
from tasks.system.versions import versions

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def declare(source: Source) -> Stage:
    """The stage that runs PyTorch, for all models of a source."""
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
            **({"embeddings": True} if source.keeps_embeddings else {}),
            **versions(*PACKAGES),
        },
        also_runs=[*source.family_code("computing"), source.images],
    )


def choices_of(source: Source) -> list[MaskChoice]:
    """The choices of masks for which PyTorch answers, for the clients of a source."""
    return list(dict.fromkeys(stored_choice(each.masks) for each in source.targets))


def compute_reference(source: Source, work: Workspace) -> dict[str, Any]:
    """Run PyTorch in a child process and store its answers."""
    request = ReferenceRequest(
        model=source.trained_model,
        masks=tuple(choices_of(source)),
        draw=source.images,
        count=source.checks.fidelity.images,
        destination=str(work.unfinished(source.reference)),
        embeddings=source.keeps_embeddings,
    )
    result = work.run("tasks.reference:write_reference", request)
    work.deliver(source.reference)
    summary = f"PyTorch's answers to {result['prompts']} prompts on {result['images']} images"
    return {"summary": summary + describe_peak(result), **result}


@dataclass(frozen=True)
class ReferenceRequest:
    """The model to run on ``count`` images drawn by ``draw``; answers go to ``destination``.

    ``masks`` are the mask choices of the decoders that are compared with it. ``embeddings``: also
    store the image embeddings, for a decoder without an encoder.
    """

    model: TrainedModel
    masks: tuple[MaskChoice, ...]
    draw: str
    count: int
    destination: str
    embeddings: bool = False


def write_reference(request: ReferenceRequest) -> dict[str, Any]:
    """Write PyTorch's answers about drawn images, with hashes (runs in a child process)."""
    from tasks.inference import reference, reference_file, truth
    from tasks.inference.prompts import EVERY_PROMPT
    from tasks.proof.binding import unchanged

    with unchanged(request.model.files()) as against:
        pytorch = reference.Reference(request.model)
        predictor = pytorch.predictor()
        images = truth.draw_images(truth.load(request.draw), pytorch.image_size, request.count)
        answers = {
            choice: [
                reference.predict(predictor, each.image, truth.prompts_about(each), choice)
                for each in images
            ]
            for choice in request.masks
        }
        inputs = {
            choice: reference.predict(predictor, images[0].image, EVERY_PROMPT, choice)
            for choice in request.masks
        }
    dimensions = pytorch.dimensions
    reference_file.write_reference(
        request.destination, dimensions, answers, inputs, against, request.embeddings
    )
    prompts = sum(len(each.masks) for each in answers[request.masks[0]])
    return {"images": request.count, "prompts": prompts}
