"""Computes PyTorch's masks of drawn clips, the reference for a model's variants.

Target: ``tracking_reference.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.config.models import Source
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model.trained import TrainedModel
from tasks.system.versions import versions

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def declare(source: Source) -> Stage:
    """The stage that tracks with PyTorch, for all models of a source."""
    return Stage(
        source.name,
        compute_reference,
        [source],
        reads=[source.checkpoint, *source.architecture_files],
        writes=[source.tracking_reference],
        shared="proof",
        inputs={**source.architecture_options, **versions(*PACKAGES)},
    )


def compute_reference(source: Source, work: Workspace) -> dict[str, Any]:
    """Run PyTorch in a child process and store its answers."""
    destination = str(work.unfinished(source.tracking_reference))
    request = TrackingReferenceRequest(source.trained_model, destination)
    result = work.run("tasks.tracking_reference:write_reference", request)
    work.deliver(source.tracking_reference)
    summary = f"PyTorch's {result['answers']} masks of {result['clips']} clips"
    return {"summary": summary + describe_peak(result), **result}


@dataclass(frozen=True)
class TrackingReferenceRequest:
    """The model to run; its answers go to ``destination``."""

    model: TrainedModel
    destination: str


def write_reference(request: TrackingReferenceRequest) -> dict[str, Any]:
    """Run the scripts with sam2's predictor (runs in a child process)."""
    from tasks.clients.contract import memory_of, tracking_constants
    from tasks.inference.scripts import About, collect, proof_scripts, write_answers
    from tasks.inference.video_reference import run_with_pytorch
    from tasks.model.families.registry import family_of
    from tasks.proof.binding import unchanged

    with unchanged(request.model.files()) as against:
        predictor = request.model.load_video()
        answers = {
            script.name: collect(f"PyTorch, {script.name}", run_with_pytorch(predictor, script))
            for script in proof_scripts()
        }
    dimensions = family_of(request.model.architecture).dimensions_of(predictor)
    about = About(dimensions, memory_of(predictor), tracking_constants(predictor), against)
    write_answers(request.destination, about, answers)
    return {"clips": len(answers), "answers": sum(map(len, answers.values()))}
