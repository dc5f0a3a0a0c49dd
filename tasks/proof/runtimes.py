"""The runtimes that run a file: the oldest supported onnxruntime, and the tested versions. Pure.

tests/test_runtimes.py runs a file of each kind in each version that `runs_on` names for it.
Earlier, every variant of a narrow model at each opset, the demo and its tracking graphs were loaded
and run from 1.15.1 to 1.27.0; docs/variants.md has the table. ``attention = "fused"`` needs no
newer version than its opset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Literal

from tasks.clients.contract import Format, Precision

Runtime = Literal["onnxruntime", "openvino"]

# The newest tested version of each runtime.
NEWEST: Mapping[Runtime, str] = {"onnxruntime": "1.32.0", "openvino": "2026.4.1"}
OLDEST_TRIED = "1.15"  # earlier versions have no wheel for a Python that this project supports

# onnxruntime's own table lists opset 19 from 1.15 on, but 1.15 lacks its Reshape.
OPSETS: Mapping[int, str] = {17: OLDEST_TRIED, 18: OLDEST_TRIED, 19: "1.16", 20: "1.17"}
FORMATS: Mapping[Format, str] = {"onnx": OLDEST_TRIED, "ort": "1.19"}
PRECISIONS: Mapping[Precision, str] = {
    "fp32": OLDEST_TRIED,
    "fp16": OLDEST_TRIED,
    "q8": "1.17",  # 1.16 refuses the scales of the decoder's DequantizeLinear at run time
    "q4": "1.23",  # small matrices are stored as MatMulNBits of eight bits
    "q4f16": "1.23",
    "half": "1.17",  # no earlier version was tested
}


# The feature that WebGPU's adapter must have for a precision.
FEATURES: Mapping[Precision, str] = {"half": "shader-f16"}


def needs(opset: int, precision: Precision, file: str) -> dict[str, str]:
    """A file's requirements in a manifest: the oldest version of each runtime, by name, and the
    feature that it needs from ``webgpu``.
    """
    parts = OPSETS[opset], FORMATS[_format_of(file)], PRECISIONS[precision]
    feature = {"webgpu": FEATURES[precision]} if precision in FEATURES else {}
    return {"onnxruntime": newest(parts), **feature}


def runs_on(
    opset: int, precision: Precision, file: str, installed: str
) -> dict[Runtime, tuple[str, ...]]:
    """The versions of each runtime that ran a file, or a file of its kind, for a manifest.

    :param installed: the version of onnxruntime that proves the file itself.
    """
    least = f"{needs(opset, precision, file)['onnxruntime']}.0"
    versions = sorted({least, installed, NEWEST["onnxruntime"]}, key=_numbers)
    tried: dict[Runtime, tuple[str, ...]] = {"onnxruntime": tuple(versions)}
    if _format_of(file) == "onnx":  # the other format is onnxruntime's own
        tried["openvino"] = (NEWEST["openvino"],)
    return tried


def _format_of(file: str) -> Format:
    return "ort" if PurePath(file).suffix == ".ort" else "onnx"


def newest(versions: Iterable[str]) -> str:
    """The newest version."""
    return max(versions, key=_numbers)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
