"""Measures q8 where integer products saturate, as on x86 processors without VNNI.

    uv run doit config=demo/variants.toml fidelity:demo:fp32
    uv run python benchmarks/q8_saturation.py [--config demo/variants.toml]

On those processors onnxruntime multiplies with vpmaddubsw: it adds the products of rows 2i and
2i + 1 of the weights in 16 bits and clips the sum to that range. Zero points are subtracted
afterwards and saturate nothing.

Prints a Markdown table: for several scales of the weights, the mean and worst IoU with PyTorch's
masks in three arithmetics. "exact" and "saturating" are rewritten graphs with the same result on
every processor; "here" is the unchanged graph on this processor, and the last column names the
arithmetic that it equals.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tasks import fidelity  # noqa: E402
from tasks.config import parse  # noqa: E402
from tasks.inference import quantization, truth  # noqa: E402
from tasks.inference.preprocessing import preprocess  # noqa: E402
from tasks.inference.reference_file import read_reference  # noqa: E402

Scales = Callable[[NDArray[np.float32]], NDArray[np.float32]]

LEAST, LARGEST = np.float32(-(1 << 15)), np.float32((1 << 15) - 1)
LARGEST_VALUE = 255


def largest_fits(weights: NDArray[np.float32], integer: int) -> NDArray[np.float32]:
    """A scale for each column that turns its largest weight into ``integer``."""
    scales = np.maximum(np.abs(weights).max(axis=0) / integer, 1e-12)
    return np.asarray(scales, np.float32)


CHOICES: dict[str, Scales] = {
    "8 bits": partial(largest_fits, integer=127),
    "7 bits": partial(largest_fits, integer=63),
    "8 bits, pairs": quantization.pair_scales,
}


class Rewriting:
    """Replaces each integer product of a graph by several nodes.

    :param saturate: whether to add the change that saturation makes to the exact product.
    """

    def __init__(self, model: onnx.ModelProto, saturate: bool) -> None:
        self.pairs = self.can_saturate = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "MatMulInteger":
                self.replace(node, saturate)
            else:
                self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input}
        del model.graph.node[:]
        model.graph.node.extend(self.nodes)
        del model.graph.initializer[:]
        model.graph.initializer.extend(v for k, v in self.constants.items() if k in read)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Add a constant, and return its name."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def replace(self, node: onnx.NodeProto, saturate: bool) -> None:
        """Compute the product in two parts that never saturate: weights are 2 * half + odd."""
        values, name, zero = node.input
        output = node.output[0]
        weights = numpy_helper.to_array(self.constants[name])
        half = self.constant(f"{name}_half", weights >> 1)
        odd = self.constant(f"{name}_odd", weights & 1)
        two = self.constant("two", np.array(2, np.int32))
        halves = self.node("MatMulInteger", [values, half, zero], f"{output}_half")
        odds = self.node("MatMulInteger", [values, odd, zero], f"{output}_odd")
        doubled = self.node("Mul", [halves, two], f"{output}_doubled")
        lost = self.lost(values, weights, output) if saturate else None
        exact = self.node("Add", [doubled, odds], f"{output}_exact" if lost else output)
        if lost:
            self.node("Add", [exact, lost], output)

    def lost(self, values: str, weights: NDArray[np.int8], output: str) -> str | None:
        """The change by saturation to each element, from the pairs of weights that can saturate."""
        pairs = weights[: len(weights) // 2 * 2].astype(np.int32).reshape(-1, 2, weights.shape[1])
        most = np.maximum(pairs, 0).sum(axis=1) * LARGEST_VALUE
        least = np.minimum(pairs, 0).sum(axis=1) * LARGEST_VALUE
        pair, column = np.nonzero((most > LARGEST) | (least < LEAST))
        self.pairs += most.size
        self.can_saturate += pair.size
        if not pair.size:
            return None
        name = f"{output}_lost"
        single = self.node("Cast", [values], f"{name}_values", to=TensorProto.FLOAT)
        sides = []
        for side in (0, 1):
            rows = self.constant(f"{name}_rows_{side}", 2 * pair + side)
            factors = self.constant(
                f"{name}_weights_{side}", pairs[pair, side, column].astype(np.float32)
            )
            gathered = self.node("Gather", [single, rows], f"{name}_gathered_{side}", axis=-1)
            sides.append(self.node("Mul", [gathered, factors], f"{name}_product_{side}"))
        total = self.node("Add", sides, f"{name}_sum")
        limits = [self.constant("least", LEAST), self.constant("largest", LARGEST)]
        kept = self.node("Clip", [total, *limits], f"{name}_kept")
        difference = self.node("Sub", [kept, total], f"{name}_difference")
        places = np.zeros((pair.size, weights.shape[1]), np.float32)
        places[np.arange(pair.size), column] = 1
        inputs = [difference, self.constant(f"{name}_places", places)]
        return self.node(
            "Cast", [self.node("MatMul", inputs, f"{name}_float")], name, to=TensorProto.INT32
        )


def convert(origin: Path, destination: Path, scales: Scales, arithmetic: str) -> tuple[int, int]:
    """Convert a graph to q8; return how many pairs of weights it has, and how many can saturate."""
    model = onnx.load(origin)
    quantization.replace_products(model, partial(quantization.quantize_dynamic, scales_of=scales))
    quantization.quantize_position_maps(model)
    quantization.store_rest_in_half(model)
    pairs = (0, 0)
    if arithmetic != "here":
        rewriting = Rewriting(model, arithmetic == "saturating")
        pairs = rewriting.pairs, rewriting.can_saturate
    onnx.save(model, destination)
    return pairs


def difference(encoders: list[Path], inputs: dict[str, Any]) -> float:
    """The largest difference between two encoders' outputs."""
    outputs = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
        for path in encoders
    ]
    return max(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="demo/variants.toml")
    options = parser.parse_args()
    os.chdir(ROOT)
    config = parse.load(options.config)
    model = config.targets[0]
    origins = list(model.image_graphs().values())
    reference = model.source.reference
    size = read_reference(str(reference), "multi").dimensions.image_size
    (drawn,) = truth.draw_images(truth.load(model.source.images), size, 1)
    inputs = {"image": preprocess(drawn.image)}
    arithmetics = ("exact", "saturating", "here")
    print(f"| {model.name} | pairs that can saturate | {' | '.join(arithmetics)} | here is |")
    print("|---" * 6 + "|")
    for name, scales in CHOICES.items():
        with tempfile.TemporaryDirectory() as scratch:
            cells, share = [], 0.0
            encoders: dict[str, Path] = {}
            for arithmetic in arithmetics:
                paths = [Path(scratch, f"{arithmetic}_{each.name}") for each in origins]
                pairs = [
                    convert(*both, scales, arithmetic) for both in zip(origins, paths, strict=True)
                ]
                if arithmetic == "saturating":
                    share = sum(each[1] for each in pairs) / sum(each[0] for each in pairs)
                encoders[arithmetic] = paths[0]
                graphs = dict(zip(model.graphs, map(str, paths), strict=True))
                picture = str(Path(scratch, "masks.png"))
                request = fidelity.FidelityRequest(
                    graphs,
                    model.client.name,
                    model.masks,
                    model.prompts,
                    str(reference),
                    model.source.images,
                    picture,
                )
                iou = fidelity.compare(request)["mask_iou"]
                cells.append(f"{iou['mean']:.4f}, worst {iou['worst']:.3f}")
            same = [
                each
                for each in ("exact", "saturating")
                if difference([encoders[each], encoders["here"]], inputs) == 0
            ]
        print(
            f"| {name} | {share:.1%} | {' | '.join(cells)} | {' and '.join(same) or 'neither'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
