"""The tables with the limits for differences from PyTorch; see `tasks.config.tables`."""

# Without `from __future__ import annotations`: cattrs ignores the rules of annotations in strings.
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tasks.clients.contract import Precision
from tasks.config.rules import Count, OnOffAuto, Part, Positive, Share, Text


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tolerances:
    """The largest differences from PyTorch that ``verify`` accepts (``[verify]``)."""

    encoder_tolerance: Annotated[
        Positive, "each encoder output, relative to its largest magnitude"
    ] = 1e-4
    mask_tolerance: Annotated[Positive, "mask logits (256 × 256, three masks)"] = 1e-3
    score_tolerance: Annotated[Positive, "predicted IoU"] = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BrowserCheck:
    """How a browser proves a model, and the limits against onnxruntime (``[browser]``)."""

    enabled: Annotated[
        OnOffAuto, '`true`: a missing browser is an error; `"auto"`: it is not; `false`: no proof'
    ] = "auto"
    executable: Annotated[
        Text | None, "path or name of a Chromium, Chrome or Edge; default: the first installed one"
    ] = None
    executables: Annotated[
        tuple[Text, ...],
        "paths or names of the browsers for `doit paths`; default: a Chromium, Firefox and "
        "WebKitGTK, where installed",
    ] = ()
    step_limit: Annotated[Positive, "seconds that a step of `doit paths` may take in a browser"] = (
        600.0
    )
    webgpu: Annotated[bool, "the decoder must run on WebGPU too, where there is an adapter"] = True
    mask_iou: Annotated[Share, "the minimum IoU of the browser's masks with onnxruntime's"] = 0.999
    encoder_tolerance: Annotated[Positive, "as in `[verify]`, but against onnxruntime"] = 1e-3
    mask_tolerance: Annotated[Positive, "likewise"] = 1e-2
    score_tolerance: Annotated[Positive, "likewise"] = 1e-3


# The defaults of `logit_tolerance`: about four times the error of each precision.
_LOGIT_TOLERANCE: Mapping[Precision, float] = {
    "fp32": 0.001,
    "fp16": 0.01,
    "q8": 0.1,
    "q4": 0.2,
    "q4f16": 0.2,
    "half": 0.03,
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FidelityCheck:
    """The limits of a variant's masks against PyTorch's (``[fidelity]``)."""

    images: Annotated[Count, "drawn images, with four prompts on each"] = 8
    fp32: Annotated[Share, "the minimum mean IoU with PyTorch's masks in single precision"] = 0.999
    fp16: Annotated[Share, "the same for this precision"] = 0.995
    q8: Annotated[Share, "likewise"] = 0.97
    q4: Annotated[Share, "likewise"] = 0.93
    q4f16: Annotated[Share, "likewise"] = 0.93
    half: Annotated[Share, "likewise"] = 0.995
    worst: Annotated[Share, "how far below the mean the worst mask may be"] = 0.1
    ranking_flips: Annotated[
        Part, "the share of prompts whose masks PyTorch may rank differently"
    ] = 0.1
    score_tolerance: Annotated[
        Positive, "the largest difference of a mask's score from PyTorch's"
    ] = 0.1
    logit_tolerance: Annotated[
        Positive | None, "the largest difference of a prompt's logits from PyTorch's, see below"
    ] = None

    def mean_iou(self, precision: Precision) -> float:
        """The lowest accepted mean IoU of a precision."""
        return float(getattr(self, precision))

    def worst_iou(self, precision: Precision) -> float:
        """The lowest accepted IoU of a single mask, for the lowest accepted mean."""
        return self.mean_iou(precision) - self.worst

    def largest_logit_error(self, precision: Precision) -> float:
        """The largest accepted error of any prompt's logits, relative to their mean magnitude."""
        return self.logit_tolerance or _LOGIT_TOLERANCE[precision]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrackingCheck:
    """The limits of tracked masks of fp32 against PyTorch's (``[tracking]``)."""

    mask_iou: Annotated[Share, "the minimum mean IoU over all frames of the clips"] = 0.999
    worst: Annotated[Share, "the minimum IoU of a single mask"] = 0.99
    score_tolerance: Annotated[
        Positive, "the largest difference of an object's score in logits; see below"
    ] = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Checks:
    """All limits that judge the proofs of a model."""

    verify: Tolerances = Tolerances()
    browser: BrowserCheck = BrowserCheck()
    fidelity: FidelityCheck = FidelityCheck()
    tracking: TrackingCheck = TrackingCheck()
