"""Gives a traced graph's tensors the names and the order that a client expects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.clients.contract import CANVAS_HEIGHT, PREPROCESSING
from tasks.inference.graph_file import read_graph

if TYPE_CHECKING:
    import onnx

# A graph's inputs and outputs, in order, each as a role and a name.
Names = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True)
class RenamedGraph:
    """A graph's file to rewrite with a client's names."""

    source: Path
    destination: Path
    names: Names


def write_renamed(graph: RenamedGraph) -> None:
    """Rewrite a graph's file with other names; weights and nodes stay the same.

    An encoder that takes a ``canvas`` gets the nodes for it before its own.

    :raises ValueError: when a name is already used within the graph.
    """
    import onnx

    model = read_graph(graph.source)
    if "canvas" in {role for role, _ in graph.names["inputs"]}:
        take_canvas(model.graph)
    rename_tensors(model.graph, graph.names)
    onnx.save(model, graph.destination)


def rename_tensors(graph: onnx.GraphProto, names: Names) -> None:
    """Rename and sort inputs and outputs, and remove outputs for which the client has no name.

    :raises ValueError: when a name is already used within the graph.
    """
    remove_outputs(graph, {role for role, _ in names["outputs"]})
    new = {role: name for kind in ("inputs", "outputs") for role, name in names[kind]}
    used = {name for node in graph.node for name in (*node.input, *node.output)} - new.keys()
    taken = sorted(used & set(new.values()))
    if taken:
        raise ValueError(f"the graph already has tensors named {', '.join(taken)}")
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
        places = {role: place for place, (role, _) in enumerate(names[kind])}
        tensors: list[Any] = sorted(values, key=lambda each: places.get(each.name, len(places)))
        for value in tensors:
            value.name = new.get(value.name, value.name)
        copies = [type(value).FromString(value.SerializeToString()) for value in tensors]
        del values[:]
        values.extend(copies)


def remove_outputs(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Remove a graph's other outputs, and the nodes and weights that only those need."""
    outputs = [each for each in graph.output if each.name in kept]
    if len(outputs) == len(graph.output):
        return
    del graph.output[:]
    graph.output.extend(outputs)
    needed = {each.name for each in outputs}
    nodes = []
    for node in reversed(graph.node):  # nodes come after those whose outputs they read
        if needed & set(node.output):
            needed.update(node.input)
            nodes.append(node)
    weights = [each for each in graph.initializer if each.name in needed]
    for values, remaining in ((graph.node, nodes[::-1]), (graph.initializer, weights)):
        del values[:]
        values.extend(remaining)


def take_canvas(graph: onnx.GraphProto) -> None:
    """Make an encoder take a canvas (H, W, 3), from which it makes its image.

    The image is normalized, and zero below the canvas.
    """
    from onnx import parser

    (image,) = graph.input
    side = image.type.tensor_type.shape.dim[3].dim_value
    height = round(side * CANVAS_HEIGHT)
    mean, std = (", ".join(map(str, PREPROCESSING[each])) for each in ("mean", "std"))
    before = parser.parse_graph(f"""
        canvas (float[{height}, {side}, 3] canvas) => (float[1, 3, {side}, {side}] {image.name})
        <
            float[3] canvas_mean = {{{mean}}}, float[3] canvas_std = {{{std}}},
            int64[4] canvas_shape = {{1, 3, {height}, {side}}},
            int64[8] canvas_pads = {{0, 0, 0, 0, 0, 0, {side - height}, 0}}
        >
        {{
            canvas_centered = Sub(canvas, canvas_mean)
            canvas_normalized = Div(canvas_centered, canvas_std)
            canvas_planes = Transpose<perm = [2, 0, 1]>(canvas_normalized)
            canvas_image = Reshape(canvas_planes, canvas_shape)
            {image.name} = Pad(canvas_image, canvas_pads)
        }}
    """)
    nodes = [*before.node, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(before.initializer)
    image.CopyFrom(before.input[0])
