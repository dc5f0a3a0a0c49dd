"""`manifest.json`, the contract with programs that load deployed files: its type, read and written.

docs/manifest.schema.json describes the same for other programs. A field with the default None is a
key that is absent if nothing was measured. Any other None is ``null``; in a `Figure` it stands for
a number that is not finite. Defining these classes takes a quarter of the time of importing doit,
so the modules of the task graph import them inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tasks.clients.contract import (
    Format,
    GraphTensors,
    MaskChoice,
    Precision,
    PromptChoice,
    Resize,
    Tensor,
    TrackingConstants,
)
from tasks.clients.runtime import Build, TensorLayout
from tasks.config.checkpoint_record import Checkpoint
from tasks.inference.checks import Figure
from tasks.proof.figures import Ious
from tasks.proof.runtimes import Runtime

if TYPE_CHECKING:
    from cattrs import Converter

SCHEMA_VERSION: Literal[6] = 6

Provider = Literal["wasm", "webgpu", "native"]


@dataclass(frozen=True)
class File:
    """A deployed file. For a graph ``needs`` has the oldest supported version of each runtime, and
    a feature that ``webgpu`` must have; ``runs_on`` has the versions of each runtime that ran it,
    or a graph of its kind, with correct results.
    """

    size: int
    sha256: str
    needs: Mapping[str, str] | None = None
    runs_on: Mapping[Runtime, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Graph:
    """The file of a graph, from the first deployed variant, and its tensors in order."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of an image for the encoder, and the meaning of the labels of points."""

    layout: str
    channels: str
    value_range: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize
    padding: str | None
    point_labels: Mapping[str, int]


@dataclass(frozen=True)
class Prompting:
    """The format of prompts; the last two fields only if the decoder takes an earlier mask."""

    at_once: PromptChoice
    padding_point: bool
    mask_threshold: float
    coordinates: str
    box: str
    without_mask: str | None = None
    with_mask: str | None = None


@dataclass(frozen=True)
class Masks:
    """The decoder's masks; ``pixels_per_cell`` is None if they have the image's size."""

    choice: MaskChoice
    values: str
    pixels_per_cell: int | None


@dataclass(frozen=True)
class Differences:
    """The largest differences of a prompt: masks in logits, scores in predicted IoU."""

    masks: Figure
    scores: Figure


@dataclass(frozen=True)
class Limits:
    """The largest accepted differences; the encoder's is relative."""

    encoder: float
    masks: float
    scores: float


@dataclass(frozen=True)
class Truth:
    """Mean IoU with known masks, by prompt, and the correlation of scores and IoUs."""

    images: int
    objects: int
    iou: Mapping[str, float]
    score_correlation: Figure


@dataclass(frozen=True)
class Native:
    """The IoU lost because images have another size than the weights were trained on."""

    image_size: int
    mask_iou: Ious
    iou_with_truth: Mapping[str, float] | None = None


@dataclass(frozen=True)
class NotSquare:
    """The IoU lost on images that are not square because a client does not stretch them."""

    resize: Resize
    mask_iou_with_stretched: Ious
    iou_with_truth: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Verification:
    """The comparison of single precision with PyTorch."""

    against: str
    tolerances: Limits
    encoder: Mapping[str, Figure]
    prompts: Mapping[str, Differences]
    truth: Truth | None = None
    native: Native | None = None
    not_square: NotSquare | None = None


@dataclass(frozen=True)
class Fidelity:
    """The comparison of a variant's masks with PyTorch's, over numbers of prompts and images."""

    images: int
    prompts: int
    mask_iou: Ious
    ranking_flips: Figure
    logit_error: Figure
    input_error: Figure
    score_error: Figure


@dataclass(frozen=True)
class Tracked:
    """The comparison of objects tracked through drawn clips, with the number of ``masks``."""

    against: str
    masks: int
    mask_iou: Ious
    score_error: Figure
    pointer_error: Figure
    iou_error: Figure
    logit_error: Figure
    occlusion_flips: Figure


@dataclass(frozen=True)
class Nodes:
    """The numbers of nodes of a graph by where they run."""

    webgpu: int
    cpu: int


@dataclass(frozen=True)
class ProviderProof:
    """The result of an execution provider of onnxruntime-web; ``reason`` is why it is not proven.

    ``build`` is the build that the client imports, ``layout`` the order of axes that it requests.
    ``nodes`` is None for a graph that the log does not mention. The figures cover ``parts``.
    """

    proven: bool
    reason: str | None = None
    build: Build | None = None
    layout: TensorLayout | None = None
    software: bool | None = None
    nodes: Mapping[str, Nodes | None] | None = None
    parts: tuple[Literal["encoder", "decoder"], ...] | None = None
    mask_iou: Figure = None
    encoder: Mapping[str, Figure] | None = None
    prompts: Mapping[str, Differences] | None = None
    tracking: Tracked | None = None


@dataclass(frozen=True)
class TrackingLimits:
    """The limits that judged tracked masks; ``scores`` is None if any number is accepted."""

    mask_iou: float
    worst: float
    scores: float | None
    flips: float


@dataclass(frozen=True)
class BrowserRules:
    """The limits that judged a browser's answers; None if any number is accepted."""

    mask_iou: float
    encoder: float | None
    masks: float | None
    scores: float | None
    reference_iou: float | None = None
    tracking: TrackingLimits | None = None


@dataclass(frozen=True)
class BrowserProof:
    """A browser's results for a variant, by provider."""

    browser: str
    runtime: str
    rules: BrowserRules
    providers: Mapping[Literal["wasm", "webgpu"], ProviderProof]


@dataclass(frozen=True)
class VariantEntry:
    """A variant of the configuration; ``reason`` is why it is not deployed."""

    name: str
    precision: Precision
    format: Format
    files: Mapping[str, str]
    deployed: bool
    reason: str | None = None
    fidelity: Fidelity | None = None
    tracking: Tracked | None = None
    browser: BrowserProof | None = None

    @property
    def proven_on(self) -> list[Provider]:
        """The providers that can load it; natively, any deployed variant."""
        if not self.deployed:
            return []
        tried = self.browser.providers if self.browser else {}
        return ["native", *(name for name, proof in tried.items() if proof.proven)]


@dataclass(frozen=True)
class Recommendation:
    """The variant to load, and a sentence with the reason."""

    variant: str
    why: str


@dataclass(frozen=True)
class Video(TrackingConstants):
    """The data that a tracking program needs besides the encoder: constants, graphs, tensors."""

    files: Mapping[str, str]
    tensors: Mapping[str, GraphTensors]


@dataclass(frozen=True)
class StoredEmbedding:
    """A form of an image's embedding: its size in bytes, and the IoU of masks with PyTorch's."""

    size: int
    mask_iou: Ious


@dataclass(frozen=True)
class Embeddings:
    """The source of embeddings for a model with only a decoder: the checkpoint's encoder, for
    square images of ``image_size`` pixels, prepared according to ``preprocessing``. ``tensor`` is
    the decoder's input; ``stored`` has the cost of storing an embedding in fewer bits.
    """

    checkpoint_sha256: str
    image_size: int
    tensor: Tensor
    stored: Mapping[str, StoredEmbedding]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of deployed files for the programs that load them.

    The fields from ``client`` to ``masks`` describe how to run the files; see
    `tasks.clients.client.description`. ``model_type`` is None if the file ``config`` describes the
    architecture; ``verification`` if single precision is not deployed; ``browser`` (of the first
    variant) if no browser has run it. A model with only a decoder has ``embeddings`` in place of an
    ``encoder``. ``recommended`` lacks a provider on which nothing is proven.
    """

    schema_version: Literal[6]
    model: str
    model_type: str | None
    config: str | None
    checkpoint: Checkpoint
    license: str | None
    origin: str | None
    client: str
    files: Mapping[str, File]
    encoder: Graph | None = None
    embeddings: Embeddings | None = None
    decoder: Graph
    preprocessing: Preprocessing
    prompts: Prompting
    masks: Masks
    client_version: str
    variants: tuple[VariantEntry, ...]
    recommended: Mapping[Provider, Recommendation]
    options: Mapping[str, int | str]
    packages: Mapping[str, str]
    verification: Verification | None
    browser: BrowserProof | None
    video: Video | None = None

    @property
    def image_graphs(self) -> dict[str, Graph]:
        """The encoder, if there is one, and the decoder."""
        encoder = {"encoder": self.encoder} if self.encoder else {}
        return {**encoder, "decoder": self.decoder}

    @property
    def deployed(self) -> list[VariantEntry]:
        """The deployed variants."""
        return [each for each in self.variants if each.deployed]

    @property
    def side(self) -> int:
        """The side of the square that the encoder computes on, in pixels."""
        if self.embeddings is not None:
            return self.embeddings.image_size
        assert self.encoder is not None
        return max(map(int, self.encoder.inputs[0].shape))

    def size_of(self, variant: VariantEntry) -> int:
        """The size of a variant's download in bytes."""
        return sum(self.files[file].size for file in variant.files.values())


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest of this schema version; None if the file is missing or is anything else."""
    from cattrs import BaseValidationError

    try:
        return structured(json.loads(path.read_text()), Manifest)
    except (OSError, ValueError, TypeError, AttributeError, BaseValidationError):
        return None


def as_json(value: object) -> Any:
    """A manifest, or a part of it, as JSON values."""
    return _converter().unstructure(value)


T = TypeVar("T")


def structured(content: object, kind: type[T]) -> T:
    """A part of a manifest from JSON values.

    :raises cattrs.BaseValidationError: when a key is missing or unknown, or has another type.
    """
    return _converter().structure(content, kind)


@cache
def _converter() -> Converter:
    # Imported only to read or write a manifest: the import takes longer than an idle build.
    from cattrs import Converter
    from cattrs.gen import make_dict_unstructure_fn, override

    converter = Converter(forbid_extra_keys=True)

    def register(kind: Any, *accepted: type) -> None:
        def exactly(value: Any, _: Any) -> Any:
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                raise TypeError(f"expected {kind}, got {value!r}")
            return value

        converter.register_structure_hook(kind, exactly)

    def without_absent_keys(kind: type) -> Callable[[Any], dict[str, Any]]:
        optional = {
            each.name: override(omit_if_default=True)
            for each in fields(kind)
            if each.default is None
        }
        return make_dict_unstructure_fn(kind, converter, **optional)  # type: ignore[arg-type]

    for plain in (bool, int, str):
        register(plain, plain)
    register(float, int, float)
    register(int | str, int, str)
    converter.register_unstructure_hook_factory(is_dataclass, without_absent_keys)
    return converter
