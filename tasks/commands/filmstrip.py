"""`doit demo` draws a filmstrip too: what clicks on a clip's first frame become on later ones."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tasks.building.stage import Stage, Workspace
from tasks.config.models import Target
from tasks.console.invocation import command
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Bools = NDArray[np.bool_]
    Point = tuple[int, int]

PACKAGES = ("onnxruntime", "numpy", "pillow")

CLIP = "demo.clips:time_lapse"  # module:function
SEED = 0  # nothing is trained on it
LENGTH = 24
SHOWN = (0, 5, 9, 14, 18, 23)  # of the frames
OBJECTS = 6  # fewer than there are colours: no two have the same

# In pixels. Legible when the picture is shown at 1000 pixels, as in a README.
WIDTH, MARGIN, GAP, COLUMNS = 1600, 40, 20, 3
SIDE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS  # of each frame
TOP = 150  # of the first row
ROW = SIDE + 60
LARGE, MEDIUM, SMALL = 42, 28, 26  # of letters
QUIET = (85, 85, 85)


class Clip(Protocol):
    """RGB frames (T, H, W, 3), and for each pixel the number of its object (T, H, W)."""

    frames: NDArray[np.uint8]
    labels: NDArray[np.int32]


class Followed(NamedTuple):
    """An object: where frame 0 is clicked (x, y), its true masks (T, H, W) and those found."""

    point: Point
    true: Bools
    found: Bools


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
        runs_here=True,  # a cluster's workers may not see the deploy folder
    )


def draw_filmstrip(target: Target, work: Workspace) -> dict[str, Any]:
    """Track and draw in a child process, then move the picture into place."""
    graphs, constants = deployed(target)
    result = work.run(
        "tasks.commands.filmstrip:draw",
        graphs=graphs,
        client=target.client.name,
        constants=constants,
        destination=work.unfinished(target.filmstrip),
    )
    work.deliver(target.filmstrip)
    return {"summary": f"{in_words(**result)}; see {target.filmstrip}"}


def deployed(target: Target) -> tuple[dict[str, str], dict[str, Any]]:
    """The files that the manifest says to load, and what else a tracker must know.

    :raises StageError: when there is no such manifest.
    """
    manifest = target.manifest
    try:
        told = json.loads(manifest.read_text())
        files = {"encoder": told["encoder"]["file"], **told["video"]["files"]}
        constants = {
            name: value for name, value in told["video"].items() if name not in ("files", "tensors")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{manifest} is no manifest of this build with graphs that track; "
            f"{command(f'deploy:{target.name}')} writes it"
        ) from error
    return {graph: str(target.deploy / file) for graph, file in files.items()}, constants


def in_words(objects: int, frames: int, iou: float, **_: Any) -> str:
    """What the picture shows, in a sentence."""
    return (
        f"{objects} objects, each clicked once, followed through {frames} frames: "
        f"mean IoU with the true masks {iou:.2f}"
    )


def draw(
    graphs: dict[str, str], client: str, constants: dict[str, Any], destination: str
) -> dict[str, Any]:
    """Click on objects of a clip's first frame, follow them, and paint what is found (runs in a
    child process).

    :param graphs: the file of the encoder and of each graph that tracks, by name.
    :param client: that loads the encoder, by name.
    :param constants: ``video`` of the manifest, without files and tensors.
    :returns: how many ``objects`` and ``frames``, and the mean ``iou`` with the true masks over
        the frames after the first on which an object is seen or found.
    """
    import numpy as np

    from tasks.clients.client import named
    from tasks.clients.contract import TrackingConstants
    from tasks.inference.metrics import mask_iou
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker

    module, _, function = CLIP.partition(":")
    clip: Clip = getattr(importlib.import_module(module), function)(SEED, LENGTH)
    run = run_by_name(graphs, {"encoder": named(client).encoder})
    tracker = Tracker(run, TrackingConstants(**constants), list(clip.frames))
    followed = follow(tracker, clip)
    ious = [
        mask_iou(found, true)
        for each in followed
        for found, true in zip(each.found[1:], each.true[1:], strict=True)
        if found.any() or true.any()
    ]
    figures: dict[str, Any] = {
        "objects": len(followed),
        "frames": len(clip.frames),
        "iou": float(np.mean(ious)),
    }
    compose(clip.frames, followed, in_words(**figures)).save(destination)
    return figures


def follow(tracker: Any, clip: Clip) -> list[Followed]:
    """Click on the largest objects of frame 0, and follow them to the last frame."""
    import numpy as np

    from tasks.inference.tracker import Prompt
    from tasks.inference.truth import interior_point

    areas = np.bincount(clip.labels[0].ravel())
    areas[0] = 0
    numbers = [int(each) for each in np.argsort(areas)[::-1][:OBJECTS] if areas[each]]
    points: dict[int, Point] = {}
    for number in numbers:
        row, column = interior_point(clip.labels[0] == number)
        points[number] = column, row
        tracker.prompt(0, number, Prompt(points=[(column, row)], labels=[1]))
    found: dict[int, list[Bools]] = {number: [] for number in numbers}
    for _, results in tracker.track(0):
        for number, result in results.items():
            found[number].append(at_size(result.low_res_masks[0, 0], clip.frames.shape[1:3]))
    return [Followed(points[n], clip.labels == n, np.stack(found[n])) for n in numbers]


def at_size(logits: NDArray[np.float32], size: Sequence[int]) -> Bools:
    """A mask (H, W) of low-resolution logits (M, M)."""
    import numpy as np
    from PIL import Image

    resized = Image.fromarray(logits).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    mask: Bools = np.asarray(resized) > 0
    return mask


def compose(frames: NDArray[np.uint8], followed: Sequence[Followed], summary: str) -> Image:
    """Some of the frames (T, H, W, 3) with what was found on them, and what they mean."""
    from PIL import Image, ImageDraw

    from tasks.inference.drawing import COLORS, DARK, mark, write

    rows = -(-len(SHOWN) // COLUMNS)
    bottom = TOP + rows * ROW - 10
    picture = Image.new("RGB", (WIDTH, bottom + 110), "white")
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, 24), "SAM 2's memory in ONNX: clicked once, followed", LARGE, fill=DARK)
    for place, at in enumerate(SHOWN):
        left = MARGIN + place % COLUMNS * (SIDE + GAP)
        top = TOP + place // COLUMNS * ROW
        write(pen, (left, top - 12), f"frame {at}", MEDIUM, fill=QUIET, anchor="ls")
        picture.paste(painted(frames[at], followed, at), (left, top))
    write(pen, (MARGIN, bottom), f"{summary}.", MEDIUM, fill=DARK)
    middle = bottom + 65
    mark(pen, MARGIN + 9, middle, radius=9)
    write(pen, (MARGIN + 30, middle), "a click on frame 0", SMALL, fill=QUIET, anchor="lm")
    pen.rectangle((740, middle - 14, 796, middle + 14), fill=COLORS[0])
    pen.line((740, middle, 796, middle), fill="white", width=3)
    write(pen, (812, middle), "the true outline", SMALL, fill=QUIET, anchor="lm")
    return picture


def painted(frame: NDArray[np.uint8], followed: Sequence[Followed], at: int) -> Image:
    """A frame (H, W, 3) with each object's mask and true outline, and on frame 0 the clicks."""
    import numpy as np
    from PIL import Image, ImageDraw

    from tasks.inference.drawing import COLORS, mark, outline, paint

    canvas = frame.astype(np.float32)
    for color, each in zip(COLORS, followed, strict=False):
        paint(canvas, each.found[at], color, rim=6)
    for each in followed:
        canvas[outline(each.true[at], 3)] = 255
    panel = Image.fromarray(canvas.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if at == 0:
        pen = ImageDraw.Draw(panel)
        height, width = frame.shape[:2]
        for each in followed:
            mark(pen, each.point[0] / width * SIDE, each.point[1] / height * SIDE, radius=8)
    return panel
