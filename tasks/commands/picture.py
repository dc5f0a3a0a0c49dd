"""`doit demo` ends with a picture: what clicks on drawn images give, from PyTorch and from ONNX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import MaskChoice
from tasks.config.models import GRAPHS, Target
from tasks.console.invocation import command
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tasks.inference.prompts import Prompt

    Bools = NDArray[np.bool_]

PACKAGES = (*MODEL_PACKAGES, "onnxruntime", "numpy", "pillow")

# Nuclei and cells that it finds well, and nuclei on top of one another that it does not.
SEEDS = (16, 35, 9)
CLICKS = 5  # on each image, and fewer than there are colours: no two masks have the same

# In pixels. Legible when the picture is shown at 1000 pixels, as in a README.
WIDTH, MARGIN, GAP = 1600, 40, 20
SIDE = (WIDTH - 2 * MARGIN - (len(SEEDS) - 1) * GAP) // len(SEEDS)  # of each image
TOPS = (190, 190 + SIDE + 60)  # of both rows
LARGE, MEDIUM, SMALL = 42, 28, 26  # of letters
QUIET = (85, 85, 85)


def declare(target: Target, also: Sequence[str]) -> Stage:
    """The demo's picture.

    :param also: further tasks that belong to the demo.
    """
    source = target.source
    return Stage(
        None,
        draw_picture,
        [target],
        reads=[
            target.manifest,  # has the hash of each deployed file, and says which to load
            source.checkpoint,
            *source.architecture_files,
            *source.image_data,
        ],
        writes=[target.demo_picture],
        shared="proof",
        inputs={
            **source.architecture_options,
            "masks": target.masks,
            "contract": target.client.as_json(),
            **versions(*PACKAGES),
        },
        also_runs=[source.images],
        after=[*(f"deploy:{each.name}" for each in source.targets), *also],
        runs_here=True,  # a cluster's workers may not see the deploy folder
    )


def draw_picture(target: Target, work: Workspace) -> dict[str, Any]:
    """Draw in a child process, then move the picture into place."""
    result = work.run(
        "tasks.commands.picture:draw",
        graphs=deployed_files(target),
        client=target.client.name,
        masks=target.masks,
        **target.source.architecture_options,
        checkpoint=str(target.source.checkpoint),
        truth=target.source.images,
        destination=work.unfinished(target.demo_picture),
    )
    work.deliver(target.demo_picture)
    return {"summary": f"{in_words(**result)}; see {target.demo_picture}"}


def in_words(clicks: int, images: int, truth: float, pytorch: float, **_: Any) -> str:
    """What the picture shows, in a sentence."""
    return (
        f"{clicks} clicks on {images} drawn images: mean IoU with the true masks {truth:.2f}, "
        f"with PyTorch's masks {pytorch:.3f}"
    )


def deployed_files(target: Target) -> dict[str, str]:
    """The files that the manifest says to load, whichever variant they are of.

    :raises StageError: when there is no such manifest.
    """
    manifest = target.manifest
    try:
        told = json.loads(manifest.read_text())
        return {graph: str(target.deploy / told[graph]["file"]) for graph in GRAPHS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{manifest} is no manifest of this build; {command(f'deploy:{target.name}')} writes it"
        ) from error


class Click(NamedTuple):
    """A click on an object, and the object's masks (S, S): the true one and the best-scored two."""

    prompt: Prompt
    true: Bools
    pytorch: Bools
    onnx: Bools


def draw(
    graphs: dict[str, str],
    client: str,
    masks: MaskChoice,
    architecture: str,
    checkpoint: str,
    truth: str,
    destination: str,
    image_size: int | None = None,
) -> dict[str, Any]:
    """Click on objects of drawn images and paint what comes out (runs in a child process).

    :param graphs: the file of each graph, by its name.
    :param client: that they were made for, by name.
    :param checkpoint: that they were made from, which PyTorch is asked with.
    :returns: how many ``clicks`` on how many ``images``, and the mean IoU of ONNX's masks with the
        ``truth`` and with those of ``pytorch``.
    """
    import numpy as np

    from tasks.clients.client import named
    from tasks.inference import reference
    from tasks.inference import truth as known_masks
    from tasks.inference.metrics import mask_iou
    from tasks.model.load import load_model

    loads = named(client)
    segmenter = known_masks.Segmenter(graphs["encoder"], graphs["decoder"], loads)
    predictor = reference.predictor_of(
        load_model(architecture, checkpoint, image_size), loads.resize
    )
    scene = known_masks.load(truth)
    shown = []
    for seed in SEEDS:
        drawn = scene(seed, segmenter.size)
        objects = [drawn.labels == each for each in known_masks.objects_of(drawn)[:CLICKS]]
        prompts = [
            known_masks.prompts_for(true, str(number))[0] for number, true in enumerate(objects)
        ]
        segmenter.set_image(drawn.image)
        answers = [segmenter.predict(each) for each in prompts]
        expected = reference.predict(predictor, drawn.image, prompts, masks)
        clicks = [
            Click(
                prompt,
                true,
                segmenter.over_image(expected.best_mask(prompt.name))[0],
                answer.masks[int(answer.scores.argmax())],
            )
            for prompt, true, answer in zip(prompts, objects, answers, strict=True)
        ]
        shown.append((drawn.image, clicks))
    every = [each for _, clicks in shown for each in clicks]
    figures: dict[str, Any] = {
        "clicks": len(every),
        "images": len(shown),
        "truth": float(np.mean([mask_iou(each.onnx, each.true) for each in every])),
        "pytorch": float(np.mean([mask_iou(each.onnx, each.pytorch) for each in every])),
    }
    compose(shown, in_words(**figures)).save(destination)
    return figures


def compose(shown: Sequence[tuple[NDArray[np.uint8], Sequence[Click]]], summary: str) -> Image:
    """Both rows of images (S, S, 3), PyTorch's masks above those of ONNX, with what they mean."""
    from PIL import Image, ImageDraw

    from tasks.inference.drawing import COLORS, DARK, mark, write

    rows = ("PyTorch", "ONNX, the deployed files")
    bottom = TOPS[-1] + SIDE
    picture = Image.new("RGB", (WIDTH, bottom + 130), "white")
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, 24), "SAM 2 in ONNX: one click, one mask", LARGE, fill=DARK)
    note = "Demo model, trained here; published weights segment better."
    write(pen, (MARGIN, 84), note, MEDIUM, fill=QUIET)
    for row, (top, name) in enumerate(zip(TOPS, rows, strict=True)):
        write(pen, (MARGIN, top - 12), name, MEDIUM, fill=DARK, anchor="ls")
        for column, (image, clicks) in enumerate(shown):
            found = [each.onnx if row else each.pytorch for each in clicks]
            panel = painted(image, clicks, found)
            picture.paste(panel, (MARGIN + column * (SIDE + GAP), top))
    write(pen, (MARGIN, bottom + 20), f"{summary}.", MEDIUM, fill=DARK)
    middle = bottom + 90
    mark(pen, MARGIN + 9, middle, radius=9)
    legend = "a click, and the IoU of its mask with the true one"
    write(pen, (MARGIN + 30, middle), legend, SMALL, fill=QUIET, anchor="lm")
    pen.rectangle((740, middle - 14, 796, middle + 14), fill=COLORS[0])
    pen.line((740, middle, 796, middle), fill="white", width=3)
    write(pen, (812, middle), "the true outline", SMALL, fill=QUIET, anchor="lm")
    return picture


def painted(image: NDArray[np.uint8], clicks: Sequence[Click], found: Sequence[Bools]) -> Image:
    """An image (S, S, 3) with a mask (S, S) for each click, the true outline and the IoU."""
    import numpy as np
    from PIL import Image, ImageDraw

    from tasks.inference.drawing import COLORS, DARK, mark, outline, paint, write
    from tasks.inference.metrics import mask_iou

    canvas = image.astype(np.float32)
    for color, mask in zip(COLORS, found, strict=False):
        paint(canvas, mask, color, rim=6)
    for each in clicks:
        canvas[outline(each.true, 3)] = 255
    panel = Image.fromarray(canvas.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(panel)
    for each, mask in zip(clicks, found, strict=True):
        ((x, y),) = ((SIDE * x, SIDE * y) for x, y in each.prompt.points)
        mark(pen, x, y, radius=8)
        iou = f"{mask_iou(mask, each.true):.2f}"
        below = (min(max(x, 30), SIDE - 30), y + 12 if y < SIDE - 50 else y - 40)
        write(pen, below, iou, SMALL, fill="white", stroke_width=3, stroke_fill=DARK, anchor="mt")
    return panel
