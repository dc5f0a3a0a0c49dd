"""The masks of two deployments, of one drawn image, and a picture of those that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.clients.client import Client
from tasks.clients.registry import CLIENTS
from tasks.system.errors import StageError
from tasks.system.files import sha256_of

if TYPE_CHECKING:
    from tasks.inference.masks import Bools
    from tasks.inference.prompts import Prompt
    from tasks.inference.truth import Answer, Truth

SEED, SIZE = 21, 1024  # of the drawn image, which the demo model was not trained on
ALIKE = 0.99  # the IoU from which masks are not drawn
GRAPHS = ("encoder", "decoder")


class Side(NamedTuple):
    """One of two deployments: what it was called, its manifest, and the folder of its files.

    The folder is None where nothing but the manifest is on this machine.
    """

    name: str
    manifest: Mapping[str, Any]
    folder: Path | None


def compare_masks(before: Side, now: Side, picture: Path) -> Iterator[str]:
    """Put the same prompts to both, and compare the masks of the best scores.

    :param picture: where those below `ALIKE` are drawn.
    :returns: lines for people; none where both have the same graphs.
    """
    from tasks.drawing.scenes import scene

    try:
        if _hashes(before) == _hashes(now):
            return
        drawn = scene(SEED, SIZE)
        one, other = (masks_of(each, drawn) for each in (before, now))
    except StageError as error:
        yield f"not compared: {error}"
        return
    except (KeyError, TypeError, AttributeError) as error:  # of a manifest of another version
        yield f"not compared: a manifest does not say which files to load: {error!r}"
        return
    from tasks.inference.metrics import mask_iou
    from tasks.inference.painting import MaskPair, draw_pairs

    pairs = [
        MaskPair(mask_iou(mask, other[prompt]), drawn.image, prompt, mask, other[prompt])
        for prompt, mask in one.items()
        if prompt in other  # not every client sends a mask
    ]
    for each in pairs:
        yield f"{each.prompt.name}: IoU {each.iou:.4f}"
    apart = [each for each in pairs if each.iou < ALIKE]
    if apart:
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_pairs(apart, (before.name, now.name), str(picture))
        yield f"those below {ALIKE} are drawn in {picture}"


def masks_of(side: Side, drawn: Truth) -> dict[Prompt, Bools]:
    """The mask (H, W) of the best score for each prompt that the client can send.

    :raises StageError: when the files cannot be run here, or are not those of the manifest.
    """
    from tasks.inference.prompts import answerable
    from tasks.inference.truth import Segmenter, prompts_about

    files, client = _graphs_of(side), client_of(side)
    answers: dict[str, Answer] = {}
    masks: dict[Prompt, Bools] = {}
    try:
        segmenter = Segmenter(files["encoder"], files["decoder"], client)
        segmenter.set_image(drawn.image)
        for prompt in answerable(prompts_about(drawn), client):
            earlier = answers[prompt.refines] if prompt.refines else None
            answer = segmenter.predict(prompt, earlier.logits[earlier.best] if earlier else None)
            answers[prompt.name], masks[prompt] = answer, answer.best_mask
    except ImportError as error:
        raise StageError(f"{side.name} cannot be run without {error.name}") from error
    except StageError:
        raise
    except Exception as error:  # onnxruntime's have no common class
        words = str(error).splitlines()[0]
        raise StageError(f"onnxruntime does not run {side.name}'s files: {words}") from error
    return masks


def client_of(side: Side) -> Client:
    """The client whose tensors the manifest has.

    :raises StageError: when this version has none.
    """
    names = [each["name"] for each in side.manifest["decoder"]["inputs"]]
    for client in CLIENTS.values():
        if client.name == side.manifest["client"] and [*client.decoder.inputs.values()] == names:
            return client
    raise StageError(
        f"{side.name}'s decoder takes {', '.join(names)}, and no {side.manifest['client']} that "
        "this version knows feeds it that"
    )


def _graphs_of(side: Side) -> dict[str, str]:
    """The files that the manifest says to load."""
    if side.folder is None:
        raise StageError(f"of {side.name} the manifest alone was downloaded; `hf download` has all")
    if "encoder" not in side.manifest:
        raise StageError(f"{side.name} is a decoder alone, for images that are encoded elsewhere")
    files = {graph: side.folder / side.manifest[graph]["file"] for graph in GRAPHS}
    for graph, path in files.items():
        if not path.is_file() or sha256_of(path) != _hashes(side)[graph]:
            raise StageError(f"{path} is not the file that its manifest lists")
    return {graph: str(path) for graph, path in files.items()}


def _hashes(side: Side) -> dict[str, str]:
    """The SHA-256 of each graph of an image that the manifest says to load."""
    graphs = {graph: side.manifest[graph]["file"] for graph in GRAPHS if graph in side.manifest}
    return {graph: side.manifest["files"][file]["sha256"] for graph, file in graphs.items()}
