"""A family is a kind of model: a value that says how its models are made, traced and compared."""

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
    """A module to trace with its patches applied, and the tensors of its graph.

    ``options`` are further options of ``torch.onnx.export``.
    """

    module: nn.Module
    patched: AbstractContextManager[None]
    tensors: GraphTensors
    options: Mapping[str, Any] = {}


class Graphs(Protocol):
    """A family's module of graphs: how to trace each graph of a model."""

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
    """What distinguishes one family of models from another.

    Code that needs torch is given by name: functions as ``module:function``, `Graphs` as a module.
    So making a family imports nothing heavy.

    :param title: the name for people.
    :param architectures: the architectures that a ``model_type`` can name.
    :param build: makes a model with initial weights from an architecture, an image size in pixels
        or None, and whether it tracks.
    :param dimensions: returns a model's `Dimensions`.
    :param predictor: makes the PyTorch predictor that graphs are compared with, from a model and
        the placement of images.
    :param compared_with: that predictor's name, for the manifest.
    :param package: the package of `reference_package` that provides the predictor's model; None if
        the installed packages provide it.
    :param layout: the tensors that encoder and decoder share, for choosing clients.
    :param randomize: changes a new model with a generator, so that in a synthetic checkpoint no
        weight is zero and no mask empty.
    :param attention: the ways in which the encoder's attention can be written.
    :param too_large: architectures whose encoder has more weights than the 2 GiB that a graph in
        one file can hold (protobuf's limit).
    :param has_sizes: whether ``image_size`` can be set.
    :param tracks: whether ``video`` can be true.
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
        """The functions whose code determines a synthetic checkpoint."""
        return (self.build, *([self.randomize] if self.randomize else []))

    @property
    def tracing(self) -> tuple[str, ...]:
        """The functions whose code determines the graphs."""
        return (self.build, f"{self.graphs}:encoder")

    @property
    def computing(self) -> tuple[str, ...]:
        """The functions whose code determines PyTorch's answers."""
        return (self.build, self.dimensions, self.predictor)

    def load_graphs(self) -> Graphs:
        """Import the family's module of graphs."""
        return cast(Graphs, importlib.import_module(self.graphs))

    def dimensions_of(self, model: Any) -> Dimensions:
        """The sizes of a model's tensors."""
        sizes: Dimensions = load_function(self.dimensions)(model)
        return sizes


def load_function(name: str) -> Any:
    """Import the function that ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
