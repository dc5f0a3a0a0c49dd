"""The file of PyTorch's answers about scripts: ``tracking_reference.npz``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks.clients.contract import Dimensions, Memory, TrackingConstants
from tasks.inference.scripts import Answer, Answers

NUMBERS = ("score", "predicted_iou", "magnitude")


@dataclass(frozen=True)
class About:
    """What answered: its sizes, what a tracker must know of it, and the hashes of its files."""

    dimensions: Dimensions
    memory: Memory
    constants: TrackingConstants
    against: dict[str, str]


def write(path: str, about: About, scripts: Mapping[str, Answers]) -> None:
    """Write answers by the script's name; masks are stored as bits."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, answers in scripts.items():
        masks = np.stack([each.mask for each in answers.values()])
        arrays[f"{name}/keys"] = np.array(list(answers), np.int64)
        arrays[f"{name}/masks"] = np.packbits(masks, axis=-1)
        arrays[f"{name}/width"] = masks.shape[-1]
        arrays[f"{name}/pointers"] = np.stack([each.pointer for each in answers.values()])
        for field in NUMBERS:
            numbers = [getattr(each, field) for each in answers.values()]
            arrays[f"{name}/{field}"] = np.array(numbers, np.float64)
    np.savez_compressed(path, about=json.dumps(asdict(about)), **arrays)


def read(path: str) -> tuple[About, dict[str, Answers]]:
    """Read what `write` wrote."""
    import numpy as np

    scripts: dict[str, Answers] = {}
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        for name in dict.fromkeys(each.split("/")[0] for each in file.files if "/" in each):
            keys = file[f"{name}/keys"].tolist()
            width = int(file[f"{name}/width"])
            masks = np.unpackbits(file[f"{name}/masks"], axis=-1, count=width) > 0
            pointers = file[f"{name}/pointers"]
            numbers = {field: file[f"{name}/{field}"].tolist() for field in NUMBERS}
            scripts[name] = {
                (step, frame, number): Answer(
                    mask=masks[row],
                    pointer=pointers[row],
                    **{field: values[row] for field, values in numbers.items()},
                )
                for row, (step, frame, number) in enumerate(keys)
            }
    return _about(**about), scripts


def _about(
    dimensions: dict[str, Any],
    memory: dict[str, Any],
    constants: dict[str, Any],
    against: dict[str, str],
) -> About:
    """From JSON, which has lists for tuples."""
    points = constants["multimask_points"]
    return About(
        Dimensions(**dimensions | {"feature_channels": tuple(dimensions["feature_channels"])}),
        Memory(**memory | {"shape": tuple(memory["shape"])}),
        TrackingConstants(**constants | {"multimask_points": points and tuple(points)}),
        against,
    )
