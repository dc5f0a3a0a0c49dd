"""What a proof finds wrong, as a value; sentences are made of it, and nothing reads them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "missing tensor",  # a graph's inputs and outputs against the contract
    "other tensor",
    "unknown tensor",
    "tensor order",
    "option",  # a graph against what it was asked to be
    "features",  # largest differences
    "masks",
    "scores",
    "mask iou",  # agreement of masks
    "mean iou",
    "worst iou",
    "truth iou",
    "embedding iou",  # of a decoder alone
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
    "refused",  # by an execution provider or the browser, in its words
]

TRACKED = "tracked masks"  # stands for a prompt where objects were followed

PROVIDERS: Mapping[str, str] = {
    "wasm": "WASM",
    "webgpu": "WebGPU",
    "native": "native onnxruntime",
}


@dataclass(frozen=True)
class Failure:
    """One figure beyond its limit, or one refusal.

    ``found`` is None for what is not a number. ``tensor`` names an output, ``prompt`` a prompt,
    ``provider`` an execution provider of onnxruntime-web; ``rule`` is the key of the configuration
    that sets ``allowed``; ``reference`` whose answer ``found`` is measured against.
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
            where = ""  # the words say it
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
    "unknown tensor": "{graph}: found {found}, which the contract does not have",
    "tensor order": "{graph}: expected tensors in the order {allowed}, found {found}",
    "option": "{graph}: {tensor} is {found}, the configuration asks for {allowed}",
    "features": "{graph} output {tensor}: " + _DIFFERS,
    "masks": "masks{of_prompt}: " + _DIFFERS,
    "scores": "scores{of_prompt}: " + _DIFFERS,
    "mask iou": "masks{of_prompt}: IoU with {reference}'s is {value}, {rule} asks for {limit}",
    "mean iou": "mean IoU{of_prompt} with {reference}'s masks is {value}, {rule} asks for {limit}",
    "worst iou": "worst IoU{of_prompt} with {reference}'s masks is {value}, "
    "{rule} asks for {limit}",
    "truth iou": "IoU with the true masks from {prompt}: {value}, {rule} asks for {limit}",
    "embedding iou": "mean IoU from embeddings stored as {tensor} with {reference}'s masks is "
    "{value}, {rule} asks for {limit}",
    "ranking flips": "masks are ranked otherwise than {reference}'s: share of the prompts {value}, "
    "{rule} allows {limit}",
    "not finite": "{tensor} is not finite for the image '{prompt}': half precision overflows, its "
    "largest number is 65504",
    "mask logits": "mask logits, relative to {reference}'s: " + _DIFFERS,
    "mask scores": "scores of masks: " + _DIFFERS,
    "answers": "{prompt}: expected {limit} of them, as {reference} has, and there are {value}",
    "object scores": "object scores of tracked frames: " + _DIFFERS,
    "pointers": "object pointers of tracked frames: " + _DIFFERS,
    "predicted ious": "predicted IoUs of tracked frames: " + _DIFFERS,
    "logits": "magnitudes of the logits of {prompt}: " + _DIFFERS,
    "occlusion": "whether the object is there differs from {reference}: share of the tracked masks "
    "{value}, {rule} allows {limit}",
    "refused": "{found}",
}


def _number(value: float | str | None) -> str:
    if value is None:
        return "not a number"
    return f"{value:.4g}" if isinstance(value, float | int) else value


def as_json(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Failures as a report has them, each with its sentence."""
    return [
        {
            **{key: value for key, value in asdict(each).items() if value is not None},
            "sentence": str(each),
        }
        for each in failures
    ]


def from_json(entries: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Failures of a report.

    :raises TypeError: when an entry is not a failure.
    """
    return [
        Failure(**{"found": None, **{k: v for k, v in each.items() if k != "sentence"}})
        for each in entries
    ]


def sentences(failures: Iterable[Failure]) -> str:
    """All on one line, for people."""
    return "; ".join(map(str, failures))
