"""The models to build: a source for each checkpoint, and a target for each client of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.clients.client import Client
from tasks.clients.contract import Format, Interface, MaskChoice, Precision, PromptChoice
from tasks.config.checks import Checks
from tasks.config.location import CheckpointLocation
from tasks.config.rules import Switch
from tasks.model import AttentionKind, reference_package
from tasks.model.families.family import Family
from tasks.model.families.registry import family_of, possible_families
from tasks.model.published import AUTO
from tasks.model.trained import TrainedModel

# The graphs of a model that segments images.
GRAPHS = ("encoder", "decoder")
# The graphs that track objects through frames, besides the encoder.
TRACKING_GRAPHS = ("tracking_decoder", "memory_attention", "memory_encoder", "mask_prompt")

# Gelu is one operator from opset 20 on (five before), and onnxruntime 1.24 and onnxruntime-web 1.27
# run it: 48 fewer nodes in tiny's encoder, at the same speed.
DEFAULT_OPSET = 20

# The measurements, each with its own report file.
ProofKind = Literal["verify", "fidelity", "tracking", "browser"]

# The function that draws images, unless the configuration names another.
DRAWN = "tasks.drawing.scenes:scene"

# The files of graphs, by the graph's name.
GraphFiles = Mapping[str, Path]


# transformers.js's suffixes, so that its users find the expected file. It has none for "half".
SUFFIXES: Mapping[Precision, str] = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "half": "_half",
}


@dataclass(frozen=True)
class Variant:
    """A model's graphs in one precision and file format."""

    precision: Precision = "fp32"
    format: Format = "onnx"

    @property
    def name(self) -> str:
        """The variant's part of a task's name: ``q8``, ``q8.ort``."""
        return self.precision if self.format == "onnx" else f"{self.precision}.{self.format}"

    @property
    def is_smaller(self) -> bool:
        """Whether weights have fewer bits than in the checkpoint."""
        return self.precision != "fp32"

    @property
    def computes_in_half(self) -> bool:
        """Whether it needs a GPU with half precision arithmetic."""
        return self.precision == "half"

    def file_name(self, graph: str) -> str:
        """The file of a graph: ``encoder_quantized.onnx``."""
        return f"{graph}{SUFFIXES[self.precision]}.{self.format}"

    @property
    def as_onnx(self) -> Variant:
        """The variant of the same precision in ONNX files."""
        return Variant(self.precision)

    @property
    def made_from(self) -> Variant:
        """The variant that this one is made from."""
        return FP32 if self.format == "onnx" else self.as_onnx


FP32 = Variant()


@dataclass(frozen=True)
class Decoder:
    """The options that distinguish the traced decoders of a checkpoint."""

    interface: Interface
    masks: MaskChoice
    prompts: PromptChoice


class Renamed(NamedTuple):
    """A client's own graph: the shared graph it is made from, its file, its tensors' names."""

    shared: str
    path: Path
    names: dict[str, list[list[str]]]


@dataclass(frozen=True, eq=False)  # one of a kind, compared by identity
class Source:
    """The part of a ``[models.<name>]`` table about a checkpoint and the graphs traced from it.

    The architecture is one of sam2's own (``model_type``) or a YAML file's (``config``); without
    either, sam2's architecture that fits the weights. ``image_size`` is in pixels; None is the
    architecture's own. ``truth`` is a ``module:function`` that draws images with their true masks,
    on which one click must reach a mean IoU of ``truth_iou``; ``truth_data`` are patterns of the
    files that it reads. ``video`` adds the graphs that track objects through frames.

    :param build: the build folder.
    :param targets: one for each client of the table, in its order.
    """

    name: str
    build: Path
    location: CheckpointLocation
    checks: Checks
    model_type: str | None = None
    config: str | None = None
    sha256: str | None = None
    size: int | None = None
    opset: int = DEFAULT_OPSET
    image_size: int | None = None
    video: bool = False
    attention: AttentionKind = "plain"
    truth: str | None = None
    truth_data: tuple[str, ...] = ()
    truth_iou: float = 0.5
    license: str | None = None
    origin: str | None = None
    targets: list[Target] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        """The name of sam2's architecture, the path of the YAML file, or `AUTO`."""
        return self.config or self.model_type or AUTO

    @property
    def family(self) -> Family:
        """The family of its architecture."""
        return family_of(self.architecture)

    def family_code(self, kind: Literal["making", "tracing", "computing"]) -> list[str]:
        """The functions of its family, or of all families that the weights could belong to."""
        families = possible_families(self.architecture)
        return list(dict.fromkeys(name for each in families for name in getattr(each, kind)))

    @property
    def architecture_options(self) -> dict[str, str | int]:
        """The options that build the model in PyTorch."""
        size = {"image_size": self.image_size} if self.image_size else {}
        return {"architecture": self.architecture, **size}

    @property
    def architecture_files(self) -> list[str]:
        """The files that describe the architecture."""
        return [self.config] if self.config else []

    @property
    def encoder_options(self) -> dict[str, str | int]:
        """The options that shape every graph."""
        return {**self.architecture_options, "opset": self.opset, "attention": self.attention}

    @property
    def images(self) -> str:
        """The ``module:function`` that draws the images on which variants are measured."""
        return self.truth or DRAWN

    @property
    def image_data(self) -> list[str]:
        """The existing files that drawing those images reads."""
        paths = {path for pattern in self.truth_data for path in Path().glob(pattern)}
        return sorted(path.as_posix() for path in paths if path.is_file())

    @cached_property
    def derived_variants(self) -> tuple[Variant, ...]:
        """The variants to make from the simplified graphs, each after its source."""
        return _unique(each for target in self.targets for each in target.derived_variants)

    @cached_property
    def has_smaller_variants(self) -> bool:
        """Whether a variant has weights of fewer bits, whose fidelity must be measured."""
        return any(target.has_smaller_variants for target in self.targets)

    @property
    def tracking_graphs(self) -> tuple[str, ...]:
        """The names of the graphs that track objects through frames; empty without ``video``."""
        return TRACKING_GRAPHS if self.video else ()

    @cached_property
    def decoders(self) -> dict[Decoder, str]:
        """The decoders to trace, each with the name of its graph."""
        names: dict[Decoder, str] = {}
        for target in self.targets:
            name = f"decoder-{target.client.name}" if names else "decoder"
            names.setdefault(target.decoder, name)
        return names

    @cached_property
    def folder(self) -> Path:
        """The folder in which its files are built."""
        return self.build / "models" / self.name

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint."""
        return self.build / "checkpoints" / f"{self.name}.pt"

    @property
    def keeps_embeddings(self) -> bool:
        """Whether PyTorch's embeddings are kept, for a client with only a decoder."""
        return not all(target.client.encodes for target in self.targets)

    @property
    def trained_model(self) -> TrainedModel:
        """The checkpoint with its architecture, as child processes load it."""
        package = self.family.package
        return TrainedModel(
            self.architecture,
            str(self.checkpoint),
            self.config,
            self.image_size,
            str(reference_package.folder_of(self.build, package)) if package else None,
        )

    @property
    def checkpoint_record(self) -> Path:
        """The record beside the checkpoint; see `tasks.config.checkpoint_record`."""
        return self.build / "checkpoints" / f"{self.name}.json"

    @property
    def reference(self) -> Path:
        """PyTorch's masks of drawn images."""
        return self.folder / "reference.npz"

    @property
    def tracking_reference(self) -> Path:
        """PyTorch's masks of drawn clips."""
        return self.folder / "tracking_reference.npz"

    @cached_property
    def exported_graphs(self) -> GraphFiles:
        """The graphs as they are traced."""
        place = self.folder / "exported"
        encoder = ["encoder"] * any(target.client.encodes for target in self.targets)
        names = (*encoder, *self.decoders.values(), *self.tracking_graphs)
        return {name: place / FP32.file_name(name) for name in names}

    def shared_graphs(self, variant: Variant = FP32) -> GraphFiles:
        """The graphs of a variant under the names they were traced with.

        fp32 has the simplified graphs; other variants have the files that a client loads.
        """
        graphs: dict[str, Path] = {}
        for target in self.targets:
            if variant == FP32 or variant in target.derived_variants:
                for graph in target.graphs:
                    if variant.format in target.client.graph(graph).formats:
                        name = target.shared_name(graph)
                        graphs[name] = self.folder / variant.file_name(name)
                if variant.format == "onnx":
                    graphs |= self.tracking_files(variant)
        return graphs

    def tracking_files(self, variant: Variant = FP32) -> GraphFiles:
        """The graphs that track objects through frames, which all clients share."""
        names = self.tracking_graphs
        return {name: self.folder / variant.as_onnx.file_name(name) for name in names}

    def renamed_graphs(self, variant: Variant = FP32) -> list[Renamed]:
        """The graphs of a variant that clients load under their own names."""
        return [
            Renamed(target.shared_name(graph), path, target.client.names(graph))
            for target in self.targets
            if variant == FP32 or variant in target.derived_variants
            for graph, path in target.own_graphs(variant).items()
        ]


@dataclass(frozen=True, eq=False)
class Target:
    """The files for one client of a source.

    ``name`` is the source's name, with the client's name appended except for the first client.
    ``variants`` are deployed to the folder ``deploy``.
    """

    name: str
    source: Source = field(repr=False)
    client: Client
    deploy: Path
    masks: MaskChoice = "multi"
    prompts: PromptChoice = "many"
    variants: tuple[Variant, ...] = (FP32,)
    default: bool = True
    browser: Switch = "auto"
    webgpu: bool = True

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that the client loads: encoder and decoder, or only the decoder."""
        return self.client.graphs

    @property
    def decoder(self) -> Decoder:
        """The traced decoder that the client's decoder is made from."""
        return Decoder(self.client.interface, self.masks, self.prompts)

    @property
    def graph_options(self) -> dict[str, str | int]:
        """The options that shape the client's graphs."""
        return {**self.source.encoder_options, "masks": self.masks, "prompts": self.prompts}

    @cached_property
    def built_variants(self) -> tuple[Variant, ...]:
        """Single precision, the source of all others, and the deployed variants."""
        return _unique((FP32, *self.variants))

    @cached_property
    def derived_variants(self) -> tuple[Variant, ...]:
        """The variants to make from the simplified graphs; an ``.ort`` file's ONNX comes first."""
        wanted = [each.as_onnx for each in self.variants] + list(self.variants)
        return tuple(each for each in _unique(wanted) if each != FP32)

    @property
    def has_smaller_variants(self) -> bool:
        """Whether a variant has weights of fewer bits, whose fidelity must be measured."""
        return any(each.is_smaller for each in self.variants)

    @property
    def all_graphs(self) -> tuple[str, ...]:
        """The names of all deployed graphs."""
        return (*self.graphs, *self.source.tracking_graphs)

    def file_name(self, graph: str, variant: Variant) -> str:
        """The path of a graph in the deployed folder, where the client looks for it."""
        return self._loaded(graph, variant).file_name(self.client.graph(graph).file)

    def _loaded(self, graph: str, variant: Variant) -> Variant:
        """The variant whose file the client loads: ONNX if it does not load the format."""
        return variant if variant.format in self.client.graph(graph).formats else variant.as_onnx

    def file_names(self, variant: Variant) -> dict[str, str]:
        """The names of all files of a variant in the deployed folder, by graph."""
        return {graph: self.file_name(graph, variant) for graph in self.all_graphs}

    def shared_name(self, graph: str) -> str:
        """The name of the shared graph that a client's graph is made from."""
        return "encoder" if graph == "encoder" else self.source.decoders[self.decoder]

    @cached_property
    def folder(self) -> Path:
        """The folder in which the files of only this client are built."""
        return self.source.build / "models" / self.name

    def own_graphs(self, variant: Variant = FP32) -> GraphFiles:
        """The graphs whose names or tensor order differ for this client from the shared ones."""
        place = self.folder / self.client.name
        return {
            graph: place / Path(variant.file_name(self.client.graph(graph).file)).name
            for graph in self.graphs
            if variant.format in self.client.graph(graph).formats
            and graph in self.client.renamed_graphs
        }

    def image_graphs(self, variant: Variant = FP32) -> GraphFiles:
        """The encoder and decoder of a variant that the client loads."""
        graphs = {}
        for graph in self.graphs:
            loaded = self._loaded(graph, variant)
            shared = self.source.folder / loaded.file_name(self.shared_name(graph))
            graphs[graph] = self.own_graphs(loaded).get(graph, shared)
        return graphs

    def graph_files(self, variant: Variant = FP32) -> GraphFiles:
        """Every deployed graph of a variant."""
        return {**self.image_graphs(variant), **self.source.tracking_files(variant)}

    def tracker_graphs(self, variant: Variant = FP32) -> GraphFiles:
        """The graphs that a tracker runs: the client's encoder and the tracking graphs."""
        encoder = self.image_graphs(variant)["encoder"]
        return {"encoder": encoder, **self.source.tracking_files(variant)}

    def report(self, proof: ProofKind, variant: Variant = FP32) -> Path:
        """The report of a proof: ``verify.json``, ``fidelity.q8.json``, ``browser.json`` (fp32)."""
        by_variant = proof == "fidelity" or (proof != "verify" and variant != FP32)
        return self.folder / f"{proof}{f'.{variant.name}' if by_variant else ''}.json"

    @property
    def clicks(self) -> Path:
        """Clicks on drawn images with PyTorch's masks, for a model with `truth`."""
        return self.folder / "clicks.npz"

    @property
    def embedding(self) -> Path:
        """PyTorch's embedding, for only a decoder: see `tasks.inference.embedding`."""
        return self.folder / "embedding.npz"

    def picture(self, variant: Variant) -> Path:
        """The picture of a variant's mask that differs most from PyTorch's, beside it."""
        return self.report("fidelity", variant).with_suffix(".png")

    @property
    def speeds(self) -> Path:
        """The times of all variants, measured in one run."""
        return self.folder / "speed.json"

    @property
    def paths(self) -> Path:
        """The results of each execution path in this machine's browsers."""
        return self.folder / "paths.json"

    @property
    def manifest(self) -> Path:
        """The manifest in the deploy folder."""
        return self.deploy / "manifest.json"

    @property
    def demo_picture(self) -> Path:
        """The picture that `doit demo` draws, beside the deploy folder."""
        return self.deploy.parent / f"{self.name}.png"

    @property
    def filmstrip(self) -> Path:
        """The picture that `doit demo-video` draws, beside the deploy folder."""
        return self.deploy.parent / "track.png"


def _unique(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    return tuple(dict.fromkeys(variants))
