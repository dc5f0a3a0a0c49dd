"""A family is a kind of model: how its models are made, traced and compared, as a value."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from tasks.clients.contract import (
    Dimensions,
    GraphTensors,
    Interface,
    Layout,
    MaskChoice,
    PromptChoice,
)
from tasks.model import AttentionKind

if TYPE_CHECKING:
    from torch import nn


class Traceable(NamedTuple):
    """A module to trace while it is patched, and the tensors of its graph.

    ``options`` are further ones of ``torch.onnx.export``.
    """

    module: nn.Module
    patched: AbstractContextManager[None]
    tensors: GraphTensors
    options: Mapping[str, Any] = {}


class Graphs(Protocol):
    """The module of a family's graphs: how each graph of a model is traced."""

    def encoder(self, model: Any, attention: AttentionKind) -> Traceable:
        """The graph from an image to features."""

    def decoder(
        self, model: Any, interface: Interface, masks: MaskChoice, prompts: PromptChoice
    ) -> Traceable:
        """The graph from features and prompts to masks."""

    def trackers(self, model: Any) -> Mapping[str, Traceable]:
        """The graphs that follow objects through frames, by name."""


@dataclass(frozen=True)
class Family:
    """What tells one family of models from another.

    What needs torch is named: functions as ``module:function``, the module of `Graphs` alone. So
    nothing heavy is imported to make a family.

    :param title: for people.
    :param architectures: those that a ``model_type`` can name.
    :param build: makes a model with initial weights, of an architecture, an image size in pixels or
        None, and whether it tracks.
    :param dimensions: gives the `Dimensions` of a model.
    :param predictor: makes the predictor in PyTorch that graphs are compared with, of a model and
        how images are placed.
    :param compared_with: that predictor's name, for the manifest.
    :param package: the one of `reference_package` whose model the predictor is of; None for those
        that are installed.
    :param layout: the tensors that encoder and decoder share, by which clients are chosen.
    :param randomize: changes a new model by a generator, so that in a synthetic checkpoint no
        weight is zero and no mask empty.
    :param attention: how the encoder's attention can be written.
    :param too_large: architectures whose encoder has more weights than the 2 GiB that a graph in
        one file can hold (protobuf's limit).
    :param has_sizes: whether ``image_size`` may be set.
    :param tracks: whether ``video`` may be true.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    build: str
    dimensions: str
    graphs: str
    predictor: str
    compared_with: str = "SAM2ImagePredictor"
    package: str | None = None
    layout: Layout = "sam2"
    randomize: str | None = None
    attention: tuple[AttentionKind, ...] = ("plain",)
    too_large: tuple[str, ...] = ()
    has_sizes: bool = True
    tracks: bool = True

    @property
    def making(self) -> tuple[str, ...]:
        """The functions whose code shapes a synthetic checkpoint."""
        return (self.build, *([self.randomize] if self.randomize else []))

    @property
    def tracing(self) -> tuple[str, ...]:
        """The functions whose code shapes its graphs."""
        return (self.build, f"{self.graphs}:encoder")

    @property
    def computing(self) -> tuple[str, ...]:
        """The functions whose code shapes what PyTorch answers."""
        return (self.build, self.dimensions, self.predictor)

    def load_graphs(self) -> Graphs:
        """Import the module of its graphs."""
        return cast(Graphs, importlib.import_module(self.graphs))

    def dimensions_of(self, model: Any) -> Dimensions:
        """The sizes of a model's tensors."""
        sizes: Dimensions = load_function(self.dimensions)(model)
        return sizes


def load_function(name: str) -> Any:
    """Import the function that ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
