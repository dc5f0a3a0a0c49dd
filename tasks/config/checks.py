"""How near a model must come to PyTorch to be deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.clients.contract import Precision


@dataclass(frozen=True)
class Tolerances:
    """The largest differences from PyTorch that ``verify`` accepts (``[verify]``).

    ``encoder`` is relative to the largest magnitude of each encoder output, ``masks`` is
    in logits, ``scores`` in predicted IoU.
    """

    encoder: float = 1e-4
    masks: float = 1e-3
    scores: float = 1e-4


@dataclass(frozen=True)
class BrowserCheck:
    """How a browser proves a model, and the least agreement with onnxruntime (``[browser]``).

    ``executable`` is a Chromium-like browser; None stands for the first one on this machine.
    ``mask_iou`` is that of each pair of masks.
    """

    executable: str | None = None
    tolerances: Tolerances = Tolerances(encoder=1e-3, masks=1e-2, scores=1e-3)
    mask_iou: float = 0.999


LEAST_IOU: Mapping[str, float] = {
    "fp32": 0.999,
    "fp16": 0.995,
    "q8": 0.97,
    "q4": 0.93,
    "q4f16": 0.93,
}

# How far the logits of a prompt may differ, relative to their mean magnitude, unless configured.
LOGIT_TOLERANCE: Mapping[Precision, float] = {
    "fp32": 0.001,
    "fp16": 0.01,
    "q8": 0.1,
    "q4": 0.2,
    "q4f16": 0.2,
}


@dataclass(frozen=True)
class FidelityCheck:
    """How near a variant's masks must come to PyTorch's to be deployed (``[fidelity]``).

    ``mask_iou`` is the least mean IoU of each precision, ``worst`` how far below the mean a
    single mask may be, ``ranking_flips`` for what share of the prompts it may rank the masks
    otherwise than PyTorch does, ``scores`` how far off a score may be; over four prompts on each of
    so many ``images``. ``logits`` is how far the logits of any prompt may be from PyTorch's,
    relative to their mean magnitude, over prompts with every value of every input.
    """

    images: int = 8
    mask_iou: Mapping[str, float] = field(default_factory=lambda: dict(LEAST_IOU))
    worst: float = 0.1
    ranking_flips: float = 0.1
    scores: float = 0.1
    logits: float | None = None

    def logit_tolerance(self, precision: Precision) -> float:
        """``logits``, or by default about four times what a precision loses."""
        return LOGIT_TOLERANCE[precision] if self.logits is None else self.logits

    def worst_iou(self, precision: Precision) -> float:
        """The least IoU of a single mask, where the mean is as low as it may be."""
        return self.mask_iou[precision] - self.worst


@dataclass(frozen=True)
class TrackingCheck:
    """How near tracked masks must come to PyTorch's in single precision (``[tracking]``).

    ``mask_iou`` is the least mean IoU over all frames of the clips, ``worst`` that of one mask;
    ``scores`` is in logits of whether the object is there, which must be decided alike. Smaller
    variants are held to ``[fidelity]``.
    """

    mask_iou: float = 0.999
    worst: float = 0.99
    scores: float = 1e-3


@dataclass(frozen=True)
class Checks:
    """All limits that the proofs of a model are judged by."""

    verify: Tolerances = Tolerances()
    browser: BrowserCheck = BrowserCheck()
    fidelity: FidelityCheck = field(default_factory=FidelityCheck)
    tracking: TrackingCheck = TrackingCheck()
