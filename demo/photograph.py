"""Draws what the demo model makes of a photograph, scikit-image's coins (docs/coins.jpg).

uv run doit demo && uv run python -m demo.photograph docs/coins.jpg
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from tasks import picture
from tasks.inference.truth import Segmenter

# A coin each, x and y in pixels of the photograph (384 × 303).
CLICKS = (
    (100, 57),
    (155, 51),
    (215, 52),
    (103, 126),
    (154, 126),
    (101, 196),
    (212, 194),
    (347, 188),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output")
    parser.add_argument("--encoder", default="build/demo/sam2_demo/encoder.onnx")
    parser.add_argument("--decoder", default="build/demo/sam2_demo/decoder.onnx")
    given = parser.parse_args()
    photograph = Image.fromarray(data.coins()).convert("RGB")
    segmenter = Segmenter(given.encoder, given.decoder)
    scale = segmenter.size / max(photograph.size)
    width, height = (round(scale * each) for each in photograph.size)
    image = np.zeros((segmenter.size, segmenter.size, 3), np.uint8)
    image[:height, :width] = np.asarray(photograph.resize((width, height)))
    segmenter.set_image(image)
    canvas = image.astype(np.float32)
    clicks = [(scale * x, scale * y) for x, y in CLICKS]
    for color, click in zip(picture.COLORS * 2, clicks, strict=False):
        answer = segmenter.predict([click], [1])
        picture.paint(canvas, answer.masks[int(answer.scores.argmax())], color)
    drawn = Image.fromarray(canvas.astype(np.uint8)).crop((0, 0, width, height))
    picture.mark(ImageDraw.Draw(drawn), clicks)
    both = Image.new("RGB", (2 * width, height))
    both.paste(photograph.resize((width, height)), (0, 0))
    both.paste(drawn, (width, 0))
    both.resize((width, height // 2)).save(given.output, quality=85)


if __name__ == "__main__":
    main()
