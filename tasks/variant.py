"""Writes the proven graphs with smaller weights, or as ``.ort`` files.

Inputs and outputs stay float32, so any encoder works with any decoder, and a consumer changes
only the file's name. Each graph of a table of models is converted once, and written again with
other tensor names for each client that has its own. Targets:
``<build>/models/<model>/encoder_<precision>.onnx`` and so on, named as transformers.js names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.building.stage import Stage, Workspace, describe_peak, describe_sizes
from tasks.clients.contract import Format, Precision
from tasks.config.models import Source, Variant
from tasks.inference.graph_file import read_graph
from tasks.inference.naming import RenamedGraph, write_renamed
from tasks.system.versions import versions

PACKAGES = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class ConversionRequest:
    """Pairs of a graph and its variant's destination, and results to write with other names."""

    pairs: tuple[tuple[Path, Path], ...]
    precision: Precision
    format: Format
    renamed: tuple[RenamedGraph, ...] = ()


def declare(source: Source, variant: Variant) -> Stage:
    """The stage that makes one variant of a source's graphs."""
    renamed = source.renamed_graphs(variant)
    return Stage(
        f"{source.name}:{variant.name}",
        make_variant,
        [source, variant],
        reads=list(origins(source, variant).values()),
        writes=[*source.shared_graphs(variant).values(), *(each.path for each in renamed)],
        shared="files",
        inputs={"names": [each.names for each in renamed], **versions(*PACKAGES)},
    )


def origins(source: Source, variant: Variant) -> dict[str, Path]:
    """The graphs from which a variant's graphs are made."""
    made_from = source.shared_graphs(variant.made_from)
    return {name: made_from[name] for name in source.shared_graphs(variant)}


def make_variant(source: Source, variant: Variant, work: Workspace) -> dict[str, Any]:
    """Convert in a child process, then move the graphs into place."""
    targets, renamed = source.shared_graphs(variant), source.renamed_graphs(variant)
    made = work.made(targets)
    result = work.run(
        "tasks.variant:convert",
        ConversionRequest(
            pairs=tuple((path, made[name]) for name, path in origins(source, variant).items()),
            precision=variant.precision,
            format=variant.format,
            renamed=tuple(
                RenamedGraph(made[each.shared], work.unfinished(each.path), each.names)
                for each in renamed
            ),
        ),
    )
    work.deliver(*targets.values(), *(each.path for each in renamed))
    single = source.shared_graphs()
    share = sum(each.stat().st_size for each in targets.values()) / sum(
        single[name].stat().st_size for name in targets
    )
    summary = f"{describe_sizes(targets)}, {share:.2f} of fp32{describe_peak(result)}"
    return {"summary": summary, **result}


def convert(request: ConversionRequest) -> dict[str, Any]:
    """Write a variant of each source graph (runs in a child process).

    :returns: ``nodes``: the number of nodes in each variant.
    """
    import onnx

    from tasks.inference.quantization import CONVERSIONS

    counts = []
    for origin, destination in request.pairs:
        if request.format == "ort":
            counts.append(save_as_ort(origin, destination))
            continue
        model = read_graph(origin)
        CONVERSIONS[request.precision](model)
        onnx.checker.check_model(model)
        onnx.save(model, destination)
        counts.append(len(model.graph.node))
    for graph in request.renamed:
        write_renamed(graph)
    return {"nodes": counts}


def save_as_ort(origin: Path, destination: Path) -> int:
    """Write a graph in onnxruntime's own format; return the number of its nodes.

    Optimizations beyond the basic level would suit only the machine that makes them. Constants are
    not folded: folding weights with their Cast would double the file.
    """
    import onnxruntime

    nodes = len(read_graph(origin).graph.node)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(destination)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        origin, options, ["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )
    return nodes
