"""The precision `half`: values that stay in single precision, and options that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks import variant
from tasks.clients.contract import Precision
from tasks.config.checks import BrowserCheck, Checks, FidelityCheck
from tasks.config.models import Variant
from tasks.config.parse import parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.drawing.extremes import extreme_images
from tasks.inference.half_precision import LONGEST_SUM, computes_in_half
from tasks.inference.half_rounding import as_rounded_on_a_gpu
from tasks.inference.sessions import create_session
from tasks.proof import runtimes
from tasks.proof.judgement import browser_rules, fidelity_failures
from tasks.proof.recommendation import Candidate, recommend

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
TALL = 1024  # rows: a map of this many times 32 values counts as large


def values(name: str, *shape: int, scale: float = 1.0) -> TensorProto:
    numbers = scale * np.random.default_rng(len(name)).standard_normal(shape)
    return numpy_helper.from_array(numbers.astype(np.float32), name)


def save(
    path: Path, nodes: list[onnx.NodeProto], tensors: list[TensorProto], shape: list[int]
) -> Path:
    """Save a graph from ``x`` of a shape to ``y``."""
    x = helper.make_tensor_value_info("x", SINGLE, shape)
    y = helper.make_tensor_value_info("y", SINGLE, None)
    graph = helper.make_graph(nodes, "graph", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def in_half(path: Path, precision: Precision = "half") -> Path:
    made = path.with_name(f"{precision}.onnx")
    variant.convert(variant.ConversionRequest(((path, made),), precision, "onnx"))
    return made


def types(path: Path) -> dict[str, int]:
    """The type of each tensor that is not a weight, by name."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    every = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    return {each.name: each.type.tensor_type.elem_type for each in every}


def types_read(path: Path, operator: str) -> set[int]:
    """The input types of the nodes of an operator."""
    model, known = onnx.load(path), types(path)
    known |= {each.name: each.data_type for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == operator]
    assert nodes
    return {known[name] for node in nodes for name in node.input}


def answer(path: Path, x: NDArray[np.float32]) -> NDArray[Any]:
    (y,) = create_session(str(path)).run(None, {"x": x})
    assert isinstance(y, np.ndarray)
    return y


def product(path: Path, terms: int, weights: TensorProto | None = None) -> Path:
    node = helper.make_node("MatMul", ["x", "weights"], ["y"])
    return save(path, [node], [weights or values("weights", terms, 32)], [TALL, terms])


def test_inputs_and_outputs_stay_single_and_values_between_are_half(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("LayerNormalization", ["b", "scale"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    tensors = [values("weights", 64, 32), values("scale", 32)]
    made = in_half(save(tmp_path / "graph.onnx", nodes, tensors, [TALL, 64]))
    kinds = types(made)
    assert (kinds["x"], kinds["y"]) == (SINGLE, SINGLE)
    assert {kinds[name] for name in ("a", "b", "c")} == {HALF}
    assert {each.data_type for each in onnx.load(made).graph.initializer} == {HALF}


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum", "Pow"])
def test_sums_over_a_map_and_squares_stay_in_single_precision(
    tmp_path: Path, operator: str
) -> None:
    tensors = [values("weights", 64, 32)]
    if operator == "Pow":
        tensors.append(numpy_helper.from_array(np.array(2, np.float32), "second"))
    else:
        tensors.append(numpy_helper.from_array(np.array([0], np.int64), "second"))
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["a"]),
        helper.make_node(operator, ["a", "second"], ["b"]),
        helper.make_node("Sqrt", ["b"], ["y"]),
    ]
    made = in_half(save(tmp_path / "graph.onnx", nodes, tensors, [TALL, 64]))
    assert types(made)["a"] == HALF
    assert HALF not in types_read(made, operator)


def test_small_tensors_stay_in_single_precision(tmp_path: Path) -> None:
    """Prompts, tokens and scores: only their weights are stored in half precision."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["a"]),
        helper.make_node("Gelu", ["a"], ["y"]),
    ]
    tensors = [values("weights", 64, 32)]
    made = in_half(save(tmp_path / "graph.onnx", nodes, tensors, [8, 64]))
    assert types(made)["a"] == SINGLE
    assert not computes_in_half(onnx.load(made))


def test_a_sum_of_variable_length_stays_in_single_precision(tmp_path: Path) -> None:
    """Such as a sum over the memories of a frame: 28,000 places and more."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["turned", "x"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", SINGLE, ["memories", 256])
    y = helper.make_tensor_value_info("y", SINGLE, [256, 256])
    graph = helper.make_graph(nodes, "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "graph.onnx")
    assert types_read(in_half(tmp_path / "graph.onnx"), "MatMul") == {SINGLE}


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_long_sum_is_split_and_its_parts_are_added_in_single_precision(
    tmp_path: Path, operator: str
) -> None:
    terms = 2 * LONGEST_SUM + 88
    bias = ["bias"] if operator == "Gemm" else []
    node = helper.make_node(operator, ["x", "weights", *bias], ["y"])
    tensors = [values("weights", terms, 32), *([values("bias", 32)] if bias else [])]
    source = save(tmp_path / "graph.onnx", [node], tensors, [TALL, terms])
    made = in_half(source)
    assert sum(each.op_type == operator for each in onnx.load(made).graph.node) == 3
    assert types_read(made, operator) == {HALF}
    assert types_read(made, "Add") == {SINGLE}
    x = np.random.default_rng(0).standard_normal((TALL, terms)).astype(np.float32)
    expected = answer(source, x)
    assert np.abs(answer(made, x) - expected).max() < 0.02 * np.abs(expected).max()


def test_values_are_rounded_although_the_cpu_has_no_half_precision_kernels(tmp_path: Path) -> None:
    """onnxruntime's own session drops the casts between two nodes, and does not round there:
    (1 + 1/4096) - 1 is 0 in half precision.
    """
    nodes = [
        helper.make_node("Add", ["x", "small"], ["a"]),
        helper.make_node("Sub", ["a", "x"], ["y"]),
    ]
    small = numpy_helper.from_array(np.array([2**-12], np.float32), "small")
    made = in_half(save(tmp_path / "graph.onnx", nodes, [small], [TALL, 32]))
    x = np.ones((TALL, 32), np.float32)
    assert (answer(made, x) == 0).all()


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_no_optimization_level_removes_the_rounding(tmp_path: Path, level: str) -> None:
    nodes = [helper.make_node("Mul", ["x", "one"], ["y"])]
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    model = onnx.load(in_half(save(tmp_path / "graph.onnx", nodes, [one], [TALL, 32])))
    as_rounded_on_a_gpu(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.full((TALL, 32), 1 + 2**-12, np.float32)})
    assert isinstance(y, np.ndarray)
    assert (y == 1).all()


def test_a_sum_has_the_error_of_a_sum_rounded_at_each_term(tmp_path: Path) -> None:
    terms = 256
    source = product(tmp_path / "graph.onnx", terms)
    weights = numpy_helper.to_array(onnx.load(source).graph.initializer[0]).astype(np.float16)
    x = np.random.default_rng(1).standard_normal((TALL, terms)).astype(np.float16)
    total = np.zeros((TALL, 32), np.float16)
    for term in range(terms):  # as WebGPU's kernels add up
        total = (total + x[:, term : term + 1] * weights[term]).astype(np.float16)
    exact = x.astype(np.float32) @ weights.astype(np.float32)
    rounded = answer(in_half(source), x.astype(np.float32))
    imitated, real = (float(np.abs(each - exact).mean()) for each in (rounded, total))
    assert 0.7 * real < imitated < 2.0 * real


def test_terms_that_overflow_before_they_cancel_give_infinity(
    tmp_path: Path,
) -> None:
    signs = np.where(np.arange(256) < 128, 600, -600)
    weights = np.repeat(signs[:, None], 32, axis=1).astype(np.float32)
    source = product(tmp_path / "graph.onnx", 256, numpy_helper.from_array(weights, "weights"))
    x = np.ones((TALL, 256), np.float32)
    assert (answer(source, x) == 0).all()
    assert np.isinf(answer(in_half(source), x)).all()


FINE: dict[str, Any] = {
    **{"mask_iou": {"mean": 1.0, "worst": 1.0}, "ranking_flips": 0.0},
    **{"logit_error": 0.0, "input_error": 0.0, "score_error": 0.0},
}


def failures(extremes: list[dict[str, Any]], precision: Precision = "half") -> list[str]:
    report = {**FINE, "extremes": extremes}
    return [str(each) for each in fidelity_failures(report, Variant(precision), FidelityCheck())]


def test_a_non_finite_output_is_named_with_the_image() -> None:
    extremes = [
        {"image": "black", "not_finite": []},
        {"image": "white", "not_finite": ["encoder image_embed", "decoder masks"]},
    ]
    assert failures(extremes) == [
        f"{output} is not finite for the image 'white': half precision overflowed, its largest "
        "number is 65504"
        for output in ("encoder image_embed", "decoder masks")
    ]


def test_a_report_without_extreme_images_proves_nothing_for_half() -> None:
    with pytest.raises(KeyError):
        failures([])
    assert failures([], "fp16") == []


def test_the_extreme_images_have_the_extreme_values() -> None:
    images = extreme_images(64)
    assert {image.shape for image in images.values()} == {(64, 64, 3)}
    assert (images["black"].max(), images["white"].min()) == (0, 255)
    assert images["one bright pixel"].sum() == 3 * 255
    assert {*np.unique(images["checkerboard"])} == {0, 255}
    assert (np.diff(images["checkerboard"].astype(int), axis=0) != 0).all()
    assert images["noise"].std() > 70


@pytest.mark.parametrize("provider", ["wasm", "webgpu", "native"])
def test_half_is_never_recommended_although_it_is_the_smallest(provider: str) -> None:
    proven = frozenset({"wasm", "webgpu", "native"})
    half, single = Candidate("half", 5, proven, {}), Candidate("fp32", 10, proven, {})
    assert recommend([half, single])[provider].candidate == single
    assert recommend([half]) == {}


def test_half_files_need_the_webgpu_feature_shader_f16() -> None:
    needs = runtimes.needs(20, "half", "encoder_half.onnx")
    assert needs["webgpu"] == "shader-f16"
    assert "webgpu" not in runtimes.needs(20, "fp16", "encoder_fp16.onnx")


def test_the_browser_rules_allow_half_to_round_differently() -> None:
    rules = browser_rules(Checks(browser=BrowserCheck()), Variant("half"))
    assert rules.mask_iou == FidelityCheck().worst_iou("half")
    assert rules.encoder_tolerance == float("inf")


def configured(**keys: Any) -> Configuration:
    table = {"model_type": "sam2_hiera_tiny", "url": "synthetic:", "variants": ["half"], **keys}
    return parse({"models": {"tiny": table}}, Path("models.toml"))


def test_a_client_with_both_formats_gets_half_only_as_onnx() -> None:
    (target,) = configured(client="nimbusimage", variants=["fp32", "half"]).targets
    assert [each.name for each in target.variants] == ["fp32", "half", "fp32.ort"]
    assert target.file_names(Variant("half")) == {
        "encoder": "encoder_half.onnx",
        "decoder": "decoder_half.onnx",
    }


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ({"formats": ["ort"]}, 'no half with formats = ["ort"]: onnxruntime writes .ort files'),
        ({"webgpu": False}, "no half with webgpu = false: only WebGPU computes in half"),
        ({"attention": "fused", "browser": False}, "no half with fused attention, which was not"),
        ({"client": "osam"}, "no half for client osam: it runs on the CPU"),
        ({"client": "anylabeling"}, "no half for client anylabeling: it runs on the CPU"),
        ({"client": "transformers.js"}, "no half for client transformers.js: it has its own list"),
        (
            {"client": "bioimage.io", "model_type": "vit_b"},
            "no half for client bioimage.io: it runs on the CPU",
        ),
    ],
)
def test_an_option_that_excludes_half_precision_is_refused_with_the_reason(
    keys: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        configured(**keys)
    assert allowed in str(error.value)
