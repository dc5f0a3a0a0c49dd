"""`doit demo` ends with a picture: masks from clicks on drawn images, by PyTorch and by ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace
from tasks.config.models import Target
from tasks.console.invocation import command
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tasks.inference.clicks import ClickedImage

    Bools = NDArray[np.bool_]

PACKAGES = ("onnxruntime", "numpy", "pillow")

BEGINS = (
    "Builds a small model, proves its files against PyTorch and in a browser, and draws its masks. "
    "This takes about a minute on two cores."
)


def declare(target: Target) -> Stage:
    """The demo's picture; PyTorch's masks in it come from ``verify``."""
    return Stage(
        None,
        draw_picture,
        [target],
        # The manifest has the hash of each deployed file, and names the files to load.
        reads=[target.manifest, *([target.clicks] if target.client.encodes else [])],
        writes=[target.demo_picture],
        shared="proof",
        inputs={"contract": target.client.as_json(), **versions(*PACKAGES)},
        after=[f"deploy:{target.name}"],
        runs_here=True,  # a cluster's workers might not see the deploy folder
        announcement=BEGINS,
    )


def draw_picture(target: Target, work: Workspace) -> dict[str, Any]:
    """Draw in a child process, then move the picture into place."""
    request = PictureRequest(
        graphs=deployed_files(target),
        client=target.client.key,
        clicks=str(target.clicks),
        destination=str(work.unfinished(target.demo_picture)),
    )
    result = work.run("tasks.commands.picture:draw", request)
    work.deliver(target.demo_picture)
    summary = f"{in_words(**result)}; see {target.demo_picture}"
    page, tracking = command("serve"), command("demo-video")
    note = f"Next: {page} shows the model on a page; {tracking} builds one that tracks objects."
    return {"summary": summary, "note": note}


def in_words(clicks: int, images: int, truth: float, pytorch: float, **_: Any) -> str:
    """A sentence that describes the picture."""
    return (
        f"{clicks} clicks on {images} drawn images: mean IoU with the true masks {truth:.2f}, "
        f"with PyTorch's masks {pytorch:.3f}"
    )


def deployed_files(target: Target) -> dict[str, str]:
    """The files that the manifest names, of any variant.

    :raises StageError: when the manifest is missing, or the model has no encoder.
    """
    from tasks.proof.manifest import read_manifest

    manifest = read_manifest(target.manifest)
    if manifest is None:
        raise StageError(
            f"{target.manifest} is missing, or is not a manifest of this build; "
            f"{command(f'deploy:{target.name}')} writes it"
        )
    if manifest.encoder is None:
        raise StageError(
            f"{target.name} has only a decoder, so it cannot segment an image for the picture"
        )
    files = {"encoder": manifest.encoder.file, "decoder": manifest.decoder.file}
    return {graph: str(target.deploy / file) for graph, file in files.items()}


@dataclass(frozen=True)
class PictureRequest:
    """The deployed file of each graph, and the client; ``clicks`` are those of ``verify``.

    The picture is written to ``destination``.
    """

    graphs: Mapping[str, str]
    client: str
    clicks: str
    destination: str


class Answered(NamedTuple):
    """A clicked image, and the best-scored masks (N, S, S) of the deployed files."""

    clicked: ClickedImage
    onnx: Sequence[Bools]


def draw(request: PictureRequest) -> dict[str, Any]:
    """Run the clicks on the deployed files and paint the masks (runs in a child process).

    :returns: the numbers of ``clicks`` and ``images``, and the mean IoU of ONNX's masks with the
        ``truth`` and with those of ``pytorch``.
    """
    import numpy as np

    from tasks.clients.registry import client_by_key
    from tasks.inference import clicks
    from tasks.inference.metrics import mask_iou
    from tasks.inference.truth import Segmenter

    client = client_by_key(request.client)
    segmenter = Segmenter(request.graphs["encoder"], request.graphs["decoder"], client)
    images = []
    for clicked in clicks.read(request.clicks):
        segmenter.set_image(clicked.image)
        masks = [segmenter.predict(prompt).best_mask for prompt in clicked.prompts]
        images.append(Answered(clicked, masks))

    def mean_iou(name: str) -> float:
        pairs = (zip(each.onnx, getattr(each.clicked, name), strict=True) for each in images)
        return float(np.mean([mask_iou(*pair) for image in pairs for pair in image]))

    figures: dict[str, Any] = {
        "clicks": sum(len(each.onnx) for each in images),
        "images": len(images),
        "truth": mean_iou("true"),
        "pytorch": mean_iou("pytorch"),
    }
    compose(images, in_words(**figures)).save(request.destination)
    return figures


def compose(images: Sequence[Answered], summary: str) -> Image:
    """PyTorch's masks above ONNX's masks, with a legend."""
    from tasks.inference.painting import sheet

    above = [painted(each.clicked, list(each.clicked.pytorch)) for each in images]
    below = [painted(each.clicked, each.onnx) for each in images]
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

    panel = panel_of(image.image, masks, image.true)
    pen = ImageDraw.Draw(panel)
    for (x, y), true, mask in zip(image.clicks * SIDE, image.true, masks, strict=True):
        mark(pen, x, y, radius=8)
        iou = f"{mask_iou(mask, true):.2f}"
        below = (min(max(x, 30), SIDE - 30), y + 12 if y < SIDE - 50 else y - 40)
        write(pen, below, iou, SMALL, fill="white", stroke_width=3, stroke_fill=DARK, anchor="mt")
    return panel
