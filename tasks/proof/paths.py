"""The results of each execution path for a model, and their judgement. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.clients.runtime import Build, TensorLayout, WebProvider
from tasks.proof.failures import PROVIDERS


@dataclass(frozen=True)
class PathFigures:
    """The result of one execution path; ``reason`` is why it ran nothing, or only a part.

    ``version`` is the runtime's version. ``ran`` names the graphs; times are medians in
    milliseconds. ``nodes`` are by graph, None if the log does not show them. The IoUs are the
    lowest of the masks with onnxruntime's, None if no mask was drawn.
    """

    browser: str
    build: Build
    version: str
    provider: WebProvider
    layout: TensorLayout | None
    threads: int | None = None
    software: bool | None = None
    ran: tuple[str, ...] = ()
    nodes: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    encoder_ms: float | None = None
    decoder_ms: float | None = None
    mask_iou: float | None = None
    tracking_iou: float | None = None
    reason: str | None = None

    @property
    def nodes_placed(self) -> str | None:
        """The numbers of nodes of all graphs on WebGPU and on the CPU; None if unknown."""
        graphs = list(self.nodes.values())
        if not graphs or None in graphs:
            return None
        on_webgpu, on_cpu = (sum(each[key] for each in graphs if each) for key in ("webgpu", "cpu"))
        return f"{on_webgpu}, {on_cpu}"


def disagreements(paths: Iterable[PathFigures], least: float) -> list[str]:
    """The paths whose masks differ from onnxruntime's by more than the rule allows; pure."""
    return [
        f"{describe(path)}: IoU {iou:.4g} of {what}, expected at least {least:g}"
        for path in paths
        for what, iou in (("masks", path.mask_iou), ("tracked masks", path.tracking_iou))
        if iou is not None and not iou >= least
    ]


def describe(path: PathFigures) -> str:
    """A short name of a path."""
    build = "" if path.build == "default" else f"/{path.build}"
    layout = f" ({path.layout})" if path.layout else ""
    provider = PROVIDERS[path.provider]
    return f"{path.browser}, onnxruntime-web{build} {path.version}, {provider}{layout}"


def outcome(path: PathFigures) -> str:
    """A short text of a path's result."""
    ious = {"masks": path.mask_iou, "tracked masks": path.tracking_iou}
    texts = [f"IoU {iou:.5g} of {what}" for what, iou in ious.items() if iou is not None]
    return "; ".join([*texts, *filter(None, [path.reason])])
