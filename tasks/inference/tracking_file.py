"""PyTorch's answers about clips as they are stored: ``tracking_reference.npz``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from tasks.clients.contract import Dimensions, Memory, TrackingConstants
from tasks.inference.clips import Answer, Answers

# What an answer has one number of each.
NUMBERS = ("score", "predicted_iou", "magnitude")


class About(NamedTuple):
    """What answered: its sizes, what a tracker must know of it, and the hashes of its files."""

    dimensions: Dimensions
    memory: Memory
    constants: TrackingConstants
    against: dict[str, str]


def write(path: str, about: About, clips: Mapping[str, Answers]) -> None:
    """Write answers by the clip's name; masks are stored as bits."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, answers in clips.items():
        masks = np.stack([each.mask for each in answers.values()])
        arrays[f"{name}/keys"] = np.array(list(answers), np.int64)
        arrays[f"{name}/masks"] = np.packbits(masks, axis=-1)
        arrays[f"{name}/width"] = masks.shape[-1]
        arrays[f"{name}/pointers"] = np.stack([each.pointer for each in answers.values()])
        for field in NUMBERS:
            numbers = [getattr(each, field) for each in answers.values()]
            arrays[f"{name}/{field}"] = np.array(numbers, np.float64)
    told = [asdict(about.dimensions), asdict(about.memory), asdict(about.constants), about.against]
    np.savez_compressed(path, about=json.dumps(told), **arrays)


def read(path: str) -> tuple[About, dict[str, Answers]]:
    """Read what `write` wrote."""
    import numpy as np

    clips: dict[str, Answers] = {}
    with np.load(path) as file:
        dimensions, memory, constants, against = json.loads(str(file["about"]))
        for name in dict.fromkeys(each.split("/")[0] for each in file.files if "/" in each):
            part = {
                kind: file[f"{name}/{kind}"] for kind in ("keys", "masks", "pointers", *NUMBERS)
            }
            masks = np.unpackbits(part["masks"], axis=-1, count=int(file[f"{name}/width"]))
            numbers = zip(*(part[field].tolist() for field in NUMBERS), strict=True)
            clips[name] = {
                (step, frame, number): Answer(
                    mask=mask > 0, pointer=pointer, **dict(zip(NUMBERS, row, strict=True))
                )
                for (step, frame, number), mask, pointer, row in zip(
                    part["keys"].tolist(), masks, part["pointers"], numbers, strict=True
                )
            }
    dimensions["feature_channels"] = tuple(dimensions["feature_channels"])
    memory["shape"] = tuple(memory["shape"])
    if constants["multimask_points"] is not None:
        constants["multimask_points"] = tuple(constants["multimask_points"])
    return About(
        Dimensions(**dimensions), Memory(**memory), TrackingConstants(**constants), against
    ), clips
