"""COCO's annotations, as pycocotools reads them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO


def read(path: Path) -> Any:
    """A data set, without the output of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def masks(found: dict[str, Any]) -> list[NDArray[np.bool_]]:
    """The mask of each annotation, in their order."""
    data = COCO()
    data.dataset = found
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
    return [data.annToMask(each) > 0 for each in found["annotations"]]


def labels(path: Path) -> NDArray[Any]:
    """A saved picture of labels; asserts that it has one channel, of 8 or 16 bits."""
    with Image.open(path) as picture:
        assert picture.mode in ("L", "I;16"), picture.mode
        return np.array(picture)
