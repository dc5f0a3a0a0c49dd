"""What can be configured: models, their sources and variants, and the rules that judge them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from doit.exceptions import InvalidDodoFile

from tasks.clients.client import Client
from tasks.clients.contract import Format, Interface, MaskChoice, PromptChoice
from tasks.clients.registry import CLIENTS
from tasks.config.published import AUTO
from tasks.console import address

# The graphs of a model that segments images.
GRAPHS = ("encoder", "decoder")
# What follows objects through frames, beside the encoder.
TRACKING_GRAPHS = ("tracking_decoder", "memory_attention", "memory_encoder", "mask_prompt")

# LayerNormalization entered ONNX with opset 17; torch's TorchScript exporter stops at 20.
OPSETS = range(17, 21)
OPSET_RULE = "17 (LayerNormalization needs it) to 20 (torch's TorchScript exporter ends there)"
# Gelu is one operator from 20 on (five before), and onnxruntime 1.24 and onnxruntime-web 1.27
# run it: 48 nodes less in tiny's encoder, the same speed.
DEFAULT_OPSET = 20

# How the encoder's attention is written.
AttentionKind = Literal["plain", "fused"]

# How weights are stored.
Precision = Literal["fp32", "fp16", "q8", "q4", "q4f16"]

# Whether a browser must have run a model before it is deployed; "auto": where there is one.
Switch = Literal["auto"] | bool

# One folder or file name: no separator, nothing hidden, and none of doit's `:` and `*`.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class ConfigurationError(InvalidDodoFile):  # type: ignore[misc]
    """Everything that is wrong with a configuration; doit prints it and exits with 3."""


# What transformers' `save_pretrained` calls weights.
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from.

    ``path`` is set for ``kind="file"`` (relative to the project unless absolute; a folder too, as
    transformers' ``save_pretrained`` writes it), ``seed`` for ``kind="synthetic"``, and for
    ``kind="hub"`` the ``file`` of a ``repo`` at a ``revision``. ``url`` is for requests alone, as
    it may hold a password; ``shown`` is for everything else.
    """

    kind: Literal["http", "file", "synthetic", "hub"]
    url: str = field(repr=False)
    path: Path | None = None
    seed: int = 0
    repo: str = ""
    revision: str = "main"
    file: str = WEIGHTS

    @property
    def shown(self) -> str:
        """The address as it may be shown; see `tasks.console.address`."""
        return address.shown(self.url)

    @property
    def local_files(self) -> list[Path]:
        """The files of this machine that the checkpoint is made from, as they are there now."""
        if self.path is None:
            return []
        inside = [self.path / name for name in (WEIGHTS, "config.json")]
        return [each for each in (self.path, *inside) if each.is_file()]


# transformers.js's names, so that its users find the file they expect.
SUFFIXES: Mapping[Precision, str] = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "q4": "_q4",
    "q4f16": "_q4f16",
}


@dataclass(frozen=True)
class Variant:
    """A model's graphs in one precision and file format."""

    precision: Precision = "fp32"
    format: Format = "onnx"

    @property
    def name(self) -> str:
        """What stands in a task's name: ``q8``, ``q8.ort``."""
        return self.precision if self.format == "onnx" else f"{self.precision}.{self.format}"

    def file_name(self, graph: str) -> str:
        """The file of a graph: ``encoder_quantized.onnx``."""
        return f"{graph}{SUFFIXES[self.precision]}.{self.format}"

    @property
    def made_from(self) -> Variant:
        """The variant that this one is made from."""
        return FP32 if self.format == "onnx" else Variant(self.precision)


FP32 = Variant()
DEFAULT_CLIENT = "samexporter"


@dataclass(frozen=True)
class Decoder:
    """What tells one traced decoder of a checkpoint from another."""

    interface: Interface
    masks: MaskChoice
    prompts: PromptChoice


# What is drawn where the configuration names no images of a model's own.
DRAWN = "tasks.drawing.scenes:scene"


@dataclass(frozen=True, eq=False)  # one of a kind, and known by that
class Model:
    """What one ``[models.<name>]`` table asks for one client.

    ``table`` is the table's name: models of one table share a checkpoint and the graphs that are
    traced from it. ``name`` is the same for the table's first client, and has that of any further
    one behind it.

    The architecture is one of sam2's own (``model_type``), a YAML file's (``config``), or, without
    either, the one of sam2's that the weights are of; ``image_size`` is in pixels, None the
    architecture's own. ``truth``
    is a ``module:function`` that draws images whose masks are known, on which one click must
    reach a mean IoU of ``truth_iou``; ``truth_data`` are patterns of the files that it reads.
    ``variants`` are those that are deployed; ``video`` adds the graphs that follow objects through
    frames.
    """

    name: str
    model_type: str | None
    config: Path | None
    source: Source
    deploy: Path
    table: str = ""
    client: Client = CLIENTS[DEFAULT_CLIENT]
    sha256: str | None = None
    size: int | None = None
    default: bool = True
    opset: int = DEFAULT_OPSET
    image_size: int | None = None
    video: bool = False
    masks: MaskChoice = "multi"
    prompts: PromptChoice = "many"
    attention: AttentionKind = "plain"
    browser: Switch = "auto"
    webgpu: bool = True
    variants: tuple[Variant, ...] = (FP32,)
    truth: str | None = None
    truth_data: tuple[str, ...] = ()
    truth_iou: float = 0.5
    license: str | None = None
    origin: str | None = None

    @property
    def base(self) -> str:
        """What the files that models of one table share are named after."""
        return self.table or self.name

    @property
    def architecture(self) -> str:
        """The name of sam2's own, the path of the YAML file, or that the weights tell."""
        return str(self.config or self.model_type or AUTO)

    @property
    def architecture_options(self) -> dict[str, str | int]:
        """What builds the model in PyTorch."""
        size = {"image_size": self.image_size} if self.image_size else {}
        return {"architecture": self.architecture, **size}

    @property
    def architecture_files(self) -> list[str]:
        """The files that what is built from the architecture depends on."""
        return [str(self.config)] if self.config else []

    @property
    def derived(self) -> tuple[Variant, ...]:
        """The variants to make from the simplified graphs; an ``.ort`` file's ONNX comes first."""
        wanted = [Variant(each.precision) for each in self.variants] + list(self.variants)
        return tuple(each for each in dict.fromkeys(wanted) if each != FP32)

    @property
    def has_smaller_variants(self) -> bool:
        """Whether one has weights of fewer bits, whose fidelity must be measured."""
        return any(each.precision != "fp32" for each in self.variants)

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of the graphs that segment an image, in the order they run in."""
        return GRAPHS

    @property
    def tracking_graphs(self) -> tuple[str, ...]:
        """The names of the graphs that follow objects through frames, where it has them."""
        return TRACKING_GRAPHS if self.video else ()

    @property
    def all_graphs(self) -> tuple[str, ...]:
        """The names of all graphs that are deployed."""
        return (*self.graphs, *self.tracking_graphs)

    @property
    def decoder(self) -> Decoder:
        """The traced decoder that the client's is made from."""
        return Decoder(self.client.interface, self.masks, self.prompts)

    @property
    def encoder_options(self) -> dict[str, str | int]:
        """What of the configuration shapes every graph of a table."""
        return {
            **self.architecture_options,
            "opset": self.opset,
            "attention": self.attention,
        }

    @property
    def graph_options(self) -> dict[str, str | int]:
        """What of the configuration shapes the client's graphs."""
        return {**self.encoder_options, "masks": self.masks, "prompts": self.prompts}

    def file_name(self, graph: str, variant: Variant) -> str:
        """Where a graph lies in the deployed folder, as the client looks for it."""
        told = self.client.graph(graph)
        loaded = variant if variant.format in told.formats else Variant(variant.precision)
        return loaded.file_name(told.file)

    @property
    def images(self) -> str:
        """The ``module:function`` that draws the images which variants are measured on."""
        return self.truth or DRAWN

    @property
    def image_data(self) -> list[str]:
        """The files that drawing those images reads, as they are there now."""
        found = {
            path.as_posix()
            for pattern in self.truth_data
            for path in Path().glob(pattern)
            if path.is_file()
        }
        return sorted(found)


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

    ``executable`` is a Chromium-like browser, None the first that is found. ``mask_iou`` is
    that of each pair of masks.
    """

    executable: str | None = None
    tolerances: Tolerances = Tolerances(encoder=1e-3, masks=1e-2, scores=1e-3)
    mask_iou: float = 0.999


LEAST_IOU = {"fp32": 0.999, "fp16": 0.995, "q8": 0.97, "q4": 0.93, "q4f16": 0.93}

# By how much the logits of a prompt may differ, of their mean magnitude, unless configured.
LOGIT_TOLERANCE: Mapping[str, float] = {
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

    def logit_tolerance(self, precision: str) -> float:
        """``logits``, or by default what a precision loses, some four times over."""
        return LOGIT_TOLERANCE[precision] if self.logits is None else self.logits


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


NO_CACHE = "off"  # given for an address: build without


@dataclass(frozen=True, eq=False)
class CacheSettings:
    """A cache that several builds share (``[cache]``).

    ``url`` is anything that fsspec opens, with ``options`` for its file system; both may hold what
    is not to be shown. ``write`` says whether what is built here goes there, ``proofs`` whether
    what others proved is taken from there too, instead of being proven here.
    """

    url: str = field(repr=False)
    write: bool = True
    proofs: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The address as it may be shown; see `tasks.console.address`."""
        return address.shown(self.url)


# The owner or the name of a repository, as the Hugging Face hub takes them.
HUB_NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Publishing:
    """Where deployed models are published (``[publish]``).

    ``repo`` is a repository of the Hugging Face hub, with ``{folder}`` and ``{model}`` in it for
    what differs from model to model, ``revision`` a branch of it. A repository that is not there
    is made, ``private`` or not.
    """

    repo: str
    revision: str = "main"
    private: bool = False

    def repository(self, model: Model) -> str:
        """The OWNER/NAME that a model goes to."""
        return self.repo.replace("{folder}", model.deploy.name).replace("{model}", model.name)


@dataclass(frozen=True, eq=False)
class Configuration:
    """A whole configuration file. Relative paths are relative to the project root.

    ``cluster`` is the address of a Dask scheduler, None to build on this machine alone;
    ``overwrite`` lets a deploy replace files that this build did not write.
    """

    path: Path
    build: Path
    models: tuple[Model, ...]
    tolerances: Tolerances = Tolerances()
    browser: BrowserCheck = BrowserCheck()
    fidelity: FidelityCheck = field(default_factory=FidelityCheck)
    tracking: TrackingCheck = TrackingCheck()
    cache: CacheSettings | None = None
    publishing: Publishing | None = None
    cluster: str | None = None
    overwrite: bool = False

    @property
    def default_models(self) -> tuple[Model, ...]:
        """The models that a bare ``doit`` builds."""
        return tuple(model for model in self.models if model.default)

    @property
    def tables(self) -> tuple[Model, ...]:
        """The first model of each table, for the stages that all of a table share."""
        return tuple(models[0] for models in self._by_table.values())

    def of_table(self, model: Model) -> tuple[Model, ...]:
        """All models of a model's table, the first client's first."""
        return self._by_table[model.base]

    @cached_property
    def _by_table(self) -> dict[str, tuple[Model, ...]]:
        found: dict[str, tuple[Model, ...]] = {}
        for model in self.models:
            found[model.base] = (*found.get(model.base, ()), model)
        return found

    def decoders(self, model: Model) -> dict[Decoder, str]:
        """The decoders to trace for a model's table, each with the name of its graph."""
        return self._decoders[model.base]

    @cached_property
    def _decoders(self) -> dict[str, dict[Decoder, str]]:
        found: dict[str, dict[Decoder, str]] = {}
        for table, models in self._by_table.items():
            names: dict[Decoder, str] = {}
            for each in models:
                names.setdefault(
                    each.decoder, f"decoder-{each.client.name}" if names else "decoder"
                )
            found[table] = names
        return found
