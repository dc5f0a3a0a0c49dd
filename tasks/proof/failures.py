"""Failures of proofs as values. Their sentences are for people; no code parses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "missing tensor",  # a graph's inputs and outputs against the contract
    "other tensor",
    "unknown tensor",
    "tensor order",
    "option",  # a property of a graph against the configuration
    "features",  # largest differences
    "masks",
    "scores",
    "mask iou",  # agreement of masks
    "mean iou",
    "worst iou",
    "truth iou",
    "embedding iou",  # of a model with only a decoder
    "ranking flips",
    "not finite",  # an output of a variant in half precision
    "mask logits",  # of a variant, over all prompts
    "mask scores",
    "answers",  # of tracked frames
    "object scores",
    "pointers",
    "predicted ious",
    "logits",
    "occlusion",
    "refused",  # by an execution provider or the browser, with its message
]

TRACKED = "tracked masks"  # in place of a prompt, for tracked frames

PROVIDERS: Mapping[str, str] = {
    "wasm": "WASM",
    "webgpu": "WebGPU",
    "native": "native onnxruntime",
}


@dataclass(frozen=True)
class Failure:
    """One figure beyond its limit, or one refusal.

    ``found`` is None if it is not a number. ``tensor`` names an output, ``prompt`` a prompt,
    ``provider`` an execution provider of onnxruntime-web; ``rule`` is the key of the configuration
    that sets ``allowed``; ``reference`` names the program whose answer ``found`` is compared with.
    """

    kind: Kind
    found: float | str | None
    allowed: float | str | None = None
    rule: str | None = None
    provider: str | None = None
    graph: str | None = None
    tensor: str | None = None
    prompt: str | None = None
    reference: str | None = None

    @property
    def _subject(self) -> str | None:
        return self.prompt if self.prompt == TRACKED else f"prompt '{self.prompt}'"

    def __str__(self) -> str:
        """A sentence for people."""
        where = f"on {PROVIDERS.get(self.provider, self.provider)}, " if self.provider else ""
        if self.kind == "refused":
            where = ""  # the sentence names it
        return where + _SENTENCES[self.kind].format(
            **asdict(self),
            value=_number(self.found),
            limit=_number(self.allowed),
            of_prompt=f" of {self._subject}" if self.prompt else "",
        )


_DIFFERS = "differs by {value}, {rule} allows {limit}"

_SENTENCES: Mapping[Kind, str] = {
    "missing tensor": "{graph}: expected {allowed}, found no tensor of that name",
    "other tensor": "{graph}: expected {allowed}, found {found}",
    "unknown tensor": "{graph}: found {found}, which is not in the contract",
    "tensor order": "{graph}: expected tensors in the order {allowed}, found {found}",
    "option": "{graph}: {tensor} is {found}, the configuration requires {allowed}",
    "features": "{graph} output {tensor}: " + _DIFFERS,
    "masks": "masks{of_prompt}: " + _DIFFERS,
    "scores": "scores{of_prompt}: " + _DIFFERS,
    "mask iou": "masks{of_prompt}: IoU with {reference}'s is {value}, {rule} requires {limit}",
    "mean iou": "mean IoU{of_prompt} with {reference}'s masks is {value}, {rule} requires {limit}",
    "worst iou": "worst IoU{of_prompt} with {reference}'s masks is {value}, "
    "{rule} requires {limit}",
    "truth iou": "IoU with the true masks from {prompt}: {value}, {rule} requires {limit}",
    "embedding iou": "mean IoU with {reference}'s masks from embeddings stored as {tensor} is "
    "{value}, {rule} requires {limit}",
    "ranking flips": "masks are ranked differently from {reference}'s: share of the prompts "
    "{value}, {rule} allows {limit}",
    "not finite": "{tensor} is not finite for the image '{prompt}': half precision overflowed, its "
    "largest number is 65504",
    "mask logits": "mask logits, relative to {reference}'s: " + _DIFFERS,
    "mask scores": "scores of masks: " + _DIFFERS,
    "answers": "{prompt}: expected {limit} answers, as from {reference}, found {value}",
    "object scores": "object scores of tracked frames: " + _DIFFERS,
    "pointers": "object pointers of tracked frames: " + _DIFFERS,
    "predicted ious": "predicted IoUs of tracked frames: " + _DIFFERS,
    "logits": "magnitudes of the logits of {prompt}: " + _DIFFERS,
    "occlusion": "the object's presence differs from {reference}'s: share of the tracked masks "
    "{value}, {rule} allows {limit}",
    "refused": "{found}",
}


def _number(value: float | str | None) -> str:
    if value is None:
        return "not a number"
    return f"{value:.4g}" if isinstance(value, float | int) else value


def as_json(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Failures in a report's format, each with its sentence."""
    return [
        {
            **{key: value for key, value in asdict(each).items() if value is not None},
            "sentence": str(each),
        }
        for each in failures
    ]


def from_json(entries: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Failures read from a report.

    :raises TypeError: when an entry is not a failure.
    """
    return [
        Failure(**{"found": None, **{k: v for k, v in each.items() if k != "sentence"}})
        for each in entries
    ]


def sentences(failures: Iterable[Failure]) -> str:
    """All sentences on one line."""
    return "; ".join(map(str, failures))
