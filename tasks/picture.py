"""`doit demo` ends with a picture: drawn images, clicks on them, and the masks that come out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.schema import Configuration, Model
from tasks.engine import artifacts
from tasks.engine.errors import StageError
from tasks.engine.invocation import command
from tasks.engine.stage import declare, workspace

if TYPE_CHECKING:
    import numpy as np
    from doit.task import Task
    from numpy.typing import NDArray
    from PIL.ImageDraw import ImageDraw

SEEDS = (3, 9, 5)
CLICKS = 7
SIDE = 640  # of each image in the picture, in pixels
CLICK = (18, 161, 80)
COLORS = ((255, 99, 71), (64, 200, 120), (70, 140, 255), (255, 200, 40), (220, 90, 230))


def path(model: Model) -> Path:
    """The picture, beside the model's deploy folder."""
    return model.deploy.parent / f"{model.name}.png"


def task(config: Configuration, model: Model, clients: Sequence[Model]) -> dict[str, Any]:
    """doit's task for the demo model.

    :param clients: the models of its table, all of which are deployed.
    """
    return declare(
        None,
        draw_picture,
        [config, model],
        reads=[artifacts.manifest(model), *model.image_data],
        writes=[path(model)],
        inputs={"contract": model.client.as_json()},
        also_runs=[model.images],
        task_dep=[f"deploy:{each.name}" for each in clients],
    )


def draw_picture(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Draw in a child process, then move the picture into place."""
    with workspace(config.build, task) as work:
        made = work.scratch / "picture.png"
        result = work.run(
            "tasks.picture:draw",
            graphs=deployed_files(model),
            client=model.client.name,
            truth=model.images,
            destination=str(made),
        )
        made.replace(path(model))
    return {
        "summary": f"{result['masks']} clicks on {len(SEEDS)} images, mean IoU with the truth "
        f"{result['iou']:.3f}, in {path(model)}"
    }


def deployed_files(model: Model) -> dict[str, str]:
    """The files that the manifest says to load, whichever variant they are of.

    :raises StageError: when there is no such manifest.
    """
    manifest = artifacts.manifest(model)
    try:
        told = json.loads(manifest.read_text())
        return {graph: str(model.deploy / told[graph]["file"]) for graph in model.graphs}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{manifest} is no manifest of this build; {command(f'deploy:{model.name}')} writes it"
        ) from error


def draw(graphs: dict[str, str], client: str, truth: str, destination: str) -> dict[str, Any]:
    """Click on objects of drawn images and paint the best mask of each (runs in a child process).

    :param graphs: the file of each graph, by its name.
    :param client: that they were made for, by name.
    :returns: how many ``masks``, and their mean ``iou`` with the truth.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from tasks.clients.client import named
    from tasks.inference import truth as known_masks
    from tasks.inference.metrics import mask_iou

    segmenter = known_masks.Segmenter(graphs["encoder"], graphs["decoder"], named(client))
    scene = known_masks.load(truth)
    picture = Image.new("RGB", (SIDE * len(SEEDS), SIDE))
    ious = []
    for place, seed in enumerate(SEEDS):
        drawn = scene(seed, segmenter.size)
        segmenter.set_image(drawn.image)
        canvas = drawn.image.astype(np.float32)
        clicks: list[tuple[float, float]] = []
        for color, number in zip(COLORS * 2, known_masks.objects_of(drawn)[:CLICKS], strict=False):
            true = drawn.labels == number
            click, _ = known_masks.prompts_for(true, str(number))
            answer = segmenter.predict(click)
            mask = answer.masks[int(answer.scores.argmax())]
            ious.append(mask_iou(mask, true))
            paint(canvas, mask, color)
            clicks += click.points
        panel = Image.fromarray(canvas.astype(np.uint8)).resize((SIDE, SIDE))
        mark(ImageDraw.Draw(panel), [(x * SIDE, y * SIDE) for x, y in clicks])
        picture.paste(panel, (place * SIDE, 0))
    picture.save(destination)
    return {"masks": len(ious), "iou": float(np.mean(ious))}


def paint(canvas: NDArray[np.float32], mask: NDArray[np.bool_], color: tuple[int, ...]) -> None:
    """Tint a mask on an image (S, S, 3), and draw its rim."""
    import numpy as np

    from tasks.inference.truth import eroded

    inner = mask
    for _ in range(3):
        inner = eroded(inner)
    canvas[mask] = canvas[mask] * 0.55 + np.array(color) * 0.45
    canvas[mask & ~inner] = color


def mark(pen: ImageDraw, clicks: list[tuple[float, float]]) -> None:
    """Draw a dot where each click was."""
    for x, y in clicks:
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=CLICK, outline="white", width=2)
