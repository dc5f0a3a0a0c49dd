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

# Weights whose products are larger than they are: folding tiny's positional embedding would
# add 24 MiB to its 104, for two small products when the model is loaded.
COMPUTED_WHEN_LOADED = ("trunk.pos_embed", "trunk.pos_embed_window")

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
        weights = _hold_back(model.graph)
        model, _ = onnxsim.simplify(model, skipped_optimizers=SKIPPED_PASSES)
        _give_back(model.graph, weights)
        onnx.save(model, destination)
        counts.append([before, len(model.graph.node)])
        del model
    return {"nodes": counts}


def _hold_back(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Turn `COMPUTED_WHEN_LOADED` into inputs, which onnxsim cannot fold; return the weights."""
    import onnx

    held = [each for each in graph.initializer if each.name.endswith(COMPUTED_WHEN_LOADED)]
    for weight in held:
        graph.initializer.remove(weight)
        graph.input.append(
            onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    return held


def _give_back(graph: onnx.GraphProto, weights: list[onnx.TensorProto]) -> None:
    """Turn those inputs into weights again."""
    names = {weight.name for weight in weights}
    for value in [each for each in graph.input if each.name in names]:
        graph.input.remove(value)
    graph.initializer.extend(weights)
