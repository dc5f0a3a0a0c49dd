"""Which variant to load on each execution provider, and why. Pure.

The rule, for each of `PROVIDERS`:

1. Only what is deployed counts, and in a browser only what was proven on the provider.
2. The manifest's ``prefer`` is followed where it names such a variant, since clients load that one.
3. Otherwise it is the smallest download whose image takes at most `SLOWER` times as long as the
   fastest's; without times, the smallest download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.engine.files import mebibytes

PROVIDERS: Mapping[str, str] = {"wasm": "WASM", "webgpu": "WebGPU", "native": "native onnxruntime"}
SLOWER = 1.25


class Candidate(NamedTuple):
    """A deployed variant: its download in bytes, and by provider where it is proven.

    ``times`` are milliseconds for an image, of those providers where it was timed.
    """

    name: str
    size: int
    proven: frozenset[str]
    times: Mapping[str, float]


class Recommendation(NamedTuple):
    """The variant to load on a provider, and a sentence that says why."""

    provider: str
    variant: str
    why: str


def recommend(
    candidates: Sequence[Candidate], prefer: Mapping[str, str | None]
) -> list[Recommendation]:
    """One for each provider on which something is proven."""
    found = []
    for provider, name in PROVIDERS.items():
        proven = [each for each in candidates if provider in each.proven]
        if not proven:
            continue
        preferred = [each for each in proven if each.name == prefer.get(provider)]
        chosen = preferred[0] if preferred else smallest_of_the_fast(proven, provider)
        why = f"the manifest prefers it on {name}" if preferred else _rule(proven, provider)
        found.append(
            Recommendation(provider, chosen.name, _sentence(chosen, proven, provider, why))
        )
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
    return "the smallest download; none is timed here yet"


def _sentence(chosen: Candidate, candidates: Sequence[Candidate], provider: str, why: str) -> str:
    parts = [why, f"{mebibytes(chosen.size)} to download"]
    times = [each.times[provider] for each in candidates if provider in each.times]
    if provider in chosen.times:
        fastest = min(times)
        slower = chosen.times[provider] / fastest
        beside = "the fastest" if slower == 1 else f"{slower:.2f} times the fastest"
        parts.append(f"{chosen.times[provider]:.0f} ms for an image, {beside} of {len(times)}")
    return "; ".join(parts) + "."
