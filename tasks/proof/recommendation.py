"""Which variant to load on each execution provider, and which model, and why. Pure.

The rule within a model, for each of `PROVIDERS`:

1. Only what is deployed counts, and in a browser only what was proven on the provider.
2. The manifest's ``prefer`` is followed where it names such a variant, since clients load that one.
3. Otherwise it is the smallest download whose image takes at most `SLOWER` times as long as the
   fastest's; without times, the smallest download.

Among models, the third rule holds between the variants that are recommended of each. Left out are
those less than `ALIKE` PyTorch at the size of image that their weights are for; and, where each
model has drawn the same true masks, those that are `WORSE` than the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.console.sizes import mebibytes

PROVIDERS: Mapping[str, str] = {"wasm": "WASM", "webgpu": "WebGPU", "native": "native onnxruntime"}
SLOWER = 1.25
ALIKE = 0.9  # mean IoU of masks
WORSE = 0.02  # of IoU with true masks

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
    """A deployed variant: its download in bytes, and by provider where it is proven.

    ``times`` are milliseconds for an image, of those providers where it was timed. Of its model
    ``truth`` is the IoU of a click's mask with the true one, ``alike`` the mean IoU with PyTorch's
    masks at the size of image that the weights are for.
    """

    name: str
    size: int
    proven: frozenset[str]
    times: Mapping[str, float]
    truth: float | None = None
    alike: float = 1.0


class Recommendation(NamedTuple):
    """The variant to load on a provider, and a sentence that says why."""

    provider: str
    variant: str
    why: str


def recommend(
    candidates: Sequence[Candidate], prefer: Mapping[str, str | None]
) -> list[Recommendation]:
    """One of a model's variants for each provider on which something is proven."""
    found = []
    for provider in PROVIDERS:
        proven = [each for each in candidates if provider in each.proven]
        if not proven:
            continue
        preferred = [each for each in proven if each.name == prefer.get(provider)]
        chosen = preferred[0] if preferred else smallest_of_the_fast(proven, provider)
        precision = chosen.name.partition(".")[0]
        why = PREFERRED[provider][precision] if preferred else _rule(proven, provider)
        found.append(
            Recommendation(provider, chosen.name, _sentence(chosen, proven, provider, why))
        )
    return found


def recommend_model(models: Mapping[str, Mapping[str, Candidate]]) -> list[Recommendation]:
    """One of several models for each provider on which one is proven.

    :param models: by its name, what is recommended of each model on each provider.
    """
    found = []
    for provider in PROVIDERS:
        of = {name: each[provider] for name, each in models.items() if provider in each}
        named = [each._replace(name=f"{name}, {each.name}") for name, each in of.items()]
        if not named:
            continue
        alike = [each for each in named if each.alike >= ALIKE] or named
        truths = [each.truth for each in named if each.truth is not None]
        compared = len(truths) == len(named)
        good = [
            each
            for each in alike
            if not compared or each.truth is None or each.truth >= max(truths) - WORSE
        ] or alike
        chosen = smallest_of_the_fast(good, provider)
        why = _rule(good, provider)
        if len(good) < len(alike):
            why += f" among those whose masks are within {WORSE} of the best"
        if len(alike) < len(named):
            why += " among those that draw PyTorch's masks"
        found.append(Recommendation(provider, chosen.name, _sentence(chosen, named, provider, why)))
    return found


def smallest_of_the_fast(candidates: Sequence[Candidate], provider: str) -> Candidate:
    """The smallest download among those that are nearly as fast as the fastest."""
    times = [each.times[provider] for each in candidates if provider in each.times]
    fast = [
        each
        for each in candidates
        if not times or each.times.get(provider, float("inf")) <= SLOWER * min(times)
    ]
    return min(fast, key=lambda each: (each.size, each.times.get(provider, 0.0)))


def _rule(candidates: Sequence[Candidate], provider: str) -> str:
    if any(provider in each.times for each in candidates):
        return f"the smallest download within {SLOWER} times the fastest"
    return "the smallest download"


def _sentence(chosen: Candidate, candidates: Sequence[Candidate], provider: str, why: str) -> str:
    parts = [why, f"{mebibytes(chosen.size)} to download"]
    times = [each.times[provider] for each in candidates if provider in each.times]
    if provider in chosen.times:
        fastest = min(times)
        slower = chosen.times[provider] / fastest
        beside = "the fastest" if slower == 1 else f"{slower:.2f} times the fastest"
        took = chosen.times[provider]
        shown = f"{took:.0f} ms" if took < 1000 else f"{took / 1000:.1f} s"
        parts.append(f"{shown} for an image, {beside} of {len(times)}")
    return "; ".join(parts) + "."
