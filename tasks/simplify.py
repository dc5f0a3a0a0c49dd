"""Stage 3: both graphs folded by onnxsim.

Targets: ``<build>/models/<model>/encoder.onnx`` and ``decoder.onnx``, the files to deploy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks import child, export
from tasks.configuration import Configuration, Model
from tasks.export import Graphs, describe, peak
from tasks.files import scratch_folder
from tasks.staleness import Trace, versions

if TYPE_CHECKING:
    import onnx
    from doit.task import Task

PACKAGES = ("onnxsim", "onnx")

# Weights from this size on (in bytes) are kept from onnxsim, which then works on a few hundred
# nodes instead of a gigabyte. It also would store what is larger than the weights it is computed
# from, as the factors of the positional embedding are.
KEPT_WEIGHTS = 1 << 14

# They join query, key and value to one product with a Split behind it, or to
# com.microsoft::Attention, which not every execution provider has.
SKIPPED_PASSES = ["fuse_qkv", "fuse_attention"]


def graphs(config: Configuration, model: Model) -> Graphs:
    """The simplified files of a model."""
    return Graphs.within(config.build / "models" / model.name)


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    exported = export.graphs(config, model)
    return {
        "name": model.name,
        "actions": [(simplify, [config, model])],
        "file_dep": [*map(str, exported), "tasks/simplify.py"],
        "targets": [str(path) for path in graphs(config, model)],
        "uptodate": [Trace(versions(*PACKAGES))],
        "clean": True,
        "io": {"capture": False},
    }


@child.action
def simplify(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Simplify in a child process, then move both graphs into place."""
    targets = graphs(config, model)
    log = config.build / "logs" / f"simplify-{model.name}.log"
    with scratch_folder(config.build / "tmp" / f"simplify-{model.name}") as scratch:
        made = Graphs.within(scratch)
        pairs = [
            [str(source), str(result)]
            for source, result in zip(export.graphs(config, model), made, strict=True)
        ]
        result = child.run("tasks.simplify:fold", {"pairs": pairs}, log, task.verbosity == 2)
        for source, target in zip(made, targets, strict=True):
            source.replace(target)
    nodes = ", ".join(
        f"{name} {before} → {after}"
        for name, (before, after) in zip(Graphs._fields, result["nodes"], strict=True)
    )
    return {"summary": f"nodes {nodes}; {describe(targets)}{peak(result)}", **result}


def fold(pairs: list[list[str]]) -> dict[str, Any]:
    """Simplify each source graph into its destination (runs in a child process).

    :returns: ``nodes``, for each pair the number before and after.
    """
    import sys

    import onnx

    # onnxsim imports torch where it finds it, for features not used here: seconds and memory.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxsim

    counts = []
    for source, destination in pairs:
        model = onnx.load(source)
        before = len(model.graph.node)
        constants_to_initializers(model.graph)
        weights = hold_back(model.graph)
        model, _ = onnxsim.simplify(model, skipped_optimizers=SKIPPED_PASSES)
        constants_to_initializers(model.graph)
        give_back(model.graph, weights)
        share_equal_weights(model.graph)
        onnx.save(model, destination)
        counts.append([before, len(model.graph.node)])
        del model, weights
    return {"nodes": counts}


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Make every Constant node that holds a tensor an initializer, which is what it is."""
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


def hold_back(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Turn large weights into inputs, which are not folded; return the weights."""
    import onnx

    held = [each for each in graph.initializer if each.ByteSize() >= KEPT_WEIGHTS]
    small = [each for each in graph.initializer if each.ByteSize() < KEPT_WEIGHTS]
    graph.input.extend(
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in held
    )
    del graph.initializer[:]  # what `held` refers to stays alive outside the graph
    graph.initializer.extend(small)
    return held


def give_back(graph: onnx.GraphProto, weights: list[onnx.TensorProto]) -> None:
    """Turn those inputs into weights again; one that nothing reads any more is left out."""
    names = {weight.name for weight in weights}
    for value in [each for each in graph.input if each.name in names]:
        graph.input.remove(value)
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(weight for weight in weights if weight.name in read)


def share_equal_weights(graph: onnx.GraphProto) -> None:
    """Keep one of several weights that hold the same, whatever they are called."""
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
