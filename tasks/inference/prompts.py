"""Prompts: what a person could give, and the tensors that a decoder takes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.clients.contract import POINT_LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.clients.client import Client
    from tasks.inference.preprocessing import Placement


@dataclass(frozen=True)
class Prompt:
    """Points, a box, a previous mask. Coordinates are parts of the image, 0 to 1."""

    name: str
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    refines_mask: bool = False  # the best mask of the first prompt


# What `verify` and the browser's proof ask about their image.
PROMPTS = (
    Prompt("one point", ((0.42, 0.55),), (1,)),
    Prompt("points", ((0.42, 0.55), (0.30, 0.62), (0.80, 0.20)), (1, 1, 0)),
    Prompt("box", box=(0.25, 0.35, 0.65, 0.75)),
    Prompt("box and point", ((0.30, 0.40),), (0,), box=(0.25, 0.35, 0.65, 0.75)),
    Prompt("previous mask", ((0.42, 0.55), (0.55, 0.60)), (1, 1), refines_mask=True),
)

# What a decoder that takes many prompts is also asked at once.
AT_ONCE = (
    (
        Prompt("1st of 3", ((0.42, 0.55), (0.30, 0.62)), (1, 0)),
        Prompt("2nd of 3", ((0.75, 0.30), (0.30, 0.62)), (1, 1)),
        Prompt("3rd of 3", ((0.15, 0.20), (0.42, 0.55)), (0, 1)),
    ),
    (
        Prompt("1st of 2 boxes", box=(0.25, 0.35, 0.65, 0.75)),
        Prompt("2nd of 2 boxes", box=(0.60, 0.15, 0.90, 0.45)),
    ),
)


def answerable(prompts: Sequence[Prompt], client: Client) -> tuple[Prompt, ...]:
    """Those that a client can put: not each takes a mask to refine."""
    refines = "mask_input" in client.decoder.inputs
    return tuple(each for each in prompts if refines or not each.refines_mask)


def prompt_tensors(
    prompts: Sequence[Prompt], place: Placement, client: Client
) -> dict[str, NDArray[Any]]:
    """What a client feeds for prompts about an image, by role.

    ``point_coords (P, N, 2)`` in pixels of the encoder's input and ``point_labels (P, N)``, with
    label -1 where a prompt has less points than others. A box is its corners, which come first, or
    in ``boxes (Q, 4)`` where the client's decoder takes them: there Q is P, or 0 without boxes.

    :raises ValueError: when some prompts have a box and others none.
    """
    import numpy as np

    width, height = place.width * place.right, place.height * place.down
    boxes = [each.box for each in prompts if each.box is not None]
    if boxes and len(boxes) != len(prompts):
        raise ValueError("of prompts at once, all have a box or none has")
    apart = "boxes" in client.decoder.inputs
    rows: list[tuple[list[tuple[float, float]], list[int]]] = []
    for each in prompts:
        points, labels = list(each.points), list(each.labels)
        if each.box is not None and not apart:
            points = [each.box[:2], each.box[2:], *points]
            corners = [POINT_LABELS["box_top_left"], POINT_LABELS["box_bottom_right"]]
            labels = [*corners, *labels]
        elif each.box is None and client.padding_point:
            points.append((0, 0))
            labels.append(POINT_LABELS["padding"])
        rows.append((points, labels))
    most = max(len(labels) for _, labels in rows)
    coords = np.zeros((len(rows), most, 2), np.float32)
    codes = np.full((len(rows), most), POINT_LABELS["padding"], np.float32)
    for row, (points, labels) in enumerate(rows):
        coords[row, : len(points)] = np.reshape(points, (-1, 2)) * (width, height)
        codes[row, : len(labels)] = labels
    found: dict[str, NDArray[Any]] = {"point_coords": coords, "point_labels": codes}
    if apart:
        scale = (width, height, width, height)
        found["boxes"] = (np.reshape(boxes, (-1, 4)) * scale).astype(np.float32)
    return found
