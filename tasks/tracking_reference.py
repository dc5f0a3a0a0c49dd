"""PyTorch's masks of drawn clips, which every variant of a table of models is compared with.

Target: ``tracking_reference.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare, describe_peak, workspace
from tasks.building.staleness import versions
from tasks.config.schema import Configuration, Model
from tasks.inference.progress import show_masks
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model.trained import TrainedModel
from tasks.records import artifacts

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.inference.scripts import Answers

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for PyTorch's answers, for a table of models."""
    return declare(
        model.base,
        compute_reference,
        [config, model],
        reads=[artifacts.checkpoint(config, model), *model.architecture_files],
        writes=[artifacts.tracking_reference(config, model)],
        shared="proof",
        inputs={**model.architecture_options, **versions(*PACKAGES)},
    )


def compute_reference(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Ask PyTorch in a child process and keep what it answers."""
    target = artifacts.tracking_reference(config, model)
    with workspace(config.build, task) as work:
        trained = artifacts.trained_model(config, model)
        request = TrackingReferenceRequest(trained, work.unfinished(target))
        result = work.run("tasks.tracking_reference:write_reference", request)
        work.deliver(target)
    summary = f"PyTorch's {result['answers']} masks of {result['clips']} clips"
    return {"summary": summary + describe_peak(result), **result}


@dataclass(frozen=True)
class TrackingReferenceRequest:
    """The model whose answers are written to ``destination``."""

    model: TrainedModel
    destination: str


def write_reference(request: TrackingReferenceRequest) -> dict[str, Any]:
    """Have sam2's predictor run the scripts (runs in a child process)."""
    from tasks.clients.contract import dimensions_of, memory_of, tracking_constants
    from tasks.inference import tracking_file
    from tasks.inference.scripts import proof_scripts
    from tasks.inference.video_reference import run_with_pytorch
    from tasks.proof.binding import unchanged

    answers: dict[str, Answers] = {}
    with unchanged(request.model.files()) as against:
        predictor = request.model.load_video()
        for script in proof_scripts():
            answers[script.name] = own = {}
            for key, answer in run_with_pytorch(predictor, script):
                own[key] = answer
                show_masks(f"PyTorch, {script.name}", len(own))
    about = tracking_file.About(
        dimensions_of(predictor), memory_of(predictor), tracking_constants(predictor), against
    )
    tracking_file.write(request.destination, about, answers)
    return {"clips": len(answers), "answers": sum(map(len, answers.values()))}
