"""How a page runs graphs: a build of onnxruntime-web, and its execution provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WebProvider = Literal["wasm", "webgpu"]
# What a page imports: `onnxruntime-web`, whose WebGPU is JSEP; `/webgpu` and `/jspi`, with the
# native provider, one by Asyncify and one by JavaScript Promise Integration; `/wasm`, without any.
Build = Literal["default", "webgpu", "jspi", "wasm"]
# In which order WebGPU keeps the axes of images; None leaves that to onnxruntime-web (NHWC).
TensorLayout = Literal["NHWC", "NCHW"]

PINNED = "onnxruntime-web"


@dataclass(frozen=True)
class RuntimePath:
    """A way through onnxruntime-web; ``package`` is its folder among the packages of npm."""

    provider: WebProvider
    build: Build
    package: str = PINNED
    layout: TensorLayout | None = None

    @property
    def bundle(self) -> str:
        """The build's address on the server of the proof."""
        return f"/npm/{self.package}/dist/{file_of(self.build)}"


def file_of(build: Build) -> str:
    """A build's file, in the folder ``dist`` of the package."""
    return f"ort{'' if build == 'default' else f'.{build}'}.min.mjs"
