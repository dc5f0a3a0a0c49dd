"""The graphs proven against PyTorch, in onnxruntime.

First the form (a graph in one file, onnx.checker, the client's contract, what the configuration
asks of the graphs), then the numbers: every output for one image and prompts with every value of
every input, one at a time and at once, and for two images that are not square, against sam2's own
`SAM2ImagePredictor`. Files of single precision in another format are asked the same about the
square image. Target: ``verify.json``, the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.config.models import AttentionKind, GraphFiles, Target
from tasks.inference.graph_file import read_graph
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.proof import failures
from tasks.proof.failures import Failure
from tasks.proof.judgement import ONE_CLICK, largest_differences
from tasks.proof.reports import Proof
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from sam2.modeling.sam2_base import SAM2Base

    from tasks.clients.client import Client
    from tasks.clients.contract import GraphTensors, MaskChoice, PromptChoice, Resize
    from tasks.inference.prompts import Prompt
    from tasks.inference.sessions import Predictions, PromptedImage

PACKAGES = (*MODEL_PACKAGES, "onnxruntime", "onnx", "numpy")

# Of images with known masks: a few.
TRUTH_SEEDS = range(6)
TRUTH_OBJECTS = 4
# On which a model of another image size is held against its weights' own.
NATIVE_IMAGES = 4


def declare(target: Target) -> Stage:
    """The proof of a model's graphs in single precision."""
    source, proof = target.source, Proof("verify", target)
    graphs = [path for each in single_precision(target) for path in each.values()]
    return Stage(
        target.name,
        verify,
        [target],
        reads=[
            source.checkpoint,
            *dict.fromkeys(graphs),
            *source.architecture_files,
            *source.image_data,
        ],
        writes=[proof.path],
        shared="proof",
        inputs={**proof.inputs, **versions(*PACKAGES)},
        also_runs=[
            *([source.truth] if source.truth else []),
            *([source.images] if source.image_size else []),
        ],
    )


def single_precision(target: Target) -> list[GraphFiles]:
    """The graphs whose weights are as the checkpoint has them, in each file format."""
    return [target.image_graphs(each) for each in target.built_variants if not each.is_smaller]


def verify(target: Target, work: Workspace) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: naming each figure beyond its tolerance.
    """
    proof = Proof("verify", target)
    figures = work.run(
        "tasks.verify:measure",
        **proof.options,
        architecture_files=target.source.architecture_files,
        checkpoint=str(target.source.checkpoint),
        graphs=[
            {name: str(path) for name, path in graphs.items()}
            for graphs in single_precision(target)
        ],
    )
    memory = {"peak_memory": figures.pop("peak_memory")}
    failures = proof.conclude(figures)
    if failures:
        raise proof.error("outputs differ from PyTorch", failures, work.log)
    return {"summary": summary_of(figures) + describe_peak(memory), **memory}


def summary_of(figures: Mapping[str, Any]) -> str:
    """The figures on a line, for people."""
    largest = largest_differences(figures["differences"])
    summary = (
        f"equals PyTorch: encoder {largest['encoder']:.1g} of largest, masks "
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
    if native := figures.get("native"):
        summary += (
            f"; IoU with PyTorch's masks at {native['image_size']} pixels "
            f"{native['mask_iou']['mean']:.3f}, worst {native['mask_iou']['worst']:.3f}"
        )
    return summary


def measure(
    architecture: str,
    opset: int,
    attention: AttentionKind,
    masks: MaskChoice,
    prompts: PromptChoice,
    client: str,
    truth: str | None,
    architecture_files: list[str],
    checkpoint: str,
    graphs: list[dict[str, str]],
    image_size: int | None = None,
    images: str | None = None,
) -> dict[str, Any]:
    """Compare a model's graphs with PyTorch (runs in a child process).

    :param client: whose contract it is; its name.
    :param graphs: the files of single precision by the graph's name; ONNX first, then those of
        other formats.
    :param images: the function that draws what a model of another ``image_size`` than its weights'
        is asked about.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``violations`` of the contract; the ``tensors`` of the graphs; ``differences``, see
        `sessions.differences`; the ``architecture``, recognized; ``truth``, what `truth.measure`
        makes of the images that the function of that name draws, or None; ``placement``, see
        `placement_of`; ``native``, see `compare_with_native`, or None.
    """
    from tasks.clients.client import named
    from tasks.clients.contract import as_json, dimensions_of
    from tasks.inference import truth as known_masks
    from tasks.model import load
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    loads = named(client)
    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    judged = {path: path for variant in graphs for path in variant.values()}
    with unchanged(judged) as files, unchanged(subject) as against:
        architecture = load.recognized(architecture, checkpoint)
        model = load.load_model(architecture, checkpoint, image_size)
        contract = loads.contract(dimensions_of(model), masks, prompts)
        tensors = [read_tensors(variant) for variant in graphs]
        broken = [failure for each in tensors for failure in violations(contract, each)]
        for name, path in graphs[0].items():
            broken += option_mismatches(name, read_graph(path), opset, attention)
        report: dict[str, Any] = {
            "files": {Path(path).name: sha256 for path, sha256 in files.items()},
            "against": against,
            "violations": failures.as_json(broken),
            "tensors": as_json(tensors[0] if broken else contract),
            "differences": {"features": {}, "prompts": {}},
            "architecture": architecture,
            "truth": None,
            "placement": None,
        }
        if broken:  # nothing that fits what would be fed
            return report
        cases = answers_of_pytorch(model, loads, masks, prompts == "many", truth)
        del model
        by_case = run_on(graphs[0], cases, loads)
        compared = [differences_of(by_case, cases)]
        for variant in graphs[1:]:
            answers = run_on(variant, cases[:1], loads)
            compared.append(differences_of(answers, cases, f" by {Path(variant['encoder']).name}"))
        report |= {
            "differences": merge_differences([each for part in compared for each in part]),
            "placement": placement_of(cases[1:], by_case[1:], loads),
            "truth": truth
            and known_masks.measure(
                graphs[0]["encoder"],
                graphs[0]["decoder"],
                known_masks.load(truth),
                TRUTH_SEEDS,
                TRUTH_OBJECTS,
                loads,
            ),
            "native": images
            and compare_with_native(
                graphs[0], loads, masks, architecture, checkpoint, images, known=truth is not None
            ),
        }
    return report


def read_tensors(graphs: Mapping[str, str]) -> dict[str, GraphTensors]:
    """The inputs and outputs of a variant's files, by the graph's name.

    :raises StageError: when one is no valid graph, or refers to another file.
    """
    import onnx

    from tasks.inference.graph_file import tensors_of
    from tasks.inference.sessions import tensors_in

    tensors = {}
    for name, path in graphs.items():
        if not path.endswith(".onnx"):
            tensors[name] = tensors_in(path)
            continue
        tensors[name] = tensors_of(read_graph(path))
        try:
            onnx.checker.check_model(path, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise StageError(f"{path} is no valid ONNX graph: {error}") from error
    return tensors


@dataclass(frozen=True)
class Case:
    """An image with prompts, as its client sends them, and what PyTorch answers.

    ``where`` is appended to the names of the prompts. For an image that is not square, ``shape``
    has its prompts, and ``stretched`` PyTorch's answers about it as it is prepared in training,
    where the client prepares it otherwise.
    """

    where: str
    asked: PromptedImage
    expected: Predictions
    shape: OtherShape | None = None
    stretched: Predictions | None = None


def answers_of_pytorch(
    model: SAM2Base, client: Client, masks: MaskChoice, many: bool, truth: str | None
) -> list[Case]:
    """PyTorch's answers about a square image, every value of every input, and two other images.

    :param many: the decoder takes many prompts in a run.
    :param truth: the function that draws the other images, or None.
    """
    from tasks.inference import reference
    from tasks.inference.images import natural_image
    from tasks.inference.prompts import answerable, runs_of_every_value
    from tasks.inference.sessions import PromptedImage

    predictor = reference.predictor_of(model, client.resize)
    image = natural_image(model.image_size)
    runs = runs_of_every_value(client, many)
    expected = reference.predict(predictor, image, runs.prompts, masks, client)
    asked = PromptedImage(image, runs.alone, expected.mask_inputs, runs.at_once)
    cases = [Case("", asked, expected)]
    for other in images_of_other_shapes(model.image_size, truth):
        prompts = answerable(other.prompts, client)
        expected = reference.predict(predictor, other.image, prompts, masks, client)
        stretched = None
        if client.resize != "stretch":
            usual = reference.predictor_of(model)
            stretched = reference.predict(usual, other.image, prompts, "multi")
        asked = PromptedImage(other.image, prompts, expected.mask_inputs)
        cases.append(Case(f" on {other.shape}", asked, expected, other, stretched))
    return cases


def run_on(graphs: Mapping[str, str], cases: Sequence[Case], client: Client) -> list[Predictions]:
    """What a variant's files answer about each case."""
    from tasks.inference.sessions import run_graphs

    return run_graphs(graphs["encoder"], graphs["decoder"], [each.asked for each in cases], client)


def differences_of(
    answers: Sequence[Predictions], cases: Sequence[Case], by: str = ""
) -> list[dict[str, Any]]:
    """How answers differ from PyTorch's, for each case.

    :param by: appended to the names of the prompts.
    """
    from tasks.inference.sessions import differences

    return [
        label_prompts(differences(answer, case.expected), by + case.where)
        for answer, case in zip(answers, cases, strict=False)
    ]


def compare_with_native(
    graphs: Mapping[str, str],
    client: Client,
    masks: MaskChoice,
    architecture: str,
    checkpoint: str,
    draw: str,
    known: bool,
) -> dict[str, Any]:
    """What it costs that images are of another size than the weights were trained on.

    :param graphs: of that other size, by name.
    :param draw: the function that draws images; ``known``: it is the model's own ``truth``.
    :returns: the weights' own ``image_size``; how many ``prompts`` about how many ``images``;
        ``mask_iou`` with PyTorch's masks at that size (``mean``, ``worst``); and ``truth``, the
        mean IoU with the true masks ``here`` and of the ``native`` model, or None.
    """
    import numpy as np

    from tasks.inference import reference
    from tasks.inference import truth as known_masks
    from tasks.inference.metrics import mask_iou
    from tasks.inference.preprocessing import Placement, masks_over
    from tasks.inference.prompts import answerable
    from tasks.model import load

    model = load.load_model(architecture, checkpoint)
    size = model.image_size
    predictor = reference.predictor_of(model)
    segmenter = known_masks.Segmenter(graphs["encoder"], graphs["decoder"], client)
    ious: list[float] = []
    true: dict[str, list[float]] = {"here": [], "native": []}
    for drawn in known_masks.draw_images(known_masks.load(draw), size, NATIVE_IMAGES):
        numbers = known_masks.objects_of(drawn)
        wanted = drawn.labels == numbers[len(numbers) // 2]  # what the prompts are about
        prompts = [
            each
            for each in answerable(known_masks.prompts_about(drawn), client)
            if each.refines is None
        ]
        expected = reference.predict(predictor, drawn.image, prompts, masks)
        segmenter.set_image(drawn.image)
        for prompt in prompts:
            answer = segmenter.predict(prompt)
            here = answer.masks[int(answer.scores.argmax())]
            logits = expected.best_mask(prompt.name)
            native = masks_over(logits, Placement(size, size, size, "stretch"))[0] > 0
            ious.append(mask_iou(here, native))
            true["here"].append(mask_iou(here, wanted))
            true["native"].append(mask_iou(native, wanted))
    return {
        "image_size": size,
        "images": NATIVE_IMAGES,
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "truth": {key: float(np.mean(each)) for key, each in true.items()} if known else None,
    }


class OtherShape(NamedTuple):
    """An image (H, W, 3) that is not square, prompts about it, and the objects that they ask for.

    ``truths``: the mask (H, W) of each prompt's object, where that is known.
    """

    shape: str
    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    truths: Mapping[str, NDArray[np.bool_]]


# Width and height of what is cut out of a square.
SHAPES = {"a 2:1 image": (1.0, 1 / 2), "a 1:3 image": (1 / 3, 1.0)}


def images_of_other_shapes(size: int, truth: str | None) -> list[OtherShape]:
    """Images that are not square and not of the input's size.

    Parts of drawn images, where a function draws some; else a seeded natural one.
    """
    from tasks.inference import images
    from tasks.inference import truth as known_masks
    from tasks.inference.prompts import PROMPTS

    side = 5 * size // 4
    found = []
    for shape, (width, height) in SHAPES.items():
        if truth is None:
            image = images.natural_image(round(side * height), round(side * width))
            found.append(OtherShape(shape, image, PROMPTS, {}))
            continue
        draw = known_masks.load(truth)
        parts = (known_masks.part_of(draw(seed, side), width, height) for seed in range(100))
        part = next((each for each in parts if known_masks.objects_of(each)), None)
        if part is None:
            raise StageError(f"{truth} draws no object in the middle of 100 images")
        prompts, truths = [], {}
        for number in known_masks.objects_of(part)[:TRUTH_OBJECTS]:
            mask = part.labels == number
            for prompt in known_masks.prompts_for(mask, str(number)):
                prompts.append(prompt)
                truths[prompt.name] = mask
        found.append(OtherShape(shape, part.image, prompts, truths))
    return found


def placement_of(
    cases: Sequence[Case], answers: Sequence[Predictions], client: Client
) -> dict[str, Any] | None:
    """What it costs that a client does not stretch images, as the model was trained.

    :param cases: those of images that are not square.
    :returns: ``mask_iou`` with the stretched image's masks (``mean``, ``worst``), and ``truth``,
        the mean IoU with the true masks of both, where they are known; None for a client that
        stretches.
    """
    import numpy as np

    from tasks.inference.metrics import mask_iou
    from tasks.inference.preprocessing import Placement, masks_over

    if client.resize == "stretch":
        return None
    ious: list[float] = []
    true: dict[Resize, list[float]] = {client.resize: [], "stretch": []}
    for case, own in zip(cases, answers, strict=True):
        other, usual = case.shape, case.stretched
        assert other is not None
        assert usual is not None
        height, width = other.image.shape[:2]
        for prompt in other.prompts:
            if prompt.name not in own.masks:
                continue
            size = 4 * own.masks[prompt.name].shape[-1]
            answers_by: dict[Resize, Predictions] = {client.resize: own, "stretch": usual}
            masks = {
                resize: masks_over(
                    answer.best_mask(prompt.name), Placement(size, width, height, resize)
                )[0]
                > 0
                for resize, answer in answers_by.items()
            }
            ious.append(mask_iou(*masks.values()))
            if prompt.name in other.truths:
                for resize, mask in masks.items():
                    true[resize].append(mask_iou(mask, other.truths[prompt.name]))
    return {
        "resize": client.resize,
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "truth": {name: float(np.mean(values)) for name, values in true.items() if values} or None,
    }


def label_prompts(differences: dict[str, Any], where: str) -> dict[str, Any]:
    """Differences whose prompts say where they were sent."""
    return {
        **differences,
        "prompts": {f"{name}{where}": each for name, each in differences["prompts"].items()},
    }


def merge_differences(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All prompts' differences, and of each feature the largest, None if one is not a number."""
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
