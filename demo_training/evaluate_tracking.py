"""Measures how the demo model follows objects through held-out drawn time-lapses.

    uv run python -m demo_training.evaluate_tracking [--clips 20] [--first 0] [--checkpoint …]

PyTorch's `SAM2VideoPredictor` follows them, with the model's own YAML file and checkpoint. Each
clip has 24 frames of 1024 x 1024 pixels (`demo_training.time_lapse`, seeds from ``--first`` on;
seeds below 1,000,000 are held out). It follows the objects with at least 1,000 visible pixels on
frame 0, the first four of a clip by number. Each gets one click on frame 0, on the pixel farthest
from its border.

The printed figures are:

* ``iou``: the mean IoU with the true mask over all frames after the first on which the object or
  the model's mask has a pixel; a frame with only one of the two counts as 0.
* ``iou_last``: the same for the last frame only.
* ``iou_clicked``: the same for frame 0, where the click gives the mask without any tracking.
* ``found_again``: the share of the returning objects that the model finds again. An object returns
  if it has at least 1,000 visible pixels on a frame, none on a later one, and at least 1,000 on a
  frame after that one. It is found again if the IoU is 0.5 or more on any frame after its first
  absence.
* ``there_or_not``: the share of frames after the first on which the model gives a mask exactly if
  the object has a visible pixel.
* ``by_frame``: the mean IoU of each frame, counted like ``iou``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_training.time_lapse import time_lapse
from tasks.drawing.clip import Clip
from tasks.inference.masks import interior_point

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

DEMO = Path(__file__).parent.parent / "demo"
LEAST_PIXELS = 1000
MOST_OBJECTS = 4


@dataclass(frozen=True)
class Followed:
    """One object's figures for each frame (T,): its visible pixels, the pixels of the model's mask,
    and the IoU of the two.
    """

    visible: NDArray[np.int64]
    found: NDArray[np.int64]
    ious: NDArray[np.float64]


def predictor_of(checkpoint: Path) -> SAM2VideoPredictor:
    """sam2's predictor, from the YAML file's table and with the additions of sam2's own builder."""
    import torch
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    from tasks.model import architecture

    path = DEMO / "sam2_demo_video.yaml"
    table = {name: part for name, part in architecture.read(path).items() if name != "_target_"}
    predictor = SAM2VideoPredictor(
        **architecture.construct(path, "model", table),
        **architecture.VIDEO_POSTPROCESSING,
        sam_mask_decoder_extra_args=architecture.POSTPROCESSING,
    )
    predictor.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return predictor.eval()


def follow(predictor: SAM2VideoPredictor, clip: Clip) -> list[Followed]:
    """Follow the objects of a clip, each from one click on frame 0."""
    areas = np.bincount(clip.labels[0].ravel())
    numbers = [n for n, area in enumerate(areas) if n and area >= LEAST_PIXELS][:MOST_OBJECTS]
    if not numbers:
        return []
    with tempfile.TemporaryDirectory() as folder:
        for at, frame in enumerate(clip.frames):
            picture = Image.fromarray(frame)
            picture.save(f"{folder}/{at:05d}.jpg", quality=100, subsampling=0)
        state = predictor.init_state(folder)
    for number in numbers:
        row, column = interior_point(clip.labels[0] == number)
        points, labels = np.array([[column, row]], np.float32), np.array([1], np.int32)
        predictor.add_new_points_or_box(state, 0, number, points=points, labels=labels)
    figures: dict[int, list[tuple[int, int, float]]] = {number: [] for number in numbers}
    for at, ids, logits in predictor.propagate_in_video(state):
        for number, mask in zip(ids, logits[:, 0].numpy() > 0, strict=True):
            true = clip.labels[at] == number
            union = int((mask | true).sum())
            iou = int((mask & true).sum()) / union if union else 1.0
            figures[number].append((int(true.sum()), int(mask.sum()), iou))
    return [Followed(*map(np.array, zip(*figures[n], strict=True))) for n in numbers]


def return_of(visible: NDArray[np.int64]) -> int | None:
    """The first frame without an object that was visible before and returns later, if any."""
    for at in range(1, len(visible)):
        before, after = visible[:at].max(), visible[at:].max()
        if visible[at] == 0 and min(before, after) >= LEAST_PIXELS:
            return at
    return None


def summary(followed: list[Followed]) -> dict[str, Any]:
    """The figures over all objects."""
    ious = np.array([each.ious for each in followed])
    visible, found = (
        np.array([getattr(each, name) for each in followed]) > 0 for name in ("visible", "found")
    )
    counted = np.where(visible | found, ious, np.nan)
    again = []
    for each in followed:
        gone = return_of(each.visible)
        if gone is not None:
            again.append(bool((each.ious[gone:] * (each.visible[gone:] > 0)).max() >= 0.5))

    def mean(values: NDArray[np.float64]) -> float | None:
        return None if np.isnan(values).all() else round(float(np.nanmean(values)), 4)

    return {
        "objects": len(followed),
        "iou": mean(counted[:, 1:]),
        "iou_last": mean(counted[:, -1]),
        "iou_clicked": mean(counted[:, 0]),
        "returning": len(again),
        "found_again": round(float(np.mean(again)), 4) if again else None,
        "there_or_not": round(float((visible == found)[:, 1:].mean()), 4),
        "by_frame": [mean(frame) for frame in counted.T],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first clip")
    parser.add_argument("--checkpoint", type=Path, default=DEMO / "sam2_demo_video.pt")
    options = parser.parse_args()

    print((__doc__ or "").partition("The printed figures are:")[2].strip(), file=sys.stderr)
    predictor = predictor_of(options.checkpoint)
    followed: list[Followed] = []
    for seed in range(options.first, options.first + options.clips):
        followed += follow(predictor, time_lapse(seed))
        print(f"clip {seed}: {len(followed)} objects so far", file=sys.stderr, flush=True)
    print(json.dumps(summary(followed), indent=2))


if __name__ == "__main__":
    main()
