"""Folds every graph with onnxsim.

Targets: ``<build>/models/<model>/encoder.onnx`` and so on, and copies with other tensor names for
clients that have their own (``<build>/models/<model>/<client>/``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak, describe_sizes
from tasks.config.models import Source
from tasks.inference.graph_file import read_graph
from tasks.inference.naming import RenamedGraph, write_renamed
from tasks.system.versions import versions

if TYPE_CHECKING:
    import onnx

PACKAGES = ("onnxsim", "onnx", "onnxruntime")  # onnxsim folds with onnxruntime

# Weights of at least this many bytes are hidden from onnxsim, which then works on a few hundred
# nodes instead of a gigabyte. Otherwise it would also store the positional embedding, which is
# larger than the factors that it is computed from.
KEPT_WEIGHTS = 1 << 14

# These passes merge query, key and value into one product followed by a Split, or into
# com.microsoft::Attention, which some execution providers lack.
SKIPPED_PASSES = ["fuse_qkv", "fuse_attention"]


@dataclass(frozen=True)
class SimplifyRequest:
    """Pairs of a graph and its destination, and results to write again with other names."""

    pairs: tuple[tuple[Path, Path], ...]
    renamed: tuple[RenamedGraph, ...] = ()


def declare(source: Source) -> Stage:
    """The stage that simplifies a source's graphs."""
    renamed = source.renamed_graphs()
    return Stage(
        source.name,
        simplify,
        [source],
        reads=list(source.exported_graphs.values()),
        writes=[*source.shared_graphs().values(), *(each.path for each in renamed)],
        shared="files",
        inputs={"names": [each.names for each in renamed], **versions(*PACKAGES)},
    )


def simplify(source: Source, work: Workspace) -> dict[str, Any]:
    """Simplify in a child process, then move the graphs into place."""
    targets, renamed = source.shared_graphs(), source.renamed_graphs()
    made = work.made(targets)
    result = work.run(
        "tasks.simplify:simplify_graphs",
        SimplifyRequest(
            pairs=tuple((path, made[name]) for name, path in source.exported_graphs.items()),
            renamed=tuple(
                RenamedGraph(made[each.shared], work.unfinished(each.path), each.names)
                for each in renamed
            ),
        ),
    )
    work.deliver(*targets.values(), *(each.path for each in renamed))
    nodes = ", ".join(
        f"{name} {before} → {after}"
        for name, (before, after) in zip(targets, result["nodes"], strict=True)
    )
    summary = f"nodes {nodes}; {describe_sizes(targets)}{describe_peak(result)}"
    return {"summary": summary, **result}


def simplify_graphs(request: SimplifyRequest) -> dict[str, Any]:
    """Simplify each source graph into its destination (runs in a child process).

    :returns: ``nodes``: for each pair the number of nodes before and after.
    """
    import sys

    import onnx

    # Where torch is installed, onnxsim imports it for features not used here, which takes seconds
    # and memory.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxsim

    counts = []
    for source, destination in request.pairs:
        model = read_graph(source)
        before = len(model.graph.node)
        constants_to_initializers(model.graph)
        weights = detach_weights(model.graph)
        model, _ = onnxsim.simplify(model, skipped_optimizers=SKIPPED_PASSES)
        constants_to_initializers(model.graph)
        attach_weights(model.graph, weights)
        share_equal_weights(model.graph)
        onnx.save(model, destination)
        counts.append([before, len(model.graph.node)])
        del model, weights
    for graph in request.renamed:
        write_renamed(graph)
    return {"nodes": counts}


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn every Constant node that holds a tensor into an initializer."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def detach_weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Turn large weights into inputs, which onnxsim does not fold; return the weights."""
    import onnx

    detached = [each for each in graph.initializer if each.ByteSize() >= KEPT_WEIGHTS]
    small = [each for each in graph.initializer if each.ByteSize() < KEPT_WEIGHTS]
    graph.input.extend(
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in detached
    )
    del graph.initializer[:]  # what `detached` refers to stays alive outside the graph
    graph.initializer.extend(small)
    return detached


def attach_weights(graph: onnx.GraphProto, weights: list[onnx.TensorProto]) -> None:
    """Turn the inputs of `detach_weights` back into weights; drop weights that no node reads."""
    names = {weight.name for weight in weights}
    for value in [each for each in graph.input if each.name in names]:
        graph.input.remove(value)
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(weight for weight in weights if weight.name in read)


def share_equal_weights(graph: onnx.GraphProto) -> None:
    """Keep only one of several weights with equal values but different names."""
    import hashlib

    first: dict[tuple[object, ...], str] = {}
    alias: dict[str, str] = {}
    for tensor in list(graph.initializer):
        digest = hashlib.sha256(tensor.raw_data).digest() if tensor.raw_data else tensor.name
        owner = first.setdefault((tensor.data_type, tuple(tensor.dims), digest), tensor.name)
        if owner != tensor.name:
            alias[tensor.name] = owner
            graph.initializer.remove(tensor)
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = alias.get(name, name)
