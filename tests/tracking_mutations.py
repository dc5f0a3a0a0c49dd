"""Small changes to the tracking graphs and to a tracker's constants: the proof must catch each.

`MUTATIONS` are data: what is wrong, in which graph, and the change that causes it. Inputs and
outputs have the names of the contract, and weights those of the modules; folded constants are found
by the node that reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

Change = Callable[[ModelProto], None]
Array = NDArray[Any]


@dataclass(frozen=True)
class Mutation:
    """A fault of a graph. ``change`` causes it, and fails if it finds nothing to change."""

    name: str
    graph: str
    change: Change

    def __str__(self) -> str:
        return f"{self.graph}: {self.name}"


@dataclass(frozen=True)
class OtherConstants:
    """Constants of a tracker that differ from the model's."""

    changes: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.changes.items())


def read_as(name: str, *nodes: tuple[str, *tuple[Array, ...]]) -> Change:
    """An input goes through some operators before anything reads it.

    :param nodes: each an operator and its further inputs.
    """

    def change(model: ModelProto) -> None:
        assert name in {each.name for each in model.graph.input}, name
        readers = [
            (node, position)
            for node in model.graph.node
            for position, read in enumerate(node.input)
            if read == name
        ]
        assert readers, name
        made, last = _chain(model, name, nodes)
        for node, position in readers:
            node.input[position] = last
        _put_first(model, made)

    return change


def given_as(name: str, *nodes: tuple[str, *tuple[Array, ...]]) -> Change:
    """An output goes through some operators when it is returned; other nodes read it unchanged."""

    def change(model: ModelProto) -> None:
        assert name in {each.name for each in model.graph.output}, name
        _rename(model, name, f"{name} inside")
        made, last = _chain(model, f"{name} inside", nodes)
        made[-1].output[0] = name
        assert last != name
        model.graph.node.extend(made)

    return change


def returned(name: str, inside: str) -> Change:
    """An output is replaced by another tensor."""

    def change(model: ModelProto) -> None:
        assert name in {each.name for each in model.graph.output}, name
        _rename(model, name, f"{name} inside")
        model.graph.node.append(onnx.helper.make_node("Identity", [inside], [name]))

    return change


def not_a_number_where_absent(name: str) -> Change:
    """An output is NaN where the object's score is not above 0."""

    def change(model: ModelProto) -> None:
        _rename(model, name, f"{name} inside")
        score = "object_score_logits"
        score = f"{score} inside" if name == score else score
        nothing, zero = _constant(model, np.float32("nan")), _constant(model, np.float32(0))
        model.graph.node.extend(
            [
                onnx.helper.make_node("Greater", [score, zero], ["is there"]),
                onnx.helper.make_node("Where", ["is there", f"{name} inside", nothing], [name]),
            ]
        )

    return change


def weight(name: str, make: Callable[[Array], Array]) -> Change:
    """A weight, found by its name, is changed."""

    def change(model: ModelProto) -> None:
        (found,) = [each for each in model.graph.initializer if each.name == name]
        _set(found, make)

    return change


def folded(find: Callable[[ModelProto], str], make: Callable[[Array], Array]) -> Change:
    """A folded constant, found by the node that reads it, is changed."""

    def change(model: ModelProto) -> None:
        name = find(model)
        (found,) = [each for each in model.graph.initializer if each.name == name]
        _set(found, make)

    return change


def attribute(operator: str, name: str, before: list[int], now: list[int]) -> Change:
    """In the first node of an operator whose attribute has a value, that value is changed."""

    def change(model: ModelProto) -> None:
        for node in model.graph.node:
            for each in node.attribute:
                if (node.op_type, each.name, list(each.ints)) == (operator, name, before):
                    each.ints[:] = now
                    return
        raise AssertionError(f"no {operator} whose {name} are {before}")

    return change


def _constant(model: ModelProto, value: Array) -> str:
    name = f"mutated {len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _chain(
    model: ModelProto, start: str, nodes: tuple[tuple[str, *tuple[Array, ...]], ...]
) -> tuple[list[NodeProto], str]:
    made, last = [], start
    for number, (operator, *others) in enumerate(nodes):
        inputs = [last, *(_constant(model, each) for each in others)]
        last = f"{start} {number}"
        made.append(onnx.helper.make_node(operator, inputs, [last]))
    return made, last


def _put_first(model: ModelProto, nodes: list[NodeProto]) -> None:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _rename(model: ModelProto, before: str, now: str) -> None:
    for node in model.graph.node:
        node.input[:] = [now if each == before else each for each in node.input]
        node.output[:] = [now if each == before else each for each in node.output]


def _set(tensor: TensorProto, make: Callable[[Array], Array]) -> None:
    before = numpy_helper.to_array(tensor)
    now = make(before.copy()).astype(before.dtype)
    assert now.shape == before.shape
    assert not np.array_equal(now, before), tensor.name
    tensor.CopyFrom(numpy_helper.from_array(now, tensor.name))


def _constants_beside(model: ModelProto, operator: str, shape: tuple[int, ...]) -> Iterator[str]:
    """Constants of a shape that nodes of an operator read; -1 stands for any size."""
    constants = {each.name: tuple(each.dims) for each in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input if node.op_type == operator else ():
            dims = constants.get(name)
            if dims is not None and len(dims) == len(shape):
                pairs = zip(shape, dims, strict=True)
                if all(wanted in (-1, size) for wanted, size in pairs):
                    yield name


def beside(operator: str, *shape: int, number: int = 0) -> Callable[[ModelProto], str]:
    """The first constant of a shape that a node of an operator reads, or a later one."""

    def find(model: ModelProto) -> str:
        found = list(dict.fromkeys(_constants_beside(model, operator, shape)))
        assert len(found) > number, f"no {operator} reads constants of shape {shape}"
        return found[number]

    return find


def scalar(operator: str, value: float) -> Callable[[ModelProto], str]:
    """The one constant of a value that nodes of an operator read."""

    def find(model: ModelProto) -> str:
        values = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
        found = {
            name
            for name in _constants_beside(model, operator, ())
            if values[name] == np.float32(value)
        }
        assert len(found) == 1, f"{operator} reads {value} {len(found)} times"
        return found.pop()

    return find


def times(factor: float) -> Callable[[Array], Array]:
    return lambda values: values * factor


def nothing(values: Array) -> Array:
    return np.zeros_like(values)


def without_first(values: Array) -> Array:
    values[0] = 0
    return values


def exchanged(one: int, other: int) -> Callable[[Array], Array]:
    def make(values: Array) -> Array:
        values[[one, other]] = values[[other, one]]
        return values

    return make


ZERO, ONE = np.float32(0), np.float32(1)
NEVER, ALWAYS = ("Mul", ZERO), ("Add", ONE)
ALL = np.array([np.iinfo(np.int64).max])
BACKWARDS = ("Slice", np.array([-1]), -ALL, np.array([0]), np.array([-1]))
UPSIDE_DOWN = ("Slice", np.array([-1]), -ALL, np.array([2]), np.array([-1]))

READER, WRITER, DECODER, GIVEN = (
    *("memory_attention", "memory_encoder", "tracking_decoder", "mask_prompt"),
)

MUTATIONS = [
    Mutation("the age of pointers is ignored", READER, read_as("pointer_times", NEVER)),
    Mutation("the ages of pointers are reversed", READER, read_as("pointer_times", BACKWARDS)),
    Mutation("pointers are ignored", READER, read_as("pointers", NEVER)),
    Mutation(
        "memories have the time of the previous one",
        READER,
        read_as("memory_times", ("Add", np.int32(3)), ("Mod", np.int32(4))),
    ),
    Mutation("the times of memories are reversed", READER, read_as("memory_times", BACKWARDS)),
    Mutation("memories have no time", READER, folded(beside("Gather", -1, -1), nothing)),
    Mutation("features have no place across", READER, folded(beside("Add", 1, -1, -1), nothing)),
    Mutation("features have no place down", READER, folded(beside("Add", 1, -1, 1, -1), nothing)),
    Mutation("a norm is 1 % larger", READER, weight("layers.0.layer.norm1.weight", times(1.01))),
    Mutation("the last norm is 1 % larger", READER, weight("norm.weight", times(1.01))),
    Mutation(
        "a rotation goes down where it goes across",
        READER,
        folded(beside("Mul", 1, -1, -1), lambda values: values[:, ::-1]),
    ),
    Mutation("image features are ignored", READER, read_as("image_embed", NEVER)),
    Mutation("`multimask` is ignored", DECODER, read_as("multimask", NEVER)),
    Mutation("`multimask` is always 1", DECODER, read_as("multimask", NEVER, ALWAYS)),
    Mutation("`has_mask_input` is ignored", DECODER, read_as("has_mask_input", NEVER)),
    Mutation("`has_mask_input` is always 1", DECODER, read_as("has_mask_input", NEVER, ALWAYS)),
    Mutation("a mask to refine is upside down", DECODER, read_as("mask_input", UPSIDE_DOWN)),
    Mutation(
        "the object's score has the wrong sign", DECODER, given_as("object_score_logits", ("Neg",))
    ),
    Mutation(
        "the score of an absent object is NaN",
        DECODER,
        not_a_number_where_absent("object_score_logits"),
    ),
    Mutation(
        "the logits of an absent object are NaN",
        DECODER,
        not_a_number_where_absent("low_res_masks"),
    ),
    Mutation(
        "the pointer of an absent object is NaN",
        DECODER,
        not_a_number_where_absent("object_pointer"),
    ),
    Mutation(
        "the IoU of an absent object is NaN", DECODER, not_a_number_where_absent("iou_predictions")
    ),
    Mutation(
        "the pointer of an absent object is zero",
        DECODER,
        folded(beside("Mul", 1, -1), nothing),
    ),
    Mutation(
        "the logits of an absent object are -10",
        DECODER,
        folded(scalar("Where", -1024), lambda values: values + 1014),
    ),
    Mutation(
        "an attention head is zero", DECODER, folded(beside("MatMul", 8, -1, -1), without_first)
    ),
    Mutation(
        "points are half a pixel off", DECODER, read_as("point_coords", ("Add", np.float32(0.5)))
    ),
    Mutation(
        "foreground and background clicks are swapped",
        DECODER,
        folded(beside("MatMul", 5, -1), exchanged(1, 2)),
    ),
    Mutation(
        "the corners of a box are swapped",
        DECODER,
        folded(beside("MatMul", 5, -1), exchanged(3, 4)),
    ),
    Mutation("padding points are zero", DECODER, folded(beside("MatMul", 5, -1), without_first)),
    Mutation(
        "the worst of three masks is returned",
        DECODER,
        folded(beside("MatMul", 3, 3), times(-1)),
    ),
    Mutation("a single mask is always stable", DECODER, folded(scalar("Mul", 0.98), times(0))),
    Mutation(
        "logits are 1 % larger", DECODER, given_as("low_res_masks", ("Mul", np.float32(1.01)))
    ),
    Mutation(
        "predicted IoUs are 1 % smaller",
        DECODER,
        given_as("iou_predictions", ("Mul", np.float32(0.99))),
    ),
    Mutation(
        "pointers are 1 % larger", DECODER, given_as("object_pointer", ("Mul", np.float32(1.01)))
    ),
    Mutation("`prompted` is ignored", WRITER, read_as("prompted", NEVER)),
    Mutation("`prompted` is always 1", WRITER, read_as("prompted", NEVER, ALWAYS)),
    Mutation(
        "an absent object's memory is not marked",
        WRITER,
        read_as("object_score_logits", NEVER, ALWAYS),
    ),
    Mutation("every memory is marked absent", WRITER, read_as("object_score_logits", NEVER)),
    Mutation(
        "an absent object's mark is zero", WRITER, folded(beside("Mul", 1, -1, 1, 1), nothing)
    ),
    Mutation("a mask counts for 5 % more", WRITER, folded(scalar("Mul", 20), times(1.05))),
    Mutation("a mask's bias is 5 % smaller", WRITER, folded(scalar("Add", -10), times(0.95))),
    Mutation(
        "memories are made from features with memory",
        WRITER,
        folded(beside("Sub", 1, -1, 1, 1), nothing),
    ),
    Mutation("masks are remembered upside down", WRITER, read_as("low_res_masks", UPSIDE_DOWN)),
    Mutation(
        "a stride begins a pixel later", WRITER, attribute("Conv", "pads", [1] * 4, [0, 0, 2, 2])
    ),
    Mutation("the mask's logits have the wrong sign", GIVEN, given_as("low_res_masks", ("Neg",))),
    Mutation("the mask input has the wrong sign", GIVEN, given_as("mask_input", ("Neg",))),
    Mutation(
        "a mask is scaled a pixel off", GIVEN, attribute("Conv", "pads", [2] * 4, [1, 1, 3, 3])
    ),
    Mutation(
        "features with memory replace those without",
        GIVEN,
        returned("image_embed_without_memory", "image_embed"),
    ),
    Mutation("a given object counts as absent", GIVEN, given_as("object_score_logits", ("Neg",))),
]

CONSTANTS = [
    OtherConstants(changes)
    for changes in (
        {"memories": 3},
        {"memory_stride": 1},
        {"memory_stride": 3},
        {"max_pointers": 15},
        {"max_pointers": 17},
        {"max_conditioning_frames": 1},
        {"pointers_from_past_only": False},
        {"multimask_points": None},
        {"multimask_points": (0, 0)},
        {"multimask_points": (1, 1)},
        {"multimask_points": (0, 2)},
        {"multimask_when_tracking": False},
        {"corrections_condition": True},
    )
]
