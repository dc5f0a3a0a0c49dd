"""Converts a graph to each precision: smaller weights, and the nodes that compute with them.

Inputs and outputs stay float32. docs/variants.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.clients.contract import Precision
from tasks.inference.half_precision import compute_in_half

Floats = NDArray[np.float32]

# Smaller tensors are not converted: a Cast would cost as much as it saves.
LEAST_VALUES = 256
# Matrices with fewer rows or columns are not quantized: they hardly matter for a file's size, and
# are the last layers of hypernetworks and scores.
LEAST_SIDE = 24
GRID_VALUES = 1 << 16  # an added constant with at least this many values is a map, not a bias
BLOCK = 32  # the number of weights of a column that share a scale
MANY_WEIGHTS = 1 << 16  # larger matrices have four bits in q4, others eight
LEAST_SCALE = 1e-12  # the scale of weights that are all 0


class Product(NamedTuple):
    """A product with a constant matrix: its weights (K, N), and the names of weights and bias."""

    node: onnx.NodeProto
    weights: Floats
    name: str
    bias: str | None


def product_of(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Product | None:
    """A node as a quantizable product; None for other nodes."""
    if node.op_type not in ("Gemm", "MatMul") or node.input[0] in constants:
        return None
    _, name, *bias = node.input
    if name not in constants or len(constants[name].dims) != 2:
        return None
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if options.get("transA") or options.get("alpha", 1) != 1 or options.get("beta", 1) != 1:
        return None
    weights = numpy_helper.to_array(constants[name])
    if options.get("transB"):
        weights = weights.T
    if min(weights.shape) < LEAST_SIDE:
        return None
    return Product(node, weights, name, bias[0] if bias else None)


# The nodes that replace a product, without its bias, and their constants.
Replacement = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Replace a graph's nodes."""
    del graph.node[:]
    graph.node.extend(nodes)


def store_in_eight_bits(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, largest: NDArray[Any]
) -> list[str]:
    """Replace a constant by integers and scales; return the names of both.

    :param largest: the largest magnitude of the values that share a scale.
    """
    name, values = tensor.name, numpy_helper.to_array(tensor)
    scales = np.maximum(largest / 127, LEAST_SCALE).astype(np.float32)
    integers = np.rint(values / scales).astype(np.int8)
    tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}_integers"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
    return [f"{name}_integers", f"{name}_scales"]


def replace_products(
    model: onnx.ModelProto, replacement: Callable[[Product, str], Replacement]
) -> None:
    """Replace every product by other nodes, followed by its bias.

    :param replacement: makes the nodes for a product, given the name of their output.
    """
    graph = model.graph
    constants = {each.name: each for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    made: dict[str, onnx.TensorProto] = {}
    computed: set[str] = set()
    for node in graph.node:
        product = product_of(node, constants)
        if product is None:
            nodes.append(node)
            continue
        output = node.output[0]
        before_bias = f"{output}_product" if product.bias else output
        computing, tensors = replacement(product, before_bias)
        made.update((tensor.name, tensor) for tensor in tensors)
        # Nodes that several products share, such as their quantized input, are added once.
        nodes += [each for each in computing if each.output[0] not in computed]
        computed.update(each.output[0] for each in computing)
        if product.bias:
            nodes.append(helper.make_node("Add", [before_bias, product.bias], [output]))
    set_nodes(graph, nodes)
    read = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *made.values()])


def quantize_position_maps(model: onnx.ModelProto) -> None:
    """Store constant maps that are added, such as positions, in eight bits; a scale per channel."""
    graph = model.graph
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.name not in added or np.prod(tensor.dims) < GRID_VALUES:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        inputs = store_in_eight_bits(graph, tensor, largest)
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=values.ndim - 1))
    set_nodes(graph, [*nodes, *graph.node])


def quantize_pointwise_convolutions(model: onnx.ModelProto) -> None:
    """Store the weights of 1 × 1 convolutions in eight bits, a scale for each output channel.

    They are products too, and most of a convolutional trunk. They compute in single precision: at
    its creation, a session folds the Cast and Mul of constants, which leaves a convolution that
    every provider runs fast. (DequantizeLinear would stay, and run each time.) Depthwise
    convolutions are not quantized: they have few weights, and each of them matters.
    """
    graph = model.graph
    read = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    nodes = []
    for tensor in list(graph.initializer):
        is_matrix = tensor.name in read and list(tensor.dims[2:]) == [1, 1]
        if not is_matrix or min(tensor.dims[:2]) < LEAST_SIDE:
            continue
        name, cast = tensor.name, f"{tensor.name}_float"
        largest = np.abs(numpy_helper.to_array(tensor)).max(axis=1, keepdims=True)
        integers, scales = store_in_eight_bits(graph, tensor, largest)
        nodes.append(helper.make_node("Cast", [integers], [cast], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [cast, scales], [name]))
    set_nodes(graph, [*nodes, *graph.node])


def store_rest_in_half(model: onnx.ModelProto) -> None:
    """Store every remaining float32 constant in half precision, followed by a Cast.

    The computation stays in single precision, which every execution provider has; onnxruntime casts
    once, when it creates the session.
    """
    graph, limit = model.graph, np.finfo(np.float16).max
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_VALUES:
            continue
        name, half = tensor.name, f"{tensor.name}_half"
        values = np.clip(numpy_helper.to_array(tensor), -limit, limit).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    set_nodes(graph, [*casts, *graph.node])


def pair_scales(weights: Floats) -> Floats:
    """A scale for each column of (K, N) that prevents saturated products on every processor.

    Without VNNI an x86 processor adds the products of rows 2i and 2i + 1 in 16 bits, and
    onnxruntime lets that saturate. Values go up to 255, so two integers of one sign can add up to
    at most 128: a scale that makes their sum 127 leaves room for rounding both up.
    """
    rows, columns = weights.shape
    pairs = np.pad(weights, ((0, rows % 2), (0, 0))).reshape(-1, 2, columns)
    sums = [np.maximum(each, 0).sum(axis=1).max(axis=0) for each in (pairs, -pairs)]
    scales: Floats = np.maximum(np.maximum(*sums) / 127, LEAST_SCALE).astype(np.float32)
    return scales


def quantize_dynamic(
    product: Product, output: str, scales_of: Callable[[Floats], Floats] = pair_scales
) -> Replacement:
    """Integer products, with a scale for each column of weights and one for all values of a run.

    This is onnxruntime's dynamic quantization with symmetric weights, which need no zero point:
    WASM's kernels reject a zero point for some shapes.
    """
    values, name = product.node.input[0], product.name
    scales = scales_of(product.weights)
    integers = np.rint(product.weights / scales).astype(np.int8)
    quantized = [f"{values}_{part}" for part in ("integers", "scale", "zero")]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", [values], quantized),
        helper.make_node(
            "MatMulInteger", [quantized[0], f"{name}_integers", quantized[2]], [f"{output}_sums"]
        ),
        helper.make_node("Cast", [f"{output}_sums"], [f"{output}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [quantized[1], f"{name}_scales"], [f"{output}_scales"]),
        helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output]),
    ]
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(integers), f"{name}_integers"),
        numpy_helper.from_array(scales, f"{name}_scales"),
    ]
    return nodes, tensors


def quantize_blockwise(product: Product, output: str) -> Replacement:
    """``MatMulNBits``, with a scale for each `BLOCK` weights of a column; values stay float32.

    Large matrices get four bits and small ones eight, because masks depend most on small ones.
    """
    name = product.name
    bits = 4 if product.weights.size > MANY_WEIGHTS else 8
    rows, columns = product.weights.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((blocks * BLOCK, columns), np.float32)
    padded[:rows] = product.weights
    scales, integers = quantize_blocks(padded.T.reshape(columns, blocks, BLOCK), bits)
    if bits == 4:
        integers = integers[..., ::2] | np.left_shift(integers[..., 1::2], 4, dtype=np.uint8)
    node = helper.make_node(
        "MatMulNBits",
        [product.node.input[0], f"{name}_packed", f"{name}_scales"],
        [output],
        domain="com.microsoft",
        K=rows,
        N=columns,
        bits=bits,
        block_size=BLOCK,
    )
    tensors = [
        numpy_helper.from_array(integers, f"{name}_packed"),
        numpy_helper.from_array(scales.reshape(-1), f"{name}_scales"),
    ]
    return [node], tensors


def quantize_blocks(blocks: Floats, bits: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Scales (N, B) and unsigned integers, with the middle standing for 0, for blocks (N, B, K).

    It chooses the scale with the least squared error among several: a scale that rounds the largest
    weight slightly off often represents all the others better than one that fits it.
    """
    half = 1 << (bits - 1)
    at = np.abs(blocks).argmax(axis=-1, keepdims=True)
    largest = np.take_along_axis(blocks, at, axis=-1)
    best: list[NDArray[Any]] = []
    for shrink in np.linspace(0.7, 1.1, 17, dtype=np.float32) if bits == 4 else (1,):
        scales = largest * np.float32(shrink) / -half  # the largest becomes the least integer
        scales = np.where(scales == 0, np.float32(LEAST_SCALE), scales)
        integers = np.clip(np.rint(blocks / scales) + half, 0, 2 * half - 1)
        errors = (((integers - half) * scales - blocks) ** 2).sum(axis=-1, keepdims=True)
        new = [errors, scales, integers]
        better = errors < best[0] if best else np.ones_like(errors, bool)
        best = [np.where(better, *pair) for pair in zip(new, best or new, strict=True)]
    return best[1][..., 0].astype(np.float32), best[2].astype(np.uint8)


def q8(model: onnx.ModelProto) -> None:
    """Integer products, other weights in half precision."""
    replace_products(model, quantize_dynamic)
    quantize_pointwise_convolutions(model)
    quantize_position_maps(model)
    store_rest_in_half(model)


def q4(model: onnx.ModelProto) -> None:
    """Products with weights of four or eight bits, other weights in single precision."""
    replace_products(model, quantize_blockwise)
    quantize_pointwise_convolutions(model)
    if all(each.domain != "com.microsoft" for each in model.opset_import):  # fused attention has it
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def q4f16(model: onnx.ModelProto) -> None:
    """Like q4, with other weights in half precision."""
    q4(model)
    store_rest_in_half(model)


def half(model: onnx.ModelProto) -> None:
    """Computation in half precision; the remaining weights are stored in it."""
    compute_in_half(model)
    store_rest_in_half(model)


CONVERSIONS: dict[Precision, Callable[[onnx.ModelProto], None]] = {
    "fp16": store_rest_in_half,
    "q8": q8,
    "q4": q4,
    "q4f16": q4f16,
    "half": half,
}
