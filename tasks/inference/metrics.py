"""Measures of how close masks, features and scores are to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.clients.contract import MaskChoice

    Bools = NDArray[np.bool_]


def mask_iou(one: Bools, other: Bools) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    import numpy as np

    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def least_iou(masks: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The smallest IoU of several pairs of masks, logits (K, M, M)."""
    return min(mask_iou(one, other) for one, other in zip(masks > 0, expected > 0, strict=True))


def stored_choice(masks: MaskChoice) -> MaskChoice:
    """The choice of PyTorch's masks with which a decoder's masks are compared.

    For ``best`` these are all three masks in ranked order: only the others show whether a graph
    returns the right one.
    """
    return "ranked" if masks == "best" else masks


def ranking(masks: NDArray[np.float32], expected: NDArray[np.float32]) -> list[int]:
    """The index of the expected mask for each mask, in the assignment with the least difference.

    :param masks: logits (K, M, M); ``expected``: (N, M, M), N at least K.
    """
    import itertools

    import numpy as np

    distances = np.abs(masks[:, None] - expected[None]).mean(axis=(2, 3))  # (K, N)
    orders = itertools.permutations(range(len(expected)), len(masks))
    rows = np.arange(len(masks))
    return list(min(orders, key=lambda order: float(distances[rows, list(order)].sum())))


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Spearman's coefficient: the correlation of the ranks; equal values share a rank."""
    import numpy as np

    def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def significant(value: float | None, digits: int = 2) -> float | None:
    """A figure for a manifest; further digits would vary between machines."""
    return None if value is None else float(f"{value:.{digits}g}")


def rounded(value: float | None, digits: int) -> float | None:
    """A figure with this number of decimals; None if it is not a number."""
    return None if value is None else round(value, digits)


def written(value: float | None, format: str) -> str:
    """A figure for people."""
    return "not a number" if value is None else f"{value:{format}}"
