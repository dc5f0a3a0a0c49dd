"""Draws the demo model's masks for a photograph, scikit-image's coins (docs/coins.jpg).

uv run doit demo && uv run python -m demo_training.photograph docs/coins.jpg
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from tasks.clients.registry import CLIENTS
from tasks.inference import painting
from tasks.inference.prompts import Prompt
from tasks.inference.truth import Segmenter

# One click on each coin, x and y in pixels of the photograph (384 × 303).
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
    parser.add_argument("--client", default="nimbusimage", choices=CLIENTS)
    options = parser.parse_args()
    photograph = Image.fromarray(data.coins()).convert("RGB")
    segmenter = Segmenter(options.encoder, options.decoder, CLIENTS[options.client])
    scale = segmenter.size / max(photograph.size)
    large = photograph.resize((round(scale * photograph.width), round(scale * photograph.height)))
    segmenter.set_image(np.asarray(large))
    canvas = np.asarray(large, np.float32).copy()
    for color, (x, y) in zip(painting.COLORS * 2, CLICKS, strict=False):
        point = (x / photograph.width, y / photograph.height)
        prediction = segmenter.predict(Prompt("click", (point,), (1,)))
        painting.paint(canvas, prediction.masks[int(prediction.scores.argmax())], color)
    drawn = Image.fromarray(canvas.astype(np.uint8))
    for x, y in CLICKS:
        painting.mark(ImageDraw.Draw(drawn), scale * x, scale * y)
    width, height = large.size
    both = Image.new("RGB", (2 * width, height))
    both.paste(large, (0, 0))
    both.paste(drawn, (width, 0))
    both.resize((width, height // 2)).save(options.output, quality=85)


if __name__ == "__main__":
    main()
