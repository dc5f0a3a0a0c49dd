"""PyTorch's answers about drawn images, which every variant of a table of models is compared with.

Target: ``reference.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare, describe_peak, workspace
from tasks.building.staleness import versions
from tasks.clients.contract import MaskChoice
from tasks.config.schema import Configuration, Model
from tasks.inference.reference_file import stored_choice
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model.trained import TrainedModel
from tasks.records import artifacts

if TYPE_CHECKING:
    from doit.task import Task

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def task(config: Configuration, model: Model) -> dict[str, Any]:
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
        shared="proof",
        inputs={
            **model.architecture_options,
            "masks": choices_of(config, model),
            "images": model.images,
            "count": config.fidelity.images,
            **versions(*PACKAGES),
        },
        also_runs=[model.images],
    )


def choices_of(config: Configuration, model: Model) -> list[MaskChoice]:
    """Which masks PyTorch answers with, for the clients of a table."""
    return list(dict.fromkeys(stored_choice(each.masks) for each in config.of_table(model)))


def compute_reference(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Ask PyTorch in a child process and keep what it answers."""
    target = artifacts.reference(config, model)
    with workspace(config.build, task) as work:
        request = ReferenceRequest(
            model=artifacts.trained_model(config, model),
            masks=tuple(choices_of(config, model)),
            draw=model.images,
            count=config.fidelity.images,
            destination=work.unfinished(target),
        )
        result = work.run("tasks.reference:write_reference", request)
        work.deliver(target)
    summary = f"PyTorch's answers to {result['prompts']} prompts on {result['images']} images"
    return {"summary": summary + describe_peak(result), **result}


@dataclass(frozen=True)
class ReferenceRequest:
    """The model whose answers about ``count`` images are written to ``destination``.

    ``masks`` are the choices of the decoders that are compared with it; ``draw`` draws the images.
    """

    model: TrainedModel
    masks: tuple[MaskChoice, ...]
    draw: str
    count: int
    destination: str


def write_reference(request: ReferenceRequest) -> dict[str, Any]:
    """Ask sam2's predictor about drawn images (runs in a child process).

    The file has its answers, and the hashes of the model's files.
    """
    from tasks.clients.contract import dimensions_of
    from tasks.inference import reference, reference_file, truth
    from tasks.inference.prompts import EVERY_PROMPT
    from tasks.proof.binding import unchanged

    with unchanged(request.model.files()) as against:
        model = request.model.load()
        predictor = reference.predictor_of(model)
        images = truth.draw_images(truth.load(request.draw), model.image_size, request.count)
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
    dimensions = dimensions_of(model)
    reference_file.write_reference(request.destination, dimensions, answers, inputs, against)
    prompts = sum(len(each.masks) for each in answers[request.masks[0]])
    return {"images": request.count, "prompts": prompts}
