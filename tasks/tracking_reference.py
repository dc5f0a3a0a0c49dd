"""PyTorch's masks of drawn clips, which every variant of a table of models is compared with.

Target: ``tracking_reference.npz``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.config.models import Source
from tasks.inference.progress import show_masks
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.system.versions import versions

if TYPE_CHECKING:
    from tasks.inference.clips import Answers

PACKAGES = (*MODEL_PACKAGES, "numpy", "pillow")


def declare(source: Source) -> Stage:
    """PyTorch's tracked masks, for all models of a source."""
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
    """Run PyTorch in a child process and keep its answers."""
    result = work.run(
        "tasks.tracking_reference:write_reference",
        **source.architecture_options,
        architecture_files=source.architecture_files,
        checkpoint=str(source.checkpoint),
        destination=work.unfinished(source.tracking_reference),
    )
    work.deliver(source.tracking_reference)
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
