"""Makes a graph compute in half precision, for WebGPU with the feature ``shader-f16``.

Inputs and outputs stay float32. Measured on onnxruntime's native WebGPU provider 0.4.0, with an
adapter that has the feature (lavapipe of Mesa 25.0.7; docs/variants.md has the figures): MatMul,
Gemm, Conv and ReduceMean add up in half precision, so a sum of 8192 ones is 2048 or infinite.
Softmax and LayerNormalization add up in single precision, and need no special treatment.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# A longer sum of products is split, and its parts are added in single precision. Half precision has
# 11 bits: after some thousand terms of one sign, the next term is too small to change the sum.
# Without the split, the attention of tiny to 4096 places loses 0.9 %.
LONGEST_SUM = 512
# A node whose tensors have fewer values stays in single precision: these are prompts, tokens and
# scores, which take little memory, and on which masks depend most.
MANY_VALUES = 1 << 14
# These overflow in half precision, beyond 65504: sums over a whole map, and squares.
SINGLE = frozenset({"ReduceMean", "ReduceSum", "Pow"})
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})

LARGEST = float(np.finfo(np.float16).max)


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in half precision; only storing weights in it does not count."""
    casts = (node for node in model.graph.node if node.op_type == "Cast")
    return any(each.i == TensorProto.FLOAT16 for node in casts for each in node.attribute)


def compute_in_half(model: onnx.ModelProto) -> None:
    """Make a graph compute in half precision where that preserves its masks."""
    _Conversion(model).write(model.graph)


def float_places(node: onnx.NodeProto, opset: int) -> tuple[list[bool], list[bool]]:
    """Which inputs and outputs of a node can be in half precision, all of them together."""
    if node.domain or node.op_type == "Cast":
        return [False] * len(node.input), [False] * len(node.output)
    schema = onnx.defs.get_schema(node.op_type, opset)
    halves = {
        each.type_param_str
        for each in schema.type_constraints
        if {"tensor(float)", "tensor(float16)"} <= set(each.allowed_type_strs)
    }

    def places(formal: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> list[bool]:
        # The last formal parameter stands for all further ones.
        return [formal[min(at, len(formal) - 1)].type_str in halves for at in range(count)]

    return places(schema.inputs, len(node.input)), places(schema.outputs, len(node.output))


def axes_of_sum(node: onnx.NodeProto, ranks: Sequence[int]) -> tuple[int, int]:
    """The axis of each factor over which a MatMul, Gemm or Conv sums."""
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "MatMul":
        return ranks[0] - 1, max(ranks[1] - 2, 0)
    if node.op_type == "Gemm":
        return int(not options.get("transA")), int(bool(options.get("transB")))
    return 1, 1


class _Conversion:
    """Collects the nodes of the new graph; a tensor is cast once for all its readers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self._opset = next(each.version for each in model.opset_import if not each.domain)
        self._constants = {each.name: each for each in inferred.initializer}
        # 0 means that the caller chooses the size.
        self._shapes: dict[str, list[int]] = {
            name: list(each.dims) for name, each in self._constants.items()
        }
        self._types = {name: each.data_type for name, each in self._constants.items()}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            tensor = value.type.tensor_type
            self._shapes[value.name] = [size.dim_value for size in tensor.shape.dim]
            self._types[value.name] = tensor.elem_type
        self._single = {name for name, kind in self._types.items() if kind == TensorProto.FLOAT}
        self._outputs = {each.name for each in inferred.output}
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, onnx.TensorProto] = {}
        self._cast: dict[tuple[str, int], str] = {}

    def write(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            places = float_places(node, self._opset)
            if self._is_half(node, *places):
                self._add_half(node, *places)
            else:
                self._add(node, node.output, [self._as(name, False) for name in node.input])
        read = {name for node in self._nodes for name in node.input}
        kept = [each for name, each in {**self._constants, **self._made}.items() if name in read]
        for field, values in ((graph.node, self._nodes), (graph.initializer, kept)):
            del field[:]
            field.extend(values)
        del graph.value_info[:]

    def _is_half(self, node: onnx.NodeProto, inputs: list[bool], outputs: list[bool]) -> bool:
        read, written = (
            [name for name, may_be in zip(names, places, strict=True) if may_be and name]
            for names, places in ((node.input, inputs), (node.output, outputs))
        )
        if not written or not set(written) <= self._single or node.op_type in SINGLE:
            return False
        if node.op_type in PRODUCTS:
            # A sum of unknown length may be too long; a small product can read cast factors.
            return bool(self._terms(node)) and max(map(self._size, written)) >= MANY_VALUES
        maps = [name for name in (*read, *written) if name not in self._constants]
        return max(map(self._size, maps)) >= MANY_VALUES

    def _size(self, name: str) -> int:
        return prod(size or 1 for size in self._shapes[name])

    def _terms(self, node: onnx.NodeProto) -> int:
        """The number of products in a sum; 0 if the caller chooses it."""
        shapes = [self._shapes[name] for name in node.input[:2]]
        return shapes[0][axes_of_sum(node, [len(each) for each in shapes])[0]]

    def _add_half(self, node: onnx.NodeProto, inputs: list[bool], outputs: list[bool]) -> None:
        read = [self._as(name, may_be) for name, may_be in zip(node.input, inputs, strict=True)]
        names = [f"{name}_half" if name in self._outputs else name for name in node.output]
        if node.op_type in ("MatMul", "Gemm") and self._terms(node) > LONGEST_SUM:
            self._add_parts(node, names[0], read)
        else:
            self._add(node, names, read)
        for name, new, may_be in zip(node.output, names, outputs, strict=True):
            if may_be and name in self._outputs:
                self._nodes.append(helper.make_node("Cast", [new], [name], to=TensorProto.FLOAT))
                self._cast[name, TensorProto.FLOAT16] = new
            elif may_be:
                self._single.discard(name)

    def _add_parts(self, node: onnx.NodeProto, output: str, read: list[str]) -> None:
        """Add a product in parts of `LONGEST_SUM` terms. Each part is sliced separately, because
        slicing all at once would copy the largest tensors.
        """
        ranks = [len(self._shapes[name]) for name in node.input[:2]]
        total = ""
        for number, start in enumerate(range(0, self._terms(node), LONGEST_SUM)):
            part = f"{output}_part_{number}"
            factors = [
                self._cut(name, axis, start, f"{part}_factor_{factor}")
                for factor, (name, axis) in enumerate(
                    zip(read[:2], axes_of_sum(node, ranks), strict=True)
                )
            ]
            self._add(node, [part], factors)
            self._nodes.append(
                helper.make_node("Cast", [part], [f"{part}_single"], to=TensorProto.FLOAT)
            )
            total = self._sum(total, f"{part}_single", f"{part}_total")
        for bias in node.input[2:]:
            total = self._sum(total, self._as(bias, False), f"{output}_with_bias")
        self._nodes.append(helper.make_node("Cast", [total], [output], to=TensorProto.FLOAT16))

    def _sum(self, total: str, term: str, name: str) -> str:
        if not total:
            return term
        self._nodes.append(helper.make_node("Add", [total, term], [name]))
        return name

    def _cut(self, name: str, axis: int, start: int, part: str) -> str:
        if name in self._made:
            values = numpy_helper.to_array(self._made[name])
            cut = values.take(range(start, min(start + LONGEST_SUM, values.shape[axis])), axis)
            return self._constant(part, np.ascontiguousarray(cut))
        bounds = [
            self._constant(f"cut_at_{value}", np.array([value], np.int64))
            for value in (start, start + LONGEST_SUM, axis)
        ]
        # onnxruntime 1.19 derives names from those of several slices, so they must be unique.
        self._nodes.append(helper.make_node("Slice", [name, *bounds], [part], name=part))
        return part

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self._made[name] = numpy_helper.from_array(values, name)
        return name

    def _add(self, node: onnx.NodeProto, output: Sequence[str], read: Sequence[str]) -> None:
        new = helper.make_node(
            node.op_type,
            read,
            output,
            name=node.name if output == node.output else "",
            domain=node.domain,
        )
        new.attribute.extend(node.attribute)
        self._nodes.append(new)

    def _as(self, name: str, half: bool) -> str:
        """The name of a tensor in half or single precision; other types are left unchanged."""
        if self._types.get(name) != TensorProto.FLOAT or (name in self._single) != half:
            return name
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        if (name, kind) not in self._cast:
            new = self._cast[name, kind] = f"{name}_{'half' if half else 'single'}"
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name])
                self._constant(new, np.clip(values, -LARGEST, LARGEST).astype(np.float16))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [new], to=kind))
        return self._cast[name, kind]
