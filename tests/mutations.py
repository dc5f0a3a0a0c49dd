"""Small changes that make an encoder or a decoder wrong: a proof must catch each.

A change edits a graph in place and fails if it would change nothing, so that no mutation is a
correct graph. Tensors are named by their roles, as in the files of samexporter and NimbusImage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Values = NDArray[Any]
# Edits a graph; the weights of the PyTorch model identify its constants.
Change = Callable[[ModelProto, dict[str, Values]], None]


@dataclass(frozen=True)
class Mutation:
    """A wrong graph: its fault, and the change that causes it."""

    name: str
    graph: str
    change: Change


# --- how graphs are edited ----------------------------------------------------------------------


def constant(model: ModelProto, values: Any, dtype: Any = np.float32) -> str:
    """The name of a new constant."""
    name = f"mutated_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


def input_through(operator: str, name: str, *constants: Any, **attributes: Any) -> Change:
    """An input passes through an operator before anything reads it.

    :param constants: the operator's further inputs; integers are axes and places.
    """

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        graph = model.graph
        assert name in {each.name for each in graph.input}
        further = [_as_input(model, each) for each in constants]
        _reroute(model, name, f"{name}_through_{len(graph.node)}")
        through = f"{name}_through_{len(graph.node)}"
        graph.node.insert(0, helper.make_node(operator, [name, *further], [through], **attributes))

    return change


def _reroute(model: ModelProto, name: str, instead: str) -> None:
    """Make all readers of a tensor read another one."""
    readers = [node for node in model.graph.node if name in node.input]
    assert readers
    for node in readers:
        node.input[:] = [instead if each == name else each for each in node.input]


def output_through(operator: str, name: str, *constants: Any, **attributes: Any) -> Change:
    """An output passes through an operator after everything."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        graph = model.graph
        right = _before_output(model, name)
        further = [_as_input(model, each) for each in constants]
        graph.node.append(helper.make_node(operator, [right, *further], [name], **attributes))

    return change


def _before_output(model: ModelProto, name: str) -> str:
    """Rename an output where it is computed, so that a further node can compute the output."""
    assert name in {each.name for each in model.graph.output}
    right = f"{name}_before_{len(model.graph.node)}"
    for node in model.graph.node:
        node.output[:] = [right if each == name else each for each in node.output]
        node.input[:] = [right if each == name else each for each in node.input]
    return right


def _as_input(model: ModelProto, value: Any) -> str:
    if value is None:
        return ""
    is_place = np.issubdtype(np.array(value).dtype, np.integer)
    return constant(model, value, np.int64 if is_place else np.float32)


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        for each in changes:
            each(model, weights)

    return change


def weight(like: Callable[[dict[str, Values]], Values], edit: Callable[[Values], None]) -> Change:
    """A constant of a graph is edited in place.

    :param like: the values of the constant, in one of the layouts that the export may store.
    :param edit: changes an array in the layout of ``like``.
    """

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        expected = like(weights)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            for turn in (lambda each: each, lambda each: each.T):
                if values.size != expected.size or turn(values).size == 0:
                    continue
                stored = turn(values).reshape(expected.shape) if values.size else values
                if np.allclose(stored, expected, rtol=1e-5, atol=1e-7):
                    edited = np.array(stored)
                    edit(edited)
                    assert not np.array_equal(edited, stored)
                    edited = np.ascontiguousarray(turn(edited.reshape(turn(values).shape)))
                    tensor.CopyFrom(numpy_helper.from_array(edited, tensor.name))
                    return
        raise AssertionError("no constant of the graph has these values")

    return change


def node_where(
    fits: Callable[[NodeProto], bool], edit: Callable[[ModelProto, NodeProto], None]
) -> Change:
    """The first node that fits is edited."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        node = next(each for each in model.graph.node if fits(each))
        before = node.SerializeToString(), len(model.graph.node)
        edit(model, node)
        assert before != (node.SerializeToString(), len(model.graph.node))

    return change


def output_of_node(
    fits: Callable[[NodeProto], bool], operator: str, *constants: Any, **attributes: Any
) -> Change:
    """The output of the first node that fits passes through an operator."""

    def edit(model: ModelProto, node: NodeProto) -> None:
        name = node.output[0]
        node.output[0] = f"{name}_right"
        further = [_as_input(model, each) for each in constants]
        place = list(model.graph.node).index(node) + 1
        model.graph.node.insert(
            place, helper.make_node(operator, [node.output[0], *further], [name], **attributes)
        )

    return node_where(fits, edit)


def with_axis(axis: int) -> Callable[[ModelProto, NodeProto], None]:
    def edit(model: ModelProto, node: NodeProto) -> None:
        (attribute,) = [each for each in node.attribute if each.name == "axis"]
        attribute.i = axis

    return edit


def with_operator(operator: str) -> Callable[[ModelProto, NodeProto], None]:
    def edit(model: ModelProto, node: NodeProto) -> None:
        node.op_type = operator
        del node.attribute[:]

    return edit


def is_operator(operator: str) -> Callable[[NodeProto], bool]:
    return lambda node: node.op_type == operator


def scaled_constant(
    operator: str,
    index: int,
    factor: float,
    reads: Callable[[Values], bool] = lambda values: True,
    first: bool = False,
) -> Change:
    """A constant that the first fitting node of an operator reads is scaled.

    :param first: scale only the first part along the first axis.
    """

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        constants = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            tensor = constants.get(node.input[index]) if len(node.input) > index else None
            if node.op_type != operator or tensor is None:
                continue
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and reads(values):
                scaled = values.copy()
                scaled[: 1 if first else None] *= np.float32(factor)
                assert not np.array_equal(scaled, values)
                tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
                return
        raise AssertionError(f"no {operator} reads such a constant")

    return change


def reordered(kind: str, order: Callable[[list[Any]], list[Any]]) -> Change:
    """The inputs or the outputs of a graph come in another order."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        values = getattr(model.graph, kind)
        turned = [type(each).FromString(each.SerializeToString()) for each in order(list(values))]
        assert [each.name for each in turned] != [each.name for each in values]
        del values[:]
        values.extend(turned)

    return change


def declared(name: str, axis: int, size: int) -> Change:
    """An input is declared with another size than the contract has."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        (value,) = [each for each in model.graph.input if each.name == name]
        dim = value.type.tensor_type.shape.dim[axis]
        assert dim.dim_value != size
        dim.dim_value = size

    return change


def of_masks(count: int) -> Change:
    """The outputs are declared with this many masks for a prompt."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        for value in model.graph.output:
            value.type.tensor_type.shape.dim[1].dim_value = count

    return change


def third_mask_scaled(model: ModelProto, weights: dict[str, Values]) -> None:
    """The last of three masks has three times its logits."""
    output_through("Mul", "masks", np.array([1, 1, 3], np.float32).reshape(1, 3, 1, 1))(
        model, weights
    )


def with_dtype(name: str, dtype: int) -> Change:
    """An input is declared with another type, and cast to the right one."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        input_through("Cast", name, to=TensorProto.FLOAT)(model, weights)
        (value,) = [each for each in model.graph.input if each.name == name]
        value.type.tensor_type.elem_type = dtype

    return change


def not_a_number_where_negative(name: str) -> Change:
    """An output is NaN wherever it is below zero."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        right = _before_output(model, name)
        zero, nan, negative = constant(model, 0.0), constant(model, np.nan), f"{right}_negative"
        model.graph.node.append(helper.make_node("Less", [right, zero], [negative]))
        model.graph.node.append(helper.make_node("Where", [negative, nan, right], [name]))

    return change


def labels_replaced(old: float, new: float) -> Change:
    """A label counts as another one."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        name = "point_labels"
        _reroute(model, name, "replaced_labels")
        names = constant(model, old), constant(model, new)
        model.graph.node.insert(0, helper.make_node("Equal", [name, names[0]], ["is_old"]))
        model.graph.node.insert(
            1, helper.make_node("Where", ["is_old", names[1], name], ["replaced_labels"])
        )

    return change


def shifted(name: str, axis: int, through: Callable[..., Change]) -> Change:
    """A map moves by one place along an axis: the last is cut off, a zero comes first."""
    pads = [0] * 8
    pads[axis] = 1
    return both(through("Slice", name, [0], [-1], [axis]), through("Pad", name, pads))


def in_place(index: Any, value: Any) -> Callable[[Values], None]:
    def edit(values: Values) -> None:
        values[index] = value

    return edit


def exchanged(one: int, other: int) -> Callable[[Values], None]:
    """Two rows are swapped."""

    def edit(values: Values) -> None:
        values[[one, other]] = values[[other, one]]

    return edit


def without_constant(name: str, like: Callable[[dict[str, Values]], Values]) -> Change:
    """A constant per channel is subtracted from an output."""

    def change(model: ModelProto, weights: dict[str, Values]) -> None:
        values = like(weights).reshape(1, -1, 1, 1)
        assert values.any()
        output_through("Sub", name, values)(model, weights)

    return change


def times(factor: float) -> Callable[[Values], None]:
    def edit(values: Values) -> None:
        values *= factor

    return edit


# --- the constants of a decoder -----------------------------------------------------------------

DECODER, ENCODER = "sam_mask_decoder", "sam_prompt_encoder"


def label_table(weights: dict[str, Values]) -> Values:
    """The embeddings of labels 0 to 3, (4, C)."""
    return np.concatenate([weights[f"{ENCODER}.point_embeddings.{i}.weight"] for i in range(4)])


def constant_tokens(weights: dict[str, Values]) -> Values:
    """The tokens before those of a prompt: the score's, four masks', the padding point (6, C)."""
    return np.concatenate(
        [
            weights[f"{DECODER}.iou_token.weight"],
            weights[f"{DECODER}.mask_tokens.weight"],
            weights[f"{ENCODER}.not_a_point_embed.weight"],
        ]
    )


def named(name: str) -> Callable[[dict[str, Values]], Values]:
    return lambda weights: weights[name]


def is_of_heads(values: Values) -> bool:
    """A constant with a matrix for each of the eight heads of an attention."""
    return values.ndim == 3 and values.shape[0] == 8 and 1 not in values.shape


def is_image_wide(values: Values) -> bool:
    """A constant for each place of the image embedding: its positions."""
    return values.ndim == 3 and values.shape[0] == 1 and values.shape[1] >= 64


SIDE = 256.0  # of the images that the mutated graphs take

ON_DECODERS: Sequence[tuple[str, Change]] = (
    # Points and labels.
    (
        "points after the fourth are dropped",
        both(
            input_through("Slice", "point_coords", [0], [4], [1]),
            input_through("Slice", "point_labels", [0], [4], [1]),
        ),
    ),
    ("a padding point counts as background", labels_replaced(-1, 0)),
    ("a padding point counts as foreground", labels_replaced(-1, 1)),
    ("a background point is ignored", labels_replaced(0, -1)),
    ("a foreground point has an unknown label", labels_replaced(1, 9)),
    ("foreground and background are swapped", weight(label_table, exchanged(0, 1))),
    ("the corners of a box are swapped", weight(label_table, exchanged(2, 3))),
    ("a box's second corner has a zero embedding", weight(label_table, in_place(3, 0))),
    ("coordinates are clamped to the image", input_through("Clip", "point_coords", 0.0, SIDE)),
    ("coordinates are mirrored at zero", input_through("Abs", "point_coords")),
    ("coordinates are off by half a pixel", input_through("Add", "point_coords", 0.5)),
    ("coordinates are off by a twentieth of a pixel", input_through("Add", "point_coords", 0.05)),
    ("coordinates are scaled by 1.001", input_through("Mul", "point_coords", 1.001)),
    ("x and y are swapped", input_through("Gather", "point_coords", [1, 0], axis=2)),
    ("coordinates are rounded down to whole pixels", input_through("Floor", "point_coords")),
    ("points far outside are moved nearer", input_through("Clip", "point_coords", -SIDE, 2 * SIDE)),
    # The mask input.
    ("a mask always counts", input_through("Add", "has_mask_input", 1.0)),
    ("a mask never counts", input_through("Mul", "has_mask_input", 0.0)),
    ("a mask counts half", input_through("Mul", "has_mask_input", 0.5)),
    ("a mask input has the wrong sign", input_through("Neg", "mask_input")),
    ("a mask input is clipped at zero", input_through("Clip", "mask_input", 0.0)),
    ("a mask input is transposed", input_through("Transpose", "mask_input", perm=[0, 1, 3, 2])),
    ("a mask input is off by a cell", shifted("mask_input", 3, input_through)),
    (
        "the embedding for no mask is zero",
        weight(named(f"{ENCODER}.no_mask_embed.weight"), in_place(slice(None), 0)),
    ),
    (
        "the mask input's first convolution is off",
        weight(named(f"{ENCODER}.mask_downscaling.0.weight"), times(1.05)),
    ),
    # Tokens.
    (
        "the padding point stays where a mask is the only prompt",
        output_of_node(is_operator("ReduceMax"), "Mul", 0.0),
    ),
    ("the padding point is dropped", weight(constant_tokens, in_place(5, 0))),
    ("two mask tokens are swapped", weight(constant_tokens, exchanged(2, 3))),
    ("the score's token is off", weight(constant_tokens, in_place(0, 0.1))),
    # Attention and what follows.
    ("one of eight heads is zero", scaled_constant("MatMul", 1, 0.0, is_of_heads, first=True)),
    ("a softmax sums over another axis", node_where(is_operator("Softmax"), with_axis(1))),
    ("a normalization's scale is off", scaled_constant("LayerNormalization", 1, 1.01)),
    ("the positions of the image are dropped", scaled_constant("Add", 1, 0.0, is_image_wide)),
    ("an activation is left out", node_where(is_operator("Gelu"), with_operator("Identity"))),
    # The outputs.
    ("the masks have the wrong sign", output_through("Neg", "masks")),
    ("masks are scaled by 1.001", output_through("Mul", "masks", 1.001)),
    ("masks are off by 0.01", output_through("Add", "masks", 0.01)),
    ("masks are transposed", output_through("Transpose", "masks", perm=[0, 1, 3, 2])),
    ("masks are off by a cell", shifted("masks", 3, output_through)),
    ("masks are rounded", output_through("Round", "masks")),
    ("masks are NaN where they are negative", not_a_number_where_negative("masks")),
    (
        "masks are swapped, and their scores are not",
        output_through("Gather", "masks", [1, 0, 2], axis=1),
    ),
    (
        "scores are swapped, and their masks are not",
        output_through("Gather", "iou_predictions", [1, 0, 2], axis=1),
    ),
    (
        "the second best mask comes first",
        both(
            output_through("Gather", "masks", [1, 0, 2], axis=1),
            output_through("Gather", "iou_predictions", [1, 0, 2], axis=1),
        ),
    ),
    ("scores are NaN", output_through("Mul", "iou_predictions", np.nan)),
    ("scores are negative", output_through("Neg", "iou_predictions")),
    ("scores are off by a thousandth", output_through("Add", "iou_predictions", 0.001)),
    ("one mask is missing", output_through("Slice", "masks", [0], [2], [1])),
    # The contract.
    ("the outputs are swapped", reordered("output", lambda each: each[::-1])),
    ("the inputs are reversed", reordered("input", lambda each: each[::-1])),
    ("only one point is accepted", declared("point_coords", 1, 1)),
    ("labels are integers", with_dtype("point_labels", TensorProto.INT64)),
)

ON_ENCODERS: Sequence[tuple[str, Change]] = (
    ("red and blue are swapped", input_through("Gather", "image", [2, 1, 0], axis=1)),
    ("the image is transposed", input_through("Transpose", "image", perm=[0, 1, 3, 2])),
    ("the image is off by a pixel", shifted("image", 3, input_through)),
    ("the image is a little brighter", input_through("Add", "image", 0.01)),
    ("the image has less contrast", input_through("Mul", "image", 0.99)),
    ("the image is clipped", input_through("Clip", "image", -1.0, 1.0)),
    ("a normalization's scale is off", scaled_constant("LayerNormalization", 1, 1.01)),
    ("a convolution's weights are off", scaled_constant("Conv", 1, 1.01)),
    (
        "the embedding of an image without memory is dropped",
        without_constant("image_embed", named("no_mem_embed")),
    ),
    ("the embedding is scaled by 1.001", output_through("Mul", "image_embed", 1.001)),
    ("the embedding is transposed", output_through("Transpose", "image_embed", perm=[0, 1, 3, 2])),
    ("features are off by a cell", shifted("high_res_feats_0", 2, output_through)),
    ("features are NaN where negative", not_a_number_where_negative("high_res_feats_1")),
    ("an activation is left out", node_where(is_operator("Gelu"), with_operator("Identity"))),
    ("a softmax sums over another axis", node_where(is_operator("Softmax"), with_axis(1))),
    ("the outputs are in another order", reordered("output", lambda each: each[::-1])),
)

# For decoders of many prompts in a run.
ON_DECODERS_OF_MANY: Sequence[tuple[str, Change]] = (
    ("all prompts refine the first mask", input_through("Slice", "mask_input", [0], [1], [0])),
    ("a padding point is seen where another prompt has points", lambda *model: seen_by_all(*model)),
)


def seen_by_all(model: ModelProto, weights: dict[str, Values]) -> None:
    """Whether one prompt of a run has points decides for all of them."""
    graph = model.graph
    (node,) = [each for each in graph.node if each.op_type == "ReduceMax"]
    name = node.output[0]
    node.output[0] = own = f"{name}_own"
    zero, axis = constant(model, 0.0), constant(model, [0], np.int64)
    place = list(graph.node).index(node) + 1
    for operator, inputs, output in (
        ("ReduceMax", [own, axis], f"{name}_any"),
        ("Mul", [own, zero], f"{name}_zeros"),
        ("Add", [f"{name}_any", f"{name}_zeros"], name),
    ):
        graph.node.insert(place, helper.make_node(operator, inputs, [output]))
        place += 1


OF_MANY = [Mutation(name, "decoder", change) for name, change in ON_DECODERS_OF_MANY]
MUTATIONS = [
    *(Mutation(name, "decoder", change) for name, change in ON_DECODERS),
    *(Mutation(name, "encoder", change) for name, change in ON_ENCODERS),
]
