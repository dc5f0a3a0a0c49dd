"""Compares the masks of two deployments on one drawn image, and draws those that differ."""

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
ALIKE = 0.99  # masks with at least this IoU are not drawn
GRAPHS = ("encoder", "decoder")


class Side(NamedTuple):
    """One of two deployments: its name on the command line, its manifest, and its folder.

    The folder is None when only the manifest is on this machine.
    """

    name: str
    manifest: Mapping[str, Any]
    folder: Path | None


def compare_masks(before: Side, now: Side, picture: Path) -> Iterator[str]:
    """Run the same prompts on both, and compare the best-scored masks.

    :param picture: the file in which masks with an IoU below `ALIKE` are drawn.
    :returns: lines to print; none when both have the same graphs.
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
    except (KeyError, TypeError, AttributeError) as error:  # a manifest of another version
        yield f"not compared: a manifest does not name the files to load: {error!r}"
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
        yield f"masks with an IoU below {ALIKE} are drawn in {picture}"


def masks_of(side: Side, drawn: Truth) -> dict[Prompt, Bools]:
    """The mask (H, W) of the best score for each prompt that the client can send.

    :raises StageError: when the files cannot be run here, or differ from the manifest's.
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
        raise StageError(
            f"running {side.name} needs the package {error.name}, which is not installed"
        ) from error
    except StageError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        words = str(error).splitlines()[0]
        raise StageError(f"onnxruntime cannot run {side.name}'s files: {words}") from error
    return masks


def client_of(side: Side) -> Client:
    """The client whose tensors match the manifest's.

    :raises StageError: when this version has no such client.
    """
    names = [each["name"] for each in side.manifest["decoder"]["inputs"]]
    for client in CLIENTS.values():
        if client.name == side.manifest["client"] and [*client.decoder.inputs.values()] == names:
            return client
    raise StageError(
        f"{side.name}'s decoder takes {', '.join(names)}, which this version's client "
        f"{side.manifest['client']} does not send"
    )


def _graphs_of(side: Side) -> dict[str, str]:
    """The files that the manifest names."""
    if side.folder is None:
        raise StageError(
            f"only the manifest of {side.name} was downloaded; `hf download` fetches all files, "
            "then compare the folder"
        )
    if "encoder" not in side.manifest:
        raise StageError(f"{side.name} has only a decoder, for images that are encoded elsewhere")
    files = {graph: side.folder / side.manifest[graph]["file"] for graph in GRAPHS}
    for graph, path in files.items():
        if not path.is_file() or sha256_of(path) != _hashes(side)[graph]:
            raise StageError(f"{path} is not the file that its manifest lists")
    return {graph: str(path) for graph, path in files.items()}


def _hashes(side: Side) -> dict[str, str]:
    """The SHA-256 of the encoder and decoder files that the manifest names."""
    graphs = {graph: side.manifest[graph]["file"] for graph in GRAPHS if graph in side.manifest}
    return {graph: side.manifest["files"][file]["sha256"] for graph, file in graphs.items()}
