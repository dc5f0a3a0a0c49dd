"""Gives the tensors of a traced graph the names and the order that a client expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.inference.graph_file import read_graph

if TYPE_CHECKING:
    import onnx

# The names of a graph's inputs and outputs, in order: each a role and a name.
Names = Mapping[str, Sequence[Sequence[str]]]


def write_renamed(source: str, destination: str, names: Names) -> None:
    """Write a graph's file again with other names; weights and nodes stay as they are.

    :raises ValueError: when a name is in use within the graph.
    """
    import onnx

    model = read_graph(source)
    rename_tensors(model.graph, names)
    onnx.save(model, destination)


def rename_tensors(graph: onnx.GraphProto, names: Names) -> None:
    """Rename and sort inputs and outputs; one whose role is not named keeps its own, behind them.

    :raises ValueError: when a name is in use within the graph.
    """
    new = {role: name for kind in ("inputs", "outputs") for role, name in names[kind]}
    used = {name for node in graph.node for name in (*node.input, *node.output)} - new.keys()
    taken = sorted(used & set(new.values()))
    if taken:
        raise ValueError(f"the graph has tensors that are called {', '.join(taken)} already")
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
