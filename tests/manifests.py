"""A small manifest, for tests of the code that reads manifests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks.clients.contract import Tensor
from tasks.config.checkpoint_record import Checkpoint
from tasks.proof.figures import Ious
from tasks.proof.manifest import (
    SCHEMA_VERSION,
    Fidelity,
    File,
    Graph,
    Limits,
    Manifest,
    Masks,
    Preprocessing,
    Prompting,
    VariantEntry,
    Verification,
)

FIDELITY = Fidelity(8, 32, Ious(0.99, 0.9), 0.0, 0.01, 0.01, 0.01)
VERIFICATION = Verification("PyTorch", Limits(1e-4, 1e-3, 1e-4), {"image_embed": 1e-6}, {})


def variant(name: str = "fp32", **changes: Any) -> VariantEntry:
    """A deployed variant."""
    files = {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
    precision, _, ending = name.partition(".")
    return replace(
        VariantEntry(name, precision, ending or "onnx", files, True),  # type: ignore[arg-type]
        **changes,
    )


def manifest(**changes: Any) -> Manifest:
    """A manifest of a model in single precision, with changed fields."""
    image = Tensor("image", "float32", (1, 3, 1024, 1024), "image")
    runs_on: Any = {"onnxruntime": ("1.17.0", "1.32.0")}
    file = File(1 << 20, "0" * 64, {"onnxruntime": "1.17"}, runs_on)
    made = Manifest(
        schema_version=SCHEMA_VERSION,
        model="tiny",
        model_type="sam2_hiera_tiny",
        config=None,
        checkpoint=Checkpoint("https://host/tiny.pt", "0" * 64, 1 << 20, False),
        license="MIT",
        origin=None,
        client="samexporter",
        files={"encoder.onnx": file, "decoder.onnx": file},
        encoder=Graph("encoder.onnx", (image,), ()),
        decoder=Graph("decoder.onnx", (), ()),
        preprocessing=Preprocessing(
            "NCHW", "RGB", (0, 255), (1, 2, 3), (4, 5, 6), "stretch", None, {"foreground": 1}
        ),
        prompts=Prompting("many", True, 0, "x, y", "two points"),
        masks=Masks("multi", "logits", 4),
        client_version="0.5.0",
        variants=(variant(),),
        recommended={},
        options={"opset": 17},
        packages={"onnx": "1.20.1"},
        verification=VERIFICATION,
        browser=None,
    )
    return replace(made, **changes)
