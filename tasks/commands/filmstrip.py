"""`doit demo-video` ends with a filmstrip: objects clicked on a clip's first frame, tracked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import TrackingConstants
from tasks.config.models import Target
from tasks.console.invocation import command
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tasks.drawing.clip import Clip
    from tasks.inference.prompts import Prompt
    from tasks.inference.scripts import ScriptRunner

    Bools = NDArray[np.bool_]

PACKAGES = ("onnxruntime", "numpy", "pillow")

BEGINS = (
    "Builds a small model that tracks, proves its files on 24 frames and in a browser, and draws "
    "the tracked objects. This takes about five minutes on two cores."
)

CLIP = "demo_training.time_lapse:time_lapse"  # module:function
SEED = 0  # nothing is trained on it
LENGTH = 24
SHOWN = (0, 5, 9, 14, 18, 23)  # the frames that are drawn
OBJECTS = 6  # fewer than the colours, so each object has its own


def declare(target: Target) -> Stage:
    """The filmstrip of a model with `video = true`."""
    return Stage(
        None,
        draw_filmstrip,
        [target],
        reads=[target.manifest],  # has the hash of each deployed file
        writes=[target.filmstrip],
        shared="proof",
        inputs={"contract": target.client.as_json(), **versions(*PACKAGES)},
        also_runs=[CLIP],
        after=[f"deploy:{target.name}"],
        runs_here=True,  # a cluster's workers might not see the deploy folder
        announcement=BEGINS,
    )


def draw_filmstrip(target: Target, work: Workspace) -> dict[str, Any]:
    """Track and draw in a child process, then move the picture into place."""
    graphs, constants = deployed(target)
    destination = str(work.unfinished(target.filmstrip))
    request = FilmstripRequest(graphs, target.client.key, constants, destination)
    result = work.run("tasks.commands.filmstrip:draw", request)
    work.deliver(target.filmstrip)
    return {"summary": f"{in_words(**result)}; see {target.filmstrip}"}


def deployed(target: Target) -> tuple[dict[str, str], TrackingConstants]:
    """The files that the manifest names, and the constants that a tracker needs.

    :raises StageError: when the manifest is missing, or has no tracking graphs.
    """
    from tasks.proof.manifest import read_manifest

    manifest = read_manifest(target.manifest)
    if manifest is None or manifest.video is None:
        raise StageError(
            f"{target.manifest} is missing, or is not a manifest of this build with tracking "
            f"graphs; {command(f'deploy:{target.name}')} writes it"
        )
    assert manifest.encoder is not None  # every model that tracks has one
    files = {"encoder": manifest.encoder.file, **manifest.video.files}
    names = [field.name for field in fields(TrackingConstants)]
    constants = TrackingConstants(**{name: getattr(manifest.video, name) for name in names})
    return {graph: str(target.deploy / file) for graph, file in files.items()}, constants


def in_words(objects: int, frames: int, iou: float, **_: Any) -> str:
    """A sentence that describes the picture."""
    return (
        f"{objects} objects, each clicked once, followed through {frames} frames: "
        f"mean IoU with the true masks {iou:.2f}"
    )


@dataclass(frozen=True)
class FilmstripRequest:
    """The deployed files of the tracking graphs and the encoder, by name, and the client.

    The picture is written to ``destination``.
    """

    graphs: Mapping[str, str]
    client: str
    constants: TrackingConstants
    destination: str


class Followed(NamedTuple):
    """An object: its prompt on frame 0, its true masks and the tracker's masks (T, H, W)."""

    click: Prompt
    true: Bools
    masks: Bools


def draw(request: FilmstripRequest) -> dict[str, Any]:
    """Click on objects of a clip's first frame, track and paint them (runs in a child process).

    :returns: the numbers of ``objects`` and ``frames``, and the mean ``iou`` with the true masks
        over the frames after the first on which an object is visible or has a mask.
    """
    import numpy as np

    from tasks.clients.registry import client_by_key
    from tasks.inference.metrics import mask_iou
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker

    module, _, function = CLIP.partition(":")
    clip: Clip = getattr(importlib.import_module(module), function)(SEED, LENGTH)
    run = run_by_name(request.graphs, {"encoder": client_by_key(request.client).encoder})
    followed = follow(Tracker(run, request.constants, list(clip.frames)), clip)
    ious = [
        mask_iou(mask, true)
        for each in followed
        for mask, true in zip(each.masks[1:], each.true[1:], strict=True)
        if mask.any() or true.any()
    ]
    figures: dict[str, Any] = {
        "objects": len(followed),
        "frames": len(clip.frames),
        "iou": float(np.mean(ious)),
    }
    compose(clip.frames, followed, in_words(**figures)).save(request.destination)
    return figures


def follow(tracker: ScriptRunner, clip: Clip) -> list[Followed]:
    """Click on the largest objects of frame 0, and track them to the last frame."""
    import numpy as np

    from tasks.inference.masks import click_on
    from tasks.inference.prompts import Prompt
    from tasks.inference.scripts import PromptStep, Script, TrackStep, run_script

    areas = np.bincount(clip.labels[0].ravel())
    areas[0] = 0
    numbers = [int(each) for each in np.argsort(areas)[::-1][:OBJECTS] if areas[each]]
    steps = [
        PromptStep(0, n, Prompt(points=(click_on(clip.labels[0] == n),), labels=(1,)))
        for n in numbers
    ]
    script = Script("filmstrip", clip.frames, [*steps, TrackStep(0)])
    masks: dict[int, list[Bools]] = {number: [] for number in numbers}
    for (step, _, number), answer in run_script(tracker, script):
        if step == len(steps):
            masks[number].append(answer.mask)
    return [
        Followed(each.prompt, clip.labels == each.number, np.stack(masks[each.number]))
        for each in steps
    ]


def compose(frames: NDArray[np.uint8], followed: Sequence[Followed], summary: str) -> Image:
    """Some of the frames (T, H, W, 3) with the masks on them, and a legend."""
    from tasks.inference.painting import sheet

    return sheet(
        "SAM 2's memory in ONNX: clicked once, followed",
        [(f"frame {at}", painted(frames[at], followed, at)) for at in SHOWN],
        summary,
        "a click on frame 0",
    )


def painted(frame: NDArray[np.uint8], followed: Sequence[Followed], at: int) -> Image:
    """A frame (H, W, 3) with each object's mask and true outline, and on frame 0 the clicks."""
    from PIL import ImageDraw

    from tasks.inference.painting import SIDE, mark, panel_of

    masks, true = [each.masks[at] for each in followed], [each.true[at] for each in followed]
    panel = panel_of(frame, masks, true)
    if at == 0:
        for each in followed:
            ((x, y),) = each.click.in_pixels(SIDE, SIDE).points
            mark(ImageDraw.Draw(panel), x, y, radius=8)
    return panel
