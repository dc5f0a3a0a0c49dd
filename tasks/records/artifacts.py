"""Where everything that a model is built into lies: asked of the model, not of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.config.schema import FP32, Configuration, Model, Variant
from tasks.model.trained import TrainedModel

# The graphs of a model at one stage, by name.
Graphs = Mapping[str, Path]

# What is measured, and reported on in a file of its own.
Proof = Literal["verify", "fidelity", "tracking", "browser"]


def folder(config: Configuration, model: Model) -> Path:
    """What is built of a model for its client."""
    return _folder(config.build, model.name)


@cache
def _folder(build: Path, name: str) -> Path:
    return build / "models" / name


def checkpoint(config: Configuration, model: Model) -> Path:
    """The checkpoint of a model."""
    return config.build / "checkpoints" / f"{model.base}.pt"


def trained_model(config: Configuration, model: Model) -> TrainedModel:
    """The checkpoint with its architecture."""
    return TrainedModel(
        model.architecture,
        str(checkpoint(config, model)),
        str(model.config) if model.config else None,
        model.image_size,
    )


def checkpoint_record(config: Configuration, model: Model) -> Path:
    """What the checkpoint is, beside it."""
    return checkpoint(config, model).with_suffix(".json")


@cache
def exported_graphs(config: Configuration, model: Model) -> Graphs:
    """The graphs of a model's table as they are traced."""
    place = _folder(config.build, model.base) / "exported"
    names = ("encoder", *config.decoders(model).values(), *model.tracking_graphs)
    return {name: place / FP32.file_name(name) for name in names}


@cache
def shared_graphs(config: Configuration, model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs that a variant of a model's table has, under the names they were traced with.

    fp32's are the simplified ones; of others, those that a client loads.
    """
    place = _folder(config.build, model.base)
    found = {}
    names = config.decoders(model)
    for each in config.of_table(model):
        if variant == FP32 or variant in each.derived:
            for graph in each.graphs:
                name = "encoder" if graph == "encoder" else names[each.decoder]
                if variant.format in each.client.graph(graph).formats:
                    found[name] = place / variant.file_name(name)
            found |= tracking_graphs(config, each, variant) if variant.format == "onnx" else {}
    return found


@cache
def tracking_graphs(config: Configuration, model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs that follow objects through frames; the clients of a table share them."""
    place, loaded = _folder(config.build, model.base), Variant(variant.precision)
    return {name: place / loaded.file_name(name) for name in model.tracking_graphs}


def all_graphs(config: Configuration, model: Model, variant: Variant = FP32) -> dict[str, Path]:
    """Every graph of a variant that is deployed."""
    return {**graphs(config, model, variant), **tracking_graphs(config, model, variant)}


@cache
def own_graphs(config: Configuration, model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs that a client wants under other names, or in another order, than the shared.

    By the graph's name, ``encoder`` or ``decoder``; made beside the shared ones.
    """
    place = _folder(config.build, model.name) / model.client.name
    return {
        graph: place / Path(variant.file_name(model.client.graph(graph).file)).name
        for graph in model.graphs
        if variant.format in model.client.graph(graph).formats and model.client.renames(graph)
    }


class Renamed(NamedTuple):
    """A client's own graph: the shared one that it is made from, its file, its tensors' names."""

    shared: str
    path: Path
    names: dict[str, list[list[str]]]


def renamed_graphs(config: Configuration, model: Model, variant: Variant = FP32) -> list[Renamed]:
    """The graphs of a variant that clients of a model's table want under names of their own."""
    return [
        Renamed(shared_name(config, each, graph), path, each.client.names(graph))
        for each in config.of_table(model)
        if variant == FP32 or variant in each.derived
        for graph, path in own_graphs(config, each, variant).items()
    ]


def shared_name(config: Configuration, model: Model, graph: str) -> str:
    """The name of the shared graph that a client's is made from."""
    return "encoder" if graph == "encoder" else config.decoders(model)[model.decoder]


@cache
def graphs(config: Configuration, model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs of a variant, as its client loads them."""
    found = {}
    for graph in model.graphs:
        loaded = variant
        if variant.format not in model.client.graph(graph).formats:
            loaded = Variant(variant.precision)
        own = own_graphs(config, model, loaded).get(graph)
        name = shared_name(config, model, graph)
        found[graph] = own or _folder(config.build, model.base) / loaded.file_name(name)
    return found


def reference(config: Configuration, model: Model) -> Path:
    """PyTorch's masks of drawn images, for all models of a table."""
    return _folder(config.build, model.base) / "reference.npz"


def report(config: Configuration, model: Model, proof: Proof, variant: Variant = FP32) -> Path:
    """The report of a proof: ``verify.json``, ``fidelity.q8.json``, ``browser.json`` (fp32)."""
    by_variant = proof == "fidelity" or (proof != "verify" and variant != FP32)
    return folder(config, model) / f"{proof}{f'.{variant.name}' if by_variant else ''}.json"


def tracking_reference(config: Configuration, model: Model) -> Path:
    """What PyTorch makes of drawn clips, for all models of a table."""
    return _folder(config.build, model.base) / "tracking_reference.npz"


def speeds(config: Configuration, model: Model) -> Path:
    """The times of all variants, taken in one run."""
    return folder(config, model) / "speed.json"


def picture(config: Configuration, model: Model, variant: Variant) -> Path:
    """Masks of a variant beside PyTorch's, where they differ most."""
    return report(config, model, "fidelity", variant).with_suffix(".png")


def manifest(model: Model) -> Path:
    """The manifest in a model's deploy folder."""
    return model.deploy / "manifest.json"


def demo_picture(model: Model) -> Path:
    """What `doit demo` draws, beside the deploy folder of its model."""
    return model.deploy.parent / f"{model.name}.png"


def filmstrip(model: Model) -> Path:
    """What `doit demo` draws of the model that tracks, beside the model's deploy folder."""
    return model.deploy.parent / "track.png"
