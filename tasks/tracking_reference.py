"""PyTorch's masks of drawn clips, which every variant of a table of models is compared with.

Target: ``tracking_reference.npz``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare, describe_peak, workspace
from tasks.building.staleness import versions
from tasks.config.schema import Configuration, Model
from tasks.inference.progress import show_masks
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.records import artifacts

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.inference.clips import Answers

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
        result = work.run(
            "tasks.tracking_reference:write_reference",
            **model.architecture_options,
            architecture_files=model.architecture_files,
            checkpoint=str(artifacts.checkpoint(config, model)),
            destination=work.unfinished(target),
        )
        work.deliver(target)
    summary = f"PyTorch's {result['answers']} masks of {result['clips']} clips"
    return {"summary": summary + describe_peak(result), **result}


def write_reference(
    architecture: str,
    architecture_files: list[str],
    checkpoint: str,
    destination: str,
    image_size: int | None = None,
) -> dict[str, Any]:
    """Ask sam2's predictor about the clips (runs in a child process)."""
    from tasks.clients.contract import dimensions_of, memory_of, tracking_constants
    from tasks.inference import tracking_file
    from tasks.inference.clips import clips
    from tasks.inference.video_reference import play_with_pytorch
    from tasks.model import load
    from tasks.proof.binding import unchanged

    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    found: dict[str, Answers] = {}
    with unchanged(subject) as against:
        predictor = load.load_video_model(architecture, checkpoint, image_size)
        for clip in clips():
            found[clip.name] = answers = {}
            for key, answer in play_with_pytorch(predictor, clip):
                answers[key] = answer
                show_masks(f"PyTorch, {clip.name}", len(answers))
    about = tracking_file.About(
        dimensions_of(predictor), memory_of(predictor), tracking_constants(predictor), against
    )
    tracking_file.write(destination, about, found)
    return {"clips": len(found), "answers": sum(map(len, found.values()))}
