"""Measures the demo model's files on held-out scenes, for the table in its README.

uv run doit demo && uv run python -m demo_training.evaluate [--images 200]
"""

from __future__ import annotations

import argparse
import json

from tasks.clients.registry import CLIENTS
from tasks.drawing.scenes import scene
from tasks.inference import truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--objects", type=int, default=5, help="at most, of each image")
    parser.add_argument("--encoder", default="build/demo/sam2_demo/encoder.onnx")
    parser.add_argument("--decoder", default="build/demo/sam2_demo/decoder.onnx")
    options = parser.parse_args()
    client = CLIENTS["nimbusimage"]  # the client that `doit demo` builds for
    graphs = options.encoder, options.decoder
    figures = truth.measure(
        truth.Segmenter(*graphs, client), scene, range(options.images), options.objects
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
