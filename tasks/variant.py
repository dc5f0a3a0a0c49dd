"""The proven graphs with smaller weights, or as ``.ort`` files.

Inputs and outputs stay float32, so any encoder works with any decoder, and a consumer changes
nothing but the file's name. Each graph of a table of models is converted once, and written again
under the names of each client that has its own. Targets:
``<build>/models/<model>/encoder_<precision>.onnx`` and so on, named as transformers.js names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace, describe_peak, describe_sizes
from tasks.config.checks import Precision
from tasks.config.models import Source, Variant
from tasks.inference.graph_file import read_graph
from tasks.inference.naming import Names, write_renamed
from tasks.system.versions import versions

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

PACKAGES = ("onnx", "onnxruntime", "numpy")

# Values from which on a tensor is stored smaller: below it a Cast costs what it saves.
LEAST_VALUES = 256
# Rows and columns from which on a matrix is quantized: narrower ones are next to nothing of the
# file, and hold what the hypernetworks and scores end in.
LEAST_SIDE = 24
GRID_VALUES = 1 << 16  # from which on a constant that is added is a map, not a bias
BLOCK = 32  # weights of a column that share a scale
MANY_WEIGHTS = 1 << 16  # above which a matrix has four bits in q4, not eight


def declare(source: Source, variant: Variant) -> Stage:
    """The making of one variant of a source's graphs."""
    renamed = source.renamed_graphs(variant)
    return Stage(
        f"{source.name}:{variant.name}",
        make_variant,
        [source, variant],
        reads=list(origins(source, variant).values()),
        writes=[*source.shared_graphs(variant).values(), *(each.path for each in renamed)],
        shared="files",
        inputs={"names": [each.names for each in renamed], **versions(*PACKAGES)},
    )


def origins(source: Source, variant: Variant) -> dict[str, Path]:
    """The graphs that those of a variant are made from."""
    made_from = source.shared_graphs(variant.made_from)
    return {name: made_from[name] for name in source.shared_graphs(variant)}


def make_variant(source: Source, variant: Variant, work: Workspace) -> dict[str, Any]:
    """Convert in a child process, then move the graphs into place."""
    targets, renamed = source.shared_graphs(variant), source.renamed_graphs(variant)
    made = work.made(targets)
    result = work.run(
        "tasks.variant:convert",
        pairs=[[str(path), made[name]] for name, path in origins(source, variant).items()],
        precision=variant.precision,
        format=variant.format,
        renamed=[[made[each.shared], work.unfinished(each.path), each.names] for each in renamed],
    )
    work.deliver(*targets.values(), *(each.path for each in renamed))
    single = source.shared_graphs()
    share = sum(each.stat().st_size for each in targets.values()) / sum(
        single[name].stat().st_size for name in targets
    )
    summary = f"{describe_sizes(targets)}, {share:.2f} of fp32{describe_peak(result)}"
    return {"summary": summary, **result}


def convert(
    pairs: list[list[str]],
    precision: Precision,
    format: str,
    renamed: Sequence[tuple[str, str, Names]] = (),
) -> dict[str, Any]:
    """Write a variant of each source graph (runs in a child process).

    :param renamed: of those, which to write once more under other names: the file, where, and the
        names.
    :returns: ``nodes``, the number in each.
    """
    import onnx

    counts = []
    for origin, destination in pairs:
        if format == "ort":
            counts.append(save_as_ort(origin, destination))
            continue
        model = read_graph(origin)
        CONVERSIONS[precision](model)
        onnx.checker.check_model(model)
        onnx.save(model, destination)
        counts.append(len(model.graph.node))
    for each in renamed:
        write_renamed(*each)
    return {"nodes": counts}


class Product(NamedTuple):
    """A node that multiplies by a constant matrix: its weights (K, N), and what is added."""

    node: onnx.NodeProto
    weights: NDArray[np.float32]
    name: str
    bias: str | None


def product(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Product | None:
    """The product that a node is, if it is one that can be quantized."""
    import onnx

    if node.op_type not in ("Gemm", "MatMul") or node.input[0] in constants:
        return None
    name = node.input[1]
    if name not in constants or len(constants[name].dims) != 2:
        return None
    options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if options.get("transA") or options.get("alpha", 1) != 1 or options.get("beta", 1) != 1:
        return None
    weights = onnx.numpy_helper.to_array(constants[name])
    if options.get("transB"):
        weights = weights.T
    if min(weights.shape) < LEAST_SIDE:
        return None
    bias = node.input[2] if len(node.input) > 2 else None
    return Product(node, weights, name, bias)


# What takes a product's place: the nodes, all but adding the bias, and new constants.
Replacement = tuple[list["onnx.NodeProto"], list["onnx.TensorProto"]]


def replace_products(
    model: onnx.ModelProto, replacement: Callable[[Product, str], Replacement]
) -> None:
    """Put other nodes in the place of every product, and its bias behind them.

    :param replacement: what computes a product, under the name of its output.
    """
    import onnx

    graph = model.graph
    constants = {each.name: each for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    made: dict[str, onnx.TensorProto] = {}
    known: set[str] = set()
    for node in graph.node:
        found = product(node, constants)
        if found is None:
            nodes.append(node)
            continue
        output = node.output[0]
        before_bias = f"{output}_product" if found.bias else output
        computing, tensors = replacement(found, before_bias)
        made.update((tensor.name, tensor) for tensor in tensors)
        # What several products share, as their quantized input, is computed once.
        nodes += [each for each in computing if each.output[0] not in known]
        known.update(each.output[0] for each in computing)
        if found.bias:
            nodes.append(onnx.helper.make_node("Add", [before_bias, found.bias], [output]))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *made.values()])


def quantize_position_maps(model: onnx.ModelProto) -> None:
    """Store what is added to every place of a map, as positions are, in eight bits per channel."""
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.name not in added or np.prod(tensor.dims) < GRID_VALUES:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        channels = values.reshape(-1, values.shape[-1])
        scales = np.maximum(np.abs(channels).max(axis=0) / 127, 1e-12).astype(np.float32)
        integers = np.rint(values / scales).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}_integers"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        inputs = [f"{name}_integers", f"{name}_scales"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=values.ndim - 1))
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + others)


def quantize_pointwise_convolutions(model: onnx.ModelProto) -> None:
    """Store the weights of 1 × 1 convolutions in eight bits, a scale for each output channel.

    They are products too, and nearly all of a convolutional trunk. Computed in single precision:
    of constants alone, Cast and Mul are done when the session is created, and what is left is the
    convolution that every provider is fast at. (DequantizeLinear would be kept, and run each time.)
    Depthwise convolutions have few weights, and each counts.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    read = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    nodes = []
    for tensor in list(graph.initializer):
        is_matrix = tensor.name in read and list(tensor.dims[2:]) == [1, 1]
        if not is_matrix or min(tensor.dims[:2]) < LEAST_SIDE:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        largest = np.abs(values).max(axis=1, keepdims=True)
        scales = np.maximum(largest / 127, 1e-12).astype(np.float32)
        integers = np.rint(values / scales).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}_integers"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        cast, product = [f"{name}_float"], [f"{name}_float", f"{name}_scales"]
        nodes.append(helper.make_node("Cast", [tensor.name], cast, to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", product, [name]))
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + others)


def store_rest_in_half(model: onnx.ModelProto) -> None:
    """Store every float32 constant that is left in half precision, with a Cast behind it.

    The computation stays in single precision, which every execution provider has; onnxruntime
    casts once, when it creates the session.
    """
    import numpy as np
    import onnx

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_VALUES:
            continue
        name, limit = tensor.name, np.finfo(np.float16).max
        values = np.clip(onnx.numpy_helper.to_array(tensor), -limit, limit).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)


def pair_scales(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale for each column of (K, N), with which no processor saturates its products.

    Without VNNI an x86 processor adds the products of rows 2i and 2i + 1 in 16 bits, and
    onnxruntime lets that saturate. Values go to 255, so two integers of one sign may come to no
    more than 128: a scale that makes them 127 leaves room for rounding both up.
    """
    import numpy as np

    rows, columns = weights.shape
    pairs = np.pad(weights, ((0, rows % 2), (0, 0))).reshape(-1, 2, columns)
    sums = [np.maximum(each, 0).sum(axis=1).max(axis=0) for each in (pairs, -pairs)]
    scales: NDArray[np.float32] = np.maximum(np.maximum(*sums) / 127, 1e-12).astype(np.float32)
    return scales


def quantize_dynamic(
    found: Product,
    output: str,
    scales_of: Callable[[NDArray[np.float32]], NDArray[np.float32]] = pair_scales,
) -> Replacement:
    """Integer products: weights per column, the rows' values as they come, a scale for all.

    onnxruntime's dynamic quantization, with symmetric weights and no zero point, which WASM's
    kernels refuse for some shapes.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    values, name = found.node.input[0], found.name
    scales = scales_of(found.weights)
    integers = np.rint(found.weights / scales).astype(np.int8)
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


def quantize_blockwise(found: Product, output: str) -> Replacement:
    """``MatMulNBits``: a scale for each `BLOCK` weights of a column, values in single precision.

    Four bits where there is much to save, eight elsewhere: the small matrices are those that
    masks depend on most (docs/variants.md has the measurements).
    """
    import numpy as np
    from onnx import helper, numpy_helper

    name = found.name
    bits = 4 if found.weights.size > MANY_WEIGHTS else 8
    rows, columns = found.weights.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((blocks * BLOCK, columns), np.float32)
    padded[:rows] = found.weights
    scales, integers = quantize_blocks(padded.T.reshape(columns, blocks, BLOCK), bits)
    if bits == 4:
        integers = integers[..., ::2] | np.left_shift(integers[..., 1::2], 4, dtype=np.uint8)
    node = helper.make_node(
        "MatMulNBits",
        [found.node.input[0], f"{name}_packed", f"{name}_scales"],
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


def quantize_blocks(
    blocks: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scales (N, B) and integers from 0 up, their middle being nothing, of blocks (N, B, K).

    Of several scales the one with the least squared error: rounding the largest weight a
    little off often lets all others come nearer than a scale that fits it does.
    """
    import numpy as np

    half = 1 << (bits - 1)
    at = np.abs(blocks).argmax(axis=-1, keepdims=True)
    largest = np.take_along_axis(blocks, at, axis=-1)
    best: list[NDArray[Any]] = []
    for shrink in np.linspace(0.7, 1.1, 17, dtype=np.float32) if bits == 4 else (1,):
        scales = largest * np.float32(shrink) / -half  # the largest becomes the least integer
        scales = np.where(scales == 0, np.float32(1e-12), scales)
        integers = np.clip(np.rint(blocks / scales) + half, 0, 2 * half - 1)
        errors = (((integers - half) * scales - blocks) ** 2).sum(axis=-1, keepdims=True)
        found = [errors, scales, integers]
        better = errors < best[0] if best else np.ones_like(errors, bool)
        best = [np.where(better, *pair) for pair in zip(found, best or found, strict=True)]
    return best[1][..., 0].astype(np.float32), best[2].astype(np.uint8)


def fp16(model: onnx.ModelProto) -> None:
    """Every weight in half precision."""
    store_rest_in_half(model)


def q8(model: onnx.ModelProto) -> None:
    """Products in integers, what else there is in half precision."""
    replace_products(model, quantize_dynamic)
    quantize_pointwise_convolutions(model)
    quantize_position_maps(model)
    store_rest_in_half(model)


def q4(model: onnx.ModelProto) -> None:
    """Products with weights of four or eight bits, what else there is in single precision."""
    import onnx

    replace_products(model, quantize_blockwise)
    quantize_pointwise_convolutions(model)
    if all(each.domain != "com.microsoft" for each in model.opset_import):  # fused attention has it
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def q4f16(model: onnx.ModelProto) -> None:
    """As q4, with what else there is in half precision."""
    q4(model)
    store_rest_in_half(model)


CONVERSIONS: dict[Precision, Callable[[Any], None]] = {
    "fp16": fp16,
    "q8": q8,
    "q4": q4,
    "q4f16": q4f16,
}


def save_as_ort(origin: str, destination: str) -> int:
    """Write a graph in onnxruntime's own format; the number of its nodes.

    At the basic level: what it does beyond that is for the machine it runs on. Weights are not
    folded with their Cast, which would double the file.
    """
    import onnxruntime

    nodes = len(read_graph(origin).graph.node)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = destination
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        origin, options, ["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )
    return nodes
