"""Recommends the variant and the model to load on each execution provider, and why. Pure.

Within a model, on each of `PROVIDERS`:

1. Only deployed variants count, and in a browser only those proven on the provider. A variant that
   computes in half precision does not count: only the page knows whether an adapter supports it.
2. In a browser the precision decides, in the order of `PREFERRED`.
3. Natively it is the smallest download that takes at most `MAX_SLOWDOWN` times as long for an image
   as the fastest variant; without times, the smallest download.

Among models, the third rule decides between the recommended variants. It leaves out variants whose
masks have an IoU below `MIN_NATIVE_IOU` with PyTorch's at the image size that their weights are
for; and, if all models were measured on the same true masks, variants that are more than
`MAX_IOU_LOSS` below the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.console.sizes import mebibytes
from tasks.proof.failures import PROVIDERS
from tasks.proof.runtimes import FEATURES

MAX_SLOWDOWN = 1.25
MIN_NATIVE_IOU = 0.9  # mean over masks
MAX_IOU_LOSS = 0.02  # of IoU with true masks

# The precisions to load on each provider, in order of preference, and why: docs/variants.md has
# the measurements.
PREFERRED: Mapping[str, Mapping[str, str]] = {
    "wasm": {
        "q8": "WASM multiplies matrices of 8 bits fastest",
        "fp16": "half the download of single precision, and computes in single precision",
        "q4f16": "a small download, and computes in single precision",
        "fp32": "no smaller variant is proven on WASM",
        "q4": "no other variant is proven on WASM",
    },
    "webgpu": {
        "fp16": "half the download of single precision; WebGPU has no integer products",
        "q4f16": "a small download; WebGPU has no integer products",
        "fp32": "no smaller variant is proven on WebGPU",
        "q4": "no other variant is proven on WebGPU",
        "q8": "no other variant is proven on WebGPU",
    },
}


class Candidate(NamedTuple):
    """A deployed variant: its download in bytes, and the providers on which it is proven.

    ``times`` are milliseconds for an image, by provider, if it was timed there. For its model,
    ``truth`` is the IoU of a click's mask with the true mask, ``native_iou`` the mean IoU with
    PyTorch's masks at the image size that the weights are for.
    """

    name: str
    size: int
    proven: frozenset[str]
    times: Mapping[str, float]
    truth: float | None = None
    native_iou: float = 1.0

    @property
    def precision(self) -> str:
        """The precision in which its weights are stored."""
        return self.name.partition(".")[0]


class Choice(NamedTuple):
    """The variant to load on a provider, and a sentence with the reason."""

    candidate: Candidate
    why: str


def recommend(candidates: Sequence[Candidate]) -> dict[str, Choice]:
    """Choose a model's variant for each provider on which a variant is proven.

    :param candidates: the first of each precision is preferred.
    """
    choices = {}
    for provider in PROVIDERS:
        proven = [
            each
            for each in candidates
            if provider in each.proven and each.precision not in FEATURES
        ]
        if proven:
            chosen, why = _chosen(proven, provider)
            choices[provider] = Choice(chosen, _sentence(chosen, proven, provider, why))
    return choices


def recommend_model(models: Mapping[str, Sequence[Candidate]]) -> dict[str, Choice]:
    """Choose a model for each provider on which a model is proven.

    :param models: the candidates of each model, by its name; a choice is named ``model, variant``.
    """
    by_model = {name: recommend(candidates) for name, candidates in models.items()}
    choices = {}
    for provider in PROVIDERS:
        named = [
            choice.candidate._replace(name=f"{name}, {choice.candidate.name}")
            for name, of_model in by_model.items()
            if (choice := of_model.get(provider))
        ]
        if not named:
            continue
        alike = [each for each in named if each.native_iou >= MIN_NATIVE_IOU] or named
        truths = [each.truth for each in named if each.truth is not None]
        least = max(truths) - MAX_IOU_LOSS if len(truths) == len(named) else 0.0
        good = [each for each in alike if (each.truth or 0.0) >= least] or alike
        chosen, why = _smallest_of_the_fast(good, provider)
        if len(good) < len(alike):
            why += f" among those whose masks are within {MAX_IOU_LOSS} of the best"
        if len(alike) < len(named):
            why += " among those whose masks match PyTorch's"
        choices[provider] = Choice(chosen, _sentence(chosen, named, provider, why))
    return choices


def _chosen(proven: Sequence[Candidate], provider: str) -> tuple[Candidate, str]:
    for precision, why in PREFERRED.get(provider, {}).items():
        for each in proven:
            if each.precision == precision:
                return each, why
    return _smallest_of_the_fast(proven, provider)


def _smallest_of_the_fast(candidates: Sequence[Candidate], provider: str) -> tuple[Candidate, str]:
    times = [each.times[provider] for each in candidates if provider in each.times]
    if not times:
        return min(candidates, key=lambda each: each.size), "the smallest download"
    longest = MAX_SLOWDOWN * min(times)
    fast = [each for each in candidates if each.times.get(provider, longest + 1) <= longest]
    smallest = min(fast, key=lambda each: (each.size, each.times[provider]))
    return smallest, f"the smallest download within {MAX_SLOWDOWN} times the fastest"


def _sentence(chosen: Candidate, candidates: Sequence[Candidate], provider: str, why: str) -> str:
    parts = [why, f"{mebibytes(chosen.size)} to download"]
    times = [each.times[provider] for each in candidates if provider in each.times]
    if provider in chosen.times:
        took = chosen.times[provider]
        slower = took / min(times)
        beside = "the fastest" if slower == 1 else f"{slower:.2f} times the fastest"
        shown = f"{took:.0f} ms" if took < 1000 else f"{took / 1000:.1f} s"
        parts.append(f"{shown} for an image, {beside} of {len(times)}")
    return "; ".join(parts) + "."
