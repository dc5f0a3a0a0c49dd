"""Stage 4: the graphs proven against PyTorch, in onnxruntime.

First the form (onnx.checker, the tensor contract, what the configuration asks of the graphs), then
the numbers: every output for one image and five prompts, against sam2's own `SAM2ImagePredictor`.
Target: ``verify.json``, the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.schema import FP32, AttentionKind, Configuration, MaskChoice, Model
from tasks.engine import artifacts
from tasks.engine.errors import StageError
from tasks.engine.stage import declare, describe_peak, workspace
from tasks.engine.staleness import versions
from tasks.inference.contract import GraphTensors, Tensor
from tasks.proof import failures, reports
from tasks.proof.failures import Failure
from tasks.proof.judgement import ONE_CLICK, judge, largest_differences, rules_of

if TYPE_CHECKING:
    import onnx
    from doit.task import Task

PACKAGES = ("onnxruntime", "onnx", "torch", "torchvision", "sam2", "numpy")

# Of images with known masks: a few.
TRUTH_SEEDS = range(6)
TRUTH_OBJECTS = 4


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return declare(
        model.name,
        verify,
        [config, model],
        reads=[
            artifacts.checkpoint(config, model),
            *artifacts.graphs(config, model).values(),
            *model.architecture_files,
            *model.image_data,
        ],
        writes=[artifacts.report(config, model, "verify")],
        inputs={
            **reports.asked(config, model, "verify", FP32),
            **rules_of(config, model, FP32, "verify"),
            **versions(*PACKAGES),
        },
        also_runs=[model.truth] if model.truth else [],
    )


def verify(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: naming each figure beyond its tolerance.
    """
    graphs = artifacts.graphs(config, model)
    asked = reports.asked(config, model, "verify", FP32)
    with workspace(config.build, task) as work:
        figures = work.run(
            "tasks.verify:measure",
            **asked,
            architecture_files=model.architecture_files,
            checkpoint=str(artifacts.checkpoint(config, model)),
            graphs={name: str(path) for name, path in graphs.items()},
        )
    memory = {"peak_memory": figures.pop("peak_memory")}
    found = judge(config, model, FP32, "verify", figures)
    path = artifacts.report(config, model, "verify")
    rules = rules_of(config, model, FP32, "verify")
    reports.write(path, "verify", asked, rules, found, figures)
    if found:
        raise StageError(
            f"{path.parent} does not do what PyTorch does, and is not deployed:\n"
            + "\n".join(f"- {failure}" for failure in found)
            + f"\nReport: {path}. Log: {work.log}"
        )
    largest = largest_differences(figures["differences"])
    summary = (
        f"equals PyTorch: encoder {largest['encoder']:.1g} of largest, masks "
        f"{largest['masks']:.1g} logits, scores {largest['scores']:.1g}, "
        f"{len(figures['differences']['prompts'])} prompts"
    )
    if figures["truth"]:
        summary += f"; IoU with the truth from one click {figures['truth']['iou'][ONE_CLICK]:.3f}"
    return {"summary": summary + describe_peak(memory), **memory}


def measure(
    architecture: str,
    opset: int,
    masks: MaskChoice,
    attention: AttentionKind,
    truth: str | None,
    architecture_files: list[str],
    checkpoint: str,
    graphs: dict[str, str],
) -> dict[str, Any]:
    """Compare a model's graphs with PyTorch (runs in a child process).

    :param graphs: the file of each graph, by its name.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``violations`` of the contract; the ``tensors`` found; ``differences``, see
        `sessions.differences`; ``truth``, what `truth.measure` finds with the images that the
        function of that name draws, or None.
    """
    import onnx

    from tasks.inference import images, reference, sessions
    from tasks.inference import truth as known_masks
    from tasks.inference.contract import as_json, contract_of
    from tasks.inference.prompts import PROMPTS
    from tasks.model import load
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    judged = {Path(path).name: path for path in graphs.values()}
    with unchanged(judged) as files, unchanged(subject) as against:
        found: dict[str, GraphTensors] = {}
        broken: list[Failure] = []
        for name, path in graphs.items():
            onnx.checker.check_model(path, full_check=True)
            graph = onnx.load(path)
            found[name] = tensors_of(graph)
            broken += other_options(name, graph, opset, attention)
            del graph
        model = load.load_model(architecture, checkpoint)
        broken += violations(contract_of(model, masks), found)
        image = images.natural_image(model.image_size)
        expected = reference.predict(reference.predictor_of(model), image, PROMPTS, masks)
        del model
        asked = sessions.PromptedImage(image, PROMPTS, expected.mask_inputs)
        (predictions,) = sessions.run_graphs(graphs["encoder"], graphs["decoder"], [asked])
        known = truth and known_masks.measure(
            graphs["encoder"],
            graphs["decoder"],
            known_masks.load(truth),
            TRUTH_SEEDS,
            TRUTH_OBJECTS,
        )
    return {
        "files": files,
        "against": against,
        "violations": failures.as_json(broken),
        "tensors": as_json(found),
        "differences": sessions.differences(predictions, expected),
        "truth": known or None,
    }


def other_options(
    name: str, graph: onnx.ModelProto, opset: int, attention: AttentionKind
) -> list[Failure]:
    """Where a graph is of another opset or attention than the configuration asks for."""
    broken = []
    opsets = {each.domain: each.version for each in graph.opset_import}
    if opsets.get("") != opset:
        broken.append(Failure("option", opsets.get(""), opset, graph=name, tensor="opset"))
    fused = any(node.op_type == "MultiHeadAttention" for node in graph.graph.node)
    if name == "encoder" and fused != (attention == "fused"):
        is_now = "fused" if fused else "plain"
        broken.append(Failure("option", is_now, attention, graph=name, tensor="attention"))
    return broken


def tensors_of(graph: onnx.ModelProto) -> GraphTensors:
    """The inputs and outputs of a graph."""
    return GraphTensors(_tensors(graph.graph.input), _tensors(graph.graph.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    import onnx

    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        found.append(Tensor(value.name, dtype, shape))
    return tuple(found)
