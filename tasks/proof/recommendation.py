"""The one decision: which variant to load on each execution provider, which model, and why. Pure.

Within a model, on each of `PROVIDERS`:

1. Only what is deployed counts, and in a browser only what was proven on the provider. A variant
   that computes in half precision does not count: whether an adapter can, only the page knows.
2. In a browser the precision decides, in the order of `PREFERRED`.
3. Natively it is the smallest download whose image takes at most `MAX_SLOWDOWN` times as long as
   the fastest's; without times, the smallest download.

Among models the third rule decides between the variants that are recommended of each. Left out are
those whose masks have an IoU below `MIN_NATIVE_IOU` with PyTorch's at the size of image that their
weights are for; and, where each model has drawn the same true masks, those that lose more than
`MAX_IOU_LOSS` to the best.
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

# Which precision to load where, the first that is proven there, and why: docs/variants.md has the
# measurements.
PREFERRED: Mapping[str, Mapping[str, str]] = {
    "wasm": {
        "q8": "WASM multiplies matrices of 8 bits fastest",
        "fp16": "half the download of single precision, which it computes in",
        "q4f16": "a small download, which computes in single precision",
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

    ``times`` are milliseconds for an image, of those providers where it was timed. For its model,
    ``truth`` is the IoU of a click's mask with the true one, ``native_iou`` the mean IoU with
    PyTorch's masks at the size of image that the weights are for.
    """

    name: str
    size: int
    proven: frozenset[str]
    times: Mapping[str, float]
    truth: float | None = None
    native_iou: float = 1.0

    @property
    def precision(self) -> str:
        """How its weights are stored."""
        return self.name.partition(".")[0]


class Choice(NamedTuple):
    """The variant to load on a provider, and a sentence that says why."""

    candidate: Candidate
    why: str


def recommend(candidates: Sequence[Candidate]) -> dict[str, Choice]:
    """One of a model's variants for each provider on which one is proven.

    :param candidates: of one precision the first is preferred.
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
    """One of several models for each provider on which one is proven.

    :param models: the candidates of each, by its name; a choice is called ``model, variant``.
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
            why += " among those that draw PyTorch's masks"
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
