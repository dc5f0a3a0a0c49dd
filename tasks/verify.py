"""Proves the graphs in onnxruntime against PyTorch.

First the form: a graph in one file, onnx.checker, the client's contract, the options that the
configuration sets. Then the numbers: every output is compared with the PyTorch predictor of the
model's family, for one square image and two that are not square. The prompts on the square image
cover every value of every input, one at a time and at once. Files of single precision in another
format are compared on the square image only. Target: ``verify.json``, the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.clients.contract import MaskChoice, PromptChoice
from tasks.config.models import GraphFiles, Target
from tasks.inference.graph_file import check_graph, read_graph, tensors_of
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model import AttentionKind
from tasks.model.trained import TrainedModel
from tasks.proof import failures
from tasks.proof.failures import Failure
from tasks.proof.judgement import ONE_CLICK, STORED_AS, largest_differences
from tasks.proof.reports import Proof
from tasks.system.versions import versions

if TYPE_CHECKING:
    import onnx

    from tasks.clients.client import Client
    from tasks.clients.contract import GraphTensors
    from tasks.inference.cases import Case
    from tasks.inference.sessions import Predictions

PACKAGES = (*MODEL_PACKAGES, "onnxruntime", "onnx", "numpy")

TRUTH_SEEDS = range(6)  # images with true masks


def declare(target: Target) -> Stage:
    """The stage that proves a model's graphs in single precision."""
    source, proof = target.source, Proof("verify", target)
    graphs = dict.fromkeys(path for each in single_precision(target) for path in each.values())
    return Stage(
        target.name,
        verify,
        [target],
        reads=[source.checkpoint, *graphs, *source.architecture_files, *source.image_data],
        writes=[proof.path, *examples(target).values()],
        shared="proof",
        inputs={**proof.inputs, **versions(*PACKAGES)},
        also_runs=[
            *source.family_code("computing"),
            *([source.truth] if source.truth else []),
            *([source.images] if source.image_size else []),
        ],
    )


def examples(target: Target) -> GraphFiles:
    """The files that PyTorch makes for other stages, by `VerifyRequest`'s names."""
    if not target.client.encodes:
        return {"embedding": target.embedding}
    return {"clicks": target.clicks} if target.source.truth else {}


def single_precision(target: Target) -> list[GraphFiles]:
    """The graphs with the checkpoint's weights unchanged, in each file format."""
    return [target.image_graphs(each) for each in target.built_variants if not each.is_smaller]


def verify(target: Target, work: Workspace) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report; a `StageError` lists failures."""
    proof, source = Proof("verify", target), target.source
    request = VerifyRequest(
        model=source.trained_model,
        opset=source.opset,
        attention=source.attention,
        client=target.client.key,
        masks=target.masks,
        prompts=target.prompts,
        graphs=tuple(
            {name: str(path) for name, path in graphs.items()}
            for graphs in single_precision(target)
        ),
        truth=source.truth,
        images=source.images if source.image_size else None,
        **{name: str(work.unfinished(path)) for name, path in examples(target).items()},
    )
    figures = work.run("tasks.verify:measure", request)
    memory = {"peak_memory": figures.pop("peak_memory")}
    failures = proof.conclude(figures)
    if failures:
        raise proof.error("outputs differ from PyTorch", failures, work.log)
    work.deliver(*examples(target).values())
    return {"summary": summary_of(figures) + describe_peak(memory), **memory}


def summary_of(figures: Mapping[str, Any]) -> str:
    """The figures on one line, for people."""
    largest = largest_differences(figures["differences"])
    encoder = largest["encoder"]
    summary = (
        f"equals PyTorch: {'' if encoder is None else f'encoder {encoder:.1g} of largest, '}masks "
        f"{largest['masks']:.1g} logits, scores {largest['scores']:.1g}, "
        f"{len(figures['differences']['prompts'])} prompts"
    )
    if figures["truth"]:
        summary += f"; IoU with the truth from one click {figures['truth']['iou'][ONE_CLICK]:.3f}"
    if figures["placement"]:
        stretched = figures["placement"]["mask_iou"]
        summary += (
            f"; images that are not square: IoU with the stretched image's masks "
            f"{stretched['mean']:.3f}, worst {stretched['worst']:.3f}"
        )
    if embeddings := figures.get("embeddings"):
        least = embeddings["stored"]["int8"]["mask_iou"]["mean"]
        summary += f"; IoU from embeddings stored as int8 {least:.4f}"
    if native := figures.get("native"):
        summary += (
            f"; IoU with PyTorch's masks at {native['image_size']} pixels "
            f"{native['mask_iou']['mean']:.3f}, worst {native['mask_iou']['worst']:.3f}"
        )
    return summary


@dataclass(frozen=True)
class VerifyRequest:
    """The files to measure, by graph name, and what they must be.

    ``graphs`` are the files of single precision, ONNX first. ``truth`` draws images with true
    masks; PyTorch's masks of these, for a picture, go to ``clicks``. ``images`` draws images for a
    model whose image size differs from that of its weights. PyTorch's embedding of a non-square
    image, for a decoder without an encoder, goes to ``embedding``.
    """

    model: TrainedModel
    opset: int
    attention: AttentionKind
    client: str
    masks: MaskChoice
    prompts: PromptChoice
    graphs: tuple[Mapping[str, str], ...]
    truth: str | None = None
    images: str | None = None
    clicks: str | None = None
    embedding: str | None = None


def measure(request: VerifyRequest) -> dict[str, Any]:
    """Compare a model's graphs with PyTorch (runs in a child process).

    :returns: the hashes of ``files`` and of the files they were measured ``against``; the
        recognized ``architecture``; ``violations`` of the contract and the ``tensors`` of the
        graphs; and, if there are no violations, the result of `compare_answers`.
    """
    from tasks.clients.contract import as_json
    from tasks.clients.registry import client_by_key
    from tasks.inference import clicks, embedding
    from tasks.inference.cases import cases_for
    from tasks.inference.reference import Reference
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    files = {path: path for graphs in request.graphs for path in graphs.values()}
    with unchanged(files) as hashes, unchanged(request.model.files()) as against:
        reference = Reference(request.model)
        client = client_by_key(request.client)
        contract = client.contract(reference.dimensions, request.masks, request.prompts)
        tensors = [read_tensors(graphs) for graphs in request.graphs]
        broken = [failure for each in tensors for failure in violations(contract, each)]
        for name, path in request.graphs[0].items():
            broken += option_mismatches(name, read_graph(path), request.opset, request.attention)
        compared = NOT_COMPARED
        if not broken:  # broken graphs cannot be fed
            many = request.prompts == "many"
            cases = cases_for(reference, client, request.masks, many, request.truth)
            if request.truth is not None and request.clicks is not None:
                clicked = clicks.click_on_images(reference, client, request.masks, request.truth)
                clicks.write(request.clicks, clicked)
            if request.embedding is not None:
                prompted, name = cases[-1].prompted, reference.architecture
                embedding.write(request.embedding, prompted, client, name)
            reference.model = None  # before onnxruntime needs the memory
            compared = compare_answers(request, client, cases)
    return {
        "files": {Path(path).name: sha256 for path, sha256 in hashes.items()},
        "against": against,
        "architecture": reference.architecture,
        "violations": failures.as_json(broken),
        "tensors": as_json(tensors[0] if broken else contract),
        **compared,
    }


NOT_COMPARED: dict[str, Any] = {
    "differences": {"features": {}, "prompts": {}},
    "truth": None,
    "placement": None,
    "native": None,
}


def compare_answers(
    request: VerifyRequest, client: Client, cases: Sequence[Case]
) -> dict[str, Any]:
    """Compare the graphs' answers with PyTorch's.

    :param cases: the square image first.
    :returns: ``differences``, see `sessions.differences`; ``truth``, see `truth.measure`, or None;
        ``placement`` and ``native``, see `cases.cost_of_placement` and `cases.cost_of_size`; for a
        decoder without an encoder also ``embeddings``, see `cases.cost_of_storage`.
    """
    from tasks.inference import truth
    from tasks.inference.cases import OBJECTS, cost_of_placement, cost_of_size, cost_of_storage

    graphs = request.graphs[0]
    answers = run_on(graphs, cases, client)
    differences = differences_of(answers, cases)
    for others in request.graphs[1:]:
        square = run_on(others, cases[:1], client)
        differences += differences_of(square, cases[:1], f" by {Path(others['encoder']).name}")
    true = native = None
    if request.truth is not None and client.encodes:
        draw = truth.load(request.truth)
        segmenter = truth.Segmenter(graphs["encoder"], graphs["decoder"], client)
        true = truth.measure(segmenter, draw, TRUTH_SEEDS, OBJECTS)
    if request.images is not None:
        own_size = replace(request.model, image_size=None)
        native = cost_of_size(graphs, client, request.masks, own_size, request.images)
        if request.truth is None:
            native["truth"] = None  # not its own images
    costs = {}
    if not client.encodes:
        costs["embeddings"] = cost_of_storage(graphs, cases, client, STORED_AS)
    return {
        **costs,
        "differences": merge_differences(differences),
        "truth": true,
        "placement": cost_of_placement(cases[1:], answers[1:], client),
        "native": native,
    }


def read_tensors(graphs: Mapping[str, str]) -> dict[str, GraphTensors]:
    """The inputs and outputs of a variant's files, by graph name; ONNX files pass `check_graph`."""
    tensors = {}
    for name, path in graphs.items():
        tensors[name] = tensors_of(path)
        if path.endswith(".onnx"):
            check_graph(path)
    return tensors


def run_on(graphs: Mapping[str, str], cases: Sequence[Case], client: Client) -> list[Predictions]:
    """The answers of a variant's files to each case."""
    from tasks.inference.sessions import run_graphs

    return run_graphs(graphs, [each.prompted for each in cases], client)


def differences_of(
    answers: Sequence[Predictions], cases: Sequence[Case], by: str = ""
) -> list[dict[str, Any]]:
    """How answers differ from PyTorch's, for each case; ``by`` is added to the prompts' names."""
    from tasks.inference.sessions import differences

    parts = [differences(each, case.expected) for each, case in zip(answers, cases, strict=True)]
    for part, case in zip(parts, cases, strict=True):
        prompts = part["prompts"].items()
        part["prompts"] = {f"{name}{by}{case.where}": each for name, each in prompts}
    return parts


def merge_differences(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The differences of all prompts, and each feature's largest; None if one is not a number."""
    from tasks.inference.checks import largest

    features = {
        name: largest(each["features"].get(name) for each in parts)
        for name in dict.fromkeys(name for each in parts for name in each["features"])
    }
    prompts = {name: each for part in parts for name, each in part["prompts"].items()}
    return {"features": features, "prompts": prompts}


def option_mismatches(
    name: str, graph: onnx.ModelProto, opset: int, attention: AttentionKind
) -> list[Failure]:
    """Where a graph's opset or attention differs from the configured one."""
    broken = []
    opsets = {each.domain: each.version for each in graph.opset_import}
    if opsets.get("") != opset:
        broken.append(Failure("option", opsets.get(""), opset, graph=name, tensor="opset"))
    fused = any(node.op_type == "MultiHeadAttention" for node in graph.graph.node)
    if name == "encoder" and fused != (attention == "fused"):
        is_now = "fused" if fused else "plain"
        broken.append(Failure("option", is_now, attention, graph=name, tensor="attention"))
    return broken
