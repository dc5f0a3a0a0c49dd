"""The demo's filmstrip: the clicks on a clip's first frame, and the painted panels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.commands import filmstrip
from tasks.commands.filmstrip import Followed
from tasks.drawing.clip import Clip
from tasks.inference.painting import COLORS, SIDE
from tasks.inference.prompts import Prompt
from tasks.inference.tracker import Result
from tasks.system.errors import StageError


class Still:
    """A tracker that finds each object on every frame, at the place of its click."""

    constants: Any = SimpleNamespace(image_size=64)

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.clicked: dict[int, tuple[float, float]] = {}

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result:
        assert (frame, prompt.labels) == (0, (1,))
        (self.clicked[number],) = prompt.points
        return self.result(number)

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]:
        for frame in range(start or 0, self.frames):
            yield frame, {number: self.result(number) for number in self.clicked}

    def result(self, number: int) -> Result:
        logits = np.full((1, 1, 16, 16), -10, np.float32)
        column, row = (int(16 * each) for each in self.clicked[number])
        logits[0, 0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 10
        return Result(logits, 1.0, np.zeros((1, 4), np.float32), 1.0)


@pytest.fixture
def clip() -> Clip:
    """Two frames of 64 pixels with eight objects in a column, the later ones larger."""
    labels = np.zeros((2, 64, 64), np.int32)
    for number in range(1, 9):
        labels[:, 8 * number - 8 : 8 * number - 1, : 4 + 3 * number] = number
    return Clip(np.zeros((2, 64, 64, 3), np.uint8), labels)


def test_the_largest_objects_are_clicked_once_inside_and_found_on_every_frame(clip: Clip) -> None:
    followed = filmstrip.follow(Still(2), clip)
    assert len(followed) == filmstrip.OBJECTS < 8
    for number, each in zip(range(8, 2, -1), followed, strict=True):
        ((x, y),) = (map(int, at) for at in each.click.in_pixels(64, 64).points)
        assert clip.labels[0, y, x] == number
        assert each.masks.shape == each.true.shape == (2, 64, 64)
        assert each.masks[:, y, x].all()
        assert np.array_equal(each.true, clip.labels == number)


def test_a_mask_is_painted_in_its_colour_and_the_true_outline_in_white() -> None:
    true, found = np.zeros((2, 2, SIDE, SIDE), bool)
    found[1, 100:200, 100:200] = true[1, 300:400, 300:400] = True
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    panel = np.array(filmstrip.painted(black, [Followed(Prompt(), true, found)], 1))
    assert np.array_equal(panel[150, 150], np.array(COLORS[0]) // 2)
    assert (panel[301, 350] == 255).all()
    assert not panel[350, 350].any()


def test_a_manifest_without_tracking_graphs_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"encoder": {"file": "encoder.onnx"}}))
    model: Any = SimpleNamespace(
        name="demo-video", deploy=tmp_path, manifest=tmp_path / "manifest.json"
    )
    with pytest.raises(StageError, match="not a manifest of this build with tracking graphs"):
        filmstrip.deployed(model)
