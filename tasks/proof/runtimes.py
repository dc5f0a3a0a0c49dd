"""The least version of onnxruntime that runs a file. Pure.

Measured: every variant of a narrow model at each opset, the demo and its graphs that track were
loaded and run from 1.15.1 to 1.27.0; docs/variants.md has the table. ``attention = "fused"`` needs
no more than its opset does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

from tasks.clients.contract import Format, Precision

OLDEST_TRIED = "1.15"  # earlier ones have no wheel for a Python that this project runs on

# onnxruntime's own table has opset 19 from 1.15 on, which lacks its Reshape.
OPSETS: Mapping[int, str] = {17: OLDEST_TRIED, 18: OLDEST_TRIED, 19: "1.16", 20: "1.17"}
FORMATS: Mapping[Format, str] = {"onnx": OLDEST_TRIED, "ort": "1.19"}
PRECISIONS: Mapping[Precision, str] = {
    "fp32": OLDEST_TRIED,
    "fp16": OLDEST_TRIED,
    "q8": "1.17",  # 1.16 refuses the scales of the decoder's DequantizeLinear when it runs
    "q4": "1.23",  # small matrices are a MatMulNBits of eight bits
    "q4f16": "1.23",
}


def needs(opset: int, precision: Precision, file: str) -> dict[str, str]:
    """What a manifest says of a file: the least version of each runtime, by name."""
    format: Format = "ort" if PurePath(file).suffix == ".ort" else "onnx"
    return {"onnxruntime": newest((OPSETS[opset], FORMATS[format], PRECISIONS[precision]))}


def newest(versions: Iterable[str]) -> str:
    """The newest of some versions."""
    return max(versions, key=lambda each: [int(part) for part in each.split(".")])
