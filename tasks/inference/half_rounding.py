"""Computes on the CPU how a graph in half precision answers on a GPU.

onnxruntime's CPU provider has hardly any kernels for half precision: it casts to single precision
and removes the casts between its nodes, so nothing is rounded. This module makes a graph in single
precision that rounds where a GPU does.
"""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.inference.half_precision import LARGEST, PRODUCTS, axes_of_sum

BITS_LESS = 13  # single precision has 24 bits, half precision 11


def as_rounded_on_a_gpu(model: onnx.ModelProto) -> None:
    """Make a graph in half precision compute in single precision, and round as half does.

    Each node's output is rounded. A sum of products is rounded once, but as coarsely as if each of
    its n terms had been rounded (the square root of n times). It is infinite if the magnitudes of
    its terms add up to more than half precision holds, so that the order in which a GPU adds them
    does not matter.
    """
    _Rounding(model).write(model.graph)


class _Rounding:
    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self._opset = next(each.version for each in model.opset_import if not each.domain)
        self._shapes: dict[str, list[int]] = {
            each.name: list(each.dims) for each in inferred.initializer
        }
        self._half = {
            each.name for each in inferred.initializer if each.data_type == TensorProto.FLOAT16
        }
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            tensor = value.type.tensor_type
            self._shapes[value.name] = [size.dim_value for size in tensor.shape.dim]
            if tensor.elem_type == TensorProto.FLOAT16:
                self._half.add(value.name)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[float, onnx.TensorProto] = {}

    def write(self, graph: onnx.GraphProto) -> None:
        stored = [each.name for each in graph.initializer if each.name in self._half]
        for name in stored:
            self._add("Cast", [name], _rounded(name), to=TensorProto.FLOAT)
        for node in graph.node:
            self._write_node(node)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())

    def _write_node(self, node: onnx.NodeProto) -> None:
        read = [_rounded(name) if name in self._half else name for name in node.input]
        new = onnx.NodeProto()
        new.CopyFrom(node)
        del new.input[:]
        new.input.extend(read)
        if not any(name in self._half for name in node.output):
            if node.op_type == "Cast" and node.input[0] in self._half:
                new = helper.make_node("Identity", read, node.output)
            self._nodes.append(new)
        elif node.op_type == "Cast":
            self._round(read[0], node.output[0])
        elif node.op_type in PRODUCTS:
            self._round(self._product(new, node), node.output[0])
        else:
            self._nodes.append(new)
            for at, name in enumerate(node.output):
                if name in self._half:
                    new.output[at] = f"{name}_exact"
                    self._round(f"{name}_exact", name)

    def _product(self, new: onnx.NodeProto, node: onnx.NodeProto) -> str:
        output = node.output[0]
        new.output[0] = f"{output}_products"
        magnitudes = [
            self._add("Abs", [each], f"{output}_magnitude_{at}")
            for at, each in enumerate(new.input)
        ]
        largest = onnx.NodeProto()
        largest.CopyFrom(new)
        del largest.input[:]
        largest.input.extend(magnitudes)
        largest.output[0] = f"{output}_magnitude"
        largest.name = ""  # onnxruntime requires unique names
        self._nodes.extend([new, largest])
        # Veltkamp's splitting: adding and subtracting a multiple rounds off the last bits.
        times = self._constant(2.0**BITS_LESS * sqrt(self._terms(node)) + 1)
        far = self._add("Mul", [new.output[0], times], f"{output}_far")
        near = self._add("Sub", [far, new.output[0]], f"{output}_near")
        coarse = self._add("Sub", [far, near], f"{output}_coarse")
        over = self._add("Greater", [largest.output[0], self._constant(LARGEST)], f"{output}_over")
        return self._add("Where", [over, self._constant(np.inf), coarse], f"{output}_sum")

    def _terms(self, node: onnx.NodeProto) -> int:
        """The number of products that add up to one value."""
        shape = self._shapes[node.input[1]]
        if node.op_type == "Conv":
            return prod(shape[1:])
        ranks = [len(self._shapes[name]) for name in node.input[:2]]
        return shape[axes_of_sum(node, ranks)[1]]

    def _round(self, name: str, half: str) -> None:
        """Round a tensor for the readers of the one in half precision."""
        stored = self._add("Cast", [name], half, to=TensorProto.FLOAT16)
        self._add("Cast", [stored], _rounded(half), to=TensorProto.FLOAT)

    def _add(self, operator: str, read: list[str], output: str, **options: int) -> str:
        self._nodes.append(helper.make_node(operator, read, [output], **options))
        return output

    def _constant(self, value: float) -> str:
        name = f"rounding_{value}"
        self._constants[value] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name


def _rounded(name: str) -> str:
    return f"{name}_rounded"
