"""How a page runs graphs: with which build of onnxruntime-web, on which execution provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WebProvider = Literal["wasm", "webgpu"]
# What a page imports. `onnxruntime-web`: WebGPU through JSEP. `/webgpu` and `/jspi`: the native
# WebGPU provider, with Asyncify or JavaScript Promise Integration. `/wasm`: no WebGPU.
Build = Literal["default", "webgpu", "jspi", "wasm"]
# The order of image axes on WebGPU; None leaves it to onnxruntime-web (NHWC).
TensorLayout = Literal["NHWC", "NCHW"]

PINNED = "onnxruntime-web"


@dataclass(frozen=True)
class RuntimePath:
    """A path through onnxruntime-web; ``package`` is its folder in ``node_modules``."""

    provider: WebProvider
    build: Build
    package: str = PINNED
    layout: TensorLayout | None = None

    @property
    def bundle(self) -> str:
        """The build's address on the proof's server."""
        return f"/npm/{self.package}/dist/{file_of(self.build)}"


def file_of(build: Build) -> str:
    """A build's file, in the folder ``dist`` of the package."""
    return f"ort{'' if build == 'default' else f'.{build}'}.min.mjs"
