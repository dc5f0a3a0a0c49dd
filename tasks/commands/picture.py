"""`doit demo` ends with a picture: what clicks on drawn images give, from PyTorch and from ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import MaskChoice
from tasks.config.models import Target
from tasks.console.invocation import command
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model.trained import TrainedModel
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tasks.inference.prompts import Prompt

    Bools = NDArray[np.bool_]

PACKAGES = (*MODEL_PACKAGES, "onnxruntime", "numpy", "pillow")

# Nuclei and cells that it segments well, and nuclei on top of one another that it does not.
SEEDS = (16, 35, 9)
CLICKS = 5  # on each image, and fewer than there are colours: no two masks have the same


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
    request = PictureRequest(
        graphs=deployed_files(target),
        client=target.client.name,
        masks=target.masks,
        model=target.source.trained_model,
        truth=target.source.images,
        destination=str(work.unfinished(target.demo_picture)),
    )
    result = work.run("tasks.commands.picture:draw", request)
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
    from tasks.proof.manifest import read_manifest

    manifest = read_manifest(target.manifest)
    if manifest is None:
        raise StageError(
            f"{target.manifest} is not a manifest of this build; "
            f"{command(f'deploy:{target.name}')} writes it"
        )
    files = {"encoder": manifest.encoder.file, "decoder": manifest.decoder.file}
    return {graph: str(target.deploy / file) for graph, file in files.items()}


@dataclass(frozen=True)
class PictureRequest:
    """The deployed file of each graph, the ``model`` that they were made from, and for whom.

    ``truth`` is the function that draws the images; the picture is written to ``destination``.
    """

    graphs: Mapping[str, str]
    client: str
    masks: MaskChoice
    model: TrainedModel
    truth: str
    destination: str


class Click(NamedTuple):
    """A click on an object, and the object's masks (S, S): the true one and the best-scored two."""

    prompt: Prompt
    true: Bools
    pytorch: Bools
    onnx: Bools


class ClickedImage(NamedTuple):
    """An image (S, S, 3) and what was clicked on it."""

    image: NDArray[np.uint8]
    clicks: Sequence[Click]


def draw(request: PictureRequest) -> dict[str, Any]:
    """Click on objects of drawn images and paint the masks (runs in a child process).

    :returns: how many ``clicks`` on how many ``images``, and the mean IoU of ONNX's masks with the
        ``truth`` and with those of ``pytorch``.
    """
    import numpy as np

    from tasks.inference.metrics import mask_iou

    images = click_on_images(request)
    clicks = [click for each in images for click in each.clicks]
    figures: dict[str, Any] = {
        "clicks": len(clicks),
        "images": len(images),
        "truth": float(np.mean([mask_iou(each.onnx, each.true) for each in clicks])),
        "pytorch": float(np.mean([mask_iou(each.onnx, each.pytorch) for each in clicks])),
    }
    compose(images, in_words(**figures)).save(request.destination)
    return figures


def click_on_images(request: PictureRequest) -> list[ClickedImage]:
    """The answers of both to the same clicks."""
    from tasks.clients.registry import client_by_name
    from tasks.inference import reference, truth

    client = client_by_name(request.client)
    segmenter = truth.Segmenter(request.graphs["encoder"], request.graphs["decoder"], client)
    predictor = reference.predictor_of(request.model.load(), client.resize)
    scene = truth.load(request.truth)
    images = []
    for seed in SEEDS:
        drawn = scene(seed, segmenter.size)
        objects = {f"{n}": drawn.labels == n for n in truth.objects_of(drawn)[:CLICKS]}
        prompts = [truth.prompts_for(true, name)[0] for name, true in objects.items()]
        expected = reference.predict(predictor, drawn.image, prompts, request.masks)
        segmenter.set_image(drawn.image)
        clicks = [
            Click(
                prompt,
                true,
                segmenter.over_image(expected.best_mask(prompt.name))[0],
                segmenter.predict(prompt).best_mask,
            )
            for prompt, true in zip(prompts, objects.values(), strict=True)
        ]
        images.append(ClickedImage(drawn.image, clicks))
    return images


def compose(images: Sequence[ClickedImage], summary: str) -> Image:
    """PyTorch's masks above those of ONNX, with what they mean."""
    from tasks.inference.painting import sheet

    above = [painted(each, [click.pytorch for click in each.clicks]) for each in images]
    below = [painted(each, [click.onnx for click in each.clicks]) for each in images]
    labels = ["PyTorch", "", "", "ONNX, the deployed files", "", ""]
    return sheet(
        "SAM 2 in ONNX: one click, one mask",
        list(zip(labels, [*above, *below], strict=True)),
        summary,
        "a click, and the IoU of its mask with the true one",
    )


def painted(image: ClickedImage, masks: Sequence[Bools]) -> Image:
    """An image with a mask (S, S) for each click, the true outline and the IoU."""
    from PIL import ImageDraw

    from tasks.inference.metrics import mask_iou
    from tasks.inference.painting import DARK, SIDE, SMALL, mark, panel_of, write

    panel = panel_of(image.image, masks, [click.true for click in image.clicks])
    pen = ImageDraw.Draw(panel)
    for click, mask in zip(image.clicks, masks, strict=True):
        ((x, y),) = click.prompt.in_pixels(SIDE, SIDE).points
        mark(pen, x, y, radius=8)
        iou = f"{mask_iou(mask, click.true):.2f}"
        below = (min(max(x, 30), SIDE - 30), y + 12 if y < SIDE - 50 else y - 40)
        write(pen, below, iou, SMALL, fill="white", stroke_width=3, stroke_fill=DARK, anchor="mt")
    return panel
