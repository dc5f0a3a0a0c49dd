"""The effect of each precision on a graph, in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks import variant
from tasks.clients.contract import Format, Precision
from tasks.config.checks import FidelityCheck
from tasks.config.models import Variant
from tasks.inference import quantization
from tasks.inference.checks import finite
from tasks.inference.prompts import Prompt
from tasks.inference.sessions import create_session
from tasks.inference.truth import prompts_about
from tasks.proof.judgement import fidelity_failures

ROWS, WIDTH, HIDDEN = 40, 64, 1088


def small_model(path: Path) -> Path:
    """A Gemm with transposed weights, MatMuls with many and with few weights, and an added map."""
    random = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        values = random.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Gemm", ["x", "first", "bias"], ["a"], transB=1),
        helper.make_node("MatMul", ["a", "second"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "third"], ["d"]),
        helper.make_node("MatMul", ["a", "other"], ["e"]),
        helper.make_node("Concat", ["d", "e"], ["f"], axis=1),
        helper.make_node("Add", ["f", "map"], ["y"]),
    ]
    tensors = [
        *(weights("first", WIDTH, WIDTH), weights("bias", WIDTH)),
        *(weights("second", WIDTH, HIDDEN), weights("third", HIDDEN, WIDTH)),
        *(weights("other", WIDTH, HIDDEN - WIDTH), weights("map", 100, HIDDEN)),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [100, width])
        for name, width in (("x", WIDTH), ("y", HIDDEN))
    ]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)
    return path


def answer(path: Path) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.type for each in session.get_inputs()] == ["tensor(float)"]
    assert [each.type for each in session.get_outputs()] == ["tensor(float)"]
    x = np.random.default_rng(1).standard_normal((100, WIDTH)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    assert isinstance(y, np.ndarray)
    return y


def convert(source: Path, made: Path, precision: Precision, format: Format) -> None:
    variant.convert(variant.ConversionRequest(((source, made),), precision, format))


def converted(tmp_path: Path, precision: Precision) -> tuple[Path, Path]:
    source, made = small_model(tmp_path / "small.onnx"), tmp_path / f"small_{precision}.onnx"
    convert(source, made, precision, "onnx")
    return source, made


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("spinning", [False, True])
def test_the_threads_of_a_session_spin_only_on_request(tmp_path: Path, spinning: bool) -> None:
    session = create_session(str(small_model(tmp_path / "small.onnx")), spinning)
    entry = session.get_session_options().get_session_config_entry(
        "session.intra_op.allow_spinning"
    )
    assert entry == str(int(spinning))


@pytest.mark.parametrize(
    ("precision", "error", "share"),
    [("fp16", 1e-3, 0.51), ("q8", 0.03, 0.32), ("q4", 0.2, 0.75), ("q4f16", 0.2, 0.45)],
)
def test_each_precision_is_close_to_the_original_and_as_small_as_promised(
    tmp_path: Path, precision: Precision, error: float, share: float
) -> None:
    source, made = converted(tmp_path, precision)
    expected = answer(source)
    assert np.abs(answer(made) - expected).max() < error * np.abs(expected).max()
    assert made.stat().st_size < share * source.stat().st_size


def test_fp16_stores_weights_in_half_precision_and_computes_in_single(tmp_path: Path) -> None:
    _, made = converted(tmp_path, "fp16")
    graph = onnx.load(made).graph
    types = {tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) >= 256}
    assert types == {TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert {node.attribute[0].i for node in casts} == {TensorProto.FLOAT}


def test_a_value_beyond_the_range_of_half_precision_stays_finite(tmp_path: Path) -> None:
    model = onnx.load(small_model(tmp_path / "small.onnx"))
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0] = 1e6
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "first"))
    onnx.save(model, tmp_path / "large.onnx")
    convert(tmp_path / "large.onnx", tmp_path / "half.onnx", "fp16", "onnx")
    assert np.isfinite(answer(tmp_path / "half.onnx")).all()


def test_q8_quantizes_a_value_once_for_all_its_products(tmp_path: Path) -> None:
    _, made = converted(tmp_path, "q8")
    found = operators(made)
    assert found.count("MatMulInteger") == 4
    assert found.count("DynamicQuantizeLinear") == 3  # x, a for two products, c
    assert found.count("DequantizeLinear") == 1  # of the map


@pytest.mark.parametrize("precision", ["q8", "q4", "q4f16"])
def test_pointwise_convolutions_are_in_eight_bits_and_depthwise_ones_are_not(
    tmp_path: Path, precision: Precision
) -> None:
    random = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in (("pointwise", (64, 32, 1, 1)), ("depthwise", (64, 1, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "pointwise"], ["a"]),
        helper.make_node("Conv", ["a", "depthwise"], ["y"], group=64, pads=[1, 1, 1, 1]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8])
        for name, channels in (("x", 32), ("y", 64))
    ]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], tensors)
    opset = [helper.make_opsetid("", 20)]
    source, made = tmp_path / "source.onnx", tmp_path / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), source)
    convert(source, made, precision, "onnx")
    integers = {
        each.name: list(each.dims)
        for each in onnx.load(made).graph.initializer
        if each.data_type == TensorProto.INT8
    }
    assert integers == {"pointwise_integers": [64, 32, 1, 1]}
    x = random.standard_normal((1, 32, 8, 8)).astype(np.float32)
    found, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for path in (made, source)
    )
    assert np.abs(found[0] - expected[0]).max() < 0.01 * np.abs(expected[0]).max()


def test_q4_uses_four_bits_for_large_matrices_and_eight_for_small_ones(tmp_path: Path) -> None:
    _, made = converted(tmp_path, "q4")
    bits = {
        node.input[1]: next(each.i for each in node.attribute if each.name == "bits")
        for node in onnx.load(made).graph.node
        if node.op_type == "MatMulNBits"
    }
    assert bits == {
        "first_packed": 8,
        "second_packed": 4,
        "third_packed": 4,
        "other_packed": 8,
    }


def test_a_graph_with_fused_attention_keeps_one_version_of_its_operators(tmp_path: Path) -> None:
    source, made = small_model(tmp_path / "small.onnx"), tmp_path / "made.onnx"
    model = onnx.load(source)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, source)
    convert(source, made, "q4", "onnx")
    assert [each.domain for each in onnx.load(made).opset_import] == ["", "com.microsoft"]


def test_the_best_scale_of_four_bits_is_never_worse_than_the_largest_weights_scale() -> None:
    blocks = np.random.default_rng(3).standard_normal((50, 4, 32)).astype(np.float32)
    scales, integers = quantization.quantize_blocks(blocks, 4)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1) / -8
    plain = np.clip(np.rint(blocks / largest), -8, 7) * largest
    best = (integers.astype(np.float32) - 8) * scales[..., None]
    errors = [((each - blocks) ** 2).sum(axis=-1) for each in (best, plain)]
    assert (errors[0] <= errors[1] * 1.0001).all()
    assert errors[0].sum() < 0.95 * errors[1].sum()


def test_a_block_of_zeros_stays_zero() -> None:
    scales, integers = quantization.quantize_blocks(np.zeros((1, 1, 32), np.float32), 4)
    assert np.isfinite(scales).all()
    assert (integers == 8).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "q8", "q4f16"])
def test_an_ort_file_gives_the_same_answers_and_is_not_larger_than_its_onnx_file(
    tmp_path: Path, precision: Precision
) -> None:
    source, made = small_model(tmp_path / "small.onnx"), tmp_path / "made.onnx"
    if precision == "fp32":
        made = source
    else:
        convert(source, made, precision, "onnx")
    convert(made, tmp_path / "made.ort", precision, "ort")
    expected = answer(made)
    difference = np.abs(answer(tmp_path / "made.ort") - expected).max()
    assert difference < 0.01 * np.abs(expected).max()
    assert (tmp_path / "made.ort").stat().st_size < made.stat().st_size + 20_000


def test_variant_files_are_named_as_in_transformers_js() -> None:
    def names(variant: Variant) -> tuple[str, str]:
        return variant.file_name("encoder"), variant.file_name("decoder")

    assert names(Variant("q8")) == ("encoder_quantized.onnx", "decoder_quantized.onnx")
    assert names(Variant("q4f16", "ort")) == ("encoder_q4f16.ort", "decoder_q4f16.ort")
    assert names(Variant()) == ("encoder.onnx", "decoder.onnx")


FINE = {"logit_error": 0.1, "input_error": 0.1, "score_error": 0.1}


@pytest.mark.parametrize(
    ("mean", "worst", "flips", "complaints"),
    [
        (0.98, 0.90, 0.0, []),
        (
            *(0.96, 0.95, 0.0),
            ["mean IoU with PyTorch's masks is 0.96, [fidelity] q8 requires 0.97"],
        ),
        (
            *(0.98, 0.87, 0.0),
            ["worst IoU with PyTorch's masks is 0.87, [fidelity] worst requires 0.88"],
        ),
        (0.98, 0.95, 0.1, []),
        (
            *(0.98, 0.95, 0.11),
            [
                "masks are ranked differently from PyTorch's: share of the prompts 0.11, "
                "[fidelity] ranking_flips allows 0.1"
            ],
        ),
        (float("nan"), float("nan"), float("nan"), ["mean IoU", "worst IoU", "ranked differently"]),
    ],
)
def test_a_variant_must_meet_the_limits_of_mean_iou_worst_iou_and_ranking(
    mean: float, worst: float, flips: float, complaints: list[str]
) -> None:
    report = {"mask_iou": {"mean": mean, "worst": worst}, "ranking_flips": flips, **FINE}
    found = fidelity_failures(report, Variant("q8"), FidelityCheck())
    assert len(found) == len(complaints)
    assert all(part in str(failure) for part, failure in zip(complaints, found, strict=True))
    values = {"mean iou": mean, "worst iou": worst, "ranking flips": flips}
    assert all(failure.found == finite(values[failure.kind]) for failure in found)


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"logit_error": None}, "mask logits, relative to PyTorch's: differs by not a number"),
        ({"input_error": None}, "mask logits, relative to PyTorch's: differs by not a number"),
        (
            {"input_error": 0.11},
            "mask logits, relative to PyTorch's: differs by 0.11, [fidelity] logit_tolerance",
        ),
        ({"score_error": None}, "scores of masks: differs by not a number"),
        (
            {"score_error": 0.11},
            "scores of masks: differs by 0.11, [fidelity] score_tolerance allows 0.1",
        ),
    ],
)
def test_a_variants_logits_and_scores_must_be_finite_and_within_tolerance(
    figures: dict[str, float | None], complaint: str
) -> None:
    report = {"mask_iou": {"mean": 1.0, "worst": 1.0}, "ranking_flips": 0.0, **FINE, **figures}
    (failure,) = fidelity_failures(report, Variant("q8"), FidelityCheck())
    assert complaint in str(failure)


class Drawn:
    def __init__(self) -> None:
        self.image = np.zeros((256, 256, 3), np.uint8)
        self.labels = np.zeros((256, 256), np.int32)


def test_prompts_lie_on_the_objects_of_the_image() -> None:
    drawn = Drawn()
    drawn.labels[10:60, 10:110] = 1
    drawn.labels[100:180, 40:200] = 2
    click, two, box, refined = prompts_about(drawn)
    assert (click.labels, two.labels, refined.refines) == ((1,), (1, 0), "click")
    x, y = (int(256 * each) for each in click.points[0])
    assert drawn.labels[y, x] == 1
    x, y = (int(256 * each) for each in two.points[1])
    assert drawn.labels[y, x] == 2
    assert box == Prompt("box", box=(10 / 256, 10 / 256, 109 / 256, 59 / 256))


def test_an_image_with_one_object_has_no_background_click() -> None:
    drawn = Drawn()
    drawn.labels[10:60, 10:110] = 1
    assert prompts_about(drawn)[1].labels == (1,)
