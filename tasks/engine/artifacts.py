"""Where everything that a model is built into lies: asked of the model, not of a stage."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from tasks.config.schema import FP32, Configuration, Model, Variant

# The graphs of a model at one stage, by name.
Graphs = dict[str, Path]

# What is measured, and reported on in a file of its own.
Proof = Literal["verify", "fidelity", "browser"]


def folder(config: Configuration, model: Model) -> Path:
    """What is built of a model."""
    return _folder(config.build, model.name)


@cache
def _folder(build: Path, name: str) -> Path:
    return build / "models" / name


def checkpoint(config: Configuration, model: Model) -> Path:
    """The checkpoint of a model."""
    return config.build / "checkpoints" / f"{model.name}.pt"


def checkpoint_record(config: Configuration, model: Model) -> Path:
    """What the checkpoint is, beside it."""
    return checkpoint(config, model).with_suffix(".json")


def exported_graphs(config: Configuration, model: Model) -> Graphs:
    """The graphs as they are exported."""
    return _graphs(folder(config, model) / "exported", model, FP32)


def graphs(config: Configuration, model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs of a variant, as they are deployed; fp32's are the simplified ones."""
    return _graphs(folder(config, model), model, variant)


def deployed_graphs(model: Model, variant: Variant = FP32) -> Graphs:
    """The graphs of a variant where the application serves them."""
    return _graphs(model.deploy, model, variant)


def _graphs(place: Path, model: Model, variant: Variant) -> Graphs:
    return dict(_named(place, model.graphs, variant))


@cache  # three hundred tasks ask for the same few dozen paths
def _named(place: Path, graphs: tuple[str, ...], variant: Variant) -> tuple[tuple[str, Path], ...]:
    return tuple((name, place / variant.file_name(name)) for name in graphs)


def reference(config: Configuration, model: Model) -> Path:
    """PyTorch's masks of drawn images."""
    return folder(config, model) / "reference.npz"


def report(config: Configuration, model: Model, proof: Proof, variant: Variant = FP32) -> Path:
    """The report of a proof: ``verify.json``, ``fidelity.q8.json``, ``browser.json`` (fp32)."""
    by_variant = proof == "fidelity" or (proof == "browser" and variant != FP32)
    return folder(config, model) / f"{proof}{f'.{variant.name}' if by_variant else ''}.json"


def speeds(config: Configuration, model: Model) -> Path:
    """The times of all variants, taken in one run."""
    return folder(config, model) / "speed.json"


def picture(config: Configuration, model: Model, variant: Variant) -> Path:
    """Masks of a variant beside PyTorch's, where they differ most."""
    return report(config, model, "fidelity", variant).with_suffix(".png")


def manifest(model: Model) -> Path:
    """The manifest in a model's deploy folder."""
    return model.deploy / "manifest.json"
