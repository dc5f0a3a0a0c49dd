"""What each execution path did with a model, and whether that is right. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.clients.runtime import Build, TensorLayout, WebProvider
from tasks.proof.failures import PROVIDERS


@dataclass(frozen=True)
class PathFigures:
    """What one execution path did; ``reason`` says why it ran nothing, or not all.

    ``version`` is that of the runtime. ``ran`` names the graphs; times are medians in milliseconds.
    ``nodes`` are by graph, None where the log does not tell. The IoUs are the least of the masks
    with onnxruntime's, None where none was drawn.
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
        """How many nodes of all graphs are on WebGPU, and on the CPU; None where unknown."""
        graphs = list(self.nodes.values())
        if not graphs or None in graphs:
            return None
        on_webgpu, on_cpu = (sum(each[key] for each in graphs if each) for key in ("webgpu", "cpu"))
        return f"{on_webgpu}, {on_cpu}"


def disagreements(paths: Iterable[PathFigures], least: float) -> list[str]:
    """The paths whose masks are further from onnxruntime's than the rule allows; pure."""
    return [
        f"{describe(path)}: IoU {iou:.4g} of {what}, expected at least {least:g}"
        for path in paths
        for what, iou in (("masks", path.mask_iou), ("tracked masks", path.tracking_iou))
        if iou is not None and not iou >= least
    ]


def describe(path: PathFigures) -> str:
    """A path in a few words."""
    build = "" if path.build == "default" else f"/{path.build}"
    layout = f" ({path.layout})" if path.layout else ""
    provider = PROVIDERS[path.provider]
    return f"{path.browser}, onnxruntime-web{build} {path.version}, {provider}{layout}"


def outcome(path: PathFigures) -> str:
    """What came out, in a few words."""
    ious = {"masks": path.mask_iou, "tracked masks": path.tracking_iou}
    texts = [f"IoU {iou:.5g} of {what}" for what, iou in ious.items() if iou is not None]
    return "; ".join([*texts, *filter(None, [path.reason])])
